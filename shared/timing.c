#include "shared/timing.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

static atomic_bool is_set_for_test;
static _Atomic uint64_t test_now;

static uint64_t monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t timing_now(void)
{
    if (atomic_load_explicit(&is_set_for_test, memory_order_relaxed))
        return atomic_load_explicit(&test_now, memory_order_relaxed);
    return monotonic();
}

void timing_set_for_test(uint64_t now)
{
    atomic_store(&test_now, now);
    atomic_store(&is_set_for_test, true);
}

void timing_advance_for_test(uint64_t microseconds)
{
    check(atomic_load(&is_set_for_test));
    atomic_fetch_add(&test_now, microseconds);
}

void timing_unset_for_test(void)
{
    atomic_store(&is_set_for_test, false);
}

struct timeval timing_to_timeval(uint64_t microseconds)
{
    return (struct timeval){.tv_sec = (time_t)(microseconds / 1000000),
                            .tv_usec = (suseconds_t)(microseconds % 1000000)};
}

void timing_wall_text(char text[TIMING_TEXT_SIZE])
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm parts;
    gmtime_r(&now.tv_sec, &parts);
    size_t len = strftime(text, TIMING_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + len, TIMING_TEXT_SIZE - len, ".%03uZ",
             (unsigned)(now.tv_nsec / 1000000) % 1000);
}

uint64_t timing_random(void)
{
    /* splitmix64, one state a thread: no lock, and good enough to spread waits */
    static _Thread_local uint64_t state;
    if (state == 0) {
        if (getrandom(&state, sizeof(state), GRND_NONBLOCK) != sizeof(state))
            state = monotonic() ^ (uint64_t)(uintptr_t)&state;
    }
    uint64_t mixed = (state += 0x9e3779b97f4a7c15U);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
    return mixed ^ (mixed >> 31);
}

void backoff_init(struct backoff *backoff, uint64_t minimum, uint64_t maximum)
{
    check(minimum > 0 && minimum <= maximum && maximum <= UINT64_MAX / 2);
    *backoff = (struct backoff){.minimum = minimum, .maximum = maximum};
}

uint64_t backoff_next(struct backoff *backoff)
{
    uint64_t wait = backoff->wait == 0 ? backoff->minimum : backoff->wait;
    backoff->wait = wait * 2 > backoff->maximum ? backoff->maximum : wait * 2;
    uint64_t half = wait / 2;
    return half + timing_random() % (wait - half + 1);
}

void backoff_reset(struct backoff *backoff)
{
    backoff->wait = 0;
}
