/* What was sent is kept until it is confirmed and a while longer, and never beyond its bounds. */
#include "tests/unit/unit.h"

#include "broker/envelope.h"
#include "broker/sent_ring.h"

#include <stdlib.h>
#include <time.h>

static struct chunk_writer writer;

/* A command whose envelope is all of it but the first and last byte. */
static struct sent *add(struct sent_ring *ring, uint16_t partition, uint64_t sequence,
                        uint64_t now)
{
    struct span command =
        chunk_writer_copy(&writer, SLICE("<S1\1\0 envelope and payload>"));
    return sent_ring_add(ring, partition, sequence, command, 1, (uint32_t)command.len - 2,
                         now);
}

static void test_a_message_is_found_by_partition_and_sequence(void **state UNUSED)
{
    struct sent_ring *ring = sent_ring_new(4, SECONDS(10), 1 << 20);
    struct sent *first = add(ring, 1, 1, 0);
    struct sent *second = add(ring, 1, 2, 0);
    struct sent *other = add(ring, 2, 1, 0);
    assert_ptr_equal(first, sent_ring_find(ring, 1, 1));
    assert_ptr_equal(second, sent_ring_find(ring, 1, 2));
    assert_ptr_equal(other, sent_ring_find(ring, 2, 1));
    assert_null(sent_ring_find(ring, 1, 3));
    assert_null(sent_ring_find(ring, 3, 1));
    assert_ptr_equal(first, sent_ring_first(ring));
    assert_true(slice_starts_with(sent_envelope(first), SLICE("S1")));
    sent_ring_check(ring);
    sent_ring_free(ring);
}

static void
test_what_comes_back_from_a_lost_link_is_marked_as_a_retransmission(void **state UNUSED)
{
    struct sent_ring *ring = sent_ring_new(1, SECONDS(10), 1 << 20);
    struct sent *sent = add(ring, 0, 1, 0);
    struct sent *next = add(ring, 0, 2, 0);
    assert_int_equal(0, sent_envelope(sent).data[3]);
    sent_ring_send(ring, sent);
    sent_ring_return(ring, sent);
    assert_int_equal(SENT_WAITING, sent->state);
    assert_true(sent->retransmitted);
    assert_int_equal(ENVELOPE_RETRANSMIT, sent_envelope(sent).data[3]);
    assert_int_equal(0, sent_envelope(next).data[3]);
    sent_ring_free(ring);
}

static void
test_what_is_confirmed_and_moved_waits_again_but_not_in_the_spill(void **state UNUSED)
{
    struct sent_ring *ring = sent_ring_new(1, SECONDS(10), 1 << 20);
    struct sent *sent = add(ring, 0, 1, 0);
    sent_ring_send(ring, sent);
    sent_ring_confirm(ring, sent, SECONDS(1));
    sent_ring_return(ring, sent);
    assert_int_equal(SENT_WAITING, sent->state);
    assert_int_equal(ENVELOPE_RETRANSMIT, sent_envelope(sent).data[3]);
    assert_int_equal(0, sent_ring_unconfirmed_bytes(ring));
    assert_int_equal(1, sent_ring_unconfirmed_count(ring));
    assert_null(sent_ring_next_overdue(ring, 0, SECONDS(1)));
    sent_ring_check(ring);
    sent_ring_expire(ring, SECONDS(1000));
    assert_ptr_equal(sent, sent_ring_first_of(ring, 0));
    assert_ptr_equal(sent, sent_ring_last_of(ring, 0));
    sent_ring_send(ring, sent);
    sent_ring_confirm(ring, sent, SECONDS(1001));
    assert_ptr_equal(sent, sent_ring_next_overdue(ring, 0, SECONDS(1001)));
    sent_ring_check(ring);
    sent_ring_expire(ring, SECONDS(2000));
    assert_int_equal(0, sent_ring_count(ring));
    sent_ring_free(ring);
}

static void
test_confirmed_messages_go_after_the_window_and_unconfirmed_ones_stay(void **state UNUSED)
{
    struct sent_ring *ring = sent_ring_new(1, SECONDS(10), 1 << 20);
    add(ring, 0, 1, 0); /* waits for ever */
    for (uint64_t i = 2; i <= 5; i++) {
        struct sent *sent = add(ring, 0, i, 0);
        sent_ring_send(ring, sent);
        sent_ring_confirm(ring, sent, SECONDS(100 * i)); /* which does not count */
        sent_ring_expire(ring, SECONDS(1));
    }
    sent_ring_expire(ring, SECONDS(7));
    assert_null(sent_ring_find(ring, 0, 2));
    assert_non_null(sent_ring_find(ring, 0, 3)); /* just in the window */
    sent_ring_expire(ring, SECONDS(1000));
    assert_int_equal(1, sent_ring_count(ring));
    assert_non_null(sent_ring_find(ring, 0, 1));
    assert_int_equal(0, sent_ring_confirmed_bytes(ring));
    sent_ring_check(ring);
    sent_ring_free(ring);
}

static void test_confirmed_bytes_are_bounded_and_the_oldest_go_first(void **state UNUSED)
{
    struct sent_ring *ring = sent_ring_new(1, SECONDS(10), 4096);
    for (uint64_t i = 1; i <= 200; i++) {
        struct sent *sent = add(ring, 0, i, i);
        sent_ring_send(ring, sent);
        sent_ring_confirm(ring, sent, i);
        assert_true(sent_ring_confirmed_bytes(ring) <= 4096);
        sent_ring_check(ring);
    }
    assert_non_null(sent_ring_find(ring, 0, 200));
    assert_null(sent_ring_find(ring, 0, 1));
    sent_ring_free(ring);
}

static void test_each_confirmed_message_is_overdue_once(void **state UNUSED)
{
    struct sent_ring *ring = sent_ring_new(1, SECONDS(10), 1 << 20);
    for (uint64_t i = 1; i <= 3; i++) {
        struct sent *sent = add(ring, 0, i, 0);
        sent_ring_send(ring, sent);
        sent_ring_expire(ring, SECONDS(1));
        sent_ring_confirm(ring, sent, SECONDS(i));
    }
    assert_null(sent_ring_next_overdue(ring, SECONDS(1), SECONDS(1)));
    assert_int_equal(1, sent_ring_next_overdue(ring, SECONDS(1), SECONDS(2))->sequence);
    assert_null(sent_ring_next_overdue(ring, SECONDS(1), SECONDS(2)));
    sent_ring_expire(ring, SECONDS(9) + 1); /* takes 1 and 2 */
    assert_int_equal(3, sent_ring_next_overdue(ring, SECONDS(1), SECONDS(13))->sequence);
    assert_null(sent_ring_next_overdue(ring, SECONDS(1), SECONDS(99)));
    struct sent *sent = add(ring, 0, 4, 0);
    sent_ring_send(ring, sent);
    sent_ring_confirm(ring, sent, SECONDS(20));
    assert_ptr_equal(sent, sent_ring_next_overdue(ring, SECONDS(1), SECONDS(22)));
    sent_ring_free(ring);
}

/* Any order of events keeps counts, orders and bounds. */
static void test_random_lives_of_messages_keep_the_invariants(void **state UNUSED)
{
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    struct sent_ring *ring = sent_ring_new(8, SECONDS(1), 10000);
    struct sent_queue live = TAILQ_HEAD_INITIALIZER(live);
    uint64_t next[8] = {0};
    uint64_t now = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t passed = (uint64_t)rand() % MILLISECONDS(20);
        now += passed;
        struct sent *sent = TAILQ_FIRST(&live);
        for (int skip = rand() % 4; skip > 0 && sent != NULL; skip--)
            sent = TAILQ_NEXT(sent, of_queue);
        int what = rand() % 6;
        if (what <= 1 || sent == NULL) {
            uint16_t partition = (uint16_t)(rand() % 8);
            sent = add(ring, partition, ++next[partition], now);
            TAILQ_INSERT_TAIL(&live, sent, of_queue);
        } else if (sent->state == SENT_WAITING) {
            sent_ring_send(ring, sent);
        } else if (what == 3) {
            sent_ring_return(ring, sent);
        } else {
            TAILQ_REMOVE(&live, sent, of_queue);
            sent_ring_confirm(ring, sent, now);
        }
        sent_ring_expire(ring, passed);
        if (rand() % 3 == 0)
            (void)sent_ring_next_overdue(ring, MILLISECONDS(500), now);
        sent_ring_check(ring);
        assert_true(sent_ring_confirmed_bytes(ring) <= 10000);
    }
    sent_ring_free(ring);
}

static int cleanup(void **state UNUSED)
{
    chunk_writer_cleanup(&writer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_is_found_by_partition_and_sequence),
        cmocka_unit_test(
            test_what_comes_back_from_a_lost_link_is_marked_as_a_retransmission),
        cmocka_unit_test(
            test_what_is_confirmed_and_moved_waits_again_but_not_in_the_spill),
        cmocka_unit_test(
            test_confirmed_messages_go_after_the_window_and_unconfirmed_ones_stay),
        cmocka_unit_test(test_confirmed_bytes_are_bounded_and_the_oldest_go_first),
        cmocka_unit_test(test_each_confirmed_message_is_overdue_once),
        cmocka_unit_test(test_random_lives_of_messages_keep_the_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, cleanup);
}
