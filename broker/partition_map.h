/*
 * Which partition a message belongs to, and which shard serves a partition. Immutable: a reload makes a
 * new map.
 *
 *     channel 00 kind 00 namespace 00 canonical room ─XXH3-64─▶ mod partitions ─▶ table ─▶ shard, standby
 *                                                                        (weighted rendezvous, made once)
 *
 *     emit, close_room              the room; of a sid like any room; without a room: everybody of the
 *                                   namespace; several rooms: everybody, once
 *     disconnect                    the sid
 *     enter_room, leave_room        the room and the sid: two partitions (or one, if they are the same)
 *     callback                      the host_id
 *     generic, opaque               the channel
 *
 * `order: namespace` hashes channel and namespace only (callbacks, generic and opaque as above),
 * `order: total` uses partition 0 for everything.
 */
#pragma once

#include "broker/message.h"
#include "shared/slice.h"

#include <stdint.h>

enum delivery_order { ORDER_ROOM, ORDER_NAMESPACE, ORDER_TOTAL };

struct partition_map_shard {
    struct slice name; /* unique */
    unsigned weight;   /* 1..RENDEZVOUS_WEIGHT_MAX */
    uint64_t place;    /* shard_url_place(); not part of the hash */
};

struct partition_map_config {
    unsigned partitions; /* 1..65,536 */
    enum delivery_order order;
    const struct partition_map_shard *shards; /* none: embedded hub */
    size_t shard_count;                       /* 0..1024 */
    const struct slice *channels;             /* of python-socketio messages */
    size_t channel_count;
};

struct partition_map;

/* What a map is made of, for saying what differs from another one's. */
struct map_outline {
    unsigned partitions;
    unsigned order;            /* enum delivery_order; of others: any */
    uint64_t channels, shards; /* hashes; shards: names and weights */
};

/* Where a partition has no standby (one shard) or no shard at all (embedded hub). */
#define PARTITION_NO_SHARD UINT16_MAX

/* Copies what it needs; the caller owns the map. */
struct partition_map *partition_map_new(const struct partition_map_config *config);
void partition_map_free(struct partition_map *map);

unsigned partition_map_partitions(const struct partition_map *map);

/* Equal for brokers that route alike: covers partitions, order, shard names and weights, channels;
 * not the order in which shards and channels are listed. An envelope has the low 32 bits. */
uint64_t partition_map_hash(const struct partition_map *map);

struct map_outline partition_map_outline(const struct partition_map *map);

/* Of the places of its shards: where maps with one hash lead. Brokers may know one Redis by several addresses, so only
 * maps of one broker can be compared by it. */
uint64_t partition_map_places(const struct partition_map *map);

/* Index into config->shards of the partition's home, and of its second best. */
uint16_t partition_map_shard(const struct partition_map *map, unsigned partition);
uint16_t partition_map_standby(const struct partition_map *map, unsigned partition);

/* Partitions of things that can be addressed; `room` canonical. */
uint16_t partition_of_room(const struct partition_map *map, struct slice channel,
                           struct slice namespace, struct slice room);
uint16_t partition_of_everybody(const struct partition_map *map, struct slice channel,
                                struct slice namespace);
uint16_t partition_of_host(const struct partition_map *map, struct slice channel,
                           struct slice host_id);
uint16_t partition_of_channel(const struct partition_map *map, struct slice channel);

/* Puts the one or two partitions of a message on `channel` into `partitions` and returns how many. Two
 * (room, then sid) carry one message id and are delivered once. */
size_t partition_map_route(const struct partition_map *map, struct slice channel,
                           const struct message *message, uint16_t partitions[2]);
