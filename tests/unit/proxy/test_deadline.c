#include "tests/unit/unit.h"

#include "proxy/deadline.h"
#include "shared/timing.h"

#include <event2/event.h>

struct owner {
    struct deadline deadline;
    uint64_t due_at; /* milliseconds since the start; 0: not yet */
    struct deadline_wheel *wheel;
    struct owner *takes_along; /* cleared when this one falls due */
};

static uint64_t now_ms;

static void on_due(struct deadline *deadline)
{
    struct owner *owner = CONTAINER_OF(deadline, struct owner, deadline);
    owner->due_at = now_ms;
    if (owner->takes_along != NULL)
        deadline_clear(owner->wheel, &owner->takes_along->deadline);
}

/* The wheel's timer is real time, so its callback is activated by hand. */
static void advance(struct deadline_wheel *wheel, uint64_t milliseconds)
{
    for (uint64_t i = 0; i < milliseconds; i += 10) {
        timing_advance_for_test(MILLISECONDS(10));
        now_ms += 10;
        if (wheel->count > 0)
            event_active(&wheel->timer, EV_TIMEOUT, 1);
        event_base_loop(wheel->base, EVLOOP_NONBLOCK);
    }
}

static void test_deadlines_fall_due_in_time_and_never_before(void **state)
{
    (void)state;
    static struct owner owners[100];
    struct deadline_wheel wheel;
    struct event_base *base = event_base_new();
    timing_set_for_test(SECONDS(100));
    now_ms = 0;
    deadline_wheel_init(&wheel, base);
    for (uint32_t i = 0; i < 100; i++)
        deadline_set(&wheel, &owners[i].deadline, i * 937, on_due);
    advance(&wheel, 100 * 937 + 200);
    for (uint32_t i = 0; i < 100; i++) {
        assert_true(owners[i].due_at >= i * 937);
        assert_true(owners[i].due_at <= i * 937 + 110);
    }
    assert_int_equal(0, wheel.count);
    deadline_wheel_cleanup(&wheel);
    event_base_free(base);
    timing_unset_for_test();
}

static void test_one_that_falls_due_may_clear_another_of_the_same_step(void **state)
{
    (void)state;
    struct owner a = {0}, b = {0};
    struct deadline_wheel wheel;
    struct event_base *base = event_base_new();
    timing_set_for_test(SECONDS(100));
    now_ms = 0;
    deadline_wheel_init(&wheel, base);
    a.wheel = b.wheel = &wheel;
    a.takes_along = &b;
    b.takes_along = &a;
    deadline_set(&wheel, &a.deadline, 100, on_due);
    deadline_set(&wheel, &b.deadline, 100, on_due);
    advance(&wheel, 300);
    assert_true((a.due_at == 0) != (b.due_at == 0));
    assert_int_equal(0, wheel.count);
    deadline_wheel_cleanup(&wheel);
    event_base_free(base);
    timing_unset_for_test();
}

static void test_one_that_was_cleared_or_moved_does_not_fall_due_as_before(void **state)
{
    (void)state;
    struct owner cleared = {0}, moved = {0};
    struct deadline_wheel wheel;
    struct event_base *base = event_base_new();
    timing_set_for_test(SECONDS(100));
    now_ms = 0;
    deadline_wheel_init(&wheel, base);
    deadline_set(&wheel, &cleared.deadline, 100, on_due);
    deadline_set(&wheel, &moved.deadline, 100, on_due);
    deadline_clear(&wheel, &cleared.deadline);
    deadline_set(&wheel, &moved.deadline, 30000, on_due); /* more than one round */
    advance(&wheel, 29000);
    assert_int_equal(0, cleared.due_at);
    assert_int_equal(0, moved.due_at);
    advance(&wheel, 1200);
    assert_true(moved.due_at >= 30000);
    deadline_wheel_cleanup(&wheel);
    event_base_free(base);
    timing_unset_for_test();
}

static void on_due_slowly(struct deadline *deadline)
{
    struct owner *owner = CONTAINER_OF(deadline, struct owner, deadline);
    timing_advance_for_test(MILLISECONDS(2 * DEADLINE_STEP_MS));
    deadline_set(owner->wheel, deadline, 1000, on_due);
}

static void test_the_last_one_may_set_itself_again_however_long_it_took(void **state)
{
    (void)state;
    struct owner owner = {0};
    struct deadline_wheel wheel;
    struct event_base *base = event_base_new();
    timing_set_for_test(SECONDS(100));
    now_ms = 0;
    deadline_wheel_init(&wheel, base);
    owner.wheel = &wheel;
    deadline_set(&wheel, &owner.deadline, 100, on_due_slowly);
    advance(&wheel, 600);
    assert_int_equal(0, owner.due_at);
    assert_int_equal(1, wheel.count);
    advance(&wheel, 1000);
    assert_true(owner.due_at >= 900);
    assert_int_equal(0, wheel.count);
    deadline_wheel_cleanup(&wheel);
    event_base_free(base);
    timing_unset_for_test();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadlines_fall_due_in_time_and_never_before),
        cmocka_unit_test(test_one_that_falls_due_may_clear_another_of_the_same_step),
        cmocka_unit_test(test_one_that_was_cleared_or_moved_does_not_fall_due_as_before),
        cmocka_unit_test(test_the_last_one_may_set_itself_again_however_long_it_took),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
