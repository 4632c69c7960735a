/* Proves that every way down leads through one stop, with the right end, and that signals mean what they say. */
#include "tests/unit/unit.h"

#include "shared/lifecycle.h"
#include "shared/log.h"
#include "shared/timing.h"

#include <event2/event.h>
#include <signal.h>

struct seen {
    struct event_base *base;
    struct lifecycle *lifecycle;
    struct event *step;
    int reloads, drains, stops;
    enum lifecycle_end end;
    bool drains_at_once;
    int signals[4]; /* raised one a step; 0: none more */
    int next;
};

static struct seen seen;

static void on_reload(void *argument)
{
    ((struct seen *)argument)->reloads++;
}

static void on_drain(void *argument)
{
    struct seen *all = argument;
    all->drains++;
    if (all->drains_at_once)
        lifecycle_drained(all->lifecycle);
}

static void on_stop(void *argument, enum lifecycle_end end)
{
    struct seen *all = argument;
    all->stops++;
    all->end = end;
}

static void on_step(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct seen *all = argument;
    if (all->next < 4 && all->signals[all->next] != 0)
        raise(all->signals[all->next++]);
}

static int begin(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    memset(&seen, 0, sizeof(seen));
    seen.base = event_base_new();
    struct lifecycle_callbacks callbacks = {on_reload, on_drain, on_stop};
    lifecycle_begin();
    seen.lifecycle = lifecycle_new(seen.base, &callbacks, &seen);
    struct timeval pause = timing_to_timeval(MILLISECONDS(5));
    seen.step = event_new(seen.base, -1, EV_PERSIST, on_step, &seen);
    event_add(seen.step, &pause);
    return 0;
}

static int end(void **state)
{
    (void)state;
    event_free(seen.step);
    lifecycle_free(seen.lifecycle);
    event_base_free(seen.base);
    return 0;
}

static void expect(int drains, int reloads, enum lifecycle_end how)
{
    assert_int_equal(LIFECYCLE_STOPPED, lifecycle_phase(seen.lifecycle));
    assert_int_equal(drains, seen.drains);
    assert_int_equal(reloads, seen.reloads);
    assert_int_equal(1, seen.stops);
    assert_int_equal(how, seen.end);
}

static void test_a_signal_drains_and_the_last_client_ends_it(void **state)
{
    (void)state;
    seen.signals[0] = SIGHUP;
    seen.signals[1] = SIGTERM;
    seen.drains_at_once = true;
    assert_int_equal(LIFECYCLE_STARTING, lifecycle_phase(seen.lifecycle));
    lifecycle_ready(seen.lifecycle);
    assert_int_equal(LIFECYCLE_READY, lifecycle_phase(seen.lifecycle));
    assert_int_equal(EXIT_CODE_WELL, lifecycle_run(seen.lifecycle));
    expect(1, 1, LIFECYCLE_END_DRAINED);
}

static void run_until_stopped(void)
{
    lifecycle_set_deadline(seen.lifecycle, SECONDS(600));
    lifecycle_ready(seen.lifecycle);
    assert_int_equal(EXIT_CODE_WELL, lifecycle_run(seen.lifecycle));
    expect(1, 0, LIFECYCLE_END_AT_ONCE);
}

static void test_only_the_second_interrupt_ends_at_once(void **state)
{
    (void)state;
    seen.signals[0] = SIGTERM;
    seen.signals[1] = SIGTERM;
    seen.signals[2] = SIGINT;
    seen.signals[3] = SIGINT;
    run_until_stopped();
    assert_int_equal(4, seen.next);
}

static void test_quit_ends_a_drain_that_terms_do_not(void **state)
{
    (void)state;
    seen.signals[0] = SIGINT;
    seen.signals[1] = SIGTERM;
    seen.signals[2] = SIGTERM;
    seen.signals[3] = SIGQUIT;
    run_until_stopped();
    assert_int_equal(4, seen.next);
}

static void test_other_signals_change_nothing(void **state)
{
    (void)state;
    static const int ignored[] = {SIGALRM, SIGVTALRM, SIGIO};
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        raise(ignored[i]);
    seen.signals[0] = SIGUSR1;
    seen.signals[1] = SIGUSR2;
    seen.signals[2] = SIGTERM;
    seen.drains_at_once = true;
    lifecycle_ready(seen.lifecycle);
    assert_int_equal(EXIT_CODE_WELL, lifecycle_run(seen.lifecycle));
    expect(1, 0, LIFECYCLE_END_DRAINED);
    assert_int_equal(3, seen.next);
}

static void test_the_deadline_ends_a_drain(void **state)
{
    (void)state;
    seen.signals[0] = SIGTERM;
    lifecycle_set_deadline(seen.lifecycle, MILLISECONDS(50));
    lifecycle_ready(seen.lifecycle);
    assert_int_equal(EXIT_CODE_WELL, lifecycle_run(seen.lifecycle));
    expect(1, 0, LIFECYCLE_END_DEADLINE);
    assert_int_equal(0, lifecycle_remaining(seen.lifecycle));
}

static void test_a_shorter_deadline_holds_while_draining(void **state)
{
    (void)state;
    lifecycle_set_deadline(seen.lifecycle, SECONDS(600));
    lifecycle_ready(seen.lifecycle);
    lifecycle_drain(seen.lifecycle);
    assert_true(lifecycle_remaining(seen.lifecycle) > SECONDS(500));
    lifecycle_set_deadline(seen.lifecycle, MILLISECONDS(20));
    assert_int_equal(EXIT_CODE_WELL, lifecycle_run(seen.lifecycle));
    expect(1, 0, LIFECYCLE_END_DEADLINE);
}

static void test_a_signal_while_starting_ends_without_a_drain(void **state)
{
    (void)state;
    seen.signals[0] = SIGHUP; /* ignored while starting */
    seen.signals[1] = SIGTERM;
    assert_int_equal(EXIT_CODE_WELL, lifecycle_run(seen.lifecycle));
    expect(0, 0, LIFECYCLE_END_AT_ONCE);
}

static void test_arrows_that_do_not_exist_do_nothing(void **state)
{
    (void)state;
    lifecycle_drained(seen.lifecycle);
    assert_int_equal(LIFECYCLE_STARTING, lifecycle_phase(seen.lifecycle));
    lifecycle_stop(seen.lifecycle);
    lifecycle_stop(seen.lifecycle);
    lifecycle_ready(seen.lifecycle);
    lifecycle_drain(seen.lifecycle);
    lifecycle_set_exit_code(seen.lifecycle, EXIT_CODE_START);
    assert_int_equal(EXIT_CODE_START, lifecycle_run(seen.lifecycle));
    expect(0, 0, LIFECYCLE_END_AT_ONCE);
}

static void test_a_broken_pipe_does_not_kill(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(0, pipe(ends));
    close(ends[0]);
    assert_int_equal(-1, write(ends[1], "x", 1));
    close(ends[1]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_a_signal_drains_and_the_last_client_ends_it),
        TEST(test_only_the_second_interrupt_ends_at_once),
        TEST(test_quit_ends_a_drain_that_terms_do_not),
        TEST(test_other_signals_change_nothing),
        TEST(test_the_deadline_ends_a_drain),
        TEST(test_a_shorter_deadline_holds_while_draining),
        TEST(test_a_signal_while_starting_ends_without_a_drain),
        TEST(test_arrows_that_do_not_exist_do_nothing),
        TEST(test_a_broken_pipe_does_not_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
