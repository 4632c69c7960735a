/*
 * Inward: what happens to an envelope that comes from a shard, one's own as well as foreign ones.
 *
 *     bytes ─▶ envelope_parse ─▶ sequence_check ─┬─ DUPLICATE ─▶ dropped, counted
 *                                                ├─ NEXT ──────▶ deliver, then what is held behind it
 *                                                ├─ GAP ───────▶ hold; own: filled from the sent ring at once
 *                                                └─ UNKNOWN ───▶ hold; ask where the origin is
 *
 *     gap:  noticed ─20 ms▶ asked ─100, 300, then each 400 ms▶ asked … ─5 s, 10 s, gone, hold full▶ given up, counted
 *
 * Before a gap of an origin that is heard is given up, the origin is asked where it is: what claims to be ahead of that is
 * forged. An own message is taken only if it is what was sent.
 *
 * `known` is the highest number heard of: in messages, in tails of heartbeats, in positions. A gap is what
 * lies between `expected` and `known` and is not held. Only the first run of missing ones is given up at a
 * time (docs/broker-protocol.md, "Receiver").
 */
#pragma once

#include "broker/sent_ring.h"
#include "broker/sequence.h"

#include <stdint.h>

struct control_list;
struct deliverer;
struct envelope;
struct event_base;
struct partition_map;
struct peer_table;
struct receiver;

/* Bytes held of one origin, of all, and of all of which no heartbeat was heard. */
#define RECEIVER_HOLD_MAX           ((size_t)8 * 1024 * 1024)
#define RECEIVER_HOLD_ALL_MAX       ((size_t)256 * 1024 * 1024)
#define RECEIVER_HOLD_STRANGERS_MAX ((size_t)4 * 1024 * 1024)

/* (origin, partition)s of which something is missing; of origins of which no heartbeat was heard. */
#define RECEIVER_GAPS_MAX           262144
#define RECEIVER_GAPS_STRANGERS_MAX 1024

/* Further ahead of what is expected is no message: nobody misses so many of one partition and is still an origin that
 * is kept. */
#define RECEIVER_AHEAD_MAX (UINT64_C(1) << 24)

enum loss_reason {
#define LOSS_REASON(constant, label, sentence) constant,
#include "broker/loss_reason.def"
#undef LOSS_REASON
    LOSS_REASON_COUNT
};

/* As in metrics. */
const char *loss_reason_label(int reason);

struct receiver_callbacks {
    /* Ask this origin for these. */
    void (*on_ask)(void *context, uint64_t origin, const struct control_list *ranges);
    /* Ask this origin where it is. */
    void (*on_lost_track)(void *context, uint64_t origin);
    /* Does anything come from any shard, and can anything be sent to one? While not, no time for answers passes. */
    bool (*hears)(void *context);
    /* The last own message of the partition that was given to a link; 0: none. */
    uint64_t (*last_sent)(void *context, unsigned partition);
    /* May pods get it? It is counted as lost if not. */
    bool (*is_safe)(void *context, const struct envelope *envelope);
    /* An enter_room was delivered. */
    void (*on_entry)(void *context, const struct envelope *envelope);
    void *context;
};

/* Borrows all; `origin` is one's own. */
struct receiver *receiver_new(struct event_base *base, const struct partition_map *map,
                              struct deliverer *deliverer,
                              struct sequence_table *sequences, struct sent_ring *ring,
                              struct peer_table *peers, uint64_t origin,
                              const struct receiver_callbacks *callbacks);
void receiver_free(struct receiver *receiver);

/* A partition is received from now on (own messages from number `next_own`), or no longer. */
void receiver_want(struct receiver *receiver, unsigned partition, uint64_t next_own);
void receiver_unwant(struct receiver *receiver, unsigned partition);

/* On one's own channel come envelopes of any partition. */
#define RECEIVER_ANY_PARTITION UINT32_MAX

/* An envelope from the channel of a partition, or RECEIVER_ANY_PARTITION. */
void receiver_take(struct receiver *receiver, struct slice bytes, uint32_t partition);

/* The same of an envelope of which only the numbers are known (envelope_parse_numbers), since it was too long, `len` bytes:
 * when its origin says that it has sent it, and nothing else came in its place, it is counted as lost. */
void receiver_skip(struct receiver *receiver, const struct envelope *envelope,
                   uint32_t partition, size_t len);

/* One's own messages up to number `last`, as far as they have not been delivered, from the sent ring. Returns how
 * many were. */
unsigned receiver_fill_own(struct receiver *receiver, unsigned partition, uint64_t last);

/* The own message that was just accepted, without waiting for its return, which will be a duplicate; those before it
 * that are still on their way first. Returns how many were delivered. */
unsigned receiver_take_own(struct receiver *receiver, const struct sent *sent);

/* The origin has sent up to `last`. */
void receiver_hear_of(struct receiver *receiver, uint64_t origin, unsigned partition,
                      uint64_t last);

/* Its answer to a question: whatever comes after `last` is to be delivered. No effect when a base is known. */
void receiver_set_base(struct receiver *receiver, uint64_t origin, unsigned partition,
                       uint64_t last);

/* Its answer to a question of `asked_at` (standing_now()): it has sent up to `last`. Whatever was heard before, and claims
 * a later number, is not of this origin, and is dropped. */
void receiver_confirm(struct receiver *receiver, uint64_t origin, unsigned partition,
                      uint64_t last, uint64_t asked_at);

/* The origin was READY since `ready_at` (timing_now()): what was wanted before that is wanted from the start. */
void receiver_set_age(struct receiver *receiver, uint64_t origin, uint64_t ready_at);

/* The origin does not keep these any more. */
void receiver_take_gone(struct receiver *receiver, uint64_t origin,
                        struct control_list ranges);

/* The origin is silent for long: where it was is kept within bounds (sequence.h), and what comes next in order is
 * delivered, but nothing is asked of it. */
void receiver_rest_origin(struct receiver *receiver, uint64_t origin);

/* It is heard again. False: where it was is not known, or no more: its positions must say. */
bool receiver_wake_origin(struct receiver *receiver, uint64_t origin);

size_t receiver_held_bytes(const struct receiver *receiver);
size_t receiver_gap_count(const struct receiver *receiver);
