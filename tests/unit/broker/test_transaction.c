/* What is queued after MULTI is a copy, bounded in bytes with what each request costs, and is given back whenever it ends. */
#include "tests/unit/unit.h"

#include "broker/transaction.h"

#include <stdio.h>
#include <stdlib.h>

static bool add(struct transaction *transaction, const char *word, size_t bytes_max)
{
    char *text = must_strdup(word);
    struct slice argv[2] = {slice_from_text(text), slice_of(NULL, 0)};
    bool is_added = transaction_add(transaction, NULL, 2, argv, bytes_max);
    explicit_bzero(text, strlen(text)); /* the input goes on */
    free(text);
    return is_added;
}

static void test_requests_are_copied_and_kept_in_order(void **state UNUSED)
{
    struct transaction *transaction = transaction_new();
    char word[16];
    for (int i = 0; i < 100; i++) {
        snprintf(word, sizeof(word), "word-%d", i);
        assert_true(add(transaction, word, 1 << 20));
    }
    for (int i = 0; i < 50; i++) {
        const struct queued_request *request = &transaction->requests[transaction->next];
        snprintf(word, sizeof(word), "word-%d", i);
        assert_true(slice_equals(slice_from_text(word), request->argv[0]));
        assert_int_equal(0, request->argv[1].len);
        transaction_done(transaction);
    }
    transaction_free(transaction); /* in the middle of an EXEC */
}

static void test_the_bound_counts_what_a_request_costs(void **state UNUSED)
{
    struct transaction *transaction = transaction_new();
    size_t count = 0;
    while (add(transaction, "x", 10000))
        count++;
    assert_true(count > 50 && count < 10000 / sizeof(struct queued_request));
    assert_true(transaction->bytes <= 10000);
    size_t bytes = transaction->bytes;
    assert_false(add(transaction, "x", 10000));
    assert_int_equal(bytes, transaction->bytes);
    transaction_abort(transaction);
    assert_true(transaction->is_aborted);
    assert_int_equal(0, transaction->bytes);
    assert_int_equal(0, transaction->count);
    transaction_free(transaction);
    transaction_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_are_copied_and_kept_in_order),
        cmocka_unit_test(test_the_bound_counts_what_a_request_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
