#include "tests/unit/proxy/static_snapshot.h"
#include "tests/unit/unit.h"

#include "shared/timing.h"

#include "proxy/endpoint_set.h"
#include "proxy/snapshot.h"
#include "proxy/upstream.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

static const struct file_keys keys = {.count = 1, .keys = {{'a', {1}}}};

static struct snapshot *make(const char *upstreams, const struct snapshot *previous,
                             uint64_t now)
{
    char yaml[1024], error[256] = "";
    snprintf(yaml, sizeof(yaml),
             "listeners: [{address: \"127.0.0.1:1\"}]\nroutes: [{upstream: chat}]\n"
             "upstreams: [%s]\n",
             upstreams);
    struct proxy_config *config =
        proxy_config_parse("snapshot", slice_from_text(yaml), stderr);
    assert_non_null(config);
    return static_snapshot(config, &keys, previous, now, error, sizeof(error));
}

#define CHAT(list) "{name: chat, discovery: {static: [" list "]}}"

static void test_a_reload_keeps_what_is_still_there(void **state)
{
    (void)state;
    struct snapshot *first =
        make(CHAT("\"127.0.0.1:1\", \"127.0.0.1:2\"") ", " //
                                                      "{name: old, discovery: {static: "
                                                      "[\"127.0.0.1:9\"]}}",
             NULL, 0);
    struct endpoint *kept = first->sets[0]->entries[1].endpoint;
    uint64_t gone_tag = first->sets[0]->entries[0].tags[0];
    endpoint_begin_tunnel(kept);
    struct snapshot *second =
        make("{name: new, discovery: {static: [\"127.0.0.1:8\"]}}, " //
             CHAT("\"127.0.0.1:2\", \"127.0.0.1:3\""),
             first, SECONDS(10));
    assert_int_equal(second->generation, 2);
    assert_ptr_equal(second->sets[1]->upstream, first->sets[0]->upstream);
    snapshot_unref(first);
    const struct endpoint_entry *entry = endpoint_set_find(second->sets[1], kept);
    assert_non_null(entry);
    assert_int_equal(endpoint_sessions(entry->endpoint, 0), 1);
    assert_int_equal(
        endpoint_set_find_tag(second->sets[1], 0, gone_tag, SECONDS(10), &entry),
        TAG_TOMBSTONE);
    /* the newcomer warms up, the new upstream's first ones do not */
    assert_int_equal(
        endpoint_entry_state(second->sets[1], &second->sets[1]->entries[1], SECONDS(11)),
        ENDPOINT_WARMING);
    assert_int_equal(
        endpoint_entry_state(second->sets[0], &second->sets[0]->entries[0], SECONDS(11)),
        ENDPOINT_READY);
    endpoint_end_tunnel(kept);
    snapshot_unref(second);
}

static void test_a_name_that_is_nowhere_is_one_clear_line(void **state)
{
    (void)state;
    char error[256] = "";
    struct proxy_config *config = proxy_config_parse(
        "names",
        SLICE("listeners: [{address: \"127.0.0.1:1\"}]\nroutes: [{upstream: chat}]\n"
              "upstreams: [{name: chat, discovery: {static: [\"127.0.0.1:1\", "
              "\"nowhere.invalid:1\"]}}]\n"),
        stderr);
    assert_non_null(config);
    assert_null(static_snapshot(config, &keys, NULL, 0, error, sizeof(error)));
    const char begin[] = "upstream chat: endpoint nowhere.invalid:1: ";
    assert_memory_equal(error, begin, sizeof(begin) - 1);
}

static void count_notice(void *context)
{
    ++*(unsigned *)context;
}

static void test_a_mailbox_holds_the_newest_snapshot_only(void **state)
{
    (void)state;
    unsigned notices[2] = {0};
    struct snapshot_mailbox a, b;
    snapshot_mailbox_init(&a, count_notice, &notices[0]);
    snapshot_mailbox_init(&b, count_notice, &notices[1]);
    struct snapshot_mailbox *const both[] = {&a, &b};
    assert_null(snapshot_take(&a));
    struct snapshot *first = make(CHAT("\"127.0.0.1:1\""), NULL, 0);
    struct snapshot *second = make(CHAT("\"127.0.0.1:1\""), first, 0);
    snapshot_publish(first, both, 2);
    struct snapshot *taken = snapshot_take(&a);
    assert_ptr_equal(taken, first);
    assert_int_equal(snapshot_taken(&a), 1);
    assert_int_equal(snapshot_taken(&b), 0);
    snapshot_publish(second, both, 2);
    assert_int_equal(atomic_load(&first->holders),
                     2); /* ours and a's; b's was replaced */
    snapshot_unref(taken);
    taken = snapshot_take(&a);
    assert_ptr_equal(taken, second);
    assert_null(snapshot_take(&a));
    snapshot_unref(taken);
    assert_int_equal(notices[0], 2);
    assert_int_equal(notices[1], 2);
    snapshot_mailbox_cleanup(&a);
    snapshot_mailbox_cleanup(&b);
    assert_int_equal(atomic_load(&second->holders), 1);
    snapshot_unref(first);
    snapshot_unref(second);
}

/* ── threads ── */

#define WORKERS     3
#define GENERATIONS 300

struct worker {
    struct snapshot_mailbox mailbox;
    pthread_t thread;
    _Atomic unsigned wrong;
};

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    struct snapshot *current = NULL;
    uint64_t generation = 0;
    while (generation < GENERATIONS) {
        struct snapshot *next = snapshot_take(&worker->mailbox);
        if (next != NULL) {
            if (next->generation <= generation)
                atomic_fetch_add(&worker->wrong, 1);
            generation = next->generation;
            if (current != NULL)
                snapshot_unref(current);
            current = next;
        } else {
            sched_yield();
        }
        if (current == NULL)
            continue;
        const struct endpoint_entry *entry = &current->sets[0]->entries[0], *found;
        endpoint_begin_poll(entry->endpoint);
        endpoint_count_placed(entry->endpoint, SECONDS(generation));
        if (endpoint_set_find_tag(current->sets[0], 0, entry->tags[0], 0, &found) !=
            TAG_KNOWN)
            atomic_fetch_add(&worker->wrong, 1);
        upstream_learn_heartbeat(current->sets[0]->upstream, generation, generation);
        endpoint_end_poll(entry->endpoint);
    }
    snapshot_unref(current);
    return NULL;
}

static void test_workers_take_every_new_generation_in_order(void **state)
{
    (void)state;
    static struct worker workers[WORKERS];
    struct snapshot_mailbox *mailboxes[WORKERS];
    unsigned notices =
        0; /* written by this thread only: notify runs where publish does */
    for (size_t i = 0; i < WORKERS; i++) {
        snapshot_mailbox_init(&workers[i].mailbox, count_notice, &notices);
        mailboxes[i] = &workers[i].mailbox;
        assert_int_equal(
            pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]), 0);
    }
    struct snapshot *last = NULL;
    for (unsigned i = 0; i < GENERATIONS; i++) {
        struct snapshot *next =
            make(i % 2 == 0 ? CHAT("\"127.0.0.1:1\"")
                            : CHAT("\"127.0.0.1:1\", \"127.0.0.1:2\""),
                 last, SECONDS(i));
        snapshot_publish(next, mailboxes, WORKERS);
        if (last != NULL)
            snapshot_unref(last);
        last = next;
    }
    for (size_t i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(atomic_load(&workers[i].wrong), 0);
        assert_int_equal(snapshot_taken(&workers[i].mailbox), GENERATIONS);
        snapshot_mailbox_cleanup(&workers[i].mailbox);
    }
    assert_int_equal(notices, WORKERS * GENERATIONS);
    assert_int_equal(atomic_load(&last->holders), 1);
    snapshot_unref(last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_reload_keeps_what_is_still_there),
        cmocka_unit_test(test_a_name_that_is_nowhere_is_one_clear_line),
        cmocka_unit_test(test_a_mailbox_holds_the_newest_snapshot_only),
        cmocka_unit_test(test_workers_take_every_new_generation_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
