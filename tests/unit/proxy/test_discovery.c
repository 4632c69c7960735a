/*
 * A config taken over by a discovery that runs: which upstreams, sources, endpoints and verdicts go on.
 */
#include "tests/unit/unit.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/discovery.h"
#include "proxy/endpoint_set.h"
#include "proxy/proxy_metrics.h"
#include "proxy/upstream.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const struct file_keys keys = {.count = 1, .keys = {{'k', {1}}}};

struct rig {
    struct event_base *base;
    struct discovery *discovery;
    struct snapshot *snapshot; /* the newest told; one reference */
    unsigned told;
};

static void on_snapshot(void *argument, struct snapshot *snapshot)
{
    struct rig *rig = argument;
    if (rig->snapshot != NULL)
        snapshot_unref(rig->snapshot);
    rig->snapshot = snapshot_ref(snapshot);
    rig->told++;
}

static void rig_start(struct rig *rig)
{
    *rig = (struct rig){.base = event_base_new()};
    rig->discovery = discovery_new(rig->base, on_snapshot, rig);
}

static void rig_stop(struct rig *rig)
{
    discovery_free(rig->discovery);
    if (rig->snapshot != NULL)
        snapshot_unref(rig->snapshot);
    event_base_free(rig->base);
}

/* `upstreams`: what stands between the brackets of upstreams: []. */
static void apply_with(struct rig *rig, const char *upstreams,
                       const struct file_keys *with)
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
    unsigned told = rig->told;
    discovery_apply(rig->discovery, config, with, plan);
    assert_int_equal(rig->told, told + 1);
    assert_ptr_equal(rig->snapshot->config, config);
    for (size_t i = 0; i < rig->snapshot->sets_len; i++)
        endpoint_set_check(rig->snapshot->sets[i]);
    discovery_plan_free(plan);
    proxy_config_unref(config);
    free(yaml);
}

static void apply(struct rig *rig, const char *upstreams)
{
    apply_with(rig, upstreams, &keys);
}

/* The only endpoint of an upstream, or of that identity. */
static const struct endpoint_entry *entry_of(const struct rig *rig, size_t place,
                                             const char *id)
{
    const struct endpoint_set *set = rig->snapshot->sets[place];
    for (size_t i = 0; i < set->len; i++)
        if (strcmp(set->entries[i].endpoint->identity, id) == 0)
            return &set->entries[i];
    return NULL;
}

static void turn_until(struct rig *rig, bool (*is_done)(const struct rig *rig))
{
    uint64_t began = timing_now();
    while (!is_done(rig)) {
        assert_true(timing_now() - began < SECONDS(20));
        event_base_loop(rig->base, EVLOOP_NONBLOCK);
        usleep(2000);
    }
}

#define CHAT_AB                                                                          \
    "{name: chat, health_check: {type: none},"                                           \
    " discovery: {static: [{address: \"127.0.0.1:1\", id: a},"                           \
    " {address: \"127.0.0.1:2\", id: b}]}}"
#define OTHER                                                                            \
    "{name: other, health_check: {type: none},"                                          \
    " discovery: {static: [\"127.0.0.1:3\"]}}"

static void
test_an_upstream_that_stays_keeps_its_endpoints_and_their_counters(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    apply(&rig, CHAT_AB ", " OTHER);
    struct endpoint *a = entry_of(&rig, 0, "a")->endpoint;
    struct upstream *chat = rig.snapshot->sets[0]->upstream;
    struct learned_sids *learned = rig.snapshot->sets[0]->learned;
    uint64_t generation = rig.snapshot->generation;
    uint64_t tag = entry_of(&rig, 0, "a")->tags[0];
    endpoint_begin_tunnel(a);

    apply(&rig, OTHER ", " CHAT_AB); /* in another place, too */
    assert_ptr_equal(entry_of(&rig, 1, "a")->endpoint, a);
    assert_int_equal(endpoint_sessions(a, timing_now()), 1);
    assert_ptr_equal(rig.snapshot->sets[1]->upstream, chat);
    assert_ptr_equal(rig.snapshot->sets[1]->learned, learned);
    assert_true(entry_of(&rig, 1, "a")->tags[0] == tag);
    assert_int_equal(rig.snapshot->generation, generation + 1);
    endpoint_end_tunnel(a);
    rig_stop(&rig);
}

static void test_a_static_endpoint_that_is_taken_out_leaves_a_tombstone(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    apply(&rig, CHAT_AB);
    uint64_t tag = entry_of(&rig, 0, "b")->tags[0];
    apply(&rig, "{name: chat, health_check: {type: none},"
                " discovery: {static: [{address: \"127.0.0.1:1\", id: a, weight: 7}]}}");
    const struct endpoint_entry *entry;
    assert_null(entry_of(&rig, 0, "b"));
    assert_int_equal(entry_of(&rig, 0, "a")->weight, 7);
    assert_int_equal(
        endpoint_set_find_tag(rig.snapshot->sets[0], 0, tag, timing_now(), &entry),
        TAG_TOMBSTONE);
    rig_stop(&rig);
}

static void test_options_of_a_set_and_keys_take_effect(void **state)
{
    (void)state;
    struct rig rig;
    struct file_keys two = {.count = 2, .keys = {{'n', {2}}, {'k', {1}}}};
    rig_start(&rig);
    apply(&rig, CHAT_AB);
    uint64_t tag = entry_of(&rig, 0, "a")->tags[0];
    apply_with(&rig,
               "{name: chat, slow_start: 9s, place_after: 3s,"
               " discovery: {static: [{address: \"127.0.0.1:1\", id: a}]}}",
               &two);
    const struct endpoint_set *set = rig.snapshot->sets[0];
    assert_true(set->slow_start == SECONDS(9) && set->place_after == SECONDS(3));
    assert_true(entry_of(&rig, 0, "a")->tags[0] != tag);
    assert_true(entry_of(&rig, 0, "a")->tags[1] == tag); /* the old key is read still */
    rig_stop(&rig);
}

/* ---- sources ---- */

static char file_path[64];

static void write_file(const char *text)
{
    char path[80];
    snprintf(path, sizeof path, "%s.new", file_path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(rename(path, file_path), 0);
}

static char *chat_from_file(const char *more)
{
    return must_printf("{name: chat, health_check: {type: none},"
                       " discovery: {file: \"%s\"}%s}",
                       file_path, more);
}

static bool has_b(const struct rig *rig)
{
    return entry_of(rig, 0, "b") != NULL;
}

static bool has_no_a(const struct rig *rig)
{
    return entry_of(rig, 0, "a") == NULL;
}

static void test_a_source_goes_on_unless_its_options_change(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    snprintf(file_path, sizeof file_path, "/tmp/sidrail-discovery-%d", (int)getpid());
    write_file("[{\"address\": \"127.0.0.1:1\", \"id\": \"a\"}]");
    char *one = chat_from_file(""), *other = chat_from_file(", slow_start: 5s");
    apply(&rig, one);
    struct endpoint *a = entry_of(&rig, 0, "a")->endpoint;
    uint64_t lists = discovery_facts(rig.discovery, 0).lists;
    for (int i = 0; i < 20; i++)
        apply(&rig, i % 2 == 0 ? other : one);
    assert_true(discovery_facts(rig.discovery, 0).lists == lists); /* not read again */
    assert_ptr_equal(entry_of(&rig, 0, "a")->endpoint, a);

    write_file("[{\"address\": \"127.0.0.1:1\", \"id\": \"a\"},"
               " {\"address\": \"127.0.0.1:2\", \"id\": \"b\"}]");
    turn_until(&rig, has_b); /* the config that it began with is gone long since */
    assert_ptr_equal(entry_of(&rig, 0, "a")->endpoint, a);
    unlink(file_path);
    free(one);
    free(other);
    rig_stop(&rig);
}

static void test_another_source_takes_over_when_it_has_a_list(void **state)
{
    (void)state;
    struct rig rig;
    const char *name, *why;
    rig_start(&rig);
    snprintf(file_path, sizeof file_path, "/tmp/sidrail-discovery-%d", (int)getpid());
    unlink(file_path);
    apply(&rig, CHAT_AB);
    struct endpoint *b = entry_of(&rig, 0, "b")->endpoint;
    char *from_file = chat_from_file("");
    apply(&rig, from_file); /* which is not there: the endpoints stay */
    assert_non_null(entry_of(&rig, 0, "a"));
    assert_ptr_equal(entry_of(&rig, 0, "b")->endpoint, b);
    assert_true(discovery_facts(rig.discovery, 0).trouble[0] != '\0');
    assert_true(discovery_is_synced(rig.discovery, &name, &why));
    write_file("[{\"address\": \"127.0.0.1:2\", \"id\": \"b\"}]");
    turn_until(&rig, has_no_a);
    assert_ptr_equal(entry_of(&rig, 0, "b")->endpoint, b);
    assert_string_equal(discovery_facts(rig.discovery, 0).trouble, "");

    apply(&rig, CHAT_AB); /* and back: at once */
    assert_non_null(entry_of(&rig, 0, "a"));
    assert_ptr_equal(entry_of(&rig, 0, "b")->endpoint, b);
    unlink(file_path);
    free(from_file);
    rig_stop(&rig);
}

static void test_an_upstream_that_a_reload_brings_leaves_the_proxy_ready(void **state)
{
    (void)state;
    struct rig rig;
    const char *name, *why;
    rig_start(&rig);
    apply(&rig, CHAT_AB);
    apply(&rig, CHAT_AB ", {name: late, discovery: {file: /nowhere/at/all}}");
    assert_int_equal(rig.snapshot->sets_len, 2);
    assert_int_equal(rig.snapshot->sets[1]->len, 0);
    assert_true(discovery_is_synced(rig.discovery, &name, &why));
    apply(&rig, CHAT_AB);
    assert_int_equal(rig.snapshot->sets_len, 1);
    rig_stop(&rig);
}

static void
test_a_set_of_an_upstream_that_is_taken_out_lives_for_its_holders(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    apply(&rig, OTHER ", " CHAT_AB);
    struct snapshot *held = snapshot_ref(rig.snapshot);
    struct endpoint *other = held->sets[0]->entries[0].endpoint;
    endpoint_begin_tunnel(other);
    apply(&rig, CHAT_AB);
    assert_string_equal(held->sets[0]->upstream->name, "other");
    assert_int_equal(endpoint_sessions(other, timing_now()), 1);
    endpoint_end_tunnel(other);
    snapshot_unref(held);
    rig_stop(&rig);
}

static void test_what_operators_said_lasts(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    apply(&rig, CHAT_AB);
    assert_int_equal(discovery_drain(rig.discovery, SLICE("a"), true), 1);
    assert_int_equal(discovery_weigh(rig.discovery, SLICE("b"), 7), 1);
    apply(&rig, OTHER ", " CHAT_AB);
    assert_int_equal(entry_of(&rig, 1, "a")->state, ENDPOINT_DRAINING);
    assert_int_equal(entry_of(&rig, 1, "b")->weight, 7);
    assert_int_equal(discovery_drain(rig.discovery, SLICE("a"), false), 1);
    assert_int_equal(entry_of(&rig, 1, "a")->state, ENDPOINT_READY);
    rig_stop(&rig);
}

/* ---- health checks ---- */

static bool is_a_degraded(const struct rig *rig)
{
    return entry_of(rig, 0, "a")->state == ENDPOINT_DEGRADED;
}

static bool is_a_ready(const struct rig *rig)
{
    return entry_of(rig, 0, "a")->state == ENDPOINT_READY;
}

static void test_verdicts_last_over_a_config_and_end_with_the_checks(void **state)
{
    (void)state;
    struct rig rig;
    static const char fast[] =
        "{name: chat, health_check: {interval: 50ms, fall: 1, timeout: 50ms},"
        " discovery: {static: [{address: \"127.0.0.1:1\", id: a}]}}";
    static const char slow[] =
        "{name: chat, health_check: {interval: 1h, fall: 1, timeout: 50ms},"
        " discovery: {static: [{address: \"127.0.0.1:1\", id: a}]}}";
    static const char none[] =
        "{name: chat, health_check: {type: none},"
        " discovery: {static: [{address: \"127.0.0.1:1\", id: a}]}}";
    rig_start(&rig);
    apply(&rig, slow);
    assert_true(is_a_ready(&rig));
    apply(&rig, fast); /* nobody listens on port 1: found out soon, not in an hour */
    turn_until(&rig, is_a_degraded);
    apply(&rig, fast);
    assert_true(is_a_degraded(&rig));
    apply(&rig, slow);
    assert_true(is_a_degraded(&rig));
    apply(&rig, none);
    turn_until(&rig, is_a_ready);
    rig_stop(&rig);
}

static bool has_trouble(const struct rig *rig)
{
    return discovery_facts(rig->discovery, 0).trouble[0] != '\0';
}

static void test_a_name_that_cannot_be_looked_up_leaves_the_others(void **state)
{
    (void)state;
    const char *name, *why;
    struct rig rig;
    rig_start(&rig);
    /* nobody answers at that port: the question fails at once */
    apply(&rig, "{name: chat, discovery: {name_server: \"127.0.0.1:9\","
                " static: [\"127.0.0.1:1\", \"nobody.invalid:1\"]}}");
    assert_int_equal(rig.snapshot->sets[0]->len, 1);
    assert_true(discovery_is_synced(rig.discovery, &name, &why));
    turn_until(&rig, has_trouble);
    assert_non_null(
        strstr(discovery_facts(rig.discovery, 0).trouble, "endpoint nobody.invalid:1: "));
    rig_stop(&rig);

    rig_start(&rig);
    apply(&rig, "{name: chat, discovery: {name_server: \"127.0.0.1:9\","
                " static: [\"nobody.invalid:1\"]}}");
    turn_until(&rig, has_trouble);
    assert_false(discovery_is_synced(rig.discovery, &name, &why));
    assert_string_equal(name, "chat");
    rig_stop(&rig);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    metrics_init(proxy_metric_rows, PROXY_METRIC_COUNT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_an_upstream_that_stays_keeps_its_endpoints_and_their_counters),
        cmocka_unit_test(test_a_static_endpoint_that_is_taken_out_leaves_a_tombstone),
        cmocka_unit_test(test_options_of_a_set_and_keys_take_effect),
        cmocka_unit_test(test_a_source_goes_on_unless_its_options_change),
        cmocka_unit_test(test_another_source_takes_over_when_it_has_a_list),
        cmocka_unit_test(test_an_upstream_that_a_reload_brings_leaves_the_proxy_ready),
        cmocka_unit_test(
            test_a_set_of_an_upstream_that_is_taken_out_lives_for_its_holders),
        cmocka_unit_test(test_what_operators_said_lasts),
        cmocka_unit_test(test_verdicts_last_over_a_config_and_end_with_the_checks),
        cmocka_unit_test(test_a_name_that_cannot_be_looked_up_leaves_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
