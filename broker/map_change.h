/*
 * The maps of this broker, and the steps from one to the next while other brokers take the same steps at other times
 * (docs/broker-protocol.md, "Map change").
 *
 *     load ─▶ LOADED ──all confirmed here, every live broker carries it and is subscribed on its shards──▶ IN USE
 *                │                                                                                          │
 *                ├─ another one is loaded: kept, replaced                 every live broker has used it for 5 s
 *                └─ somebody does not carry it for 60 s: named                                              ▼
 *                                                                              the kept maps are dropped: SETTLED
 *
 * Maps that are kept stay subscribed, for those who use them or may come to. Before the broker is ready a loaded map is
 * in use at once: nothing was sent yet.
 */
#pragma once

#include "shared/slice.h"

#include <stddef.h>

struct broker_config;
struct control_list;
struct evbuffer;
struct map_change;
struct map_outline;
struct peer;
struct peer_table;
struct shard_set;

struct map_change_config {
    struct peer_table *peers; /* borrowed, as `shards` */
    struct shard_set *shards;
    /* What heartbeats say of maps has changed; the map in use has changed. */
    void (*on_change)(void *context);
    void (*on_used)(void *context);
    void *context;
};

/* A shard whose URL leads to another place under its name makes another map too, with the same hash: brokers that know one
 * Redis by several addresses have one map. Where a broker says it is subscribed shows whether it has taken that step. */

/* In use from the beginning: the map of `config` (borrowed for the call). */
struct map_change *map_change_new(const struct map_change_config *change,
                                  const struct broker_config *config);
void map_change_free(struct map_change *change);

enum map_load {
    MAP_SAME,   /* nothing to do but what shards have applied (addresses, passwords) */
    MAP_LOADED, /* the change has begun */
    MAP_FULL,   /* too many maps or shards wait for other brokers; nothing was done */
};

/* A reload; `is_ready`: this broker is. Not from a callback of a link. */
enum map_load map_change_load(struct map_change *change,
                              const struct broker_config *config,
                              bool is_ready) MUST_CHECK;

/* The map is used although this broker does not carry it; it asks for what it misses. */
void map_change_without(struct map_change *change, uint64_t origin);

/* Looks whether the next step can be taken: after heartbeats, confirmations. `is_ready`: this broker is. */
void map_change_step(struct map_change *change, bool is_ready);

/* The same, and drops what is not needed any more. A few times a second, not from a callback of a link. */
void map_change_tick(struct map_change *change, bool is_ready);

/* A map is loaded that is not in use yet; the hashes do not show it where only a shard's place is another. */
bool map_change_moves(const struct map_change *change);

/* Hashes, as in heartbeats. */
uint64_t map_change_used(const struct map_change *change);
uint64_t map_change_loaded(const struct map_change *change);

/* Of the map in use. */
struct map_outline map_change_outline(const struct map_change *change);

/* Is it one that is not waited for (map_change_without)? */
bool map_change_is_without(const struct map_change *change, uint64_t origin);

/* Appends the hashes of maps that are carried; returns how many. */
size_t map_change_write_carries(const struct map_change *change, struct evbuffer *list);

/* Appends where this broker is subscribed, as in heartbeats: what its map is made of; then names, for releases that know no
 * places; then names with places. Returns how many entries. */
size_t map_change_write_subscribed(const struct map_change *change,
                                   struct evbuffer *list);

/* Is this one of them, or about to be? */
bool map_change_knows(const struct map_change *change, uint64_t hash);

/* For people. */
struct map_change_status {
    const char *state; /* settled, loaded, used */
    uint64_t since;    /* standing_now() of the load; 0: none yet */
    size_t kept;       /* maps kept beside that in use and the loaded one */
    unsigned behind;   /* loaded: live brokers that do not carry it */
};
struct map_change_status map_change_status(const struct map_change *change);

/* Loaded: is this live broker one of those behind? */
bool map_change_is_behind(const struct map_change *change, const struct peer *peer);
