/* The clock goes with the process and stands while it does. */
#include "tests/unit/unit.h"

#include "broker/standing_clock.h"

static void test_it_goes_with_time_and_counts_a_stop_as_one_turn(void **state UNUSED)
{
    timing_set_for_test(SECONDS(50));
    uint64_t start = standing_now();
    for (int i = 0; i < 10; i++) {
        timing_advance_for_test(MILLISECONDS(100));
        standing_now();
    }
    assert_true(standing_now() == start + SECONDS(1));
    timing_advance_for_test(SECONDS(8));
    assert_true(standing_now() == start + SECONDS(1) + STANDING_TURN);
    assert_true(standing_now() == start + SECONDS(1) + STANDING_TURN);
    timing_unset_for_test();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_goes_with_time_and_counts_a_stop_as_one_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
