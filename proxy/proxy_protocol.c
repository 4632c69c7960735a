/*
 *     bytes ─┬─ begin like "PROXY " ──▶ one line, its words are judged when the CRLF is there
 *            ├─ begin like the signature ─▶ version ─▶ family ─▶ length ─▶ addresses
 *            └─ neither ─▶ PARSE_BAD at the first byte that fits neither
 *
 * Addresses of version 1 are strict: decimal ports without leading zeros, what inet_pton takes, one space.
 */
#include "proxy/proxy_protocol.h"

#include <arpa/inet.h>

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

enum {
    V2_FIXED = 16, /* signature, command, family, length */
    V2_IPV4 = 12,  /* two addresses, two ports */
    V2_IPV6 = 36,
    V2_UNIX = 216,
};

/* True when `data` begins with `text`, as far as it goes. */
static bool agrees(struct slice data, struct slice text)
{
    return memcmp(data.data, text.data, min_size(data.len, text.len)) == 0;
}

static void set_client(struct proxy_header *header, int family, const void *ip,
                       uint16_t port_big_endian)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port_big_endian};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port_big_endian};
    header->has_client = true;
    if (family == AF_INET) {
        memcpy(&v4.sin_addr, ip, sizeof v4.sin_addr);
        header->client = address_from_socket((const struct sockaddr *)&v4, sizeof v4);
    } else {
        memcpy(&v6.sin6_addr, ip, sizeof v6.sin6_addr);
        header->client = address_from_socket((const struct sockaddr *)&v6, sizeof v6);
    }
}

/* ---- version 1 ---- */

static bool parse_ip(int family, struct slice word, struct in6_addr *ip)
{
    char text[INET6_ADDRSTRLEN];
    if (word.len == 0 || word.len >= sizeof text || memchr(word.data, '\0', word.len))
        return false;
    memcpy(text, word.data, word.len);
    text[word.len] = '\0';
    return inet_pton(family, text, ip) == 1;
}

static bool parse_port(struct slice word, uint16_t *port)
{
    uint64_t number;
    if (word.len > 5 || (word.len > 1 && word.data[0] == '0') ||
        !slice_to_number(word, 0, 65535, &number))
        return false;
    *port = htons((uint16_t)number);
    return true;
}

/* `line` is what stands between "PROXY " and CRLF. */
static enum parse_result judge_line(struct slice line, struct proxy_header *header)
{
    struct slice word, from, to, from_port, to_port;
    bool has_family = slice_cut(&line, ' ', &word);
    if (has_family && slice_equals(word, SLICE("UNKNOWN")))
        return PARSE_DONE; /* whatever follows is to be ignored */
    int family = slice_equals(word, SLICE("TCP4"))   ? AF_INET
                 : slice_equals(word, SLICE("TCP6")) ? AF_INET6
                                                     : AF_UNSPEC;
    struct in6_addr ip, own_ip;
    uint16_t port, own_port;
    if (family == AF_UNSPEC || !slice_cut(&line, ' ', &from) ||
        !slice_cut(&line, ' ', &to) || !slice_cut(&line, ' ', &from_port) ||
        !slice_cut(&line, ' ', &to_port) || line.data != NULL ||
        !parse_ip(family, from, &ip) || !parse_ip(family, to, &own_ip) ||
        !parse_port(from_port, &port) || !parse_port(to_port, &own_port))
        return PARSE_BAD;
    set_client(header, family, &ip, port);
    return PARSE_DONE;
}

static enum parse_result parse_v1(struct slice data, struct proxy_header *header)
{
    static const struct slice word = SLICE_INIT("PROXY ");
    size_t line_len = slice_find(slice_to(data, PROXY_V1_MAX), '\r');
    if (data.len < word.len)
        return PARSE_MORE;
    if (line_len + 2 > PROXY_V1_MAX)
        return PARSE_BAD;
    if (line_len + 1 >= data.len)
        return PARSE_MORE;
    if (data.data[line_len + 1] != '\n')
        return PARSE_BAD;
    header->header_len = line_len + 2;
    return judge_line(slice_from(slice_to(data, line_len), word.len), header);
}

/* ---- version 2 ---- */

static enum parse_result parse_v2(struct slice data, struct proxy_header *header)
{
    const uint8_t *bytes = (const uint8_t *)data.data;
    if (data.len > 12 && bytes[12] != 0x20 && bytes[12] != 0x21)
        return PARSE_BAD; /* another version, or a command that we do not know */
    if (data.len < V2_FIXED)
        return PARSE_MORE;
    size_t len = (size_t)bytes[14] << 8 | bytes[15];
    bool is_local = bytes[12] == 0x20;
    size_t needed = 0;
    switch (bytes[13]) {
    case 0x00: /* UNSPEC */
        is_local = true;
        break;
    case 0x11: /* TCP over IPv4 */
        needed = V2_IPV4;
        break;
    case 0x21: /* TCP over IPv6 */
        needed = V2_IPV6;
        break;
    case 0x31: /* a unix stream: no address of a client */
        needed = V2_UNIX;
        break;
    default:
        if (!is_local)
            return PARSE_BAD;
        break;
    }
    if (!is_local && len < needed)
        return PARSE_BAD;
    header->header_len = V2_FIXED + len;
    if (is_local || needed == V2_UNIX)
        return PARSE_DONE;
    if (data.len < V2_FIXED + needed)
        return PARSE_MORE;
    uint16_t port;
    memcpy(&port, bytes + V2_FIXED + (needed == V2_IPV4 ? 8 : 32), sizeof port);
    set_client(header, needed == V2_IPV4 ? AF_INET : AF_INET6, bytes + V2_FIXED, port);
    return PARSE_DONE;
}

enum parse_result proxy_protocol_parse(struct slice data, struct proxy_header *header)
{
    *header = (struct proxy_header){.has_client = false};
    if (data.len == 0)
        return PARSE_MORE;
    if (agrees(data, SLICE("PROXY ")))
        return parse_v1(data, header);
    if (agrees(data, slice_of(signature, sizeof signature)))
        return parse_v2(data, header);
    return PARSE_BAD;
}
