#include "proxy/placement.h"

#include "shared/rendezvous.h"

#include "proxy/proxy_config.h"

#include <math.h>

bool placement_was_tried(const struct placement *placement,
                         const struct endpoint_entry *entry)
{
    for (size_t i = 0; i < placement->tried_len; i++)
        if (placement->tried[i] == entry->endpoint)
            return true;
    return false;
}

bool placement_is_full(const struct placement *placement,
                       const struct endpoint_entry *entry)
{
    int64_t maximum = placement->upstream->max_sessions_per_endpoint;
    return maximum > 0 && endpoint_sessions(entry->endpoint, placement->now) >= maximum;
}

bool placement_is_too_fast(const struct placement *placement,
                           const struct endpoint_entry *entry)
{
    int64_t maximum = placement->upstream->max_handshake_rate;
    return maximum > 0 &&
           endpoint_placed_this_second(entry->endpoint, placement->now) >= maximum;
}

enum tier { TIER_READY, TIER_WARMING, TIER_DEGRADED, TIER_DRAINING, TIERS, TIER_NONE };

struct search {
    const struct placement *placement;
    enum tier tier;
    bool has_caps; /* bounded load counts: sessions must be below cap × weight */
    double cap;
    /* what was in the way, of all tiers so far */
    bool saw_better, saw_tried, saw_full, saw_fast;
};

static enum tier tier_of(const struct search *search, const struct endpoint_entry *entry)
{
    const struct endpoint_set *set = search->placement->set;
    uint64_t now = search->placement->now;
    if (entry->weight == 0)
        return TIER_NONE;
    switch (endpoint_entry_state(set, entry, now)) {
    case ENDPOINT_READY:
        return endpoint_is_suspect(entry->endpoint, now) ? TIER_DEGRADED : TIER_READY;
    case ENDPOINT_WARMING:
        return endpoint_is_suspect(entry->endpoint, now) ? TIER_DEGRADED : TIER_WARMING;
    case ENDPOINT_DEGRADED:
        return TIER_DEGRADED;
    case ENDPOINT_DRAINING:
        return TIER_DRAINING;
    case ENDPOINT_CLOSING:
    case ENDPOINT_GONE:
        return TIER_NONE;
    }
    unreachable();
}

/* May this one be chosen? Also notes what was in the way. */
static bool is_candidate(struct search *search, const struct endpoint_entry *entry)
{
    const struct placement *placement = search->placement;
    enum tier tier = tier_of(search, entry);
    if (tier < TIER_DRAINING && !placement_was_tried(placement, entry))
        search->saw_better = true;
    if (tier != search->tier)
        return false;
    if (placement_was_tried(placement, entry)) {
        search->saw_tried = true;
        return false;
    }
    if (!placement->is_limited)
        return true;
    if (placement_is_full(placement, entry)) {
        search->saw_full = true;
        return false;
    }
    if (placement_is_too_fast(placement, entry)) {
        search->saw_fast = true;
        return false;
    }
    return true;
}

static bool accept_candidate(size_t index, void *argument)
{
    struct search *search = argument;
    const struct endpoint_set *set = search->placement->set;
    const struct endpoint_entry *entry = &set->entries[index];
    if (!is_candidate(search, entry))
        return false;
    uint64_t now = search->placement->now;
    return !search->has_caps ||
           endpoint_sessions(entry->endpoint, now) <
               ceil(search->cap * endpoint_entry_weight(set, entry, now));
}

/* One way of choosing among the candidates of search->tier; NULL when there are none. */
typedef const struct endpoint_entry *(*choose_cb)(struct search *search, uint64_t key);

static const struct endpoint_entry *choose_of_two(struct search *search, uint64_t key)
{
    const struct endpoint_set *set = search->placement->set;
    uint64_t now = search->placement->now;
    size_t best[2];
    size_t len =
        rendezvous_pick_two(set->rendezvous, key, accept_candidate, search, best);
    if (len == 0)
        return NULL;
    if (len == 2 && endpoint_entry_load(set, &set->entries[best[1]], now) <
                        endpoint_entry_load(set, &set->entries[best[0]], now))
        return &set->entries[best[1]];
    return &set->entries[best[0]];
}

static const struct endpoint_entry *choose_bounded(struct search *search, uint64_t key)
{
    const struct endpoint_set *set = search->placement->set;
    uint64_t now = search->placement->now;
    double sessions = 0, weights = 0;
    for (size_t i = 0; i < set->len; i++) {
        if (!is_candidate(search, &set->entries[i]))
            continue;
        sessions += endpoint_sessions(set->entries[i].endpoint, now);
        weights += endpoint_entry_weight(set, &set->entries[i], now);
    }
    if (weights <= 0)
        return NULL;
    search->has_caps = true;
    search->cap =
        search->placement->upstream->affinity.bounded_load * (sessions + 1) / weights;
    size_t best = rendezvous_pick(set->rendezvous, key, accept_candidate, search);
    search->has_caps = false;
    /* other threads count on while we look: when all seem above their caps now, take the best-ranked */
    if (best == RENDEZVOUS_NONE)
        best = rendezvous_pick(set->rendezvous, key, accept_candidate, search);
    return best != RENDEZVOUS_NONE ? &set->entries[best] : NULL;
}

static const struct endpoint_entry *choose_least(struct search *search, uint64_t key)
{
    const struct endpoint_set *set = search->placement->set;
    const struct endpoint_entry *least = NULL;
    double least_load = INFINITY;
    for (size_t i = 0; i < set->len; i++) {
        const struct endpoint_entry *entry =
            &set->entries[(key % set->len + i) % set->len];
        if (!is_candidate(search, entry))
            continue;
        double load = endpoint_entry_load(set, entry, search->placement->now);
        if (least == NULL || load < least_load) {
            least = entry;
            least_load = load;
        }
    }
    return least;
}

/* The candidate of the best tier that has one; or why there is none. */
static const struct endpoint_entry *place(const struct placement *placement,
                                          choose_cb choose, uint64_t key,
                                          enum placement_obstacle *obstacle)
{
    struct search search = {.placement = placement};
    bool may_drain =
        placement->upstream->affinity.place_on_draining == PLACE_ON_DRAINING_LAST_RESORT;
    for (enum tier tier = TIER_READY; tier < TIERS; tier++) {
        if (tier == TIER_DEGRADED && (search.saw_full || search.saw_fast))
            break;
        if (tier == TIER_DRAINING && (search.saw_better || !may_drain))
            break;
        search.tier = tier;
        const struct endpoint_entry *entry = choose(&search, key);
        if (entry != NULL)
            return entry;
    }
    *obstacle = search.saw_fast    ? PLACEMENT_TOO_FAST
                : search.saw_full  ? PLACEMENT_ALL_FULL
                : search.saw_tried ? PLACEMENT_ALL_TRIED
                                   : PLACEMENT_NO_ENDPOINT;
    return NULL;
}

const struct endpoint_entry *placement_pick_of_two(const struct placement *placement,
                                                   uint64_t key,
                                                   enum placement_obstacle *obstacle)
{
    return place(placement, choose_of_two, key, obstacle);
}

const struct endpoint_entry *placement_pick_bounded(const struct placement *placement,
                                                    uint64_t key,
                                                    enum placement_obstacle *obstacle)
{
    return place(placement, choose_bounded, key, obstacle);
}

const struct endpoint_entry *placement_pick_least(const struct placement *placement,
                                                  uint64_t turn,
                                                  enum placement_obstacle *obstacle)
{
    return place(placement, choose_least, turn, obstacle);
}
