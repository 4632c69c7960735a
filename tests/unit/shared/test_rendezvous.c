/*
 * Proves that the ranking is a pure function of key and set, balanced, weighted, and that a change of the set
 * moves only what it must. The golden scores were computed apart from this code (XXH64 and fmix64 by hand).
 */
#include "tests/unit/unit.h"

#include "shared/rendezvous.h"

#include <stdio.h>

#define NAMES 20
#define KEYS  20000

static char texts[NAMES][16];
static struct slice names[NAMES];

static uint64_t key_of(unsigned i)
{
    char text[16];
    snprintf(text, sizeof(text), "key-%u", i);
    return rendezvous_key(slice_from_text(text));
}

static int make_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < NAMES; i++) {
        snprintf(texts[i], sizeof(texts[i]), "10.0.0.%zu:80", i);
        names[i] = slice_from_text(texts[i]);
    }
    return 0;
}

static void test_golden_ranking_never_changes(void **state)
{
    (void)state;
    const struct slice pods[] = {SLICE("pod-0"), SLICE("pod-1"), SLICE("pod-2"),
                                 SLICE("pod-3"), SLICE("pod-4")};
    struct rendezvous *rendezvous = rendezvous_new(pods, NULL, ARRAY_LEN(pods));
    static const struct {
        const char *key;
        size_t ranked[5];
    } golden[] = {
        {"", {2, 3, 4, 0, 1}},
        {"a", {4, 0, 1, 2, 3}},
        {"lobby", {4, 3, 2, 0, 1}},
        {"s:lobby", {3, 0, 1, 2, 4}},
        {"i:42", {0, 1, 4, 3, 2}},
        {"tenant-17", {1, 4, 3, 2, 0}},
        {"0123456789abcdef", {4, 0, 1, 3, 2}},
        {"\xc3\xa4", {2, 0, 3, 1, 4}},
    };
    assert_true(rendezvous_key(SLICE("")) == 0xef46db3751d8e999U); /* XXH64 of nothing */
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        size_t ranked[5];
        rendezvous_rank(rendezvous, rendezvous_key(slice_from_text(golden[i].key)),
                        ranked);
        assert_memory_equal(golden[i].ranked, ranked, sizeof(ranked));
    }
    rendezvous_free(rendezvous);
}

static void test_order_of_names_does_not_matter(void **state)
{
    (void)state;
    struct slice turned[NAMES];
    for (size_t i = 0; i < NAMES; i++)
        turned[i] = names[NAMES - 1 - i];
    struct rendezvous *one = rendezvous_new(names, NULL, NAMES);
    struct rendezvous *other = rendezvous_new(turned, NULL, NAMES);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(rendezvous_best(one, key_of(i)),
                         NAMES - 1 - rendezvous_best(other, key_of(i)));
    rendezvous_free(one);
    rendezvous_free(other);
}

static void test_removal_moves_only_the_keys_of_the_removed(void **state)
{
    (void)state;
    struct rendezvous *all = rendezvous_new(names, NULL, NAMES);
    struct rendezvous *less = rendezvous_new(names, NULL, NAMES - 1);
    size_t moved = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        size_t before[2];
        size_t after = rendezvous_best(less, key_of(i));
        assert_int_equal(2, rendezvous_pick_two(all, key_of(i), NULL, NULL, before));
        if (before[0] == NAMES - 1) {
            moved++;
            assert_int_equal(before[1], after); /* the second of the ranking takes over */
        } else {
            assert_int_equal(before[0], after);
        }
    }
    assert_in_range(moved, KEYS / NAMES * 8 / 10, KEYS / NAMES * 12 / 10);
    rendezvous_free(all);
    rendezvous_free(less);
}

static void test_keys_are_balanced_and_weights_are_kept(void **state)
{
    (void)state;
    unsigned weights[NAMES];
    size_t even[NAMES] = {0}, weighted[NAMES] = {0};
    unsigned total = 0;
    for (size_t i = 0; i < NAMES; i++)
        total += weights[i] = i % 2 == 0 ? 1 : 3;
    struct rendezvous *one = rendezvous_new(names, NULL, NAMES);
    struct rendezvous *other = rendezvous_new(names, weights, NAMES);
    for (unsigned i = 0; i < KEYS; i++) {
        even[rendezvous_best(one, key_of(i))]++;
        weighted[rendezvous_best(other, key_of(i))]++;
    }
    for (size_t i = 0; i < NAMES; i++) {
        size_t share = KEYS * weights[i] / total;
        assert_in_range(even[i], KEYS / NAMES * 85 / 100, KEYS / NAMES * 115 / 100);
        assert_in_range(weighted[i], share * 80 / 100, share * 120 / 100);
    }
    rendezvous_free(one);
    rendezvous_free(other);
}

struct refusal {
    uint32_t refused; /* bit i: name i */
};

static bool accept_not_refused(size_t index, void *argument)
{
    const struct refusal *refusal = argument;
    return (refusal->refused >> index & 1) == 0;
}

static void test_picks_agree_with_the_full_ranking(void **state)
{
    (void)state;
    unsigned weights[NAMES];
    for (size_t i = 0; i < NAMES; i++)
        weights[i] = 1 + i % 5;
    struct rendezvous *rendezvous = rendezvous_new(names, weights, NAMES);
    for (unsigned i = 0; i < 5000; i++) {
        uint64_t key = key_of(i);
        struct refusal refusal = {(uint32_t)key_of(i + 100000) &
                                  (uint32_t)key_of(i + 200000)};
        if (i % 3 == 0)
            refusal.refused |= (uint32_t)key_of(i + 300000);
        size_t ranked[NAMES], accepted[2], count = 0, best[2];
        rendezvous_rank(rendezvous, key, ranked);
        for (size_t r = 0; r < NAMES && count < 2; r++)
            if (accept_not_refused(ranked[r], &refusal))
                accepted[count++] = ranked[r];
        assert_int_equal(ranked[0], rendezvous_best(rendezvous, key));
        assert_int_equal(count > 0 ? accepted[0] : RENDEZVOUS_NONE,
                         rendezvous_pick(rendezvous, key, accept_not_refused, &refusal));
        assert_int_equal(count, rendezvous_pick_two(rendezvous, key, accept_not_refused,
                                                    &refusal, best));
        for (size_t r = 0; r < count; r++)
            assert_int_equal(accepted[r], best[r]);
    }
    rendezvous_free(rendezvous);
}

static void test_nothing_to_choose_from_gives_none(void **state)
{
    (void)state;
    struct rendezvous *nobody = rendezvous_new(names, NULL, 0);
    struct rendezvous *one = rendezvous_new(names, NULL, 1);
    struct refusal all = {UINT32_MAX};
    size_t best[2];
    assert_int_equal(RENDEZVOUS_NONE, rendezvous_best(nobody, 1));
    assert_int_equal(RENDEZVOUS_NONE, rendezvous_pick(one, 1, accept_not_refused, &all));
    assert_int_equal(0, rendezvous_pick_two(one, 1, accept_not_refused, &all, best));
    assert_int_equal(1, rendezvous_pick_two(one, 1, NULL, NULL, best));
    rendezvous_free(nobody);
    rendezvous_free(one);
}

static void test_equal_names_go_to_the_lower_index(void **state)
{
    (void)state;
    const struct slice twins[] = {SLICE("twin"), SLICE("twin")};
    struct rendezvous *rendezvous = rendezvous_new(twins, NULL, 2);
    size_t ranked[2];
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(0, rendezvous_best(rendezvous, key_of(i)));
        rendezvous_rank(rendezvous, key_of(i), ranked);
        assert_int_equal(0, ranked[0]);
        assert_int_equal(1, ranked[1]);
    }
    rendezvous_free(rendezvous);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_ranking_never_changes),
        cmocka_unit_test(test_order_of_names_does_not_matter),
        cmocka_unit_test(test_removal_moves_only_the_keys_of_the_removed),
        cmocka_unit_test(test_keys_are_balanced_and_weights_are_kept),
        cmocka_unit_test(test_picks_agree_with_the_full_ranking),
        cmocka_unit_test(test_nothing_to_choose_from_gives_none),
        cmocka_unit_test(test_equal_names_go_to_the_lower_index),
    };
    return cmocka_run_group_tests(tests, make_names, NULL);
}
