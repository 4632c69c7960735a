/*
 * Speaks with the other brokers: heartbeats, questions and answers on the control channel and on brokers' own
 * channels (docs/broker-protocol.md).
 *
 *     each second, and when something in it changes ─▶ heartbeat on every shard
 *     heartbeat of another ─▶ peers ─▶ tails, age ─▶ receiver
 *     receiver misses something ─▶ ask ─▶ its origin ─▶ answers from the sent ring, or gone
 *     receiver lost track of an origin, a subscribing link is complete again, a partition is newly wanted
 *                               ─▶ where are you ─▶ positions ─▶ base, receiver
 *
 *     STARTING ──subscribed on all shards (3 s: on one), 0.5 s listened, all live ones have said where they are──▶ READY
 */
#pragma once

#include "broker/agreement.h"
#include "broker/peers.h"
#include "broker/sent_ring.h"

struct evbuffer;
struct event_base;
struct herald;
struct map_change;
struct receiver;
struct seal;
struct shard;
struct shard_set;
struct subscriber_counts;
struct tails;

/* All borrowed. */
struct herald_config {
    uint64_t origin;
    unsigned partitions;
    const char *cluster; /* copied */
    struct peer_table *peers;
    struct sent_ring *ring;
    struct seal *seal;
    struct tails *tails;
    struct receiver *receiver;
    struct shard_set *shards;
    struct map_change *map;
    struct subscriber_counts *counts;
    void (*on_joined)(void *context); /* herald_is_joined() may have changed */
    /* Another broker says that an enter_room of ours was applied. */
    void (*on_entered)(void *context, uint64_t message_id);
    void *context;
};

struct herald *herald_new(struct event_base *base, const struct herald_config *config);
void herald_free(struct herald *herald);

/* What came on the own channel of a shard, or on that of all, where only heartbeats belong. */
void herald_take(struct herald *herald, struct shard *shard, struct slice bytes,
                 bool is_own_channel);

/* From shards: struct shard_callbacks. */
void herald_shard_up(struct herald *herald, struct shard *shard);
void herald_shard_complete(struct herald *herald, struct shard *shard, bool is_complete);
struct span herald_retransmit(struct herald *herald, uint64_t asker,
                              const struct sent *sent);
bool herald_is_heard(const struct herald *herald, size_t shard);

/* From the receiver: struct receiver_callbacks. */
void herald_ask(struct herald *herald, uint64_t origin,
                const struct control_list *ranges);
void herald_ask_where(struct herald *herald, uint64_t origin);
bool herald_hears(const struct herald *herald);

/* A partition is wanted from now on: only answers to questions asked later count for it. */
void herald_note_want(struct herald *herald, unsigned partition);

/* No confirmation of a subscription is due any more. */
void herald_settle(struct herald *herald);

/* Ready, or with no shard to wait for; and every live broker has said where it is since the last want. */
bool herald_is_joined(const struct herald *herald);
/* Has every broker that is present said where it is since this partition was wanted? */
bool herald_has_joined(const struct herald *herald, unsigned partition);
bool herald_is_ready(const struct herald *herald);

/* Pods with a client manager are here, or not any more. */
void herald_set_managers(struct herald *herald, bool has_managers);

/* Tells the origin of an enter_room that it was applied. */
void herald_say_joined(struct herald *herald, uint64_t origin, uint64_t message_id);

/* Others have another map, and more right: why, for people. NULL: there are none. */
const char *herald_outvoted(const struct herald *herald);

/* For agreement.h. */
struct agreement herald_agreement(const struct herald *herald);

/* Something in heartbeats has changed: one goes out with this turn. */
void herald_announce(struct herald *herald);

/* What the newest map needs of a shard is confirmed. */
void herald_look_at_map(struct herald *herald);

/* A few times a second. */
void herald_tick(struct herald *herald);
