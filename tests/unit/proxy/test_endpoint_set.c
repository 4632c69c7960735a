#include "tests/unit/unit.h"

#include "shared/timing.h"

#include "proxy/endpoint_set.h"
#include "proxy/learned_sids.h"
#include "proxy/upstream.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPIRED ENDPOINT_TOMBSTONE_LIFE

static const struct file_keys one_key = {.count = 1, .keys = {{'a', {1}}}};
static const struct file_keys two_keys = {.count = 2, .keys = {{'b', {2}}, {'a', {1}}}};

static struct endpoint_spec spec_of(const char *address, enum endpoint_state state)
{
    struct endpoint_spec spec = {.state = state, .weight = 1};
    const char *why;
    struct slice text = slice_from_text(address);
    assert_true(address_parse(text, &spec.who.address, &why));
    spec.who.identity = spec.who.label = spec.who.address_text = text;
    spec.who.port = address_port(&spec.who.address);
    return spec;
}

static struct endpoint_set *make_set(struct upstream *upstream,
                                     const struct file_keys *keys,
                                     const struct endpoint_spec *specs, size_t len,
                                     const struct endpoint_set *previous, uint64_t now)
{
    struct endpoint_set_options options = {.keys = keys, .learned_maximum = 100};
    struct endpoint_set *set =
        endpoint_set_new(upstream, &options, specs, len, previous, now);
    endpoint_set_check(set);
    return set;
}

static void test_endpoints_live_on_across_generations(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_spec specs[] = {spec_of("127.0.0.1:3", ENDPOINT_READY),
                                    spec_of("127.0.0.1:1", ENDPOINT_READY),
                                    spec_of("127.0.0.1:2", ENDPOINT_READY),
                                    spec_of("127.0.0.1:1", ENDPOINT_DRAINING)};
    struct endpoint_set *first = make_set(upstream, &one_key, specs, 4, NULL, 0);
    assert_int_equal(first->len, 3); /* the second of two equal ones is ignored */
    assert_string_equal(first->entries[0].endpoint->identity, "127.0.0.1:1");
    assert_int_equal(first->entries[0].state, ENDPOINT_READY);
    struct endpoint *kept = first->entries[1].endpoint;
    struct endpoint *gone = endpoint_ref(first->entries[0].endpoint);
    endpoint_begin_tunnel(kept);

    struct endpoint_spec next[] = {spec_of("127.0.0.1:4", ENDPOINT_READY),
                                   spec_of("127.0.0.1:2", ENDPOINT_DEGRADED),
                                   spec_of("127.0.0.1:3", ENDPOINT_READY)};
    const char *why;
    assert_true(address_parse(SLICE("127.0.0.9:3"), &next[2].who.address, &why));
    struct endpoint_set *second =
        make_set(upstream, &one_key, next, 3, first, SECONDS(1));
    assert_ptr_equal(second->learned, first->learned);
    const struct endpoint_entry *entry = endpoint_set_find(second, kept);
    assert_non_null(entry);
    assert_int_equal(entry->state, ENDPOINT_DEGRADED);
    assert_int_equal(endpoint_sessions(entry->endpoint, 0), 1);
    assert_null(endpoint_set_find(second, gone));
    /* the same identity at another address is another endpoint */
    assert_null(endpoint_set_find(second, first->entries[2].endpoint));
    assert_non_null(endpoint_set_find(first, first->entries[2].endpoint));
    endpoint_end_tunnel(kept);
    endpoint_set_unref(first);
    assert_int_equal(atomic_load(&gone->holders), 1);
    endpoint_unref(gone);
    endpoint_set_unref(second);
    assert_int_equal(atomic_load(&upstream->holders), 1);
    upstream_unref(upstream);
}

static void test_tags_of_gone_endpoints_are_tombstones_for_ten_minutes(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_spec specs[] = {spec_of("127.0.0.1:1", ENDPOINT_READY),
                                    spec_of("127.0.0.1:2", ENDPOINT_READY)};
    struct endpoint_set *first = make_set(upstream, &one_key, specs, 2, NULL, 0);
    uint64_t tag = first->entries[0].tags[0];
    const struct endpoint_entry *entry = NULL;
    assert_int_equal(endpoint_set_find_tag(first, 0, tag, 0, &entry), TAG_KNOWN);
    assert_ptr_equal(entry, &first->entries[0]);
    assert_int_equal(endpoint_set_find_tag(first, 0, tag + 1, 0, &entry), TAG_UNKNOWN);

    struct endpoint_set *second =
        make_set(upstream, &one_key, specs + 1, 1, first, SECONDS(5));
    assert_int_equal(endpoint_set_find_tag(second, 0, tag, SECONDS(6), &entry),
                     TAG_TOMBSTONE);
    assert_int_equal(endpoint_set_find_tag(second, 0, tag, SECONDS(5) + EXPIRED, &entry),
                     TAG_UNKNOWN);
    assert_int_equal(endpoint_set_tombstones(second, SECONDS(6)), 1);

    /* with a new first key the old key's tag is still a tombstone, at its new place */
    struct endpoint_set *third =
        make_set(upstream, &two_keys, specs + 1, 1, second, SECONDS(7));
    assert_int_equal(endpoint_set_find_tag(third, 1, tag, SECONDS(8), &entry),
                     TAG_TOMBSTONE);
    assert_int_equal(endpoint_set_find_tag(third, 0, tag, SECONDS(8), &entry),
                     TAG_UNKNOWN);
    assert_true(third->entries[0].tags[1] == second->entries[0].tags[0]);

    /* back again: alive, no tombstone; expired ones are not carried on */
    struct endpoint_set *fourth =
        make_set(upstream, &one_key, specs, 2, third, SECONDS(9));
    assert_int_equal(endpoint_set_find_tag(fourth, 0, tag, SECONDS(9), &entry),
                     TAG_KNOWN);
    assert_int_equal(endpoint_set_tombstones(fourth, SECONDS(9)), 0);
    struct endpoint_set *fifth =
        make_set(upstream, &one_key, specs + 1, 1, second, SECONDS(5) + EXPIRED);
    assert_int_equal(endpoint_set_tombstones(fifth, SECONDS(5)), 0);
    endpoint_set_unref(first);
    endpoint_set_unref(second);
    endpoint_set_unref(third);
    endpoint_set_unref(fourth);
    endpoint_set_unref(fifth);
    upstream_unref(upstream);
}

static void test_a_key_replaced_under_its_id_leaves_no_tombstones(void **state)
{
    (void)state;
    static const struct file_keys replaced = {.count = 2,
                                              .keys = {{'b', {3}}, {'a', {4}}}};
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_spec specs[8];
    char addresses[8][16];
    for (unsigned i = 0; i < 8; i++) {
        snprintf(addresses[i], sizeof(addresses[i]), "127.0.0.1:%u", i + 1);
        specs[i] = spec_of(addresses[i], ENDPOINT_READY);
    }
    struct endpoint_set *before = make_set(upstream, &two_keys, specs, 8, NULL, 0);
    for (unsigned i = 0; i < 4; i++) {
        struct endpoint_set *after = make_set(
            upstream, i % 2 == 0 ? &replaced : &two_keys, specs, 8, before, SECONDS(i));
        assert_int_equal(endpoint_set_tombstones(after, SECONDS(i)), 0);
        const struct endpoint_entry *entry = NULL;
        assert_int_equal(endpoint_set_find_tag(after, 0, before->entries[0].tags[0],
                                               SECONDS(i), &entry),
                         TAG_UNKNOWN);
        endpoint_set_unref(before);
        before = after;
    }
    endpoint_set_unref(before);
    upstream_unref(upstream);
}

static void test_tombstones_are_bounded_and_the_oldest_go(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    enum { BATCH = 3000, BATCHES = 4 };
    struct endpoint_spec *specs = must_calloc(BATCH, sizeof(*specs));
    char(*text)[32] = must_calloc(BATCH, sizeof(*text));
    struct endpoint_set *set = NULL;
    uint64_t tags[BATCHES] = {0};
    for (unsigned batch = 0; batch < BATCHES; batch++) {
        for (unsigned i = 0; i < BATCH; i++) {
            snprintf(text[i], sizeof(text[i]), "10.%u.%u.%u:1", batch, i / 256, i % 256);
            specs[i] = spec_of(text[i], ENDPOINT_READY);
        }
        struct endpoint_set *next =
            make_set(upstream, &one_key, specs, BATCH, set, SECONDS(batch));
        if (set != NULL)
            endpoint_set_unref(set);
        set = next;
        tags[batch] = set->entries[0].tags[0];
    }
    struct endpoint_set *last = make_set(upstream, &one_key, NULL, 0, set, SECONDS(5));
    assert_int_equal(endpoint_set_tombstones(last, SECONDS(5)), ENDPOINT_TOMBSTONES_MAX);
    const struct endpoint_entry *entry;
    assert_int_equal(endpoint_set_find_tag(last, 0, tags[0], SECONDS(5), &entry),
                     TAG_UNKNOWN);
    assert_int_equal(endpoint_set_find_tag(last, 0, tags[3], SECONDS(5), &entry),
                     TAG_TOMBSTONE);
    endpoint_set_unref(set);
    endpoint_set_unref(last);
    free(specs);
    free(text);
    upstream_unref(upstream);
}

/* Everything collides at the first attempt, and at the second for one identity. */
static uint64_t colliding_tag(const struct file_key *key, struct slice upstream,
                              struct slice identity, unsigned port, unsigned attempt)
{
    (void)upstream;
    (void)identity;
    return ((uint64_t)key->id << 32) + (attempt == 0 ? 1 : port * 100 + attempt);
}

static void test_of_colliding_tags_the_later_identity_is_hashed_again(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_spec specs[] = {spec_of("127.0.0.1:2", ENDPOINT_READY),
                                    spec_of("127.0.0.1:1", ENDPOINT_READY),
                                    spec_of("127.0.0.1:3", ENDPOINT_READY)};
    struct endpoint_set_options options = {.keys = &two_keys, .make_tag = colliding_tag};
    struct endpoint_set *set = endpoint_set_new(upstream, &options, specs, 3, NULL, 0);
    endpoint_set_check(set);
    assert_int_equal(endpoint_set_collisions(set), 4);
    assert_int_equal(set->entries[0].tags[0] & 0xffffffff, 1);
    assert_int_equal(set->entries[1].tags[0] & 0xffffffff, 201);
    assert_int_equal(set->entries[2].tags[0] & 0xffffffff, 301);
    /* without the first, the second has no collision: nothing is carried on from before */
    struct endpoint_spec later[] = {specs[0], specs[2]};
    struct endpoint_set *next =
        endpoint_set_new(upstream, &options, later, 2, set, SECONDS(1));
    endpoint_set_check(next);
    assert_int_equal(next->entries[0].tags[0] & 0xffffffff, 1);
    endpoint_set_unref(set);
    endpoint_set_unref(next);
    upstream_unref(upstream);
}

static void test_young_endpoints_warm_up_and_start_slowly(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_spec specs[] = {spec_of("127.0.0.1:1", ENDPOINT_READY),
                                    spec_of("127.0.0.1:2", ENDPOINT_READY)};
    specs[1].weight = 4;
    struct endpoint_set_options options = {
        .keys = &one_key, .place_after = SECONDS(2), .slow_start = SECONDS(100)};
    struct endpoint_set *first = endpoint_set_new(upstream, &options, specs, 1, NULL, 0);
    struct endpoint_set *second =
        endpoint_set_new(upstream, &options, specs, 2, first, SECONDS(10));
    const struct endpoint_entry *founder = &second->entries[0],
                                *newcomer = &second->entries[1];
    assert_int_equal(endpoint_entry_state(second, founder, 0), ENDPOINT_READY);
    assert_int_equal(endpoint_entry_state(second, newcomer, SECONDS(12) - 1),
                     ENDPOINT_WARMING);
    assert_int_equal(endpoint_entry_state(second, newcomer, SECONDS(12)), ENDPOINT_READY);
    assert_true(endpoint_entry_weight(second, founder, SECONDS(10)) == 1.0);
    assert_true(fabs(endpoint_entry_weight(second, newcomer, SECONDS(10)) - 0.4) < 1e-9);
    assert_true(fabs(endpoint_entry_weight(second, newcomer, SECONDS(60)) - 2.2) < 1e-9);
    assert_true(endpoint_entry_weight(second, newcomer, SECONDS(110)) == 4.0);
    endpoint_set_unref(first);
    endpoint_set_unref(second);
    upstream_unref(upstream);
}

static void test_placed_handshakes_count_for_ten_seconds(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_spec spec = spec_of("127.0.0.1:1", ENDPOINT_READY);
    struct endpoint *endpoint = endpoint_new(upstream, &spec.who, 0, true);
    unsigned naive[64] = {0};
    for (unsigned second = 0; second < 60; second++) {
        for (unsigned i = 0; i < (second * 7 + 3) % 5; i++) {
            endpoint_count_placed(endpoint, SECONDS(second) + i);
            naive[second]++;
        }
        unsigned sum = 0;
        for (unsigned back = 0; back < 10 && back <= second; back++)
            sum += naive[second - back];
        assert_int_equal(endpoint_placed(endpoint, SECONDS(second) + 999999), sum);
        assert_int_equal(endpoint_placed_this_second(endpoint, SECONDS(second) + 5),
                         naive[second]);
    }
    assert_int_equal(endpoint_placed(endpoint, SECONDS(75)), 0);
    endpoint_unref(endpoint);
    upstream_unref(upstream);
}

static void test_failures_in_a_row_make_suspect_and_one_success_ends_it(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_spec spec = spec_of("127.0.0.1:1", ENDPOINT_READY);
    struct endpoint *endpoint = endpoint_new(upstream, &spec.who, 0, true);
    uint64_t now = SECONDS(100);
    endpoint_note_failure(endpoint, now);
    endpoint_note_failure(endpoint, now);
    assert_false(endpoint_is_suspect(endpoint, now));
    endpoint_note_failure(endpoint, now);
    assert_true(endpoint_is_suspect(endpoint, now + SECONDS(1) - 1));
    assert_false(endpoint_is_suspect(endpoint, now + SECONDS(1)));
    /* one probe, then the others stay away until its result */
    endpoint_count_placed(endpoint, now + SECONDS(1));
    assert_true(endpoint_is_suspect(endpoint, now + SECONDS(1)));
    endpoint_note_failure(endpoint, now + SECONDS(1));
    assert_true(endpoint_is_suspect(endpoint, now + SECONDS(3) - 1));
    /* many connects that fail together are one failed probe */
    for (unsigned i = 0; i < 100; i++)
        endpoint_note_failure(endpoint, now + SECONDS(1));
    assert_false(endpoint_is_suspect(endpoint, now + SECONDS(3)));
    for (unsigned i = 0; i < 100; i++) {
        now += SECONDS(100);
        endpoint_count_placed(endpoint, now);
        endpoint_note_failure(endpoint, now);
    }
    assert_true(endpoint_is_suspect(endpoint, now + SECONDS(30) - 1));
    assert_false(endpoint_is_suspect(endpoint, now + SECONDS(30)));
    endpoint_note_success(endpoint);
    assert_false(endpoint_is_suspect(endpoint, now));
    endpoint_unref(endpoint);
    upstream_unref(upstream);
}

static void test_the_idle_limit_follows_the_longest_heartbeat(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    assert_int_equal(upstream_idle_limit(upstream), SECONDS(300));
    upstream_learn_heartbeat(upstream, SECONDS(5), SECONDS(4));
    assert_int_equal(upstream_idle_limit(upstream), SECONDS(60));
    upstream_learn_heartbeat(upstream, SECONDS(60), SECONDS(40));
    assert_int_equal(upstream_idle_limit(upstream), SECONDS(125));
    upstream_learn_heartbeat(upstream, SECONDS(25), SECONDS(20));
    assert_int_equal(upstream_idle_limit(upstream), SECONDS(125));
    assert_int_equal(upstream_learned_lifetime(upstream), SECONDS(200));
    upstream_learn_heartbeat(upstream, UINT64_MAX, UINT64_MAX);
    assert_int_equal(upstream_idle_limit(upstream), SECONDS(9000));
    upstream_unref(upstream);
}

static void test_cookies_of_ingress_nginx_name_their_endpoint(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_spec specs[] = {spec_of("10.0.0.1:5000", ENDPOINT_READY),
                                    spec_of("[fd00::1]:5000", ENDPOINT_READY)};
    struct endpoint_set_options options = {
        .keys = &one_key, .ingress_upstream_name = SLICE("prod-chat-5000")};
    struct endpoint_set *set = endpoint_set_new(upstream, &options, specs, 2, NULL, 0);
    /* md5("prod-chat-500010.0.0.1:5000"), md5("prod-chat-5000[fd00::1]:5000"),
     * md5(md5("prod-chat-5000") + "prod-chat-5000"), by another program */
    static const struct {
        const char *cookie;
        int place;
    } cases[] = {
        {"123f6b86890bea423589761afc1ede81", 0},
        {"c7859dabb4501611d33214e7ad00d5dc", 1},
        {"123f6b86890bea423589761afc1ede81|5f5c009191e7a83e5b7c78cc47a1cbb1", 0},
        {"123f6b86890bea423589761afc1ede81|", -1},
        {"123f6b86890bea423589761afc1ede81|123f6b86890bea423589761afc1ede81", -1},
        {"123F6B86890BEA423589761AFC1EDE81", -1},
        {"|5f5c009191e7a83e5b7c78cc47a1cbb1", -1},
        {"", -1},
        {"00000000000000000000000000000000", -1},
        {"123f6b86890bea423589761afc1ede810", -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct endpoint_entry *entry =
            endpoint_set_find_legacy(set, slice_from_text(cases[i].cookie));
        assert_ptr_equal(entry,
                         cases[i].place < 0 ? NULL : &set->entries[cases[i].place]);
    }
    endpoint_set_unref(set);
    upstream_unref(upstream);
}

/* A random walk against nothing but the invariants and a plain list. */
static void test_invariants_hold_over_a_random_walk(void **state)
{
    (void)state;
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_set *set = NULL;
    uint64_t random = 20;
    enum { NAMES = 40 };
    char names[NAMES][32];
    for (unsigned i = 0; i < NAMES; i++)
        snprintf(names[i], sizeof(names[i]), "10.0.0.%u:%u", i / 2, 5000 + i % 2);
    for (unsigned step = 0; step < 300; step++) {
        struct endpoint_spec specs[NAMES];
        size_t len = 0;
        for (unsigned i = 0; i < NAMES; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            if (random >> 62 != 0) {
                specs[len] = spec_of(names[i], (enum endpoint_state)((random >> 40) % 5));
                specs[len++].weight = (unsigned)(random >> 50) % 80;
            }
        }
        uint64_t now = SECONDS(step * 20);
        struct endpoint_set *next =
            make_set(upstream, random >> 63 ? &one_key : &two_keys, specs, len, set, now);
        assert_int_equal(next->len, len);
        for (size_t i = 0; set != NULL && i < set->len; i++) {
            const struct endpoint_entry *entry;
            size_t key = set->keys.count - 1, new_key = next->keys.count - 1;
            bool is_in = endpoint_set_find(next, set->entries[i].endpoint) != NULL;
            assert_int_equal(endpoint_set_find_tag(
                                 next, new_key, set->entries[i].tags[key], now, &entry),
                             is_in ? TAG_KNOWN : TAG_TOMBSTONE);
        }
        if (set != NULL)
            endpoint_set_unref(set);
        set = next;
    }
    endpoint_set_unref(set);
    assert_int_equal(atomic_load(&upstream->holders), 1);
    upstream_unref(upstream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endpoints_live_on_across_generations),
        cmocka_unit_test(test_tags_of_gone_endpoints_are_tombstones_for_ten_minutes),
        cmocka_unit_test(test_a_key_replaced_under_its_id_leaves_no_tombstones),
        cmocka_unit_test(test_tombstones_are_bounded_and_the_oldest_go),
        cmocka_unit_test(test_of_colliding_tags_the_later_identity_is_hashed_again),
        cmocka_unit_test(test_young_endpoints_warm_up_and_start_slowly),
        cmocka_unit_test(test_placed_handshakes_count_for_ten_seconds),
        cmocka_unit_test(test_failures_in_a_row_make_suspect_and_one_success_ends_it),
        cmocka_unit_test(test_the_idle_limit_follows_the_longest_heartbeat),
        cmocka_unit_test(test_cookies_of_ingress_nginx_name_their_endpoint),
        cmocka_unit_test(test_invariants_hold_over_a_random_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
