/*
 * Proves that what a pod publishes on one connection is known on its others, that a name is never overruled, and that who
 * cannot be told apart is given what all read while several dialects come from there.
 */
#include "tests/unit/unit.h"

#include "broker/dialect_book.h"
#include "shared/timing.h"

#include <stdio.h>

#define BARE "{\"method\":\"emit\",\"data\":\"x\"}"
#define LIST "{\"method\":\"emit\",\"data\":[1]}"
#define PICKLE                                                                           \
    "\x80\x04}\x8c\x06method\x8c\x04"                                                    \
    "emits."

static struct scan_scratch *scratch;
static struct dialect_book *book;

static struct message scan(const char *payload)
{
    struct message message;
    message_scan(slice_from_text(payload), &message_policy_default, scratch, &message);
    return message;
}

static struct dialect_view attached(const char *key, bool is_shared)
{
    struct dialect_view view;
    dialect_view_init(&view);
    dialect_view_attach(&view, book, key, is_shared);
    return view;
}

static void publish(struct dialect_view *view, const char *payload, uint64_t now)
{
    struct message message = scan(payload);
    dialect_view_learn(view, &message, now);
}

static void assert_given(const struct dialect_view *view, enum message_dialect dialect,
                         enum dialect_basis basis)
{
    struct dialect_guess given = dialect_view_given(view);
    assert_int_equal(dialect, given.dialect);
    assert_int_equal(basis, given.basis);
}

static void assert_read(const struct dialect_view *view, const char *payload,
                        enum message_dialect dialect, enum dialect_basis basis)
{
    struct message message = scan(payload);
    enum dialect_basis told;
    assert_int_equal(dialect, dialect_view_read(view, &message, &told));
    assert_int_equal(basis, told);
}

static void test_what_a_pod_publishes_is_known_on_its_other_connections(void **state)
{
    (void)state;
    struct dialect_view publisher = attached("name:web-1", false);
    struct dialect_view subscriber = attached("name:web-1", false);
    struct dialect_view other = attached("name:web-2", false);
    assert_given(&subscriber, DIALECT_JSON14, DIALECT_UNKNOWN);
    publish(&publisher, LIST, SECONDS(1));
    assert_given(&subscriber, DIALECT_JSON15, DIALECT_ASSUMED);
    publish(&publisher, BARE, SECONDS(1));
    assert_given(&subscriber, DIALECT_JSON14, DIALECT_PROVEN);
    assert_read(&subscriber, LIST, DIALECT_JSON14, DIALECT_PROVEN);
    assert_given(&other, DIALECT_JSON14, DIALECT_UNKNOWN);
    assert_read(&other, LIST, DIALECT_JSON15, DIALECT_ASSUMED);
    dialect_view_detach(&publisher);
    dialect_view_detach(&subscriber);
    dialect_view_detach(&other);
}

static void test_what_is_known_outlives_the_connections(void **state)
{
    (void)state;
    struct dialect_view view = attached("name:web-3", false);
    publish(&view, PICKLE, SECONDS(1));
    dialect_view_detach(&view);
    assert_given(&view, DIALECT_JSON14, DIALECT_UNKNOWN);
    view = attached("name:web-3", false);
    assert_given(&view, DIALECT_PICKLE, DIALECT_PROVEN);
    dialect_view_detach(&view);
}

static void test_a_name_is_never_overruled(void **state)
{
    (void)state;
    struct dialect_view view = attached("name:web-4", false);
    publish(&view, PICKLE, SECONDS(1));
    dialect_view_name(&view, DIALECT_JSON15);
    publish(&view, PICKLE, SECONDS(1));
    publish(&view, BARE, SECONDS(1));
    assert_given(&view, DIALECT_JSON15, DIALECT_NAMED);
    assert_read(&view, LIST, DIALECT_JSON15, DIALECT_NAMED);
    assert_read(&view, BARE, DIALECT_JSON15, DIALECT_NAMED);
}

/* Data in a list, published under the host_id of which a client manager named its dialect. */
static void test_what_a_manager_named_holds_for_all_that_has_its_host_id(void **state)
{
    (void)state;
    static const uint8_t host_id[ENVELOPE_HOST_ID_LEN] = {1};
    static const char own[] = "{\"method\":\"emit\",\"data\":[1],\"host_id\":"
                              "\"01000000000000000000000000000000\"}";
    static const char other[] = "{\"method\":\"emit\",\"data\":[1],\"host_id\":"
                                "\"02000000000000000000000000000000\"}";
    struct dialect_view publishing = attached("at:127.0.0.9", true);
    struct dialect_view manager = attached("at:127.0.0.9", true);
    publish(&publishing, LIST, SECONDS(1));
    assert_read(&publishing, own, DIALECT_JSON15, DIALECT_ASSUMED);
    dialect_view_name_host(&manager, book, host_id, DIALECT_JSON14);
    assert_given(&manager, DIALECT_JSON14, DIALECT_NAMED);
    assert_read(&publishing, own, DIALECT_JSON14, DIALECT_NAMED);
    assert_read(&publishing, other, DIALECT_JSON15, DIALECT_ASSUMED);
    dialect_view_detach(&manager);
    assert_read(&publishing, own, DIALECT_JSON14, DIALECT_NAMED);
    dialect_view_detach(&publishing);
}

static void test_a_mixture_is_given_what_all_read_until_it_is_over(void **state)
{
    (void)state;
    struct dialect_view old = attached("at:127.0.0.1", true);
    struct dialect_view new = attached("at:127.0.0.1", true);
    struct dialect_view silent = attached("at:127.0.0.1", true);
    publish(&old, PICKLE, SECONDS(1));
    assert_given(&silent, DIALECT_PICKLE, DIALECT_PROVEN);
    publish(&new, LIST, SECONDS(2));
    assert_given(&silent, DIALECT_JSON14, DIALECT_ASSUMED);
    assert_given(&old, DIALECT_JSON14, DIALECT_ASSUMED);
    /* what it published itself tells how to read it */
    assert_read(&new, LIST, DIALECT_JSON15, DIALECT_ASSUMED);
    publish(&new, LIST, SECONDS(62));
    assert_given(&silent, DIALECT_JSON15, DIALECT_ASSUMED);
    dialect_view_detach(&old);
    dialect_view_detach(&new);
    dialect_view_detach(&silent);
}

static void
test_pods_without_a_client_are_forgotten_the_longest_unused_first(void **state)
{
    (void)state;
    char key[32];
    struct dialect_view kept = attached("name:kept", false);
    for (int i = 0; i < 10000; i++) {
        snprintf(key, sizeof(key), "name:%d", i);
        struct dialect_view view = attached(key, false);
        publish(&view, PICKLE, SECONDS(1));
        dialect_view_detach(&view);
    }
    assert_int_equal(4097, dialect_book_count(book));
    struct dialect_view last = attached("name:9999", false);
    struct dialect_view first = attached("name:0", false);
    assert_given(&last, DIALECT_PICKLE, DIALECT_PROVEN);
    assert_given(&first, DIALECT_JSON14, DIALECT_UNKNOWN);
    dialect_view_detach(&last);
    dialect_view_detach(&first);
    dialect_view_detach(&kept);
}

static int set_up(void **state)
{
    (void)state;
    scratch = scan_scratch_new();
    book = dialect_book_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dialect_book_free(book);
    scan_scratch_free(scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_pod_publishes_is_known_on_its_other_connections),
        cmocka_unit_test(test_what_is_known_outlives_the_connections),
        cmocka_unit_test(test_a_name_is_never_overruled),
        cmocka_unit_test(test_what_a_manager_named_holds_for_all_that_has_its_host_id),
        cmocka_unit_test(test_a_mixture_is_given_what_all_read_until_it_is_over),
        cmocka_unit_test(
            test_pods_without_a_client_are_forgotten_the_longest_unused_first),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
