/*
 * Where a shard is, as its URL says it:
 *
 *     redis://[[user]:password@]host[:port][/0]      rediss:// the same over TLS
 *     unix:/path
 */
#pragma once

#include "shared/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* Texts are owned. */
struct shard_url {
    bool is_tls;
    char *host; /* NULL: unix_path */
    char *port;
    char *unix_path; /* "unix:/path" */
    char *username;  /* NULL: none */
    char *password;  /* NULL: none */
};

/* Returns NULL, or what is wrong in static text; the caller cleans *url up either way. */
const char *shard_url_parse(struct slice text, struct shard_url *url);
void shard_url_cleanup(struct shard_url *url);

/* What a shard without a name is called: host:port, or unix:/path. The caller frees it. */
char *shard_url_name(const struct shard_url *url);

/* Where a URL leads, as a number that is the same at every broker: of host (in lower case) and port, or the path. User,
 * password and TLS are no part of it. 0: not a URL. */
uint64_t shard_url_place(struct slice text);
