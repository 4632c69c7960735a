#include "proxy/drain.h"

#include "shared/timing.h"

#include "proxy/client.h"
#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"
#include "proxy/snapshot.h"
#include "proxy/tunnel.h"
#include "proxy/upstream.h"

#define GOLDEN_RATIO                                                                     \
    0x9e3779b97f4a7c15u /* of 2^64: multiples are far apart, modulo 2^64 */

uint32_t drain_place(uint64_t number, uint32_t window_ms)
{
    uint64_t mixed = number * GOLDEN_RATIO;
    return (uint32_t)((mixed >> 32) * window_ms >> 32);
}

struct drain_terms drain_terms_of(const struct upstream_config *config)
{
    return (struct drain_terms){.mode = config->drain.mode,
                                .delay = config->drain.delay,
                                .window = config->drain.window,
                                .herd_spread = config->herd_spread};
}

/* *set is NULL when the upstream is taken out. False: it never was in a snapshot, nothing is known. */
static bool find_terms(const struct snapshot *snapshot, const struct endpoint *endpoint,
                       struct drain_terms *terms, const struct endpoint_set **set)
{
    const struct upstream *upstream = endpoint->upstream;
    for (size_t i = 0; i < snapshot->sets_len; i++) {
        *set = snapshot->sets[i];
        if ((*set)->upstream != upstream)
            continue;
        *terms = drain_terms_of(proxy_config_upstream(snapshot->config, i));
        return true;
    }
    *set = NULL;
    *terms = upstream->last_terms;
    return upstream->is_removed;
}

/* Clients of an upstream that is taken out come back to whatever their route says now. */
static bool has_other_home(const struct endpoint_set *set)
{
    if (set == NULL)
        return true;
    for (size_t i = 0; i < set->len; i++)
        if (set->entries[i].state < ENDPOINT_DRAINING && set->entries[i].weight > 0)
            return true;
    return false;
}

static uint32_t milliseconds(uint64_t duration)
{
    return (uint32_t)(duration / MILLISECONDS(1));
}

bool drain_delay(const struct snapshot *snapshot, const struct endpoint *endpoint,
                 uint32_t number, uint64_t since, uint64_t now, bool is_late,
                 uint32_t *delay_ms)
{
    struct drain_terms terms;
    const struct endpoint_set *set;
    if (!find_terms(snapshot, endpoint, &terms, &set) || terms.mode == DRAIN_NONE)
        return false;
    uint64_t begin = since + terms.delay, window = terms.window;
    if (terms.mode == DRAIN_WAIT) {
        begin += window;
        window = terms.herd_spread;
    }
    if (is_late && !has_other_home(set)) {
        begin += now - since;
    } else if (is_late && begin < now) {
        uint64_t left = begin + window > now ? begin + window - now : 0;
        window = left > terms.herd_spread ? left : terms.herd_spread;
        begin = now;
    }
    uint64_t at =
        begin + MILLISECONDS((uint64_t)drain_place(number, milliseconds(window)));
    *delay_ms = at > now ? milliseconds(at - now) : 0;
    return true;
}

uint32_t drain_herd_delay(const struct snapshot *snapshot,
                          const struct endpoint *endpoint, uint32_t number)
{
    struct drain_terms terms;
    const struct endpoint_set *set;
    return find_terms(snapshot, endpoint, &terms, &set)
               ? drain_place(number, milliseconds(terms.herd_spread))
               : 0;
}

bool drain_differs(const struct snapshot *before, const struct snapshot *after)
{
    if (before->sets_len != after->sets_len ||
        before->drain_changes != after->drain_changes)
        return true;
    for (size_t i = 0; i < after->sets_len; i++)
        if (before->sets[i]->upstream != after->sets[i]->upstream ||
            before->sets[i]->drain_changes != after->sets[i]->drain_changes)
            return true;
    return false;
}

void drain_apply(struct worker *worker)
{
    struct client *client;
    uint64_t now = timing_now();
    TAILQ_FOREACH(client, &worker->clients, entry)
    {
        if (client->state == CLIENT_TUNNELING)
            tunnel_follow_drain(client->tunnel, now, false);
    }
}
