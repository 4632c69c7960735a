/*
 * Inward: a message to every client that wants it, once an interest, rendered once a RESP version and dialect.
 *
 *     envelope ─▶ interests of the channel ──▶ "message" frame  ─▶ client, client, client …
 *              └▶ each pattern that matches ─▶ "pmessage" frame ─▶ client …
 *                                               │
 *                  the payload as it is, where the client's dialect is the publisher's;
 *                  else transcoded, once for all clients of a dialect; else missed, which is counted and told
 *
 * Of the clients that are pods with a client manager only those that need the message get it (broker/pod_rooms.h).
 *
 * The frame lies in a chunk behind the frame before it; a client's queue holds a span of it.
 */
#pragma once

#include "shared/slice.h"

struct deliverer;
struct envelope;
struct interest_table;
struct pod_rooms;

/* Both are borrowed; the subscribers of `interest` are those of clients. */
struct deliverer *deliverer_new(const struct interest_table *interest,
                                struct pod_rooms *pod_rooms);
void deliverer_free(struct deliverer *deliverer);

/* From now on messages are rewritten for clients of another dialect, up to this length and depth (as of
 * transcoder_new). Without it all get payloads as they are. */
void deliverer_transcode(struct deliverer *deliverer, unsigned depth_max, size_t len_max);

/* Queues the payload of `envelope` to all who want it; returns how many interests that were. Only what the message
 * says about itself matters: not partition, sequence, map. `now` as timing_now(). */
unsigned deliver_message(struct deliverer *deliverer, const struct envelope *envelope,
                         uint64_t now);

/* Do messages of this channel come faster than any of its subscribers reads? False as soon as one keeps up,
 * and when those that do not are stuck. `now` as timing_now(). */
bool deliverer_is_behind(const struct deliverer *deliverer, struct slice channel,
                         uint64_t now);

/* Once per loop turn, after the clients have written: memory is used again. */
void deliverer_rewind(struct deliverer *deliverer);
