/* Only the same publisher's messages to the same room wait, until the entry is applied or the time is over. */
#include "tests/unit/unit.h"

#include "broker/broker_metrics.h"
#include "broker/entry_hold.h"

#include <event2/event.h>
#include <stdio.h>

static unsigned overs;

static void on_over(void *context UNUSED)
{
    overs++;
}

static const char one, other;

static bool is_held(const struct entry_holds *holds, const void *publisher,
                    const char *room)
{
    return entry_hold_is_held(holds, publisher, SLICE("flask-socketio"), SLICE("/"),
                              slice_from_text(room));
}

static void begin(struct entry_holds *holds, uint64_t id, const char *room)
{
    entry_hold_begin(holds, &one, id, SLICE("flask-socketio"), SLICE("/"),
                     slice_from_text(room));
}

static void test_the_same_publisher_waits_for_the_same_room(void **state UNUSED)
{
    struct event_base *base = event_base_new();
    struct entry_holds *holds = entry_holds_new(base, on_over, NULL);
    overs = 0;
    begin(holds, 1, "s:a");
    assert_true(is_held(holds, &one, "s:a"));
    assert_false(is_held(holds, &one, "s:b"));
    assert_false(is_held(holds, &other, "s:a"));
    assert_false(entry_hold_is_held(holds, &one, SLICE("flask-socketio"), SLICE("/chat"),
                                    SLICE("s:a")));
    entry_hold_end(holds, 2); /* another one */
    assert_true(is_held(holds, &one, "s:a") && overs == 0);
    begin(holds, 3, "s:a");
    entry_hold_end(holds, 1);
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert_true(is_held(holds, &one, "s:a") && overs == 1);
    entry_hold_end(holds, 3);
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert_true(!is_held(holds, &one, "s:a") && overs == 2);
    entry_holds_free(holds);
    event_base_free(base);
}

static void test_it_is_over_after_a_while(void **state UNUSED)
{
    struct event_base *base = event_base_new();
    struct entry_holds *holds = entry_holds_new(base, on_over, NULL);
    overs = 0;
    begin(holds, 1, "s:a");
    begin(holds, 2, "s:b");
    while (entry_hold_count(holds) > 0)
        event_base_loop(base, EVLOOP_ONCE);
    assert_in_range(overs, 1, 2);
    assert_false(is_held(holds, &one, "s:a") || is_held(holds, &one, "s:b"));
    entry_hold_end(holds, 1); /* it comes too late */
    entry_holds_free(holds);
    event_base_free(base);
}

static void test_there_is_a_bound(void **state UNUSED)
{
    struct event_base *base = event_base_new();
    struct entry_holds *holds = entry_holds_new(base, on_over, NULL);
    for (uint64_t i = 0; i < 2 * ENTRY_HOLDS_MAX; i++) {
        char room[32];
        snprintf(room, sizeof(room), "i:%llu", (unsigned long long)i);
        begin(holds, i + 1, room);
    }
    assert_int_equal(ENTRY_HOLDS_MAX, entry_hold_count(holds));
    assert_false(is_held(holds, &one, "i:0"));
    assert_true(is_held(holds, &one, "i:511"));
    entry_holds_free(holds);
    event_base_free(base);
}

int main(void)
{
    metrics_init(broker_metric_rows, BROKER_METRIC_COUNT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_publisher_waits_for_the_same_room),
        cmocka_unit_test(test_it_is_over_after_a_while),
        cmocka_unit_test(test_there_is_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
