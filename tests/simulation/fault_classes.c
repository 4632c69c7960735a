/*
 * The classes of faults, as in docs/broker-protocol.md, "Promised". To add one: a function that fills a schedule, and a
 * row in the table with what is promised then.
 */
#include "tests/simulation/client.h"
#include "tests/simulation/fault_parts.h"

/* ── classes ── */

static void fill_none(struct schedule *schedule, const struct setup *setup,
                      uint64_t *random)
{
    fault_load(schedule, setup, random);
}

static void fill_shard_kill(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(3), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting = fault_alone(&times, ONE_OF(random, 1, 50, 800, 3000, 7000), 1);
        schedule_add(schedule, times.at, DEED_redis_kill, fault_any_server(setup, random),
                     lasting, 0, 0, 0);
    }
}

static void fill_shard_stop(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(3), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting =
            fault_alone(&times, ONE_OF(random, 100, 900, 1100, 2500, 9000), 1);
        schedule_add(schedule, times.at, DEED_redis_stop, fault_any_server(setup, random),
                     lasting, 0, 0, 0);
    }
}

static void fill_shard_flap(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    uint64_t period = (uint64_t)ONE_OF(random, 150, 700, 2000, 6000);
    struct fault_times times = {setup, random, MILLISECONDS(period), 0, 0};
    int64_t server = fault_any_server(setup, random);
    enum deed_kind kind = fault_below(random, 2) == 0 ? DEED_redis_kill : DEED_redis_stop;
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        int64_t lasting =
            fault_alone(&times, (int64_t)fault_below(random, period) + 1, 1);
        schedule_add(schedule, times.at, kind, server, lasting, 0, 0, 0);
    }
}

static void fill_refusal(struct schedule *schedule, const struct setup *setup,
                         uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(3), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        int64_t server = fault_any_server(setup, random);
        int64_t lasting = fault_alone(&times, ONE_OF(random, 200, 2000, 6000), 1);
        enum deed_kind kind =
            fault_below(random, 3) == 0 ? DEED_redis_demote : DEED_redis_refuse;
        schedule_add(schedule, times.at, kind, server, lasting, 0, 0, 0);
        for (unsigned i = 0; i < setup->brokers; i++)
            if (fault_below(random, 2) == 0)
                schedule_add(schedule, times.at + 1000, DEED_reset, i, server,
                             (int64_t)fault_below(random, 2), 0, 0);
    }
}

static void fill_link_reset(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    struct fault_times times = {setup, random, MILLISECONDS(700), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        for (int64_t i = ONE_OF(random, 1, 1, 2, 6, 18); i > 0; i--)
            schedule_add(schedule, times.at + fault_below(random, 3000), DEED_reset,
                         fault_any_broker(setup, random), fault_any_server(setup, random),
                         (int64_t)fault_below(random, 2), 0, 0);
    }
}

static void fill_link_stall(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    struct fault_times times = {setup, random, MILLISECONDS(1500), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting =
            fault_alone(&times, ONE_OF(random, 50, 500, 1500, 4000, 8000), 1);
        schedule_add(schedule, times.at, DEED_stall, fault_any_broker(setup, random),
                     fault_any_server(setup, random), (int64_t)fault_below(random, 2),
                     (int64_t)fault_below(random, 2), lasting);
    }
}

static void fill_both_shards(struct schedule *schedule, const struct setup *setup,
                             uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(4), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting = fault_alone(&times, ONE_OF(random, 30, 500, 2000, 5000), 500);
        unsigned first = (unsigned)fault_below(random, setup->shards);
        for (unsigned k = 0; k < (fault_below(random, 2) == 0 ? 2 : setup->shards); k++) {
            enum deed_kind kind =
                fault_below(random, 2) == 0 ? DEED_redis_kill : DEED_redis_stop;
            schedule_add(schedule, times.at + fault_below(random, 400000), kind,
                         (first + k) % setup->shards, lasting, 0, 0, 0);
        }
    }
}

static void fill_pause(struct schedule *schedule, const struct setup *setup,
                       uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(3), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting =
            fault_alone(&times, ONE_OF(random, 500, 1200, 3000, 6000, 8000), 3000);
        schedule_add(schedule, times.at, DEED_pause, fault_any_broker(setup, random),
                     lasting, 0, 0, 0);
    }
}

static void fill_pause_and_kill(struct schedule *schedule, const struct setup *setup,
                                uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(3), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        int64_t lasting =
            fault_alone(&times, ONE_OF(random, 500, 1200, 3000, 8000), 4000);
        schedule_add(schedule, times.at, DEED_pause, fault_any_broker(setup, random),
                     lasting, 0, 0, 0);
        uint64_t at = times.at + fault_below(random, MILLISECONDS((uint64_t)lasting) + 1);
        fault_near(schedule, setup, random, at);
        if (fault_below(random, 2) == 0)
            schedule_add(schedule, at, DEED_redis_kill, fault_any_server(setup, random),
                         ONE_OF(random, 1, 500, 4000), 0, 0, 0);
        else
            schedule_add(schedule, at, DEED_reset, fault_any_broker(setup, random),
                         fault_any_server(setup, random), (int64_t)fault_below(random, 2),
                         0, 0);
    }
}

static void cut_off(struct schedule *schedule, const struct setup *setup,
                    uint64_t *random, const int64_t *lengths, size_t count, uint64_t gap)
{
    struct fault_times times = {setup, random, gap, 0, 0};
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting = fault_alone(&times, fault_one_of(random, lengths, count), 4000);
        int64_t directions = (int64_t)fault_between(random, 1, 3);
        schedule_add(schedule, times.at, DEED_cut, fault_any_broker(setup, random), -1,
                     directions, lasting, 0);
        fault_near(schedule, setup, random,
                   times.at + fault_below(random, MILLISECONDS((uint64_t)lasting) + 1));
    }
}

static void fill_cut_off(struct schedule *schedule, const struct setup *setup,
                         uint64_t *random)
{
    static const int64_t lengths[] = {100, 1000, 2500, 4500, 5500, 6500, 7500, 8000};
    fault_load(schedule, setup, random);
    cut_off(schedule, setup, random, lengths, ARRAY_LEN(lengths), SECONDS(4));
}

static void set_up_long(struct setup *setup, uint64_t *random)
{
    setup->length = SECONDS(fault_between(random, 60, 180));
}

static void fill_cut_off_long(struct schedule *schedule, const struct setup *setup,
                              uint64_t *random)
{
    static const int64_t lengths[] = {9000, 15000, 30000, 60000, 75000, 90000, 120000};
    fault_load(schedule, setup, random);
    cut_off(schedule, setup, random, lengths, ARRAY_LEN(lengths), SECONDS(20));
}

static void fill_crash(struct schedule *schedule, const struct setup *setup,
                       uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(4), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting = fault_alone(&times, ONE_OF(random, 10, 1000, 5000), 1);
        schedule_add(schedule, times.at,
                     fault_below(random, 4) == 0 ? DEED_drain : DEED_crash,
                     fault_any_broker(setup, random), lasting, 0, 0, 0);
    }
}

static void fill_map_change(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    uint64_t at = fault_below(random, 1500000);
    int64_t map = 0;
    fault_load(schedule, setup, random);
    for (uint64_t i = fault_between(random, 1, 3); i > 0; i--) {
        /* one server more, or one fewer; two maps in a row share the others */
        map ^= 1 << fault_below(random, setup->shards + 2);
        if ((map & ((1 << setup->shards) - 1)) == (1 << setup->shards) - 1)
            map &= ~1;
        for (unsigned b = 0; b < setup->brokers; b++)
            schedule_add(schedule, at + fault_below(random, 2500000), DEED_reload, b, map,
                         (int64_t)fault_below(random, 2), 0, 0);
        at += (uint64_t)ONE_OF(random, 500, 3000, 12000) * 1000;
    }
}

static void fill_map_change_and_kill(struct schedule *schedule, const struct setup *setup,
                                     uint64_t *random)
{
    fill_map_change(schedule, setup, random);
    fill_shard_kill(schedule, setup, random);
}

/* A shard's name comes to lead to another server, at brokers one after the other. */
static void fill_url_change(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    uint64_t at = fault_below(random, 3000000);
    int64_t map = 0;
    fault_load(schedule, setup, random);
    for (uint64_t i = fault_between(random, 1, 2); i > 0; i--) {
        map ^= 256 << fault_below(random, setup->shards);
        for (unsigned b = 0; b < setup->brokers; b++) {
            uint64_t when = at + fault_below(random, 6000000);
            schedule_add(schedule, when, DEED_reload, b, map,
                         (int64_t)fault_below(random, 2), 0, 0);
            fault_near(schedule, setup, random, when);
        }
        at += SECONDS(12);
    }
}

static void set_up_pods(struct setup *setup, uint64_t *random)
{
    setup->pods = 2;
    setup->listeners = 1;
    setup->settles = SECONDS(70);
    if (fault_below(random, 2) == 0) {
        setup->brokers = 1;
        setup->shards = 0;
    }
}

static void fill_pods(struct schedule *schedule, const struct setup *setup,
                      uint64_t *random)
{
    struct fault_times times = {setup, random, MILLISECONDS(600), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t visitor = fault_any_subscriber(setup, random);
        schedule_add(schedule, times.at, DEED_end, visitor,
                     (int64_t)fault_below(random, END_COUNT),
                     ONE_OF(random, 1, 50, 800, 5000), 0, 0);
        if (fault_below(random, 3) == 0)
            schedule_add(schedule, times.at + fault_below(random, 500000), DEED_mute,
                         fault_any_subscriber(setup, random),
                         ONE_OF(random, 10, 500, 4000), 0, 0, 0);
    }
}

static void set_up_hostile(struct setup *setup, uint64_t *random)
{
    set_up_pods(setup, random);

    setup->strangers = 2;
    setup->publishers = 2;
    setup->pods_speak = fault_below(random, 4) != 0;
    setup->slow_bytes = fault_below(random, 3) == 0 ? 65536 : 0;
    setup->slow_drops = fault_below(random, 2) == 0;
}

/* CLIENT KILL and its victim's own end, about the same time; often while a request of the victim waits. */
static void kill_one(struct schedule *schedule, const struct setup *setup,
                     uint64_t *random, uint64_t at)
{
    int64_t victim = fault_below(random, 2) == 0 ? fault_any_subscriber(setup, random)
                                                 : fault_any_publisher(setup, random);
    if (fault_below(random, 2) == 0)
        schedule_add(schedule, at - min_size(at, fault_below(random, 3000)), DEED_publish,
                     victim, 0, (int64_t)fault_below(random, ROOMS_MAX),
                     ONE_OF(random, 1, 3, 40), 0);
    schedule_add(schedule, at, DEED_kill_and_end, fault_any_publisher(setup, random),
                 victim, (int64_t)fault_below(random, END_COUNT),
                 (int64_t)fault_below(random, 6000), 0);
}

static void hostile_deed(struct schedule *schedule, const struct setup *setup,
                         uint64_t *random, uint64_t at)
{
    switch (fault_below(random, 8)) {
    case 0:
    case 1:
    case 2:
        schedule_add(schedule, at, DEED_say, fault_any_stranger(setup, random),
                     (int64_t)fault_below(random, 4),
                     (int64_t)fault_below(random, 1U << 30), 0, 0);
        return;
    case 3:
        schedule_add(schedule, at, DEED_end, fault_any_stranger(setup, random),
                     (int64_t)fault_below(random, END_COUNT), ONE_OF(random, 1, 100), 0,
                     0);
        return;
    case 4:
        schedule_add(schedule, at, DEED_client_kill, fault_any_publisher(setup, random),
                     fault_any_subscriber(setup, random), 0, 0, 0);
        return;
    case 5:
        kill_one(schedule, setup, random, at);
        return;
    case 6:
        schedule_add(schedule, at, DEED_end, fault_any_publisher(setup, random),
                     (int64_t)fault_below(random, END_COUNT), ONE_OF(random, 1, 100), 0,
                     0);
        return;
    default:
        schedule_add(schedule, at, DEED_mute, fault_any_subscriber(setup, random),
                     ONE_OF(random, 100, 2000, 8000), 0, 0, 0);
        return;
    }
}

static void fill_hostile(struct schedule *schedule, const struct setup *setup,
                         uint64_t *random)
{
    struct fault_times times = {setup, random, MILLISECONDS(150), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times))
        hostile_deed(schedule, setup, random, times.at);
}

/* ── needs come and go ── */

static void set_up_interest(struct setup *setup, uint64_t *random)
{
    setup->observers = setup->pods = setup->listeners = 0;
    setup->pods_speak = false;
    setup->seekers = 1 + (unsigned)fault_below(random, 2);
    setup->managers = 1 + (unsigned)fault_below(random, 2);
    setup->partitions = 32;
}

static void set_up_interest_and_ends(struct setup *setup, uint64_t *random)
{
    set_up_interest(setup, random);
    setup->settles = SECONDS(70);
}

static void seek(struct schedule *schedule, const struct setup *setup, uint64_t *random)
{
    struct fault_times times = {setup, random, MILLISECONDS(250), 0, 0};
    while (fault_next_time(&times)) {
        int64_t visitor = fault_any_subscriber(setup, random);
        schedule_add(schedule, times.at, DEED_seek, visitor,
                     (int64_t)fault_below(random, ROOMS_MAX),
                     (int64_t)fault_below(random, 2), 0, 0);
        fault_near(schedule, setup, random, times.at + 3000);
    }
}

static void fill_interest(struct schedule *schedule, const struct setup *setup,
                          uint64_t *random)
{
    fault_load(schedule, setup, random);
    seek(schedule, setup, random);
}

static void fill_interest_and_ends(struct schedule *schedule, const struct setup *setup,
                                   uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(1), 0, 0};
    fill_interest(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        schedule_add(schedule, times.at, DEED_end, fault_any_subscriber(setup, random),
                     (int64_t)fault_below(random, END_QUIT), ONE_OF(random, 1, 50, 800),
                     0, 0);
    }
}

/* ── more of the same ── */

static void set_up_local_fast(struct setup *setup, uint64_t *random)
{
    setup->fast_brokers = (unsigned)fault_between(random, 1, 7);
}

static void fill_any_one(struct schedule *schedule, const struct setup *setup,
                         uint64_t *random)
{
    static void (*const fills[])(struct schedule *, const struct setup *, uint64_t *) = {
        fill_shard_kill, fill_shard_stop, fill_link_reset, fill_pause, fill_cut_off};
    fills[fault_below(random, ARRAY_LEN(fills))](schedule, setup, random);
}

/* A Redis that is slow, refuses PUBLISH, or ends subscribers for whom too much is queued. */
static void fill_shard_ill(struct schedule *schedule, const struct setup *setup,
                           uint64_t *random)
{
    struct fault_times times = {setup, random, SECONDS(3), 0, 0};
    fault_load(schedule, setup, random);
    while (fault_next_time(&times)) {
        fault_near(schedule, setup, random, times.at);
        int64_t lasting = fault_alone(&times, ONE_OF(random, 500, 2000, 6000), 6000);
        int64_t server = fault_any_server(setup, random);
        switch (fault_below(random, 3)) {
        case 0:
            schedule_add(schedule, times.at, DEED_redis_error, server, lasting, 0, 0, 0);
            break;
        case 1:
            schedule_add(schedule, times.at, DEED_redis_slow, server,
                         ONE_OF(random, 5, 50, 400), lasting, 0, 0);
            break;
        default:
            schedule_add(schedule, times.at, DEED_redis_limit, server, 20000, lasting, 0,
                         0);
            break;
        }
    }
}

static void set_up_everything(struct setup *setup, uint64_t *random)
{
    set_up_long(setup, random);
    setup->settles = SECONDS(70);
    setup->strangers = 1;
    setup->managers = setup->seekers = 1;
    setup->fast_brokers =
        fault_below(random, 3) == 0 ? (unsigned)fault_between(random, 1, 7) : 0;
}

/* What is lost is counted; nothing twice, in order, and all is well in the end. */
static void fill_everything(struct schedule *schedule, const struct setup *setup,
                            uint64_t *random)
{
    static const int64_t lengths[] = {500, 3000, 9000, 40000};
    struct fault_times times = {setup, random, SECONDS(1), 0, 0};
    fill_map_change(schedule, setup, random);
    fill_shard_kill(schedule, setup, random);
    fill_shard_stop(schedule, setup, random);
    fill_link_reset(schedule, setup, random);
    fill_pause(schedule, setup, random);
    cut_off(schedule, setup, random, lengths, ARRAY_LEN(lengths), SECONDS(15));
    seek(schedule, setup, random);
    while (fault_next_time(&times))
        hostile_deed(schedule, setup, random, times.at);
}

#define LOSSLESS                                                                         \
    {                                                                                    \
        0                                                                                \
    }

const struct fault_class fault_classes[] = {
    {"none", "load alone", {.one_order = true}, NULL, fill_none},
    {"shard_kill", "one shard at a time is killed", LOSSLESS, NULL, fill_shard_kill},
    {"shard_stop", "one shard at a time is stopped", LOSSLESS, NULL, fill_shard_stop},
    {"shard_flap", "one shard comes and goes", LOSSLESS, NULL, fill_shard_flap},
    {"refusal", "a shard refuses connections, or is a replica", LOSSLESS, NULL,
     fill_refusal},
    {"link_reset", "links are reset", LOSSLESS, NULL, fill_link_reset},
    {"link_stall", "one direction of a link stalls", LOSSLESS, NULL, fill_link_stall},
    {"both_shards", "several shards at once", LOSSLESS, NULL, fill_both_shards},
    {"pause", "brokers are stopped for up to 8 s", LOSSLESS, NULL, fill_pause},
    {"pause_and_kill", "and a shard or a link ends meanwhile", LOSSLESS, NULL,
     fill_pause_and_kill},
    {"cut_off", "a broker reaches no shard for up to 8 s", LOSSLESS, NULL, fill_cut_off},
    {"cut_off_long",
     "and for up to 120 s",
     {.loses_counted = true},
     set_up_long,
     fill_cut_off_long},
    {"crash",
     "brokers are killed, or end in order",
     {.loses_accepted = true},
     NULL,
     fill_crash},
    {"map_change", "shards come and go by reload", LOSSLESS, NULL, fill_map_change},
    {"map_change_and_kill", "and are killed", LOSSLESS, NULL, fill_map_change_and_kill},
    {"url_change", "a shard is moved to another server by reload", LOSSLESS, NULL,
     fill_url_change},
    {"pods",
     "connections of subscribers end",
     {.ends_pods = true},
     set_up_pods,
     fill_pods},
    {"shard_ill", "a shard is slow, refuses PUBLISH, or ends subscribers", LOSSLESS, NULL,
     fill_shard_ill},
    {"local_fast", "delivery.local_fast at some brokers, and one of these", LOSSLESS,
     set_up_local_fast, fill_any_one},
    {"interest", "needs of partitions come and go", LOSSLESS, set_up_interest,
     fill_interest},
    {"interest_and_ends",
     "and those who have them too",
     {.ends_pods = true},
     set_up_interest_and_ends,
     fill_interest_and_ends},
    {"vanish",
     "brokers' machines go without a packet, and others take their addresses",
     {.loses_accepted = true},
     fault_set_up_vanish,
     fault_fill_vanish},
    {"blackhole",
     "paths between clients and brokers pass nothing for a while",
     {.ends_pods = true},
     fault_set_up_blackhole,
     fault_fill_blackhole},
    {"keys", "keys are introduced, rotated, and taken away again", LOSSLESS,
     fault_set_up_keys, fault_fill_keys},
    {"maps_differ",
     "a broker starts with another cluster's file",
     {.loses_accepted = true},
     fault_set_up_maps_differ,
     fault_fill_maps_differ},
    {"payloads", "brokers differ in limits.payload", LOSSLESS, fault_set_up_payloads,
     fault_fill_payloads},
    {"too_long",
     "and messages are longer than some read",
     {.loses_counted = true},
     fault_set_up_too_long,
     fault_fill_too_long},
    {"forged", "somebody publishes on a shard, and has no key", LOSSLESS,
     fault_set_up_forged, fault_fill_forged},
    {"forged_plain", "somebody publishes what is not plausible, where there are no keys",
     LOSSLESS, fault_set_up_forged_plain, fault_fill_forged_plain},
    {"everything",
     "all of these at once",
     {.loses_counted = true,
      .loses_accepted = true,
      .ends_pods = true,
      .has_strangers = true},
     set_up_everything,
     fill_everything},
    {"hostile",
     "strangers say anything, and kill",
     {.ends_pods = true, .has_strangers = true},
     set_up_hostile,
     fill_hostile},
};
const unsigned fault_class_count = ARRAY_LEN(fault_classes);
