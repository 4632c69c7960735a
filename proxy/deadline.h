/*
 * Deadlines that cost nothing per message: a coarse wheel, one for each worker.
 *
 *      slot   0     1     2    ...   now   now+1   ...  511
 *           [   ] [   ] [   ]       [ * ] [     ]      [   ]      one step every 50 ms
 *                                     |
 *                                     └ deadlines that fall due here, and those of later rounds
 *
 * An owner whose limit is "silence for 60 s" does not move its deadline with every byte: it notes the
 * tick of the byte, and when the deadline falls due it looks at the note and sets itself again. The
 * wheel's tick is the worker's cheap clock for such notes. It stands still while no deadline is set.
 *
 * Precision is one step: a deadline falls due at its time or up to 100 ms later, never before.
 */
#pragma once

#include <event2/event_struct.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define DEADLINE_STEP_MS 50
#define DEADLINE_SLOTS   512

struct deadline;
typedef void (*deadline_cb)(struct deadline *deadline);

/* Embedded in its owner; CONTAINER_OF finds it again. Not set when `on_due` is NULL. */
struct deadline {
    LIST_ENTRY(deadline) entry;
    deadline_cb on_due;
    uint32_t due; /* tick */
};

LIST_HEAD(deadline_list, deadline);

struct deadline_wheel {
    struct event timer;
    struct event_base *base; /* borrowed */
    struct deadline_list slots[DEADLINE_SLOTS];
    uint64_t started; /* timing_now() at tick 0 */
    uint32_t tick;    /* last step taken */
    unsigned count;   /* deadlines set */
};

/* `base` outlives the wheel. */
void deadline_wheel_init(struct deadline_wheel *wheel, struct event_base *base);
void deadline_wheel_cleanup(struct deadline_wheel *wheel);

/* Milliseconds since the wheel began, in whole steps, good for differences of up to 24 days. Refreshed once
 * a step while a deadline is set, else by deadline_set. */
static inline uint32_t deadline_now(const struct deadline_wheel *wheel)
{
    return wheel->tick * DEADLINE_STEP_MS;
}

/* A limit of the configuration (microseconds, 0: none) in milliseconds, as deadlines take it. */
static inline uint32_t deadline_limit(uint64_t microseconds)
{
    uint64_t limit = (microseconds + 999) / 1000;
    return limit != 0 && limit < INT32_MAX ? (uint32_t)limit : INT32_MAX;
}

/* Calls on_due in `delay_ms` (0: at the next step), instead of whatever was set before. on_due runs once
 * and may set the deadline again. */
void deadline_set(struct deadline_wheel *wheel, struct deadline *deadline,
                  uint32_t delay_ms, deadline_cb on_due);

/* Nothing falls due any more; harmless when none is set. */
void deadline_clear(struct deadline_wheel *wheel, struct deadline *deadline);
