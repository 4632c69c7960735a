/* Replies of Redis are read the same however their bytes are split, and nothing large is believed. */
#include "tests/unit/unit.h"

#include "broker/link_reader.h"

#include <stdio.h>
#include <stdlib.h>

static char seen[8192];
static bool stops;

static bool on_message(void *context UNUSED, struct slice channel, struct slice payload)
{
    size_t len = strlen(seen);
    snprintf(seen + len, sizeof(seen) - len, "message %.*s %.*s|", SLICE_ARGS(channel),
             SLICE_ARGS(payload));
    return !stops;
}

static bool on_too_long(void *context UNUSED, struct slice channel, struct slice start,
                        size_t len)
{
    size_t end = strlen(seen);
    snprintf(seen + end, sizeof(seen) - end, "too long %.*s %.4s %zu|",
             SLICE_ARGS(channel), start.data, len);
    return !stops;
}

static bool on_reply(void *context UNUSED, const struct link_reply *reply)
{
    static const char *const types[] = {"other", "integer", "status", "error", "array"};
    size_t len = strlen(seen);
    snprintf(seen + len, sizeof(seen) - len, "%s %lld %.*s %.*s|", types[reply->type],
             (long long)reply->integer, SLICE_ARGS(reply->text),
             SLICE_ARGS(reply->channel));
    return !stops;
}

static const struct link_reader_callbacks callbacks = {on_message, on_too_long, on_reply,
                                                       NULL};

/* As a socket would fill it: in as many reads as the room asks for. */
static bool feed(struct link_reader *reader, struct slice bytes)
{
    while (bytes.len > 0) {
        size_t size;
        char *room = link_reader_room(reader, &size);
        struct slice part = slice_to(bytes, size);
        assert_true(part.len > 0);
        memcpy(room, part.data, part.len);
        bytes = slice_from(bytes, part.len);
        if (!link_reader_take(reader, part.len))
            return false;
    }
    return true;
}

static const char input[] =
    ":42\r\n+OK\r\n-NOAUTH Authentication required.\r\n"
    "*3\r\n$9\r\nsubscribe\r\n$3\r\nabc\r\n:1\r\n"
    "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$7\r\na\r\nb\r\nc\r\n"
    "*3\r\n$6\r\nmaster\r\n:100\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n"
    "6380\r\n$3\r\n100\r\n"
    "*2\r\n$4\r\npong\r\n$0\r\n\r\n$-1\r\n*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n"
    "$0\r\n\r\n";
static const char expected[] =
    "integer 42  |status 0 OK |error 0 NOAUTH Authentication required. |"
    "array 0 subscribe abc|message ch a\r\nb\r\nc|array 0 master |array 0 pong |other 0  "
    "|"
    "message ch |";

static void test_replies_are_the_same_however_their_bytes_are_split(void **state UNUSED)
{
    static const size_t read_sizes[] = {1, 16, 4096};
    size_t len = sizeof(input) - 1;
    for (size_t i = 0; i < ARRAY_LEN(read_sizes); i++) {
        for (size_t piece = 1; piece <= len; piece++) {
            struct link_reader *reader =
                link_reader_new(read_sizes[i], 1 << 20, &callbacks);
            seen[0] = '\0';
            for (size_t at = 0; at < len; at += piece)
                assert_true(
                    feed(reader, slice_of(input + at, min_size(piece, len - at))));
            assert_string_equal(expected, seen);
            link_reader_free(reader);
        }
    }
}

static void test_what_is_not_the_protocol_is_refused(void **state UNUSED)
{
    static const char *const rows[] = {
        "hello\r\n",
        "\r\n",
        "*x\r\n",
        "*-2\r\n",
        "*70000\r\n",
        "$x\r\n",
        "$-2\r\n",
        ":\r\n",
        ":1x\r\n",
        "%1\r\n",
        "+OK\rx\n",
        "$1\r\nxy\r\n",
        "*1\r\n$1\r\nxy\r",
        "$2000000\r\n",
        "*1\r\n%1\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct link_reader *reader = link_reader_new(64, 1 << 20, &callbacks);
        assert_false(feed(reader, slice_from_text(rows[i])));
        link_reader_free(reader);
    }
}

static void test_a_reply_longer_than_the_limit_is_refused(void **state UNUSED)
{
    struct link_reader *reader = link_reader_new(64, 10000, &callbacks);
    assert_true(feed(reader, SLICE("*4\r\n$7\r\nmessage\r\n")));
    char bytes[6009];
    memcpy(bytes, "$5999\r\n", 7);
    memset(bytes + 7, 'x', 6000);
    memcpy(bytes + 6006, "\r\n", 2);
    assert_true(feed(reader, slice_of(bytes, 6008)));
    assert_false(feed(reader, slice_of(bytes, 6008)));
    link_reader_free(reader);
}

static void test_a_long_payload_comes_whole_and_its_memory_goes(void **state UNUSED)
{
    struct link_reader *reader = link_reader_new(64, 1 << 20, &callbacks);
    char text[2100];
    memset(text, 'c', sizeof(text));
    memcpy(text, "*3\r\n$7\r\nmessage\r\n$2000\r\n", 24);
    memcpy(text + 24 + 2000, "\r\n$1\r\nx\r\n", 10);
    seen[0] = '\0';
    assert_true(feed(reader, slice_of(text, 24 + 2000 + 9)));
    assert_int_equal(strlen("message  x|") + 2000, strlen(seen));
    size_t size;
    link_reader_room(reader, &size);
    assert_int_equal(64, size);
    link_reader_free(reader);
}

/* Longer than the limit: its start is shown, the rest is never kept, and what follows is read. */
static void test_a_message_over_the_limit_is_read_past(void **state UNUSED)
{
    char text[6000];
    int head =
        snprintf(text, sizeof(text), "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5000\r\n");
    memset(text + head, 'x', 5000);
    strcpy(text + head + 5000, "\r\n:1\r\n");
    size_t len = (size_t)head + 5000 + 6;
    for (size_t piece = 1; piece <= len; piece += piece < 200 ? 1 : 97) {
        struct link_reader *reader = link_reader_new(64, 1000, &callbacks);
        seen[0] = '\0';
        for (size_t at = 0; at < len; at += piece) {
            assert_true(feed(reader, slice_of(text + at, min_size(piece, len - at))));
            size_t size;
            link_reader_room(reader, &size);
            assert_true(size <= 256);
        }
        assert_string_equal("too long ch xxxx 5000|integer 1  |", seen);
        link_reader_free(reader);
    }
}

static void test_nothing_is_told_after_the_owner_said_stop(void **state UNUSED)
{
    struct link_reader *reader = link_reader_new(64, 1 << 20, &callbacks);
    seen[0] = '\0';
    stops = true;
    assert_true(feed(reader, SLICE(":1\r\n:2\r\n")));
    stops = false;
    assert_string_equal("integer 1  |", seen);
    link_reader_free(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies_are_the_same_however_their_bytes_are_split),
        cmocka_unit_test(test_what_is_not_the_protocol_is_refused),
        cmocka_unit_test(test_a_reply_longer_than_the_limit_is_refused),
        cmocka_unit_test(test_a_long_payload_comes_whole_and_its_memory_goes),
        cmocka_unit_test(test_a_message_over_the_limit_is_read_past),
        cmocka_unit_test(test_nothing_is_told_after_the_owner_said_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
