/*
 * What a listener says about its clients: TLS, PROXY headers, what they see of it. Immutable and counted, since
 * a client may outlive the configuration that its listener had, and even the listener.
 *
 *      config ─▶ place ◀── the listener of each worker, for clients to come
 *                      ◀── every client that came through it
 *
 * A reload makes new places; clients keep the one that they began with.
 */
#pragma once

#include "shared/tls.h"

#include "proxy/proxy_config.h"

#include <stdatomic.h>

struct listener_place {
    atomic_uint holders;
    uint64_t
        socket;   /* the same as long as the listening socket stays; see listener_set */
    char *name;   /* as configured */
    char port[6]; /* decimal, "" for unix */
    bool is_tls;
    bool is_unix;
    bool trusts_unix_peers;  /* their X-Forwarded-* are believed */
    bool has_proxy_protocol; /* each connection begins with a PROXY header */
    bool redirects_https;
    uint64_t keep_alive, user_timeout; /* of TCP, as net_set_… takes them */
    struct tls_context *tls;           /* one holder; NULL: plaintext */
};

/* From listeners[index]; reads the files of its TLS. NULL with a line in `error` that names the option. Whoever binds
 * it sets `socket` and `port` before anybody else sees it. */
struct listener_place *listener_place_new(const struct proxy_config *config, size_t index,
                                          char *error, size_t error_size) MUST_CHECK;

/* One holder more (the same pointer), one less. Any thread. */
struct listener_place *listener_place_ref(struct listener_place *place);
void listener_place_unref(struct listener_place *place);

/* Options of the listening socket that accepted ones inherit. */
void listener_place_tune(const struct listener_place *place, int fd);
