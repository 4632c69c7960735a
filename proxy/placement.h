/*
 * Placement: which endpoint gets a new session.
 *
 *     tier 0 ready ▸ 1 warming ▸ 2 degraded or suspect ▸ 3 draining
 *
 * A lower tier is asked only when those above have no candidate. Being full or too fast is no reason to go
 * down to degraded ones; draining ones are asked only when there is nothing better that this request could reach.
 * A candidate is an endpoint of the tier with a weight above 0 that this request has not tried, and, when limits count,
 * that is below max_sessions_per_endpoint and max_handshake_rate.
 *
 * Cost: one pass of the rendezvous hash, which asks about a handful of endpoints; placement_pick_bounded and
 * placement_pick_least look at every endpoint. No allocation.
 */
#pragma once

#include "shared/base.h"

#include "proxy/endpoint_set.h"

#include <stdbool.h>
#include <stdint.h>

struct upstream_config;

/* What a placement looks at, all borrowed. */
struct placement {
    const struct upstream_config *upstream;
    const struct endpoint_set *set;
    const struct endpoint *const *tried; /* could not be reached by this request */
    size_t tried_len;
    bool is_limited; /* limits of handshakes count */
    uint64_t now;
};

/* Why there is no endpoint. */
enum placement_obstacle {
    PLACEMENT_NO_ENDPOINT,
    PLACEMENT_ALL_TRIED,
    PLACEMENT_ALL_FULL,
    PLACEMENT_TOO_FAST, /* try again in the next second */
};

/* Each gives an entry of the set, or NULL with *obstacle. Equal facts and counters give equal answers. */

/* The less loaded of the two best-ranked for the key. */
const struct endpoint_entry *placement_pick_of_two(const struct placement *placement,
                                                   uint64_t key,
                                                   enum placement_obstacle *obstacle);

/* The best-ranked below the bounded load: sessions(e) < ceil(c × (L + 1) × w(e) / W), L and W summed over
 * the candidates, so that one is always below its cap. */
const struct endpoint_entry *placement_pick_bounded(const struct placement *placement,
                                                    uint64_t key,
                                                    enum placement_obstacle *obstacle);

/* The least loaded of all; `turn` says where to begin, so that equal ones take turns. */
const struct endpoint_entry *placement_pick_least(const struct placement *placement,
                                                  uint64_t turn,
                                                  enum placement_obstacle *obstacle);

/* Was this endpoint tried; has it max_sessions_per_endpoint; has it max_handshake_rate in this second? */
bool placement_was_tried(const struct placement *placement,
                         const struct endpoint_entry *entry);
bool placement_is_full(const struct placement *placement,
                       const struct endpoint_entry *entry);
bool placement_is_too_fast(const struct placement *placement,
                           const struct endpoint_entry *entry);
