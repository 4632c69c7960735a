/*
 * The end of a loop turn: what many callbacks of one turn have queued goes out in one piece.
 *
 *     events of this turn ─▶ callbacks ─▶ turn_request() ─▶ (all other events done) ─▶ steps, in order
 *
 * A step may request again: the steps run once more in the same turn.
 */
#pragma once

struct event_base;
struct turn;

#define TURN_STEPS_MAX 8

struct turn *turn_new(struct event_base *base);
void turn_free(struct turn *turn);

/* Adds a step behind those that are there. */
void turn_add_step(struct turn *turn, void (*step)(void *context), void *context);

/* The steps run at the end of this turn. Cheap, and may be called often. */
void turn_request(struct turn *turn);
