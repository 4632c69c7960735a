#include "tests/unit/unit.h"

#include "proxy/drain.h"

#define WINDOW 20000u
#define PARTS  20u

/* How many of `count` clients, every `step`th from `first` on, have their place in each part of the window. */
static void require_even(uint64_t first, uint64_t step, unsigned count)
{
    unsigned parts[PARTS] = {0};
    for (unsigned i = 0; i < count; i++) {
        uint32_t place = drain_place(first + i * step, WINDOW);
        assert_true(place < WINDOW);
        parts[place * PARTS / WINDOW]++;
    }
    for (unsigned i = 0; i < PARTS; i++) {
        assert_true(parts[i] >= count / PARTS / 2);
        assert_true(parts[i] <= count / PARTS * 2);
    }
}

static void test_clients_in_a_row_are_spread_evenly(void **state)
{
    (void)state;
    require_even(1, 1, 200);
    require_even(1, 1, 1000);
    require_even(UINT64_C(1) << 40, 1, 1000);
}

static void test_every_second_or_tenth_client_is_spread_as_well(void **state)
{
    (void)state;
    for (uint64_t step = 2; step <= 10; step++)
        require_even(17, step, 1000);
}

static void test_a_place_is_always_the_same_and_scales_with_the_window(void **state)
{
    (void)state;
    for (uint64_t id = 1; id < 1000; id++) {
        assert_int_equal(drain_place(id, WINDOW), drain_place(id, WINDOW));
        assert_int_equal(drain_place(id, WINDOW) / 100, drain_place(id, WINDOW / 100));
        assert_int_equal(drain_place(id, 0), 0);
        assert_true(drain_place(id, UINT32_MAX) < UINT32_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clients_in_a_row_are_spread_evenly),
        cmocka_unit_test(test_every_second_or_tenth_client_is_spread_as_well),
        cmocka_unit_test(test_a_place_is_always_the_same_and_scales_with_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
