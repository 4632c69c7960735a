/*
 * Proves that hostile pickles are refused or flagged before they cost anything, that memo references and
 * shared lists are followed as the unpickler follows them, and that the harmless calls that make bytes
 * are told from all others. (test_message has the recorded messages, scan_differential.py random ones.)
 */
#include "tests/unit/unit.h"

#include "broker/pickle_scan.h"

#include <stdlib.h>

static struct scan_scratch *scratch;

enum outcome { PLAIN, CODE, BYTE_FORM, MORE, BAD };

struct row {
    const char *name;
    struct slice payload;
    enum outcome outcome;
};

#define ROW(name, payload, outcome)                                                      \
    {                                                                                    \
        name, SLICE_INIT(payload), outcome                                               \
    }

static const struct row rows[] = {
    ROW("empty dict", "}.", PLAIN),
    ROW("nothing", "", MORE),
    ROW("no STOP", "}", MORE),
    ROW("STOP alone", ".", BAD),
    ROW("bytes behind the end", "}..", BAD),
    ROW("values left", "N}.", BAD),
    ROW("mark left", "}(.", BAD),
    ROW("POP", "}N0.", BAD),
    ROW("POP_MARK", "}(1.", BAD),
    ROW("DUP", "}2.", BAD),
    ROW("no opcode", "\xff", BAD),
    ROW("protocol 6", "\x80\x06}.", BAD),
    ROW("PROTO twice", "\x80\x04\x80\x04}.", PLAIN),
    ROW("LONG_BINPUT far away", "}r\xff\xff\xff\xff.", BAD),
    ROW("BINPUT beyond the payload", "}q\xc8.", BAD),
    ROW("PUT of nothing", "q\0}.", BAD),
    ROW("PUT of what is below a mark", "}(q\0u.", BAD),
    ROW("GET of nothing", "h\0.", BAD),
    ROW("LONG_BINGET far away", "j\xff\xff\xff\xff.", BAD),
    ROW("GET that is no number", "g-1\n.", BAD),
    ROW("BINUNICODE of 4 GiB", "X\xff\xff\xff\xff", MORE),
    ROW("BINUNICODE8 past everything", "\x8d\xff\xff\xff\xff\xff\xff\xff\xff", BAD),
    ROW("BINBYTES8 of 2^62", "\x8e\0\0\0\0\0\0\0\x40", MORE),
    ROW("FRAME longer than the rest", "\x80\x04\x95\x10\0\0\0\0\0\0\0}.", MORE),
    ROW("FRAME that ends in an opcode",
        "\x95\x02\0\0\0\0\0\0\0}\x8c\x01"
        "a0.",
        BAD),
    ROW("FRAME in a FRAME", "\x95\x0a\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0}.", BAD),
    ROW("LONG4 of negative length", "\x8b\xff\xff\xff\xff.", BAD),
    ROW("LONG1", "}K\1\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0s.", PLAIN),
    ROW("SETITEM underflow", "}Ns.", BAD),
    ROW("SETITEM across a mark", "}(NNs.", BAD),
    ROW("SETITEMS odd", "}(Nu.", BAD),
    ROW("SETITEM into a list", "]NNs.", BAD),
    ROW("APPEND to a dict", "}Na.", BAD),
    ROW("ADDITEMS to a frozenset", "(\x91(N\x90.", BAD),
    ROW("list as a key", "}]Ns.", BAD),
    ROW("tuple of a list as a key", "}]\x85Ns.", BAD),
    ROW("tuple as a key", "}N\x85Ns.", PLAIN),
    ROW("bytearray as a key", "}\x96\1\0\0\0\0\0\0\0aNs.", BAD),
    ROW("dict in a set", "\x8f(}\x90.", BAD),
    ROW("text that is not UTF-8", "}\x8c\x02\xc3(Ns.", BAD),
    ROW("lone surrogate", "}\x8c\x03\xed\xa0\x80Ns.", PLAIN),
    ROW("overlong text", "}\x8c\x02\xc0\x80Ns.", BAD),
    ROW("UNICODE with a broken escape", "}V\\u00g0\nNs.", BAD),
    ROW("INT", "}I-5\nI01\ns.", PLAIN),
    ROW("INT in octal", "}I010\nNs.", BAD),
    ROW("INT of nothing", "}I\nNs.", BAD),
    ROW("FLOAT that overflows", "}F1e999\nNs.", BAD),
    ROW("FLOAT with words", "}F0x1p3\nNs.", BAD),
    ROW("STRING with an escape", "}S'\\x41'\nNs.", BAD),
    ROW("STRING", "}S'a'\nNs.", PLAIN),
    ROW("list in itself", "]q\0h\0a.", PLAIN),
    ROW("dict in itself", "}q\0Nh\0s.", PLAIN),
    ROW("GLOBAL", "cos\nsystem\n.", CODE),
    ROW("GLOBAL and REDUCE", "cos\nsystem\n(Vid\ntR.", CODE),
    ROW("GLOBAL as a value", "}Ncbuiltins\nbytearray\ns.", CODE),
    ROW("GLOBAL as the message", "cbuiltins\nbytearray\n.", CODE),
    ROW("STACK_GLOBAL", "\x8c\x02os\x8c\x06system\x93.", CODE),
    ROW("STACK_GLOBAL of numbers", "K\1K\2\x93.", CODE),
    ROW("INST", "(ios\nsystem\n.", CODE),
    ROW("OBJ", "(cos\nsystem\no.", CODE),
    ROW("OBJ of nothing", "(o.", BAD),
    ROW("NEWOBJ", "cos\nx\n)\x81.", CODE),
    ROW("NEWOBJ_EX", "cos\nx\n)}\x92.", CODE),
    ROW("BUILD", "}}b.", CODE),
    ROW("PERSID", "Px\n.", CODE),
    ROW("BINPERSID", "NQ.", CODE),
    ROW("EXT1", "\x82\1.", CODE),
    ROW("EXT4 cut", "\x84\1\0\0", MORE),
    ROW("NEXT_BUFFER", "\x97.", BAD),
    ROW("bytearray", "cbuiltins\nbytearray\nC\2ab\x85R.", BYTE_FORM),
    ROW("bytearray of 2", "c__builtin__\nbytearray\nC\2ab\x85R.", BYTE_FORM),
    ROW("the name of 2 in protocol 4",
        "\x80\x04"
        "c__builtin__\nbytearray\n)R.",
        CODE),
    ROW("bytearray of a length", "cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", CODE),
    ROW("bytes of protocol 2", "c_codecs\nencode\nX\2\0\0\0\xc3\xbfX\6\0\0\0latin1\x86R.",
        BYTE_FORM),
    ROW("another codec", "c_codecs\nencode\nX\1\0\0\0aX\3\0\0\0zip\x86R.", CODE),
    ROW("no latin-1", "c_codecs\nencode\nX\3\0\0\0\xe2\x82\xacX\6\0\0\0latin1\x86R.",
        BAD),
    ROW("bytes of nothing", "c__builtin__\nbytes\n)R.", BYTE_FORM),
    ROW("bytes of a length", "c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", CODE),
};

static enum outcome scan(struct slice payload, struct scanned *scanned,
                         struct pickle_notes *notes)
{
    scan_scratch_reset(scratch);
    switch (pickle_scan(payload, 256, scratch, scanned, notes)) {
    case PARSE_MORE:
        return MORE;
    case PARSE_BAD:
        assert_non_null(notes->error);
        return BAD;
    case PARSE_DONE:
        break;
    }
    if (!notes->is_plain)
        return CODE;
    return notes->has_byte_forms ? BYTE_FORM : PLAIN;
}

static void test_each_opcode_is_plain_flagged_or_refused(void **state)
{
    (void)state;
    struct scanned scanned;
    struct pickle_notes notes;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct slice payload = rows[i].payload;
        char *guarded = guarded_copy(payload.data, payload.len);
        enum outcome outcome = scan(slice_of(guarded, payload.len), &scanned, &notes);
        if (outcome != rows[i].outcome)
            fail_msg("%s: %d (%s)", rows[i].name, outcome, notes.error);
        guarded_free(guarded, payload.len);
        if (outcome == BAD || outcome == MORE)
            continue;
        for (size_t len = 0; len < payload.len; len++) {
            guarded = guarded_copy(payload.data, len);
            outcome = scan(slice_of(guarded, len), &scanned, &notes);
            if (outcome != MORE && outcome != BAD)
                fail_msg("%s: accepted when cut to %zu", rows[i].name, len);
            guarded_free(guarded, len);
        }
    }
}

static void test_code_is_named_with_its_place(void **state)
{
    (void)state;
    struct scanned scanned;
    struct pickle_notes notes;
    assert_int_equal(CODE, scan(SLICE("}Ncos\nsystem\n(Vid\ntRs."), &scanned, &notes));
    assert_string_equal("GLOBAL", notes.code);
    assert_int_equal(2, notes.code_offset);
    assert_int_equal(
        BYTE_FORM, scan(SLICE("}Ncbuiltins\nbytearray\nC\2ab\x85Rs."), &scanned, &notes));
    assert_string_equal("REDUCE", notes.byte_form);
    assert_int_equal(27, notes.byte_form_offset);
}

static struct slice repeated(const char *head, const char *unit, size_t unit_len,
                             size_t count)
{
    size_t head_len = strlen(head);
    char *bytes = must_calloc(1, head_len + unit_len * count);
    memcpy(bytes, head, head_len);
    for (size_t i = 0; i < count; i++)
        memcpy(bytes + head_len + i * unit_len, unit, unit_len);
    return slice_of(bytes, head_len + unit_len * count);
}

static void test_bounds_hold_before_memory_is_taken(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        const char *unit;
        size_t count;
        enum outcome outcome;
    } bounds[] = {
        {"", "(", 256, MORE},
        {"", "(", 257, BAD},
        {")", "\x85", 255, MORE},
        {")", "\x85", 256, BAD},
        {"", "N", 65536, MORE},
        {"", "N", 65537, BAD},
        {"", "]", 1000, MORE},
        {"N", "\x94", 5000, MORE},
        {"(", "\x8c\x01x\x94", 60000, MORE},
    };
    struct scanned scanned;
    struct pickle_notes notes;
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        struct slice payload = repeated(bounds[i].head, bounds[i].unit,
                                        strlen(bounds[i].unit), bounds[i].count);
        if (scan(payload, &scanned, &notes) != bounds[i].outcome)
            fail_msg("bound %zu: %s", i, notes.error);
        free((void *)(uintptr_t)payload.data);
    }
}

static void assert_text(struct scanned_value value, const char *expected)
{
    assert_int_equal(VALUE_TEXT, value.type);
    assert_true(slice_equals(slice_from_text(expected), value.text));
}

static void test_keys_and_values_come_through_the_memo(void **state)
{
    (void)state;
    struct scanned scanned;
    struct pickle_notes notes;
    /* {'data': {'room': 'r'}, 'room': 'r'} with both words of the outer one from the memo; then last wins */
    struct slice payload = SLICE("}(\x8c\x04"
                                 "data}\x8c\x04room\x94\x8c\x01r\x94sh\0h\1"
                                 "\x8c\x03sid\x8c\x01"
                                 "a\x8c\x03sid\x8c\x01"
                                 "bu.");
    assert_int_equal(PLAIN, scan(payload, &scanned, &notes));
    assert_true(scanned.is_dict);
    assert_text(scanned.values[KEY_ROOM], "r");
    assert_text(scanned.values[KEY_SID], "b");
    assert_int_equal(VALUE_OTHER, scanned.values[KEY_DATA].type);
    assert_int_equal(VALUE_ABSENT, scanned.values[KEY_METHOD].type);
    /* a key in protocol 0 with an escape */
    assert_int_equal(PLAIN,
                     scan(SLICE("(dV\\u0072oom\nV\xe9\\u20ac\ns."), &scanned, &notes));
    assert_text(scanned.values[KEY_ROOM], "\xc3\xa9\xe2\x82\xac");
    /* a key that is bytes is another key */
    assert_int_equal(PLAIN, scan(SLICE("}C\4roomNs."), &scanned, &notes));
    assert_int_equal(VALUE_ABSENT, scanned.values[KEY_ROOM].type);
}

static void test_rooms_that_are_shared_lists_have_all_their_items(void **state)
{
    (void)state;
    struct scanned scanned;
    struct pickle_notes notes;
    /* the list is in data first, is appended to there, is the room, and is appended to afterwards */
    struct slice payload = SLICE("}(\x8c\x04"
                                 "data]\x94(K\1e\x8c\x04roomh\0u"
                                 "\x8c\x02idh\0\x8c\x01zas.");
    assert_int_equal(PLAIN, scan(payload, &scanned, &notes));
    assert_int_equal(VALUE_LIST, scanned.values[KEY_ROOM].type);
    assert_int_equal(2, scanned.values[KEY_ROOM].len);
    assert_int_equal(1, scanned.room_items[0].integer);
    assert_text(scanned.room_items[1], "z");
    /* a list that holds itself ends there */
    assert_int_equal(PLAIN, scan(SLICE("}\x8c\x04room]\x94h\0as."), &scanned, &notes));
    assert_int_equal(1, scanned.values[KEY_ROOM].len);
    assert_int_equal(VALUE_LIST, scanned.room_items[0].type);
    /* a tuple */
    assert_int_equal(PLAIN, scan(SLICE("}\x8c\x04room\x8c\x01"
                                       "aK\2\x86s."),
                                 &scanned, &notes));
    assert_int_equal(2, scanned.values[KEY_ROOM].len);
    assert_text(scanned.room_items[0], "a");
}

static void test_integers_are_read_in_all_their_forms(void **state)
{
    (void)state;
    static const struct {
        struct slice value;
        enum value_type type;
        int64_t number;
    } numbers[] = {
        {SLICE_INIT("K\xff"), VALUE_INTEGER, 255},
        {SLICE_INIT("M\xff\xff"), VALUE_INTEGER, 65535},
        {SLICE_INIT("J\xff\xff\xff\xff"), VALUE_INTEGER, -1},
        {SLICE_INIT("\x8a\0"), VALUE_INTEGER, 0},
        {SLICE_INIT("\x8a\1\x80"), VALUE_INTEGER, -128},
        {SLICE_INIT("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"), VALUE_INTEGER,
         INT64_MAX},
        {SLICE_INIT("\x8a\x09\0\0\0\0\0\0\0\x80\0"), VALUE_BIG_INTEGER, 0},
        {SLICE_INIT("\x8a\x09\0\0\0\0\0\0\0\x80\xff"), VALUE_INTEGER, INT64_MIN},
        {SLICE_INIT("I01\n"), VALUE_BOOL, 1},
        {SLICE_INIT("I1\n"), VALUE_INTEGER, 1},
        {SLICE_INIT("L-9223372036854775808L\n"), VALUE_INTEGER, INT64_MIN},
        {SLICE_INIT("L9223372036854775808L\n"), VALUE_BIG_INTEGER, 0},
        {SLICE_INIT("\x88"), VALUE_BOOL, 1},
        {SLICE_INIT("\x89"), VALUE_BOOL, 0},
    };
    struct scanned scanned;
    struct pickle_notes notes;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        char payload[64] = "}\x8c\x04room";
        size_t len = 7;
        memcpy(payload + len, numbers[i].value.data, numbers[i].value.len);
        len += numbers[i].value.len;
        memcpy(payload + len, "s.", 2);
        assert_int_equal(PLAIN, scan(slice_of(payload, len + 2), &scanned, &notes));
        assert_int_equal(numbers[i].type, scanned.values[KEY_ROOM].type);
        if (numbers[i].type != VALUE_BIG_INTEGER)
            assert_true(numbers[i].number == scanned.values[KEY_ROOM].integer);
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
        cmocka_unit_test(test_each_opcode_is_plain_flagged_or_refused),
        cmocka_unit_test(test_code_is_named_with_its_place),
        cmocka_unit_test(test_bounds_hold_before_memory_is_taken),
        cmocka_unit_test(test_keys_and_values_come_through_the_memo),
        cmocka_unit_test(test_rooms_that_are_shared_lists_have_all_their_items),
        cmocka_unit_test(test_integers_are_read_in_all_their_forms),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
