#include "proxy/proxy_header_read.h"

#include <errno.h>
#include <sys/socket.h>

enum { SKIP_BYTES = 4096 }; /* thrown away at a time */

static enum proxy_header_state failed(ssize_t got)
{
    if (got == 0)
        return PROXY_HEADER_ENDED;
    return errno == EAGAIN || errno == EINTR ? PROXY_HEADER_MORE : PROXY_HEADER_FAILED;
}

/* Reads `len` bytes that were peeked already. */
static bool take(int fd, char *bytes, size_t len)
{
    return recv(fd, bytes, len, 0) == (ssize_t)len;
}

static enum proxy_header_state skip_on(int fd, uint32_t *skip)
{
    char bytes[SKIP_BYTES];
    ssize_t got = recv(fd, bytes, min_size(*skip, sizeof bytes), 0);
    if (got <= 0)
        return failed(got);
    *skip -= (uint32_t)got;
    return PROXY_HEADER_NO_CLIENT;
}

enum proxy_header_state proxy_header_read(int fd, struct buffer_pool *pool,
                                          struct buffer **held, uint32_t *skip,
                                          struct proxy_header *header)
{
    char bytes[PROXY_V1_MAX];
    size_t had = buffer_len(*held);
    if (*skip > 0)
        return skip_on(fd, skip);
    check(had < sizeof bytes); /* the parser asks for no more */
    if (had > 0)
        memcpy(bytes, buffer_bytes(*held).data, had);
    ssize_t got = recv(fd, bytes + had, sizeof bytes - had, MSG_PEEK);
    if (got <= 0)
        return failed(got);
    size_t came = (size_t)got;
    switch (proxy_protocol_parse(slice_of(bytes, had + came), header)) {
    case PARSE_BAD:
        return PROXY_HEADER_BAD;
    case PARSE_MORE:
        if (!take(fd, bytes + had, came))
            return PROXY_HEADER_FAILED;
        buffer_append(pool, held, slice_of(bytes + had, came));
        return PROXY_HEADER_MORE;
    case PARSE_DONE:
        break;
    }
    size_t taken = min_size(came, header->header_len - had);
    if (!take(fd, bytes + had, taken))
        return PROXY_HEADER_FAILED;
    buffer_drop(pool, held);
    *skip = (uint32_t)(header->header_len - had - taken);
    return header->has_client ? PROXY_HEADER_CLIENT : PROXY_HEADER_NO_CLIENT;
}
