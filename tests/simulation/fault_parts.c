#include "tests/simulation/fault_parts.h"

#include "tests/simulation/client.h"

uint64_t fault_below(uint64_t *random, uint64_t limit)
{
    return world_stream(random) % limit;
}

uint64_t fault_between(uint64_t *random, uint64_t low, uint64_t high)
{
    return low + fault_below(random, high - low + 1);
}

int64_t fault_one_of(uint64_t *random, const int64_t *values, size_t count)
{
    return values[fault_below(random, count)];
}
/* Numbers of visitors by kind: as play.c makes them. */
unsigned fault_subscribers(const struct setup *setup)
{
    return setup->brokers * (setup->observers + setup->pods + setup->listeners +
                             setup->seekers + setup->managers);
}

int64_t fault_any_publisher(const struct setup *setup, uint64_t *random)
{
    if (setup->pods_speak && fault_below(random, 4) == 0)
        return (int64_t)fault_between(random, setup->brokers * setup->observers,
                                      fault_subscribers(setup) - 1);
    return (int64_t)(fault_subscribers(setup) +
                     fault_below(random, setup->brokers * setup->publishers));
}

/* Not an observer. */
int64_t fault_any_subscriber(const struct setup *setup, uint64_t *random)
{
    return (int64_t)fault_between(random, setup->brokers * setup->observers,
                                  fault_subscribers(setup) - 1);
}

int64_t fault_any_stranger(const struct setup *setup, uint64_t *random)
{
    return (int64_t)(fault_subscribers(setup) + setup->brokers * setup->publishers +
                     fault_below(random, setup->brokers * setup->strangers));
}

int64_t fault_any_broker(const struct setup *setup, uint64_t *random)
{
    return (int64_t)fault_below(random, setup->brokers);
}

int64_t fault_any_server(const struct setup *setup, uint64_t *random)
{
    return (int64_t)fault_below(random, setup->shards);
}

/* ── what is published meanwhile ── */

static void publish(struct schedule *schedule, const struct setup *setup,
                    uint64_t *random, uint64_t at)
{
    int64_t channel =
        fault_below(random, 5) == 0 ? (int64_t)fault_between(random, 1, 2) : 0;
    if (setup->seekers > 0 && fault_below(random, 2) == 0)
        channel = (int64_t)fault_between(random, CHANNEL_SOUGHT, CHANNEL_COUNT - 1);
    int64_t room = channel == 0 ? (int64_t)fault_below(random, ROOMS_MAX) : 0;
    int64_t count = ONE_OF(random, 1, 1, 1, 1, 2, 3, 10, 40);
    int64_t filler =
        fault_below(random, 40) == 0 ? ONE_OF(random, 2000, 30000, 70000) : 0;
    if (filler > 5000)
        count = 1;
    if (fault_below(random, 30) == 0) {
        int64_t how = fault_below(random, 3) == 0
                          ? (int64_t)fault_between(random, 1, TRANSACTION_KIND_COUNT - 1)
                          : TRANSACTION_PLAIN;
        schedule_add(schedule, at, DEED_transact, fault_any_publisher(setup, random),
                     room, 3, how, 0);
        return;
    }
    schedule_add(schedule, at, DEED_publish, fault_any_publisher(setup, random), channel,
                 room, count, filler);
}

/* Busy and quiet times: partitions fall silent, some for good. */
void fault_load(struct schedule *schedule, const struct setup *setup, uint64_t *random)
{
    uint64_t at = 0;
    while (at < setup->length) {
        uint64_t gap = (uint64_t)ONE_OF(random, 30, 100, 300, 1500) * 1000;
        uint64_t until = at + SECONDS(fault_between(random, 1, 8));
        for (; at < until && at < setup->length; at += fault_between(random, 1, 2 * gap))
            publish(schedule, setup, random, at);
        if (fault_below(random, 3) == 0)
            at += SECONDS(fault_between(random, 1, 8));
    }
}

/* One message, or a few, about the time of a fault. */
void fault_near(struct schedule *schedule, const struct setup *setup, uint64_t *random,
                uint64_t at)
{
    for (uint64_t i = fault_below(random, 4); i > 0; i--) {
        uint64_t before = fault_below(random, 5000);
        publish(schedule, setup, random, at > before ? at - before : at);
    }
    for (uint64_t i = fault_below(random, 3); i > 0; i--)
        publish(schedule, setup, random, at + fault_below(random, 5000));
}

/* The next time of faults that are about `gap` microseconds apart; false: behind the end. */
bool fault_next_time(struct fault_times *times)
{
    times->at += fault_between(times->random, 1, 2 * times->gap);
    if (times->at < times->free_at)
        times->at = times->free_at;
    return times->at < times->setup->length;
}

/* No other one until `rest` after this one's end; cut short at the end of all faults. Milliseconds. */
int64_t fault_alone(struct fault_times *times, int64_t lasting, uint64_t rest)
{
    uint64_t left = (times->setup->length - times->at) / 1000;
    if ((uint64_t)lasting > left)
        lasting = (int64_t)left;
    times->free_at = times->at + MILLISECONDS((uint64_t)lasting + rest);
    return lasting;
}
