/* The busiest rooms are found among many more rooms than there are counters. */
#include "tests/unit/unit.h"

#include "broker/hot_rooms.h"

#include <stdio.h>
#include <stdlib.h>

static void count(struct hot_rooms *hot, int room, int times)
{
    char name[32];
    snprintf(name, sizeof(name), "s:%d", room);
    for (int i = 0; i < times; i++)
        hot_rooms_count(hot, SLICE("/"), slice_from_text(name));
}

static void test_busy_rooms_are_ranked_whatever_else_passes(void **state UNUSED)
{
    static struct hot_rooms hot;
    memset(&hot, 0, sizeof(hot));
    for (int i = 0; i < 2000; i++) {
        count(&hot, 1, 30);
        count(&hot, 2, 20);
        count(&hot, 1000 + i, 3); /* each once */
    }
    const struct hot_room *ranked[HOT_ROOMS_MAX];
    assert_int_equal(HOT_ROOMS_MAX, hot_rooms_rank(&hot, ranked));
    assert_int_equal(0, memcmp(ranked[0]->name, "/ s:1", ranked[0]->len));
    assert_int_equal(0, memcmp(ranked[1]->name, "/ s:2", ranked[1]->len));
    assert_int_equal(60000, ranked[0]->count - ranked[0]->error);
    assert_int_equal(40000, ranked[1]->count - ranked[1]->error);
    for (size_t i = 1; i < HOT_ROOMS_MAX; i++)
        assert_true(ranked[i - 1]->count >= ranked[i]->count);
}

static void test_the_same_room_of_two_namespaces_is_two_rooms(void **state UNUSED)
{
    static struct hot_rooms hot;
    memset(&hot, 0, sizeof(hot));
    hot_rooms_count(&hot, SLICE("/a"), SLICE("s:x"));
    hot_rooms_count(&hot, SLICE("/b"), SLICE("s:x"));
    assert_int_equal(2, hot.count);
}

static void test_counts_fade_and_names_are_cut(void **state UNUSED)
{
    static struct hot_rooms hot;
    memset(&hot, 0, sizeof(hot));
    char name[4000];
    memset(name, 'n', sizeof(name));
    hot_rooms_count(&hot, slice_of(name, sizeof(name)), slice_of(name, sizeof(name)));
    assert_true(hot.rooms[0].len <= HOT_ROOMS_NAME_MAX);
    hot_rooms_fade(&hot);
    const struct hot_room *ranked[HOT_ROOMS_MAX];
    assert_int_equal(0, hot_rooms_rank(&hot, ranked));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_busy_rooms_are_ranked_whatever_else_passes),
        cmocka_unit_test(test_the_same_room_of_two_namespaces_is_two_rooms),
        cmocka_unit_test(test_counts_fade_and_names_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
