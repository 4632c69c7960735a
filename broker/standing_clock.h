/*
 * The clock of the protocol's deadlines, which stands while the process does: of the time between two readings
 * at most STANDING_TURN counts. A broker that was stopped for eight seconds finds nothing overdue on
 * waking that it had no chance to look at (docs/broker-protocol.md, "The broker's clock"). Somebody must read it
 * more often than that; the ticks of the links do.
 */
#pragma once

#include "shared/timing.h"

#define STANDING_TURN MILLISECONDS(200)

/* Microseconds since an unnamed moment; never goes back. One thread only. */
uint64_t standing_now(void);

/* Of one process; what standing_now() reads from then on, where several brokers are in one process, each with a clock of
 * its own (tests/simulation). All zero is one that has not been read yet; NULL: the process' own. Borrowed. */
struct standing_clock {
    uint64_t now;
    uint64_t read_at;
};
void standing_clock_use(struct standing_clock *clock);
