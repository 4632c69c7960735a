#include "tests/unit/unit.h"

#include "proxy/close_reason.h"

static void test_every_reason_has_a_word_and_a_sentence_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
        const struct close_reason_row *row = close_reason_get((enum close_reason)i);
        assert_true(strlen(row->word) > 0 && strlen(row->sentence) > 0);
        assert_ptr_equal(row->word, close_reason_words[i]);
        for (const char *c = row->word; *c != '\0'; c++)
            assert_true((*c >= 'a' && *c <= 'z') || *c == '_');
        assert_null(
            strpbrk(row->sentence, "\"\\\n")); /* they stand in JSON as they are */
        for (int k = 0; k < i; k++)
            assert_string_not_equal(row->word, close_reason_words[k]);
    }
}

static void test_every_status_that_is_sent_has_a_phrase(void **state)
{
    (void)state;
    for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
        int status = close_reason_get((enum close_reason)i)->status;
        if (status != 0)
            assert_string_not_equal("Error", close_reason_phrase(status));
    }
}

static void test_an_answer_with_an_error_status_is_an_error_except_shutdown(void **state)
{
    (void)state;
    for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
        const struct close_reason_row *row = close_reason_get((enum close_reason)i);
        if (row->status != 0 && i != CLOSE_SHUTDOWN)
            assert_int_equal(row->status >= 400, row->is_error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_reason_has_a_word_and_a_sentence_of_its_own),
        cmocka_unit_test(test_every_status_that_is_sent_has_a_phrase),
        cmocka_unit_test(test_an_answer_with_an_error_status_is_an_error_except_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
