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
