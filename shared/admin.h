/*
 * The operators' port: plain HTTP for people, probes and Prometheus.
 *
 *      GET /            status page: one HTML document, nothing external
 *      GET /livez       200 while the loop turns
 *      GET /startupz    200 once started, else 503 and why
 *      GET /readyz      200 when ready, else 503 and why
 *      GET /metrics     Prometheus text
 *      GET /status.json the daemon's state
 *
 * Read-only: only GET and HEAD (else 405); other paths 404; a request for a host that is not known 421; no request text
 * is ever echoed. One request a
 * connection, then it is closed. Clients are bounded in number, head size and time, because an operators'
 * port is still a port: a newcomer takes the place of the oldest. Commands that change something come through
 * the ctl socket (shared/ctl.h) only.
 */
#pragma once

#include "shared/net.h"

struct event_base;
struct evbuffer;
struct text_list;
struct admin;

struct admin_callbacks {
    /* The page at "/", whole HTML (static text; scripts and styles inline). NULL: a plain list of paths. */
    const char *page;
    /* True, or false after writing the reason ("draining", "no shard is up") as text. NULL: always true. */
    bool (*is_started)(void *argument, struct evbuffer *reason);
    bool (*is_ready)(void *argument, struct evbuffer *reason);
    /* Writes one JSON document. NULL: /status.json is 404. */
    void (*write_status)(void *argument, struct evbuffer *out);
    /* Names that requests may be meant for, beside IP addresses and localhost: see admin_host.h. Asked at each request;
     * NULL: none. */
    const struct text_list *(*hosts)(void *argument);
};

/* `callbacks` (copied) run on `base`'s thread. */
struct admin *admin_new(struct event_base *base, const struct admin_callbacks *callbacks,
                        void *argument);

/* Listens; false with `why`, which begins with the address ("127.0.0.1:9090: Address already in use"): the
 * caller puts the option's name before it. */
bool admin_listen(struct admin *admin, const struct address *address,
                  char why[NET_WHY_SIZE]) MUST_CHECK;

/* Where it listens (after port 0). */
struct address admin_address(const struct admin *admin);

/* Closes the socket and all its clients. */
void admin_free(struct admin *admin);
