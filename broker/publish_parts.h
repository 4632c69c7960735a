/*
 * What publish.c (the publisher, from its making to its end), publish_message.c (one PUBLISH) and publish_shards.c (what
 * shards, other brokers and pods from afar say) share.
 */
#pragma once

#include "broker/broker_config.h"
#include "broker/deliver.h"
#include "broker/entry_hold.h"
#include "broker/envelope.h"
#include "broker/gate.h"
#include "broker/herald.h"
#include "broker/hot_rooms.h"
#include "broker/map_change.h"
#include "broker/publish.h"
#include "broker/receive.h"
#include "broker/shard.h"
#include "broker/tails.h"
#include "broker/turn.h"
#include "broker/window.h"

struct publisher {
    const struct broker_config *config; /* borrowed */
    struct event_base *base;            /* borrowed */
    struct turn *turn;                  /* borrowed */
    const struct partition_map
        *map;          /* borrowed; NULL: hub. Tells partitions, not where they are */
    uint64_t map_hash; /* of the map in use */
    struct interest_table *interest;
    struct deliverer *deliverer;
    struct message_policy policy;
    struct scan_scratch *scratch;
    struct hot_rooms hot_rooms;
    uint64_t faded_at;
    uint64_t ticked_at; /* standing_now() */
    uint64_t origin;
    /* With shards: */
    struct shard_set *shards;
    struct sent_ring *ring;
    struct sequence_table *sequences;
    struct receiver *receiver;
    struct peer_table *peers;
    struct tails *tails;
    struct subscriber_counts *counts;
    struct map_change *map_change;
    struct herald *herald;
    struct seal *seal;
    struct gate *gate;
    struct scan_scratch *arrival_scratch; /* what comes from other brokers */
    struct entry_holds *entries;
    bool has_managers;
    void (*on_entry)(void *context, const struct envelope *envelope);
    void *on_entry_context;
    uint64_t *next_sequences; /* by partition, from 1 */
    uint64_t next_message_id;
    uint8_t host_id[ENVELOPE_HOST_ID_LEN]; /* of the last message that has one */
    struct chunk_writer writer;
    char *head; /* of every command, up to the partition's number */
    size_t head_len;
    size_t channel_start; /* in it */
    struct window window;
    void (*on_relief)(void *context);
    void *on_relief_context;
    bool has_answers; /* of shards, in this turn: publishers may wait for them */
};

/* ── publish_shards.c ── */

/* Of a publisher with shards: what it keeps of them and of other brokers. They are started by publisher_start. */
void publisher_shards_init(struct publisher *publisher, const struct partition_map *map);
void publisher_shards_cleanup(struct publisher *publisher);

/* Uses the keys of cluster.key_file from now on. */
void publisher_set_keys(struct publisher *publisher, const struct broker_config *config);
