/*
 * TLS to the endpoints of an upstream: what its files say now.
 *
 *      ca, cert, key ── endpoint_tls_read ──▶ endpoint_tls ──▶ endpoint_set ──▶ snapshot ──▶ worker: endpoint_tls_start
 *           │                                 immutable, counted
 *           └── file_watch ──▶ endpoint_tls_files ── newest ──▶ … (files that are bad keep the one before)
 *                              main thread
 *
 * A connection holds the endpoint_tls it was made with, so an idle one is reused only while that is still the
 * newest. Session tickets are not kept: each new connection is a full handshake.
 */
#pragma once

#include "shared/base.h"

#include <stdatomic.h>

struct endpoint;
struct endpoint_tls_files;
struct event_base;
struct stream;
struct tls_context;
struct upstream_config;

struct endpoint_tls {
    atomic_uint holders;
    struct tls_context *context; /* one holder */
    char *server_name;           /* "": the host of the endpoint's address */
};

/* One holder more (the same pointer; NULL is allowed), one less. Any thread. */
struct endpoint_tls *endpoint_tls_ref(struct endpoint_tls *tls);
void endpoint_tls_unref(struct endpoint_tls *tls);

/* Makes a connected or connecting plain stream a TLS one; stream_handshake() goes on with it. The name that is sent
 * and verified is server_name, else the host of endpoint->address_text (an IP is verified only, "localhost"
 * stands for a unix socket). */
void endpoint_tls_start(const struct endpoint_tls *tls, const struct endpoint *endpoint,
                        struct stream *stream);

typedef void (*endpoint_tls_cb)(void *argument);

/* What can fail: reads the files of config->tls. The caller holds the one reference. NULL: *error is one line (the
 * caller frees it). */
struct endpoint_tls *endpoint_tls_read(const struct upstream_config *config,
                                       char **error) MUST_CHECK;

/* Follows the files that `newest` was read from; takes over the caller's reference to it. `config` is borrowed and
 * outlives it. `on_change` comes from the loop when endpoint_tls_newest() has changed. */
struct endpoint_tls_files *endpoint_tls_files_new(struct event_base *base,
                                                  const struct upstream_config *config,
                                                  struct endpoint_tls *newest,
                                                  endpoint_tls_cb on_change,
                                                  void *argument);
void endpoint_tls_files_free(struct endpoint_tls_files *files); /* NULL is allowed */

/* Borrowed; NULL of NULL. */
struct endpoint_tls *endpoint_tls_newest(const struct endpoint_tls_files *files);
