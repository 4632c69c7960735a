/*
 * HTTP/1.1 heads (start line and fields) from bytes, strictly.
 *
 *     bytes ──▶ http_request_parse ──▶ PARSE_DONE  slices into the bytes, facts, length
 *               http_response_parse ├─▶ PARSE_MORE  call again when bytes were added
 *                                   └─▶ PARSE_BAD   refusal: status, a constant sentence
 *
 * Every rule that can be decided from a head alone is decided here and nowhere else:
 * framing, Host, Connection, Expect, Upgrade. Whoever holds a PARSE_DONE head compares no
 * field names again: known fields carry an id, and the facts stand beside them. There is
 * no lenient mode. The verdict does not depend on how the bytes were cut.
 *
 * The structs are 5 KiB: keep one per thread, and only copy the facts that outlive the
 * buffer.
 */
#pragma once

#include "proxy/body_framing.h"
#include "proxy/http_field.h"
#include "shared/base.h"
#include "shared/parse.h"
#include "shared/slice.h"

#include <stdbool.h>

enum {
    HTTP_TARGET_MAX = 8192, /* request target */
    HTTP_HEAD_BYTES_DEFAULT = 32768,
    HTTP_EMPTY_LINES_MAX = 4, /* before a request line */
    HTTP_INTERIM_MAX = 16,    /* 1xx heads before a final one; the caller counts */
};

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OPTIONS,
};

struct http_request {
    enum http_method method;
    struct slice method_text;
    struct slice target; /* as received */
    struct slice path;   /* raw, begins with '/'; "*" when is_asterisk */
    struct slice query;  /* raw, behind the '?'; data is NULL when there is none */
    /* host[:port] that the request is for: the absolute target's, else Host; empty
     * only for HTTP/1.0 */
    struct slice authority;
    /* the authority without port, an IPv6 address without its brackets */
    struct slice host;
    uint16_t port;              /* of the authority; 0 when it names none */
    uint8_t minor;              /* 0 or 1 */
    bool is_absolute;           /* target in absolute form */
    bool is_asterisk;           /* "OPTIONS *" */
    bool expects_continue;      /* Expect: 100-continue; false for HTTP/1.0 */
    bool is_persistent;         /* the client lets us keep the connection */
    bool is_websocket;          /* a valid RFC 6455 handshake request */
    enum body_kind body;        /* BODY_NONE, BODY_LENGTH or BODY_CHUNKED */
    uint64_t body_length;       /* for BODY_LENGTH */
    int64_t max_forwards;       /* of OPTIONS; -1 when absent */
    struct slice websocket_key; /* 24 characters; empty unless is_websocket */
    struct http_connection_options connection;
    struct http_fields fields;
    size_t head_len; /* bytes of the head, with empty lines before and after it */
    struct http_refusal refusal; /* after PARSE_BAD only */
};

struct http_response {
    unsigned status;     /* 100..599 */
    struct slice reason; /* may be empty */
    uint8_t minor;
    bool is_interim; /* 1xx except 101: another head follows */
    /* an asked-for 101 with Upgrade: websocket; compare websocket_accept
     * (ws_handshake) */
    bool is_websocket;
    /* the endpoint lets us keep the connection, and no byte of this message
     * contradicts it */
    bool is_persistent;
    bool has_deflate; /* permessage-deflate accepted: RSV1 is legal in the tunnel */
    enum body_kind body;
    uint64_t body_length; /* for BODY_LENGTH */
    /* no body follows, but Content-Length tells the length GET would have (HEAD, 304) */
    bool describes_length;
    uint64_t described_length;
    struct slice websocket_accept;
    struct http_connection_options connection;
    struct http_fields fields;
    size_t head_len;
    struct http_refusal refusal;
};

/* Parses the head at the beginning of `data`. `last_len` is the length with which the
 * same bytes gave PARSE_MORE before (0 for the first time); it only makes the
 * repetition cheap. A head longer than `max_head_bytes` is 431. Slices in *request
 * live as long as `data`. Nothing but `refusal` is set after PARSE_BAD. */
enum parse_result http_request_parse(struct slice data, size_t last_len,
                                     size_t max_head_bytes,
                                     struct http_request *request) MUST_CHECK;

/* The same for the head of a response to a request with `method`. `asked_websocket`:
 * the request was a WebSocket handshake, without that a 101 is refused. Body by RFC
 * 9112 6.3. */
enum parse_result http_response_parse(struct slice data, size_t last_len,
                                      size_t max_head_bytes, enum http_method method,
                                      bool asked_websocket,
                                      struct http_response *response) MUST_CHECK;

/* host, host:port, [v6] or [v6]:port by the rules for Host. False leaves the results
 * alone. */
bool http_authority_parse(struct slice authority, struct slice *host,
                          uint16_t *port) MUST_CHECK;
