#include "shared/cidr.h"

#include <arpa/inet.h>

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool prefix_equals(const uint8_t a[16], const uint8_t b[16], unsigned bits)
{
    if (memcmp(a, b, bits / 8) != 0)
        return false;
    unsigned rest = bits % 8;
    return rest == 0 || (a[bits / 8] ^ b[bits / 8]) >> (8 - rest) == 0;
}

static bool parse_ip(struct slice text, uint8_t bytes[16], bool *is_v4)
{
    char name[INET6_ADDRSTRLEN];
    if (text.len >= sizeof(name) || memchr(text.data, '\0', text.len) != NULL)
        return false;
    memcpy(name, text.data, text.len);
    name[text.len] = '\0';
    *is_v4 = inet_pton(AF_INET, name, bytes + 12) == 1;
    if (*is_v4) {
        memcpy(bytes, v4_prefix, sizeof(v4_prefix));
        return true;
    }
    return inet_pton(AF_INET6, name, bytes) == 1;
}

bool cidr_parse(struct slice text, struct cidr *cidr, const char **why)
{
    size_t slash = slice_find(text, '/');
    struct cidr parsed = {0};
    bool is_v4;
    if (slash == 0 || !parse_ip(slice_to(text, slash), parsed.bytes, &is_v4)) {
        *why = "is not an IP address or a network (10.0.0.0/8, 2001:db8::/32)";
        return false;
    }
    uint64_t bits = is_v4 ? 32 : 128;
    if (slash < text.len &&
        !slice_to_number(slice_from(text, slash + 1), 0, bits, &bits)) {
        *why = is_v4 ? "the prefix is not a number in 0..32"
                     : "the prefix is not a number in 0..128";
        return false;
    }
    parsed.bits = (uint8_t)(bits + (is_v4 ? 96 : 0));
    for (unsigned bit = parsed.bits; bit < 128; bit++)
        if (parsed.bytes[bit / 8] & (0x80 >> (bit % 8))) {
            *why = "has address bits behind the prefix";
            return false;
        }
    *cidr = parsed;
    return true;
}

bool cidr_contains(const struct cidr *cidr, const struct address *address)
{
    uint8_t bytes[16];
    if (address->socket.any.sa_family == AF_INET) {
        memcpy(bytes, v4_prefix, sizeof(v4_prefix));
        memcpy(bytes + 12, &address->socket.v4.sin_addr, 4);
    } else if (address->socket.any.sa_family == AF_INET6) {
        memcpy(bytes, &address->socket.v6.sin6_addr, 16);
    } else {
        return false;
    }
    return prefix_equals(cidr->bytes, bytes, cidr->bits);
}

bool cidr_list_contains(const struct cidr_list *list, const struct address *address)
{
    for (size_t i = 0; i < list->count; i++)
        if (cidr_contains(&list->items[i], address))
            return true;
    return false;
}
