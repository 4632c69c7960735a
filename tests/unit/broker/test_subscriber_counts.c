/* Counts of other brokers: the newest of each that is live, whole lists and parts in turn. */
#include "tests/unit/unit.h"

#include "broker/interest.h"
#include "broker/peers.h"
#include "broker/subscriber_counts.h"

#include <event2/buffer.h>
#include <stdio.h>

static void on_target(void *context UNUSED, struct interest_target *target UNUSED)
{
}

static const struct interest_callbacks callbacks = {on_target, on_target, NULL};

static void hear(struct subscriber_counts *counts, uint64_t origin, const char *name,
                 uint32_t count, bool is_part, uint64_t now)
{
    struct evbuffer *out = evbuffer_new();
    if (name != NULL)
        control_add_channel(out, slice_from_text(name), count);
    size_t len = evbuffer_get_length(out);
    struct slice bytes = len > 0 ? slice_of(evbuffer_pullup(out, -1), len) : SLICE("");
    subscriber_counts_hear(
        counts, origin, (struct control_list){name != NULL ? 1 : 0, bytes}, is_part, now);
    evbuffer_free(out);
}

static void count_channel(void *context, struct slice channel UNUSED)
{
    ++*(unsigned *)context;
}

static unsigned channels(const struct subscriber_counts *counts, uint64_t now)
{
    unsigned count = 0;
    subscriber_counts_walk(counts, now, count_channel, &count);
    return count;
}

static void test_the_newest_of_each_live_broker_is_summed(void **state UNUSED)
{
    struct subscriber_counts *counts = subscriber_counts_new(NULL);
    hear(counts, 1, "news", 3, false, 1);
    hear(counts, 2, "news", 4, false, 1);
    assert_int_equal(7, subscriber_counts_of(counts, SLICE("news"), 2));
    assert_int_equal(0, subscriber_counts_of(counts, SLICE("new"), 2));
    assert_int_equal(1, channels(counts, 2));
    hear(counts, 1, "old", 1, false, SECONDS(4));
    assert_int_equal(4, subscriber_counts_of(counts, SLICE("news"), SECONDS(4)));
    assert_int_equal(2, channels(counts, SECONDS(4)));
    /* 2 is not live any more */
    assert_int_equal(0,
                     subscriber_counts_of(counts, SLICE("news"), SECONDS(4) + PEER_LIVE));
    subscriber_counts_forget(counts, 1);
    assert_int_equal(0, channels(counts, SECONDS(6)));
    subscriber_counts_free(counts);
}

static void test_parts_add_up_and_each_count_ends_by_itself(void **state UNUSED)
{
    struct subscriber_counts *counts = subscriber_counts_new(NULL);
    hear(counts, 1, "a", 1, true, SECONDS(1));
    hear(counts, 1, "b", 2, true, SECONDS(2));
    hear(counts, 1, "b", 3, true, SECONDS(3));
    assert_int_equal(1, subscriber_counts_of(counts, SLICE("a"), SECONDS(3)));
    assert_int_equal(3, subscriber_counts_of(counts, SLICE("b"), SECONDS(3)));
    hear(counts, 1, NULL, 0, true, SECONDS(12));
    assert_int_equal(0, subscriber_counts_of(counts, SLICE("a"), SECONDS(12)));
    assert_int_equal(3, subscriber_counts_of(counts, SLICE("b"), SECONDS(12)));
    hear(counts, 1, NULL, 0, false, SECONDS(12));
    assert_int_equal(0, channels(counts, SECONDS(12)));
    subscriber_counts_free(counts);
}

/* However many channels there are, each is written within a few heartbeats. */
static void test_all_own_channels_are_written_in_turn(void **state UNUSED)
{
    enum { CHANNELS = 3000 };
    struct interest_table *table = interest_table_new(&callbacks);
    struct subscriber subscriber;
    subscriber_init(&subscriber);
    for (int i = 0; i < CHANNELS; i++) {
        char name[32];
        int len = snprintf(name, sizeof(name), "channel number %d", i);
        bool added;
        interest_activate(interest_add(table, &subscriber, INTEREST_CHANNEL,
                                       slice_of(name, (size_t)len), &added));
    }
    struct subscriber_counts *sender = subscriber_counts_new(table);
    struct subscriber_counts *receiver = subscriber_counts_new(NULL);
    unsigned beats = 0;
    bool is_part = true;
    while (channels(receiver, 1) < CHANNELS) {
        struct evbuffer *out = evbuffer_new();
        size_t count = subscriber_counts_write(sender, out, &is_part);
        size_t len = evbuffer_get_length(out);
        assert_true(is_part && len < 17 * 1024);
        struct control_list list = {count, slice_of(evbuffer_pullup(out, -1), len)};
        subscriber_counts_hear(receiver, 1, list, true, 1);
        evbuffer_free(out);
        assert_true(++beats < 10);
    }
    interest_remove_all(table, &subscriber);
    struct evbuffer *out = evbuffer_new();
    assert_int_equal(0, subscriber_counts_write(sender, out, &is_part));
    assert_false(is_part);
    evbuffer_free(out);
    subscriber_counts_free(sender);
    subscriber_counts_free(receiver);
    interest_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_newest_of_each_live_broker_is_summed),
        cmocka_unit_test(test_parts_add_up_and_each_count_ends_by_itself),
        cmocka_unit_test(test_all_own_channels_are_written_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
