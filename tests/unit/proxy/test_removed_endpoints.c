/*
 * Upstreams that are taken out of a discovery that runs: which of their endpoints drain, when, and on what terms.
 */
#include "tests/unit/unit.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/discovery.h"
#include "proxy/drain.h"
#include "proxy/endpoint_set.h"
#include "proxy/proxy_metrics.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define CHAT                                                                             \
    "{name: chat, health_check: {type: none}, discovery: {static: [\"127.0.0.1:1\"]}}"
#define OLD_WITH(terms)                                                                  \
    "{name: old, health_check: {type: none}, discovery: {static: [\"127.0.0.1:7\"]},"    \
    " herd_spread: 3s, drain: {" terms "}}"
#define OLD OLD_WITH("delay: 5s, window: 0s")

static const struct file_keys keys = {.count = 1, .keys = {{'k', {1}}}};
static char file_path[] = "/tmp/removed-endpoints-XXXXXX";

struct rig {
    struct event_base *base;
    struct discovery *discovery;
    struct snapshot *snapshot, *before; /* the two newest told; one reference each */
};

static void on_snapshot(void *argument, struct snapshot *snapshot)
{
    struct rig *rig = argument;
    if (rig->before != NULL)
        snapshot_unref(rig->before);
    rig->before = rig->snapshot;
    rig->snapshot = snapshot_ref(snapshot);
}

static void apply(struct rig *rig, const char *upstreams)
{
    char error[256];
    char *yaml = must_printf("listeners: [{address: \"127.0.0.1:1\"}]\n"
                             "routes: [{upstream: chat}]\n"
                             "upstreams: [%s]\n",
                             upstreams);
    struct proxy_config *config =
        proxy_config_parse("test", slice_from_text(yaml), stderr);
    assert_non_null(config);
    struct discovery_plan *plan = discovery_plan_new(config, error, sizeof error);
    assert_non_null(plan);
    discovery_apply(rig->discovery, config, &keys, plan);
    discovery_plan_free(plan);
    proxy_config_unref(config);
    free(yaml);
}

/* With chat and old; comes back with the endpoint of old, held as a connection to it would. */
static struct endpoint *rig_start(struct rig *rig, const char *old)
{
    *rig = (struct rig){.base = event_base_new()};
    rig->discovery = discovery_new(rig->base, on_snapshot, rig);
    char *upstreams = must_printf(CHAT ", %s", old);
    apply(rig, upstreams);
    free(upstreams);
    return endpoint_ref(rig->snapshot->sets[1]->entries[0].endpoint);
}

static void rig_stop(struct rig *rig, struct endpoint *held)
{
    endpoint_unref(held);
    discovery_free(rig->discovery);
    if (rig->before != NULL)
        snapshot_unref(rig->before);
    snapshot_unref(rig->snapshot);
    event_base_free(rig->base);
}

static bool drains(const struct endpoint *endpoint)
{
    return atomic_load(&endpoint->draining_since) != 0;
}

static void test_it_drains_on_the_terms_that_its_upstream_had_last(void **state)
{
    (void)state;
    const struct {
        const char *old;
        bool leaves;
        uint32_t from_ms, below_ms;
    } cases[] = {
        {OLD_WITH("delay: 5s, window: 20s"), true, 5000, 25000},
        {OLD_WITH("delay: 5s, window: 0s"), true, 5000, 5001},
        {OLD_WITH("mode: wait, delay: 5s, window: 20s"), true, 25000, 28000},
        {OLD_WITH("mode: none, delay: 5s, window: 20s"), false, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig rig;
        uint32_t delay;
        struct endpoint *held = rig_start(&rig, cases[i].old);
        assert_false(drains(held));
        apply(&rig, CHAT);
        assert_true(drains(held));
        assert_true(drain_differs(rig.before, rig.snapshot));
        uint64_t since = atomic_load(&held->draining_since);
        for (uint32_t number = 0; number < 100; number++) {
            assert_int_equal(
                drain_delay(rig.snapshot, held, number, since, since, false, &delay),
                cases[i].leaves);
            if (cases[i].leaves)
                assert_in_range(delay, cases[i].from_ms, cases[i].below_ms - 1);
        }
        assert_true(drain_herd_delay(rig.snapshot, held, 1) > 0);
        rig_stop(&rig, held);
    }
}

static void test_the_last_terms_are_those_of_the_last_configuration(void **state)
{
    (void)state;
    struct rig rig;
    uint32_t delay;
    struct endpoint *held = rig_start(&rig, OLD);
    apply(&rig, CHAT ", " OLD_WITH("delay: 60s, window: 0s"));
    apply(&rig, CHAT);
    uint64_t since = atomic_load(&held->draining_since);
    assert_true(drain_delay(rig.snapshot, held, 1, since, since, false, &delay));
    assert_int_equal(delay, 60000);
    rig_stop(&rig, held);
}

#define RENAMED(state)                                                                   \
    "{name: renamed, health_check: {type: none},"                                        \
    " discovery: {static: [{address: \"127.0.0.1:7\", id: x" state "}]}}"

static void test_it_stays_while_its_address_has_a_home(void **state)
{
    (void)state;
    struct rig rig;
    struct endpoint *held = rig_start(&rig, OLD);
    apply(&rig, CHAT ", " RENAMED(""));
    assert_false(drains(held));
    apply(&rig,
          CHAT ", " RENAMED("") ", {name: more, discovery: {static: [\"127.0.0.1:9\"]}}");
    assert_false(drains(held));
    apply(&rig, CHAT ", " RENAMED(", state: draining"));
    assert_true(drains(held));
    apply(&rig, CHAT ", " RENAMED(""));
    assert_false(drains(held)); /* that was called off */
    apply(&rig, CHAT);
    assert_true(drains(held));
    apply(&rig, CHAT ", " OLD); /* taken out by mistake */
    assert_false(drains(held));
    assert_true(drain_differs(rig.before, rig.snapshot));
    rig_stop(&rig, held);
}

static void write_file(const char *text)
{
    char *new_path = must_printf("%s.new", file_path);
    FILE *file = fopen(new_path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(new_path, file_path), 0);
    free(new_path);
}

static void turn_until_drains(struct rig *rig, const struct endpoint *held)
{
    uint64_t began = timing_now();
    while (!drains(held)) {
        assert_true(timing_now() - began < SECONDS(20));
        event_base_loop(rig->base, EVLOOP_NONBLOCK);
        usleep(2000);
    }
}

static void test_it_stays_until_all_sources_have_said_whom_they_list(void **state)
{
    (void)state;
    struct rig rig;
    struct endpoint *held = rig_start(&rig, OLD);
    unlink(file_path);
    char *late = must_printf(
        CHAT ", {name: late, health_check: {type: none}, discovery: {file: %s}}",
        file_path);
    apply(&rig, late);
    assert_false(drains(held));
    apply(&rig, late);
    assert_false(drains(held));
    write_file("[{\"address\": \"127.0.0.1:8\"}]");
    turn_until_drains(&rig, held);
    assert_true(drain_differs(rig.before, rig.snapshot));
    free(late);
    rig_stop(&rig, held);
}

static void test_another_source_of_one_that_stays_is_waited_for_too(void **state)
{
    (void)state;
    struct rig rig;
    struct endpoint *held = rig_start(&rig, OLD);
    unlink(file_path);
    char *moved = must_printf(
        "{name: chat, health_check: {type: none}, discovery: {file: %s}}", file_path);
    apply(&rig, moved);
    assert_false(drains(held));
    write_file(
        "[{\"address\": \"127.0.0.1:1\"}]"); /* the list that it had: no other set */
    turn_until_drains(&rig, held);
    free(moved);
    rig_stop(&rig, held);
}

static void test_nothing_is_kept_of_those_that_nobody_holds(void **state)
{
    (void)state;
    struct rig rig;
    struct endpoint *held = rig_start(&rig, OLD);
    apply(&rig, CHAT);
    apply(&rig, CHAT);
    apply(&rig, CHAT); /* no snapshot has it any more */
    assert_false(endpoint_has_one_holder(held));
    endpoint_unref(held); /* the connection ends */
    uint64_t changes = rig.snapshot->drain_changes;
    apply(&rig, CHAT ", " OLD);
    assert_int_equal(rig.snapshot->drain_changes, changes);
    rig_stop(&rig, endpoint_ref(rig.snapshot->sets[1]->entries[0].endpoint));
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    metrics_init(proxy_metric_rows, PROXY_METRIC_COUNT);
    int fd = mkstemp(file_path);
    check(fd >= 0);
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_drains_on_the_terms_that_its_upstream_had_last),
        cmocka_unit_test(test_the_last_terms_are_those_of_the_last_configuration),
        cmocka_unit_test(test_it_stays_while_its_address_has_a_home),
        cmocka_unit_test(test_it_stays_until_all_sources_have_said_whom_they_list),
        cmocka_unit_test(test_another_source_of_one_that_stays_is_waited_for_too),
        cmocka_unit_test(test_nothing_is_kept_of_those_that_nobody_holds),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(file_path);
    return failed;
}
