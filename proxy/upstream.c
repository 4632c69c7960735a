#include "proxy/upstream.h"

#include "shared/timing.h"

#include "proxy/affinity_cookie.h"

#include <stdlib.h>

#define HEARTBEAT_PART_MAX                                                               \
    SECONDS(3600) /* of either part; what an endpoint says is bounded */
#define IDLE_LIMIT_MINIMUM  SECONDS(60)
#define IDLE_LIMIT_UNKNOWN  SECONDS(300)
#define LEARNED_LIFE_UNSEEN SECONDS(300)

struct upstream *upstream_new(struct slice name)
{
    struct upstream *upstream = must_calloc(1, sizeof(*upstream));
    atomic_init(&upstream->holders, 1);
    upstream->name = slice_dup(name);
    upstream->hash = upstream_hash_of(name);
    return upstream;
}

struct upstream *upstream_ref(struct upstream *upstream)
{
    atomic_fetch_add_explicit(&upstream->holders, 1, memory_order_relaxed);
    return upstream;
}

void upstream_unref(struct upstream *upstream)
{
    if (atomic_fetch_sub_explicit(&upstream->holders, 1, memory_order_acq_rel) != 1)
        return;
    free(upstream->name);
    free(upstream);
}

void upstream_remove(struct upstream *upstream, const struct drain_terms *terms)
{
    upstream->last_terms = *terms;
    upstream->is_removed = true;
}

void upstream_learn_heartbeat(struct upstream *upstream, uint64_t ping_interval,
                              uint64_t ping_timeout)
{
    uint64_t interval =
        ping_interval < HEARTBEAT_PART_MAX ? ping_interval : HEARTBEAT_PART_MAX;
    uint64_t timeout =
        ping_timeout < HEARTBEAT_PART_MAX ? ping_timeout : HEARTBEAT_PART_MAX;
    uint64_t seen = interval + timeout;
    uint64_t largest = atomic_load_explicit(&upstream->heartbeat, memory_order_relaxed);
    while (seen > largest && !atomic_compare_exchange_weak_explicit(
                                 &upstream->heartbeat, &largest, seen,
                                 memory_order_relaxed, memory_order_relaxed))
        ;
}

uint64_t upstream_idle_limit(const struct upstream *upstream)
{
    uint64_t heartbeat = atomic_load_explicit(&upstream->heartbeat, memory_order_relaxed);
    if (heartbeat == 0)
        return IDLE_LIMIT_UNKNOWN;
    uint64_t limit = heartbeat + heartbeat / 4;
    return limit > IDLE_LIMIT_MINIMUM ? limit : IDLE_LIMIT_MINIMUM;
}

uint64_t upstream_learned_lifetime(const struct upstream *upstream)
{
    uint64_t heartbeat = atomic_load_explicit(&upstream->heartbeat, memory_order_relaxed);
    return heartbeat == 0 ? LEARNED_LIFE_UNSEEN : 2 * heartbeat;
}
