/*
 * A validated head, copied with edits in one pass into the caller's memory.
 *
 *     http_request  + request_edits  ──▶ head_rewrite_request  ──▶ to the endpoint
 *     http_response + response_edits ──▶ head_rewrite_response ──▶ to the client
 *
 * Nothing is forwarded as it came: start line, framing, Connection and Upgrade are
 * generated; fields are copied in their order without those that concern one connection
 * only (RFC 9110 7.6.1). What is written parses with http_head to the same meaning.
 *
 * Output grows by the edits only, so 64 KiB of scratch fit every head of 32 KiB. When the
 * memory does not suffice the functions give back 0 and the caller answers 502 or 431.
 */
#pragma once

#include "proxy/body_framing.h"
#include "proxy/http_head.h"
#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>

enum head_connection {
    HEAD_CONNECTION_KEEP_ALIVE, /* "Connection: keep-alive" */
    HEAD_CONNECTION_CLOSE,      /* "Connection: close" */
    HEAD_CONNECTION_UPGRADE,    /* "Connection: Upgrade" and "Upgrade: websocket" */
};

struct head_line {
    struct slice name;
    struct slice value;
};

/* Fields that a route sets (replacing the message's own and ours) and removes. They come
 * from the configuration, which refuses names of the sorts HOP and FRAMING but Host. */
struct head_changes {
    const struct head_line *set; /* borrowed */
    size_t set_count;
    const struct slice *remove; /* borrowed */
    size_t remove_count;
};

/* Who the client is and how it came. Proto, host and port of a trusted proxy's own
 * fields go before these. */
struct head_identity {
    struct slice
        peer; /* the address at the other end of our socket, as text without port */
    struct slice proto; /* "http" or "https" */
    struct slice port;  /* of our listener, decimal */
    unsigned
        /* 0: nothing of X-Forwarded-* is believed; n: the last n entries are */
        trusted_hops;
};

struct request_edits {
    struct slice path;      /* written in place of the raw path; data NULL: as received */
    struct slice path_rest; /* written behind `path` (engine_path_match gives both) */
    struct slice
        query_cut; /* a part of the request's query that is left out; empty: nothing */
    struct slice default_host; /* for HTTP/1.0 without Host */
    struct head_identity identity;
    struct slice via;                  /* our name in Via */
    struct slice request_id;           /* X-Request-Id; empty: the client's own stays */
    const struct slice *strip_cookies; /* names of our own cookies; borrowed */
    size_t strip_cookie_count;
    bool identity_encoding; /* Accept-Encoding: identity, for answers that we must read */
    enum body_kind body;    /* as it will be sent: BODY_NONE, BODY_LENGTH, BODY_CHUNKED */
    uint64_t body_length;
    enum head_connection connection;
    struct head_changes changes;
};

struct response_edits {
    enum body_kind body; /* as it will be sent; BODY_UNTIL_CLOSE writes no framing */
    uint64_t body_length;
    /* drops fields that described the received bytes: ETag, Content-MD5, digests */
    bool body_changed;
    enum head_connection connection;
    const struct slice
        *set_cookies; /* whole values of Set-Cookie fields to add; borrowed */
    size_t set_cookie_count;
    struct slice date; /* IMF-fixdate, written when the response has none */
    struct slice via;
    struct slice request_id; /* X-Request-Id for the client; empty: as received */
    struct head_changes changes;
};

/* Both write at most `size` bytes to `out` and give back the head's length, or 0 when
 * it does not fit. */
size_t head_rewrite_request(const struct http_request *request,
                            const struct request_edits *edits, char *out,
                            size_t size) MUST_CHECK;
size_t head_rewrite_response(const struct http_response *response,
                             const struct response_edits *edits, char *out,
                             size_t size) MUST_CHECK;

/* True when a Via field already names us: the request runs in a circle (RFC 9110
 * 7.6.3). */
bool head_is_looping(const struct http_fields *fields, struct slice via);

/* The client's address as trusted proxies tell it: entry `trusted_hops` from the end
 * of X-Forwarded-For, or `peer` when hops is 0 or the list is shorter or that entry is
 * no address-like word. */
struct slice head_client_address(const struct http_fields *fields,
                                 const struct head_identity *identity);

/* What the outermost trusted proxy says in a list of fields with `id` (X-Forwarded-Proto and its like): entry
 * `trusted_hops` from the end; the first one when there are fewer, since proxies in between may hand it on
 * as it is. Data is NULL when nothing is told or hops is 0. */
struct slice head_told(const struct http_fields *fields, enum http_field_id id,
                       unsigned trusted_hops);
