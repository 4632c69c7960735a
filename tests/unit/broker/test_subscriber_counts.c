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
                 uint32_t count, uint8_t flags, uint64_t now)
{
    struct evbuffer *out = evbuffer_new();
    if (name != NULL)
        control_add_channel(out, slice_from_text(name), count);
    size_t len = evbuffer_get_length(out);
    struct slice bytes = len > 0 ? slice_of(evbuffer_pullup(out, -1), len) : SLICE("");
    subscriber_counts_hear(
        counts, origin, (struct control_list){name != NULL ? 1 : 0, bytes}, flags, now);
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
    hear(counts, 1, "news", 3, 0, 1);
    hear(counts, 2, "news", 4, 0, 1);
    assert_int_equal(7, subscriber_counts_of(counts, SLICE("news"), 2));
    assert_int_equal(0, subscriber_counts_of(counts, SLICE("new"), 2));
    assert_int_equal(1, channels(counts, 2));
    hear(counts, 1, "old", 1, 0, SECONDS(4));
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
    hear(counts, 1, "a", 1, CONTROL_GENERIC_PART, SECONDS(1));
    hear(counts, 1, "b", 2, CONTROL_GENERIC_PART, SECONDS(2));
    hear(counts, 1, "b", 3, CONTROL_GENERIC_PART, SECONDS(3));
    assert_int_equal(1, subscriber_counts_of(counts, SLICE("a"), SECONDS(3)));
    assert_int_equal(3, subscriber_counts_of(counts, SLICE("b"), SECONDS(3)));
    hear(counts, 1, NULL, 0, CONTROL_GENERIC_PART, SECONDS(12));
    assert_int_equal(0, subscriber_counts_of(counts, SLICE("a"), SECONDS(12)));
    assert_int_equal(3, subscriber_counts_of(counts, SLICE("b"), SECONDS(12)));
    hear(counts, 1, NULL, 0, 0, SECONDS(12));
    assert_int_equal(0, channels(counts, SECONDS(12)));
    subscriber_counts_free(counts);
}

static struct interest *activate(struct interest_table *table,
                                 struct subscriber *subscriber, int number)
{
    char name[32];
    int len = snprintf(name, sizeof(name), "channel number %d", number);
    bool added;
    struct interest *interest = interest_add(table, subscriber, INTEREST_CHANNEL,
                                             slice_of(name, (size_t)len), &added);
    interest_activate(interest);
    return interest;
}

/* One heartbeat; returns its bytes. */
static size_t beat(struct subscriber_counts *sender, struct subscriber_counts *receiver,
                   bool is_lost)
{
    struct evbuffer *out = evbuffer_new();
    uint8_t flags;
    size_t count = subscriber_counts_write(sender, out, 40 * 1024, &flags);
    size_t len = evbuffer_get_length(out);
    assert_true(len <= 40 * 1024);
    struct control_list list = {count, len > 0 ? slice_of(evbuffer_pullup(out, -1), len)
                                               : SLICE("")};
    if (!is_lost)
        subscriber_counts_hear(receiver, 1, list, flags, 1);
    evbuffer_free(out);
    return len;
}

static void test_a_hundred_thousand_channels_are_known(void **state UNUSED)
{
    enum { CHANNELS = 100000 };
    struct interest_table *table = interest_table_new(&callbacks);
    struct subscriber subscriber;
    subscriber_init(&subscriber);
    struct subscriber_counts *sender = subscriber_counts_new(table);
    struct subscriber_counts *receiver = subscriber_counts_new(NULL);
    for (int i = 0; i < CHANNELS; i++)
        activate(table, &subscriber, i);
    /* as they come */
    unsigned beats = 0;
    for (; subscriber_counts_is_behind(sender) && beats < 100; beats++)
        beat(sender, receiver, false);
    assert_in_range(beats, 50, 80);
    assert_int_equal(CHANNELS, channels(receiver, 1));
    /* nothing changes: little is said, and nothing is forgotten in many turns */
    size_t calm = 0;
    for (unsigned i = 0; i < 1000; i++)
        calm += beat(sender, receiver, false);
    assert_true(calm <= 1000 * SUBSCRIBER_COUNTS_CALM);
    assert_int_equal(CHANNELS, channels(receiver, 1));
    /* one that ends, and one that gets another, are known with the next */
    assert_true(
        interest_remove(table, &subscriber, INTEREST_CHANNEL, SLICE("channel number 7")));
    activate(table, &subscriber, CHANNELS);
    beat(sender, receiver, false);
    assert_int_equal(0, subscriber_counts_of(receiver, SLICE("channel number 7"), 1));
    assert_int_equal(1,
                     subscriber_counts_of(receiver, SLICE("channel number 100000"), 1));
    /* lost heartbeats are made good within three turns */
    for (int i = 1000; i < 2000; i++) {
        char name[32];
        int len = snprintf(name, sizeof(name), "channel number %d", i);
        assert_true(interest_remove(table, &subscriber, INTEREST_CHANNEL,
                                    slice_of(name, (size_t)len)));
    }
    activate(table, &subscriber, CHANNELS + 1);
    beat(sender, receiver, true);
    for (unsigned i = 0; i < 4 * 200; i++)
        beat(sender, receiver, false);
    assert_int_equal(CHANNELS - 1000 + 1, channels(receiver, 1));
    /* a newcomer has all of them as soon */
    struct subscriber_counts *newcomer = subscriber_counts_new(NULL);
    beat(sender, newcomer, false);
    subscriber_counts_hurry(sender);
    for (beats = 0; subscriber_counts_is_behind(sender) && beats < 300; beats++)
        beat(sender, newcomer, false);
    assert_in_range(beats, 50, 150);
    assert_int_equal(CHANNELS - 1000 + 1, channels(newcomer, 1));
    interest_remove_all(table, &subscriber);
    for (beats = 0; subscriber_counts_is_behind(sender) && beats < 100; beats++)
        beat(sender, receiver, false);
    beat(sender, receiver, false);
    assert_int_equal(0, channels(receiver, 1));
    subscriber_counts_free(sender);
    subscriber_counts_free(receiver);
    subscriber_counts_free(newcomer);
    interest_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_newest_of_each_live_broker_is_summed),
        cmocka_unit_test(test_parts_add_up_and_each_count_ends_by_itself),
        cmocka_unit_test(test_a_hundred_thousand_channels_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
