/*
 * Time as the loops see it: monotonic microseconds since an unnamed moment, never stepped back, settable in
 * tests. Durations are uint64_t microseconds everywhere; wall-clock time exists only as text for logs.
 */
#pragma once

#include "shared/base.h"

#include <sys/time.h>

#define MILLISECONDS(n) ((uint64_t)(n)*1000)
#define SECONDS(n)      ((uint64_t)(n)*1000000)

/* Microseconds of CLOCK_MONOTONIC, or of the test's clock. Any thread; about 20 ns. */
uint64_t timing_now(void);

/* From here on timing_now() answers `now` until it is moved; for unit tests only, all threads see it. */
void timing_set_for_test(uint64_t now);
void timing_advance_for_test(uint64_t microseconds);
void timing_unset_for_test(void);

/* For event_add() and friends. */
struct timeval timing_to_timeval(uint64_t microseconds);

/* The wall clock in UTC with milliseconds, "2026-11-24T07:00:00.123Z". */
#define TIMING_TEXT_SIZE 32
void timing_wall_text(char text[TIMING_TEXT_SIZE]);

/* 64 random bits, not secret; for jitter and spreading only. Any thread. */
uint64_t timing_random(void);

/*
 * How long to wait before the next attempt: the wait doubles from `minimum` to `maximum`; each answer is
 * drawn from the upper half of the wait, so that many who failed together do not come back together.
 */
struct backoff {
    uint64_t minimum, maximum; /* microseconds */
    uint64_t wait;             /* the next one before jitter; 0: none failed yet */
};

void backoff_init(struct backoff *backoff, uint64_t minimum, uint64_t maximum);

/* Microseconds to wait now: in wait/2 .. wait, where wait is minimum, 2 minimum, 4 minimum … maximum. */
uint64_t backoff_next(struct backoff *backoff);

/* It worked: the next wait is the minimum again. */
void backoff_reset(struct backoff *backoff);
