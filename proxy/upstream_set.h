/*
 * The endpoint_set of an upstream: its options from the configuration, its endpoints from a list.
 */
#pragma once

#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"

/* The set that follows `previous` (NULL: the upstream's first; else it lives on with what it has learned).
 * The caller holds the one reference of the result. */
struct endpoint_set *upstream_set_new(const struct upstream_config *config,
                                      const struct file_keys *keys,
                                      const struct endpoint_spec *specs, size_t len,
                                      const struct endpoint_set *previous, uint64_t now);
