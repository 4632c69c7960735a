#include "broker/map_change.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/control.h"
#include "broker/partition_map.h"
#include "broker/peers.h"
#include "broker/shard.h"
#include "broker/standing_clock.h"
#include "shared/log.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>

/* Every live broker has used the new map for so long before the old one is dropped: what was sent by it has come. */
#define SETTLE_FOR SECONDS(5)

/* A broker that does not carry a loaded map after this is named. */
#define NAME_LATE_AFTER SECONDS(60)

#define WITHOUT_MAX 64

/* Entries of the list of shards where it is subscribed: its count is one byte. */
#define SUBSCRIBED_MAX 255

struct map_change {
    struct map_change_config config;
    struct partition_map *used;
    struct partition_map *loaded;               /* may be `used` */
    struct partition_map *kept[SHARD_MAPS_MAX]; /* neither of them */
    size_t kept_count;
    uint64_t loaded_at;     /* standing_now(); 0: never */
    uint64_t all_use_since; /* standing_now(); 0: not all do */
    bool is_late_named;
    uint64_t without[WITHOUT_MAX];
    unsigned without_count;
};

static uint64_t hash_of(const struct partition_map *map)
{
    return partition_map_hash(map);
}

/* The same way for every message. */
static bool is_like(const struct partition_map *map, const struct partition_map *other)
{
    return hash_of(map) == hash_of(other) &&
           partition_map_places(map) == partition_map_places(other);
}

static struct partition_map *make_map(const struct broker_config *config)
{
    struct partition_map_config map_config = broker_config_map(config);
    struct partition_map *map = partition_map_new(&map_config);
    broker_config_map_cleanup(&map_config);
    return map;
}

/* ── who counts ── */

static bool is_left_out(const struct map_change *change, uint64_t origin)
{
    for (unsigned i = 0; i < change->without_count; i++)
        if (change->without[i] == origin)
            return true;
    return false;
}

static bool counts(const struct map_change *change, const struct peer *peer)
{
    return peer_is_live(peer, standing_now()) && !is_left_out(change, peer->origin);
}

static bool is_peer_there(void *context, const struct shard *shard)
{
    return peer_is_subscribed(context, shard_index(shard));
}

bool map_change_is_behind(const struct map_change *change, const struct peer *peer)
{
    if (change->loaded == change->used || !counts(change, peer))
        return false;
    union {
        const struct peer *read;
        void *context;
    } who = {peer};
    return !peer_carries(peer, hash_of(change->loaded)) ||
           !shard_set_all_of(change->config.shards, change->loaded, is_peer_there,
                             who.context);
}

static unsigned count_behind(const struct map_change *change)
{
    unsigned behind = 0;
    const struct peer *peer;
    for (peer = peer_first(change->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        behind += map_change_is_behind(change, peer);
    return behind;
}

static bool do_all_use(const struct map_change *change)
{
    const struct peer *peer;
    for (peer = peer_first(change->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (counts(change, peer) && (peer->used != hash_of(change->used) ||
                                     (peer->moves && peer->loaded == peer->used)))
            return false;
    return true;
}

/* ── steps ── */

static void keep(struct map_change *change, struct partition_map *map)
{
    check(change->kept_count < SHARD_MAPS_MAX);
    change->kept[change->kept_count++] = map;
}

static void use(struct map_change *change)
{
    keep(change, change->used);
    change->used = change->loaded;
    change->all_use_since = 0;
    log_info(LOG_SUBJECT("map"), "in use", LOG_UNSIGNED("map", hash_of(change->used)));
    change->config.on_used(change->config.context);
    shard_set_use(change->config.shards, change->used);
}

static void name_late(struct map_change *change)
{
    change->is_late_named = true;
    const struct peer *peer;
    for (peer = peer_first(change->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table)) {
        if (!map_change_is_behind(change, peer))
            continue;
        char origin[20];
        snprintf(origin, sizeof(origin), "%016llx", (unsigned long long)peer->origin);
        log_error(LOG_SUBJECT("map"),
                  "a broker has not loaded the new shards; the old ones stay in use",
                  LOG_TEXT("origin", origin));
    }
}

/* Shards that are in no other map end; what only those maps needed is unsubscribed. */
static void drop_kept(struct map_change *change)
{
    while (change->kept_count > 0) {
        struct partition_map *map = change->kept[--change->kept_count];
        shard_set_drop(change->config.shards, map);
        partition_map_free(map);
    }
    change->all_use_since = 0;
    log_info(LOG_SUBJECT("map"), "settled", LOG_UNSIGNED("map", hash_of(change->used)));
    change->config.on_change(change->config.context);
}

void map_change_step(struct map_change *change, bool is_ready)
{
    if (change->used == change->loaded || !is_ready)
        return;
    if (shard_set_carries(change->config.shards, change->loaded) &&
        count_behind(change) == 0) {
        use(change);
        return;
    }
    if (!change->is_late_named && standing_now() - change->loaded_at > NAME_LATE_AFTER)
        name_late(change);
}

void map_change_tick(struct map_change *change, bool is_ready)
{
    map_change_step(change, is_ready);
    if (change->used != change->loaded || change->kept_count == 0)
        return;
    uint64_t now = standing_now();
    if (!do_all_use(change))
        change->all_use_since = 0;
    else if (change->all_use_since == 0)
        change->all_use_since = now;
    else if (now - change->all_use_since >= SETTLE_FOR)
        drop_kept(change);
}

/* One that is carried already: from before, or on its way. NULL: none. Taken out of the kept ones. */
static struct partition_map *take_carried(struct map_change *change,
                                          const struct partition_map *like)
{
    if (is_like(change->used, like))
        return change->used;
    for (size_t i = 0; i < change->kept_count; i++)
        if (is_like(change->kept[i], like)) {
            struct partition_map *map = change->kept[i];
            change->kept[i] = change->kept[--change->kept_count];
            return map;
        }
    return NULL;
}

enum map_load map_change_load(struct map_change *change,
                              const struct broker_config *config, bool is_ready)
{
    struct partition_map *map = make_map(config);
    uint64_t hash = hash_of(map);
    bool is_same = is_like(map, change->loaded);
    struct partition_map *carried = is_same ? change->loaded : take_carried(change, map);
    if (carried != NULL) {
        shard_set_reconfigure(change->config.shards, config);
        partition_map_free(map);
        map = carried;
    } else if (!shard_set_carry(change->config.shards, map, config)) {
        partition_map_free(map);
        return MAP_FULL;
    }
    if (is_same)
        return MAP_SAME;
    if (change->loaded != change->used)
        keep(change, change->loaded);
    change->loaded = map;
    change->loaded_at = standing_now();
    change->is_late_named = false;
    change->all_use_since = 0;
    log_info(LOG_SUBJECT("map"), "loaded", LOG_UNSIGNED("map", hash),
             LOG_UNSIGNED("shards", broker_config_shard_count(config)));
    if (!is_ready && change->loaded != change->used)
        use(change); /* nothing was sent yet */
    change->config.on_change(change->config.context);
    return MAP_LOADED;
}

void map_change_without(struct map_change *change, uint64_t origin)
{
    if (is_left_out(change, origin))
        return;
    if (change->without_count == WITHOUT_MAX) {
        change->without_count--;
        memmove(change->without, change->without + 1,
                change->without_count * sizeof(change->without[0]));
    }
    change->without[change->without_count++] = origin;
}

/* ── what it is ── */

struct map_change *map_change_new(const struct map_change_config *config,
                                  const struct broker_config *first)
{
    struct map_change *change = must_calloc(1, sizeof(*change));
    change->config = *config;
    change->used = change->loaded = make_map(first);
    check(shard_set_carry(config->shards, change->used, first));
    shard_set_use(config->shards, change->used);
    return change;
}

void map_change_free(struct map_change *change)
{
    for (size_t i = 0; i < change->kept_count; i++)
        partition_map_free(change->kept[i]);
    if (change->loaded != change->used)
        partition_map_free(change->loaded);
    partition_map_free(change->used);
    free(change);
}

struct map_outline map_change_outline(const struct map_change *change)
{
    return partition_map_outline(change->used);
}

bool map_change_is_without(const struct map_change *change, uint64_t origin)
{
    return is_left_out(change, origin);
}

bool map_change_moves(const struct map_change *change)
{
    return change->used != change->loaded;
}

uint64_t map_change_used(const struct map_change *change)
{
    return hash_of(change->used);
}

uint64_t map_change_loaded(const struct map_change *change)
{
    return hash_of(change->loaded);
}

size_t map_change_write_subscribed(const struct map_change *change, struct evbuffer *list)
{
    size_t written = 1;
    size_t count = shard_set_count(change->config.shards);
    struct map_outline outline = map_change_outline(change);
    control_add_outline(list, &outline);
    for (size_t i = 0; i < 2 * count && written < SUBSCRIBED_MAX; i++) {
        const struct shard *shard = shard_set_get(change->config.shards, i % count);
        size_t len = evbuffer_get_length(list);
        if (!shard_is_complete(shard))
            continue;
        if (i >= count)
            control_add_place(list, shard_name(shard), shard_place(shard));
        else if (!shard_is_left(shard))
            control_add_name(list, shard_name(shard));
        written += evbuffer_get_length(list) > len;
    }
    return written;
}

size_t map_change_write_carries(const struct map_change *change, struct evbuffer *list)
{
    size_t count = 1;
    control_add_hash(list, hash_of(change->used));
    for (size_t i = 0; i < change->kept_count; i++, count++)
        control_add_hash(list, hash_of(change->kept[i]));
    if (change->loaded != change->used &&
        shard_set_carries(change->config.shards, change->loaded)) {
        control_add_hash(list, hash_of(change->loaded));
        count++;
    }
    return count;
}

bool map_change_knows(const struct map_change *change, uint64_t hash)
{
    if (hash == hash_of(change->used) || hash == hash_of(change->loaded))
        return true;
    for (size_t i = 0; i < change->kept_count; i++)
        if (hash_of(change->kept[i]) == hash)
            return true;
    return false;
}

struct map_change_status map_change_status(const struct map_change *change)
{
    bool is_used = change->used == change->loaded;
    return (struct map_change_status){
        .state = !is_used                 ? "loaded"
                 : change->kept_count > 0 ? "used"
                                          : "settled",
        .since = change->loaded_at,
        .kept = change->kept_count,
        .behind = count_behind(change),
    };
}
