/*
 * Classes of faults: machines that vanish, keys, files of other clusters, limits that differ, and forgers.
 */
#include "tests/simulation/broker_files.h"
#include "tests/simulation/fault_parts.h"
#include "tests/simulation/redis_model.h"

#define UP   1
#define DOWN 2
#define BOTH (UP | DOWN)

/* ── machines and paths ── */

void fault_set_up_vanish(struct setup *setup, uint64_t *random UNUSED)
{
    setup->is_checked = true;
}

void fault_fill_vanish(struct schedule *schedule, const struct setup *setup,
                       uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(5), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting = fault_alone(&times, ONE_OF(random, 10, 800, 4000, 12000), 1);
        schedule_add(schedule, times.at, DEED_vanish, fault_any_broker(setup, random),
                     lasting, 0, 0, 0);
    }
}

void fault_set_up_blackhole(struct setup *setup, uint64_t *random)
{
    setup->pods = 2;
    setup->settles = SECONDS(100);
    if (fault_below(random, 2) == 0) {
        setup->brokers = 1;
        setup->shards = 0;
    }
}

/* Shorter than what either end takes for an end. */

void fault_fill_blackhole(struct schedule *schedule, const struct setup *setup,
                          uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(2), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        int64_t visitor = fault_any_subscriber(setup, random);
        int64_t lasting = fault_alone(&times, ONE_OF(random, 300, 2000, 5000, 8000), 1);
        schedule_add(schedule, times.at, DEED_cut_client, visitor,
                     ONE_OF(random, UP, DOWN, BOTH, BOTH), lasting, 0, 0);
        fault_near(schedule, setup, random, times.at);
    }
}

/* ── keys ── */

/* What is out of the file is not under way any more: docs/broker-protocol.md, "Rotation". */
#define ROTATION_WAIT SECONDS(20)

void fault_set_up_keys(struct setup *setup, uint64_t *random)
{
    static const unsigned starts[] = {KEYS_NONE, KEYS_STRICT};
    setup->resend_window = 20;
    setup->keys = starts[fault_below(random, ARRAY_LEN(starts))];
    setup->length = SECONDS(110);
}

void fault_fill_keys(struct schedule *schedule, const struct setup *setup,
                     uint64_t *random)
{
    static const unsigned forth[] = {KEYS_ACCEPT, KEYS_STRICT,  KEYS_APPENDED,
                                     KEYS_MOVED,  KEYS_ROTATED, KEYS_ACCEPT_AGAIN,
                                     KEYS_NONE};
    size_t step = setup->keys == KEYS_NONE ? 0 : 2;
    uint64_t at = fault_between(random, 0, SECONDS(5));
    fault_load(schedule, setup, random);
    for (; step < ARRAY_LEN(forth) && at + SECONDS(16) < setup->length; step++) {
        if (forth[step] == KEYS_ROTATED)
            at += ROTATION_WAIT;
        for (unsigned b = 0; b < setup->brokers; b++) {
            uint64_t when = at + fault_below(random, SECONDS(3));
            schedule_add(schedule, when, DEED_keys, b, forth[step],
                         (int64_t)fault_below(random, 2), 0, 0);
            fault_near(schedule, setup, random, when);
        }
        if (fault_below(random, 3) == 0)
            schedule_add(schedule, at + fault_below(random, SECONDS(3)), DEED_reset,
                         fault_any_broker(setup, random), fault_any_server(setup, random),
                         (int64_t)fault_below(random, 2), 0, 0);
        /* the file is looked at each 5 s; then heartbeats are heard */
        at += SECONDS(fault_between(random, 16, 20));
    }
}

/* ── files that differ ── */

void fault_set_up_maps_differ(struct setup *setup, uint64_t *random)
{
    setup->brokers = 3;
    setup->ack_shard = false;
    setup->length = SECONDS(fault_between(random, 40, 80));
}

void fault_fill_maps_differ(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(5), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        int64_t lasting =
            fault_alone(&times, ONE_OF(random, 500, 5000, 20000, 35000), 6000);
        schedule_add(schedule, times.at, DEED_misfile, fault_any_broker(setup, random),
                     (int64_t)fault_below(random, WRONG_FILE_COUNT - 1), lasting, 0, 0);
        fault_near(schedule, setup, random, times.at + SECONDS(4));
    }
}

/* ── limits that differ ── */

static void long_messages(struct schedule *schedule, const struct setup *setup,
                          uint64_t *random, uint64_t gap, int64_t filler)
{
    struct fault_times times = {setup, random, gap, 0, 0};
    while (fault_next_time(&times)) {
        schedule_add(schedule, times.at, DEED_publish, fault_any_publisher(setup, random),
                     CHANNEL_PODS, (int64_t)fault_below(random, ROOMS_MAX), 1, filler);
        fault_near(schedule, setup, random, times.at);
    }
}

void fault_set_up_payloads(struct setup *setup, uint64_t *random)
{
    static const uint64_t limits[] = {1024, 4096, 100000, 0};
    for (unsigned i = 0; i < SLOTS_MAX; i++)
        setup->payload_max[i] = limits[fault_below(random, ARRAY_LEN(limits))];

    setup->pods_speak = false;
}

void fault_fill_payloads(struct schedule *schedule, const struct setup *setup,
                         uint64_t *random)
{
    fault_load(schedule, setup, random);
    long_messages(schedule, setup, random, SECONDS(1), ONE_OF(random, 900, 3000, 9000));
    long_messages(schedule, setup, random, SECONDS(4), ONE_OF(random, 60000, 200000));
}

/* Beyond what a broker reads, whatever its limit is. */
#define LONGER_THAN_READ ((34 << 20) + 5)

void fault_set_up_too_long(struct setup *setup, uint64_t *random)
{
    setup->payload_max[0] = 64 << 20;
    setup->payload_max[1] = 1 << 20;
    setup->payload_max[2] = fault_below(random, 2) == 0 ? 64 << 20 : 0;
    setup->pods_speak = false;
    setup->length = SECONDS(30);
    setup->slow_bytes = 256 << 20;
    setup->wires =
        (struct wire_profile){.latency_low = 50, .latency_high = 300, .buffer = 4 << 20};
}

void fault_fill_too_long(struct schedule *schedule, const struct setup *setup,
                         uint64_t *random)
{
    fault_load(schedule, setup, random);
    /* as the documentation says: client-output-buffer-limit pubsub */
    for (unsigned k = 0; k < setup->shards; k++)
        schedule_add(schedule, 0, DEED_redis_limit, k, 256 << 20,
                     (int64_t)(setup->length / 1000), 0, 0);
    uint64_t at = fault_between(random, SECONDS(2), SECONDS(10));
    int64_t publisher = fault_subscribers(setup); /* of the first broker */
    schedule_add(schedule, at, DEED_publish, publisher, CHANNEL_PODS,
                 (int64_t)fault_below(random, ROOMS_MAX), 1, LONGER_THAN_READ);
    fault_near(schedule, setup, random, at);
    fault_near(schedule, setup, random, at + SECONDS(2));
}

/* ── forgers ── */

void fault_set_up_forged(struct setup *setup, uint64_t *random)
{
    setup->keys = fault_below(random, 2) == 0 ? KEYS_STRICT : KEYS_APPENDED;
}

static void forge(struct schedule *schedule, const struct setup *setup, uint64_t *random,
                  unsigned kinds)
{
    struct fault_times times = {setup, random, MILLISECONDS(100), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times))
        schedule_add(schedule, times.at, DEED_forge, fault_any_server(setup, random),
                     (int64_t)fault_below(random, kinds),
                     (int64_t)fault_below(random, 1U << 30), 0, 0);
}

void fault_fill_forged(struct schedule *schedule, const struct setup *setup,
                       uint64_t *random)
{
    forge(schedule, setup, random, FORGERY_COUNT);
}

void fault_set_up_forged_plain(struct setup *setup, uint64_t *random UNUSED)
{
    setup->keys = KEYS_NONE;
}

void fault_fill_forged_plain(struct schedule *schedule, const struct setup *setup,
                             uint64_t *random)
{
    forge(schedule, setup, random, FORGE_PLAIN_COUNT);
}
