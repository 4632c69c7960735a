/*
 * Discovery from the configuration: the endpoints of discovery.static, names looked up once (this blocks:
 * start-up and reload only), and the snapshot that they make.
 */
#pragma once

#include "shared/base.h"

#include "proxy/proxy_config.h"
#include "proxy/snapshot.h"

/* The snapshot of a config. Upstreams that `previous` (NULL at start) has under the same name live on with
 * what they have learned, their endpoints with their counters. Keeps no reference to `previous` and takes
 * over the caller's reference to `config`, on failure too. NULL: `error` has one line; nothing else fails
 * than looking up a name. The caller holds the one reference of the result. */
struct snapshot *discovery_static_snapshot(struct proxy_config *config,
                                           const struct route_keys *keys,
                                           const struct snapshot *previous, uint64_t now,
                                           char *error, size_t error_size) MUST_CHECK;
