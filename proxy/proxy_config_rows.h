/*
 * The proxy's options: one row each, in the order of the contract's YAML.
 *
 * To add an option: a member in proxy_config.h, a row here, and, when a row cannot say what is allowed, a
 * rule in proxy_config_check.c.
 */
#pragma once

#include "shared/options.h"

extern const struct option_table proxy_config_table;
extern const struct option_table proxy_upstream_table; /* of upstreams[] */
