/* What waits for a socket: merged, written in order over a socket that takes little, dropped whole. */
#include "tests/unit/unit.h"

#include "broker/output.h"
#include "shared/timing.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static struct chunk_writer writer;

static void append(struct output *output, const char *text, bool droppable, uint64_t now)
{
    output_append(output, chunk_writer_copy(&writer, slice_from_text(text)), droppable,
                  now);
}

/* A pair of sockets of which ours is non-blocking and has a small buffer. */
static void open_pair(struct stream *ours, int *theirs)
{
    int fds[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    int size = 4096;
    assert_int_equal(0, setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
    stream_init(ours, fds[0]);
    *theirs = fds[1];
}

static void test_a_burst_is_one_entry_and_other_kinds_are_not_merged(void **state UNUSED)
{
    struct output output = {0};
    append(&output, "one", true, 0);
    append(&output, "two", true, 0);
    assert_int_equal(1, output.count);
    assert_int_equal(2, output.entries[0].messages);
    append(&output, "reply", false, 0);
    append(&output, "three", true, 0);
    assert_int_equal(3, output.count);
    append(&output, "late", true, SECONDS(2));
    assert_int_equal(4, output.count); /* or its age would be hidden */
    assert_int_equal(3 + 3 + 5 + 5 + 4, output.bytes);
    assert_int_equal(SECONDS(5), output_age(&output, SECONDS(5)));
    output_cleanup(&output);
}

static void
test_all_bytes_come_out_in_order_however_little_the_socket_takes(void **state UNUSED)
{
    struct stream stream;
    int theirs;
    open_pair(&stream, &theirs);
    struct output output = {0};
    size_t queued = 0;
    size_t seen = 0;
    unsigned char expected = 0;
    bool done = false;
    srand(1);
    for (int round = 0; !done; round++) {
        for (int i = 0; round < 300 && i < 5; i++) {
            size_t len = (size_t)(rand() % 3000);
            char *room = chunk_writer_reserve(&writer, len);
            for (size_t k = 0; k < len; k++)
                room[k] = (char)(queued + k);
            output_append(&output, chunk_writer_commit(&writer, len), rand() % 2, 0);
            queued += len;
        }
        size_t wrote = 0;
        size_t before = output.bytes;
        enum output_result result = output_write(&output, &stream, &wrote);
        assert_int_not_equal(OUTPUT_BROKEN, result);
        assert_int_equal(before - wrote, output.bytes);
        char bytes[4096];
        ssize_t len = read(theirs, bytes, (size_t)(rand() % 4096) + 1);
        for (ssize_t k = 0; k < len; k++)
            assert_int_equal(expected++, (unsigned char)bytes[k]);
        seen += len > 0 ? (size_t)len : 0;
        done = round >= 300 && seen == queued;
    }
    assert_int_equal(0, output.bytes);
    assert_null(output.entries); /* its memory is given back */
    stream_close(&stream);
    close(theirs);
    output_cleanup(&output);
}

static void test_messages_are_counted_and_replies_are_not(void **state UNUSED)
{
    struct output output = {0};
    assert_int_equal(0, output_messages(&output));
    for (int i = 0; i < 5; i++)
        output_append(&output, chunk_writer_copy(&writer, SLICE("message")), true, 0);
    output_append(&output, chunk_writer_copy(&writer, SLICE("+OK")), false, 0);
    output_append(&output, chunk_writer_copy(&writer, SLICE("message")), true, 0);
    assert_int_equal(6, output_messages(&output));
    output.written =
        2 * strlen("message") + 1; /* two of them are out, and a byte of the third */
    assert_int_equal(4, output_messages(&output));
    output.written = 0;
    output_cleanup(&output);
}

static void test_a_lost_peer_is_told(void **state UNUSED)
{
    struct stream stream;
    int theirs;
    open_pair(&stream, &theirs);
    close(theirs);
    struct output output = {0};
    append(&output, "x", true, 0);
    size_t wrote = 0;
    assert_int_equal(OUTPUT_BROKEN, output_write(&output, &stream, &wrote));
    assert_int_equal(EPIPE, errno);
    stream_close(&stream);
    output_cleanup(&output);
}

static void
test_the_oldest_deliveries_are_dropped_and_replies_are_not(void **state UNUSED)
{
    struct output output = {0};
    append(&output, "begun ", true, 0); /* may be half written: it stays */
    append(&output, "+OK\r\n", false, 0);
    for (int i = 0; i < 10; i++) {
        append(&output, "message ", true, SECONDS(2) * (uint64_t)(i + 1));
        append(&output, "m ", true, SECONDS(2) * (uint64_t)(i + 1));
    }
    size_t bytes = 0;
    assert_int_equal(2, output_drop_oldest(&output, SIZE_MAX, SECONDS(3), 0, &bytes));
    bytes = 0;
    assert_int_equal(2 * 6, output_drop_oldest(&output, 45, 0, 0, &bytes));
    assert_int_equal(60, bytes);
    assert_int_equal(6 + 5 + 30, output.bytes);
    assert_int_equal(5, output.count);
    assert_false(output.entries[(output.first + 1) % output.capacity].droppable);
    assert_int_equal(6, output_drop_oldest(&output, 0, 0, 0, &bytes));
    assert_int_equal(11, output.bytes); /* the first, and the reply */
    output_cleanup(&output);
}

static void test_what_tls_may_have_sealed_is_not_dropped(void **state UNUSED)
{
    struct output output = {0};
    for (int i = 0; i < 10; i++)
        append(&output, "ten bytes ", true, SECONDS(2) * (uint64_t)(i + 1));
    output.written = 4;
    output.bytes -= 4;
    size_t bytes = 0;
    assert_int_equal(6,
                     output_drop_oldest(&output, 0, 0, 30, &bytes)); /* 6 + 10 + 10 + 4 */
    assert_int_equal(36, output.bytes);
    assert_int_equal(4, output.count);
    output.written = 0;
    output_cleanup(&output);
}

static void test_a_chunk_is_used_again_once_nobody_holds_a_part_of_it(void **state UNUSED)
{
    struct chunk_writer own = {0};
    struct output output = {0};
    struct span span = chunk_writer_copy(&own, SLICE("abc"));
    struct chunk *chunk = span.chunk;
    output_append(&output, span, true, 0);
    chunk_writer_rewind(&own);
    assert_int_equal(3, chunk->len);
    output_clear(&output);
    chunk_writer_rewind(&own);
    assert_int_equal(0, chunk->len);
    /* A large message has a chunk of its own, which is not kept. */
    size_t large = 1 << 20;
    memset(chunk_writer_reserve(&own, large), 'x', large);
    chunk_writer_commit(&own, large);
    chunk_writer_rewind(&own);
    assert_null(own.chunk);
    output_cleanup(&output);
    chunk_writer_cleanup(&own);
}

static int setup(void **state UNUSED)
{
    return signal(SIGPIPE, SIG_IGN) == SIG_ERR;
}

static int cleanup(void **state UNUSED)
{
    chunk_writer_cleanup(&writer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_are_counted_and_replies_are_not),
        cmocka_unit_test(test_a_burst_is_one_entry_and_other_kinds_are_not_merged),
        cmocka_unit_test(
            test_all_bytes_come_out_in_order_however_little_the_socket_takes),
        cmocka_unit_test(test_a_lost_peer_is_told),
        cmocka_unit_test(test_the_oldest_deliveries_are_dropped_and_replies_are_not),
        cmocka_unit_test(test_what_tls_may_have_sealed_is_not_dropped),
        cmocka_unit_test(test_a_chunk_is_used_again_once_nobody_holds_a_part_of_it),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
