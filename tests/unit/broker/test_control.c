/*
 * Proves that the bytes of control messages are the frozen ones, that writing and reading are inverse, and that
 * a message cut anywhere, with bytes behind it, out of bounds, of a later version or kind is told apart.
 */
#include "tests/unit/unit.h"

#include "broker/control.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>

#define SENDER 0x0102030405060708
#define NUMBER 0x1112131415161718
#define HEADER(kind)                                                                     \
    "5343"                                                                               \
    "01" kind "0807060504030201"                                                         \
    "1817161514131211"
#define FACTS                                                                            \
    "01"                                                                                 \
    "e803000000000000"                                                                   \
    "efbeadde00000000"                                                                   \
    "efbeadde01000000"                                                                   \
    "01"                                                                                 \
    "efbeadde00000000"                                                                   \
    "02"                                                                                 \
    "0161"                                                                               \
    "026262"                                                                             \
    "0100"                                                                               \
    "a10f"                                                                               \
    "0700000000000000"                                                                   \
    "0100"                                                                               \
    "046e657773"                                                                         \
    "03000000"

/* The lists of a full message, kept by the buffers that they lie in. */
struct parts {
    struct evbuffer *carries, *subscribed, *tails, *generic, *ranges, *places;
};

static struct control_list list_of(struct evbuffer *buffer, size_t count)
{
    size_t len = evbuffer_get_length(buffer);
    return (struct control_list){count, slice_of(evbuffer_pullup(buffer, -1), len)};
}

static struct control make(struct parts *parts, enum control_kind kind)
{
    struct evbuffer **all = (struct evbuffer **)parts;
    for (size_t i = 0; i < sizeof(*parts) / sizeof(*all); i++)
        all[i] = evbuffer_new();
    control_add_hash(parts->carries, 0xdeadbeef);
    control_add_name(parts->subscribed, SLICE("a"));
    control_add_name(parts->subscribed, SLICE("bb"));
    control_add_position(parts->tails, 0x0fa1, 7);
    control_add_channel(parts->generic, SLICE("news"), 3);
    control_add_range(parts->ranges, 0x0fa1, 5, 200);
    control_add_range(parts->ranges, 1, 1, 1);
    control_add_position(parts->places, 2, 9);
    return (struct control){
        .kind = (uint8_t)kind,
        .sender = SENDER,
        .number = NUMBER,
        .facts = {.flags = CONTROL_READY,
                  .age = 1000,
                  .used = 0xdeadbeef,
                  .loaded = 0x1deadbeef,
                  .carries = list_of(parts->carries, 1),
                  .subscribed = list_of(parts->subscribed, 2),
                  .tails = list_of(parts->tails, 1),
                  .generic = list_of(parts->generic, 1)},
        .shard = SLICE("bb"),
        .ranges = list_of(parts->ranges, 2),
        .question = 4,
        .places = list_of(parts->places, 1),
        .message_id = 6,
    };
}

static void parts_free(struct parts *parts)
{
    struct evbuffer **all = (struct evbuffer **)parts;
    for (size_t i = 0; i < sizeof(*parts) / sizeof(*all); i++)
        evbuffer_free(all[i]);
}

static char *hex_of(struct evbuffer *out)
{
    size_t len = evbuffer_get_length(out);
    const unsigned char *bytes = evbuffer_pullup(out, -1);
    char *hex = must_calloc(1, 2 * len + 1);
    for (size_t i = 0; i < len; i++)
        sprintf(hex + 2 * i, "%02x", bytes[i]);
    return hex;
}

static const struct {
    enum control_kind kind;
    const char *hex;
} golden[] = {
    {CONTROL_HEARTBEAT, HEADER("01") FACTS},
    {CONTROL_ASK, HEADER("02") "026262"
                               "0200"
                               "a10f"
                               "0500000000000000"
                               "c800"
                               "0100"
                               "0100000000000000"
                               "0100"},
    {CONTROL_WHERE, HEADER("03") "026262"},
    {CONTROL_POSITIONS, HEADER("04") "0400000000000000" FACTS "0100"
                                     "0200"
                                     "0900000000000000"},
    {CONTROL_GONE, HEADER("05") "0200"
                                "a10f"
                                "0500000000000000"
                                "c800"
                                "0100"
                                "0100000000000000"
                                "0100"},
    {CONTROL_JOINED, HEADER("06") "0600000000000000"},
};

static void test_bytes_are_frozen(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        struct parts parts;
        struct control control = make(&parts, golden[i].kind);
        struct evbuffer *out = evbuffer_new();
        control_write(&control, out);
        char *hex = hex_of(out);
        assert_string_equal(golden[i].hex, hex);
        free(hex);
        evbuffer_free(out);
        parts_free(&parts);
    }
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        struct parts parts;
        struct control control = make(&parts, golden[i].kind);
        struct evbuffer *out = evbuffer_new();
        struct evbuffer *again = evbuffer_new();
        control_write(&control, out);
        size_t len = evbuffer_get_length(out);
        char *guarded = guarded_copy(evbuffer_pullup(out, -1), len);
        struct control read;
        assert_int_equal(CONTROL_OK, control_parse(slice_of(guarded, len), &read));
        assert_true(read.sender == SENDER && read.number == NUMBER);
        control_write(&read, again);
        assert_int_equal(len, evbuffer_get_length(again));
        assert_memory_equal(guarded, evbuffer_pullup(again, -1), len);
        guarded_free(guarded, len);
        evbuffer_free(out);
        evbuffer_free(again);
        parts_free(&parts);
    }
}

static void test_only_whole_messages_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        struct parts parts;
        struct control control = make(&parts, golden[i].kind);
        struct evbuffer *out = evbuffer_new();
        control_write(&control, out);
        evbuffer_add(out, "x", 1);
        size_t len = evbuffer_get_length(out) - 1;
        char *bytes = (char *)evbuffer_pullup(out, -1);
        for (size_t cut = 0; cut < len; cut++) {
            char *guarded = guarded_copy(bytes, cut);
            assert_int_equal(CONTROL_BAD,
                             control_parse(slice_of(guarded, cut), &control));
            guarded_free(guarded, cut);
        }
        assert_int_equal(CONTROL_BAD, control_parse(slice_of(bytes, len + 1), &control));
        bytes[3] = 7;
        assert_int_equal(CONTROL_UNKNOWN_KIND,
                         control_parse(slice_of(bytes, len), &control));
        bytes[2] = 2;
        assert_int_equal(CONTROL_UNKNOWN_VERSION,
                         control_parse(slice_of(bytes, len), &control));
        bytes[1] = '1';
        assert_int_equal(CONTROL_BAD, control_parse(slice_of(bytes, len), &control));
        evbuffer_free(out);
        parts_free(&parts);
    }
}

/* One range of an ask, from its numbers. */
static enum control_result ask_of(uint64_t first, unsigned count)
{
    char bytes[64] = "SC\x01\x02";
    size_t len = 20;
    bytes[len++] = 0; /* no shard */
    bytes[len++] = 1;
    bytes[len++] = 0;
    len += 2; /* partition 0 */
    for (int i = 0; i < 8; i++)
        bytes[len++] = (char)(first >> (8 * i));
    bytes[len++] = (char)count;
    bytes[len++] = (char)(count >> 8);
    struct control control;
    return control_parse(slice_of(bytes, len), &control);
}

static void test_ranges_have_bounds(void **state)
{
    (void)state;
    assert_int_equal(CONTROL_OK, ask_of(1, 1));
    assert_int_equal(CONTROL_OK, ask_of(1, CONTROL_RANGE_MAX));
    assert_int_equal(CONTROL_BAD, ask_of(0, 1));
    assert_int_equal(CONTROL_BAD, ask_of(1, 0));
    assert_int_equal(CONTROL_BAD, ask_of(1, CONTROL_RANGE_MAX + 1));
    assert_int_equal(CONTROL_BAD, ask_of(UINT64_MAX, 1));
}

static void test_an_ask_has_at_most_so_many_ranges(void **state)
{
    (void)state;
    for (unsigned count = CONTROL_RANGES_MAX; count <= CONTROL_RANGES_MAX + 1; count++) {
        struct evbuffer *ranges = evbuffer_new();
        for (unsigned i = 0; i < count; i++)
            control_add_range(ranges, (uint16_t)i, 1, 1);
        struct control control = {.kind = CONTROL_ASK, .ranges = list_of(ranges, count)};
        struct evbuffer *out = evbuffer_new();
        control_write(&control, out);
        size_t len = evbuffer_get_length(out);
        struct control read;
        assert_int_equal(count > CONTROL_RANGES_MAX ? CONTROL_BAD : CONTROL_OK,
                         control_parse(slice_of(evbuffer_pullup(out, -1), len), &read));
        evbuffer_free(ranges);
        evbuffer_free(out);
    }
}

static void test_a_place_is_taken_off_a_name(void **state UNUSED)
{
    struct evbuffer *list = evbuffer_new();
    char longest[255];
    memset(longest, 'a', sizeof(longest));
    control_add_place(list, SLICE("a"), UINT64_C(0xfedcba9876543210));
    control_add_place(list, slice_of(longest, 239), 1); /* has no room for it */
    control_add_place(list, slice_of(longest, 238), 1);
    size_t len = evbuffer_get_length(list);
    assert_int_equal(1 + 18 + 1 + 255, len);
    struct control_list names = {2, slice_of((char *)evbuffer_pullup(list, -1), len)};
    struct slice name;
    uint64_t place;
    assert_true(control_next_name(&names, &name));
    assert_memory_equal("a\nfedcba9876543210", name.data, name.len);
    assert_true(control_take_place(&name, &place));
    assert_true(slice_equals(name, SLICE("a")) && place == UINT64_C(0xfedcba9876543210));
    assert_false(control_take_place(&name, &place));
    assert_true(control_next_name(&names, &name));
    assert_true(control_take_place(&name, &place));
    assert_true(name.len == 238 && place == 1);
    static const char *const without[] = {"", "\n0123456789abcdef", "a\n0123456789abcdeF",
                                          "a 0123456789abcdef"};
    for (size_t i = 0; i < ARRAY_LEN(without); i++) {
        name = slice_from_text(without[i]);
        assert_false(control_take_place(&name, &place));
    }
    evbuffer_free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_place_is_taken_off_a_name),
        cmocka_unit_test(test_bytes_are_frozen),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_only_whole_messages_are_read),
        cmocka_unit_test(test_ranges_have_bounds),
        cmocka_unit_test(test_an_ask_has_at_most_so_many_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
