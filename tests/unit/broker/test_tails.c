/* Tails are never younger than they say, partitions in steady use have one, silent ones have none. */
#include "tests/unit/unit.h"

#include "broker/tails.h"

struct seen {
    unsigned count;
    unsigned partition;
    uint64_t sequence;
};

static void on_tail(void *context, unsigned partition, uint64_t sequence)
{
    struct seen *seen = context;
    seen->count++;
    seen->partition = partition;
    seen->sequence = sequence;
}

static struct seen walk(const struct tails *tails, uint64_t now)
{
    struct seen seen = {0};
    tails_walk(tails, now, on_tail, &seen);
    return seen;
}

static void test_a_tail_appears_after_a_moment_and_ends(void **state UNUSED)
{
    struct tails *tails = tails_new(8);
    uint64_t at = SECONDS(9);
    tails_note(tails, 3, 1, at);
    assert_true(tails_last(tails, 3) == 1 && tails_last(tails, 4) == 0);
    assert_int_equal(0, walk(tails, at + TAILS_MIN - 1).count);
    struct seen seen = walk(tails, at + TAILS_MIN);
    assert_true(seen.count == 1 && seen.partition == 3 && seen.sequence == 1);
    assert_int_equal(1, walk(tails, at + TAILS_MAX).count);
    assert_int_equal(0, walk(tails, at + TAILS_MAX + 1).count);
    assert_true(tails_last(tails, 3) == 1);
    tails_free(tails);
}

static void
test_a_partition_in_steady_use_has_a_tail_that_is_old_enough(void **state UNUSED)
{
    struct tails *tails = tails_new(8);
    uint64_t start = SECONDS(9);
    for (uint64_t i = 1; i <= 1000; i++) {
        uint64_t now = start + i * MILLISECONDS(10);
        tails_note(tails, 3, i, now);
        struct seen seen = walk(tails, now);
        if (i > 60)
            assert_int_equal(1, seen.count);
        if (seen.count > 0)
            assert_true(seen.sequence <= i - 20 && seen.sequence + 60 >= i);
    }
    tails_free(tails);
}

static void test_what_is_sent_again_changes_nothing(void **state UNUSED)
{
    struct tails *tails = tails_new(8);
    uint64_t at = SECONDS(9);
    tails_note(tails, 1, 5, at);
    tails_note(tails, 1, 4, at + SECONDS(3));
    assert_true(tails_last(tails, 1) == 5);
    assert_int_equal(0, walk(tails, at + SECONDS(4)).count);
    tails_free(tails);
}

static void test_the_latest_used_partition_comes_first(void **state UNUSED)
{
    struct tails *tails = tails_new(8);
    uint64_t at = SECONDS(9);
    tails_note(tails, 1, 1, at);
    tails_note(tails, 2, 1, at + 1);
    tails_note(tails, 1, 2, at + 2);
    struct seen seen = walk(tails, at + SECONDS(1));
    assert_true(seen.count == 2 && seen.partition == 2);
    tails_free(tails);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tail_appears_after_a_moment_and_ends),
        cmocka_unit_test(test_a_partition_in_steady_use_has_a_tail_that_is_old_enough),
        cmocka_unit_test(test_what_is_sent_again_changes_nothing),
        cmocka_unit_test(test_the_latest_used_partition_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
