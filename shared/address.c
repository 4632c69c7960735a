#include "shared/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#define HOST_MAX 253 /* RFC 1035, without the last dot */

static bool parse_unix(struct slice path, struct address *address, const char **why)
{
    if (path.len == 0 || path.data[0] != '/') {
        *why = "unix: needs an absolute path";
        return false;
    }
    if (path.len >= sizeof(address->socket.local.sun_path)) {
        *why = "the path of a unix socket has at most 107 bytes";
        return false;
    }
    if (memchr(path.data, '\0', path.len) != NULL) {
        *why = "the path holds a NUL byte";
        return false;
    }
    memset(address, 0, sizeof(*address));
    address->socket.local.sun_family = AF_UNIX;
    memcpy(address->socket.local.sun_path, path.data, path.len);
    address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
    return true;
}

/* Cuts "host:port" and "[v6]:port". */
static bool split(struct slice text, struct slice *host, bool *is_bracketed,
                  unsigned *port, const char **why)
{
    struct slice rest;
    *is_bracketed = text.len > 0 && text.data[0] == '[';
    if (*is_bracketed) {
        size_t end = slice_find(text, ']');
        if (end == text.len) {
            *why = "\"]\" is missing";
            return false;
        }
        *host = slice_of(text.data + 1, end - 1);
        rest = slice_from(text, end + 1);
    } else {
        size_t colon = slice_find_last(text, ':');
        *host = slice_to(text, colon);
        rest = slice_from(text, colon);
        if (slice_find(*host, ':') < host->len) {
            *why = "an IPv6 address is written [address]:port";
            return false;
        }
    }
    if (rest.len == 0 || rest.data[0] != ':') {
        *why = "the port is missing (host:port, [v6]:port or unix:/path)";
        return false;
    }
    uint64_t number;
    if (!slice_to_number(slice_from(rest, 1), 0, 65535, &number)) {
        *why = "the port is not a number in 0..65535";
        return false;
    }
    *port = (unsigned)number;
    return true;
}

static struct address address_v4(struct in_addr ip, unsigned port)
{
    struct address address;
    memset(&address, 0, sizeof(address));
    address.len = sizeof(address.socket.v4);
    address.socket.v4.sin_family = AF_INET;
    address.socket.v4.sin_port = htons((uint16_t)port);
    address.socket.v4.sin_addr = ip;
    return address;
}

static struct address address_v6(struct in6_addr ip, unsigned port)
{
    struct address address;
    memset(&address, 0, sizeof(address));
    address.len = sizeof(address.socket.v6);
    address.socket.v6.sin6_family = AF_INET6;
    address.socket.v6.sin6_port = htons((uint16_t)port);
    address.socket.v6.sin6_addr = ip;
    return address;
}

/* Host and port apart: numeric forms only. False without *why when the host is something else. */
static bool parse_numeric(struct slice host, bool is_bracketed, unsigned port,
                          struct address *address, const char **why)
{
    *why = NULL;
    if (host.len == 0) {
        *why = "the host is missing (every IPv4 address is 0.0.0.0, every address [::])";
        return false;
    }
    if (slice_equals(host, SLICE("*"))) {
        *why =
            "\"*\" is not an address (every IPv4 address is 0.0.0.0, every address [::])";
        return false;
    }
    char name[INET6_ADDRSTRLEN];
    if (host.len >= sizeof(name)) {
        if (is_bracketed)
            *why = "what stands in [] is not an IPv6 address";
        return false;
    }
    memcpy(name, host.data, host.len);
    name[host.len] = '\0';
    struct in_addr v4;
    struct in6_addr v6;
    if (is_bracketed) {
        if (strlen(name) != host.len || inet_pton(AF_INET6, name, &v6) != 1) {
            *why = "what stands in [] is not an IPv6 address";
            return false;
        }
        *address = address_v6(v6, port);
        return true;
    }
    if (strlen(name) != host.len || inet_pton(AF_INET, name, &v4) != 1)
        return false;
    *address = address_v4(v4, port);
    return true;
}

bool address_parse(struct slice text, struct address *address, const char **why)
{
    if (slice_starts_with(text, SLICE("unix:")))
        return parse_unix(slice_from(text, 5), address, why);
    struct slice host;
    bool is_bracketed;
    unsigned port;
    if (!split(text, &host, &is_bracketed, &port, why))
        return false;
    if (parse_numeric(host, is_bracketed, port, address, why))
        return true;
    if (*why == NULL)
        *why = "the host is not a numeric address";
    return false;
}

/* Letters, digits, dots, hyphens, underscores, and not only digits and dots: what is not an IPv4 address by
 * inet_pton must not become one by getaddrinfo ("127.1", "010.0.0.1"). */
static bool is_host_name(struct slice host)
{
    if (host.len > HOST_MAX + 1)
        return false;
    bool has_letter = false;
    for (size_t i = 0; i < host.len; i++) {
        char byte = host.data[i];
        bool is_letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
        bool is_digit = byte >= '0' && byte <= '9';
        has_letter = has_letter || is_letter;
        if (!is_letter && !is_digit && byte != '.' && byte != '-' && byte != '_')
            return false;
    }
    return has_letter && !slice_starts_with(host, SLICE("0x"));
}

bool address_parse_or_name(struct slice text, struct address *address, struct slice *host,
                           unsigned *port, const char **why)
{
    bool is_bracketed;
    *host = slice_of(NULL, 0);
    if (slice_starts_with(text, SLICE("unix:")))
        return parse_unix(slice_from(text, 5), address, why);
    struct slice name;
    if (!split(text, &name, &is_bracketed, port, why))
        return false;
    if (parse_numeric(name, is_bracketed, *port, address, why))
        return true;
    if (*why != NULL)
        return false;
    if (!is_host_name(name)) {
        *why = "the host is neither a numeric address nor a host name";
        return false;
    }
    *host = name;
    return true;
}

void address_set_port(struct address *address, unsigned port)
{
    if (address->socket.any.sa_family == AF_INET6)
        address->socket.v6.sin6_port = htons((uint16_t)port);
    else if (address->socket.any.sa_family == AF_INET)
        address->socket.v4.sin_port = htons((uint16_t)port);
}

bool address_resolve(struct slice text, struct address *address, const char **why)
{
    struct slice host;
    unsigned port;
    if (!address_parse_or_name(text, address, &host, &port, why))
        return false;
    if (host.len == 0)
        return true;
    char *name = slice_dup(host);
    struct addrinfo wish = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(name, NULL, &wish, &found);
    free(name);
    if (error != 0) {
        *why = gai_strerror(error);
        return false;
    }
    check(found != NULL);
    struct addrinfo *best = found;
    for (struct addrinfo *one = found; one != NULL; one = one->ai_next)
        if (one->ai_family == AF_INET) {
            best = one;
            break;
        }
    *address = address_from_socket(best->ai_addr, best->ai_addrlen);
    freeaddrinfo(found);
    address_set_port(address, port);
    return true;
}

struct address address_from_socket(const struct sockaddr *any, socklen_t len)
{
    struct address address;
    memset(&address, 0, sizeof(address));
    address.len = (socklen_t)min_size(len, sizeof(address.socket));
    if (address.len > 0)
        memcpy(&address.socket, any, address.len);
    return address;
}

static struct slice unix_path(const struct address *address)
{
    size_t begin = offsetof(struct sockaddr_un, sun_path);
    if (address->len <= begin)
        return slice_of("", 0);
    const char *path = address->socket.local.sun_path;
    return slice_of(path, strnlen(path, address->len - begin));
}

const char *address_ip_text(const struct address *address, char text[ADDRESS_TEXT_SIZE])
{
    text[0] = '\0';
    if (address->socket.any.sa_family == AF_INET)
        inet_ntop(AF_INET, &address->socket.v4.sin_addr, text, ADDRESS_TEXT_SIZE);
    else if (address->socket.any.sa_family == AF_INET6) {
        const struct in6_addr *ip = &address->socket.v6.sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(ip))
            inet_ntop(AF_INET, &ip->s6_addr[12], text, ADDRESS_TEXT_SIZE);
        else
            inet_ntop(AF_INET6, ip, text, ADDRESS_TEXT_SIZE);
    }
    return text;
}

const char *address_text(const struct address *address, char text[ADDRESS_TEXT_SIZE])
{
    if (address_is_unix(address)) {
        snprintf(text, ADDRESS_TEXT_SIZE, "unix:%.*s", SLICE_ARGS(unix_path(address)));
        return text;
    }
    char ip[ADDRESS_TEXT_SIZE];
    address_ip_text(address, ip);
    bool is_v6 = strchr(ip, ':') != NULL;
    snprintf(text, ADDRESS_TEXT_SIZE, is_v6 ? "[%.*s]:%u" : "%.*s:%u", INET6_ADDRSTRLEN,
             ip, address_port(address));
    return text;
}

unsigned address_port(const struct address *address)
{
    if (address->socket.any.sa_family == AF_INET)
        return ntohs(address->socket.v4.sin_port);
    if (address->socket.any.sa_family == AF_INET6)
        return ntohs(address->socket.v6.sin6_port);
    return 0;
}

bool address_equals(const struct address *a, const struct address *b)
{
    if (a->socket.any.sa_family != b->socket.any.sa_family)
        return false;
    if (address_is_unix(a))
        return slice_equals(unix_path(a), unix_path(b));
    if (a->socket.any.sa_family == AF_INET)
        return a->socket.v4.sin_port == b->socket.v4.sin_port &&
               a->socket.v4.sin_addr.s_addr == b->socket.v4.sin_addr.s_addr;
    return a->socket.v6.sin6_port == b->socket.v6.sin6_port &&
           a->socket.v6.sin6_scope_id == b->socket.v6.sin6_scope_id &&
           memcmp(&a->socket.v6.sin6_addr, &b->socket.v6.sin6_addr, 16) == 0;
}
