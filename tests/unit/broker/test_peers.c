/* Other brokers: newer heartbeats count, silence ends a life, and the dead stay dead. */
#include "tests/unit/unit.h"

#include "broker/peers.h"

#include <event2/buffer.h>

#define OTHER 7
#define MAP   99

/* Shard a is at place 1, b at 2, c at 3; and c has left 4. */
static bool next_shard(void *context UNUSED, size_t turn, struct peer_shard *shard)
{
    static const char names[] = "abcc";
    if (turn >= strlen(names))
        return false;
    *shard = (struct peer_shard){turn, slice_of(names + turn, 1), turn + 1};
    return true;
}

static uint64_t age; /* what OTHER says, milliseconds */

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
                  .age = age,
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
    struct peer_table *table = peer_table_new(next_shard, NULL);
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
    struct peer_table *table = peer_table_new(next_shard, NULL);
    assert_int_equal(PEER_NOW_READY, hear(table, 1, CONTROL_READY, "", SECONDS(100)));
    assert_true(peer_find(table, OTHER)->ready_at == SECONDS(100) - MILLISECONDS(500));
    peer_table_free(table);
}

static void test_a_shard_counts_when_all_that_live_hear_it(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(next_shard, NULL);
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
    struct peer_table *table = peer_table_new(next_shard, NULL);
    uint64_t at = SECONDS(100);
    hear(table, 9, CONTROL_READY, "a", at);
    assert_true(peer_bury(table, at + PEER_KEEP) == 0);
    assert_true(peer_bury(table, at + PEER_KEEP + 1) == OTHER);
    assert_true(peer_is_tomb(table, OTHER));
    assert_null(peer_get(table, OTHER, at));
    assert_int_equal(PEER_OLD, hear(table, 9, CONTROL_READY, "a", at));
    assert_true(peer_is_tomb(table, OTHER));
    assert_int_equal(PEER_NEW, hear(table, 10, CONTROL_READY, "a", at));
    assert_false(peer_is_tomb(table, OTHER));
    const struct peer *peer = peer_find(table, OTHER);
    assert_true(peer->is_back && peer->is_known && peer->has_ready_at);
    assert_true(peer->back_at == at && peer->ready_at == at - MILLISECONDS(500));
    peer_table_free(table);
}

static void
test_one_buried_before_it_was_ready_is_new_when_it_is_back(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(next_shard, NULL);
    uint64_t at = SECONDS(100);
    hear(table, 9, 0, "", at);
    assert_true(peer_bury(table, at + PEER_KEEP + 1) == OTHER);
    assert_int_equal(PEER_NOW_READY, hear(table, 10, CONTROL_READY, "a", at));
    assert_false(peer_find(table, OTHER)->is_known);
    peer_table_free(table);
}

static void hear_of(struct peer_table *table, uint64_t origin, uint64_t at)
{
    struct control control = {.kind = CONTROL_HEARTBEAT,
                              .sender = origin,
                              .number = 1,
                              .facts = {.flags = CONTROL_READY, .age = age}};
    struct peer *peer;
    assert_true(peer_hear(table, &control, at, at, &peer) == PEER_NOW_READY);
}

static void test_whoever_may_have_been_in_a_lost_tomb_is_no_newcomer(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(next_shard, NULL);
    uint64_t at = SECONDS(1000);
    for (uint64_t origin = 1000; origin <= 1000 + PEERS_TOMBS_MAX; origin++) {
        hear_of(table, origin, at);
        while (peer_bury(table, at + PEER_KEEP + 1) != 0) {
        }
    }
    assert_false(peer_is_tomb(table, 1000));
    assert_true(peer_is_tomb(table, 1001));
    hear_of(table, 1000, at);
    assert_true(peer_find(table, 1000)->is_known);
    hear_of(table, 1, at + SECONDS(200));
    assert_false(peer_find(table, 1)->is_known);
    peer_table_free(table);
}

static struct peer *hear_places(struct peer_table *table, uint64_t number,
                                const char *names, struct slice place_of, uint64_t place)
{
    struct evbuffer *list = evbuffer_new();
    size_t count = strlen(names);
    for (const char *c = names; *c != '\0'; c++)
        control_add_name(list, slice_of(c, 1));
    if (place_of.len > 0)
        control_add_place(list, place_of, place);
    count += place_of.len > 0;
    struct control control = {
        .kind = CONTROL_HEARTBEAT,
        .sender = OTHER,
        .number = number,
        .facts = {.flags = CONTROL_READY,
                  .subscribed = {count, slice_of(evbuffer_pullup(list, -1),
                                                 evbuffer_get_length(list))}},
    };
    struct peer *peer;
    peer_hear(table, &control, SECONDS(100), SECONDS(100), &peer);
    evbuffer_free(list);
    return peer;
}

static void test_a_shard_is_a_name_and_a_place(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(next_shard, NULL);
    /* an earlier release says no places: its c may be either of ours */
    struct peer *peer = hear_places(table, 1, "ac", SLICE(""), 0);
    assert_true(peer_is_subscribed(peer, 0) && !peer_is_subscribed(peer, 1));
    assert_false(peer_is_subscribed(peer, 2) || peer_is_subscribed(peer, 3));
    peer = hear_places(table, 2, "c", SLICE("c"), 4);
    assert_true(peer_is_subscribed(peer, 3) && !peer_is_subscribed(peer, 2));
    /* elsewhere, as its URL has it; but it speaks there */
    peer = hear_places(table, 3, "b", SLICE("b"), 7);
    assert_false(peer_is_subscribed(peer, 1));
    peer_hear_on(peer, 1, SECONDS(100));
    peer_hear_on(peer, 0, SECONDS(100));
    assert_true(peer_is_subscribed(peer, 1) && !peer_is_subscribed(peer, 0));
    peer_hear_on(peer, 0, SECONDS(100) + PEER_LIVE + 1);
    assert_true(peer_is_subscribed(peer, 1));
    peer_hear_on(peer, 0, SECONDS(100) + 2 * PEER_LIVE + 2);
    assert_false(peer_is_subscribed(peer, 1));
    peer_table_free(table);
}

static void test_heartbeats_too_far_apart_leave_out_tails(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(next_shard, NULL);
    uint64_t at = SECONDS(100);
    hear(table, 1, CONTROL_READY, "a", at);
    struct peer *peer = peer_find(table, OTHER);
    assert_false(peer->lacks_tails);
    age += PEER_TAILS_JOIN_MS;
    hear(table, 2, CONTROL_READY, "a", at);
    assert_false(peer->lacks_tails);
    hear(table, 3, CONTROL_READY, "a", at + SECONDS(60)); /* late, that is all */
    assert_false(peer->lacks_tails);
    age += PEER_TAILS_JOIN_MS + 1;
    hear(table, 4, CONTROL_READY, "a", at + SECONDS(60));
    assert_true(peer->lacks_tails);
    age = 500;
    peer_table_free(table);
}

static int begin(void **state UNUSED)
{
    age = 500;
    return 0;
}

static void hear_one(struct peer_table *table, uint64_t origin, uint8_t flags,
                     uint64_t at, enum peer_news expected)
{
    const struct control control = {.kind = CONTROL_HEARTBEAT,
                                    .sender = origin,
                                    .number = 1,
                                    .facts = {.flags = flags}};
    struct peer *peer;
    assert_int_equal(expected, peer_hear(table, &control, at, at, &peer));
}

static unsigned displaced;

static void on_displaced(void *context UNUSED, uint64_t origin)
{
    assert_int_not_equal(OTHER, origin);
    displaced++;
}

/* However many are invented, one that lives stays. */
static void test_invented_brokers_displace_none_that_lives(void **state UNUSED)
{
    struct peer_table *table = peer_table_new(next_shard, NULL);
    peer_table_on_displaced(table, on_displaced, NULL);
    uint64_t at = SECONDS(100);
    hear(table, 1, CONTROL_READY, "a", at);
    for (unsigned i = 0; i < 3 * PEERS_MAX; i++)
        assert_non_null(peer_get(table, 1000 + i, at + i)); /* of messages only */
    assert_int_equal(2 * PEERS_MAX + 1, displaced);
    for (unsigned i = 0; i < 3 * PEERS_MAX; i++)
        hear_one(table, 10000 + i, 0, at + i, PEER_NEW); /* never READY */
    for (unsigned i = 0; i < PEERS_MAX - 1; i++)
        hear_one(table, 20000 + i, CONTROL_READY, at + i, PEER_NOW_READY);
    hear_one(table, 30000, CONTROL_READY, at + SECONDS(1),
             PEER_REFUSED); /* all live: no room */
    assert_null(peer_get(table, 30001, at + SECONDS(1)));
    assert_non_null(peer_find(table, OTHER));
    peer_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_what_is_newer_counts),
        cmocka_unit_test(test_one_that_is_ready_when_first_heard_is_as_old_as_it_says),
        cmocka_unit_test(test_a_shard_counts_when_all_that_live_hear_it),
        cmocka_unit_test(test_a_tomb_opens_for_a_higher_number_only),
        cmocka_unit_test(test_one_buried_before_it_was_ready_is_new_when_it_is_back),
        cmocka_unit_test(test_whoever_may_have_been_in_a_lost_tomb_is_no_newcomer),
        cmocka_unit_test(test_heartbeats_too_far_apart_leave_out_tails),
        cmocka_unit_test(test_a_shard_is_a_name_and_a_place),
        cmocka_unit_test(test_invented_brokers_displace_none_that_lives),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
