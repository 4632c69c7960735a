/* Proves that the clock can be set and never goes back by itself, and that waits grow, jitter and end. */
#include "tests/unit/unit.h"

#include "shared/timing.h"

static void test_the_clock_moves_forward_unless_a_test_holds_it(void **state)
{
    (void)state;
    uint64_t before = timing_now();
    assert_true(timing_now() >= before);
    timing_set_for_test(5);
    assert_int_equal(5, timing_now());
    timing_advance_for_test(SECONDS(2));
    assert_int_equal(2000005, timing_now());
    timing_unset_for_test();
    assert_true(timing_now() >= before);
    struct timeval value = timing_to_timeval(1500000);
    assert_int_equal(1, value.tv_sec);
    assert_int_equal(500000, value.tv_usec);
}

static void test_wall_text_is_utc_with_milliseconds(void **state)
{
    (void)state;
    char text[TIMING_TEXT_SIZE];
    timing_wall_text(text);
    const char *form = "dddd-dd-ddTdd:dd:dd.dddZ";
    assert_int_equal(strlen(form), strlen(text));
    for (size_t i = 0; form[i] != '\0'; i++) {
        if (form[i] == 'd')
            assert_in_range(text[i], '0', '9');
        else
            assert_int_equal(form[i], text[i]);
    }
}

static void test_waits_double_to_the_maximum_and_start_over(void **state)
{
    (void)state;
    struct backoff backoff;
    backoff_init(&backoff, MILLISECONDS(100), MILLISECONDS(450));
    const uint64_t waits[] = {100, 200, 400, 450, 450};
    for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
        uint64_t wait = backoff_next(&backoff);
        assert_in_range(wait, MILLISECONDS(waits[i]) / 2, MILLISECONDS(waits[i]));
    }
    backoff_reset(&backoff);
    assert_in_range(backoff_next(&backoff), MILLISECONDS(50), MILLISECONDS(100));
}

static void test_jitter_uses_the_whole_upper_half(void **state)
{
    (void)state;
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < 2000; i++) {
        struct backoff backoff;
        backoff_init(&backoff, 1000, 1000);
        uint64_t wait = backoff_next(&backoff);
        least = wait < least ? wait : least;
        most = wait > most ? wait : most;
    }
    assert_in_range(least, 500, 520);
    assert_in_range(most, 980, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_clock_moves_forward_unless_a_test_holds_it),
        cmocka_unit_test(test_wall_text_is_utc_with_milliseconds),
        cmocka_unit_test(test_waits_double_to_the_maximum_and_start_over),
        cmocka_unit_test(test_jitter_uses_the_whole_upper_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
