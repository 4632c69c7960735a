/*
 * Proves that the envelope's bytes are the frozen ones, that writing and reading are inverse, and that an
 * envelope cut anywhere, with bytes behind it, or of a later version is told apart.
 */
#include "tests/unit/unit.h"

#include "broker/envelope.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>

static const struct slice rooms[] = {SLICE_INIT("s:lobby"), SLICE_INIT("i:42")};

static struct envelope full(void)
{
    struct envelope envelope = {
        .flags = ENVELOPE_HAS_HOST | ENVELOPE_HAS_CALLBACK | ENVELOPE_PLAIN,
        .method = 4,
        .dialect = 2,
        .partition = 0x0fa1,
        .map = 0xdeadbeef,
        .origin = 0x0102030405060708,
        .sequence = 0x1112131415161718,
        .message_id = 0x2122232425262728,
        .channel = SLICE("flask-socketio"),
        .namespace = SLICE("/chat"),
        .rooms_known = true,
        .room_count = 2,
        .rooms = rooms,
        .payload = SLICE("payload"),
    };
    assert_true(envelope_host_id_parse(SLICE("0123456789abcdef0123456789abcdef"),
                                       envelope.host_id));
    return envelope;
}

/* Header and payload in hex. */
static char *written(const struct envelope *envelope, struct slice *bytes)
{
    size_t size = envelope_size(envelope);
    assert_true(size > 0);
    char *raw = must_calloc(1, size + envelope->payload.len);
    envelope_write_bytes(envelope, raw);
    if (envelope->payload.len > 0)
        memcpy(raw + size, envelope->payload.data, envelope->payload.len);
    *bytes = slice_of(raw, size + envelope->payload.len);
    char *hex = must_calloc(1, 2 * bytes->len + 1);
    for (size_t i = 0; i < bytes->len; i++)
        sprintf(hex + 2 * i, "%02x", (unsigned char)bytes->data[i]);
    return hex;
}

static void test_bytes_are_frozen(void **state)
{
    (void)state;
    struct slice bytes;
    struct envelope envelope = full();
    char *hex = written(&envelope, &bytes);
    assert_string_equal("5331" /* S1 */ "01"
                        "0e"
                        "04"
                        "02"
                        "a10f"
                        "efbeadde"
                        "0807060504030201"
                        "1817161514131211"
                        "2827262524232221"
                        "0123456789abcdef0123456789abcdef"
                        "0e"
                        "666c61736b2d736f636b6574696f"
                        "0500"
                        "2f63686174"
                        "0200"
                        "0700"
                        "733a6c6f626279"
                        "0400"
                        "693a3432"
                        "07000000"
                        "7061796c6f6164",
                        hex);
    free(hex);
    free((void *)(uintptr_t)bytes.data);
    struct envelope least = {.method = 6, .dialect = 3, .channel = SLICE("c")};
    hex = written(&least, &bytes);
    assert_string_equal("5331"
                        "01"
                        "00"
                        "06"
                        "03"
                        "0000"
                        "00000000"
                        "0000000000000000"
                        "0000000000000000"
                        "0000000000000000"
                        "01"
                        "63"
                        "0000"
                        "ffff"
                        "00000000",
                        hex);
    free(hex);
    free((void *)(uintptr_t)bytes.data);
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    struct envelope envelope = full();
    struct evbuffer *out = evbuffer_new();
    assert_true(envelope_write(&envelope, out));
    assert_int_equal(envelope_size(&envelope), evbuffer_get_length(out));
    evbuffer_add(out, envelope.payload.data, envelope.payload.len);
    size_t len = evbuffer_get_length(out);
    char *guarded = guarded_copy(evbuffer_pullup(out, -1), len);
    struct envelope read;
    assert_int_equal(ENVELOPE_OK, envelope_parse(slice_of(guarded, len), &read));
    assert_int_equal(envelope.flags, read.flags);
    assert_int_equal(envelope.method, read.method);
    assert_int_equal(envelope.dialect, read.dialect);
    assert_int_equal(envelope.partition, read.partition);
    assert_int_equal(envelope.map, read.map);
    assert_true(envelope.origin == read.origin && envelope.sequence == read.sequence &&
                envelope.message_id == read.message_id);
    assert_memory_equal(envelope.host_id, read.host_id, ENVELOPE_HOST_ID_LEN);
    assert_true(slice_equals(envelope.channel, read.channel));
    assert_true(slice_equals(envelope.namespace, read.namespace));
    assert_true(slice_equals(envelope.payload, read.payload));
    assert_true(read.rooms_known);
    assert_int_equal(2, read.room_count);
    struct slice rest = read.room_bytes;
    struct slice room;
    for (size_t i = 0; i < ARRAY_LEN(rooms); i++) {
        assert_true(envelope_next_room(&rest, &room));
        assert_true(slice_equals(rooms[i], room));
    }
    assert_false(envelope_next_room(&rest, &room));
    guarded_free(guarded, len);
    evbuffer_free(out);
}

static void test_only_whole_envelopes_are_read(void **state)
{
    (void)state;
    struct slice bytes;
    struct envelope envelope = full();
    struct envelope read;
    free(written(&envelope, &bytes));
    for (size_t len = 0; len < bytes.len; len++) {
        char *guarded = guarded_copy(bytes.data, len);
        assert_int_equal(ENVELOPE_BAD, envelope_parse(slice_of(guarded, len), &read));
        guarded_free(guarded, len);
    }
    char *longer = must_calloc(1, bytes.len + 1);
    memcpy(longer, bytes.data, bytes.len);
    assert_int_equal(ENVELOPE_BAD,
                     envelope_parse(slice_of(longer, bytes.len + 1), &read));
    longer[2] = 2;
    assert_int_equal(ENVELOPE_UNKNOWN_VERSION,
                     envelope_parse(slice_of(longer, bytes.len + 1), &read));
    longer[1] = '2';
    assert_int_equal(ENVELOPE_BAD, envelope_parse(slice_of(longer, bytes.len), &read));
    free(longer);
    free((void *)(uintptr_t)bytes.data);
}

static void test_rooms_that_are_not_known_are_not_everybody(void **state)
{
    (void)state;
    struct slice bytes;
    struct envelope read;
    struct envelope envelope = {.rooms_known = true, .payload = SLICE("x")};
    free(written(&envelope, &bytes));
    assert_int_equal(ENVELOPE_OK, envelope_parse(bytes, &read));
    assert_true(read.rooms_known && read.room_count == 0);
    free((void *)(uintptr_t)bytes.data);
    envelope.rooms_known = false;
    free(written(&envelope, &bytes));
    assert_int_equal(ENVELOPE_OK, envelope_parse(bytes, &read));
    assert_false(read.rooms_known);
    free((void *)(uintptr_t)bytes.data);
}

static void test_fields_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    char *text = must_calloc(1, 65536);
    struct slice room = slice_of(text, 65536);
    struct envelope envelope = {.channel = slice_of(text, 256)};
    assert_int_equal(0, envelope_size(&envelope));
    envelope = (struct envelope){.namespace = slice_of(text, 65536)};
    assert_int_equal(0, envelope_size(&envelope));
    envelope = (struct envelope){.rooms_known = true, .rooms = &room, .room_count = 1};
    assert_int_equal(0, envelope_size(&envelope));
    room.len--;
    assert_true(envelope_size(&envelope) > 65535);
    free(text);
}

static void test_host_ids_are_32_lower_case_hex_digits(void **state)
{
    (void)state;
    uint8_t host_id[ENVELOPE_HOST_ID_LEN];
    char text[32];
    const char *good = "0123456789abcdef00ff00ff00ff00ff";
    assert_true(envelope_host_id_parse(slice_from_text(good), host_id));
    envelope_host_id_write(host_id, text);
    assert_memory_equal(good, text, sizeof(text));
    assert_false(
        envelope_host_id_parse(SLICE("0123456789ABCDEF0123456789ABCDEF"), host_id));
    assert_false(
        envelope_host_id_parse(SLICE("0123456789abcdef0123456789abcde"), host_id));
    assert_false(
        envelope_host_id_parse(SLICE("0123456789abcdef0123456789abcdeg"), host_id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_frozen),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_only_whole_envelopes_are_read),
        cmocka_unit_test(test_rooms_that_are_not_known_are_not_everybody),
        cmocka_unit_test(test_fields_that_do_not_fit_are_refused),
        cmocka_unit_test(test_host_ids_are_32_lower_case_hex_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
