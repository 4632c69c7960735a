/* A flush window lets a lone message pass, makes the next ones wait, and tells once when the wait is over. */
#include "tests/unit/unit.h"

#include "broker/window.h"

#include <event2/event.h>

#include "shared/timing.h"

static unsigned times_over;

static void on_over(void *context)
{
    times_over++;
    event_base_loopbreak(context);
}

static void
test_what_follows_a_flush_waits_and_a_lone_message_does_not(void **state UNUSED)
{
    struct event_base *base = event_base_new();
    struct window window;
    window_init(&window, base, MILLISECONDS(2), on_over, base);
    assert_true(window_passes(&window, SECONDS(10)));
    window_note_flush(&window, SECONDS(10));
    assert_false(window_passes(&window, SECONDS(10)));
    assert_false(window_passes(&window, SECONDS(10) + MILLISECONDS(4) - 1));
    assert_true(window_passes(&window, SECONDS(10) + MILLISECONDS(4)));
    window_cleanup(&window);
    event_base_free(base);
}

static void test_the_end_of_a_wait_is_told_once(void **state UNUSED)
{
    struct event_base *base = event_base_new();
    struct window window;
    window_init(&window, base, MILLISECONDS(2), on_over, base);
    times_over = 0;
    uint64_t start = timing_now();
    window_wait(&window);
    window_wait(&window);
    assert_false(
        window_passes(&window, SECONDS(100000))); /* not before those that wait */
    assert_int_equal(0, event_base_dispatch(base));
    assert_int_equal(1, times_over);
    assert_true(timing_now() - start >= MILLISECONDS(2));
    assert_true(window_passes(&window, SECONDS(100000)));
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(1, times_over);
    window_cleanup(&window);
    event_base_free(base);
}

static void test_without_a_length_everything_passes(void **state UNUSED)
{
    struct event_base *base = event_base_new();
    struct window window;
    window_init(&window, base, 0, on_over, base);
    window_note_flush(&window, SECONDS(10));
    assert_true(window_passes(&window, SECONDS(10)));
    window_cleanup(&window);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_follows_a_flush_waits_and_a_lone_message_does_not),
        cmocka_unit_test(test_the_end_of_a_wait_is_told_once),
        cmocka_unit_test(test_without_a_length_everything_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
