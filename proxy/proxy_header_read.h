/*
 * Takes a PROXY header off a socket, and not one byte that follows it: those may be TLS's.
 *
 *      peek ─▶ parse ─┬─ MORE: what was peeked is the header's: taken, kept
 *                     ├─ whole: taken up to its end; TLVs that have not come are skipped later
 *                     └─ BAD
 */
#pragma once

#include "proxy/buffer.h"
#include "proxy/proxy_protocol.h"

enum proxy_header_state {
    PROXY_HEADER_MORE,      /* call again when the socket is readable */
    PROXY_HEADER_CLIENT,    /* parsed: header->client says who it is */
    PROXY_HEADER_NO_CLIENT, /* parsed, or skipped on: nothing about the client */
    PROXY_HEADER_BAD,
    PROXY_HEADER_ENDED,  /* the peer has finished */
    PROXY_HEADER_FAILED, /* errno */
};

/* The socket is readable. `held` keeps what came so far (empty at first and after the header was parsed),
 * *skip how many bytes of the header have yet to be thrown away: the header is over when it is 0 after
 * PROXY_HEADER_CLIENT or PROXY_HEADER_NO_CLIENT. */
enum proxy_header_state proxy_header_read(int fd, struct buffer_pool *pool,
                                          struct buffer **held, uint32_t *skip,
                                          struct proxy_header *header) MUST_CHECK;
