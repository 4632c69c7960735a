/*
 * Proves that every message that python-socketio was recorded to send is the same message in every dialect;
 * that each dialect has its own form for arguments, bytes, callbacks and keys; and that what has no form, never
 * ends or grows without bound is refused with a reason that names its place.
 */
#include "tests/unit/unit.h"

#include "tests/unit/broker/transcode_property.h"

#include <stdio.h>

#define VECTORS_EXPECTED 311

static struct transcode_property property;

static const char *quoted(struct slice bytes)
{
    static char text[4096];
    size_t len = 0;
    for (size_t i = 0; i < bytes.len && len < sizeof(text) - 8; i++) {
        unsigned char byte = (unsigned char)bytes.data[i];
        if (byte >= ' ' && byte <= '~')
            text[len++] = (char)byte;
        else
            len += (size_t)sprintf(text + len, "\\x%02x", byte);
    }
    text[len] = '\0';
    return text;
}

static void assert_transcoded(struct slice payload, enum message_dialect from,
                              enum message_dialect to, struct slice expected)
{
    struct slice out;
    char *guarded = guarded_copy(payload.data, payload.len);
    if (!transcoder_run(property.transcoder, slice_of(guarded, payload.len), from, to,
                        &out))
        fail_msg("%s: refused: %s", quoted(payload),
                 transcoder_refused(property.transcoder));
    if (!slice_equals(expected, out))
        fail_msg("%s from %s to %s", quoted(out), message_dialect_name(from),
                 message_dialect_name(to));
    guarded_free(guarded, payload.len);
}

static void assert_refused(struct slice payload, enum message_dialect from,
                           enum message_dialect to, const char *expected)
{
    struct slice out;
    char *guarded = guarded_copy(payload.data, payload.len);
    if (transcoder_run(property.transcoder, slice_of(guarded, payload.len), from, to,
                       &out))
        fail_msg("%s: not refused", quoted(payload));
    assert_string_equal(expected, transcoder_refused(property.transcoder));
    guarded_free(guarded, payload.len);
}

/* ---- the recorded messages ---- */

static struct slice unhex(struct slice text)
{
    char *bytes = must_calloc(1, text.len / 2 + 1);
    for (size_t i = 0; i < text.len / 2; i++) {
        unsigned byte;
        assert_int_equal(1, sscanf(text.data + 2 * i, "%2x", &byte));
        bytes[i] = (char)byte;
    }
    return slice_of(bytes, text.len / 2);
}

static void check_vector(struct slice line)
{
    struct slice name, part;
    assert_true(slice_cut(&line, '\t', &name));
    while (slice_cut(&line, '\t', &part) && line.data != NULL)
        ;
    struct slice payload = unhex(part);
    enum message_dialect from = DIALECT_PICKLE;
    if (slice_starts_with(name, SLICE("v5.14")))
        from = DIALECT_JSON14;
    if (slice_starts_with(name, SLICE("v5.16")))
        from = DIALECT_JSON15;
    char *text = slice_dup(name);
    bool is_object = strstr(text, "uuid") != NULL || strstr(text, "datetime") != NULL;
    for (int to = DIALECT_PICKLE; to <= DIALECT_JSON15; to++) {
        struct slice out;
        char *guarded = guarded_copy(payload.data, payload.len);
        bool written = transcoder_run(property.transcoder, slice_of(guarded, payload.len),
                                      from, (enum message_dialect)to, &out);
        if (written == (is_object && to != DIALECT_PICKLE))
            fail_msg("%s to %s: '%s'", text,
                     message_dialect_name((enum message_dialect)to),
                     transcoder_refused(property.transcoder));
        if (!is_object)
            check_transcoding(&property, slice_of(guarded, payload.len), from,
                              (enum message_dialect)to);
        guarded_free(guarded, payload.len);
    }
    free(text);
    free((void *)(uintptr_t)payload.data);
}

static void test_recorded_messages_are_the_same_in_every_dialect(void **state)
{
    (void)state;
    FILE *file = fopen(TEST_VECTORS, "r");
    assert_non_null(file);
    char *line = NULL;
    size_t size = 0;
    size_t count = 0;
    for (ssize_t len; (len = getline(&line, &size, file)) > 0; count++)
        check_vector(slice_of(line, (size_t)len - 1));
    free(line);
    fclose(file);
    assert_int_equal(VECTORS_EXPECTED, count);
}

/* ---- forms ---- */

#define EMIT(data) "{\"method\": \"emit\", \"data\": " data "}"
#define PICKLED                                                                          \
    "\x80\x04}(\x8c\x06method\x8c\x04"                                                   \
    "emit\x8c\x04"                                                                       \
    "data"

static void test_arguments_have_the_form_of_each_dialect(void **state)
{
    (void)state;
    static const struct {
        struct slice pickle, json14, json15;
    } rows[] = {
        {SLICE_INIT("\x8c\x01x"), SLICE_INIT("\"x\""), SLICE_INIT("[\"x\"]")},
        {SLICE_INIT("N"), SLICE_INIT("null"), SLICE_INIT("[null]")},
        {SLICE_INIT("](K\x01K\x02"
                    "e"),
         SLICE_INIT("[1, 2]"), SLICE_INIT("[[1, 2]]")},
        {SLICE_INIT("](K\x01"
                    "e"),
         SLICE_INIT("[1]"), SLICE_INIT("[[1]]")},
        {SLICE_INIT("]"), SLICE_INIT("[]"), SLICE_INIT("[[]]")},
        {SLICE_INIT("}"), SLICE_INIT("{}"), SLICE_INIT("[{}]")},
        {SLICE_INIT("](](K\x01"
                    "eNe"),
         SLICE_INIT("[[1], null]"), SLICE_INIT("[[[1], null]]")},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char pickle[100], json14[100], json15[100];
        int lens[3];
        lens[0] = sprintf(pickle, "%s%.*su.", PICKLED, SLICE_ARGS(rows[i].pickle));
        lens[1] =
            sprintf(json14, EMIT("%.*s, \"binary\": false"), SLICE_ARGS(rows[i].json14));
        lens[2] =
            sprintf(json15, EMIT("%.*s, \"binary\": false"), SLICE_ARGS(rows[i].json15));
        const struct slice forms[3] = {slice_of(pickle, (size_t)lens[0]),
                                       slice_of(json14, (size_t)lens[1]),
                                       slice_of(json15, (size_t)lens[2])};
        for (int from = 0; from < 3; from++)
            for (int to = 0; to < 3; to++)
                assert_transcoded(forms[from], (enum message_dialect)from,
                                  (enum message_dialect)to, forms[to]);
    }
}

static void
test_several_arguments_are_a_tuple_a_list_to_json14_and_a_list_to_json15(void **state)
{
    (void)state;
    static const struct slice two = SLICE_INIT(EMIT("[1, \"x\"], \"binary\": false"));
    static const struct slice none = SLICE_INIT(EMIT("[], \"binary\": false"));
    static const struct slice pickled = SLICE_INIT(PICKLED "(K\x01\x8c\x01xtu.");
    assert_transcoded(pickled, DIALECT_PICKLE, DIALECT_JSON14, two);
    assert_transcoded(pickled, DIALECT_PICKLE, DIALECT_JSON15, two);
    assert_transcoded(two, DIALECT_JSON15, DIALECT_JSON14, two);
    assert_transcoded(two, DIALECT_JSON15, DIALECT_PICKLE, pickled);
    assert_transcoded(none, DIALECT_JSON15, DIALECT_PICKLE, SLICE(PICKLED ")u."));
    assert_transcoded(SLICE(PICKLED ")u."), DIALECT_PICKLE, DIALECT_JSON15, none);
    assert_transcoded(none, DIALECT_JSON15, DIALECT_JSON14,
                      SLICE(EMIT("null, \"binary\": false")));
    assert_transcoded(SLICE(PICKLED "K\x07\x85u."), DIALECT_PICKLE, DIALECT_JSON14,
                      SLICE(EMIT("7, \"binary\": false")));
}

static void test_json_keeps_its_own_spelling_where_only_the_data_changes(void **state)
{
    (void)state;
    assert_transcoded(
        SLICE("{ \"d\\u0061ta\" : 1e0 ,\"x\":[ ],\"data\": 2.50\t,\"method\":\"emit\"} "),
        DIALECT_JSON14, DIALECT_JSON15,
        SLICE("{ \"d\\u0061ta\" : 1e0 ,\"x\":[ ],\"data\": "
              "[2.50]\t,\"method\":\"emit\"} "));
    static const struct slice other =
        SLICE_INIT("{\"method\": \"callback\", \"data\": 1}");
    struct slice out;
    assert_true(
        transcoder_run(property.transcoder, other, DIALECT_JSON14, DIALECT_JSON15, &out));
    assert_ptr_equal(other.data, out.data);
}

static void test_bytes_are_attachments(void **state)
{
    (void)state;
    static const struct slice json14 = SLICE_INIT(EMIT(
        "[{\"f\": {\"_placeholder\": true, \"num\": 0}}, \"AP8B\"], \"binary\": true"));
    static const struct slice json15 = SLICE_INIT(EMIT(
        "[[{\"f\": {\"_placeholder\": true, \"num\": 0}}], \"AP8B\"], \"binary\": true"));
    static const struct slice pickle = SLICE_INIT(PICKLED "}(\x8c\x01"
                                                          "fC\x03\0\xff\x01uu.");
    const struct slice forms[3] = {pickle, json14, json15};
    for (int from = 0; from < 3; from++)
        for (int to = 0; to < 3; to++)
            assert_transcoded(forms[from], (enum message_dialect)from,
                              (enum message_dialect)to, forms[to]);
    /* a bytearray, in the form of protocol 5 and in the one of those before */
    static const struct slice one = SLICE_INIT(
        EMIT("[[{\"_placeholder\": true, \"num\": 0}], \"YQ==\"], \"binary\": true"));
    assert_transcoded(SLICE(PICKLED "\x96\1\0\0\0\0\0\0\0au."), DIALECT_PICKLE,
                      DIALECT_JSON15, one);
    assert_transcoded(SLICE(PICKLED "cbuiltins\nbytearray\nC\x01"
                                    "a\x85Ru."),
                      DIALECT_PICKLE, DIALECT_JSON15, one);
    assert_transcoded(SLICE(PICKLED "c_codecs\nencode\n\x8c\x01"
                                    "a\x8c\x06latin1\x86Ru."),
                      DIALECT_PICKLE, DIALECT_JSON15, one);
}

static void test_placeholders_are_known_as_python_knows_them(void **state)
{
    (void)state;
    /* any order, anything true, any index that a list takes */
    assert_transcoded(
        SLICE(EMIT("[[{\"num\": -1, \"x\": [1], \"_placeholder\": \"y\"}, "
                   "{\"n\\u0075m\": true, \"_placeholder\": 0.1}, "
                   "{\"num\": 0, \"_placeholder\": 0}], \"YQ==\", \"YmM=\"], "
                   "\"binary\": 1")),
        DIALECT_JSON14, DIALECT_PICKLE,
        SLICE(PICKLED "](C\x02"
                      "bcC\x02"
                      "bc}(\x8c\x03numK\0\x8c\x0c_placeholder"
                      "K\0ueu."));
    /* not binary: a dict like any other */
    assert_transcoded(
        SLICE(EMIT("{\"num\": 0, \"_placeholder\": true}, \"binary\": false")),
        DIALECT_JSON14, DIALECT_PICKLE,
        SLICE(PICKLED "}(\x8c\x03numK\0\x8c\x0c_placeholder\x88uu."));
}

static void test_callbacks_are_tuples_in_pickles_and_lists_in_json(void **state)
{
    (void)state;
    static const struct slice answer =
        SLICE_INIT("{\"method\": \"callback\", \"args\": [1, [2]], \"x\": [3]}");
    static const struct slice pickled = SLICE_INIT("\x80\x04}(\x8c\x06method\x8c\x08"
                                                   "callback\x8c\x04"
                                                   "args(K\x01](K\x02"
                                                   "et\x8c\x01x](K\x03"
                                                   "eu.");
    assert_transcoded(answer, DIALECT_JSON15, DIALECT_PICKLE, pickled);
    assert_transcoded(pickled, DIALECT_PICKLE, DIALECT_JSON14, answer);
    assert_transcoded(SLICE("{\"method\": \"emit\", \"callback\": [\"r\", \"/\", 1]}"),
                      DIALECT_JSON15, DIALECT_PICKLE,
                      SLICE("\x80\x04}(\x8c\x06method\x8c\x04"
                            "emit\x8c\x08"
                            "callback(\x8c\x01r"
                            "\x8c\x01/K\x01tu."));
}

static void test_keys_become_the_texts_that_python_makes_of_them(void **state)
{
    (void)state;
    assert_transcoded(
        SLICE("\x80\x04}(K\x01N\x8a\x09\0\0\0\0\0\0\0\0\x01"
              "NG?\xf8\0\0\0\0\0\0N"
              "G\x7f\xf8\0\0\0\0\0\0NG\xff\xf0\0\0\0\0\0\0N\x88N\x89NNNu."),
        DIALECT_PICKLE, DIALECT_JSON15,
        SLICE(
            "{\"1\": null, \"18446744073709551616\": null, \"1.5\": null, \"NaN\": null, "
            "\"-Infinity\": null, \"true\": null, \"false\": null, \"null\": null}"));
}

static void test_numbers_and_texts_stay_what_they_are(void **state)
{
    (void)state;
    static const struct slice json = SLICE_INIT(
        "{\"n\": [0, 255, 256, 65536, -1, 2147483648, -9223372036854775808, "
        "18446744073709551616, -18446744073709551616, 0.1, -0.0, 1e+22, NaN, Infinity], "
        "\"t\": \"\\\"\\\\\\n\\u0000\\ud800 \xed\x95\x9c\xf0\x9f\x98\x80/\"}");
    static const struct slice pickled = SLICE_INIT(
        "\x80\x04}(\x8c\x01n]("
        "K\0K\xffM\0\x01J\0\0\x01\0J\xff\xff\xff\xff\x8a\x08\0\0\0\x80"
        "\0\0\0\0\x8a\x08\0\0\0\0\0\0\0\x80L18446744073709551616L\nL-"
        "18446744073709551616L\n"
        "G?\xb9\x99\x99\x99\x99\x99\x9aG\x80\0\0\0\0\0\0\0GD\x80\xf0\xcf\x06M\xd5\x92"
        "G\x7f\xf8\0\0\0\0\0\0G\x7f\xf0\0\0\0\0\0\0e\x8c\x01t\x8c\x10\"\\\n\0\xed\xa0\x80"
        " "
        "\xed\x95\x9c\xf0\x9f\x98\x80/u.");
    assert_transcoded(json, DIALECT_JSON15, DIALECT_PICKLE, pickled);
    assert_transcoded(pickled, DIALECT_PICKLE, DIALECT_JSON15, json);
    /* minimal and padded forms of the pickler's long integers */
    assert_transcoded(
        SLICE("\x80\x02}(U\x01n](\x8a\0\x8a\x01\xff\x8a\x01\x80\x8a\x09\0\0\0\0\0"
              "\0\0\0\xff\x8b\x0a\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0"
              "I01\neu."),
        DIALECT_PICKLE, DIALECT_JSON15,
        SLICE("{\"n\": [0, -1, -128, -18446744073709551616, "
              "18446744073709551615, true]}"));
}

static void
test_bytes_as_a_room_are_the_numbers_that_receivers_take_them_for(void **state)
{
    (void)state;
    assert_transcoded(SLICE("\x80\x04}(\x8c\x06method\x8c\x0a"
                            "close_room\x8c\x04roomC\x02"
                            "abu."),
                      DIALECT_PICKLE, DIALECT_JSON14,
                      SLICE("{\"method\": \"close_room\", \"room\": [97, 98]}"));
}

static void test_a_container_that_is_in_several_places_is_written_in_each(void **state)
{
    (void)state;
    /* filled after the second place was made, in two parts */
    assert_transcoded(SLICE(PICKLED "](]\x94K\x01"
                                    "ah\0e(h\0K\x02"
                                    "eu."),
                      DIALECT_PICKLE, DIALECT_JSON15,
                      SLICE(EMIT("[[[1], [1], [1], 2]], \"binary\": false")));
}

/* ---- refusals ---- */

static void test_what_has_no_form_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        struct slice payload;
        enum message_dialect from, to;
        const char *why;
    } rows[] = {
        {SLICE_INIT(PICKLED "c__builtin__\neval\n\x8c\x01"
                            "1\x85Ru."),
         DIALECT_PICKLE, DIALECT_JSON15,
         "pickle opcode GLOBAL at byte 24 makes an object, which JSON does not have"},
        {SLICE_INIT(PICKLED "\x8fu."), DIALECT_PICKLE, DIALECT_JSON14,
         "a set, which JSON does not have at byte 24"},
        {SLICE_INIT(PICKLED "}C\x01"
                            "aNsu."),
         DIALECT_PICKLE, DIALECT_JSON14, "a key that JSON cannot have at byte 27"},
        {SLICE_INIT(PICKLED "})Nsu."), DIALECT_PICKLE, DIALECT_JSON14,
         "a key that JSON cannot have at byte 25"},
        {SLICE_INIT("\x80\x04}\x8c\x04roomC\x01"
                    "as."),
         DIALECT_PICKLE, DIALECT_JSON15, "bytes outside of an emit's data at byte 11"},
        {SLICE_INIT(PICKLED "]\x94h\0au."), DIALECT_PICKLE, DIALECT_JSON15,
         "a container inside itself at byte 24"},
        {SLICE_INIT("\x80\x04}\x94(\x8c\x01xh\0u."), DIALECT_PICKLE, DIALECT_JSON15,
         "a container inside itself at byte 2"},
        {SLICE_INIT("\x80\x04N."), DIALECT_PICKLE, DIALECT_JSON15, "no dict at byte 0"},
        {SLICE_INIT("[]"), DIALECT_JSON14, DIALECT_PICKLE, "no object at byte 0"},
        {SLICE_INIT("\x80\x04}"), DIALECT_PICKLE, DIALECT_JSON15, "cut short at byte 2"},
        {SLICE_INIT("{\"a\": 1"), DIALECT_JSON14, DIALECT_PICKLE, "cut short at byte 7"},
        {SLICE_INIT(EMIT("1, \"binary\": true")), DIALECT_JSON14, DIALECT_PICKLE,
         "binary data that is no list at byte 27"},
        {SLICE_INIT(EMIT("[], \"binary\": true")), DIALECT_JSON14, DIALECT_JSON15,
         "binary data that is no list at byte 27"},
        {SLICE_INIT(EMIT("[1, 2], \"binary\": true")), DIALECT_JSON14, DIALECT_PICKLE,
         "an attachment that is no text at byte 27"},
        {SLICE_INIT(
             EMIT("[{\"_placeholder\": 1, \"num\": 1}, \"YQ==\"], \"binary\": true")),
         DIALECT_JSON14, DIALECT_PICKLE,
         "a placeholder without an attachment before at byte 57"},
        {SLICE_INIT(
             EMIT("[{\"_placeholder\": 1, \"num\": 0}, \"YQ=\"], \"binary\": true")),
         DIALECT_JSON14, DIALECT_PICKLE, "an attachment that is not base64 at byte 60"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_refused(rows[i].payload, rows[i].from, rows[i].to, rows[i].why);
}

static void test_no_part_of_a_message_is_transcoded(void **state)
{
    (void)state;
    static const struct slice wholes[] = {
        SLICE_INIT(PICKLED "}(\x8c\x01"
                           "fC\x03\0\xff\x01uu."),
        SLICE_INIT(EMIT("[{\"f\": {\"_placeholder\": true, \"num\": 0}}, \"AP8B\"], "
                        "\"binary\": true")),
    };
    for (size_t i = 0; i < ARRAY_LEN(wholes); i++) {
        for (size_t len = 0; len < wholes[i].len; len++) {
            struct slice out;
            char *part = guarded_copy(wholes[i].data, len);
            assert_false(transcoder_run(property.transcoder, slice_of(part, len),
                                        i == 0 ? DIALECT_PICKLE : DIALECT_JSON14,
                                        DIALECT_JSON15, &out));
            guarded_free(part, len);
        }
    }
}

/* {"method": "emit", "data": [[…]]} with `depth` lists, as JSON and as a pickle. */
static struct slice nested(size_t depth, bool as_pickle, char *bytes)
{
    size_t len = (size_t)sprintf(
        bytes, "%s", as_pickle ? PICKLED : "{\"method\": \"emit\", \"data\": ");
    for (size_t i = 0; i < depth; i++)
        bytes[len++] = as_pickle ? ']' : '[';
    for (size_t i = 0; i < depth; i++)
        if (!as_pickle)
            bytes[len++] = ']';
        else if (i > 0)
            bytes[len++] = 'a';
    len += (size_t)sprintf(bytes + len, as_pickle ? "u." : "}");
    return slice_of(bytes, len);
}

static void test_depth_is_bounded_and_what_is_written_can_be_read(void **state)
{
    (void)state;
    char bytes[1000];
    static const enum message_dialect all[] = {DIALECT_PICKLE, DIALECT_JSON14,
                                               DIALECT_JSON15};
    for (size_t depth = 240; depth < 260; depth++)
        for (size_t from = 0; from < 3; from++)
            for (size_t to = 0; to < 3; to++) {
                struct slice out;
                struct slice payload = nested(depth, from == 0, bytes);
                if (from == to)
                    continue;
                bool is_written = transcoder_run(property.transcoder, payload, all[from],
                                                 all[to], &out);
                assert_true(is_written || depth > 252);
                assert_true(!is_written || depth < 257);
                if (is_written)
                    check_transcoding(&property, payload, all[from], all[to]);
            }
}

static void test_output_is_bounded_however_often_a_value_is_repeated(void **state)
{
    (void)state;
    /* each list holds the one before twice: 2^100 texts */
    char bytes[1000];
    size_t len = (size_t)sprintf(bytes, "%s]\x94\x8c\x01xa", PICKLED);
    for (int i = 0; i < 100; i++)
        len += (size_t)sprintf(bytes + len, "](h%ch%ce\x94", i, i);
    /* all of them are in one list, so that one value is left */
    char whole[1200];
    size_t whole_len = (size_t)sprintf(whole, "%s(", PICKLED);
    memcpy(whole + whole_len, bytes + strlen(PICKLED), len - strlen(PICKLED));
    whole_len += len - strlen(PICKLED);
    memcpy(whole + whole_len, "tu.", 3);
    whole_len += 3;
    struct transcoder *small = transcoder_new(256, 100000);
    struct slice out;
    assert_false(transcoder_run(small, slice_of(whole, whole_len), DIALECT_PICKLE,
                                DIALECT_JSON15, &out));
    assert_string_equal("longer than 100000 bytes when written as json15",
                        transcoder_refused(small));
    /* and it can be used again */
    assert_true(
        transcoder_run(small, SLICE(EMIT("1")), DIALECT_JSON14, DIALECT_JSON15, &out));
    assert_true(slice_equals(SLICE(EMIT("[1]")), out));
    /* the bound is exact */
    struct transcoder *exact = transcoder_new(256, strlen(EMIT("[1]")));
    assert_true(
        transcoder_run(exact, SLICE(EMIT("1")), DIALECT_JSON14, DIALECT_JSON15, &out));
    assert_false(
        transcoder_run(exact, SLICE(EMIT("12")), DIALECT_JSON14, DIALECT_JSON15, &out));
    transcoder_free(exact);
    transcoder_free(small);
}

static void test_long_lists_are_written_in_batches(void **state)
{
    (void)state;
    size_t items = 100000;
    char *json = must_calloc(1, items * 2 + 100);
    size_t len = (size_t)sprintf(json, "{\"method\": \"emit\", \"data\": [");
    for (size_t i = 0; i < items; i++)
        len += (size_t)sprintf(json + len, "%s", i > 0 ? ",1" : "1");
    len += (size_t)sprintf(json + len, "]}");
    struct message message;
    struct slice out;
    assert_true(transcoder_run(property.transcoder, slice_of(json, len), DIALECT_JSON14,
                               DIALECT_PICKLE, &out));
    message_scan(out, &message_policy_default, property.after, &message);
    assert_int_equal(MESSAGE_PICKLE, message.encoding);
    assert_int_equal(METHOD_EMIT, message.method);
    assert_refused(slice_of(json, len), DIALECT_JSON15, DIALECT_PICKLE,
                   "more arguments than a pickle may have at byte 120028");
    free(json);
}

static int setup(void **state)
{
    (void)state;
    transcode_property_init(&property);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transcode_property_cleanup(&property);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded_messages_are_the_same_in_every_dialect),
        cmocka_unit_test(test_arguments_have_the_form_of_each_dialect),
        cmocka_unit_test(
            test_several_arguments_are_a_tuple_a_list_to_json14_and_a_list_to_json15),
        cmocka_unit_test(test_json_keeps_its_own_spelling_where_only_the_data_changes),
        cmocka_unit_test(test_bytes_are_attachments),
        cmocka_unit_test(test_placeholders_are_known_as_python_knows_them),
        cmocka_unit_test(test_callbacks_are_tuples_in_pickles_and_lists_in_json),
        cmocka_unit_test(test_keys_become_the_texts_that_python_makes_of_them),
        cmocka_unit_test(test_numbers_and_texts_stay_what_they_are),
        cmocka_unit_test(
            test_bytes_as_a_room_are_the_numbers_that_receivers_take_them_for),
        cmocka_unit_test(test_a_container_that_is_in_several_places_is_written_in_each),
        cmocka_unit_test(test_what_has_no_form_is_refused_with_its_place),
        cmocka_unit_test(test_no_part_of_a_message_is_transcoded),
        cmocka_unit_test(test_depth_is_bounded_and_what_is_written_can_be_read),
        cmocka_unit_test(test_output_is_bounded_however_often_a_value_is_repeated),
        cmocka_unit_test(test_long_lists_are_written_in_batches),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
