/*
 * Who puts a client into a room from afar and then publishes to the room: what follows waits until the broker of the
 * client's pod receives the room, since before that its pod would not get it.
 *
 *     enter_room ─▶ entry_hold_begin ─▶ HELD ──"joined" from the owner's broker, ENTRY_HOLD_MAX──▶ over: on_over
 *                                         │
 *     later message of the same publisher to the same room: entry_hold_is_held, it is asked for again at on_over
 *
 * Only with client managers about: pods without one get everything. (docs/broker-protocol.md, "Delivered once")
 */
#pragma once

#include "shared/slice.h"
#include "shared/timing.h"

struct entry_holds;
struct event_base;

#define ENTRY_HOLD_MAX  MILLISECONDS(50)
#define ENTRY_HOLDS_MAX 256 /* more at a time: the oldest is over */

struct entry_holds *entry_holds_new(struct event_base *base,
                                    void (*on_over)(void *context), void *context);
void entry_holds_free(struct entry_holds *holds);

/* `publisher` is only compared. */
void entry_hold_begin(struct entry_holds *holds, const void *publisher,
                      uint64_t message_id, struct slice channel, struct slice namespace,
                      struct slice room);
bool entry_hold_is_held(const struct entry_holds *holds, const void *publisher,
                        struct slice channel, struct slice namespace, struct slice room);

/* It was applied: on_over follows in the loop. No effect for one that is over. */
void entry_hold_end(struct entry_holds *holds, uint64_t message_id);

unsigned entry_hold_count(const struct entry_holds *holds);
