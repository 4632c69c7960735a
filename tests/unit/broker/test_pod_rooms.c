/* Which pods a message is for: against a naive list under random joins, leaves and snapshots, and rule by rule. */
#include "tests/unit/unit.h"

#include "broker/message.h"
#include "broker/pod_rooms.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PODS  5
#define NAMES 40

struct world {
    struct pod_rooms *rooms;
    struct pod_filter pods[PODS];
    bool needs[PODS][NAMES];
    int told[NAMES]; /* by the callbacks: first minus last */
};

static struct slice name_of(unsigned number)
{
    static char names[NAMES][16];
    snprintf(names[number], sizeof(names[number]), "s:%u", number);
    return number == 0 ? SLICE("") : slice_from_text(names[number]);
}

static uint32_t on_first(void *context, struct slice channel, struct slice namespace,
                         struct slice room)
{
    struct world *world = context;
    assert_true(slice_equals(channel, SLICE("c")) && slice_equals(namespace, SLICE("/")));
    for (unsigned i = 0; i < NAMES; i++)
        if (slice_equals(room, name_of(i))) {
            world->told[i]++;
            return i;
        }
    fail();
    return 0;
}

static void on_last(void *context, uint32_t partition)
{
    ((struct world *)context)->told[partition]--;
}

static void begin(struct world *world)
{
    *world = (struct world){0};
    const struct pod_rooms_callbacks callbacks = {on_first, on_last, world};
    world->rooms = pod_rooms_new(&callbacks);
    for (unsigned i = 0; i < PODS; i++) {
        uint8_t host_id[ENVELOPE_HOST_ID_LEN] = {(uint8_t)(i + 1)};
        pod_rooms_init(&world->pods[i], SLICE("c"), host_id);
        world->pods[i].is_filtered = true;
    }
}

static void end(struct world *world)
{
    for (unsigned i = 0; i < PODS; i++)
        pod_rooms_remove_all(world->rooms, &world->pods[i]);
    for (unsigned i = 0; i < NAMES; i++)
        assert_int_equal(0, world->told[i]);
    pod_rooms_free(world->rooms);
}

static struct envelope message(enum message_method method, const struct slice *rooms,
                               size_t count)
{
    return (struct envelope){.method = (uint8_t)method,
                             .channel = SLICE("c"),
                             .namespace = SLICE("/"),
                             .rooms_known = true,
                             .rooms = rooms,
                             .room_count = count};
}

static void check_all(struct world *world)
{
    pod_rooms_check(world->rooms);
    for (unsigned room = 0; room < NAMES; room++) {
        struct slice name = name_of(room);
        struct envelope emit = message(METHOD_EMIT, &name, room > 0);
        pod_rooms_select(world->rooms, &emit);
        int needed = 0;
        for (unsigned i = 0; i < PODS; i++) {
            assert_int_equal(world->needs[i][room],
                             pod_is_selected(world->rooms, &world->pods[i]));
            needed |= world->needs[i][room];
        }
        assert_int_equal(needed, world->told[room]);
    }
}

static void test_random_changes_are_as_in_a_naive_list(void **state UNUSED)
{
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    struct world world;
    begin(&world);
    for (unsigned step = 0; step < 3000; step++) {
        unsigned i = (unsigned)rand_r(&seed) % PODS;
        unsigned room = (unsigned)rand_r(&seed) % NAMES;
        struct pod_filter *pod = &world.pods[i];
        switch (rand_r(&seed) % 8) {
        case 0: /* a snapshot of half the rooms */
            for (unsigned k = 0; k < NAMES; k++) {
                world.needs[i][k] = rand_r(&seed) % 2;
                if (world.needs[i][k])
                    pod_rooms_add(world.rooms, pod, SLICE("/"), name_of(k), step + 1);
            }
            pod_rooms_remove_older(world.rooms, pod, step + 1);
            break;
        case 1:
        case 2:
        case 3:
            world.needs[i][room] = false;
            pod_rooms_remove(world.rooms, pod, SLICE("/"), name_of(room));
            break;
        default:
            world.needs[i][room] = true;
            assert_int_equal(room, pod_rooms_add(world.rooms, pod, SLICE("/"),
                                                 name_of(room), step + 1));
        }
        if (step % 50 == 0)
            check_all(&world);
    }
    check_all(&world);
    end(&world);
}

static bool is_for(struct world *world, const struct envelope *envelope, unsigned pod)
{
    pod_rooms_select(world->rooms, envelope);
    return pod_is_selected(world->rooms, &world->pods[pod]);
}

static void test_a_pod_gets_what_names_one_of_its_rooms_or_sids(void **state UNUSED)
{
    struct world world;
    begin(&world);
    pod_rooms_add(world.rooms, &world.pods[0], SLICE("/"), SLICE("s:1"), 1);
    struct slice rooms[] = {SLICE("s:2"), SLICE("s:1")};
    struct envelope envelope = message(METHOD_EMIT, rooms, 2);
    assert_true(is_for(&world, &envelope, 0));
    assert_false(is_for(&world, &envelope, 1));
    envelope.namespace = SLICE("/other");
    assert_false(is_for(&world, &envelope, 0));
    envelope = message(METHOD_ENTER_ROOM, rooms, 2); /* the sid comes second */
    assert_true(is_for(&world, &envelope, 0));
    struct slice turned[] = {SLICE("s:1"), SLICE("s:2")};
    envelope = message(METHOD_LEAVE_ROOM, turned, 2);
    assert_false(is_for(&world, &envelope, 0));
    envelope = message(METHOD_DISCONNECT, &rooms[1], 1);
    assert_true(is_for(&world, &envelope, 0));
    envelope = message(METHOD_CLOSE_ROOM, &rooms[0], 1);
    assert_false(is_for(&world, &envelope, 0));
    end(&world);
}

static void test_what_nobody_can_tell_goes_to_all(void **state UNUSED)
{
    struct world world;
    begin(&world);
    struct envelope envelope = message(METHOD_EMIT, NULL, 0);
    assert_false(is_for(&world, &envelope, 0)); /* everybody, and it has nobody there */
    envelope.rooms_known = false;
    assert_true(is_for(&world, &envelope, 0));
    struct slice room = SLICE("s:2");
    envelope = message(METHOD_EMIT, &room, 1);
    envelope.namespace = SLICE("");
    assert_true(is_for(&world, &envelope, 0));
    envelope = message(METHOD_OPAQUE, NULL, 0);
    assert_true(is_for(&world, &envelope, 0));
    envelope = message(METHOD_GENERIC, NULL, 0);
    assert_true(is_for(&world, &envelope, 0));
    envelope.method = 99; /* of a later broker */
    assert_true(is_for(&world, &envelope, 0));
    end(&world);
}

static void test_a_pod_that_has_not_told_its_rooms_gets_everything(void **state UNUSED)
{
    struct world world;
    begin(&world);
    world.pods[2].is_filtered = false;
    struct slice room = SLICE("s:2");
    struct envelope envelope = message(METHOD_EMIT, &room, 1);
    assert_false(is_for(&world, &envelope, 1));
    assert_true(is_for(&world, &envelope, 2));
    end(&world);
}

static void
test_callbacks_go_to_their_host_and_own_messages_are_skipped(void **state UNUSED)
{
    struct world world;
    begin(&world);
    struct envelope envelope = message(METHOD_CALLBACK, NULL, 0);
    assert_true(is_for(&world, &envelope, 3)); /* no host named */
    envelope.flags = ENVELOPE_HAS_HOST;
    envelope.host_id[0] = 2;
    assert_true(is_for(&world, &envelope, 1));
    assert_false(is_for(&world, &envelope, 3));
    world.pods[1].skips_own = true;
    assert_true(is_for(&world, &envelope, 1));
    envelope.method = METHOD_EMIT;
    envelope.rooms_known = false;
    assert_false(is_for(&world, &envelope, 1));
    assert_true(is_for(&world, &envelope, 3));
    end(&world);
}

static void test_what_one_connection_needed_the_next_one_does(void **state UNUSED)
{
    struct world world;
    begin(&world);
    for (unsigned i = 0; i < NAMES; i++) {
        pod_rooms_add(world.rooms, &world.pods[0], SLICE("/"), name_of(i), 1);
        world.needs[1][i] = true;
    }
    pod_rooms_move(&world.pods[0], &world.pods[1]);
    check_all(&world);
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_changes_are_as_in_a_naive_list),
        cmocka_unit_test(test_a_pod_gets_what_names_one_of_its_rooms_or_sids),
        cmocka_unit_test(test_what_nobody_can_tell_goes_to_all),
        cmocka_unit_test(test_a_pod_that_has_not_told_its_rooms_gets_everything),
        cmocka_unit_test(test_callbacks_go_to_their_host_and_own_messages_are_skipped),
        cmocka_unit_test(test_what_one_connection_needed_the_next_one_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
