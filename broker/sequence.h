/*
 * What is expected next of each (origin, partition), so that every message is delivered once and in order.
 *
 *                         number < expected    DUPLICATE   drop: a retransmission, a late copy
 *     sequence_check ───▶ number = expected    NEXT        deliver, then sequence_advance
 *                         number > expected    GAP         what lies between is missing: the receiver fills it,
 *                                                          holds this one, or gives up, then sequence_advance
 *                         nothing expected     UNKNOWN     where to begin must be found out: sequence_set_base
 *
 * `expected` never goes back. The first message that happens to be seen never sets it. Who watches the other
 * brokers says when an origin rests, being silent for long: what is known of it is kept within bounds, since it may
 * have been cut off only.
 *
 * enter_room and leave_room travel on two partitions under one message id: sequence_is_first_copy() tells
 * the copies apart (copies.h).
 */
#pragma once

#include "shared/base.h"
#include "shared/timing.h"

#include <stdbool.h>

#define SEQUENCE_ORIGINS_MAX 1024 /* beyond: the longest silent one is forgotten */
#define SEQUENCE_COPIES      4096 /* message ids remembered of each origin */

/* What is kept of origins that rest; over it the one that rests longest is forgotten. */
#define SEQUENCE_RESTING_BYTES ((size_t)8 * 1024 * 1024)

enum sequence_verdict {
    SEQUENCE_NEXT,
    SEQUENCE_DUPLICATE,
    SEQUENCE_GAP,
    SEQUENCE_UNKNOWN
};

struct sequence_table;

/* `partitions` 1..65536. */
struct sequence_table *sequence_table_new(unsigned partitions);
void sequence_table_free(struct sequence_table *table);

/* Judges message `number` (from 1) and changes nothing but a known origin's last sign of life. `*expected` gets
 * the number that was expected; of an unknown one that is 0. */
enum sequence_verdict sequence_check(struct sequence_table *table, uint64_t origin,
                                     unsigned partition, uint64_t number, uint64_t now,
                                     uint64_t *expected) MUST_CHECK;

/* `number` was delivered, or given up: the next one is expected. Must not go back. */
void sequence_advance(struct sequence_table *table, uint64_t origin, unsigned partition,
                      uint64_t number, uint64_t now);

/* Sets what is expected where that is known before a message comes (one's own partitions). Lower than
 * what is expected already: no effect. */
void sequence_set_base(struct sequence_table *table, uint64_t origin, unsigned partition,
                       uint64_t expected, uint64_t now);

/* What is expected, or 0 when nothing is known. */
uint64_t sequence_expected(const struct sequence_table *table, uint64_t origin,
                           unsigned partition);

/* The partition is no longer received: what is known of every origin but `kept` is forgotten, since
 * numbers will pass unseen. */
void sequence_forget_partition(struct sequence_table *table, unsigned partition,
                               uint64_t kept);

/* True for the first copy of a message that travels twice. */
bool sequence_is_first_copy(struct sequence_table *table, uint64_t origin,
                            uint64_t message_id, uint64_t now);

/* Was a copy of it the first one before? */
bool sequence_has_copy(const struct sequence_table *table, uint64_t origin,
                       uint64_t message_id);

/* The origin is silent for long: what is known of it counts against SEQUENCE_RESTING_BYTES until it wakes. */
void sequence_rest(struct sequence_table *table, uint64_t origin);

/* It is heard again. False: nothing is known of it, or no more. */
bool sequence_wake(struct sequence_table *table, uint64_t origin);

/* Origins that are remembered, and whether this is one of them. */
unsigned sequence_origin_count(const struct sequence_table *table);
bool sequence_knows(const struct sequence_table *table, uint64_t origin);
