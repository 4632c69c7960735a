/*
 * Inward: what happens to an envelope that comes from a shard, one's own as well as foreign ones.
 *
 *     bytes ─▶ envelope_parse ─▶ sequence_check ─┬─ DUPLICATE ─▶ dropped, counted
 *                                                ├─ NEXT ──────▶ deliver
 *                                                └─ GAP: own ──▶ what is missing from the sent ring, deliver
 *                                                        else ─▶ counted as lost, deliver
 *
 * A message of another broker that is beyond a gap is delivered at once: asking its origin for what is
 * missing, and holding the message until then, belong between GAP and deliver.
 */
#pragma once

#include "broker/sent_ring.h"
#include "broker/sequence.h"

struct deliverer;
struct receiver;

/* Borrows all three; `origin` is one's own. */
struct receiver *receiver_new(struct deliverer *deliverer,
                              struct sequence_table *sequences, struct sent_ring *ring,
                              uint64_t origin);
void receiver_free(struct receiver *receiver);

/* An envelope from the channel of `partition`. */
void receiver_take(struct receiver *receiver, unsigned partition, struct slice bytes);

/* A message of one's own that does not wait for its return. False: it had been delivered already. */
bool receiver_take_own(struct receiver *receiver, const struct sent *sent);
