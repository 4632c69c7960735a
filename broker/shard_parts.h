/*
 * What shard.c (links and subscriptions) and shard_place.c (where partitions are sent) share.
 */
#pragma once

#include "broker/outbox.h"
#include "broker/shard.h"

#define SHARD_NOWHERE UINT16_MAX

/* Of a partition, best first. */
#define SHARD_RANKS 2

struct shard {
    struct shard_set *set;
    size_t index;
    const struct broker_shard_config *config; /* borrowed */
    struct link *publishing;
    struct link *subscribing;
    struct outbox *outbox;
    bool is_complete;
    unsigned complete_due; /* of what was wanted at the connect, not confirmed */
    bool is_usable;
    uint64_t usable_since; /* standing_now() */
    uint64_t heard_at;     /* standing_now() */
    bool was_full;         /* somebody may wait for room */
    uint64_t changed_at;
    unsigned partitions; /* whose home it is */
    unsigned sent_here;
    unsigned wanted;
    unsigned due; /* SUBSCRIBE without confirmation */
    unsigned confirmed_count;
    bool has_been_down;    /* the first failure is told already */
    uint64_t told_reasons; /* those that were logged since it was up, a bit each */
    uint64_t published, received, downs;
    uint64_t round_trip;
};

/* One of a partition's best-ranked shards. */
struct shard_seat {
    uint16_t shard;    /* SHARD_NOWHERE: there is no second one */
    bool is_asked;     /* SUBSCRIBE was sent on the present link */
    bool is_confirmed; /* and answered */
};

/* A partition as this broker sees it. */
struct partition {
    uint32_t wants;
    bool is_wanted; /* wants > 0, or lingering */
    uint64_t unwanted_at;
    struct shard_seat seats[SHARD_RANKS];
    uint16_t sent_to; /* SHARD_NOWHERE */
};

struct shard_set {
    const struct broker_config *config; /* borrowed */
    struct sent_ring *ring;             /* borrowed */
    struct shard_callbacks callbacks;
    struct evdns_base *dns;
    struct shard *shards;
    size_t count;
    struct partition *partitions;
    unsigned partition_count;
    uint32_t wants_all;
    unsigned lingering; /* partitions wanted by nobody and still subscribed */
    bool is_ready;
    struct sent_queue homeless; /* of partitions that are sent nowhere */
    size_t homeless_count;
    char *prefix; /* "sidrail1:<cluster>:p:" */
    size_t prefix_len;
    char *control_channel;
    char *own_channel;
};

/* Gives the shard's link what it has room for, and relieves who waits. */
void shard_pump(struct shard *shard);

/* One line for a change of state; the same failure again is none. */
void shard_tell(struct shard *shard);
