/*
 * One worker with a thread of its own, a file, and what becomes of it.
 */
#include "tests/unit/unit.h"

#include "shared/lifecycle.h"
#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/admission.h"
#include "proxy/discovery.h"
#include "proxy/listener_set.h"
#include "proxy/proxy_config.h"
#include "proxy/proxy_metrics.h"
#include "proxy/reload.h"
#include "proxy/worker.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

struct rig {
    struct event_base *base;
    struct post_box box;
    struct process process;
    struct snapshot *snapshot;
    struct worker *worker;
    struct listener_set *listeners;
    struct discovery *discovery;
    struct lifecycle *lifecycle;
    struct reload *reload;
    bool is_listening;
    char path[64];
};

/* `more` stands at the end. */
static void write_config(const struct rig *rig, const char *more)
{
    char fresh[80];
    snprintf(fresh, sizeof fresh, "%s.new", rig->path);
    FILE *file = fopen(fresh, "w");
    assert_non_null(file);
    fprintf(file,
            "listeners: [{address: \"unix:%s.sock\"}]\n"
            "upstreams: [{name: chat, health_check: {type: none},"
            " discovery: {static: [\"127.0.0.1:1\"]}}]\n%s",
            rig->path, more);
    fclose(file);
    assert_int_equal(rename(fresh, rig->path), 0);
}

static void on_snapshot(void *argument, struct snapshot *snapshot)
{
    struct rig *rig = argument;
    if (rig->snapshot != NULL)
        snapshot_unref(rig->snapshot);
    rig->snapshot = snapshot_ref(snapshot);
    if (rig->worker == NULL)
        return;
    struct snapshot_mailbox *mailbox = worker_mailbox(rig->worker);
    snapshot_publish(snapshot, &mailbox, 1);
}

static void on_listening(void *argument)
{
    struct rig *rig = argument;
    rig->is_listening = true;
    if (rig->reload != NULL)
        reload_ready(rig->reload);
}

static void rig_start(struct rig *rig)
{
    static const struct lifecycle_callbacks none = {0};
    char error[1024];
    struct file_keys keys;
    *rig = (struct rig){.base = event_base_new()};
    snprintf(rig->path, sizeof rig->path, "/tmp/sidrail-reload-%d", (int)getpid());
    write_config(rig, "");
    struct proxy_config *config = proxy_config_load(rig->path, stderr);
    assert_non_null(config);
    rig->process.admission = admission_new();
    post_box_init(&rig->box, rig->base);
    rig->lifecycle = lifecycle_new(rig->base, &none, NULL);
    file_keys_make_random(&keys);
    struct discovery_plan *plan = discovery_plan_new(config, error, sizeof error);
    assert_non_null(plan);
    rig->discovery = discovery_new(rig->base, on_snapshot, rig);
    discovery_apply(rig->discovery, config, &keys, plan);
    discovery_plan_free(plan);
    rig->worker = worker_new(&rig->process, rig->snapshot, 0);
    rig->listeners = listener_set_new(&rig->worker, 1, &rig->box);
    struct listener_plan *listeners =
        listener_plan_new(rig->listeners, config, error, sizeof error);
    assert_non_null(listeners);
    listener_set_apply(rig->listeners, listeners, on_listening, rig);
    worker_start(rig->worker);
    lifecycle_ready(rig->lifecycle);
    struct reload_parts parts = {.base = rig->base,
                                 .discovery = rig->discovery,
                                 .listeners = rig->listeners,
                                 .lifecycle = rig->lifecycle};
    rig->reload = reload_new(&parts, config, rig->path);
    proxy_config_unref(config);
}

static void turn_until_listening(struct rig *rig)
{
    while (!rig->is_listening)
        event_base_loop(rig->base, EVLOOP_ONCE);
}

static void rig_stop(struct rig *rig)
{
    worker_stop(rig->worker);
    worker_join(rig->worker);
    discovery_free(rig->discovery);
    worker_free(rig->worker);
    reload_free(rig->reload);
    listener_set_free(rig->listeners);
    lifecycle_free(rig->lifecycle);
    post_box_cleanup(&rig->box);
    snapshot_unref(rig->snapshot);
    event_base_free(rig->base);
    admission_free(rig->process.admission);
    unlink(rig->path);
}

static void turn_until_applied(struct rig *rig, uint64_t applied)
{
    uint64_t began = timing_now();
    while (reload_facts(rig->reload).applied < applied) {
        assert_true(timing_now() - began < SECONDS(20));
        event_base_loop(rig->base, EVLOOP_NONBLOCK);
        usleep(500);
    }
}

static void test_one_that_is_asked_for_before_the_first_workers_listen_waits(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    uint64_t generation = rig.snapshot->generation;
    reload_begin(rig.reload, "test");
    assert_true(rig.snapshot->generation == generation);
    turn_until_applied(&rig, 1);
    assert_true(rig.snapshot->generation == generation + 1);
    rig_stop(&rig);
}

static void test_a_good_file_is_in_use_when_the_worker_has_it(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    turn_until_listening(&rig);
    write_config(&rig, "trusted_hops: 7\n");
    reload_begin(rig.reload, "test");
    assert_int_equal(reload_facts(rig.reload).applied, 0); /* not before it has */
    turn_until_applied(&rig, 1);
    assert_int_equal(rig.snapshot->config->trusted_hops, 7);
    assert_true(snapshot_taken(worker_mailbox(rig.worker)) == rig.snapshot->generation);
    assert_string_equal(reload_facts(rig.reload).error, "");
    rig_stop(&rig);
}

static void test_a_bad_file_changes_nothing_and_its_first_error_is_kept(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    turn_until_listening(&rig);
    struct proxy_config *config = rig.snapshot->config;
    write_config(&rig, "trusted_hops: 70\nnonsense: 1\n");
    reload_begin(rig.reload, "test");
    struct reload_facts facts = reload_facts(rig.reload);
    assert_int_equal(facts.refused, 1);
    assert_ptr_equal(rig.snapshot->config, config);
    assert_non_null(strstr(facts.error, ":3:15: trusted_hops"));
    assert_null(strchr(facts.error, '\n'));
    write_config(&rig, "");
    reload_begin(rig.reload, "test");
    turn_until_applied(&rig, 1);
    assert_string_equal(reload_facts(rig.reload).error, "");
    rig_stop(&rig);
}

static void test_what_is_asked_for_meanwhile_becomes_one_more(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    turn_until_listening(&rig);
    uint64_t generation = rig.snapshot->generation;
    for (int i = 0; i < 10; i++)
        reload_begin(rig.reload, "test");
    assert_int_equal(rig.snapshot->generation, generation + 1);
    turn_until_applied(&rig, 2);
    for (int i = 0; i < 20; i++) {
        event_base_loop(rig.base, EVLOOP_NONBLOCK);
        usleep(1000);
    }
    assert_int_equal(reload_facts(rig.reload).applied, 2);
    rig_stop(&rig);
}

static void test_options_that_wait_for_a_restart_are_named(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    turn_until_listening(&rig);
    write_config(&rig, "threads: 200\nadmin: {socket: \"\"}\n");
    reload_begin(rig.reload, "test");
    turn_until_applied(&rig, 1);
    assert_int_equal(reload_facts(rig.reload).restart_count, 2);
    assert_string_equal(reload_facts(rig.reload).restart, "threads, admin.socket");
    write_config(&rig, "");
    reload_begin(rig.reload, "test");
    turn_until_applied(&rig, 2);
    assert_int_equal(reload_facts(rig.reload).restart_count, 0);
    rig_stop(&rig);
}

static void test_files_are_followed_and_those_that_are_named_no_more_are_not(void **state)
{
    (void)state;
    struct rig rig;
    char keys[80], more[128];
    rig_start(&rig);
    turn_until_listening(&rig);
    snprintf(keys, sizeof keys, "%s.keys", rig.path);
    snprintf(more, sizeof more, "affinity_keys: %s\n", keys);
    FILE *file = fopen(keys, "w");
    assert_non_null(file);
    fputs("a 00112233445566778899aabbccddeeff\n", file);
    fclose(file);
    write_config(&rig, more); /* nobody asks */
    turn_until_applied(&rig, 1);
    assert_int_equal(rig.snapshot->keys.keys[0].id, 'a');
    file = fopen(keys, "w");
    assert_non_null(file);
    fputs("b 00112233445566778899aabbccddeeff\n", file);
    fclose(file);
    turn_until_applied(&rig, 2);
    assert_int_equal(rig.snapshot->keys.keys[0].id, 'b');
    write_config(&rig, "");
    turn_until_applied(&rig, 3);
    unlink(keys);
    rig_stop(&rig);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    metrics_init(proxy_metric_rows, PROXY_METRIC_COUNT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_one_that_is_asked_for_before_the_first_workers_listen_waits),
        cmocka_unit_test(test_a_good_file_is_in_use_when_the_worker_has_it),
        cmocka_unit_test(test_a_bad_file_changes_nothing_and_its_first_error_is_kept),
        cmocka_unit_test(test_what_is_asked_for_meanwhile_becomes_one_more),
        cmocka_unit_test(test_options_that_wait_for_a_restart_are_named),
        cmocka_unit_test(
            test_files_are_followed_and_those_that_are_named_no_more_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
