/*
 * What this broker has accepted, until its shard has confirmed it and a while longer: for sending again
 * after a link was lost, and for filling gaps.
 *
 *     sent_ring_add ─▶ WAITING ─shard─▶ IN_FLIGHT ─reply─▶ CONFIRMED ─window, bytes─▶ gone
 *                         ▲                 │             │
 *                         └── link lost ────┴── moved ────┘  (marked RETRANSMIT)
 *
 * A message is kept as the whole command that Redis gets (PUBLISH, partition channel, envelope, payload),
 * rendered once; sending is a span of it. The ring owns the messages; a shard's queue borrows them. Window
 * and bytes bound the confirmed ones; the others are bounded by the spill and in-flight limits.
 */
#pragma once

#include "broker/chunk.h"
#include "shared/timing.h"

#include <sys/queue.h>

enum sent_state { SENT_WAITING, SENT_IN_FLIGHT, SENT_CONFIRMED };

struct sent {
    uint64_t sequence;
    uint64_t accepted_at, confirmed_at;    /* timing_now() */
    uint64_t kept_from;                    /* CONFIRMED: what of the window had passed */
    struct span command;                   /* held */
    uint32_t envelope_start, envelope_len; /* within the command */
    uint16_t partition;
    uint8_t refusals; /* its shard answered with an error, so many times */
    bool retransmitted;
    bool is_again;                  /* it was confirmed once: not of the spill any more */
    bool is_refused;                /* and no more is tried */
    bool is_queued;                 /* WAITING in a queue; kept by who has the queue */
    enum sent_state state;          /* changed by the functions below only */
    TAILQ_ENTRY(sent) of_ring;      /* oldest first */
    TAILQ_ENTRY(sent) of_confirmed; /* CONFIRMED: in the order of confirmation */
    TAILQ_ENTRY(sent) of_partition; /* in sequence */
    TAILQ_ENTRY(sent) of_queue;     /* WAITING or IN_FLIGHT: the shard's */
};

TAILQ_HEAD(sent_queue, sent);

struct sent_ring;

struct sent_ring *sent_ring_new(unsigned partitions, uint64_t window, size_t bytes);
void sent_ring_set_bounds(struct sent_ring *ring, uint64_t window, size_t bytes);
void sent_ring_free(struct sent_ring *ring);

/* A new message, WAITING. Sequences of a partition must rise by one. Holds `command`. */
struct sent *sent_ring_add(struct sent_ring *ring, uint16_t partition, uint64_t sequence,
                           struct span command, uint32_t envelope_start,
                           uint32_t envelope_len, uint64_t now);

/* WAITING to IN_FLIGHT. */
void sent_ring_send(struct sent_ring *ring, struct sent *sent);

/* IN_FLIGHT or CONFIRMED back to WAITING, from now on marked as a retransmission. */
void sent_ring_return(struct sent_ring *ring, struct sent *sent);

/* IN_FLIGHT to CONFIRMED; the message may be gone afterwards (bytes). */
void sent_ring_confirm(struct sent_ring *ring, struct sent *sent, uint64_t now);

/* The next WAITING message after `from` (NULL: from the beginning) that was accepted before `before` and never sent; NULL:
 * there is none. */
struct sent *sent_ring_next_unsent(const struct sent_ring *ring, const struct sent *from,
                                   uint64_t before);

/* Lets go of a WAITING message that is in no queue. */
void sent_ring_drop(struct sent_ring *ring, struct sent *sent);

/* NULL when it is not (or no longer) there. */
struct sent *sent_ring_find(const struct sent_ring *ring, uint16_t partition,
                            uint64_t sequence);

/* Of a partition, the last or the first; the rest by TAILQ_PREV and TAILQ_NEXT(sent, of_partition). */
struct sent *sent_ring_last_of(const struct sent_ring *ring, uint16_t partition);
struct sent *sent_ring_first_of(const struct sent_ring *ring, uint16_t partition);

/* Oldest first; the rest follow by TAILQ_NEXT(sent, of_ring). */
struct sent *sent_ring_first(const struct sent_ring *ring);

/* Each confirmed message once, when `age` has passed since its confirmation; NULL: no more now. */
const struct sent *sent_ring_next_overdue(struct sent_ring *ring, uint64_t age,
                                          uint64_t now);

/* So much more of the window's time has passed: drops the confirmed messages that are beyond it. */
void sent_ring_expire(struct sent_ring *ring, uint64_t passed);

/* The envelope and payload. */
struct slice sent_envelope(const struct sent *sent);

/* Without those that were confirmed once. */
size_t sent_ring_unconfirmed_bytes(const struct sent_ring *ring);
size_t sent_ring_unconfirmed_count(const struct sent_ring *ring);
size_t sent_ring_confirmed_bytes(const struct sent_ring *ring);
size_t sent_ring_count(const struct sent_ring *ring);

/* Aborts when counts and orders do not agree. For tests. */
void sent_ring_check(const struct sent_ring *ring);
