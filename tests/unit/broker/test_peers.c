/* Other brokers: newer heartbeats count, silence ends a life, and the dead stay dead. */
#include "tests/unit/unit.h"

#include "broker/peers.h"

#include <event2/buffer.h>

#define OTHER 7
#define MAP   99

static int find_shard(void *context UNUSED, struct slice name)
{
    return name.len == 1 && name.data[0] >= 'a' && name.data[0] <= 'c'
               ? name.data[0] - 'a'
               : -1;
}

/* A heartbeat of OTHER, subscribed on these shards. */
static enum peer_news hear(struct peer_table *table, uint64_t number, uint8_t flags,
                           const char *shards, uint64_t at)
{
    struct evbuffer *names = evbuffer_new();
    struct evbuffer *carries = evbuffer_new();
    for (const char *c = shards; *c != '\0'; c++)
        control_add_name(names, slice_of(c, 1));
    control_add_hash(carries, MAP);
    struct control control = {
        .kind = CONTROL_HEARTBEAT,
        .sender = OTHER,
        .number = number,
        .facts = {.flags = flags,
                  .age = 500,
                  .carries = {1, slice_of(evbuffer_pullup(carries, -1), 8)},
                  .subscribed = {strlen(shards), slice_of(evbuffer_pullup(names, -1),
                                                          evbuffer_get_length(names))}},
    };
    struct peer *peer;
    enum peer_news news = peer_hear(table, &control, at, at, &peer);
    evbuffer_free(names);
    evbuffer_free(carries);
    return news;
}

static void test_only_what_is_newer_counts(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(find_shard, NULL);
    uint64_t at = SECONDS(100);
    assert_int_equal(PEER_NEW, hear(table, 5, 0, "", at - SECONDS(3)));
    assert_false(peer_is_live(peer_find(table, OTHER), at));
    assert_true(peer_is_present(peer_find(table, OTHER), at));
    assert_int_equal(PEER_NOW_READY, hear(table, 6, CONTROL_READY, "ab", at));
    assert_int_equal(PEER_OLD, hear(table, 6, 0, "", at));
    assert_int_equal(PEER_OLD, hear(table, 4, 0, "", at));
    const struct peer *peer = peer_find(table, OTHER);
    assert_true(peer_is_live(peer, at) && peer_is_subscribed(peer, 1));
    assert_false(peer_is_subscribed(peer, 2));
    assert_int_equal(PEER_KNOWN, hear(table, 7, CONTROL_READY, "c", at));
    assert_false(peer_is_subscribed(peer, 1));
    assert_true(peer->ready_at == at - MILLISECONDS(500));
    peer_table_free(table);
}

static void
test_one_that_is_ready_when_first_heard_is_as_old_as_it_says(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(find_shard, NULL);
    assert_int_equal(PEER_NOW_READY, hear(table, 1, CONTROL_READY, "", SECONDS(100)));
    assert_true(peer_find(table, OTHER)->ready_at == SECONDS(100) - MILLISECONDS(500));
    peer_table_free(table);
}

static void test_a_shard_counts_when_all_that_live_hear_it(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(find_shard, NULL);
    uint64_t at = SECONDS(100);
    assert_true(peers_hear_shard(table, 0, MAP, at));
    hear(table, 1, CONTROL_READY, "a", at);
    assert_true(peers_hear_shard(table, 0, MAP, at));
    assert_false(peers_hear_shard(table, 0, MAP + 1, at));
    assert_false(peers_hear_shard(table, 1, MAP, at));
    assert_true(peers_hear_shard(table, 1, MAP, at + PEER_LIVE + 1));
    assert_int_equal(0, peer_live_count(table, at + PEER_LIVE + 1));
    peer_table_free(table);
}

static void test_a_tomb_opens_for_a_higher_number_only(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(find_shard, NULL);
    uint64_t at = SECONDS(100);
    hear(table, 9, CONTROL_READY, "a", at);
    assert_true(peer_bury(table, at + PEER_KEEP) == 0);
    assert_true(peer_bury(table, at + PEER_KEEP + 1) == OTHER);
    assert_true(peer_is_tomb(table, OTHER));
    assert_null(peer_get(table, OTHER, at));
    assert_int_equal(PEER_OLD, hear(table, 9, CONTROL_READY, "a", at));
    assert_true(peer_is_tomb(table, OTHER));
    assert_int_equal(PEER_NOW_READY, hear(table, 10, CONTROL_READY, "a", at));
    assert_false(peer_is_tomb(table, OTHER));
    peer_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_what_is_newer_counts),
        cmocka_unit_test(test_one_that_is_ready_when_first_heard_is_as_old_as_it_says),
        cmocka_unit_test(test_a_shard_counts_when_all_that_live_hear_it),
        cmocka_unit_test(test_a_tomb_opens_for_a_higher_number_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
