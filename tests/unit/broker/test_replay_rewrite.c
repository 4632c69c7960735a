/*
 * Proves that what waits for a pod is rewritten message by message, in the frame it had, and that what is no message stays
 * as it is.
 */
#include "tests/unit/unit.h"

#include "broker/replay_rewrite.h"

#include <stdio.h>

#define PICKLE                                                                           \
    "\x80\x04}(\x8c\x06method\x8c\x04"                                                   \
    "emit\x8c\x05"                                                                       \
    "event\x8c\x02"                                                                      \
    "ev\x8c\x04"                                                                         \
    "data\x8c\x01xu."
#define PICKLE_LEN (sizeof(PICKLE) - 1)

static bool carries_messages(void *context UNUSED, struct slice channel)
{
    return slice_equals(channel, SLICE("socketio"));
}

/* The frame of one message. */
static size_t frame(char *out, size_t size, const char *head, const char *channel,
                    struct slice payload)
{
    int len = snprintf(out, size, "%s$%zu\r\n%s\r\n$%zu\r\n", head, strlen(channel),
                       channel, payload.len);
    memcpy(out + len, payload.data, payload.len);
    memcpy(out + (size_t)len + payload.len, "\r\n", 2);
    return (size_t)len + payload.len + 2;
}

static void test_each_message_is_written_in_the_new_dialect(void **state UNUSED)
{
    static const char *const heads[] = {"*3\r\n$7\r\nmessage\r\n",
                                        ">3\r\n$7\r\nmessage\r\n",
                                        "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n"};
    const struct slice json15 = SLICE("{\"method\": \"emit\", \"event\": \"ev\", "
                                      "\"data\": [\"x\"], \"binary\": false}");
    struct replay_rewrite *rewrite = replay_rewrite_new(64, 4096, carries_messages, NULL);
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        char bytes[1024];
        char wanted[1024];
        size_t len = 0;
        const struct slice pickle = slice_of(PICKLE, PICKLE_LEN);
        len += frame(bytes + len, 512, heads[i], "socketio", pickle);
        len += frame(bytes + len, 512, heads[i], "other", pickle);
        struct slice rest = slice_of(bytes, len);
        struct span message;
        const char *why = NULL;
        assert_true(replay_rewrite_next(rewrite, &rest, DIALECT_PICKLE, DIALECT_JSON15,
                                        &message, &why));
        size_t wanted_len = frame(wanted, sizeof(wanted), heads[i], "socketio", json15);
        assert_int_equal(wanted_len, message.len);
        assert_memory_equal(wanted, span_bytes(message).data, wanted_len);
        assert_true(replay_rewrite_next(rewrite, &rest, DIALECT_PICKLE, DIALECT_JSON15,
                                        &message, &why));
        wanted_len = frame(wanted, sizeof(wanted), heads[i], "other", pickle);
        assert_int_equal(wanted_len, message.len);
        assert_memory_equal(wanted, span_bytes(message).data, wanted_len);
        assert_int_equal(0, rest.len);
    }
    replay_rewrite_free(rewrite);
}

static void test_what_has_no_form_there_is_missed_and_told(void **state UNUSED)
{
    char bytes[1024];
    struct replay_rewrite *rewrite = replay_rewrite_new(64, 32, carries_messages, NULL);
    const char *head = "*3\r\n$7\r\nmessage\r\n";
    size_t len =
        frame(bytes, sizeof(bytes), head, "socketio", slice_of(PICKLE, PICKLE_LEN));
    len += frame(bytes + len, 512, head, "socketio", SLICE("hello"));
    struct slice rest = slice_of(bytes, len);
    struct span message;
    const char *why = NULL;
    assert_false(replay_rewrite_next(rewrite, &rest, DIALECT_PICKLE, DIALECT_JSON15,
                                     &message, &why));
    assert_non_null(strstr(why, "longer than 32 bytes"));
    assert_true(replay_rewrite_next(rewrite, &rest, DIALECT_PICKLE, DIALECT_JSON15,
                                    &message, &why));
    assert_int_equal(0, rest.len);
    replay_rewrite_free(rewrite);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_message_is_written_in_the_new_dialect),
        cmocka_unit_test(test_what_has_no_form_there_is_missed_and_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
