/* fuzz: proxy */
/*
 * PROXY headers: a verdict never changes when more bytes come, more is asked for only within bounds, and a
 * client address is IPv4 or IPv6.
 */
#include "proxy/proxy_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header whole, part;
    enum parse_result result = proxy_protocol_parse(slice_of(data, size), &whole);
    if (result == PARSE_MORE)
        check(size < PROXY_V1_MAX);
    if (result == PARSE_DONE && whole.has_client)
        check(whole.client.socket.any.sa_family == AF_INET ||
              whole.client.socket.any.sa_family == AF_INET6);
    for (size_t len = 0; len < size && len <= PROXY_V1_MAX; len++) {
        switch (proxy_protocol_parse(slice_of(data, len), &part)) {
        case PARSE_MORE:
            break;
        case PARSE_BAD:
            check(result == PARSE_BAD);
            break;
        case PARSE_DONE:
            check(result == PARSE_DONE && part.header_len == whole.header_len);
            check(part.has_client == whole.has_client);
            check(!part.has_client || address_equals(&part.client, &whole.client));
            break;
        }
    }
    return 0;
}
