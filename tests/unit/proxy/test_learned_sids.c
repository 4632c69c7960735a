#include "tests/unit/unit.h"

#include "shared/timing.h"

#include "proxy/endpoint.h"
#include "proxy/learned_sids.h"
#include "proxy/upstream.h"

#include <pthread.h>
#include <stdio.h>

#define LIFE SECONDS(10)

static struct endpoint *make_endpoint(const char *name)
{
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_identity who = {
        slice_from_text(name), slice_from_text(name), slice_from_text(name), {0}, 1};
    struct endpoint *endpoint = endpoint_new(upstream, &who, 0, true);
    upstream_unref(upstream);
    return endpoint;
}

static bool is_known(struct learned_sids *table, const char *sid,
                     const struct endpoint *endpoint, uint64_t now)
{
    struct endpoint *found = learned_sids_find(table, slice_from_text(sid), now);
    if (found != NULL)
        endpoint_unref(found);
    return found != NULL && found == endpoint;
}

static void test_a_learned_sid_leads_to_its_endpoint(void **state)
{
    (void)state;
    struct learned_sids *table = learned_sids_new(1000);
    struct endpoint *a = make_endpoint("a"), *b = make_endpoint("b");
    learned_sids_add(table, SLICE("one"), a, LIFE, 0);
    learned_sids_add(table, SLICE("two"), b, LIFE, 0);
    assert_true(is_known(table, "one", a, 1));
    assert_true(is_known(table, "two", b, 1));
    assert_false(is_known(table, "three", a, 1));
    learned_sids_add(table, SLICE("one"), b, LIFE, 0);
    assert_true(is_known(table, "one", b, 1));
    assert_int_equal(learned_sids_count(table), 2);
    assert_int_equal(atomic_load(&a->holders), 1);
    assert_int_equal(atomic_load(&b->holders), 3);
    learned_sids_unref(table);
    assert_int_equal(atomic_load(&b->holders), 1);
    endpoint_unref(a);
    endpoint_unref(b);
}

static void test_each_look_up_begins_its_life_anew(void **state)
{
    (void)state;
    struct learned_sids *table = learned_sids_new(1000);
    struct endpoint *a = make_endpoint("a");
    learned_sids_add(table, SLICE("one"), a, LIFE, 0);
    assert_true(is_known(table, "one", a, LIFE - 1));
    assert_true(is_known(table, "one", a, 2 * LIFE - 2));
    assert_false(is_known(table, "one", a, 3 * LIFE - 2));
    assert_int_equal(learned_sids_count(table), 0);
    assert_int_equal(atomic_load(&a->holders), 1);
    learned_sids_unref(table);
    endpoint_unref(a);
}

static void test_the_bound_holds_and_the_stale_make_room(void **state)
{
    (void)state;
    struct learned_sids *table = learned_sids_new(640);
    struct endpoint *a = make_endpoint("a");
    char sid[32];
    learned_sids_add(table, SLICE("kept"), a, LIFE, 0);
    for (unsigned i = 0; i < 20000; i++) {
        snprintf(sid, sizeof(sid), "sid%u", i);
        learned_sids_add(table, slice_from_text(sid), a, LIFE, 0);
        assert_true(is_known(table, sid, a, 1));
        assert_true(is_known(table, "kept", a, 1));
    }
    assert_int_equal(learned_sids_count(table), 640);
    assert_int_equal(atomic_load(&a->holders), 641);
    learned_sids_set_maximum(table, 64);
    for (unsigned i = 0; i < 2000; i++) {
        snprintf(sid, sizeof(sid), "new%u", i);
        learned_sids_add(table, slice_from_text(sid), a, LIFE, 0);
    }
    assert_int_equal(learned_sids_count(table), 64);
    learned_sids_set_maximum(table, 0);
    learned_sids_add(table, SLICE("nothing"), a, LIFE, 0);
    assert_false(is_known(table, "nothing", a, 1));
    learned_sids_unref(table);
    assert_int_equal(atomic_load(&a->holders), 1);
    endpoint_unref(a);
}

static void test_an_entry_costs_at_most_96_bytes_and_its_sid(void **state)
{
    (void)state;
    assert_true(learned_sids_entry_cost() <= 96);
}

static void test_sids_of_any_bytes_up_to_the_limit_are_learned(void **state)
{
    (void)state;
    struct learned_sids *table = learned_sids_new(1000);
    struct endpoint *a = make_endpoint("a");
    char sid[LEARNED_SID_LEN_MAX + 1];
    memset(sid, 0, sizeof(sid));
    for (size_t len = 0; len <= sizeof(sid); len += len == 0 ? 1 : 64) {
        size_t used = len < sizeof(sid) ? len : sizeof(sid);
        struct slice slice = slice_of(sid, used);
        learned_sids_add(table, slice, a, LIFE, 0);
        struct endpoint *found = learned_sids_find(table, slice, 1);
        assert_true((found == a) == (used > 0 && used <= LEARNED_SID_LEN_MAX));
        if (found != NULL)
            endpoint_unref(found);
    }
    struct slice longer = slice_of(sid, sizeof(sid));
    learned_sids_add(table, longer, a, LIFE, 0);
    assert_null(learned_sids_find(table, longer, 1));
    learned_sids_unref(table);
    endpoint_unref(a);
}

/* ── threads ── */

#define THREADS 4
#define ROUNDS  20000

struct shared_things {
    struct learned_sids *table;
    struct endpoint *endpoints[3];
    _Atomic unsigned wrong;
};

static void *use_table(void *argument)
{
    static _Atomic unsigned next;
    struct shared_things *shared = argument;
    uint64_t random = atomic_fetch_add(&next, 1) + 1;
    char sid[32];
    for (unsigned round = 0; round < ROUNDS; round++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned number = (unsigned)(random >> 40) % 500;
        struct endpoint *right = shared->endpoints[number % 3];
        uint64_t now = SECONDS(round / 1000);
        snprintf(sid, sizeof(sid), "sid%u", number);
        if (random >> 60 < 6) {
            learned_sids_add(shared->table, slice_from_text(sid), right, SECONDS(3), now);
            endpoint_count_placed(right, now);
        } else {
            struct endpoint *found =
                learned_sids_find(shared->table, slice_from_text(sid), now);
            if (found != NULL && found != right)
                atomic_fetch_add(&shared->wrong, 1);
            if (found != NULL) {
                endpoint_begin_tunnel(found);
                endpoint_begin_poll(found);
                if (endpoint_sessions(found, now) < 2)
                    atomic_fetch_add(&shared->wrong, 1);
                endpoint_note_failure(found, now);
                endpoint_is_suspect(found, now);
                endpoint_note_success(found);
                endpoint_end_poll(found);
                endpoint_end_tunnel(found);
                endpoint_unref(found);
            }
        }
        if (round % 5000 == 0)
            learned_sids_set_maximum(shared->table, round % 10000 == 0 ? 128 : 256);
    }
    return NULL;
}

static void test_threads_share_one_table_and_the_counters(void **state)
{
    (void)state;
    struct shared_things shared = {.table = learned_sids_new(256)};
    for (size_t i = 0; i < 3; i++)
        shared.endpoints[i] = make_endpoint(i == 0 ? "a" : i == 1 ? "b" : "c");
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_table, &shared), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&shared.wrong), 0);
    assert_true(learned_sids_count(shared.table) <= 256);
    learned_sids_unref(shared.table);
    uint64_t handshakes = 0;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(atomic_load(&shared.endpoints[i]->holders), 1);
        assert_int_equal(atomic_load(&shared.endpoints[i]->tunnels), 0);
        assert_int_equal(atomic_load(&shared.endpoints[i]->polls), 0);
        handshakes += atomic_load(&shared.endpoints[i]->handshakes_total);
        endpoint_unref(shared.endpoints[i]);
    }
    assert_true(handshakes > THREADS * ROUNDS / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_learned_sid_leads_to_its_endpoint),
        cmocka_unit_test(test_each_look_up_begins_its_life_anew),
        cmocka_unit_test(test_the_bound_holds_and_the_stale_make_room),
        cmocka_unit_test(test_an_entry_costs_at_most_96_bytes_and_its_sid),
        cmocka_unit_test(test_sids_of_any_bytes_up_to_the_limit_are_learned),
        cmocka_unit_test(test_threads_share_one_table_and_the_counters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
