/*
 * Where partitions are sent while shards come and go, are heard by all or not, and maps change; what is subscribed
 * where; and that nothing is in two queues. The cases are lists of events.
 */
#include "tests/unit/broker/fake_links.h"

#include "broker/broker_metrics.h"
#include "broker/partition_map.h"
#include "broker/shard_parts.h"

#include <event2/event.h>

#define PARTITIONS 64

struct world {
    struct event_base *base;
    struct sent_ring *ring;
    struct shard_set *set;
    struct partition_map *maps[4];
    struct broker_config configs[4];
    struct chunk_writer writer;
    char unheard; /* this shard is not heard by every broker; 0: all are */
    unsigned homeless;
    uint64_t sequences[PARTITIONS];
};

static void ignore_shard(void *context UNUSED, struct shard *shard UNUSED)
{
}

static void on_answer(void *context, struct shard *shard UNUSED, struct sent *sent,
                      bool ok UNUSED, struct slice text UNUSED)
{
    struct world *world = context;
    /* long ago: nothing of it is sent again at a move */
    sent_ring_confirm(world->ring, sent, timing_now() - SECONDS(1));
}

static void ignore_bytes(void *context UNUSED, struct shard *shard UNUSED,
                         struct slice channel UNUSED, uint32_t partition UNUSED,
                         struct slice bytes UNUSED)
{
}

static void ignore_wanted(void *context UNUSED, unsigned partition UNUSED,
                          bool is_wanted UNUSED)
{
}

static void ignore(void *context UNUSED)
{
}

static void ignore_complete(void *context UNUSED, struct shard *shard UNUSED,
                            bool is_complete UNUSED)
{
}

static void ignore_sending(void *context UNUSED, const struct sent *sent UNUSED)
{
}

static void on_homeless(void *context, unsigned partition UNUSED)
{
    ((struct world *)context)->homeless++;
}

static bool is_heard(void *context, size_t shard)
{
    const struct world *world = context;
    return world->set->slots[shard]->config->name[0] != world->unheard;
}

static void ignore_gone(void *context UNUSED, size_t shard UNUSED)
{
}

/* The configuration with one shard for each letter. */
static struct partition_map *make_map(struct broker_config *config, const char *letters)
{
    size_t count = strlen(letters);
    struct broker_shard_config *shards =
        must_calloc(count, sizeof(struct broker_shard_config));
    for (size_t i = 0; i < count; i++) {
        shards[i].name = must_printf("%c", letters[i]);
        shards[i].url = must_printf("redis://%c:1", letters[i]);
        shards[i].username = must_strdup("");
        shards[i].password_file = must_strdup("");
        shards[i].weight = 1;
    }
    config->shards = (struct option_list){shards, count};
    config->cluster_partitions = PARTITIONS;
    config->cluster_name = must_strdup("test");
    struct partition_map_config map_config = broker_config_map(config);
    struct partition_map *map = partition_map_new(&map_config);
    broker_config_map_cleanup(&map_config);
    return map;
}

static void begin(struct world *world, const char *const letters[], size_t count)
{
    *world = (struct world){.base = event_base_new()};
    metrics_init(broker_metric_rows, BROKER_METRIC_COUNT);
    world->ring = sent_ring_new(PARTITIONS, SECONDS(10), 1 << 20);
    const struct shard_callbacks callbacks = {
        .on_change = ignore_shard,
        .on_answer = on_answer,
        .on_message = ignore_bytes,
        .on_wanted = ignore_wanted,
        .on_relief = ignore,
        .on_up = ignore_shard,
        .on_complete = ignore_complete,
        .on_carried = ignore,
        .on_sending = ignore_sending,
        .on_homeless = on_homeless,
        .is_heard = is_heard,
        .on_gone = ignore_gone,
        .context = world,
    };
    for (size_t i = 0; i < count; i++)
        world->maps[i] = make_map(&world->configs[i], letters[i]);
    world->set = shard_set_new(world->base, NULL, &world->configs[0], PARTITIONS,
                               world->ring, 1, &callbacks);
    assert_true(shard_set_carry(world->set, world->maps[0], &world->configs[0]));
    shard_set_use(world->set, world->maps[0]);
    shard_set_start(world->set);
    shard_set_want(world->set, SHARD_ALL_PARTITIONS);
}

static void end(struct world *world)
{
    sent_ring_check(world->ring);
    shard_set_free(world->set);
    sent_ring_free(world->ring);
    for (size_t i = 0; i < ARRAY_LEN(world->maps); i++) {
        if (world->maps[i] != NULL)
            partition_map_free(world->maps[i]);
        for (size_t j = 0; j < world->configs[i].shards.count; j++) {
            struct broker_shard_config *shard =
                OPTION_ITEM(world->configs[i].shards, broker_shard_config, j);
            free(shard->name);
            free(shard->url);
            free(shard->username);
            free(shard->password_file);
        }
        free(world->configs[i].shards.items);
        free(world->configs[i].cluster_name);
    }
    chunk_writer_cleanup(&world->writer);
    metrics_cleanup();
    event_base_free(world->base);
}

static void links_of(char letter, struct link **publishing, struct link **subscribing)
{
    const char name[2] = {letter, '\0'};
    *publishing = fake_link_find(name, LINK_PUBLISHING);
    *subscribing = fake_link_find(name, LINK_SUBSCRIBING);
    assert_true(*publishing != NULL && *subscribing != NULL);
}

static void publish_everywhere(struct world *world)
{
    for (uint16_t i = 0; i < PARTITIONS; i++) {
        struct span command =
            chunk_writer_copy(&world->writer, SLICE("<S1\1\0 envelope and payload>"));
        struct sent *sent = sent_ring_add(world->ring, i, ++world->sequences[i], command,
                                          1, (uint32_t)command.len - 2, timing_now());
        shard_set_send(world->set, sent);
    }
}

static void play(struct world *world, const char *event)
{
    struct link *publishing = NULL;
    struct link *subscribing = NULL;
    if (strchr("+-~xh", event[0]) != NULL)
        links_of(event[1], &publishing, &subscribing);
    switch (event[0]) {
    case '+': /* its links are up and all is confirmed */
        fake_link_set(publishing, LINK_UP);
        fake_link_set(subscribing, LINK_UP);
        fake_link_confirm(subscribing);
        break;
    case '-': /* both links end */
        fake_link_set(publishing, LINK_DOWN);
        fake_link_set(subscribing, LINK_DOWN);
        break;
    case '~': /* the subscribing one ends */
        fake_link_set(subscribing, LINK_DOWN);
        break;
    case 'x': /* the oldest in flight is answered with an error */
        publishing->in_flight--;
        publishing->callbacks.on_reply(publishing->callbacks.context, publishing, false,
                                       SLICE("NOPERM"));
        break;
    case 'h': /* a heartbeat is taken, and all before it */
        shard_send_control(
            shard_set_find(world->set, slice_from_text(publishing->config.shard->name)),
            chunk_writer_copy(&world->writer, SLICE("<heartbeat>")));
        for (unsigned left = publishing->in_flight; left > 0; left--)
            fake_link_reply(publishing);
        break;
    case '!': /* not heard by all; "!" alone: all are heard */
        world->unheard = event[1];
        break;
    case 'R':
        shard_set_set_ready(world->set);
        break;
    case 't': /* seconds pass */
        fake_now += SECONDS((uint64_t)(event[1] - '0'));
        break;
    case 'L': /* a map is loaded, and what it needs confirmed where links are up */
        assert_true(shard_set_carry(world->set, world->maps[event[1] - '0'],
                                    &world->configs[event[1] - '0']));
        for (unsigned i = 0; i < fake_link_count; i++)
            if (fake_links[i]->config.kind == LINK_SUBSCRIBING)
                fake_link_confirm(fake_links[i]);
        break;
    case 'U':
        shard_set_use(world->set, world->maps[event[1] - '0']);
        break;
    case 'D':
        shard_set_drop(world->set, world->maps[event[1] - '0']);
        break;
    case 'P':
        publish_everywhere(world);
        break;
    default:
        fail_msg("%s", event);
    }
    shard_set_place(world->set);
}

/* What a partition's place is called: home, standby, elsewhere, nowhere; '?' when partitions differ. */
static char place_of_all(const struct world *world, const char *letters)
{
    char all = 0;
    for (unsigned i = 0; i < PARTITIONS; i++) {
        const struct partition *partition = &world->set->partitions[i];
        const struct shard *home = world->set->slots[partition->best[0]];
        if (strchr(letters, home->config->name[0]) == NULL)
            continue;
        char place = partition->sent_to == SHARD_NOWHERE        ? 'n'
                     : partition->sent_to == partition->best[0] ? 'h'
                     : partition->sent_to == partition->best[1] ? 's'
                                                                : 'e';
        if (all == 0)
            all = place;
        else if (all != place)
            return '?';
    }
    return all;
}

/* Where the partitions are whose home is one of `homes`, after the events. */
static const struct {
    const char *events, *homes;
    char place;
} cases[] = {
    {"R", "ab", 'n'},
    {"+a +b", "ab", 'n'}, /* not ready */
    {"+a +b R", "ab", 'h'},
    {"+a R", "a", 'h'},
    {"+a R", "b", 's'},
    {"+a R +b", "b", 's'}, /* back only after a while */
    {"+a R +b t4", "b", 's'},
    {"+a R +b t5", "b", 'h'},
    {"+a R +b t4 -b +b t4", "b", 's'}, /* without a break */
    {"+a +b R -b", "b", 's'},
    {"+a +b R -b", "a", 'h'},
    {"+a +b R -a -b", "ab", 'n'},
    {"+a +b R -a -b +b", "a", 's'},
    {"+a +b R ~b", "b", 's'}, /* subscribed no more: nobody here hears it */
    {"+a +b R !b", "b", 's'},
    {"+a +b R !b ~a", "b", 's'}, /* none usable: stays where the link is up */
    {"+a +b R ~a ~b", "b", 'h'},
    {"+a +b R ~a ~b -b", "b", 's'},
    /* a shard that refuses is as one that is down, until it has taken a heartbeat a second later */
    {"+a +b R P xa", "a", 's'},
    {"+a +b R P xa", "b", 'h'},
    {"+a R P xa", "ab", 'n'},
    {"+a R P xa ha", "ab", 'n'},
    {"+a R P xa t1", "ab", 'n'},
    {"+a R P xa t1 ha", "a", 'h'},
    {"+a R P xa -a +a", "ab", 'n'},
    {"+a +b R P xa t1 ha", "a", 's'},
    {"+a +b R P xa t1 ha t5", "a", 'h'},
    /* a map that is loaded changes nothing; used, each partition goes at once where its old place is none of the new */
    {"+a +b R L1", "ab", 'h'},
    {"+a +b R L1 +c U1 t5", "abc", 'h'},
    {"+a +b R L2 +c U2 t5", "bc", 'h'},
    {"+a +b R L2 +c t5 U2 D0", "bc", 'h'},
    {"+a +b R L2 U2", "c", 's'}, /* c is not up yet: b stands by for it */
    {"+a +b R L2 +c U2 t5 -c", "c", 's'},
};

static void test_where_partitions_are_sent(void **state UNUSED)
{
    static const char *const letters[] = {"ab", "abc", "bc"};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world world;
        begin(&world, letters, ARRAY_LEN(letters));
        char events[64];
        snprintf(events, sizeof(events), "%s", cases[i].events);
        char *rest = events;
        for (char *event; (event = strsep(&rest, " ")) != NULL;)
            play(&world, event);
        char place = place_of_all(&world, cases[i].homes);
        if (place != cases[i].place)
            fail_msg("%s, of %s: %c, not %c", cases[i].events, cases[i].homes, place,
                     cases[i].place);
        end(&world);
    }
}

static void
test_what_is_accepted_goes_out_once_all_is_confirmed_wherever_it_was(void **state UNUSED)
{
    static const char *const letters[] = {"ab", "abc", "bc"};
    static const char *const stories[] = {
        "P +a +b R",
        "+a +b R P -a",
        "+a +b R P -b P +b P t5 P",
        "+a +b R P -a -b P +a",
        "+a +b R P L1 +c U1 P t5",
        "+a +b R P L2 +c U2 P D0 P",
        "+a +b R P L2 P -b +c U2 P +b",
        "+a +b R P P xa P",
        "+a R P P xa P t1 ha P",
        "+a R P xa t1 ha xa t1 ha xa P", /* the third error is an answer */
    };
    for (size_t i = 0; i < ARRAY_LEN(stories); i++) {
        struct world world;
        begin(&world, letters, ARRAY_LEN(letters));
        char events[64];
        snprintf(events, sizeof(events), "%s", stories[i]);
        char *rest = events;
        for (char *event; (event = strsep(&rest, " ")) != NULL;)
            play(&world, event);
        bool is_busy = true;
        while (is_busy) {
            is_busy = false;
            for (unsigned j = 0; j < fake_link_count; j++)
                while (fake_links[j]->in_flight > 0) {
                    fake_link_reply(fake_links[j]);
                    is_busy = true;
                }
        }
        if (!shard_set_is_idle(world.set) || sent_ring_unconfirmed_count(world.ring) > 0)
            fail_msg("%s: something is left", stories[i]);
        end(&world);
    }
}

/* Without a loss of the link: what is in flight there is void, and goes out anew where the partition is now. */
static void
test_what_is_in_flight_when_a_partition_moves_is_sent_again(void **state UNUSED)
{
    static const char *const letters[] = {"ab"};
    static const char *const events[] = {"+a", "+b", "R", "P"};
    struct world world;
    struct link *a;
    struct link *b;
    struct link *subscribing;
    begin(&world, letters, 1);
    for (size_t i = 0; i < ARRAY_LEN(events); i++)
        play(&world, events[i]);
    links_of('a', &a, &subscribing);
    links_of('b', &b, &subscribing);
    assert_in_range(b->in_flight, 1, PARTITIONS - 1);
    assert_int_equal(PARTITIONS, a->sent + b->sent);
    play(&world, "!b");
    assert_int_equal(PARTITIONS, a->sent);
    while (b->in_flight > 0)
        fake_link_reply(b); /* confirms nothing any more */
    assert_int_equal(PARTITIONS, sent_ring_unconfirmed_count(world.ring));
    while (a->in_flight > 0)
        fake_link_reply(a);
    assert_int_equal(0, sent_ring_unconfirmed_count(world.ring));
    end(&world);
}

static unsigned wanted_at(const struct world *world, const char *name)
{
    const struct shard *shard = shard_set_find(world->set, slice_from_text(name));
    return shard != NULL ? shard->wanted : 0;
}

static void test_the_union_of_maps_is_subscribed_and_what_no_map_needs_is_given_up(
    void **state UNUSED)
{
    static const char *const letters[] = {"ab", "abc", "bc"};
    struct world world;
    begin(&world, letters, ARRAY_LEN(letters));
    play(&world, "+a");
    play(&world, "+b");
    play(&world, "R");
    assert_int_equal(PARTITIONS, wanted_at(&world, "a"));
    assert_true(shard_set_carries(world.set, world.maps[0]));
    assert_true(shard_set_carry(world.set, world.maps[1], &world.configs[1]));
    assert_false(shard_set_carries(world.set, world.maps[1])); /* c is not there */
    play(&world, "+c");
    assert_true(shard_set_carries(world.set, world.maps[1]));
    assert_int_equal(3, shard_set_count(world.set));
    assert_in_range(wanted_at(&world, "c"), 1, PARTITIONS - 1);
    assert_int_equal(PARTITIONS, wanted_at(&world, "a"));
    play(&world, "U1");
    play(&world, "D0");
    assert_in_range(wanted_at(&world, "a"), 1, PARTITIONS - 1);
    assert_int_equal(2 * PARTITIONS, wanted_at(&world, "a") + wanted_at(&world, "b") +
                                         wanted_at(&world, "c"));
    struct link *publishing;
    struct link *subscribing;
    links_of('a', &publishing, &subscribing);
    assert_int_equal(PARTITIONS - wanted_at(&world, "a"), subscribing->unsubscribed);
    play(&world, "L2");
    play(&world, "U2");
    play(&world, "D1");
    assert_int_equal(2, shard_set_count(world.set));
    assert_null(fake_link_find("a", LINK_PUBLISHING));
    assert_int_equal(PARTITIONS, wanted_at(&world, "b"));
    end(&world);
}

static void test_a_link_that_does_not_hear_its_own_is_made_anew(void **state UNUSED)
{
    static const char *const letters[] = {"ab"};
    struct world world;
    begin(&world, letters, 1);
    play(&world, "+a");
    play(&world, "+b");
    play(&world, "R");
    struct shard *a = shard_set_find(world.set, SLICE("a"));
    for (unsigned i = 0; i < 5; i++) {
        shard_note_beat(a);
        play(&world, "t1");
        shard_hear_own(a);
        shard_set_tick(world.set, timing_now());
    }
    assert_int_equal(LINK_UP, link_state(a->subscribing));
    shard_note_beat(a);
    play(&world, "t3");
    shard_set_tick(world.set, timing_now());
    assert_int_equal(LINK_UP, link_state(a->subscribing));
    play(&world, "t1");
    shard_set_tick(world.set, timing_now());
    assert_int_equal(LINK_DOWN, link_state(a->subscribing));
    assert_int_equal(CLOSE_LINK_STALE, link_last_reason(a->subscribing));
    fake_link_set(a->subscribing, LINK_UP); /* and nothing is confirmed */
    play(&world, "t4");
    shard_set_tick(world.set, timing_now());
    assert_int_equal(LINK_DOWN, link_state(a->subscribing));
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_partitions_are_sent),
        cmocka_unit_test(
            test_what_is_accepted_goes_out_once_all_is_confirmed_wherever_it_was),
        cmocka_unit_test(test_what_is_in_flight_when_a_partition_moves_is_sent_again),
        cmocka_unit_test(
            test_the_union_of_maps_is_subscribed_and_what_no_map_needs_is_given_up),
        cmocka_unit_test(test_a_link_that_does_not_hear_its_own_is_made_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
