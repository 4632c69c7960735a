/*
 * The numbers of one broker's heartbeats: which are news, which are copies or late, and which are not believed.
 *
 *     number ≤ newest                     late: a copy, a shard that woke
 *     number > newest, within the leap    news
 *     number > newest, beyond it          not believed
 *
 * Where nothing is news for TRACK_SILENT, and numbers that are late or not believed rise steadily for TRACK_STEADY, that is
 * how the broker counts, and the newest number was somebody else's: it is taken back. A shard that wakes brings what it
 * has at once, and so takes nothing back.
 *
 *     newest 17 ─ 2^40 (forged): not believed ─ 18: news
 *     newest 17 ─ 900,000 (forged): news ─ 18, 19, … late ─ 5 s without news, 3 s of steady rise ─ 24: news
 *
 * Times are of standing_now(). A plain value; all zero has heard nothing.
 */
#pragma once

#include "shared/timing.h"

#include <stdbool.h>

/* Nothing counts so far: ten thousand a second for two hundred thousand years. */
#define TRACK_NUMBER_MAX (UINT64_C(1) << 56)

/* What may be missing between two numbers that were heard: at once, and for each millisecond between them. */
#define TRACK_LEAP       (UINT64_C(1) << 20)
#define TRACK_LEAP_OF_MS 20

#define TRACK_SILENT    SECONDS(5)
#define TRACK_STEADY    SECONDS(3)
#define TRACK_BREAK     MILLISECONDS(2500) /* a rise that pauses for longer has ended */
#define TRACK_RISES_MAX 4

enum track_verdict { TRACK_NEWS, TRACK_LATE, TRACK_IMPLAUSIBLE };

struct number_rise {
    uint64_t last; /* 0: none */
    uint64_t since, at;
};

struct number_track {
    uint64_t newest; /* 0: none yet */
    uint64_t heard_at;
    struct number_rise rises[TRACK_RISES_MAX];
};

/* `number` from 1. */
enum track_verdict number_track_take(struct number_track *track, uint64_t number,
                                     uint64_t now);
