/*
 * Inward: a message to every client that wants it, once an interest, rendered once a RESP version.
 *
 *     channel, payload ─▶ interests of the channel ──▶ "message" frame  ─▶ client, client, client …
 *                      └▶ each pattern that matches ─▶ "pmessage" frame ─▶ client …
 *
 * The frame lies in a chunk behind the frame before it; a client's queue holds a span of it.
 */
#pragma once

#include "shared/slice.h"

struct deliverer;
struct interest_table;

/* `interest` is borrowed; its subscribers are those of clients. */
struct deliverer *deliverer_new(const struct interest_table *interest);
void deliverer_free(struct deliverer *deliverer);

/* Queues the message to all who want `channel`; returns how many interests that were. `now` as timing_now(). */
unsigned deliver_message(struct deliverer *deliverer, struct slice channel,
                         struct slice payload, uint64_t now);

/* Do messages of this channel come faster than any of its subscribers reads? False as soon as one keeps up,
 * and when those that do not are stuck. */
bool deliverer_is_behind(const struct deliverer *deliverer, struct slice channel);

/* Once per loop turn, after the clients have written: memory is used again. */
void deliverer_rewind(struct deliverer *deliverer);
