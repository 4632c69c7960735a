/*
 * The clock while a batch is handled: everything that came with one read happens at one moment, and the clock, a reading
 * of which costs as much as a short function, is read once for it.
 *
 *     batch_clock_start ─▶ batch_now() reads ─▶ batch_now() tells the same … ─▶ batch_clock_stop
 *     outside of a batch each batch_now() reads
 *
 * A batch begins and ends within one callback of the loop, so what is told is never from before that. One thread only.
 */
#pragma once

#include "shared/timing.h"

/* Not within a batch: it would end with the inner one. */
void batch_clock_start(void);
void batch_clock_stop(void);

/* As timing_now(). */
uint64_t batch_now(void);
