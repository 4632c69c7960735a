#include "proxy/endpoint.h"

#include "shared/timing.h"

#include "proxy/upstream.h"

#include <stdlib.h>
#include <string.h>

#define PLACED_COUNT_BITS 24
#define PLACED_COUNT_MAX  ((UINT64_C(1) << PLACED_COUNT_BITS) - 1)

#define SUSPECT_TIME_FIRST SECONDS(1)
#define SUSPECT_DOUBLINGS  5 /* 32 s, cut to the longest */
#define SUSPECT_TIME_MAX   SECONDS(30)
#define IDLE_UNKNOWN                                                                     \
    500u /* milliseconds; the shortest that servers have by default is 2 s */
#define PROBE_TIME SECONDS(5) /* as long as a connect may take by default */

int endpoint_identity_compare(struct slice a, unsigned a_port, struct slice b,
                              unsigned b_port)
{
    size_t len = min_size(a.len, b.len);
    int order = len > 0 ? memcmp(a.data, b.data, len) : 0;
    if (order == 0)
        order = (a.len > b.len) - (a.len < b.len);
    return order != 0 ? order : (a_port > b_port) - (a_port < b_port);
}

struct endpoint *endpoint_new(struct upstream *upstream,
                              const struct endpoint_identity *identity, uint64_t now,
                              bool is_founder)
{
    struct endpoint *endpoint = must_calloc(1, sizeof(*endpoint));
    atomic_init(&endpoint->holders, 1);
    /* replicas must not let their clients of one endpoint go at equal places */
    atomic_init(&endpoint->tunnels_total, (unsigned)timing_random());
    endpoint->upstream = upstream_ref(upstream);
    endpoint->identity = slice_dup(identity->identity);
    endpoint->label = slice_dup(identity->label);
    endpoint->address_text = slice_dup(identity->address_text);
    endpoint->address = identity->address;
    endpoint->port = identity->port;
    endpoint->created = now;
    endpoint->is_founder = is_founder;
    return endpoint;
}

struct endpoint *endpoint_ref(struct endpoint *endpoint)
{
    atomic_fetch_add_explicit(&endpoint->holders, 1, memory_order_relaxed);
    return endpoint;
}

void endpoint_unref(struct endpoint *endpoint)
{
    if (atomic_fetch_sub_explicit(&endpoint->holders, 1, memory_order_acq_rel) != 1)
        return;
    upstream_unref(endpoint->upstream);
    free(endpoint->identity);
    free(endpoint->label);
    free(endpoint->address_text);
    free(endpoint);
}

bool endpoint_has_one_holder(const struct endpoint *endpoint)
{
    return atomic_load_explicit(&endpoint->holders, memory_order_acquire) == 1;
}

bool endpoint_note_draining(struct endpoint *endpoint, bool is_draining, uint64_t now)
{
    bool was = atomic_load(&endpoint->draining_since) != 0;
    if (was != is_draining)
        atomic_store(&endpoint->draining_since, is_draining ? (now > 0 ? now : 1) : 0);
    return was != is_draining;
}

static void count_down(atomic_uint *counter)
{
    check(atomic_fetch_sub_explicit(counter, 1, memory_order_relaxed) > 0);
}

uint32_t endpoint_begin_tunnel(struct endpoint *endpoint)
{
    atomic_fetch_add_explicit(&endpoint->tunnels, 1, memory_order_relaxed);
    return atomic_fetch_add_explicit(&endpoint->tunnels_total, 1, memory_order_relaxed);
}

void endpoint_end_tunnel(struct endpoint *endpoint)
{
    count_down(&endpoint->tunnels);
}

void endpoint_begin_poll(struct endpoint *endpoint)
{
    atomic_fetch_add_explicit(&endpoint->polls, 1, memory_order_relaxed);
}

void endpoint_end_poll(struct endpoint *endpoint)
{
    count_down(&endpoint->polls);
}

/* One more in the bucket of this second. A bucket that still holds the second of ten before starts again. */
static void count_in_bucket(_Atomic uint64_t *bucket, uint64_t second)
{
    uint64_t old = atomic_load_explicit(bucket, memory_order_relaxed), new;
    do {
        if (old >> PLACED_COUNT_BITS < second)
            new = second << PLACED_COUNT_BITS | 1;
        else if ((old & PLACED_COUNT_MAX) == PLACED_COUNT_MAX)
            return;
        else
            new = old + 1;
    } while (!atomic_compare_exchange_weak_explicit(
        bucket, &old, new, memory_order_relaxed, memory_order_relaxed));
}

void endpoint_count_placed(struct endpoint *endpoint, uint64_t now)
{
    uint64_t second = now / SECONDS(1);
    count_in_bucket(&endpoint->placed[second % ENDPOINT_PLACED_SECONDS], second);
    uint64_t last = atomic_load_explicit(&endpoint->placed_last, memory_order_relaxed);
    while (last < second && !atomic_compare_exchange_weak_explicit(
                                &endpoint->placed_last, &last, second,
                                memory_order_relaxed, memory_order_relaxed))
        ;
    atomic_fetch_add_explicit(&endpoint->handshakes_total, 1, memory_order_relaxed);

    /* the first one after a suspicion is the probe; the others stay away until its result is in */
    if (atomic_load_explicit(&endpoint->failures, memory_order_relaxed) <
        ENDPOINT_SUSPECT_FAILURES)
        return;
    uint64_t until = atomic_load_explicit(&endpoint->suspect_until, memory_order_relaxed);
    if (until <= now && atomic_compare_exchange_strong_explicit(
                            &endpoint->suspect_until, &until, now + PROBE_TIME,
                            memory_order_relaxed, memory_order_relaxed))
        atomic_fetch_add_explicit(&endpoint->probes, 1, memory_order_relaxed);
}

void endpoint_note_failure(struct endpoint *endpoint, uint64_t now)
{
    unsigned failures =
        atomic_fetch_add_explicit(&endpoint->failures, 1, memory_order_relaxed) + 1;
    if (failures < ENDPOINT_SUSPECT_FAILURES)
        return;
    unsigned doublings = atomic_load_explicit(&endpoint->probes, memory_order_relaxed);
    uint64_t time = SUSPECT_TIME_FIRST
                    << (doublings < SUSPECT_DOUBLINGS ? doublings : SUSPECT_DOUBLINGS);
    if (time > SUSPECT_TIME_MAX)
        time = SUSPECT_TIME_MAX;
    atomic_store_explicit(&endpoint->suspect_until, now + time, memory_order_relaxed);
}

void endpoint_note_success(struct endpoint *endpoint)
{
    /* looked at first: successes are common, and a store would take the cache line from all threads */
    if (atomic_load_explicit(&endpoint->failures, memory_order_relaxed) == 0)
        return;
    atomic_store_explicit(&endpoint->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&endpoint->probes, 0, memory_order_relaxed);
}

bool endpoint_is_suspect(const struct endpoint *endpoint, uint64_t now)
{
    return atomic_load_explicit(&endpoint->failures, memory_order_relaxed) >=
               ENDPOINT_SUSPECT_FAILURES &&
           now < atomic_load_explicit(&endpoint->suspect_until, memory_order_relaxed);
}

void endpoint_note_idle_announced(struct endpoint *endpoint, unsigned limit)
{
    if (atomic_load_explicit(&endpoint->idle_announced, memory_order_relaxed) != limit)
        atomic_store_explicit(&endpoint->idle_announced, limit, memory_order_relaxed);
}

void endpoint_note_idle_end(struct endpoint *endpoint, unsigned idle)
{
    unsigned seen = atomic_load_explicit(&endpoint->idle_seen, memory_order_relaxed);
    unsigned limit = idle > 0 ? idle : 1;
    if (seen == 0 || limit < seen)
        atomic_store_explicit(&endpoint->idle_seen, limit, memory_order_relaxed);
}

void endpoint_note_idle_served(struct endpoint *endpoint, unsigned idle)
{
    if (idle > atomic_load_explicit(&endpoint->idle_seen, memory_order_relaxed))
        atomic_store_explicit(&endpoint->idle_seen, idle, memory_order_relaxed);
}

unsigned endpoint_idle_safe_ms(const struct endpoint *endpoint)
{
    unsigned announced =
        atomic_load_explicit(&endpoint->idle_announced, memory_order_relaxed);
    unsigned seen = atomic_load_explicit(&endpoint->idle_seen, memory_order_relaxed);
    unsigned limit = announced != 0 ? announced : seen != 0 ? seen : IDLE_UNKNOWN;
    return limit / 4 * 3;
}

unsigned endpoint_placed(const struct endpoint *endpoint, uint64_t now)
{
    uint64_t second = now / SECONDS(1);
    uint64_t last = atomic_load_explicit(&endpoint->placed_last, memory_order_relaxed);
    if (last + ENDPOINT_PLACED_SECONDS <= second)
        return 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < ENDPOINT_PLACED_SECONDS; i++) {
        uint64_t bucket =
            atomic_load_explicit(&endpoint->placed[i], memory_order_relaxed);
        if ((bucket >> PLACED_COUNT_BITS) + ENDPOINT_PLACED_SECONDS > second)
            sum += bucket & PLACED_COUNT_MAX;
    }
    return (unsigned)sum;
}

unsigned endpoint_placed_this_second(const struct endpoint *endpoint, uint64_t now)
{
    uint64_t second = now / SECONDS(1);
    uint64_t bucket = atomic_load_explicit(
        &endpoint->placed[second % ENDPOINT_PLACED_SECONDS], memory_order_relaxed);
    return bucket >> PLACED_COUNT_BITS == second ? (unsigned)(bucket & PLACED_COUNT_MAX)
                                                 : 0;
}

unsigned endpoint_sessions(const struct endpoint *endpoint, uint64_t now)
{
    return atomic_load_explicit(&endpoint->tunnels, memory_order_relaxed) +
           atomic_load_explicit(&endpoint->polls, memory_order_relaxed) +
           endpoint_placed(endpoint, now);
}
