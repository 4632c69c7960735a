/* What is replayed begins behind the last message that was acknowledged whole, and holds no replies. */
#include "tests/unit/unit.h"

#include "broker/replay.h"

#define MESSAGE "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
#define LEN     (sizeof(MESSAGE) - 1)

static struct chunk_writer writer;

static void append(struct replay *replay, unsigned messages)
{
    for (unsigned i = 0; i < messages; i++)
        replay_append(replay, chunk_writer_copy(&writer, SLICE(MESSAGE)), true);
}

static unsigned take_all(struct replay *replay)
{
    unsigned count = 0;
    struct span span;
    while (replay_take(replay, &span)) {
        count += replay_count_messages(span_bytes(span));
        span_release(span);
    }
    assert_int_equal(0, replay->bytes);
    return count;
}

static void
test_every_place_of_the_acknowledgement_keeps_whole_messages(void **state UNUSED)
{
    for (size_t acknowledged = 0; acknowledged <= 5 * LEN; acknowledged++) {
        struct replay replay = {0};
        append(&replay, 5);
        replay_trim(&replay, acknowledged);
        replay_end(&replay);
        assert_int_equal(5 - acknowledged / LEN, take_all(&replay));
        replay_cleanup(&replay);
    }
}

static void test_messages_that_are_handled_are_forgotten_by_count(void **state UNUSED)
{
    for (unsigned seen = 0; seen <= 7; seen++) {
        struct replay replay = {0};
        append(&replay, 2);
        replay_append(&replay, chunk_writer_copy(&writer, SLICE("+PONG\r\n")), false);
        append(&replay, 3);
        replay_trim_messages(&replay, seen / 2);
        replay_trim_messages(&replay, seen);
        replay_trim_messages(&replay, seen / 3); /* late: no effect */
        replay_end(&replay);
        assert_int_equal(seen < 5 ? 5 - seen : 0, take_all(&replay));
        replay_cleanup(&replay);
    }
}

static void test_trimming_in_steps_is_the_same_as_at_once(void **state UNUSED)
{
    struct replay replay = {0};
    for (unsigned i = 1; i <= 1000; i++) {
        append(&replay, 1);
        replay_trim(&replay, (i - 1) * LEN / 2);
    }
    assert_true(replay.begin <= 999 * LEN / 2);
    assert_int_equal(1000 - 999 / 2, take_all(&replay));
    replay_cleanup(&replay);
}

static void test_replies_count_as_bytes_and_are_not_replayed(void **state UNUSED)
{
    struct replay replay = {0};
    replay_append(&replay, chunk_writer_copy(&writer, SLICE("+PONG\r\n")), false);
    append(&replay, 2);
    replay_append(&replay, chunk_writer_copy(&writer, SLICE("+PONG\r\n")), false);
    append(&replay, 2);
    assert_int_equal(4, replay_messages(&replay));
    replay_trim(&replay, 3); /* a part of the reply */
    replay_trim(&replay, 7 + LEN);
    replay_end(&replay);
    assert_int_equal(3, take_all(&replay));
    replay_cleanup(&replay);
}

static int cleanup(void **state UNUSED)
{
    chunk_writer_cleanup(&writer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_place_of_the_acknowledgement_keeps_whole_messages),
        cmocka_unit_test(test_messages_that_are_handled_are_forgotten_by_count),
        cmocka_unit_test(test_trimming_in_steps_is_the_same_as_at_once),
        cmocka_unit_test(test_replies_count_as_bytes_and_are_not_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, cleanup);
}
