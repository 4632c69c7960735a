/*
 * The shards: each one Redis with a publishing and a subscribing link, and the partitions that are wanted
 * of it.
 *
 *      publish ─ shard_enqueue ─▶ FIFO ─▶ in flight ─▶ on_confirmed     (publishing link)
 *                                  ▲          │
 *                                  └ link lost┘ in order, first, as retransmissions
 *
 *      interest ─ shard_set_want ─▶ wanted ─▶ SUBSCRIBE ─▶ confirmed    (subscribing link)
 *                                   on_message ◀── partition channel ◀──┘
 *
 *      DOWN ──both links up and every wanted partition confirmed──▶ USABLE
 *        ▲                                                            │
 *        └──────────── a link is down or suspect ─────────────────────┘
 *
 * Nothing is sent to a shard that is not usable, not even when its publishing link is up: what is sent
 * before the own subscriptions stand does not come back. A partition that nobody wants any more stays
 * subscribed for SHARD_LINGER, for the pod that reconnects.
 */
#pragma once

#include "broker/link.h"
#include "broker/sent_ring.h"

struct broker_config;
struct partition_map;
struct shard;
struct shard_set;
struct turn;

#define SHARD_LINGER SECONDS(5)

/* A FIFO is full above this, and has room again below half of it. */
#define SHARD_FULL_BYTES ((size_t)128 * 1024)

/* Want every partition: unmodified pods, patterns. */
#define SHARD_ALL_PARTITIONS UINT32_MAX

struct shard_callbacks {
    /* The shard has become usable, or ceased to be. */
    void (*on_change)(void *context, struct shard *shard);
    /* The shard answered `sent`, which is off every queue: confirm it, or (ok is false: an error) not. */
    void (*on_answer)(void *context, struct shard *shard, struct sent *sent, bool ok,
                      struct slice text);
    void (*on_message)(void *context, struct shard *shard, unsigned partition,
                       struct slice bytes);
    /* A partition begins or ceases to be received. */
    void (*on_wanted)(void *context, unsigned partition, bool is_wanted);
    /* No confirmation is due any more, or a FIFO that was full has room: whoever waits may look again. */
    void (*on_relief)(void *context);
    void *context;
};

/* All pointers are borrowed. `client_name` is how the links call themselves. Links are down
 * until shard_set_start. */
struct shard_set *shard_set_new(struct event_base *base, struct turn *turn,
                                const struct broker_config *config,
                                const struct partition_map *map, struct sent_ring *ring,
                                const char *client_name,
                                const struct shard_callbacks *callbacks);
void shard_set_free(struct shard_set *set);
void shard_set_start(struct shard_set *set);

/* Counted: each want needs its unwant. `partition` or SHARD_ALL_PARTITIONS. */
void shard_set_want(struct shard_set *set, uint32_t partition);
void shard_set_unwant(struct shard_set *set, uint32_t partition);

/* Is the partition received, or will be as soon as its shard is up? */
bool shard_set_is_wanted(const struct shard_set *set, unsigned partition);

/* False while a confirmation is due from a shard that is up, or a first connection is under way. */
bool shard_set_is_settled(const struct shard_set *set);

/* Once a second. */
void shard_set_tick(struct shard_set *set, uint64_t now);

/* Writes what is queued, of links that have at least `bytes` queued. */
void shard_set_flush(struct shard_set *set, size_t bytes);

struct shard *shard_of_partition(const struct shard_set *set, unsigned partition);
size_t shard_set_count(const struct shard_set *set);
struct shard *shard_set_get(const struct shard_set *set, size_t index);
size_t shard_set_usable_count(const struct shard_set *set);

/* Nothing waits and nothing is in flight. */
bool shard_set_is_idle(const struct shard_set *set);

/* Puts a WAITING message at the end of the shard's FIFO, and sends what may be sent. */
void shard_enqueue(struct shard *shard, struct sent *sent);

bool shard_is_usable(const struct shard *shard);

/* A usable shard that is behind: who publishes should wait for on_relief. It bounds the time that a message
 * waits, where the spill bounds what waits for a shard that is down. */
bool shard_is_full(const struct shard *shard);

/* The oldest message that waits, NULL if none. */
const struct sent *shard_first_waiting(const struct shard *shard);

/* For people and metrics. */
struct shard_status {
    const char *name;
    const char *state;                    /* up, down, suspect, connecting, subscribing */
    const char *why;                      /* "" while up */
    uint64_t changed_at;                  /* timing_now() */
    const char *publishing, *subscribing; /* states of the links */
    unsigned partitions, wanted, confirmed;
    size_t waiting, waiting_bytes, in_flight, in_flight_bytes;
    uint64_t published, received, retransmitted, downs;
    uint64_t round_trip; /* microseconds, of the last confirmed message; smoothed */
};
struct shard_status shard_status(const struct shard *shard);
