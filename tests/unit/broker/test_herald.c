/*
 * What a broker says to others and makes of what they say: when it is ready, what it answers, and when it takes which
 * step of a map change. A whole publisher on links and a clock that do what the test says; the other broker is the test.
 */
#include "tests/unit/broker/fake_links.h"

#include "broker/broker_metrics.h"
#include "broker/control.h"
#include "broker/deliver.h"
#include "broker/envelope.h"
#include "broker/interest.h"
#include "broker/map_change.h"
#include "broker/partition_map.h"
#include "broker/peers.h"
#include "broker/pod_rooms.h"
#include "broker/publish.h"
#include "broker/shard.h"
#include "broker/turn.h"

#include <event2/event.h>

#define PEER UINT64_C(0xabc)

struct world {
    struct event_base *base;
    struct turn *turn;
    struct broker_config *config, *wider;
    struct partition_map *map;
    struct interest_table *interest;
    struct pod_rooms *rooms;
    struct deliverer *deliverer;
    struct publisher *publisher;
    uint64_t number; /* of what the other broker says */
    uint64_t age;    /* that it says */
    uint64_t first_hash, second_hash;
    struct evbuffer *said; /* bytes of what `control` points into */
    struct control control;
};

static const char *partitions = "4096";

static struct broker_config *load(unsigned shards)
{
    const struct broker_flag flags[] = {
        {"--partitions", "cluster.partitions", slice_from_text(partitions)},
        {"--shard", "shards[0].url", SLICE_INIT("redis://a:1")},
        {"--shard", "shards[1].url", SLICE_INIT("redis://b:1")},
        {"--shard", "shards[2].url", SLICE_INIT("redis://c:1")},
    };
    struct broker_config *config = broker_config_load(NULL, flags, shards + 1, stderr);
    assert_non_null(config);
    return config;
}

static uint64_t hash_of(const struct broker_config *config)
{
    struct partition_map_config map_config = broker_config_map(config);
    struct partition_map *map = partition_map_new(&map_config);
    uint64_t hash = partition_map_hash(map);
    partition_map_free(map);
    broker_config_map_cleanup(&map_config);
    return hash;
}

static uint32_t on_room(void *context UNUSED, struct slice channel UNUSED,
                        struct slice namespace UNUSED, struct slice room UNUSED)
{
    return 0;
}

static void on_room_gone(void *context UNUSED, uint32_t partition UNUSED)
{
}

static void ignore(void *context UNUSED)
{
}

static void begin(struct world *world)
{
    *world = (struct world){.base = event_base_new(), .said = evbuffer_new()};
    metrics_init(broker_metric_rows, BROKER_METRIC_COUNT);
    world->turn = turn_new(world->base);
    world->config = load(2);
    world->wider = load(3);
    world->first_hash = hash_of(world->config);
    world->second_hash = hash_of(world->wider);
    struct partition_map_config map_config = broker_config_map(world->config);
    world->map = partition_map_new(&map_config);
    broker_config_map_cleanup(&map_config);
    const struct interest_callbacks interest = {NULL, NULL, NULL};
    world->interest = interest_table_new(&interest);
    const struct pod_rooms_callbacks rooms = {on_room, on_room_gone, NULL};
    world->rooms = pod_rooms_new(&rooms);
    world->deliverer = deliverer_new(world->interest, world->rooms);
    world->publisher = publisher_new(world->base, world->turn, world->config, world->map,
                                     world->interest, world->deliverer);
    publisher_start(world->publisher, ignore, NULL);
    shard_set_want(publisher_shards(world->publisher), SHARD_ALL_PARTITIONS);
}

static void end(struct world *world)
{
    publisher_free(world->publisher);
    deliverer_free(world->deliverer);
    pod_rooms_free(world->rooms);
    interest_table_free(world->interest);
    partition_map_free(world->map);
    broker_config_release(world->config);
    broker_config_release(world->wider);
    turn_free(world->turn);
    metrics_cleanup();
    evbuffer_free(world->said);
    event_base_free(world->base);
}

static void link_up(const char *shard)
{
    struct link *subscribing = fake_link_find(shard, LINK_SUBSCRIBING);
    fake_link_set(fake_link_find(shard, LINK_PUBLISHING), LINK_UP);
    fake_link_set(subscribing, LINK_UP);
    fake_link_confirm(subscribing);
}

/* Redis answers everything, and brings own heartbeats back; what became due in the loop happens. */
static void settle(struct world *world)
{
    const struct shard_set *shards = publisher_shards(world->publisher);
    for (size_t i = 0; i < shard_set_count(shards); i++)
        shard_hear_own(shard_set_get(shards, i));
    publisher_tick(world->publisher);
    struct timeval soon = {.tv_usec = 3000};
    event_base_loopexit(world->base, &soon);
    event_base_dispatch(world->base);
    for (unsigned i = 0; i < fake_link_count; i++) {
        if (fake_links[i]->config.kind == LINK_SUBSCRIBING)
            fake_link_confirm(fake_links[i]);
        while (fake_links[i]->in_flight > 0)
            fake_link_reply(fake_links[i]);
    }
}

static void pass(struct world *world, uint64_t time)
{
    fake_now += time;
    settle(world);
}

/* One bulk of the protocol off the front. */
static struct slice take_bulk(struct slice *bytes)
{
    assert_true(bytes->len > 0 && bytes->data[0] == '$');
    size_t end = slice_find(*bytes, '\r');
    uint64_t len;
    assert_true(
        slice_to_number(slice_to(slice_from(*bytes, 1), end - 1), 0, 1 << 24, &len));
    struct slice bulk = slice_to(slice_from(*bytes, end + 2), (size_t)len);
    *bytes = slice_from(*bytes, end + 2 + (size_t)len + 2);
    return bulk;
}

/* How many of a kind were said since the last look at anything, on channels that end so; the last one is parsed. With
 * kind 0: envelopes. */
static unsigned said(struct world *world, int kind, const char *channel_end)
{
    evbuffer_drain(world->said, evbuffer_get_length(world->said));
    for (unsigned i = 0; i < fake_link_count; i++)
        if (fake_links[i]->config.kind == LINK_PUBLISHING)
            evbuffer_add_buffer(world->said, fake_links[i]->out);
    struct slice rest = slice_of((const char *)evbuffer_pullup(world->said, -1),
                                 evbuffer_get_length(world->said));
    unsigned count = 0;
    while (rest.len > 0) {
        assert_true(slice_starts_with(rest, SLICE("*3\r\n$7\r\nPUBLISH\r\n")));
        rest = slice_from(rest, strlen("*3\r\n$7\r\nPUBLISH\r\n"));
        struct slice channel = take_bulk(&rest);
        struct slice payload = take_bulk(&rest);
        struct slice wanted = slice_from_text(channel_end);
        if (channel.len < wanted.len ||
            !slice_equals(slice_from(channel, channel.len - wanted.len), wanted))
            continue;
        struct control control;
        if (kind == 0)
            count += !control_is_control(payload);
        else if (control_is_control(payload) &&
                 control_parse(payload, &control) == CONTROL_OK && control.kind == kind) {
            world->control = control;
            count++;
        }
    }
    return count;
}

/* Another broker says this, on shard a. */
static void hear_from(struct world *world, uint64_t origin, struct control *control)
{
    control->sender = origin;
    control->number = ++world->number;
    struct evbuffer *out = evbuffer_new();
    control_write(control, out);
    size_t len = evbuffer_get_length(out);
    struct link *link = fake_link_find("a:1", LINK_SUBSCRIBING);
    char own[64];
    snprintf(own, sizeof(own), "sidrail1:default:o:%016llx",
             (unsigned long long)publisher_origin(world->publisher));
    link->callbacks.on_message(link->callbacks.context, link,
                               control->kind == CONTROL_HEARTBEAT
                                   ? SLICE("sidrail1:default:c")
                                   : slice_from_text(own),
                               slice_of((const char *)evbuffer_pullup(out, -1), len));
    evbuffer_free(out);
}

static void hear(struct world *world, struct control *control)
{
    hear_from(world, PEER, control);
}

static struct control_list list_of(struct evbuffer *buffer, size_t count)
{
    size_t len = evbuffer_get_length(buffer);
    return (struct control_list){
        count,
        len > 0 ? slice_of((const char *)evbuffer_pullup(buffer, -1), len) : SLICE("")};
}

/* A heartbeat, or with `question` the answer to it: what the other one uses, carries (one or two) and where it is. */
static void hear_facts(struct world *world, uint64_t used, uint64_t carried,
                       unsigned shards, uint64_t question)
{
    struct evbuffer *carries = evbuffer_new();
    struct evbuffer *subscribed = evbuffer_new();
    control_add_hash(carries, used);
    if (carried != used)
        control_add_hash(carries, carried);
    static const struct slice names[] = {SLICE_INIT("a:1"), SLICE_INIT("b:1"),
                                         SLICE_INIT("c:1")};
    for (unsigned i = 0; i < shards; i++)
        control_add_name(subscribed, names[i]);
    struct control control = {
        .kind = question != 0 ? CONTROL_POSITIONS : CONTROL_HEARTBEAT,
        .question = question,
        .facts = {.flags = CONTROL_READY,
                  .age = world->age,
                  .used = used,
                  .loaded = carried,
                  .carries = list_of(carries, carried != used ? 2 : 1),
                  .subscribed = list_of(subscribed, shards)},
    };
    hear(world, &control);
    evbuffer_free(carries);
    evbuffer_free(subscribed);
}

/* The broker gets ready alone. */
static void get_ready(struct world *world)
{
    link_up("a:1");
    link_up("b:1");
    settle(world);
    pass(world, MILLISECONDS(600));
    assert_true(said(world, CONTROL_HEARTBEAT, ":c") > 0);
    assert_int_equal(CONTROL_READY, world->control.facts.flags & CONTROL_READY);
}

static const char peer_channel[] = ":o:0000000000000abc";

static void
test_ready_when_subscribed_and_everybody_has_said_where_it_is(void **state UNUSED)
{
    struct world world;
    begin(&world);
    link_up("a:1");
    settle(&world);
    assert_true(said(&world, CONTROL_HEARTBEAT, ":c") > 0);
    assert_int_equal(0, world.control.facts.flags & CONTROL_READY);
    hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
    link_up("b:1");
    settle(&world);
    assert_true(said(&world, CONTROL_WHERE, peer_channel) > 0);
    pass(&world, MILLISECONDS(600));
    assert_true(said(&world, CONTROL_WHERE, peer_channel) > 0); /* asked again */
    uint64_t question = world.control.number;
    hear_facts(&world, world.first_hash, world.first_hash, 2, question - 1);
    settle(&world);
    said(&world, CONTROL_HEARTBEAT, ":c");
    assert_int_equal(0, world.control.facts.flags & CONTROL_READY); /* an older answer */
    hear_facts(&world, world.first_hash, world.first_hash, 2, question);
    settle(&world);
    assert_true(said(&world, CONTROL_HEARTBEAT, ":c") > 0);
    assert_int_equal(CONTROL_READY, world.control.facts.flags & CONTROL_READY);
    end(&world);
}

static void test_never_ready_beside_one_that_routes_by_another_map(void **state UNUSED)
{
    struct world world;
    begin(&world);
    link_up("a:1");
    link_up("b:1");
    for (unsigned i = 0; i < 5; i++) {
        hear_facts(&world, world.second_hash, world.second_hash, 3, 0);
        settle(&world);
        if (said(&world, CONTROL_WHERE, peer_channel) > 0)
            hear_facts(&world, world.second_hash, world.second_hash, 3,
                       world.control.number);
        pass(&world, SECONDS(1));
    }
    assert_int_equal(0, shard_set_usable_count(publisher_shards(world.publisher)));
    hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
    pass(&world, MILLISECONDS(100));
    assert_int_equal(2, shard_set_usable_count(publisher_shards(world.publisher)));
    end(&world);
}

static void publish(struct world *world)
{
    struct publish_result result;
    publish_message(world->publisher, NULL, NULL, SLICE("news"), SLICE("text"), 0,
                    timing_now(), &result);
    assert_true(result.is_accepted && !result.must_wait);
}

/* A heartbeat; `answers`: and the answer where it is asked for one. */
static void hear_claim(struct world *world, uint64_t origin, uint64_t used, uint8_t flags,
                       const struct map_outline *outline, bool answers)
{
    struct evbuffer *carries = evbuffer_new();
    struct evbuffer *subscribed = evbuffer_new();
    control_add_hash(carries, used);
    if (outline != NULL)
        control_add_outline(subscribed, outline);
    struct control control = {
        .kind = CONTROL_HEARTBEAT,
        .facts = {.flags = flags,
                  .age = world->age,
                  .used = used,
                  .loaded = used,
                  .carries = list_of(carries, 1),
                  .subscribed = list_of(subscribed, outline != NULL)},
    };
    hear_from(world, origin, &control);
    char channel[32];
    snprintf(channel, sizeof(channel), ":o:%016llx", (unsigned long long)origin);
    if (answers) {
        settle(world);
        bool is_asked = said(world, CONTROL_WHERE, channel) > 0;
        if (!is_asked && used != world->first_hash) { /* it was asked just before */
            pass(world, MILLISECONDS(310));
            is_asked = said(world, CONTROL_WHERE, channel) > 0;
        }
        if (is_asked) {
            control.kind = CONTROL_POSITIONS;
            control.question = world->control.number;
            hear_from(world, origin, &control);
        }
    }
    evbuffer_free(carries);
    evbuffer_free(subscribed);
}

static void hear_of(struct world *world, uint64_t origin, uint64_t used, uint8_t flags,
                    const struct map_outline *outline)
{
    hear_claim(world, origin, used, flags, outline, true);
}

static const char *refusal(struct world *world)
{
    static struct publish_result result;
    publish_message(world->publisher, NULL, NULL, SLICE("news"), SLICE("text"), 0,
                    timing_now(), &result);
    return result.is_accepted ? "" : result.text;
}

#define OTHER_MAP 77

static void test_a_starting_broker_refuses_beside_another_map(void **state UNUSED)
{
    struct world world;
    begin(&world);
    link_up("a:1");
    link_up("b:1");
    struct map_outline outline = partition_map_outline(world.map);
    assert_string_equal("", refusal(&world)); /* nothing is known yet */
    outline.order = ORDER_TOTAL;
    outline.partitions = 64;
    hear_of(&world, PEER, OTHER_MAP, CONTROL_READY, &outline);
    assert_string_equal(
        "ERR broker 0000000000000abc has a different map: partitions (64, "
        "here 4096), order (total, here room)",
        refusal(&world));
    assert_string_equal(refusal(&world) + strlen("ERR "),
                        publisher_outvoted(world.publisher));
    outline = partition_map_outline(world.map);
    outline.channels++;
    outline.shards++;
    hear_of(&world, PEER, OTHER_MAP + 1, CONTROL_READY, &outline);
    assert_non_null(strstr(refusal(&world), "map: channels, names or weights of shards"));
    hear_of(&world, PEER, OTHER_MAP, CONTROL_READY, NULL);
    assert_non_null(strstr(refusal(&world), "map: partitions, order, channels,"));
    /* a change that ends it is under way: it has loaded this map */
    hear_facts(&world, OTHER_MAP, world.first_hash, 2, 0);
    assert_string_equal("", refusal(&world));
    for (unsigned i = 0; i < 25; i++) {
        pass(&world, SECONDS(1));
        hear_facts(&world, OTHER_MAP, world.first_hash, 2, 0);
    }
    assert_string_equal("ERR other brokers still use another map", refusal(&world));
    pass(&world, SECONDS(6)); /* it is gone */
    pass(&world, MILLISECONDS(100));
    assert_string_equal("", refusal(&world));
    assert_int_equal(2, shard_set_usable_count(publisher_shards(world.publisher)));
    settle(&world);
    assert_true(said(&world, 0, "") >= 2); /* what was accepted */
    end(&world);
}

/* Others who use another map, as "r" READY or "s" starting each, "m" READY with ours; and whether this one refuses while it
 * is starting, and when it is READY; `age` of theirs in milliseconds. 0: by the hash. */
static void test_who_has_more_right(void **state UNUSED)
{
    static const struct {
        const char *others;
        uint64_t age, hash;
        bool when_starting, when_ready;
    } rows[] = {
        {"s", 0, 1, true, false},
        {"s", 0, UINT64_MAX, false, false},
        {"ss", 0, UINT64_MAX, true, false},
        {"ms", 0, 1, false, false},
        {"mss", 0, 1, false, false},
        {"r", 60000, UINT64_MAX, true, true},
        {"r", 0, 1, true, true},
        {"r", 0, UINT64_MAX, true, false},
        {"mr", 60000, 1, true, false},
        {"mrr", 60000, 1, true, true},
        {"rr", 0, UINT64_MAX, true, true},
        {"m", 0, 1, false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows) * 2; i++) {
        bool is_ready = i % 2 == 1;
        struct world world;
        begin(&world);
        link_up("a:1");
        link_up("b:1");
        if (is_ready)
            get_ready(&world);
        world.age = rows[i / 2].age;
        for (unsigned j = 0; rows[i / 2].others[j] != '\0'; j++) {
            char kind = rows[i / 2].others[j];
            hear_of(&world, PEER + j, kind == 'm' ? world.first_hash : rows[i / 2].hash,
                    kind == 's' ? 0 : CONTROL_READY, NULL);
        }
        publisher_tick(world.publisher);
        bool refuses = publisher_outvoted(world.publisher) != NULL;
        if (refuses != (is_ready ? rows[i / 2].when_ready : rows[i / 2].when_starting))
            fail_msg("%s, %s: %d", rows[i / 2].others, is_ready ? "ready" : "starting",
                     refuses);
        end(&world);
    }
}

static void test_a_ready_one_goes_on_where_only_shards_differ(void **state UNUSED)
{
    struct world world;
    begin(&world);
    get_ready(&world);
    world.age = 3600000;
    struct map_outline outline = partition_map_outline(world.map);
    outline.shards++;
    hear_of(&world, PEER, 1, CONTROL_READY, &outline);
    assert_null(publisher_outvoted(world.publisher));
    outline.partitions--;
    hear_of(&world, PEER, 1, CONTROL_READY, &outline);
    assert_non_null(publisher_outvoted(world.publisher));
    publisher_go_on_without(world.publisher, PEER);
    publisher_tick(world.publisher);
    assert_null(publisher_outvoted(world.publisher));
    end(&world);
}

/* Whoever may PUBLISH can say this once, in a new name or in that of a broker that agrees. */
static void test_a_map_that_nobody_has_shown_refuses_nothing(void **state UNUSED)
{
    struct world world;
    for (unsigned i = 0; i < 4; i++) {
        begin(&world);
        world.age = 3600000;
        link_up("a:1");
        link_up("b:1");
        if (i % 2 == 1)
            get_ready(&world);
        if (i / 2 == 1)
            hear_of(&world, PEER, world.first_hash, CONTROL_READY, NULL);
        hear_claim(&world, PEER, OTHER_MAP, CONTROL_READY, NULL, false);
        for (unsigned j = 0; j < 10; j++) {
            assert_string_equal("", refusal(&world));
            hear_claim(&world, PEER + 1 + j, OTHER_MAP, CONTROL_READY, NULL, false);
            pass(&world, MILLISECONDS(310));
            assert_true(said(&world, CONTROL_WHERE, peer_channel) > 0);
        }
        /* not an answer to the question that is open */
        struct control answer = {.kind = CONTROL_POSITIONS,
                                 .question = world.control.number + 1,
                                 .facts = {.flags = CONTROL_READY, .used = OTHER_MAP}};
        hear(&world, &answer);
        assert_string_equal("", refusal(&world));
        hear_claim(&world, PEER, OTHER_MAP, CONTROL_READY, NULL, false);
        answer.question--;
        hear(&world, &answer);
        assert_string_not_equal("", refusal(&world));
        end(&world);
    }
}

/* While one is silent that may come back and ask, what it may have missed is kept, however long the window is. */
static void test_the_window_stands_while_a_broker_is_silent(void **state UNUSED)
{
    struct world world;
    begin(&world);
    get_ready(&world);
    for (unsigned is_silent = 0; is_silent < 2; is_silent++) {
        hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
        publish(&world);
        settle(&world);
        settle(&world);
        unsigned kept = 0;
        for (; publisher_status(world.publisher).sent_ring_messages > 0; kept++) {
            pass(&world, MILLISECONDS(200));
            if (is_silent == 0)
                hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
        }
        assert_in_range(kept, is_silent == 0 ? 5 * 20 : 5 * 86,
                        is_silent == 0 ? 5 * 21 : 5 * 89);
    }
    end(&world);
}

/* Questions go by numbers that cannot be guessed from those before. */
static void test_each_question_has_a_random_number(void **state UNUSED)
{
    struct world world;
    uint64_t numbers[3];
    begin(&world);
    link_up("a:1");
    link_up("b:1");
    hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
    for (unsigned i = 0; i < 3; i++) {
        pass(&world, MILLISECONDS(310));
        assert_true(said(&world, CONTROL_WHERE, peer_channel) > 0);
        numbers[i] = world.control.number;
    }
    assert_true((numbers[0] | numbers[1] | numbers[2]) > UINT32_MAX);
    assert_true(numbers[2] - numbers[1] != numbers[1] - numbers[0]);
    end(&world);
}

static void
test_questions_are_answered_and_what_is_kept_is_sent_again(void **state UNUSED)
{
    struct world world;
    begin(&world);
    get_ready(&world);
    hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
    for (unsigned i = 0; i < 3; i++)
        publish(&world);
    settle(&world);
    uint16_t partition = partition_of_channel(world.map, SLICE("news"));
    struct control where = {.kind = CONTROL_WHERE, .shard = SLICE("b:1")};
    said(&world, 0, "");
    hear(&world, &where);
    assert_true(fake_link_find("b:1", LINK_PUBLISHING)->in_flight >
                0); /* where it asked for it */
    settle(&world);
    assert_int_equal(1, said(&world, CONTROL_POSITIONS, peer_channel));
    assert_true(world.control.question == world.number);
    uint16_t answered = 0;
    uint64_t last = 0;
    assert_true(control_next_position(&world.control.places, &answered, &last));
    assert_true(answered == partition && last == 3);

    struct evbuffer *ranges = evbuffer_new();
    control_add_range(ranges, partition, 2, 9);
    struct control ask = {.kind = CONTROL_ASK, .ranges = list_of(ranges, 1)};
    hear(&world, &ask);
    settle(&world);
    assert_int_equal(
        2,
        said(&world, 0, peer_channel)); /* 2 and 3; what was never sent is nobody's gap */
    assert_int_equal(0, said(&world, CONTROL_GONE, peer_channel));
    evbuffer_free(ranges);
    end(&world);
}

/* More partitions in use than one heartbeat has tails for. */
static void test_every_tail_is_in_a_heartbeat(void **state UNUSED)
{
    struct world world;
    partitions = "65536";
    begin(&world);
    partitions = "4096";
    get_ready(&world);
    bool *has_tail = must_calloc(65536, sizeof(bool));
    size_t used = 0;
    for (unsigned i = 0; i < 6000; i++) {
        char channel[16];
        struct publish_result result;
        snprintf(channel, sizeof(channel), "news %u", i);
        publish_message(world.publisher, NULL, NULL, slice_from_text(channel),
                        SLICE("text"), 0, timing_now(), &result);
        assert_true(result.is_accepted);
        bool *it = &has_tail[partition_of_channel(world.map, slice_from_text(channel))];
        used += !*it;
        *it = true;
        for (unsigned j = 0; i % 100 == 0 && j < fake_link_count; j++)
            while (fake_links[j]->in_flight > 0)
                fake_link_reply(fake_links[j]);
    }
    assert_true(used > 4096);
    settle(&world);
    settle(&world);
    said(&world, 0, "");
    struct link *link = fake_link_find("a:1", LINK_PUBLISHING);
    evbuffer_drain(link->out, evbuffer_get_length(link->out));
    fake_now += MILLISECONDS(500);
    fake_link_set(link, LINK_DOWN); /* the first on a new connection is a heartbeat */
    fake_link_set(link, LINK_UP);
    size_t heard = 0;
    unsigned beats = 0;
    struct slice rest = slice_of((const char *)evbuffer_pullup(link->out, -1),
                                 evbuffer_get_length(link->out));
    while (rest.len > 0) {
        rest = slice_from(rest, strlen("*3\r\n$7\r\nPUBLISH\r\n"));
        take_bulk(&rest);
        assert_int_equal(CONTROL_OK, control_parse(take_bulk(&rest), &world.control));
        uint16_t partition;
        uint64_t last;
        while (control_next_position(&world.control.facts.tails, &partition, &last)) {
            assert_true(has_tail[partition]);
            has_tail[partition] = false;
            heard++;
        }
        beats++;
    }
    assert_int_equal(2, beats);
    assert_int_equal(used, heard);
    free(has_tail);
    end(&world);
}

static void
test_when_a_subscription_returns_the_others_are_asked_where_they_are(void **state UNUSED)
{
    struct world world;
    begin(&world);
    get_ready(&world);
    hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
    pass(&world, SECONDS(1));
    said(&world, CONTROL_WHERE, peer_channel);
    pass(&world, MILLISECONDS(100));
    assert_int_equal(0, said(&world, CONTROL_WHERE, peer_channel)); /* all is calm */
    struct link *link = fake_link_find("a:1", LINK_SUBSCRIBING);
    fake_link_set(link, LINK_DOWN);
    pass(&world, MILLISECONDS(100));
    assert_int_equal(0, said(&world, CONTROL_WHERE, peer_channel));
    fake_link_set(link, LINK_UP);
    fake_link_confirm(link);
    pass(&world, MILLISECONDS(100));
    assert_in_range(said(&world, CONTROL_WHERE, peer_channel), 1, 2);
    end(&world);
}

static void test_who_is_heard_again_is_asked_where_it_is(void **state UNUSED)
{
    struct world world;
    begin(&world);
    get_ready(&world);
    for (unsigned i = 0; i < 3; i++) {
        world.age += 2000; /* one heartbeat was lost: the tails of the next have it */
        hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
        pass(&world, SECONDS(2));
    }
    assert_int_equal(0, said(&world, CONTROL_WHERE, peer_channel));
    pass(&world, SECONDS(4)); /* nothing is asked while it is not heard */
    assert_int_equal(0, said(&world, CONTROL_WHERE, peer_channel));
    world.age += 6000;
    hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
    settle(&world);
    assert_int_equal(1, said(&world, CONTROL_WHERE, peer_channel));
    pass(&world, MILLISECONDS(400)); /* again, until it has answered */
    assert_int_equal(1, said(&world, CONTROL_WHERE, peer_channel));
    world.age += 400;
    hear_facts(&world, world.first_hash, world.first_hash, 2, world.control.number);
    pass(&world, SECONDS(1));
    said(&world, CONTROL_WHERE, peer_channel);
    pass(&world, SECONDS(1));
    assert_int_equal(0, said(&world, CONTROL_WHERE, peer_channel));
    end(&world);
}

static void test_all_that_is_gone_is_said_at_once(void **state UNUSED)
{
    struct world world;
    begin(&world);
    get_ready(&world);
    hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
    for (unsigned i = 0; i < 300; i++) {
        publish(&world);
        settle(&world);
    }
    world.config->resend_window = 0;
    assert_true(publisher_reload(world.publisher, world.config));
    pass(&world, MILLISECONDS(10));
    said(&world, 0, "");
    uint16_t partition = partition_of_channel(world.map, SLICE("news"));
    struct evbuffer *ranges = evbuffer_new();
    control_add_range(ranges, partition, 7, 200);
    struct control ask = {.kind = CONTROL_ASK, .ranges = list_of(ranges, 1)};
    hear(&world, &ask);
    evbuffer_free(ranges);
    settle(&world);
    assert_int_equal(1, said(&world, CONTROL_GONE, peer_channel));
    uint16_t where;
    uint64_t first;
    unsigned count;
    assert_true(control_next_range(&world.control.ranges, &where, &first, &count));
    assert_true(where == partition && first == 7 && count == 200);
    assert_true(control_next_range(&world.control.ranges, &where, &first, &count));
    assert_true(first == 207 && count == 94);
    assert_int_equal(0, world.control.ranges.count);
    end(&world);
}

static void test_copies_and_late_heartbeats_change_nothing(void **state UNUSED)
{
    struct world world;
    begin(&world);
    get_ready(&world);
    hear_facts(&world, world.first_hash, world.first_hash, 2, 0);
    world.number = 0;
    hear_facts(&world, world.first_hash, world.first_hash, 1, 0); /* late: not on b */
    settle(&world);
    assert_int_equal(2, shard_set_usable_count(publisher_shards(world.publisher)));
    hear_facts(&world, world.first_hash, world.first_hash, 1, 0); /* the next is not */
    settle(&world);
    assert_int_equal(1, shard_set_usable_count(publisher_shards(world.publisher)));
    end(&world);
}

/* L: three shards are loaded; l: two again. c: the new one is up. The other broker says: o old map; n it carries the new
 * one and is subscribed on its shards; h it carries it but is not subscribed on c; s the other way round; u it uses it. 1, 5, 9: seconds pass. */
static const struct {
    const char *events, *state;
    unsigned shards;
} changes[] = {
    {"o", "settled", 2},
    {"oL", "loaded", 3},
    {"oLn", "loaded", 3}, /* c is not up here */
    {"oLc", "loaded", 3},
    {"oLch", "loaded", 3},
    {"oLcs", "loaded", 3},
    {"oLcn", "used", 3},
    {"Lc", "used", 3},      /* nobody else is live */
    {"oLc9", "used", 3},    /* nor is it after 5 s of silence */
    {"oLcn1n5", "used", 3}, /* it still uses the old one */
    {"oLcnu", "used", 3},
    {"oLcnu1u1u1u1u1u1", "settled", 3},
    {"oLcnu1u1u1n1u1u1", "used", 3}, /* not five seconds without a break */
    {"oLl", "used", 3}, /* back before it was used: what was kept goes after 5 s */
    {"oLlu1u1u1u1u1u1", "used", 3},
    {"oLlo1o1o1o1o1o1", "settled", 2},
    {"oLcnLL", "used", 3}, /* the same again */
    {"oLlLcn", "used", 3},
};

static void play(struct world *world, char event)
{
    uint64_t first = world->first_hash;
    uint64_t second = world->second_hash;
    switch (event) {
    case 'L':
    case 'l':
        assert_true(publisher_reload(world->publisher,
                                     event == 'L' ? world->wider : world->config));
        break;
    case 'c':
        link_up("c:1");
        break;
    case 'o':
        hear_facts(world, first, first, 2, 0);
        break;
    case 'n':
        hear_facts(world, first, second, 3, 0);
        break;
    case 'h':
        hear_facts(world, first, second, 2, 0);
        break;
    case 's':
        hear_facts(world, first, first, 3, 0);
        break;
    case 'u':
        hear_facts(world, second, first, 3, 0);
        break;
    default:
        pass(world, SECONDS((uint64_t)(event - '0')));
        return;
    }
    settle(world);
}

static void test_a_change_takes_each_step_when_all_others_allow_it(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        struct world world;
        begin(&world);
        get_ready(&world);
        for (const char *event = changes[i].events; *event != '\0'; event++)
            play(&world, *event);
        struct map_change_status status =
            map_change_status(publisher_map(world.publisher));
        size_t count = shard_set_count(publisher_shards(world.publisher));
        if (strcmp(status.state, changes[i].state) != 0 || count != changes[i].shards)
            fail_msg("%s: %s with %zu shards, not %s with %u", changes[i].events,
                     status.state, count, changes[i].state, changes[i].shards);
        end(&world);
    }
}

static void test_without_the_one_that_does_not_load(void **state UNUSED)
{
    struct world world;
    begin(&world);
    get_ready(&world);
    for (const char *event = "oLc"; *event != '\0'; event++)
        play(&world, *event);
    assert_int_equal(1, map_change_status(publisher_map(world.publisher)).behind);
    publisher_go_on_without(world.publisher, PEER);
    play(&world, 'o');
    assert_string_equal("used", map_change_status(publisher_map(world.publisher)).state);
    assert_true(publisher_status(world.publisher).map_hash == world.second_hash);
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready_when_subscribed_and_everybody_has_said_where_it_is),
        cmocka_unit_test(test_never_ready_beside_one_that_routes_by_another_map),
        cmocka_unit_test(test_a_starting_broker_refuses_beside_another_map),
        cmocka_unit_test(test_who_has_more_right),
        cmocka_unit_test(test_a_ready_one_goes_on_where_only_shards_differ),
        cmocka_unit_test(test_a_map_that_nobody_has_shown_refuses_nothing),
        cmocka_unit_test(test_the_window_stands_while_a_broker_is_silent),
        cmocka_unit_test(test_each_question_has_a_random_number),
        cmocka_unit_test(test_questions_are_answered_and_what_is_kept_is_sent_again),
        cmocka_unit_test(test_who_is_heard_again_is_asked_where_it_is),
        cmocka_unit_test(test_all_that_is_gone_is_said_at_once),
        cmocka_unit_test(test_every_tail_is_in_a_heartbeat),
        cmocka_unit_test(
            test_when_a_subscription_returns_the_others_are_asked_where_they_are),
        cmocka_unit_test(test_copies_and_late_heartbeats_change_nothing),
        cmocka_unit_test(test_a_change_takes_each_step_when_all_others_allow_it),
        cmocka_unit_test(test_without_the_one_that_does_not_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
