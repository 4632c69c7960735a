/*
 * Proves that every message that python-socketio was recorded to send, in five versions and six encodings,
 * says the same to the broker as to Python; that no part of one counts as a message; and that what an old
 * pod would execute is refused.
 */
#include "tests/unit/unit.h"

#include "broker/message.h"

#include <stdio.h>
#include <stdlib.h>

#define VECTORS_EXPECTED 311

static struct scan_scratch *scratch;

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

static struct slice field(struct slice *line)
{
    struct slice part;
    assert_true(slice_cut(line, '\t', &part));
    return part;
}

static void assert_text(struct slice expected_hex, struct slice got, const char *name)
{
    if (slice_equals(expected_hex, SLICE("-"))) {
        if (got.data != NULL)
            fail_msg("%s: a text where Python has None", name);
        return;
    }
    struct slice expected = unhex(expected_hex);
    if (!slice_equals(expected, got))
        fail_msg("%s: expected %.*s, got %.*s", name, SLICE_ARGS(expected),
                 SLICE_ARGS(got));
    free((void *)(uintptr_t)expected.data);
}

static void assert_rooms(struct slice expected, const struct message *message,
                         const char *name)
{
    if (slice_equals(expected, SLICE("?"))) {
        assert_false(message->rooms_known);
        return;
    }
    if (!message->rooms_known)
        fail_msg("%s: rooms not known", name);
    if (slice_equals(expected, SLICE("*"))) {
        assert_int_equal(0, message->room_count);
        return;
    }
    struct slice room;
    size_t count = 0;
    while (slice_cut(&expected, ',', &room)) {
        assert_true(count < message->room_count);
        assert_text(room, message->rooms[count++], name);
    }
    assert_int_equal(count, message->room_count);
}

static bool is_accepted(struct slice payload, const struct message_policy *policy)
{
    struct message message;
    message_scan(payload, policy, scratch, &message);
    return message.encoding != MESSAGE_OPAQUE;
}

/* `payload` is against the guard page; no prefix of it may count, nor it with a byte behind. */
static void assert_only_whole(struct slice payload, const char *name)
{
    struct message_policy allow = {.objects = PICKLE_OBJECTS_ALLOW, .depth_max = 256};
    size_t step = payload.len > 2000 ? 997 : 1;
    for (size_t len = 0; len < payload.len; len += step) {
        /* shift it, so that the prefix ends against the guard page */
        char *part = guarded_copy(payload.data, len);
        if (is_accepted(slice_of(part, len), &allow))
            fail_msg("%s: accepted when cut to %zu bytes", name, len);
        guarded_free(part, len);
    }
    char *longer = must_calloc(1, payload.len + 1);
    memcpy(longer, payload.data, payload.len);
    longer[payload.len] = '.';
    if (is_accepted(slice_of(longer, payload.len + 1), &allow))
        fail_msg("%s: accepted with a byte behind its end", name);
    free(longer);
}

static void check_vector(struct slice line)
{
    struct message message;
    char *name = slice_dup(field(&line));
    struct slice encoding = field(&line);
    struct slice method = field(&line);
    struct slice namespace = field(&line);
    struct slice rooms = field(&line);
    struct slice sid = field(&line);
    struct slice host_id = field(&line);
    struct slice callback = field(&line);
    bool carries_code = slice_equals(field(&line), SLICE("1"));
    struct slice payload = unhex(field(&line));
    char *guarded = guarded_copy(payload.data, payload.len);
    message_scan(slice_of(guarded, payload.len), &message_policy_default, scratch,
                 &message);
    assert_true(
        slice_equals(encoding, slice_from_text(message_encoding_name(message.encoding))));
    assert_true(
        slice_equals(method, slice_from_text(message_method_name(message.method))));
    assert_text(namespace, message.namespace, name);
    assert_rooms(rooms, &message, name);
    assert_text(sid, message.sid, name);
    assert_text(host_id, message.host_id, name);
    assert_int_equal(slice_equals(callback, SLICE("1")), message.has_callback);
    assert_int_equal(!carries_code, message.is_plain);
    /* bytes of protocol 2 are a harmless call; dates and UUIDs are not */
    bool is_refused = strstr(name, "uuid") != NULL || strstr(name, "datetime") != NULL;
    if (message.encoding == MESSAGE_PICKLE && is_refused != message_is_refused(&message))
        fail_msg("%s: refused: '%s'", name, message.refused);
    guarded_free(guarded, payload.len);
    assert_only_whole(payload, name);
    free((void *)(uintptr_t)payload.data);
    free(name);
}

static void test_recorded_messages_say_what_they_say_to_python(void **state)
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

static struct message scan(struct slice payload)
{
    struct message message;
    message_scan(payload, &message_policy_default, scratch, &message);
    return message;
}

static void test_dialect_is_told_by_the_data(void **state)
{
    (void)state;
    static const struct {
        const char *payload;
        enum message_dialect dialect;
        bool is_proven;
    } rows[] = {
        {"{\"method\":\"emit\",\"data\":\"x\"}", DIALECT_JSON14, true},
        {"{\"method\":\"emit\",\"data\":null}", DIALECT_JSON14, true},
        {"{\"method\":\"emit\",\"data\":{\"a\":1}}", DIALECT_JSON14, true},
        {"{\"method\":\"emit\",\"data\":[1]}", DIALECT_JSON15, false},
        {"{\"method\":\"emit\",\"data\":[[1]],\"binary\":false}", DIALECT_JSON15, false},
        {"{\"method\":\"emit\",\"data\":[[{}],\"AA==\"],\"binary\":true}", DIALECT_JSON15,
         false},
        {"{\"method\":\"emit\",\"data\":[{},\"AA==\"],\"binary\":true}", DIALECT_JSON14,
         true},
        {"{\"method\":\"emit\",\"data\":1,\"data\":[2]}", DIALECT_JSON15, false},
        {"{\"method\":\"disconnect\",\"sid\":\"a\"}", DIALECT_JSON15, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct message message = scan(slice_from_text(rows[i].payload));
        assert_int_equal(MESSAGE_JSON, message.encoding);
        assert_int_equal(rows[i].dialect, message.dialect);
        assert_int_equal(rows[i].is_proven, message.dialect_is_proven);
    }
}

static void test_false_rooms_are_everybody_and_equal_rooms_one(void **state)
{
    (void)state;
    static const struct {
        const char *room;
        int count; /* -1: not known */
        const char *first;
    } rows[] = {
        {"null", 0, ""},
        {"\"\"", 0, ""},
        {"0", 0, ""},
        {"0.0", 0, ""},
        {"false", 0, ""},
        {"[]", 0, ""},
        {"\"a\"", 1, "s:a"},
        {"\"\\u0061\"", 1, "s:a"},
        {"true", 1, "i:1"},
        {"1.0", 1, "i:1"},
        {"-7", 1, "i:-7"},
        {"9223372036854775807", 1, "i:9223372036854775807"},
        {"9223372036854775808", -1, ""},
        {"1.5", 1, "f:1.5"},
        {"1e400", 1, "f:inf"},
        {"NaN", -1, ""},
        {"{}", -1, ""},
        {"[\"a\",\"b\"]", 2, "s:a"},
        {"[\"a\",\"a\",\"\\u0061\"]", 1, "s:a"},
        {"[\"a\",null]", -1, ""},
        {"[\"a\",[1]]", -1, ""},
        {"[1,1.0,true]", 1, "i:1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *payload = must_printf(
            "{\"method\":\"emit\",\"namespace\":\"/\",\"room\":%s}", rows[i].room);
        struct message message = scan(slice_from_text(payload));
        assert_int_equal(rows[i].count >= 0, message.rooms_known);
        if (rows[i].count >= 0)
            assert_int_equal(rows[i].count, message.room_count);
        if (rows[i].count > 0)
            assert_true(slice_equals(slice_from_text(rows[i].first), message.rooms[0]));
        free(payload);
    }
}

static void test_addresses_are_what_the_envelope_carries(void **state)
{
    (void)state;
    struct message message = scan(SLICE(
        "{\"method\":\"enter_room\",\"namespace\":\"/\",\"room\":7,\"sid\":\"S\"}"));
    assert_int_equal(2, message.address_count);
    assert_true(slice_equals(SLICE("i:7"), message.addresses[0]));
    assert_true(slice_equals(SLICE("s:S"), message.addresses[1]));
    assert_int_equal(1, message.room_count);
    message =
        scan(SLICE("{\"method\":\"disconnect\",\"namespace\":\"/\",\"sid\":\"S\"}"));
    assert_int_equal(1, message.address_count);
    assert_true(slice_equals(SLICE("s:S"), message.addresses[0]));
    assert_int_equal(0, message.room_count);
    /* without a sid nobody knows where it goes; an empty room is a room here, None is none */
    message = scan(SLICE("{\"method\":\"disconnect\",\"namespace\":\"/\"}"));
    assert_false(message.rooms_known);
    message = scan(SLICE(
        "{\"method\":\"enter_room\",\"namespace\":\"/\",\"room\":null,\"sid\":\"S\"}"));
    assert_false(message.rooms_known);
    message = scan(SLICE("{\"method\":\"emit\",\"room\":\"a\"}"));
    assert_false(message.rooms_known);
}

static void test_bytes_that_no_reader_executes_are_opaque_and_others_refused(void **state)
{
    (void)state;
    struct message message = scan(SLICE("\xef\xbb\xbf{}"));
    assert_int_equal(MESSAGE_OPAQUE, message.encoding);
    assert_false(message_is_refused(&message));
    message = scan(SLICE("{\"method\":"));
    assert_int_equal(METHOD_OPAQUE, message.method);
    assert_false(message_is_refused(&message));
    message = scan(SLICE(""));
    assert_false(message_is_refused(&message));
    message = scan(SLICE("cos\nsystem\n(Vid\ntR."));
    assert_true(message_is_refused(&message));
    assert_false(message.is_plain);
    message = scan(SLICE("cos\nsystem\n(Vid\ntR")); /* cut, and still executed */
    assert_true(message_is_refused(&message));
    message = scan(SLICE("\x80\x05}."));
    assert_int_equal(MESSAGE_PICKLE, message.encoding);
    assert_false(message_is_refused(&message));
    struct message_policy policy = {.refuse_pickle = true, .depth_max = 256};
    message_scan(SLICE("\x80\x05}."), &policy, scratch, &message);
    assert_true(message_is_refused(&message));
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
        cmocka_unit_test(test_recorded_messages_say_what_they_say_to_python),
        cmocka_unit_test(test_dialect_is_told_by_the_data),
        cmocka_unit_test(test_false_rooms_are_everybody_and_equal_rooms_one),
        cmocka_unit_test(test_addresses_are_what_the_envelope_carries),
        cmocka_unit_test(
            test_bytes_that_no_reader_executes_are_opaque_and_others_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
