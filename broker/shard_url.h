/*
 * Where a shard is, as its URL says it:
 *
 *     redis://[[user]:password@]host[:port][/N]      rediss:// the same over TLS
 *     unix:/path                                     also unix:///path
 *
 * User and password are percent-decoded. N, a database, is ignored: pub/sub has none.
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
    char why[128];   /* of shard_url_parse */
};

/* Returns NULL, or what is wrong, and at which character of the URL, without any part of it: static text, or in *url; the
 * caller cleans that up either way. */
const char *shard_url_parse(struct slice text, struct shard_url *url);
void shard_url_cleanup(struct shard_url *url);

/* What a shard without a name is called: host:port, or unix:/path. The caller frees it. */
char *shard_url_name(const struct shard_url *url);

/* Where a URL leads, as a number that is the same at every broker: of host (in lower case) and port, or the path. User,
 * password and TLS are no part of it. 0: not a URL. */
uint64_t shard_url_place(struct slice text);
