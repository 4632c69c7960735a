/*
 * TLS of the broker: what the files of shards[].tls and listeners[].tls say now, and which files these are.
 *
 *     broker_config_load ─▶ broker_tls_of_… ─▶ tls_context in the configuration ─▶ link, client
 *            ▲
 *            └── reload ◀── a file of broker_tls_walk_files has changed
 *
 * Connections keep the context that they began with; new ones are made with the newest.
 */
#pragma once

#include "shared/tls.h"

struct broker_config;
struct broker_listener_config;
struct broker_shard_config;

/* For a shard with a rediss:// URL, with one holder: its certificate is always verified. NULL: *error is one line
 * (the caller frees it). */
struct tls_context *broker_tls_of_shard(const struct broker_shard_config *shard,
                                        char **error) MUST_CHECK;

/* For a listener with tls, likewise; with client_ca clients must show a certificate. */
struct tls_context *broker_tls_of_listener(const struct broker_listener_config *listener,
                                           char **error) MUST_CHECK;

/* The name that the shard's certificate must hold: server_name, else the host of its URL. */
const char *broker_tls_name(const struct broker_shard_config *shard);

/* Warns of each private key that others can read, but not again of those in `before` (NULL: none). */
void broker_tls_warn_of_keys(const struct broker_config *config,
                             const struct broker_config *before);

/* Calls back for the path of every file that the configuration's TLS is made of. */
void broker_tls_walk_files(const struct broker_config *config,
                           void (*on_file)(void *context, const char *path),
                           void *context);
