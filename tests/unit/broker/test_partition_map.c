/*
 * Proves that partitions and shards are the frozen ones (all brokers of a cluster must agree, whatever
 * their version), that each method goes where the protocol says, and that shards move little.
 */
#include "tests/unit/unit.h"

#include "broker/partition_map.h"

#include <stdlib.h>
#include <xxhash.h>

static const struct slice channel = SLICE_INIT("flask-socketio");
static const struct partition_map_shard shards[] = {{SLICE_INIT("a"), 1},
                                                    {SLICE_INIT("b"), 1},
                                                    {SLICE_INIT("c"), 2},
                                                    {SLICE_INIT("d"), 1}};
static const struct slice channels[] = {SLICE_INIT("flask-socketio"),
                                        SLICE_INIT("socketio")};

static struct partition_map_config config_of(size_t shard_count,
                                             enum delivery_order order)
{
    return (struct partition_map_config){.partitions = 4096,
                                         .order = order,
                                         .shards = shards,
                                         .shard_count = shard_count,
                                         .channels = channels,
                                         .channel_count = ARRAY_LEN(channels)};
}

static struct partition_map *map_of(size_t shard_count, enum delivery_order order)
{
    struct partition_map_config config = config_of(shard_count, order);
    return partition_map_new(&config);
}

static void test_keys_are_hashed_as_the_protocol_says(void **state)
{
    (void)state;
    struct partition_map *map = map_of(2, ORDER_ROOM);
    static const char room[] = "flask-socketio\0r\0/\0s:lobby";
    static const char tagged[] = "flask-socketio\0r\0/\0s:42";
    static const char everybody[] = "flask-socketio\0e\0/chat\0";
    static const char host[] = "flask-socketio\0h\0\0abc";
    static const char named[] = "news\0c\0\0";
    assert_int_equal(XXH3_64bits(room, sizeof(room) - 1) % 4096,
                     partition_of_room(map, channel, SLICE("/"), SLICE("s:lobby")));
    assert_int_equal(
        XXH3_64bits(tagged, sizeof(tagged) - 1) % 4096,
        partition_of_room(map, channel, SLICE("/"), SLICE("s:doc:{42}:chat")));
    assert_int_equal(XXH3_64bits(everybody, sizeof(everybody) - 1) % 4096,
                     partition_of_everybody(map, channel, SLICE("/chat")));
    assert_int_equal(XXH3_64bits(host, sizeof(host) - 1) % 4096,
                     partition_of_host(map, channel, SLICE("abc")));
    assert_int_equal(XXH3_64bits(named, sizeof(named) - 1) % 4096,
                     partition_of_channel(map, SLICE("news")));
    partition_map_free(map);
}

static void test_partitions_and_shards_are_frozen(void **state)
{
    (void)state;
    struct partition_map *map = map_of(4, ORDER_ROOM);
    static const struct {
        const char *room;
        unsigned partition;
        unsigned shard;
        unsigned standby;
    } golden[] = {
        {"s:lobby", 786, 2, 3},
        {"s:room-42", 3787, 0, 1},
        {"i:42", 2786, 2, 3},
        {"f:1.5", 2941, 0, 3},
    };
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        uint16_t partition =
            partition_of_room(map, channel, SLICE("/"), slice_from_text(golden[i].room));
        assert_int_equal(golden[i].partition, partition);
        assert_int_equal(golden[i].shard, partition_map_shard(map, partition));
        assert_int_equal(golden[i].standby, partition_map_standby(map, partition));
    }
    assert_true(partition_map_hash(map) == UINT64_C(0xe4a72cca837f6a4b));
    partition_map_free(map);
}

static size_t route(const struct partition_map *map, const char *payload, uint16_t to[2])
{
    struct scan_scratch *scratch = scan_scratch_new();
    struct message message;
    message_scan(slice_from_text(payload), &message_policy_default, scratch, &message);
    size_t count = partition_map_route(map, channel, &message, to);
    scan_scratch_free(scratch);
    return count;
}

#define EMIT  "{\"method\":\"emit\",\"namespace\":\"/\",\"room\":"
#define ENTER "{\"method\":\"enter_room\",\"namespace\":\"/\",\"sid\":\"S\",\"room\":"

static void test_methods_go_where_the_protocol_says(void **state)
{
    (void)state;
    struct partition_map *map = map_of(2, ORDER_ROOM);
    uint16_t to[2];
    uint16_t room = partition_of_room(map, channel, SLICE("/"), SLICE("s:a"));
    uint16_t sid = partition_of_room(map, channel, SLICE("/"), SLICE("s:S"));
    uint16_t everybody = partition_of_everybody(map, channel, SLICE("/"));
    uint16_t host = partition_of_host(map, channel, SLICE("H"));
    uint16_t whole = partition_of_channel(map, channel);
    const struct {
        const char *payload;
        uint16_t first;
    } rows[] = {
        {EMIT "\"a\"}", room},
        {EMIT "[\"a\"]}", room},
        {EMIT "\"S\"}", sid},
        {EMIT "null}", everybody},
        {EMIT "[\"a\",\"b\"]}", everybody},
        {EMIT "{}}", everybody},
        {"{\"method\":\"close_room\",\"namespace\":\"/\",\"room\":\"a\"}", room},
        {"{\"method\":\"disconnect\",\"namespace\":\"/\",\"sid\":\"S\"}", sid},
        {"{\"method\":\"callback\",\"namespace\":\"/\",\"host_id\":\"H\"}", host},
        {"{\"method\":\"callback\",\"namespace\":\"/\"}", whole},
        {"{\"method\":\"emit\",\"room\":\"a\"}", whole},
        {"{\"method\":\"other\"}", whole},
        {"{", whole},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(1, route(map, rows[i].payload, to));
        if (rows[i].first != to[0])
            fail_msg("%s", rows[i].payload);
    }
    assert_int_equal(2, route(map, ENTER "\"a\"}", to));
    assert_int_equal(room, to[0]);
    assert_int_equal(sid, to[1]);
    assert_int_equal(1, route(map, ENTER "\"S\"}", to)); /* the same partition: once */
    assert_int_equal(sid, to[0]);
    struct message generic;
    message_init_generic(&generic);
    assert_int_equal(1, partition_map_route(map, SLICE("news"), &generic, to));
    assert_int_equal(partition_of_channel(map, SLICE("news")), to[0]);
    partition_map_free(map);
}

static void test_order_widens_what_is_kept_together(void **state)
{
    (void)state;
    uint16_t to[2], other[2];
    struct partition_map *map = map_of(2, ORDER_NAMESPACE);
    assert_int_equal(1, route(map, EMIT "\"a\"}", to));
    assert_int_equal(1, route(map, EMIT "null}", other));
    assert_int_equal(to[0], other[0]);
    assert_int_equal(1, route(map, ENTER "\"b\"}", other));
    assert_int_equal(to[0], other[0]);
    assert_int_not_equal(partition_of_everybody(map, channel, SLICE("/")),
                         partition_of_everybody(map, channel, SLICE("/chat")));
    partition_map_free(map);
    map = map_of(2, ORDER_TOTAL);
    assert_int_equal(1, route(map, EMIT "\"a\"}", to));
    assert_int_equal(0, to[0]);
    assert_int_equal(0, partition_of_channel(map, SLICE("news")));
    partition_map_free(map);
}

static void test_shards_share_by_weight_and_move_little(void **state)
{
    (void)state;
    struct partition_map *four = map_of(4, ORDER_ROOM);
    struct partition_map *three = map_of(3, ORDER_ROOM);
    unsigned counts[4] = {0};
    unsigned moved = 0;
    for (unsigned partition = 0; partition < 4096; partition++) {
        uint16_t home = partition_map_shard(four, partition);
        assert_int_not_equal(home, partition_map_standby(four, partition));
        counts[home]++;
        /* without d, its partitions go to their standby and no other moves */
        uint16_t expected = home == 3 ? partition_map_standby(four, partition) : home;
        assert_int_equal(expected, partition_map_shard(three, partition));
        moved += home == 3;
    }
    for (size_t i = 0; i < 4; i++) {
        unsigned fair = 4096 / 5 * shards[i].weight;
        assert_in_range(counts[i], fair * 85 / 100, fair * 115 / 100);
    }
    assert_int_equal(counts[3], moved);
    partition_map_free(four);
    partition_map_free(three);
    struct partition_map *hub = map_of(0, ORDER_ROOM);
    struct partition_map *one = map_of(1, ORDER_ROOM);
    assert_int_equal(PARTITION_NO_SHARD, partition_map_shard(hub, 7));
    assert_int_equal(0, partition_map_shard(one, 7));
    assert_int_equal(PARTITION_NO_SHARD, partition_map_standby(one, 7));
    partition_map_free(hub);
    partition_map_free(one);
}

static uint64_t hash_of(struct partition_map_config config)
{
    struct partition_map *map = partition_map_new(&config);
    uint64_t hash = partition_map_hash(map);
    partition_map_free(map);
    return hash;
}

static void test_hash_covers_what_decides_and_no_order_of_lists(void **state)
{
    (void)state;
    static const struct partition_map_shard turned[] = {{SLICE_INIT("b"), 1},
                                                        {SLICE_INIT("a"), 1}};
    static const struct partition_map_shard heavier[] = {{SLICE_INIT("a"), 2},
                                                         {SLICE_INIT("b"), 1}};
    static const struct partition_map_shard renamed[] = {{SLICE_INIT("a"), 1},
                                                         {SLICE_INIT("e"), 1}};
    static const struct slice swapped[] = {SLICE_INIT("socketio"),
                                           SLICE_INIT("flask-socketio")};
    struct partition_map_config config = config_of(2, ORDER_ROOM);
    uint64_t hash = hash_of(config);
    config.shards = turned;
    config.channels = swapped;
    assert_true(hash == hash_of(config));
    config.shards = heavier;
    assert_true(hash != hash_of(config));
    config.shards = renamed;
    assert_true(hash != hash_of(config));
    config.shards = shards;
    config.channel_count = 1;
    assert_true(hash != hash_of(config));
    config.channel_count = 2;
    config.order = ORDER_NAMESPACE;
    assert_true(hash != hash_of(config));
    config.order = ORDER_ROOM;
    config.partitions = 1024;
    assert_true(hash != hash_of(config));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_are_hashed_as_the_protocol_says),
        cmocka_unit_test(test_partitions_and_shards_are_frozen),
        cmocka_unit_test(test_methods_go_where_the_protocol_says),
        cmocka_unit_test(test_order_widens_what_is_kept_together),
        cmocka_unit_test(test_shards_share_by_weight_and_move_little),
        cmocka_unit_test(test_hash_covers_what_decides_and_no_order_of_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
