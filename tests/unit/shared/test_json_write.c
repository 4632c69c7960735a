/* Proves that what is written is JSON whatever bytes go in. */
#include "tests/unit/unit.h"

#include "shared/json_write.h"

#include <event2/buffer.h>
#include <math.h>
#include <stdlib.h>

static void expect_and_free(struct evbuffer *out, const char *expected)
{
    size_t len = evbuffer_get_length(out);
    char *text = must_memdup(evbuffer_pullup(out, -1), len);
    assert_string_equal(expected, text);
    free(text);
    evbuffer_free(out);
}

static void test_commas_stand_between_members_only(void **state)
{
    (void)state;
    struct json_writer json;
    struct evbuffer *out = evbuffer_new();
    json_init(&json, out);
    json_object_begin(&json, NULL);
    json_array_begin(&json, "empty");
    json_array_end(&json);
    json_array_begin(&json, "list");
    json_number(&json, NULL, INT64_MIN);
    json_object_begin(&json, NULL);
    json_bool(&json, "yes", true);
    json_null(&json, "none");
    json_object_end(&json);
    json_unsigned(&json, NULL, UINT64_MAX);
    json_array_end(&json);
    json_decimal(&json, "d", 1.5);
    json_decimal(&json, "nan", NAN);
    json_text(&json, "t", SLICE("x"));
    json_object_end(&json);
    expect_and_free(out, "{\"empty\":[],\"list\":[-9223372036854775808,{\"yes\":true,"
                         "\"none\":null},18446744073709551615],\"d\":1.5,\"nan\":null,"
                         "\"t\":\"x\"}");
}

static void test_any_bytes_become_a_valid_string(void **state)
{
    (void)state;
    struct evbuffer *out = evbuffer_new();
    json_write_quoted(out, SLICE("a\"b\\c\n\x01\x7f"
                                 "\xc3\xa4\xf0\x9f\x98\x80|\xc3|\xed\xa0\x80|\xff\0z"));
    expect_and_free(out, "\"a\\\"b\\\\c\\n\\u0001\\u007f\xc3\xa4\xf0\x9f\x98\x80|\\ufffd|"
                         "\\ufffd\\ufffd\\ufffd|\\ufffd\\u0000z\"");
    out = evbuffer_new();
    json_write_quoted(out, SLICE(""));
    expect_and_free(out, "\"\"");
}

static void test_text_is_not_read_past_its_end(void **state)
{
    (void)state;
    const char *texts[] = {"", "a", "\xc3", "\xf0\x9f\x98", "ab\xe2\x82"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        size_t len = strlen(texts[i]);
        char *copy = guarded_copy(texts[i], len);
        struct evbuffer *out = evbuffer_new();
        json_write_quoted(out, slice_of(copy, len));
        evbuffer_free(out);
        guarded_free(copy, len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commas_stand_between_members_only),
        cmocka_unit_test(test_any_bytes_become_a_valid_string),
        cmocka_unit_test(test_text_is_not_read_past_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
