/*
 * What receive.c (what happens to a message) and receive_gaps.c (what is kept while something is missing) share.
 */
#pragma once

#include "broker/receive.h"
#include "shared/timing.h"

#include <sys/queue.h>

/* uthash is a macro package with its own opinion about these. */
#include <uthash.h>

/* A message beyond a gap. */
struct held {
    uint64_t sequence;
    bool is_gone; /* its place only: counted already */
    size_t len;
    TAILQ_ENTRY(held) of_gap;
    char bytes[];
};

TAILQ_HEAD(held_list, held);

struct gap_key {
    uint64_t origin;
    uint64_t partition;
};

/* An (origin, partition) of which something is missing, or of which nothing is known yet. */
struct gap {
    struct gap_key key;
    struct held_list held; /* in sequence */
    size_t held_bytes;
    uint64_t known;
    uint64_t known_at;    /* standing_now() when it last rose */
    uint64_t confirmed;   /* by the origin's answers: it has sent up to here */
    uint64_t too_long;    /* a message that was too long; 0: none */
    uint64_t too_long_at; /* standing_now() when it came */
    bool is_of_stranger;
    bool asks_when_confirmed; /* something was said to be gone that was not confirmed */
    bool is_confirming;       /* the origin was asked, since the timing began */
    uint64_t since;           /* standing_now(); 0: its time starts again */
    uint64_t asks_at;
    unsigned asked;
    bool is_due;
    TAILQ_ENTRY(gap) of_receiver;
    UT_hash_handle hh;
};

struct receiver {
    struct deliverer *deliverer;
    struct sequence_table *sequences;
    struct copies *copies;
    struct sent_ring *ring;
    struct peer_table *peers;
    struct receiver_callbacks callbacks;
    uint64_t
        deaf_at; /* the last time that nothing came from any shard, or none could be sent to */
    uint64_t origin;
    unsigned partitions;
    uint64_t *wanted_since; /* timing_now(), by partition; 0: not wanted */
    struct gap *gaps_by_key;
    TAILQ_HEAD(, gap) gaps; /* the oldest first */
    size_t gap_count, gaps_of_strangers;
    size_t held_bytes, held_of_strangers;
    struct event *look;
    bool looks;
};

/* NULL: nothing of it is missing. */
struct gap *gap_find(const struct receiver *receiver, uint64_t origin,
                     unsigned partition);

/* Finds, or makes one that is not timed yet. */
struct gap *gap_get(struct receiver *receiver, uint64_t origin, unsigned partition);
void gap_free(struct receiver *receiver, struct gap *gap);

/* So much was sent, somebody says. */
void gap_hear_of(struct gap *gap, uint64_t sequence);

/* What claims to be beyond `last` is not of this origin: it is dropped, counted. */
void gap_disbelieve(struct receiver *receiver, struct gap *gap, uint64_t last);

/* Holds a copy of the envelope, or the place of one that is gone. False: it is held already. */
bool gap_hold(struct receiver *receiver, struct gap *gap, uint64_t sequence,
              struct slice bytes, bool is_gone);
void gap_let_go(struct receiver *receiver, struct gap *gap, struct held *held);
