/* Replies of Redis are read the same however their bytes are split, and nothing large is believed. */
#include "tests/unit/unit.h"

#include "broker/link_reader.h"

#include <stdio.h>
#include <stdlib.h>

static char seen[8192];
static bool stops;

static void on_message(void *context UNUSED, struct slice channel, struct slice payload)
{
    size_t len = strlen(seen);
    snprintf(seen + len, sizeof(seen) - len, "message %.*s %.*s|", SLICE_ARGS(channel),
             SLICE_ARGS(payload));
}

static bool on_reply(void *context UNUSED, const struct link_reply *reply)
{
    static const char *const types[] = {"other", "integer", "status", "error", "array"};
    size_t len = strlen(seen);
    if (!reply->is_message)
        snprintf(seen + len, sizeof(seen) - len, "%s %lld %.*s %.*s|", types[reply->type],
                 (long long)reply->integer, (int)reply->text_len, reply->text,
                 (int)reply->channel_len, reply->channel);
    return !stops;
}

static const struct link_reader_callbacks callbacks = {on_message, on_reply, NULL};

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
    size_t len = sizeof(input) - 1;
    for (size_t piece = 1; piece <= len; piece++) {
        struct link_reader *reader = link_reader_new(1 << 20, &callbacks);
        seen[0] = '\0';
        for (size_t at = 0; at < len; at += piece) {
            size_t part = min_size(piece, len - at);
            char *copy = guarded_copy(input + at, part);
            assert_true(link_reader_feed(reader, slice_of(copy, part)));
            guarded_free(copy, part);
        }
        assert_string_equal(expected, seen);
        link_reader_free(reader);
    }
}

static void test_what_is_not_the_protocol_is_refused(void **state UNUSED)
{
    static const char *const rows[] = {"hello\r\n", "*x\r\n", "$x\r\n", ":\r\n",
                                       "%1\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct link_reader *reader = link_reader_new(1 << 20, &callbacks);
        assert_false(link_reader_feed(reader, slice_from_text(rows[i])));
        link_reader_free(reader);
    }
}

static void test_a_reply_longer_than_the_limit_is_refused(void **state UNUSED)
{
    struct link_reader *reader = link_reader_new(10000, &callbacks);
    assert_true(link_reader_feed(reader, SLICE("$1000000\r\n")));
    char bytes[6000];
    memset(bytes, 'x', sizeof(bytes));
    assert_true(link_reader_feed(reader, slice_of(bytes, sizeof(bytes))));
    assert_false(link_reader_feed(reader, slice_of(bytes, sizeof(bytes))));
    link_reader_free(reader);
}

static void test_long_names_are_cut_and_not_overrun(void **state UNUSED)
{
    struct link_reader *reader = link_reader_new(1 << 20, &callbacks);
    char text[2100];
    memset(text, 'c', sizeof(text));
    memcpy(text, "*3\r\n$7\r\nmessage\r\n$2000\r\n", 24);
    memcpy(text + 24 + 2000, "\r\n$1\r\nx\r\n", 10);
    seen[0] = '\0';
    assert_true(link_reader_feed(reader, slice_of(text, 24 + 2000 + 9)));
    assert_int_equal(strlen("message  x|") + LINK_READER_TEXT_MAX, strlen(seen));
    link_reader_free(reader);
}

static void test_nothing_is_told_after_the_owner_said_stop(void **state UNUSED)
{
    struct link_reader *reader = link_reader_new(1 << 20, &callbacks);
    seen[0] = '\0';
    stops = true;
    assert_true(link_reader_feed(reader, SLICE(":1\r\n:2\r\n")));
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
        cmocka_unit_test(test_long_names_are_cut_and_not_overrun),
        cmocka_unit_test(test_nothing_is_told_after_the_owner_said_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
