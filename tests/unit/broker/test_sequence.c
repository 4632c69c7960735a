/* Numbers of origins: each message once, in order, and forgotten when it is time. */
#include "tests/unit/unit.h"

#include "broker/sequence.h"

#define ME    7
#define OTHER 8

static enum sequence_verdict judge(struct sequence_table *table, uint64_t origin,
                                   unsigned partition, uint64_t number)
{
    uint64_t expected;
    return sequence_check(table, origin, partition, number, 1, &expected);
}

static void
test_nothing_is_expected_of_an_unknown_origin_until_its_base_is_set(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(16);
    uint64_t expected;
    for (int i = 0; i < 2; i++)
        assert_int_equal(SEQUENCE_UNKNOWN,
                         sequence_check(table, OTHER, 3, 41, 1, &expected));
    assert_int_equal(0, expected);
    sequence_set_base(table, OTHER, 3, 40, 1);
    assert_int_equal(SEQUENCE_GAP, sequence_check(table, OTHER, 3, 41, 1, &expected));
    assert_int_equal(40, sequence_expected(table, OTHER, 3));
    assert_int_equal(0, sequence_expected(table, OTHER, 4));
    assert_int_equal(0, sequence_expected(table, ME, 3));
    sequence_table_free(table);
}

static void
test_each_number_is_next_once_and_a_duplicate_from_then_on(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(4);
    sequence_set_base(table, OTHER, 0, 1, 1);
    for (uint64_t number = 1; number <= 100; number++) {
        assert_int_equal(SEQUENCE_NEXT, judge(table, OTHER, 0, number));
        sequence_advance(table, OTHER, 0, number, 1);
        for (uint64_t old = 1; old <= number; old++)
            assert_int_equal(SEQUENCE_DUPLICATE, judge(table, OTHER, 0, old));
    }
    sequence_table_free(table);
}

static void
test_a_gap_says_what_is_missing_and_judging_changes_nothing(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(4);
    sequence_advance(table, OTHER, 1, 5, 1);
    uint64_t expected;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(SEQUENCE_GAP, sequence_check(table, OTHER, 1, 9, 1, &expected));
        assert_int_equal(6, expected);
    }
    sequence_advance(table, OTHER, 1, 9, 1);
    assert_int_equal(SEQUENCE_DUPLICATE, judge(table, OTHER, 1, 7));
    sequence_table_free(table);
}

static void test_partitions_and_origins_do_not_touch_each_other(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(3);
    for (uint64_t origin = 1; origin <= 5; origin++)
        for (unsigned partition = 0; partition < 3; partition++)
            sequence_advance(table, origin, partition, origin * 10 + partition, 1);
    for (uint64_t origin = 1; origin <= 5; origin++)
        for (unsigned partition = 0; partition < 3; partition++)
            assert_int_equal(origin * 10 + partition + 1,
                             sequence_expected(table, origin, partition));
    sequence_table_free(table);
}

static void test_a_base_never_goes_back(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(1);
    sequence_set_base(table, ME, 0, 10, 1);
    sequence_set_base(table, ME, 0, 4, 1);
    assert_int_equal(10, sequence_expected(table, ME, 0));
    assert_int_equal(SEQUENCE_DUPLICATE, judge(table, ME, 0, 9));
    assert_int_equal(SEQUENCE_NEXT, judge(table, ME, 0, 10));
    sequence_table_free(table);
}

static void
test_a_partition_no_longer_received_is_forgotten_of_all_others(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(2);
    sequence_advance(table, ME, 0, 3, 1);
    sequence_advance(table, OTHER, 0, 3, 1);
    sequence_advance(table, OTHER, 1, 3, 1);
    sequence_forget_partition(table, 0, ME);
    assert_int_equal(4, sequence_expected(table, ME, 0));
    assert_int_equal(0, sequence_expected(table, OTHER, 0));
    assert_int_equal(4, sequence_expected(table, OTHER, 1));
    sequence_table_free(table);
}

static void test_an_origin_that_rests_is_known_when_it_wakes(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(2);
    sequence_advance(table, OTHER, 0, 1, 0);
    sequence_advance(table, OTHER, 1, 1, 0);
    sequence_rest(table, OTHER);
    assert_int_equal(SEQUENCE_DUPLICATE, judge(table, OTHER, 0, 1));
    assert_int_equal(SEQUENCE_NEXT, judge(table, OTHER, 0, 2));
    sequence_forget_partition(table, 1, ME);
    assert_true(sequence_wake(table, OTHER));
    assert_int_equal(2, sequence_expected(table, OTHER, 0));
    assert_int_equal(0, sequence_expected(table, OTHER, 1));
    assert_false(sequence_wake(table, OTHER + 1));
    sequence_table_free(table);
}

static void test_what_rests_is_bounded_in_bytes(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(65536);
    const unsigned fit = SEQUENCE_RESTING_BYTES / (65536 * 8 + 4096);
    sequence_advance(table, ME, 0, 1, 0);
    for (uint64_t i = 100; i < 100 + fit + 2; i++) {
        sequence_advance(table, i, 0, 1, 0);
        sequence_rest(table, i);
        sequence_rest(table, i); /* no second time */
    }
    assert_false(sequence_knows(table, 100));
    assert_false(sequence_knows(table, 101));
    assert_true(sequence_wake(table, 102));
    sequence_advance(table, 200, 0, 1, 0);
    sequence_rest(table, 200); /* there is room, since one is awake */
    assert_true(sequence_knows(table, ME) && sequence_knows(table, 103));
    sequence_table_free(table);
}

static void test_the_number_of_origins_is_bounded(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(1);
    for (uint64_t i = 1; i <= SEQUENCE_ORIGINS_MAX + 10; i++)
        sequence_advance(table, i, 0, 1, i);
    assert_int_equal(SEQUENCE_ORIGINS_MAX, sequence_origin_count(table));
    assert_false(sequence_knows(table, 10));
    assert_true(sequence_knows(table, 11));
    sequence_table_free(table);
}

static void test_the_second_copy_is_told_from_the_first(void **state UNUSED)
{
    struct sequence_table *table = sequence_table_new(1);
    /* Strides make ids collide in a table that takes their low bits. */
    static const uint64_t strides[] = {1, 8192, 12345, UINT64_C(1) << 40};
    for (size_t s = 0; s < ARRAY_LEN(strides); s++) {
        uint64_t origin = s + 1;
        for (uint64_t i = 0; i < 3 * SEQUENCE_COPIES; i++) {
            assert_true(sequence_is_first_copy(table, origin, i * strides[s], 1));
            assert_false(sequence_is_first_copy(table, origin, i * strides[s], 1));
            if (i >= 5)
                assert_false(
                    sequence_is_first_copy(table, origin, (i - 5) * strides[s], 1));
        }
        /* Still remembered: the last SEQUENCE_COPIES; those before are not. */
        uint64_t end = 3 * SEQUENCE_COPIES;
        for (uint64_t i = end - SEQUENCE_COPIES; i < end; i++)
            assert_false(sequence_is_first_copy(table, origin, i * strides[s], 1));
        assert_true(sequence_is_first_copy(table, origin, 0, 1));
    }
    sequence_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_nothing_is_expected_of_an_unknown_origin_until_its_base_is_set),
        cmocka_unit_test(test_each_number_is_next_once_and_a_duplicate_from_then_on),
        cmocka_unit_test(test_a_gap_says_what_is_missing_and_judging_changes_nothing),
        cmocka_unit_test(test_partitions_and_origins_do_not_touch_each_other),
        cmocka_unit_test(test_a_base_never_goes_back),
        cmocka_unit_test(test_a_partition_no_longer_received_is_forgotten_of_all_others),
        cmocka_unit_test(test_an_origin_that_rests_is_known_when_it_wakes),
        cmocka_unit_test(test_what_rests_is_bounded_in_bytes),
        cmocka_unit_test(test_the_number_of_origins_is_bounded),
        cmocka_unit_test(test_the_second_copy_is_told_from_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
