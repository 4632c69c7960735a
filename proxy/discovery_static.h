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
