/*
 * Proves that JSON is taken exactly as Python's json.loads takes it, down to NaN and lone surrogates, and
 * that cut, trailing and nested hostility ends the scan.
 */
#include "tests/unit/unit.h"

#include "broker/json_scan.h"

#include <math.h>
#include <stdlib.h>

static struct scan_scratch *scratch;

static enum parse_result scan(struct slice payload, struct scanned *scanned)
{
    struct json_notes notes;
    scan_scratch_reset(scratch);
    char *guarded = guarded_copy(payload.data, payload.len);
    enum parse_result result =
        json_scan(slice_of(guarded, payload.len), 256, scratch, scanned, &notes);
    assert_int_equal(result != PARSE_DONE, notes.error != NULL);
    guarded_free(guarded, payload.len);
    return result;
}

static void test_grammar_is_pythons(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        " \t\r\n[ ] ",
        "null",
        "-0",
        "0.5e-3",
        "1E+2",
        "NaN",
        "[Infinity,-Infinity]",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00Ff\"",
        "\"\x7f\xc3\xa9\xed\xa0\x80\xf0\x9f\x98\x80\"",
        "{\"a\":1,\"a\":2}",
        "{\"\":{\"\":[{}]}}",
        "123456789012345678901234567890",
        "\"\\ud800\"",
    };
    static const char *const bad[] = {
        "{} x",
        "{}{}",
        "[1,]",
        "{\"a\":1,}",
        "{,}",
        "[,]",
        "{a:1}",
        "{\"a\" 1}",
        "{1:2}",
        "01",
        "1.x",
        ".5",
        "+1",
        "1e+x",
        "--1",
        "-x",
        "nan",
        "infinity",
        "True",
        "nulx",
        "'a'",
        "\"\\x41\"",
        "\"\\u12g4\"",
        "\"\t\"",
        "\"\n\"",
        "\"\xc3(\"...",
        "\"\xc0\x80\"...",
        "\"\xf4\x90\x80\x80\"",
        "\"\xff\"....",
        "\xef\xbb\xbf{}",
        "[1 2]",
        "]",
        "}",
        "{]",
        "[}",
        "\xff\xfe{",
        "/**/1",
    };
    static const char *const cut[] = {
        "",       " ",       "{",        "[",         "[1",     "[1,",     "{\"a",
        "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "\"\\",   "\"\\u00", "tru",
        "-",      "1.",      "1e",       "1e+",       "-Infin", "N",       "\"\xc3"};
    struct scanned scanned;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (scan(slice_from_text(good[i]), &scanned) != PARSE_DONE)
            fail_msg("not accepted: %s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (scan(slice_from_text(bad[i]), &scanned) != PARSE_BAD)
            fail_msg("not refused: %s", bad[i]);
    for (size_t i = 0; i < ARRAY_LEN(cut); i++)
        if (scan(slice_from_text(cut[i]), &scanned) != PARSE_MORE)
            fail_msg("not known to be cut: %s", cut[i]);
    assert_int_equal(PARSE_BAD, scan(SLICE("{\0}"), &scanned));
    assert_int_equal(PARSE_BAD, scan(SLICE("{}\0"), &scanned));
}

static void test_nesting_and_digits_are_bounded(void **state)
{
    (void)state;
    struct scanned scanned;
    char text[5000];
    memset(text, '[', 256);
    memset(text + 256, ']', 256);
    assert_int_equal(PARSE_DONE, scan(slice_of(text, 512), &scanned));
    memset(text, '[', sizeof(text));
    assert_int_equal(PARSE_BAD, scan(slice_of(text, sizeof(text)), &scanned));
    memset(text, '7', sizeof(text));
    assert_int_equal(PARSE_DONE, scan(slice_of(text, 4300), &scanned));
    assert_int_equal(PARSE_BAD, scan(slice_of(text, 4301), &scanned));
    text[4400] = '.'; /* a float may be as long as it likes */
    assert_int_equal(PARSE_DONE, scan(slice_of(text, sizeof(text)), &scanned));
}

static struct scanned_value room_of(const char *room)
{
    struct scanned scanned;
    struct json_notes notes;
    char *payload = must_printf("{\"room\": %s }", room);
    scan_scratch_reset(scratch);
    assert_int_equal(PARSE_DONE,
                     json_scan(slice_from_text(payload), 256, scratch, &scanned, &notes));
    struct scanned_value value = scanned.values[KEY_ROOM];
    if (value.type == VALUE_TEXT) { /* keep it beyond the payload */
        char *copy = scan_scratch_take(scratch, value.text.len);
        assert_non_null(copy);
        memcpy(copy, value.text.data, value.text.len);
        value.text.data = copy;
    }
    free(payload);
    return value;
}

static void test_texts_are_decoded(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        struct slice text;
    } texts[] = {
        {"\"\"", SLICE_INIT("")},
        {"\"plain text of more than eight bytes\"",
         SLICE_INIT("plain text of more than eight bytes")},
        {"\"\\u0000\\n\\/\"", SLICE_INIT("\0\n/")},
        {"\"\\u00e9\\u20AC\"", SLICE_INIT("\xc3\xa9\xe2\x82\xac")},
        {"\"\\ud83d\\ude00\"", SLICE_INIT("\xf0\x9f\x98\x80")},
        {"\"\\ud83d\"", SLICE_INIT("\xed\xa0\xbd")},
        {"\"\\ud83dx\"", SLICE_INIT("\xed\xa0\xbdx")},
        {"\"\\ud83d\\u0041\"", SLICE_INIT("\xed\xa0\xbd"
                                          "A")},
        {"\"\\ud83d\\ud83d\\ude00\"", SLICE_INIT("\xed\xa0\xbd\xf0\x9f\x98\x80")},
        {"\"\\ude00\\ud83d\"", SLICE_INIT("\xed\xb8\x80\xed\xa0\xbd")},
        {"\"\xed\xa0\xbd\xed\xb8\x80\"", SLICE_INIT("\xed\xa0\xbd\xed\xb8\x80")},
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct scanned_value value = room_of(texts[i].json);
        assert_int_equal(VALUE_TEXT, value.type);
        if (!slice_equals(texts[i].text, value.text))
            fail_msg("%s", texts[i].json);
    }
}

static void test_numbers_are_read(void **state)
{
    (void)state;
    assert_true(room_of("-9223372036854775808").integer == INT64_MIN);
    assert_int_equal(VALUE_BIG_INTEGER, room_of("-9223372036854775809").type);
    assert_true(room_of("1.5e3").real == 1500);
    assert_true(isinf(room_of("1e400").real));
    assert_true(isnan(room_of("NaN").real));
    assert_true(room_of("-Infinity").real < 0 && isinf(room_of("-Infinity").real));
    assert_int_equal(1, room_of("true").integer);
}

static void test_keys_are_those_of_the_outermost_object_and_the_last_wins(void **state)
{
    (void)state;
    struct scanned scanned;
    struct json_notes notes;
    struct slice payload =
        SLICE("{\"data\":[{\"room\":\"no\"}],\"room\":[1],\"r\\u006fom\":[\"a\",2],"
              "\"binary\":true,\"namespace_\":1}");
    assert_int_equal(PARSE_DONE, json_scan(payload, 256, scratch, &scanned, &notes));
    assert_int_equal(VALUE_LIST, scanned.values[KEY_ROOM].type);
    assert_int_equal(2, scanned.values[KEY_ROOM].len);
    assert_true(slice_equals(SLICE("a"), scanned.room_items[0].text));
    assert_int_equal(2, scanned.room_items[1].integer);
    assert_int_equal(VALUE_OTHER, scanned.data_first);
    assert_true(scanned.is_binary);
    assert_int_equal(VALUE_ABSENT, scanned.values[KEY_NAMESPACE].type);
    assert_int_equal(PARSE_DONE,
                     json_scan(SLICE("[{}]"), 256, scratch, &scanned, &notes));
    assert_false(scanned.is_dict);
}

static int set_up(void **state)
{
    (void)state;
    scratch = scan_scratch_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scan_scratch_free(scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar_is_pythons),
        cmocka_unit_test(test_nesting_and_digits_are_bounded),
        cmocka_unit_test(test_texts_are_decoded),
        cmocka_unit_test(test_numbers_are_read),
        cmocka_unit_test(test_keys_are_those_of_the_outermost_object_and_the_last_wins),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
