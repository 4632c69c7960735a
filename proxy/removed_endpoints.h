/*
 * The endpoints of upstreams that a reload has taken out, as long as anybody is connected to them.
 *
 *                                        its address has a home: an endpoint of an upstream that
 *     upstream taken out                 is there lists it, and does not drain (a rename)
 *            │                                  ┌──────────▶ its tunnels are not touched
 *            ▼                                  │                 ▲   │
 *     removed_endpoints ── each new snapshot ───┤      comes back │   │ goes, drains
 *            │                                  │                 │   ▼
 *            ▼                                  └──────────▶ it drains as its upstream's last
 *     held by nobody else: forgotten                         configuration says
 *
 * Which addresses have a home is known when every upstream has a list of the source that it has now: until then no
 * endpoint begins to drain. On the main thread only.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct endpoint;
struct endpoint_set;
struct upstream_config;

struct removed_endpoints {
    size_t len;
    struct endpoint **items; /* one reference each */
    uint64_t drain_changes;  /* how many ever began or ended to drain */
};

/* From all zero. */
void removed_endpoints_cleanup(struct removed_endpoints *removed);

/* The upstream of this newest set of it is taken out; `config` is its last configuration, of which the terms of
 * draining are kept. */
void removed_endpoints_add(struct removed_endpoints *removed,
                           const struct endpoint_set *set,
                           const struct upstream_config *config);

/* `sets` are those of the next snapshot; `are_complete`: each has a list of its source. Endpoints begin and end to
 * drain at `now`, timing_now(). True when any did: workers have to be told. */
bool removed_endpoints_follow(struct removed_endpoints *removed,
                              struct endpoint_set *const *sets, size_t len,
                              bool are_complete, uint64_t now);
