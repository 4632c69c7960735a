#include "broker/partition_map.h"

#include "broker/room.h"
#include "shared/rendezvous.h"

#include <stdlib.h>
#include <xxhash.h>

#define PARTITIONS_MAX 65536
#define SHARDS_MAX     1024
/* Longest channel that an envelope carries; of a longer one this much is hashed. */
#define CHANNEL_MAX 255
#define FIELD_MAX   65535
/* channel 00 kind 00 namespace 00 room */
#define KEY_LEN_MAX (CHANNEL_MAX + 1 + 1 + 1 + FIELD_MAX + 1 + FIELD_MAX)

/* What is addressed, as one byte of the key. */
enum key_kind {
    KIND_ROOM = 'r',
    KIND_EVERYBODY = 'e',
    KIND_NAMESPACE = 'n', /* order: namespace */
    KIND_HOST = 'h',
    KIND_CHANNEL = 'c',
};

struct partition_map {
    unsigned partitions;
    enum delivery_order order;
    uint64_t hash;
    uint64_t places;
    struct map_outline outline;
    struct {
        uint16_t home;
        uint16_t standby;
    } table[];
};

static int compare_slices(const void *a, const void *b)
{
    const struct slice *left = a;
    const struct slice *right = b;
    int order = memcmp(left->data, right->data, min_size(left->len, right->len));
    if (order != 0)
        return order;
    return left->len < right->len ? -1 : left->len > right->len;
}

static int compare_shards(const void *a, const void *b)
{
    const struct partition_map_shard *left = a;
    const struct partition_map_shard *right = b;
    return compare_slices(&left->name, &right->name);
}

/* Mixes numbers as eight bytes, little endian, and texts with their length before them. */
static uint64_t mix_number(uint64_t hash, uint64_t number)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(number >> (8 * i));
    return XXH64(bytes, sizeof(bytes), hash);
}

static uint64_t mix_text(uint64_t hash, struct slice text)
{
    return XXH64(text.data, text.len, mix_number(hash, text.len));
}

/* Sorted by name, so that the order of the configuration does not matter. */
static uint64_t hash_config(const struct partition_map_config *config)
{
    uint64_t hash = mix_number(0, config->partitions);
    hash = mix_number(hash, (uint64_t)config->order);
    hash = mix_number(hash, config->shard_count);
    struct partition_map_shard *shards =
        must_calloc(config->shard_count, sizeof(struct partition_map_shard));
    struct slice *channels = must_calloc(config->channel_count, sizeof(struct slice));
    for (size_t i = 0; i < config->shard_count; i++)
        shards[i] = config->shards[i];
    for (size_t i = 0; i < config->channel_count; i++)
        channels[i] = config->channels[i];
    qsort(shards, config->shard_count, sizeof(*shards), compare_shards);
    qsort(channels, config->channel_count, sizeof(*channels), compare_slices);
    for (size_t i = 0; i < config->shard_count; i++)
        hash = mix_number(mix_text(hash, shards[i].name), shards[i].weight);
    for (size_t i = 0; i < config->channel_count; i++)
        hash = mix_text(hash, channels[i]);
    free(channels);
    free(shards);
    return hash;
}

/* The order of the configuration does not matter. */
static uint64_t hash_places(const struct partition_map_config *config)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < config->shard_count; i++)
        sum += mix_number(mix_text(0, config->shards[i].name), config->shards[i].place);
    return sum;
}

static struct map_outline outline_of(const struct partition_map_config *config)
{
    struct map_outline outline = {config->partitions, (unsigned)config->order, 0, 0};
    for (size_t i = 0; i < config->channel_count; i++)
        outline.channels += mix_text(0, config->channels[i]);
    for (size_t i = 0; i < config->shard_count; i++)
        outline.shards +=
            mix_number(mix_text(0, config->shards[i].name), config->shards[i].weight);
    return outline;
}

static void fill_table(struct partition_map *map,
                       const struct partition_map_config *config)
{
    struct slice *names = must_calloc(config->shard_count, sizeof(struct slice));
    unsigned *weights = must_calloc(config->shard_count, sizeof(unsigned));
    for (size_t i = 0; i < config->shard_count; i++) {
        names[i] = config->shards[i].name;
        weights[i] = config->shards[i].weight;
    }
    struct rendezvous *rendezvous = rendezvous_new(names, weights, config->shard_count);
    for (unsigned partition = 0; partition < map->partitions; partition++) {
        unsigned char number[2] = {(unsigned char)partition,
                                   (unsigned char)(partition >> 8)};
        uint64_t key = rendezvous_key(slice_of(number, sizeof(number)));
        size_t best[2];
        size_t count = rendezvous_pick_two(rendezvous, key, NULL, NULL, best);
        map->table[partition].home = count > 0 ? (uint16_t)best[0] : PARTITION_NO_SHARD;
        map->table[partition].standby =
            count > 1 ? (uint16_t)best[1] : PARTITION_NO_SHARD;
    }
    rendezvous_free(rendezvous);
    free(weights);
    free(names);
}

struct partition_map *partition_map_new(const struct partition_map_config *config)
{
    check(config->partitions >= 1 && config->partitions <= PARTITIONS_MAX);
    check(config->shard_count <= SHARDS_MAX);
    struct partition_map *map = must_calloc(
        1, sizeof(struct partition_map) + config->partitions * sizeof(map->table[0]));
    map->partitions = config->partitions;
    map->order = config->order;
    map->hash = hash_config(config);
    map->places = hash_places(config);
    map->outline = outline_of(config);
    fill_table(map, config);
    return map;
}

void partition_map_free(struct partition_map *map)
{
    free(map);
}

unsigned partition_map_partitions(const struct partition_map *map)
{
    return map->partitions;
}

uint64_t partition_map_hash(const struct partition_map *map)
{
    return map->hash;
}

struct map_outline partition_map_outline(const struct partition_map *map)
{
    return map->outline;
}

uint64_t partition_map_places(const struct partition_map *map)
{
    return map->places;
}

uint16_t partition_map_shard(const struct partition_map *map, unsigned partition)
{
    check(partition < map->partitions);
    return map->table[partition].home;
}

uint16_t partition_map_standby(const struct partition_map *map, unsigned partition)
{
    check(partition < map->partitions);
    return map->table[partition].standby;
}

static size_t put(char *key, size_t len, struct slice text, size_t most)
{
    text = slice_to(text, most);
    if (text.len > 0)
        memcpy(key + len, text.data, text.len);
    return len + text.len;
}

static uint16_t partition_of(const struct partition_map *map, enum key_kind kind,
                             struct slice channel, struct slice namespace,
                             struct slice prefix, struct slice part)
{
    if (map->order == ORDER_TOTAL)
        return 0;
    char key[KEY_LEN_MAX];
    size_t len = put(key, 0, channel, CHANNEL_MAX);
    key[len++] = '\0';
    key[len++] = (char)kind;
    key[len++] = '\0';
    len = put(key, len, namespace, FIELD_MAX);
    key[len++] = '\0';
    len = put(key, len, prefix, FIELD_MAX);
    len = put(key, len, part, FIELD_MAX - prefix.len);
    return (uint16_t)(XXH3_64bits(key, len) % map->partitions);
}

static const struct slice nothing = SLICE_INIT("");

uint16_t partition_of_room(const struct partition_map *map, struct slice channel,
                           struct slice namespace, struct slice room)
{
    if (map->order == ORDER_NAMESPACE)
        return partition_of(map, KIND_NAMESPACE, channel, namespace, nothing, nothing);
    struct slice prefix, part;
    room_hashed_part(room, &prefix, &part);
    return partition_of(map, KIND_ROOM, channel, namespace, prefix, part);
}

uint16_t partition_of_everybody(const struct partition_map *map, struct slice channel,
                                struct slice namespace)
{
    enum key_kind kind = map->order == ORDER_NAMESPACE ? KIND_NAMESPACE : KIND_EVERYBODY;
    return partition_of(map, kind, channel, namespace, nothing, nothing);
}

uint16_t partition_of_host(const struct partition_map *map, struct slice channel,
                           struct slice host_id)
{
    return partition_of(map, KIND_HOST, channel, nothing, nothing, host_id);
}

uint16_t partition_of_channel(const struct partition_map *map, struct slice channel)
{
    return partition_of(map, KIND_CHANNEL, channel, nothing, nothing, nothing);
}

size_t partition_map_route(const struct partition_map *map, struct slice channel,
                           const struct message *message, uint16_t partitions[2])
{
    struct slice namespace = message->namespace;
    bool has_everybody =
        message->method == METHOD_EMIT || message->method == METHOD_CLOSE_ROOM;
    if (!message->rooms_known) {
        partitions[0] = has_everybody && namespace.data != NULL
                            ? partition_of_everybody(map, channel, namespace)
                            : partition_of_channel(map, channel);
        return 1;
    }
    if (message->method == METHOD_CALLBACK) {
        partitions[0] = partition_of_host(map, channel, message->host_id);
        return 1;
    }
    if (has_everybody && message->address_count != 1) {
        partitions[0] = partition_of_everybody(map, channel, namespace);
        return 1;
    }
    size_t count = 0;
    for (size_t i = 0; i < message->address_count && i < 2; i++) {
        uint16_t partition =
            partition_of_room(map, channel, namespace, message->addresses[i]);
        if (count == 0 || partitions[0] != partition)
            partitions[count++] = partition;
    }
    return count;
}
