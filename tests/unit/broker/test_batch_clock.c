/* Within a batch the clock tells one time, which is never from before the batch; outside it tells the time. */
#include "tests/unit/unit.h"

#include "broker/batch_clock.h"
#include "broker/standing_clock.h"

static void test_a_batch_has_one_time_and_never_one_from_before_it(void **state UNUSED)
{
    timing_set_for_test(SECONDS(50));
    assert_true(batch_now() == SECONDS(50));
    timing_advance_for_test(1);
    assert_true(batch_now() == SECONDS(50) + 1);

    batch_clock_start();
    timing_advance_for_test(1); /* nobody has asked yet */
    assert_true(batch_now() == SECONDS(50) + 2);
    timing_advance_for_test(1);
    assert_true(batch_now() == SECONDS(50) + 2);
    batch_clock_stop();
    assert_true(batch_now() == SECONDS(50) + 3);

    timing_advance_for_test(1);
    batch_clock_start();
    assert_true(batch_now() == SECONDS(50) + 4);
    batch_clock_stop();
    timing_unset_for_test();
}

static void
test_the_standing_clock_stands_in_a_batch_and_misses_nothing(void **state UNUSED)
{
    timing_set_for_test(SECONDS(50));
    uint64_t start = standing_now();
    batch_clock_start();
    assert_true(standing_now() == start);
    timing_advance_for_test(MILLISECONDS(50));
    assert_true(standing_now() == start);
    batch_clock_stop();
    assert_true(standing_now() == start + MILLISECONDS(50));
    batch_clock_start();
    timing_advance_for_test(SECONDS(8));
    assert_true(standing_now() == start + MILLISECONDS(50) + STANDING_TURN);
    assert_true(standing_now() == start + MILLISECONDS(50) + STANDING_TURN);
    batch_clock_stop();
    timing_unset_for_test();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_batch_has_one_time_and_never_one_from_before_it),
        cmocka_unit_test(test_the_standing_clock_stands_in_a_batch_and_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
