/*
 * Discovery from the configuration: the endpoints of discovery.static, names looked up once (this blocks:
 * start-up and reload only).
 */
#pragma once

#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"

/* Fills the config's endpoints.count specs; text is the configuration's. False: `error` has one line;
 * nothing else fails than looking up a name. */
bool discovery_static_list(const struct upstream_config *config,
                           struct endpoint_spec *specs, char *error,
                           size_t error_size) MUST_CHECK;

/* The same for all upstreams of a config, which outlives it: what can fail is done before anything is changed. NULL with
 * a line in `error`. */
struct static_lists;
struct static_lists *static_lists_new(const struct proxy_config *config, char *error,
                                      size_t error_size) MUST_CHECK;
void static_lists_free(struct static_lists *lists);

/* That of one upstream, by its place in the config; none for another kind of discovery. */
const struct endpoint_spec *static_lists_get(const struct static_lists *lists,
                                             size_t place, size_t *len);
