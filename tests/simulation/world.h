/*
 * Virtual time and the order of events: a run is a pure function of its seed and its schedule.
 *
 *     world_at(when, function, argument) ─▶ heap by time, then by a draw ─▶ world_run_until(): the only way that time passes
 *
 * Times are microseconds since the beginning of the run.
 */
#pragma once

#include "shared/base.h"
#include "shared/timing.h"

#include <stdbool.h>

typedef void (*world_cb)(void *argument, uint64_t number);

/* Begins a run: time 0, no events. */
void world_begin(uint64_t seed);

/* Frees what is left of it. */
void world_end(void);

uint64_t world_now(void);

/* Runs `run` at `when`; what is due at the same time comes in an order that is drawn. */
void world_at(uint64_t when, world_cb run, void *argument, uint64_t number);

/* The same, before whatever else is due then, and in the order of `number`: nothing is drawn, so that one event fewer
 * leaves all draws as they were. */
void world_at_in_order(uint64_t when, world_cb run, void *argument, uint64_t number);

/* In `delay` microseconds. */
void world_after(uint64_t delay, world_cb run, void *argument, uint64_t number);

/* Until nothing is due before `time`, which it then is. */
void world_run_until(uint64_t time);

/* Events so far. */
uint64_t world_events(void);

/* Draws: any number; one below `limit` (> 0); one of low..high; true once in `times`. */
uint64_t world_draw(void);
uint64_t world_below(uint64_t limit);
uint64_t world_between(uint64_t low, uint64_t high);
bool world_once_in(uint64_t times);

/* splitmix64: the next number of a stream of its own. */
uint64_t world_stream(uint64_t *state);
