/*
 * What shard.c (links), shard_want.c (subscriptions, maps) and shard_place.c (where partitions are sent) share.
 */
#pragma once

#include "broker/outbox.h"
#include "broker/shard.h"

#define SHARD_NOWHERE UINT16_MAX

/* The subscribing link is stale when an own heartbeat is not back, or a subscription not confirmed, after this. */
#define SHARD_STALE SECONDS(3)

/* Of the error with which a shard refuses. */
#define SHARD_REFUSAL_SIZE 256

/* Slots: those of the map in use, and of maps before and behind it. */
#define SHARDS_MAX 1024

/* Of a partition, best first. */
#define SHARD_RANKS 2

/* What a shard is to a partition, or'ed. */
enum shard_seat {
    SEAT_WANTED = 1,    /* it is to be subscribed there */
    SEAT_ASKED = 2,     /* SUBSCRIBE was sent on the present link */
    SEAT_CONFIRMED = 4, /* and answered */
};

struct shard {
    struct shard_set *set;
    size_t index;                       /* its slot */
    struct broker_shard_config *config; /* owned */
    uint64_t place;                     /* shard_url_place() */
    bool is_left; /* another shard has its name in the newest configuration */
    char *label;  /* for people and metrics; owned */
    struct link *publishing;
    struct link *subscribing;
    struct outbox *outbox;
    uint8_t *seats; /* by partition: enum shard_seat */
    bool is_complete;
    unsigned complete_due; /* of what was wanted at the connect, not confirmed */
    unsigned carry_due;    /* of what was wanted when the newest map was loaded */
    bool is_usable;
    uint64_t usable_since; /* standing_now() */
    bool refuses;          /* the last PUBLISH was answered with an error */
    uint64_t refused_at;   /* standing_now() */
    char refusal[SHARD_REFUSAL_SIZE];
    uint64_t heard_at; /* standing_now() */
    uint64_t
        beat_at; /* standing_now() of the oldest own heartbeat that is not back; 0: none */
    uint64_t own_heard_at; /* standing_now() when the last one came back */
    bool was_full;         /* somebody may wait for room */
    uint64_t changed_at;
    unsigned partitions; /* whose home it is by the map in use */
    unsigned sent_here;
    unsigned wanted;
    unsigned due;       /* SUBSCRIBE without confirmation */
    uint64_t due_since; /* standing_now() of the first one, or of the last confirmation */
    unsigned confirmed_count;
    bool has_been_down;    /* the first failure is told already */
    uint64_t told_reasons; /* those that were logged since it was up, a bit each */
    uint64_t published, received, downs;
    uint64_t round_trip;
};

/* A partition as this broker sees it. */
struct partition {
    uint32_t wants;
    bool is_wanted; /* wants > 0, or lingering */
    uint64_t unwanted_at;
    uint16_t best
        [SHARD_RANKS]; /* slots, by the map in use; SHARD_NOWHERE: there is no second one */
    uint16_t sent_to; /* slot; SHARD_NOWHERE */
};

/* A map whose channels are subscribed. */
struct carried_map {
    const struct partition_map *map; /* borrowed */
    uint16_t *slots;                 /* of the map's shards */
    size_t count;
};

struct shard_set {
    struct event_base *base; /* borrowed */
    struct turn *turn;       /* borrowed */
    struct sent_ring *ring;  /* borrowed */
    struct shard_callbacks callbacks;
    struct evdns_base *dns;
    char client_name[64];
    size_t message_max;
    bool is_started;
    struct shard *slots[SHARDS_MAX]; /* NULL: free */
    struct shard
        *shards[SHARDS_MAX]; /* the same without holes, in the order of their making */
    size_t count;
    struct carried_map maps[SHARD_MAPS_MAX];
    size_t map_count;
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

/* Links of a new shard in a free slot, not started; takes `config` over. NULL: no slot is free. */
struct shard *shard_open(struct shard_set *set, struct broker_shard_config *config);

/* Nothing is sent there and no map has it. */
void shard_close(struct shard *shard);

/* The subscribing link is up: all that is wanted now makes it complete. */
void shard_ask_all(struct shard *shard);

/* It is down. */
void shard_forget_asked(struct shard *shard);

/* A confirmation came. */
void shard_take_confirmation(struct shard *shard, struct slice channel);

/* The partition of a channel's name; false when it is none of ours. */
bool shard_partition_of(const struct shard_set *set, struct slice channel,
                        unsigned *partition);

/* Partitions that nobody wanted for SHARD_LINGER. */
void shard_unwant_lingering(struct shard_set *set, uint64_t now);

/* Tells who waits when no confirmation is due any more. */
void shard_settle(struct shard_set *set);

/* Gives the shard's link what it has room for, and relieves who waits. */
void shard_pump(struct shard *shard);

/* One line for a change of state; the same failure again is none. */
void shard_tell(struct shard *shard);
