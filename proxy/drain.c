#include "proxy/drain.h"

#include "shared/timing.h"

#include "proxy/client.h"
#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"
#include "proxy/snapshot.h"
#include "proxy/tunnel.h"

#define GOLDEN_RATIO                                                                     \
    0x9e3779b97f4a7c15u /* of 2^64: multiples are far apart, modulo 2^64 */

uint32_t drain_place(uint64_t id, uint32_t window_ms)
{
    uint64_t mixed = id * GOLDEN_RATIO;
    return (uint32_t)((mixed >> 32) * window_ms >> 32);
}

/* NULL: the upstream is in the configuration no more. */
static const struct upstream_config *config_of(const struct snapshot *snapshot,
                                               const struct endpoint *endpoint)
{
    for (size_t i = 0; i < snapshot->sets_len; i++)
        if (snapshot->sets[i]->upstream == endpoint->upstream)
            return proxy_config_upstream(snapshot->config, i);
    return NULL;
}

static uint32_t milliseconds(uint64_t duration)
{
    return (uint32_t)(duration / MILLISECONDS(1));
}

bool drain_delay(const struct snapshot *snapshot, const struct endpoint *endpoint,
                 uint64_t id, uint64_t since, uint64_t now, uint32_t *delay_ms)
{
    const struct upstream_config *config = config_of(snapshot, endpoint);
    if (config == NULL || config->drain.mode == DRAIN_NONE)
        return false;
    uint64_t begin = config->drain.delay, window = config->drain.window;
    if (config->drain.mode == DRAIN_WAIT) {
        begin += window;
        window = config->herd_spread;
    }
    uint64_t at =
        since + begin + MILLISECONDS((uint64_t)drain_place(id, milliseconds(window)));
    *delay_ms = at > now ? milliseconds(at - now) : 0;
    return true;
}

uint32_t drain_herd_delay(const struct snapshot *snapshot,
                          const struct endpoint *endpoint, uint64_t id)
{
    const struct upstream_config *config = config_of(snapshot, endpoint);
    return config != NULL ? drain_place(id, milliseconds(config->herd_spread)) : 0;
}

bool drain_differs(const struct snapshot *before, const struct snapshot *after)
{
    if (before->sets_len != after->sets_len)
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
