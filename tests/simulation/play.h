/*
 * Plays one schedule: a world, its brokers, servers and visitors, the deeds, the end of all faults, a quiet time, the
 * judgement, and whether everything answers again.
 */
#pragma once

#include "tests/simulation/schedule.h"

/* Deeds begin then: everything is connected. */
#define PLAY_WARM_UP SECONDS(4)

struct outcome {
    char *violation;                 /* owned; NULL: none */
    uint64_t virtual_time, cpu_time; /* microseconds */
    uint64_t events;
    unsigned messages, deliveries;
    uint64_t broker_turns;
};

struct outcome play(const struct schedule *schedule, bool verbose);
