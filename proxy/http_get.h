/*
 * One GET over a connection of its own, whose answer may never end: what the Kubernetes API is asked with.
 *
 *      CONNECTING ─▶ (tls) SECURING ─▶ SENDING ─▶ HEAD ─▶ BODY ─▶ on_end(DONE)
 *          └────────────┴─────────────────┴─────────┴───────┴──▶ on_end(BROKEN, why)
 *
 *      on_head: status and fields   on_body: content, chunked framing taken off, as it comes
 *
 * Two clocks run: one is set back by each byte, the other never, so that neither silence nor a trickle holds it.
 * on_end is called at most once, as the last one, and the object is freed behind it. http_get_stop() frees it
 * without a call; it may be called from on_head and on_body too. On one thread.
 */
#pragma once

#include "shared/address.h"
#include "shared/slice.h"

#include "proxy/http_head.h"

struct event_base;
struct http_get;
struct tls_context;

struct http_get_request {
    struct address address;
    struct tls_context *tls; /* NULL: plain; needed only during the call */
    const char *server_name; /* verified; an IP is fine */
    struct slice host;       /* of the Host field */
    struct slice target;
    struct slice bearer; /* empty: no Authorization */
    uint64_t patience;   /* microseconds without a byte */
    uint64_t whole;      /* microseconds until its end, whatever comes; 0: for ever */
};

enum http_get_end { HTTP_GET_DONE, HTTP_GET_BROKEN };

struct http_get_callbacks {
    void (*on_head)(void *argument, const struct http_response *response);
    void (*on_body)(void *argument, struct slice bytes);
    void (*on_end)(void *argument, enum http_get_end end, const char *why);
};

/* All text is copied. What fails at once comes as on_end from the loop. */
struct http_get *http_get_new(struct event_base *base,
                              const struct http_get_request *request,
                              const struct http_get_callbacks *callbacks, void *argument);
void http_get_stop(struct http_get *get);
