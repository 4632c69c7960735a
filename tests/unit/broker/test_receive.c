/*
 * What is delivered, held, asked for and given up while messages of an origin come, are missing, or are heard of. The
 * cases are lists of events; delivery and clock are the test's own.
 */
#include "tests/unit/unit.h"

#include "broker/broker_metrics.h"
#include "broker/control.h"
#include "broker/deliver.h"
#include "broker/envelope.h"
#include "broker/implausible.h"
#include "broker/message.h"
#include "broker/partition_map.h"
#include "broker/peers.h"
#include "broker/receive.h"
#include "broker/standing_clock.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#define OWN       1
#define ORIGIN    7
#define PARTITION 3

static uint64_t fake_now = SECONDS(1000);

uint64_t standing_now(void)
{
    return fake_now;
}

struct world {
    struct event_base *base;
    struct partition_map *map;
    struct sequence_table *sequences;
    struct sent_ring *ring;
    struct peer_table *peers;
    struct receiver *receiver;
    struct chunk_writer writer;
    uint64_t beats;
    bool is_deaf;
    uint64_t unsafe;    /* the number of a message that pods must not get */
    size_t payload_len; /* of messages that come */
    char log[256];
};

static struct world *world_of_delivery;

static void note(struct world *world, const char *what, uint64_t number)
{
    size_t len = strlen(world->log);
    snprintf(world->log + len, sizeof(world->log) - len, "%s%llu ", what,
             (unsigned long long)number);
}

unsigned deliver_message(struct deliverer *deliverer UNUSED,
                         const struct envelope *envelope, uint64_t now UNUSED)
{
    note(world_of_delivery, "", envelope->sequence);
    return 1;
}

/* The rest of broker/deliver.c, which this takes the place of. */
struct deliverer *deliverer_new(const struct interest_table *interest UNUSED,
                                struct pod_rooms *pod_rooms UNUSED)
{
    return NULL;
}

void deliverer_free(struct deliverer *deliverer UNUSED)
{
}

bool deliverer_is_behind(const struct deliverer *deliverer UNUSED,
                         struct slice name UNUSED, uint64_t now UNUSED)
{
    return false;
}

void deliverer_rewind(struct deliverer *deliverer UNUSED)
{
}

static void on_ask(void *context, uint64_t origin, const struct control_list *ranges)
{
    struct control_list rest = *ranges;
    uint16_t partition;
    uint64_t first;
    unsigned count;
    assert_int_equal(ORIGIN, origin);
    while (control_next_range(&rest, &partition, &first, &count)) {
        assert_int_equal(PARTITION, partition);
        note(context, "?", first);
        if (count > 1)
            note(context, "+", count - 1);
    }
}

static void on_lost_track(void *context UNUSED, uint64_t origin)
{
    assert_int_equal(ORIGIN, origin);
}

static bool hears(void *context)
{
    return !((struct world *)context)->is_deaf;
}

static uint64_t last_sent(void *context UNUSED, unsigned partition UNUSED)
{
    return UINT64_MAX;
}

static bool is_safe(void *context, const struct envelope *envelope)
{
    return envelope->sequence != ((struct world *)context)->unsafe;
}

static void on_entry(void *context UNUSED, const struct envelope *envelope UNUSED)
{
}

static bool no_shard(void *context UNUSED, size_t turn UNUSED,
                     struct peer_shard *shard UNUSED)
{
    return false;
}

static void begin(struct world *world)
{
    *world = (struct world){.base = event_base_new()};
    world_of_delivery = world;
    metrics_init(broker_metric_rows, BROKER_METRIC_COUNT);
    const struct partition_map_config config = {.partitions = 16};
    world->map = partition_map_new(&config);
    world->sequences = sequence_table_new(16);
    world->ring = sent_ring_new(16, SECONDS(100), 1 << 20);
    world->peers = peer_table_new(no_shard, NULL);
    const struct receiver_callbacks callbacks = {on_ask,  on_lost_track, hears, last_sent,
                                                 is_safe, on_entry,      world};
    world->receiver = receiver_new(world->base, world->map, NULL, world->sequences,
                                   world->ring, world->peers, OWN, &callbacks);
}

static void end(struct world *world)
{
    receiver_free(world->receiver);
    peer_table_free(world->peers);
    sent_ring_free(world->ring);
    sequence_table_free(world->sequences);
    partition_map_free(world->map);
    chunk_writer_cleanup(&world->writer);
    metrics_cleanup();
    event_base_free(world->base);
}

static struct evbuffer *envelope_of(uint64_t origin, uint64_t sequence,
                                    struct slice payload)
{
    const struct envelope envelope = {.method = METHOD_EMIT,
                                      .partition = PARTITION,
                                      .origin = origin,
                                      .sequence = sequence,
                                      .message_id = sequence,
                                      .channel = SLICE("flask-socketio"),
                                      .namespace = SLICE("/"),
                                      .payload = payload};
    struct evbuffer *out = evbuffer_new();
    assert_true(envelope_write(&envelope, out));
    evbuffer_add(out, payload.data, payload.len);
    return out;
}

static void take(struct world *world, uint64_t origin, uint64_t sequence)
{
    char *payload = must_calloc(1, world->payload_len + 1);
    struct evbuffer *out =
        envelope_of(origin, sequence, slice_of(payload, world->payload_len));
    size_t len = evbuffer_get_length(out);
    receiver_take(world->receiver, slice_of(evbuffer_pullup(out, -1), len), PARTITION);
    evbuffer_free(out);
    free(payload);
}

/* An own message is accepted. */
static void accept_own(struct world *world, uint64_t sequence)
{
    struct evbuffer *out = envelope_of(OWN, sequence, SLICE(""));
    size_t len = evbuffer_get_length(out);
    struct span command =
        chunk_writer_copy(&world->writer, slice_of(evbuffer_pullup(out, -1), len));
    sent_ring_add(world->ring, PARTITION, sequence, command, 0, (uint32_t)len,
                  timing_now());
    evbuffer_free(out);
}

static void hear_heartbeat(struct world *world)
{
    const struct control control = {.kind = CONTROL_HEARTBEAT,
                                    .sender = ORIGIN,
                                    .number = ++world->beats,
                                    .facts = {.flags = CONTROL_READY}};
    struct peer *peer;
    if (peer_hear(world->peers, &control, fake_now, timing_now(), &peer) ==
        PEER_NOW_READY)
        receiver_set_age(world->receiver, ORIGIN, peer->ready_at);
}

static void pass(struct world *world, uint64_t time, bool is_heard)
{
    uint64_t end = fake_now + time;
    while (is_heard && end - fake_now > SECONDS(1)) {
        fake_now += SECONDS(1);
        hear_heartbeat(world);
    }
    fake_now = end;
    if (is_heard)
        hear_heartbeat(world);
    event_base_loop(world->base, EVLOOP_ONCE); /* the look after what is missing */
}

static void take_gone(struct world *world, uint64_t first)
{
    struct evbuffer *list = evbuffer_new();
    control_add_range(list, PARTITION, first, 1);
    size_t len = evbuffer_get_length(list);
    const struct control_list ranges = {1, slice_of(evbuffer_pullup(list, -1), len)};
    receiver_take_gone(world->receiver, ORIGIN, ranges);
    evbuffer_free(list);
}

static void play(struct world *world, const char *event)
{
    uint64_t number =
        strtoull(event[0] >= '0' && event[0] <= '9' ? event : event + 1, NULL, 10);
    switch (event[0]) {
    case 'w': /* the partition is wanted from now on */
        receiver_want(world->receiver, PARTITION, 1);
        break;
    case 'u':
        receiver_unwant(world->receiver, PARTITION);
        break;
    case 'h': /* a heartbeat */
        hear_heartbeat(world);
        break;
    case 'k': /* it has sent up to this: a tail */
        receiver_hear_of(world->receiver, ORIGIN, PARTITION, number);
        break;
    case 'b': /* positions */
        receiver_set_base(world->receiver, ORIGIN, PARTITION, number);
        break;
    case 'L': /* a message that is too long to be read */
        receiver_skip(world->receiver,
                      &(struct envelope){
                          .origin = ORIGIN, .partition = PARTITION, .sequence = number},
                      PARTITION, 1 << 30);
        break;
    case 'c': /* positions, asked for after all that came before */
        receiver_confirm(world->receiver, ORIGIN, PARTITION, number, fake_now + 1);
        break;
    case 'C': /* and asked for before it */
        receiver_confirm(world->receiver, ORIGIN, PARTITION, number, fake_now);
        break;
    case 'g':
        take_gone(world, number);
        break;
    case 'm': /* milliseconds pass, and it is heard */
        pass(world, MILLISECONDS(number), true);
        break;
    case 't': /* seconds pass, and it is heard */
        pass(world, SECONDS(number), true);
        break;
    case 's': /* seconds pass, and it is silent */
        pass(world, SECONDS(number), false);
        break;
    case 'd': /* seconds pass, and nothing at all is heard */
        world->is_deaf = true;
        pass(world, SECONDS(number), false);
        world->is_deaf = false;
        break;
    case 'a': /* own: accepted, back from its shard, to be delivered as far as this */
        accept_own(world, number);
        break;
    case 'l': /* the same, and delivered at once */
        accept_own(world, number);
        receiver_take_own(world->receiver,
                          sent_ring_find(world->ring, PARTITION, number));
        break;
    case 'o':
        take(world, OWN, number);
        break;
    case 'f':
        receiver_fill_own(world->receiver, PARTITION, number);
        break;
    default:
        take(world, ORIGIN, number);
    }
}

/* "4" is delivered, "?4 +2" asked for: 4, 5, 6. */
static const struct {
    const char *events, *log;
    unsigned lost;
    unsigned gaps;
    const char *reason; /* of what is lost */
} cases[] = {
    {"w h 1 2 3", "1 2 3 ", 0, 0},
    {"w h 1 1 2 1 2", "1 2 ", 0, 0},
    {"h 1 2", "", 0, 0},               /* nobody wants it */
    {"w h 1 3 2 4", "1 2 3 4 ", 0, 0}, /* in order though not sent so */
    {"w h 1 3 5 2 4", "1 2 3 4 5 ", 0, 0},
    /* asked after 20 ms, 100 ms, 300 ms, then each 400 ms */
    {"w h 1 4 m19", "1 ", 0, 1},
    {"w h 1 4 m20", "1 ?2 +1 ", 0, 1},
    {"w h 1 4 m20 m79", "1 ?2 +1 ", 0, 1},
    {"w h 1 4 m20 m80 m200 m400 m400", "1 ?2 +1 ?2 +1 ?2 +1 ?2 +1 ?2 +1 ", 0, 1},
    {"w h 1 4 m20 3 m80", "1 ?2 +1 ?2 ", 0, 1}, /* only what is missing */
    {"w h 1 4 6 m20", "1 ?2 +1 ?5 ", 0, 1},
    {"w h 1 4 m20 2 3", "1 ?2 +1 2 3 4 ", 0, 0},
    /* what is heard of is missing too */
    {"w h 1 k3 m20 2 3", "1 ?2 +1 2 3 ", 0, 0},
    {"w h k1 m20", "?1 ", 0, 1},
    {"w h 1 k1 m20", "1 ", 0, 0},
    /* given up: 5 s after it was noticed, the first run of missing ones only */
    {"w h 1 3 t4", "1 ?2 ", 0, 1},
    {"w h 1 3 t5", "1 3 ", 1, 0, "gap"},
    {"w h 1 4 6 t5", "1 4 ", 2, 1, "gap"},
    {"w h 1 4 6 t5 t5", "1 4 6 ", 3, 0, "gap"},
    {"w h 1 4 6 t4 3 t4 t1", "1 ?2 +1 ?5 ?2 ?5 3 4 ", 1, 1,
     "gap"}, /* it answers: its time starts again */
    /* silent: 10 s */
    {"w h 1 3 s5", "1 ?2 ", 0, 1},
    {"w h 1 3 s10", "1 3 ", 1, 0, "origin"},
    /* it had no chance to answer before it was heard again, nor while no shard was */
    {"w h 1 3 s6 h t1", "1 ?2 ?2 ", 0, 1},
    {"w h 1 3 s6 h t5", "1 ?2 3 ", 1, 0, "gap"},
    {"w h 1 3 d15 m20", "1 ?2 ?2 ", 0, 1},
    {"w h 1 3 d15 s9", "1 ?2 ?2 ", 0, 1},
    {"w h 1 3 d15 s10", "1 ?2 3 ", 1, 0, "origin"},
    /* gone: at once */
    {"w h 1 4 c4 g2 g3", "1 4 ", 2, 0, "gone"},
    {"w h 1 4 c4 g3 2", "1 2 4 ", 1, 0, "gone"},
    /* of what the origin has sent, and it is asked where it is if it has not said so */
    {"w h 1 4 g2 g3 2 3", "1 2 3 4 ", 0, 0},
    {"w h 1 4 m20 g2 c4 m20 g2 g3", "1 ?2 +1 ?2 +1 4 ", 2, 0, "gone"},
    /* ahead of what the origin says that it has sent: forged */
    {"w h 1 9 c1 2", "1 2 ", 0, 0},
    {"w h 1 4 9 c4 2 3", "1 2 3 4 ", 0, 0},
    {"w h 1 k9 c1 t9 2", "1 2 ", 0, 0},
    {"w h 1 4 C1 2 3", "1 2 3 4 ", 0, 0}, /* it may have come since it was asked */
    {"h w 9 b1 c1 2", "2 ", 0, 0},
    /* too long to be read: lost when the origin says that it sent it, and nothing else came in its place */
    {"w h 1 L2 3 m499", "1 ", 0, 1},
    {"w h 1 L2 3 c3 m499 m1", "1 3 ", 1, 0, "too_long"},
    {"w h 1 L2 3 2", "1 2 3 ", 0, 0},
    {"w h 1 L2 c1 2", "1 2 ", 0, 0},
    {"w h 1 L2 L3 c3 m500 m500 4", "1 ?3 ", 1, 1, "too_long"},
    /* further ahead than anybody is */
    {"w h 1 18446744073709551614 99999999 k99999999 2", "1 2 ", 0, 0},
    {"h w 99999999 5 b4 m20", "5 ?6 +199 ", 0, 1},
    {"w h 1 g1 g9 2", "1 2 ", 0, 0},
    /* wanted after it began: held until positions say where it is */
    {"h w 5 6", "", 0, 1},
    {"h w 5 6 b4", "5 6 ", 0, 0},
    {"h w 5 6 b5", "6 ", 0, 0},
    {"h w 5 7 b4 m20", "5 ?6 ", 0, 1},
    {"h w b4 4 5", "5 ", 0, 0},
    {"h w 5 7 t5", "5 ", 0, 1},   /* no answer: the first one held */
    {"w h 1 b9 2", "1 2 ", 0, 0}, /* a base is never set twice */
    /* no longer wanted: nothing is known */
    {"w h 1 3 u 2", "1 ", 0, 0},
    {"w h 1 u w 4", "1 ", 0, 1},
    /* own ones: what did not come back is taken from the ring */
    {"w a1 a2 a3 o1 o3", "1 2 3 ", 0, 0},
    {"w a1 a2 o2 o1", "1 2 ", 0, 0},
    {"w a1 a2 a3 f2 o1 o2 o3", "1 2 3 ", 0, 0},
    {"w a2 o1 o3", "1 2 3 ", 0, 0},
    {"w a3 o1 o4", "1 3 4 ", 1, 0, "own"},
    /* own ones at once: the returning copies are duplicates, those that were on their way come first */
    {"w l1 l2 o1 o2 l3 o3", "1 2 3 ", 0, 0},
    {"w l1 l2 l3 o3 o1 o2", "1 2 3 ", 0, 0},
    {"w a1 a2 l3 o1 o2 a4 o3 o4 l5", "1 2 3 4 5 ", 0, 0},
    {"l1 o1", "", 0, 0}, /* nobody wants it */
};

/* All that was lost, and that nothing of it was for another reason. */
static uint64_t lost(const char *reason)
{
    uint64_t sum = 0;
    for (int i = 0; i < LOSS_REASON_COUNT; i++) {
        uint64_t count = (uint64_t)metrics_sum_by(M_LOST, i);
        if (count > 0)
            assert_string_equal(reason != NULL ? reason : "none", loss_reason_label(i));
        sum += count;
    }
    return sum;
}

static void test_what_is_delivered_asked_for_and_given_up(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world world;
        begin(&world);
        char events[80];
        snprintf(events, sizeof(events), "%s", cases[i].events);
        char *rest = events;
        for (char *event; (event = strsep(&rest, " ")) != NULL;)
            play(&world, event);
        if (strcmp(world.log, cases[i].log) != 0)
            fail_msg("%s: %s, not %s", cases[i].events, world.log, cases[i].log);
        uint64_t count = lost(cases[i].reason);
        if (count != cases[i].lost || receiver_gap_count(world.receiver) != cases[i].gaps)
            fail_msg("%s: %llu lost, %zu gaps", cases[i].events,
                     (unsigned long long)count, receiver_gap_count(world.receiver));
        end(&world);
    }
}

static void test_one_ask_names_at_most_200_of_a_partition(void **state UNUSED)
{
    struct world world;
    begin(&world);
    play(&world, "w");
    play(&world, "h");
    play(&world, "k1000");
    play(&world, "m20");
    assert_string_equal("?1 +199 ", world.log);
    end(&world);
}

static void test_of_a_tomb_only_what_comes_next_is_taken(void **state UNUSED)
{
    struct world world;
    begin(&world);
    play(&world, "w");
    play(&world, "h");
    play(&world, "1");
    fake_now += PEER_KEEP + SECONDS(1);
    assert_int_equal(ORIGIN, peer_bury(world.peers, fake_now));
    receiver_rest_origin(world.receiver, ORIGIN);
    play(&world, "1"); /* a shard woke with it */
    play(&world, "2");
    play(&world, "4");
    assert_string_equal("1 2 ", world.log);
    assert_int_equal(0, receiver_gap_count(world.receiver));
    assert_true(receiver_wake_origin(world.receiver, ORIGIN));
    assert_false(receiver_wake_origin(world.receiver, ORIGIN + 1));
    end(&world);
}

static void test_what_is_missing_in_front_of_a_full_hold_is_given_up(void **state UNUSED)
{
    struct world world;
    begin(&world);
    world.payload_len = RECEIVER_HOLD_MAX / 8;
    for (const char *const *event =
             (const char *const[]){"w", "h", "1", "3", "c11", NULL};
         *event != NULL; event++)
        play(&world, *event);
    take(&world, ORIGIN, 4);
    for (uint64_t sequence = 6; sequence < 11; sequence++)
        take(&world, ORIGIN, sequence);
    assert_string_equal("1 ", world.log);
    take(&world, ORIGIN, 11); /* the eighth eighth, and what each costs beside */
    assert_string_equal("1 3 4 ", world.log);
    assert_int_equal(1, lost("hold"));
    assert_true(receiver_held_bytes(world.receiver) <= RECEIVER_HOLD_MAX);
    end(&world);
}

static void test_what_pods_must_not_get_is_lost(void **state UNUSED)
{
    struct world world;
    begin(&world);
    world.unsafe = 2;
    for (const char *const *event = (const char *const[]){"w", "h", "1", "2", "3", NULL};
         *event != NULL; event++)
        play(&world, *event);
    assert_string_equal("1 3 ", world.log);
    assert_int_equal(1, lost("unsafe"));
    end(&world);
}

static void test_a_message_moved_to_another_channel_is_dropped(void **state UNUSED)
{
    struct world world;
    begin(&world);
    play(&world, "w");
    play(&world, "h");
    struct evbuffer *out = envelope_of(ORIGIN, 1, SLICE(""));
    size_t len = evbuffer_get_length(out);
    struct slice bytes = slice_of(evbuffer_pullup(out, -1), len);
    receiver_take(world.receiver, bytes, PARTITION + 1);
    assert_string_equal("", world.log);
    assert_int_equal(1, metrics_sum_by(M_IMPLAUSIBLE, IMPLAUSIBLE_CHANNEL));
    receiver_take(world.receiver, bytes, RECEIVER_ANY_PARTITION); /* sent again */
    assert_string_equal("1 ", world.log);
    evbuffer_free(out);
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_delivered_asked_for_and_given_up),
        cmocka_unit_test(test_one_ask_names_at_most_200_of_a_partition),
        cmocka_unit_test(test_of_a_tomb_only_what_comes_next_is_taken),
        cmocka_unit_test(test_what_is_missing_in_front_of_a_full_hold_is_given_up),
        cmocka_unit_test(test_what_pods_must_not_get_is_lost),
        cmocka_unit_test(test_a_message_moved_to_another_channel_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
