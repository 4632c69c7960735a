/* Frame boundaries: random streams against what was written, and each rule of RFC 6455
 * 5.2 broken once. */
#include "tests/unit/unit.h"

#include "proxy/ws_frame.h"

#include <stdio.h>
#include <stdlib.h>

/* Appends a frame; gives back its length. */
static size_t write_frame(char *out, unsigned first, uint64_t len, bool is_masked)
{
    size_t at = 0;
    unsigned mask = is_masked ? 0x80 : 0;
    out[at++] = (char)first;
    if (len < 126) {
        out[at++] = (char)(mask | len);
    } else if (len < 65536) {
        out[at++] = (char)(mask | 126);
        out[at++] = (char)(len >> 8);
        out[at++] = (char)len;
    } else {
        out[at++] = (char)(mask | 127);
        for (int shift = 56; shift >= 0; shift -= 8)
            out[at++] = (char)(len >> shift);
    }
    for (size_t i = 0; is_masked && i < 4; i++)
        out[at++] = (char)random();
    for (uint64_t i = 0; i < len; i++)
        out[at++] = (char)random();
    return at;
}

static bool track(struct ws_tracker *tracker, const char *bytes, size_t len, uint64_t max,
                  struct ws_seen *seen)
{
    char *copy = guarded_copy(bytes, len);
    bool is_good = ws_track(tracker, slice_of(copy, len), max, seen);
    guarded_free(copy, len);
    return is_good;
}

static void test_random_streams_are_followed_in_any_pieces(void **state)
{
    (void)state;
    static char stream[1 << 20];
    static const uint64_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, 70000};
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    srandom(seed);
    for (unsigned round = 0; round < 40; round++) {
        enum ws_side side = round % 2 == 0 ? WS_FROM_CLIENT : WS_FROM_SERVER;
        size_t ends[16];
        size_t count = 1 + (size_t)random() % (round < 20 ? 4 : 10);
        size_t len = 0;
        uint32_t messages = 0;
        uint64_t largest = 0;
        bool in_message = false;
        for (size_t i = 0; i < count; i++) {
            uint64_t size = lengths[(size_t)random() % ARRAY_LEN(lengths)];
            bool is_control = random() % 4 == 0;
            bool is_last = random() % 2 == 0;
            unsigned first;
            if (is_control) {
                first = 0x80 | (random() % 2 == 0 ? 9 : 10);
                size = min_size(size, 125);
            } else {
                first = (is_last ? 0x80 : 0) | (in_message ? 0 : 2);
                in_message = !is_last;
                messages += is_last;
            }
            len += write_frame(stream + len, first, size, side == WS_FROM_CLIENT);
            ends[i] = len;
            largest = size > largest ? size : largest;
        }
        struct ws_tracker tracker;
        struct ws_seen total = {0};
        ws_tracker_init(&tracker, side, false);
        size_t next_end = 0;
        for (size_t at = 0; at < len;) {
            size_t piece =
                min_size(len - at, 1 + (size_t)random() % (round < 20 ? 40 : 50000));
            struct ws_seen seen;
            assert_true(track(&tracker, stream + at, piece, 0, &seen));
            size_t last = 0;
            while (next_end < count && ends[next_end] <= at + piece)
                last = ends[next_end++];
            assert_int_equal(seen.boundary, last > 0 ? last - at : 0);
            assert_int_equal(ws_tracker_is_at_boundary(&tracker), last == at + piece);
            total.frames += seen.frames;
            total.messages += seen.messages;
            total.largest = seen.largest > total.largest ? seen.largest : total.largest;
            at += piece;
        }
        assert_int_equal(total.frames, count);
        assert_int_equal(total.messages, messages);
        assert_int_equal(total.largest, largest);
    }
}

static void assert_fault(enum ws_side side, bool has_deflate, const char *bytes,
                         size_t len, uint64_t max, unsigned code)
{
    struct ws_tracker tracker;
    struct ws_seen seen;
    ws_tracker_init(&tracker, side, has_deflate);
    assert_false(track(&tracker, bytes, len, max, &seen));
    assert_int_equal(seen.fault, code);
    assert_non_null(seen.fault_text);
    assert_false(ws_tracker_is_at_boundary(&tracker));
    assert_false(ws_track(&tracker, slice_of(bytes, 0), 0, &seen));
}

#define FAULT(side, bytes) assert_fault(side, false, bytes, sizeof(bytes) - 1, 0, 1002)

static void test_every_rule_of_the_frame_header_is_checked(void **state)
{
    (void)state;
    FAULT(WS_FROM_SERVER, "\x83\x00");     /* reserved data opcode */
    FAULT(WS_FROM_SERVER, "\x8b\x00");     /* reserved control opcode */
    FAULT(WS_FROM_SERVER, "\xc1\x00");     /* RSV1 without an extension */
    FAULT(WS_FROM_SERVER, "\xa1\x00");     /* RSV2 */
    FAULT(WS_FROM_SERVER, "\x91\x00");     /* RSV3 */
    FAULT(WS_FROM_SERVER, "\x09\x00");     /* fragmented control frame */
    FAULT(WS_FROM_SERVER, "\x89\x7e");     /* control frame above 125 */
    FAULT(WS_FROM_SERVER, "\x80\x00");     /* continuation of nothing */
    FAULT(WS_FROM_SERVER, "\x01\x00\x81"); /* a message inside a message */
    FAULT(WS_FROM_SERVER, "\x81\x80");     /* masked by a server */
    FAULT(WS_FROM_CLIENT, "\x81\x00");     /* not masked by a client */
    FAULT(WS_FROM_SERVER, "\x82\x7e\x00\x7d");
    FAULT(WS_FROM_SERVER, "\x82\x7f\x80");
    FAULT(WS_FROM_SERVER, "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff");
    FAULT(WS_FROM_SERVER, "HTTP/1.1 500 "); /* a server that fell out of its role */
    assert_fault(WS_FROM_SERVER, true, "\xc9\x00", 2, 0, 1002);
    assert_fault(WS_FROM_SERVER, true, "\x41\x00\xc0", 3, 0, 1002);
    assert_fault(WS_FROM_SERVER, false, "\x81\x65", 2, 100, 1009);
    struct ws_tracker tracker;
    struct ws_seen seen;
    ws_tracker_init(&tracker, WS_FROM_SERVER, true);
    assert_true(ws_track(&tracker, SLICE("\xc1\x01z\x41\x00\x80\x00"), 1, &seen));
    assert_int_equal(seen.frames, 3);
    assert_int_equal(seen.messages, 2);
}

static void test_a_fault_tells_how_much_before_it_is_whole(void **state)
{
    (void)state;
    struct ws_tracker tracker;
    struct ws_seen seen;
    ws_tracker_init(&tracker, WS_FROM_SERVER, false);
    assert_false(ws_track(&tracker, SLICE("\x81\x01z\x83\x00"), 0, &seen));
    assert_int_equal(seen.boundary, 3);
}

static void test_a_written_close_is_a_frame_of_its_side(void **state)
{
    (void)state;
    char out[WS_CLOSE_FRAME_MAX];
    struct ws_tracker tracker;
    struct ws_seen seen;
    assert_int_equal(ws_frame_write_close(out, WS_CLOSE_RESTART, NULL), 4);
    assert_memory_equal(out, "\x88\x02\x03\xf4", 4);
    ws_tracker_init(&tracker, WS_FROM_SERVER, false);
    assert_true(track(&tracker, out, 4, 0, &seen));
    assert_true(tracker.has_close);
    static const uint8_t mask[4] = {1, 2, 3, 4};
    assert_int_equal(ws_frame_write_close(out, WS_CLOSE_GOING_AWAY, mask), 8);
    assert_memory_equal(out, "\x88\x82\x01\x02\x03\x04\x02\xeb", 8);
    ws_tracker_init(&tracker, WS_FROM_CLIENT, false);
    assert_true(track(&tracker, out, 8, 0, &seen));
    assert_int_equal(seen.boundary, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_streams_are_followed_in_any_pieces),
        cmocka_unit_test(test_every_rule_of_the_frame_header_is_checked),
        cmocka_unit_test(test_a_fault_tells_how_much_before_it_is_whole),
        cmocka_unit_test(test_a_written_close_is_a_frame_of_its_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
