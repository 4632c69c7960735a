/* Proves that borrowed text is cut, compared and turned into numbers within its bounds. */
#include "tests/unit/unit.h"

#include "shared/slice.h"

static void test_cut_gives_one_part_more_than_separators(void **state)
{
    (void)state;
    struct slice rest = SLICE("a,,b,");
    struct slice part;
    const char *expected[] = {"a", "", "b", ""};
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        assert_true(slice_cut(&rest, ',', &part));
        assert_true(slice_equals(part, slice_from_text(expected[i])));
    }
    assert_false(slice_cut(&rest, ',', &part));
    rest = SLICE("");
    assert_true(slice_cut(&rest, ',', &part));
    assert_int_equal(0, part.len);
    assert_false(slice_cut(&rest, ',', &part));
}

static void test_numbers_are_digits_within_the_range(void **state)
{
    (void)state;
    uint64_t number = 7;
    assert_true(slice_to_number(SLICE("0042"), 0, 100, &number));
    assert_int_equal(42, number);
    assert_true(slice_to_number(SLICE("18446744073709551615"), 0, UINT64_MAX, &number));
    assert_true(number == UINT64_MAX);
    const char *bad[] = {"",
                         "-1",
                         "+1",
                         " 1",
                         "1 ",
                         "0x1",
                         "101",
                         "18446744073709551616",
                         "99999999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(slice_to_number(slice_from_text(bad[i]), 0, 100, &number));
}

static void test_comparison_without_case_is_ascii_and_sees_past_nul(void **state)
{
    (void)state;
    assert_true(slice_equals_nocase(SLICE("WebSocket"), SLICE("websocket")));
    assert_false(slice_equals_nocase(SLICE("a\0b"), SLICE("a\0c")));
    assert_false(slice_equals_nocase(SLICE("[a"), SLICE("{a")));
    assert_false(slice_equals_nocase(SLICE("\xc4"), SLICE("\xe4")));
}

static void test_ends_are_found(void **state)
{
    (void)state;
    struct slice text = SLICE("one.two.three");
    assert_int_equal(3, slice_find(text, '.'));
    assert_int_equal(7, slice_find_last(text, '.'));
    assert_int_equal(text.len, slice_find(text, '!'));
    assert_true(slice_ends_with(text, SLICE(".three")));
    assert_false(slice_ends_with(SLICE("three"), SLICE(".three")));
    assert_true(slice_equals(slice_trim(SLICE(" \t x y\t")), SLICE("x y")));
    assert_int_equal(0, slice_from(text, 99).len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_gives_one_part_more_than_separators),
        cmocka_unit_test(test_numbers_are_digits_within_the_range),
        cmocka_unit_test(test_comparison_without_case_is_ascii_and_sees_past_nul),
        cmocka_unit_test(test_ends_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
