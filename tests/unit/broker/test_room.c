/* Proves that rooms which are one key in Python have one name here, and floats the name that repr gives. */
#include "tests/unit/unit.h"

#include "broker/room.h"

#include <math.h>
#include <stdlib.h>

static struct scan_scratch *scratch;

static void test_floats_are_written_as_python_does(void **state)
{
    (void)state;
    static const struct {
        double number;
        const char *text; /* repr() of Python 3.11 */
    } rows[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {1.5, "1.5"},
        {-2.25, "-2.25"},
        {0.1, "0.1"},
        {0.30000000000000004, "0.30000000000000004"},
        {100.0, "100.0"},
        {123456789.125, "123456789.125"},
        {1e15, "1000000000000000.0"},
        {9007199254740994.0, "9007199254740994.0"},
        {1e16, "1e+16"},
        {1.5e16, "1.5e+16"},
        {1e100, "1e+100"},
        {0x1p-44,
         "5.684341886080802e-14"}, /* the nearest of 16 digits ends in 1 and is another double */
        {-0x1p-1007, "-7.291122019556398e-304"},
        {0.001, "0.001"},
        {0.0001, "0.0001"},
        {0.00012, "0.00012"},
        {1e-5, "1e-05"},
        {5e-324, "5e-324"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {INFINITY, "inf"},
        {-INFINITY, "-inf"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[40] = "";
        size_t len = room_write_float(rows[i].number, text);
        assert_string_equal(rows[i].text, text);
        assert_int_equal(strlen(text), len);
    }
}

static void assert_room(struct scanned_value value, const char *expected)
{
    struct slice room;
    if (expected == NULL) {
        assert_false(room_write(&value, scratch, &room));
        return;
    }
    assert_true(room_write(&value, scratch, &room));
    if (!slice_equals(slice_from_text(expected), room))
        fail_msg("expected %s, got %.*s", expected, SLICE_ARGS(room));
}

static struct scanned_value real(double number)
{
    return (struct scanned_value){.type = VALUE_FLOAT, .real = number};
}

static void test_equal_keys_have_equal_rooms(void **state)
{
    (void)state;
    scan_scratch_reset(scratch);
    assert_room((struct scanned_value){.type = VALUE_TEXT, .text = SLICE("lobby")},
                "s:lobby");
    assert_room((struct scanned_value){.type = VALUE_TEXT, .text = SLICE("")}, "s:");
    assert_room((struct scanned_value){.type = VALUE_TEXT, .text = SLICE("42")}, "s:42");
    assert_room((struct scanned_value){.type = VALUE_INTEGER, .integer = 42}, "i:42");
    assert_room((struct scanned_value){.type = VALUE_INTEGER, .integer = INT64_MIN},
                "i:-9223372036854775808");
    assert_room((struct scanned_value){.type = VALUE_BOOL, .integer = 1}, "i:1");
    assert_room(real(1.0), "i:1");
    assert_room(real(-0.0), "i:0");
    assert_room(real(9007199254740992.0), "i:9007199254740992");
    assert_room(real(9007199254740994.0), "f:9007199254740994.0");
    assert_room(real(0.5), "f:0.5");
    assert_room(real(INFINITY), "f:inf");
    assert_room(real(NAN), NULL);
    assert_room((struct scanned_value){.type = VALUE_NONE}, NULL);
    assert_room((struct scanned_value){.type = VALUE_BIG_INTEGER}, NULL);
    assert_room((struct scanned_value){.type = VALUE_LIST}, NULL);
    assert_room((struct scanned_value){.type = VALUE_OTHER}, NULL);
}

static void test_rooms_that_no_envelope_can_carry_are_none(void **state)
{
    (void)state;
    scan_scratch_reset(scratch);
    char *text = must_calloc(1, ROOM_LEN_MAX);
    struct slice room;
    assert_true(room_write_text(slice_of(text, ROOM_LEN_MAX - 2), scratch, &room));
    assert_int_equal(ROOM_LEN_MAX, room.len);
    assert_false(room_write_text(slice_of(text, ROOM_LEN_MAX - 1), scratch, &room));
    /* and the scratch ends somewhere */
    size_t count = 0;
    while (room_write_text(slice_of(text, 60000), scratch, &room))
        count++;
    assert_in_range(count, 10, SCAN_TEXT_MAX / 60000);
    scan_scratch_reset(scratch);
    assert_true(room_write_text(slice_of(text, 60000), scratch, &room));
    free(text);
}

static void test_a_tag_alone_is_hashed(void **state)
{
    (void)state;
    static const struct {
        const char *room;
        const char *hashed;
    } rows[] = {
        {"s:lobby", "s:lobby"}, {"s:doc:{42}:chat", "s:42"},
        {"s:{42}", "s:42"},     {"s:42", "s:42"},
        {"s:a{b}{c}", "s:b"},   {"s:{{a}}", "s:{a"},
        {"s:{}a", "s:{}a"},     {"s:{a", "s:{a"},
        {"s:a}b{c", "s:a}b{c"}, {"i:42", "i:42"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct slice prefix, part;
        room_hashed_part(slice_from_text(rows[i].room), &prefix, &part);
        char *hashed = must_printf("%.*s%.*s", SLICE_ARGS(prefix), SLICE_ARGS(part));
        assert_string_equal(rows[i].hashed, hashed);
        free(hashed);
    }
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
        cmocka_unit_test(test_floats_are_written_as_python_does),
        cmocka_unit_test(test_equal_keys_have_equal_rooms),
        cmocka_unit_test(test_rooms_that_no_envelope_can_carry_are_none),
        cmocka_unit_test(test_a_tag_alone_is_hashed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
