/*
 * Proves that of two copies exactly one is delivered, whichever comes first, and where: with the room's wherever the
 * room's partition is received. The cases are lists of what happens.
 */
#include "tests/unit/unit.h"

#include "broker/copies.h"
#include "broker/envelope.h"
#include "broker/message.h"
#include "broker/partition_map.h"
#include "broker/sequence.h"

#include <event2/buffer.h>
#include <stdio.h>

#define ORIGIN 7

static const struct slice channel = SLICE_INIT("flask-socketio");
static const struct slice room = SLICE_INIT("s:lobby");
static const struct slice sid = SLICE_INIT("s:client");

struct fixture {
    struct partition_map *map;
    struct sequence_table *sequences;
    struct copies *copies;
    bool is_received;
    char log[64]; /* what was delivered: r and s at once, d after a wait */
};

static void note(struct fixture *fixture, const char *what)
{
    strncat(fixture->log, what, sizeof(fixture->log) - strlen(fixture->log) - 1);
}

static bool is_received(void *context, uint64_t origin, unsigned partition)
{
    const struct fixture *fixture = context;
    assert_true(origin == ORIGIN);
    assert_int_equal(partition_of_room(fixture->map, channel, SLICE("/"), room),
                     partition);
    return fixture->is_received;
}

static void on_release(void *context, const struct envelope *envelope)
{
    assert_int_equal(METHOD_ENTER_ROOM, envelope->method);
    note(context, "d");
}

static void begin(struct fixture *fixture)
{
    *fixture = (struct fixture){.is_received = true};
    const struct partition_map_config config = {.partitions = 4096};
    fixture->map = partition_map_new(&config);
    fixture->sequences = sequence_table_new(4096);
    const struct copies_callbacks callbacks = {is_received, on_release, fixture};
    fixture->copies = copies_new(fixture->map, fixture->sequences, &callbacks);
}

static void end(struct fixture *fixture)
{
    copies_free(fixture->copies);
    sequence_table_free(fixture->sequences);
    partition_map_free(fixture->map);
}

/* One copy comes: of the room's partition, or of the sid's. */
static void take(struct fixture *fixture, bool is_rooms, uint64_t id, uint64_t standing)
{
    const struct slice rooms[2] = {room, sid};
    struct envelope envelope = {.method = METHOD_ENTER_ROOM,
                                .origin = ORIGIN,
                                .sequence = 1,
                                .message_id = id,
                                .channel = channel,
                                .namespace = SLICE("/"),
                                .rooms_known = true,
                                .room_count = 2,
                                .rooms = rooms};
    envelope.partition =
        partition_of_room(fixture->map, channel, SLICE("/"), is_rooms ? room : sid);
    struct evbuffer *out = evbuffer_new();
    assert_true(envelope_write(&envelope, out));
    size_t len = evbuffer_get_length(out);
    struct slice bytes = slice_of(evbuffer_pullup(out, -1), len);
    struct envelope parsed;
    assert_int_equal(ENVELOPE_OK, envelope_parse(bytes, &parsed));
    if (copies_take(fixture->copies, &parsed, bytes, standing))
        note(fixture, is_rooms ? "r" : "s");
    evbuffer_free(out);
}

/* r, s: that copy comes. +: COPIES_WAIT passes. e: the need of the room's partition ends. -: it has ended. */
static const struct {
    const char *happens, *delivered;
} cases[] = {
    {"rs", "r"}, {"sr", "r"},   {"s", ""},    {"s+", "d"},  {"s+r", "d"},
    {"se", "d"}, {"se-r", "d"}, {"-sr", "s"}, {"-rs", "r"}, {"srs", "r"},
    {"rr", "r"}, {"s+s", "d"},  {"-s", "s"},  {"sr+", "r"}, {"sre", "r"},
};

static void test_one_of_two_copies_is_delivered(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture fixture;
        begin(&fixture);
        uint64_t now = SECONDS(100);
        for (const char *what = cases[i].happens; *what != '\0'; what++) {
            copies_expire(fixture.copies, now);
            if (*what == 'r' || *what == 's')
                take(&fixture, *what == 'r', 1, now);
            else if (*what == '+')
                now += COPIES_WAIT;
            else if (*what == 'e')
                copies_release(fixture.copies,
                               partition_of_room(fixture.map, channel, SLICE("/"), room));
            else
                fixture.is_received = false;
        }
        copies_expire(fixture.copies, now);
        if (strcmp(fixture.log, cases[i].delivered) != 0)
            fail_msg("%s: %s, not %s", cases[i].happens, fixture.log, cases[i].delivered);
        end(&fixture);
    }
}

static void test_too_many_that_wait_are_released_the_oldest_first(void **state UNUSED)
{
    struct fixture fixture;
    begin(&fixture);
    for (uint64_t id = 1; id <= COPIES_MAX; id++)
        take(&fixture, false, id, SECONDS(1));
    assert_string_equal("", fixture.log);
    assert_int_equal(COPIES_MAX, copies_waiting(fixture.copies));
    take(&fixture, false, COPIES_MAX + 1, SECONDS(1));
    assert_string_equal("d", fixture.log);
    take(&fixture, true, 1, SECONDS(1));
    assert_string_equal("d", fixture.log);
    take(&fixture, true, 2, SECONDS(1));
    assert_string_equal("dr", fixture.log);
    assert_int_equal(COPIES_MAX - 1, copies_waiting(fixture.copies));
    end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_of_two_copies_is_delivered),
        cmocka_unit_test(test_too_many_that_wait_are_released_the_oldest_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
