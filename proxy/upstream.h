/*
 * What lives of an upstream across generations: its name, the longest Engine.IO heartbeat it announced, and how its tunnels end when
 * it is taken out of the configuration. The immutable rest is in upstream_config and endpoint_set.
 * All times are microseconds.
 * Reference-counted; every endpoint_set and endpoint of this upstream holds one reference.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* How tunnels are let go. Microseconds. */
struct drain_terms {
    int mode; /* enum drain_mode */
    uint64_t delay, window;
    uint64_t herd_spread;
};

struct upstream {
    atomic_uint holders;
    char *name;
    uint64_t hash; /* upstream_hash_of(name), as in the affinity cookie */
    _Atomic uint64_t
        heartbeat; /* largest pingInterval + pingTimeout seen; 0 = none yet */
    _Atomic uint64_t
        session_unknown; /* "session unknown" answers of its endpoints; ~0 is right */

    /* Written once, before the first snapshot without it; read by who has such a one. */
    bool is_removed;
    struct drain_terms last_terms;
};

/* A new one with one reference. One holder more (the same pointer), one less: any thread. */
struct upstream *upstream_new(struct slice name);
struct upstream *upstream_ref(struct upstream *upstream);
void upstream_unref(struct upstream *upstream);

/* Main thread: it is in no snapshot from the next one on; `terms` hold for the tunnels that it has. */
void upstream_remove(struct upstream *upstream, const struct drain_terms *terms);

/* Learns from a handshake's open packet; values are bounded here (an hour each). */
void upstream_learn_heartbeat(struct upstream *upstream, uint64_t ping_interval,
                              uint64_t ping_timeout);

/* The limit on a client's silence that "auto" means: 1.25 × the heartbeat, at least 60 s; 300 s while
 * none was seen. */
uint64_t upstream_idle_limit(const struct upstream *upstream);

/* How long a learned sid lives without a request: 2 × the heartbeat; 300 s while none was seen. */
uint64_t upstream_learned_lifetime(const struct upstream *upstream);
