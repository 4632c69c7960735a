/*
 * What the classes of faults are made of: draws, who does something, load, and times.
 */
#pragma once

#include "tests/simulation/schedule.h"

uint64_t fault_below(uint64_t *random, uint64_t limit);
uint64_t fault_between(uint64_t *random, uint64_t low, uint64_t high);
int64_t fault_one_of(uint64_t *random, const int64_t *values, size_t count);
#define ONE_OF(random, ...)                                                              \
    fault_one_of((random), (const int64_t[]){__VA_ARGS__},                               \
                 ARRAY_LEN(((const int64_t[]){__VA_ARGS__})))

/* Numbers of visitors by kind: as play.c makes them. A subscriber is no observer. */
unsigned fault_subscribers(const struct setup *setup);
int64_t fault_any_publisher(const struct setup *setup, uint64_t *random);
int64_t fault_any_subscriber(const struct setup *setup, uint64_t *random);
int64_t fault_any_stranger(const struct setup *setup, uint64_t *random);
int64_t fault_any_broker(const struct setup *setup, uint64_t *random);
int64_t fault_any_server(const struct setup *setup, uint64_t *random);

/* Busy and quiet times: partitions fall silent, some for good. */
void fault_load(struct schedule *schedule, const struct setup *setup, uint64_t *random);
/* One message, or a few, about the time of a fault. */
void fault_near(struct schedule *schedule, const struct setup *setup, uint64_t *random,
                uint64_t at);

struct fault_times {
    const struct setup *setup;
    uint64_t *random;
    uint64_t gap, at, free_at;
};
/* The next time of faults that are about `gap` microseconds apart; false: behind the end. */
bool fault_next_time(struct fault_times *times);
/* No other one until `rest` after this one's end; cut short at the end of all faults. Milliseconds. */
int64_t fault_alone(struct fault_times *times, int64_t lasting, uint64_t rest);

/* ── fault_cluster.c ── */

typedef void fault_set_up(struct setup *setup, uint64_t *random);
typedef void fault_fill(struct schedule *schedule, const struct setup *setup,
                        uint64_t *random);
fault_set_up fault_set_up_vanish;
fault_fill fault_fill_vanish;
fault_set_up fault_set_up_blackhole;
fault_fill fault_fill_blackhole;
fault_set_up fault_set_up_keys;
fault_fill fault_fill_keys;
fault_set_up fault_set_up_maps_differ;
fault_fill fault_fill_maps_differ;
fault_set_up fault_set_up_payloads;
fault_fill fault_fill_payloads;
fault_set_up fault_set_up_too_long;
fault_fill fault_fill_too_long;
fault_set_up fault_set_up_forged;
fault_fill fault_fill_forged;
fault_set_up fault_set_up_forged_plain;
fault_fill fault_fill_forged_plain;
