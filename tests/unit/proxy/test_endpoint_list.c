#include "tests/unit/unit.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/endpoint_list.h"

#include <stdio.h>
#include <stdlib.h>

static struct endpoint_spec spec(const char *id, const char *address,
                                 enum endpoint_state state)
{
    const char *why;
    struct endpoint_spec made = {
        .who = {.identity = slice_from_text(id),
                .label = slice_from_text(id),
                .address_text = slice_from_text(address)},
        .state = state,
        .weight = 1,
    };
    assert_true(address_parse(made.who.address_text, &made.who.address, &why));
    made.who.port = address_port(&made.who.address);
    return made;
}

#define A(state) spec("a", "10.0.0.1:1", (state))
#define B(state) spec("b", "10.0.0.2:1", (state))

static const struct endpoint_list_options plain = {.absence = SECONDS(1)};

/* "a=ready b=draining" */
static const char *show(const struct endpoint_list *list)
{
    static char text[512];
    size_t len, at = 0;
    const struct endpoint_spec *specs = endpoint_list_specs(list, &len);
    endpoint_list_check(list);
    text[0] = '\0';
    for (size_t i = 0; i < len; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%.*s=%s", i > 0 ? " " : "",
                               SLICE_ARGS(specs[i].who.identity),
                               endpoint_state_word(specs[i].state));
    return text;
}

static void apply2(struct endpoint_list *list, struct endpoint_spec one,
                   struct endpoint_spec other, uint64_t now)
{
    struct endpoint_spec specs[2] = {one, other};
    endpoint_list_apply(list, specs, 2, now);
    endpoint_list_tick(list, now);
}

static void apply1(struct endpoint_list *list, struct endpoint_spec one, uint64_t now)
{
    endpoint_list_apply(list, &one, 1, now);
    endpoint_list_tick(list, now);
}

static void test_an_endpoint_that_is_vanished_for_a_moment_never_was_gone(void **state)
{
    (void)state;
    struct endpoint_list *list = endpoint_list_new("chat", &plain);
    apply2(list, B(ENDPOINT_READY), A(ENDPOINT_READY), SECONDS(10));
    assert_string_equal(show(list), "a=ready b=ready");
    assert_true(endpoint_list_take_changed(list));
    apply1(list, A(ENDPOINT_READY), SECONDS(20));
    assert_string_equal(show(list), "a=ready b=ready");
    assert_int_equal(endpoint_list_tick(list, SECONDS(20) + 999999), SECONDS(21));
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(20) + 999999);
    assert_int_equal(endpoint_list_tick(list, SECONDS(30)), UINT64_MAX);
    assert_false(endpoint_list_take_changed(list));
    apply1(list, A(ENDPOINT_READY), SECONDS(40));
    assert_int_equal(endpoint_list_tick(list, SECONDS(41)), UINT64_MAX);
    assert_string_equal(show(list), "a=ready");
    assert_true(endpoint_list_take_changed(list));
    endpoint_list_free(list);
}

static void test_another_at_the_address_of_an_absent_one_ends_it_at_once(void **state)
{
    (void)state;
    struct endpoint_list *list = endpoint_list_new("chat", &plain);
    apply1(list, A(ENDPOINT_READY), SECONDS(10));
    apply1(list, spec("new", "10.0.0.1:1", ENDPOINT_READY), SECONDS(11));
    assert_string_equal(show(list), "new=ready");
    endpoint_list_free(list);
}

static void test_verdicts_turn_ready_into_degraded_and_back_and_nothing_else(void **state)
{
    (void)state;
    struct endpoint_list *list = endpoint_list_new("chat", &plain);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_DRAINING), 1);
    endpoint_list_take_changed(list);
    endpoint_list_set_verdict(list, SLICE("a"), 1, false);
    endpoint_list_set_verdict(list, SLICE("b"), 1, false);
    endpoint_list_set_verdict(list, SLICE("c"), 1, false);
    assert_string_equal(show(list), "a=degraded b=draining");
    assert_true(endpoint_list_take_changed(list));
    /* the source's word does not end it; a b that is ready again still fails */
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), 2);
    assert_string_equal(show(list), "a=degraded b=degraded");
    endpoint_list_set_verdict(list, SLICE("a"), 1, true);
    endpoint_list_set_verdict(list, SLICE("b"), 1, true);
    assert_string_equal(show(list), "a=ready b=ready");
    apply2(list, A(ENDPOINT_DEGRADED), B(ENDPOINT_CLOSING), 3);
    endpoint_list_set_verdict(list, SLICE("a"), 1, true);
    assert_string_equal(show(list), "a=degraded b=closing");
    endpoint_list_free(list);
}

static void test_vanished_ones_drain_while_they_accept(void **state)
{
    (void)state;
    struct endpoint_list_options options = {.absence = SECONDS(1),
                                            .vanished = SECONDS(20)};
    struct endpoint_list *list = endpoint_list_new("chat", &options);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(10));
    apply1(list, A(ENDPOINT_READY), SECONDS(20));
    assert_int_equal(endpoint_list_tick(list, SECONDS(21)), SECONDS(41));
    assert_string_equal(show(list), "a=ready b=draining");
    assert_true(endpoint_list_is_vanished(list, 1));
    endpoint_list_set_refusing(list, SLICE("a"), 1); /* is listed: says nothing */
    endpoint_list_set_refusing(list, SLICE("b"), 1);
    endpoint_list_tick(list, SECONDS(22));
    assert_string_equal(show(list), "a=ready");
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(30));
    apply1(list, A(ENDPOINT_READY), SECONDS(40));
    endpoint_list_tick(list, SECONDS(60));
    assert_string_equal(show(list), "a=ready b=draining");
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(60));
    assert_string_equal(show(list), "a=ready b=ready");
    apply1(list, A(ENDPOINT_READY), SECONDS(70));
    endpoint_list_tick(list, SECONDS(91));
    assert_string_equal(show(list), "a=ready");
    endpoint_list_free(list);
}

static void test_an_empty_list_is_held(void **state)
{
    (void)state;
    struct endpoint_list_options options = {.absence = SECONDS(1),
                                            .empty_hold = SECONDS(30)};
    struct endpoint_list *list = endpoint_list_new("chat", &options);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_CLOSING), SECONDS(10));
    endpoint_list_apply(list, NULL, 0, SECONDS(20));
    endpoint_list_tick(list, SECONDS(21));
    assert_string_equal(show(list), "a=draining");
    apply1(list, B(ENDPOINT_READY), SECONDS(30)); /* not empty any more: no hold */
    assert_string_equal(show(list), "b=ready");
    endpoint_list_apply(list, NULL, 0, SECONDS(40));
    assert_int_equal(endpoint_list_tick(list, SECONDS(70)), SECONDS(71));
    assert_string_equal(show(list), "b=draining");
    assert_int_equal(endpoint_list_tick(list, SECONDS(71)), UINT64_MAX);
    assert_string_equal(show(list),
                        "b=closing"); /* no new sessions, for as long as it accepts */
    endpoint_list_set_refusing(list, SLICE("b"), 1);
    endpoint_list_tick(list, SECONDS(72));
    assert_string_equal(show(list), "");
    endpoint_list_free(list);
}

static bool keeps(const struct endpoint_list *list, size_t place)
{
    size_t len;
    const struct endpoint_spec *specs = endpoint_list_specs(list, &len);
    assert_true(place < len);
    return specs[place].keeps_tunnels;
}

static const struct endpoint_list_options held = {
    .absence = SECONDS(1), .empty_hold = SECONDS(30), .farewell = SECONDS(22)};

static void test_absent_ones_keep_their_tunnels_until_another_takes_sessions(void **state)
{
    (void)state;
    for (int hold = 0; hold < 2; hold++) { /* within empty_hold, and behind it */
        struct endpoint_list *list = endpoint_list_new("chat", &held);
        apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(10));
        endpoint_list_apply(list, NULL, 0, SECONDS(20));
        endpoint_list_tick(list, SECONDS(20));
        assert_false(keeps(list, 0) || keeps(list, 1)); /* nothing has happened yet */
        endpoint_list_tick(list, SECONDS(21));
        assert_string_equal(show(list), "a=draining b=draining");
        assert_true(keeps(list, 0) && keeps(list, 1));
        uint64_t now = SECONDS(hold == 0 ? 30 : 300);
        endpoint_list_tick(list, now);
        assert_string_equal(show(list),
                            hold == 0 ? "a=draining b=draining" : "a=closing b=closing");
        assert_true(keeps(list, 0) && keeps(list, 1));
        endpoint_list_take_changed(list);
        endpoint_list_set_refusing(list, SLICE("b"), 1); /* that one dies meanwhile */
        endpoint_list_tick(list, now);
        assert_true(keeps(list, 0));
        struct endpoint_spec other = spec("c", "10.0.0.3:1", ENDPOINT_DEGRADED);
        endpoint_list_apply(list, &other, 1, now);
        assert_int_equal(endpoint_list_tick(list, now), now + SECONDS(22));
        assert_string_equal(show(list), "a=draining c=degraded");
        assert_false(keeps(list, 0));
        assert_true(endpoint_list_take_changed(list));
        endpoint_list_tick(list, now + SECONDS(22));
        assert_string_equal(show(list), "c=degraded");
        endpoint_list_free(list);
    }
}

static void test_only_what_passes_its_checks_takes_sessions(void **state)
{
    (void)state;
    struct endpoint_list_options checked = held;
    checked.is_checked = true;
    struct endpoint_list *list = endpoint_list_new("chat", &checked);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_DRAINING), SECONDS(10));
    endpoint_list_tick(list, SECONDS(10));
    assert_true(keeps(list, 1)); /* it may never accept */
    endpoint_list_set_verdict(list, SLICE("a"), 1, true);
    endpoint_list_tick(list, SECONDS(11));
    assert_false(keeps(list, 1));
    endpoint_list_set_verdict(list, SLICE("a"), 1, false);
    endpoint_list_tick(list, SECONDS(12));
    assert_string_equal(show(list), "a=degraded b=draining");
    assert_true(keeps(list, 1));
    endpoint_list_set_verdict(list, SLICE("a"), 1, true);
    endpoint_list_tick(list, SECONDS(13));
    assert_false(keeps(list, 1));
    checked.is_checked = false; /* by a reload */
    endpoint_list_set_verdict(list, SLICE("a"), 1, false);
    endpoint_list_set_options(list, &checked);
    endpoint_list_tick(list, SECONDS(14));
    assert_false(keeps(list, 1));
    endpoint_list_free(list);
}

static void test_listed_ones_that_drain_keep_theirs_until_another_takes_them(void **state)
{
    (void)state;
    struct endpoint_list *list = endpoint_list_new("chat", &held);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_DRAINING), SECONDS(10));
    assert_false(keeps(list, 1));
    apply2(list, A(ENDPOINT_DRAINING), B(ENDPOINT_CLOSING), SECONDS(11));
    assert_true(keeps(list, 0) && keeps(list, 1));
    struct endpoint_spec closed = A(ENDPOINT_READY);
    closed.weight = 0; /* takes none */
    apply2(list, closed, B(ENDPOINT_DRAINING), SECONDS(12));
    assert_true(keeps(list, 1) && !keeps(list, 0));
    /* an operator's word counts: the drain of all is carried out, of one too */
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(13));
    endpoint_list_drain(list, SLICE("b"), true);
    apply2(list, A(ENDPOINT_DRAINING), B(ENDPOINT_READY), SECONDS(14));
    assert_string_equal(show(list), "a=draining b=draining");
    assert_true(keeps(list, 0) && !keeps(list, 1));
    endpoint_list_drain_all(list, true);
    endpoint_list_tick(list, SECONDS(15));
    assert_true(!keeps(list, 0) && !keeps(list, 1));
    endpoint_list_free(list);
}

static void test_a_moment_of_absence_neither_stops_nor_begins_a_drain(void **state)
{
    (void)state;
    struct endpoint_list *list = endpoint_list_new("chat", &held);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_DRAINING), SECONDS(10));
    endpoint_list_take_changed(list);
    apply1(list, B(ENDPOINT_DRAINING), SECONDS(11));
    endpoint_list_tick(list, SECONDS(12) - 1);
    assert_false(keeps(list, 1));
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_DRAINING), SECONDS(12) - 1);
    assert_false(endpoint_list_take_changed(list));
    apply1(list, B(ENDPOINT_DRAINING), SECONDS(13));
    endpoint_list_tick(list, SECONDS(14));
    assert_true(keeps(list, 0) && keeps(list, 1));
    endpoint_list_free(list);
}

static void test_new_words_about_a_known_endpoint_are_taken(void **state)
{
    (void)state;
    struct endpoint_list *list = endpoint_list_new("chat", &plain);
    apply1(list, A(ENDPOINT_READY), 1);
    endpoint_list_take_changed(list);
    struct endpoint_spec heavier = A(ENDPOINT_READY);
    heavier.weight = 7;
    apply1(list, heavier, 2);
    size_t len;
    assert_int_equal(endpoint_list_specs(list, &len)->weight, 7);
    assert_true(endpoint_list_take_changed(list));
    apply2(list, heavier, A(ENDPOINT_DRAINING), 3); /* of equal ones the first counts */
    assert_false(endpoint_list_take_changed(list));
    endpoint_list_free(list);
}

/* Random lists against a model: who was listed last and when says who is there. */
static void test_a_random_history_leaves_exactly_those_not_absent_too_long(void **state)
{
    (void)state;
    srandom(7);
    enum { NAMES = 12 };
    struct endpoint_list *list = endpoint_list_new("chat", &plain);
    uint64_t last[NAMES] = {0}, now = SECONDS(100);
    bool listed[NAMES] = {false};
    for (int round = 0; round < 3000; round++) {
        char ids[NAMES][8], addresses[NAMES][24];
        struct endpoint_spec specs[NAMES + 1];
        size_t len = 0;
        now += (uint64_t)(random() % 700000) + 1;
        endpoint_list_tick(list, now); /* those whose second is over go first */
        for (int i = 0; i < NAMES; i++) {
            if (listed[i])
                last[i] = now;
            bool was_gone = last[i] + SECONDS(1) <= now;
            listed[i] = random() % 3 > 0;
            if (was_gone && !listed[i])
                last[i] = 0;
            if (!listed[i])
                continue;
            snprintf(ids[i], sizeof ids[i], "n%d", i);
            snprintf(addresses[i], sizeof addresses[i], "10.0.1.%d:80", i);
            specs[len++] = spec(ids[i], addresses[i],
                                random() % 4 > 0 ? ENDPOINT_READY : ENDPOINT_DRAINING);
            last[i] = now;
        }
        specs[len++] = spec("home", "10.0.2.1:80", ENDPOINT_READY);
        endpoint_list_apply(list, specs, len, now);
        endpoint_list_tick(list, now);
        endpoint_list_check(list);
        size_t wanted = 1, found;
        for (int i = 0; i < NAMES; i++)
            wanted += last[i] != 0 && last[i] + SECONDS(1) > now;
        endpoint_list_specs(list, &found);
        assert_int_equal(found, wanted);
    }
    endpoint_list_free(list);
}

static void
test_an_order_to_drain_beats_what_is_listed_until_it_is_taken_back(void **state)
{
    (void)state;
    struct endpoint_list *list = endpoint_list_new("chat", &plain);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(10));
    assert_int_equal(endpoint_list_drain(list, SLICE("c"), true), 0);
    assert_true(endpoint_list_take_changed(list));
    assert_int_equal(endpoint_list_drain(list, SLICE("10.0.0.1:1"), true), 1);
    assert_string_equal(show(list), "a=draining b=ready");
    assert_true(endpoint_list_take_changed(list));
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(11));
    endpoint_list_set_verdict(list, SLICE("a"), 1, false);
    assert_string_equal(show(list), "a=draining b=ready");
    assert_false(endpoint_list_take_changed(list));

    apply1(list, B(ENDPOINT_READY), SECONDS(12));
    endpoint_list_tick(list, SECONDS(14));
    assert_string_equal(show(list), "b=ready");
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_CLOSING), SECONDS(15));
    assert_string_equal(show(list), "a=draining b=closing");
    assert_true(endpoint_list_drain(list, SLICE("a"), false) > 0);
    assert_string_equal(show(list), "a=ready b=closing");

    endpoint_list_drain(list, SLICE("a"), true);
    apply1(list, B(ENDPOINT_READY), SECONDS(16));
    endpoint_list_tick(list, SECONDS(18));
    assert_int_equal(endpoint_list_drain(list, SLICE("a"), false), 1);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_READY), SECONDS(19));
    assert_string_equal(show(list), "a=ready b=ready");
    endpoint_list_free(list);
}

static void test_an_order_for_all_holds_for_endpoints_to_come(void **state)
{
    (void)state;
    struct endpoint_list *list = endpoint_list_new("chat", &plain);
    apply1(list, A(ENDPOINT_READY), SECONDS(10));
    endpoint_list_drain(list, SLICE("a"), true);
    endpoint_list_drain_all(list, true);
    apply2(list, A(ENDPOINT_READY), B(ENDPOINT_DEGRADED), SECONDS(11));
    assert_string_equal(show(list), "a=draining b=draining");
    endpoint_list_drain_all(list, false);
    assert_string_equal(show(list), "a=ready b=degraded");
    endpoint_list_free(list);
}

static void test_an_ordered_weight_beats_the_listed_one(void **state)
{
    (void)state;
    size_t len;
    struct endpoint_list *list = endpoint_list_new("chat", &plain);
    apply1(list, A(ENDPOINT_READY), SECONDS(10));
    assert_int_equal(endpoint_list_weigh(list, SLICE("a"), 0), 1);
    assert_int_equal(endpoint_list_specs(list, &len)[0].weight, 0);
    assert_true(endpoint_list_specs(list, &len)[0].is_ordered);
    endpoint_list_take_changed(list);
    struct endpoint_spec heavier = A(ENDPOINT_READY);
    heavier.weight = 7;
    apply1(list, heavier, SECONDS(11));
    assert_int_equal(endpoint_list_specs(list, &len)[0].weight, 0);
    assert_false(endpoint_list_take_changed(list));
    endpoint_list_weigh(list, SLICE("a"), -1);
    assert_int_equal(endpoint_list_specs(list, &len)[0].weight, 7);
    assert_false(endpoint_list_specs(list, &len)[0].is_ordered);
    assert_true(endpoint_list_take_changed(list));
    endpoint_list_free(list);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_endpoint_that_is_vanished_for_a_moment_never_was_gone),
        cmocka_unit_test(test_another_at_the_address_of_an_absent_one_ends_it_at_once),
        cmocka_unit_test(
            test_verdicts_turn_ready_into_degraded_and_back_and_nothing_else),
        cmocka_unit_test(test_vanished_ones_drain_while_they_accept),
        cmocka_unit_test(test_an_empty_list_is_held),
        cmocka_unit_test(
            test_absent_ones_keep_their_tunnels_until_another_takes_sessions),
        cmocka_unit_test(test_only_what_passes_its_checks_takes_sessions),
        cmocka_unit_test(
            test_listed_ones_that_drain_keep_theirs_until_another_takes_them),
        cmocka_unit_test(test_a_moment_of_absence_neither_stops_nor_begins_a_drain),
        cmocka_unit_test(test_new_words_about_a_known_endpoint_are_taken),
        cmocka_unit_test(test_a_random_history_leaves_exactly_those_not_absent_too_long),
        cmocka_unit_test(
            test_an_order_to_drain_beats_what_is_listed_until_it_is_taken_back),
        cmocka_unit_test(test_an_order_for_all_holds_for_endpoints_to_come),
        cmocka_unit_test(test_an_ordered_weight_beats_the_listed_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
