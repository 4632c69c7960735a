/* What goes out first, what is in flight, and what becomes of it when the link ends or a partition moves. The cases are
 * lists of events, and what was given to the link by them. */
#include "tests/unit/broker/fake_links.h"

#include "broker/envelope.h"
#include "broker/outbox.h"

#include <ctype.h>

struct world {
    struct sent_ring *ring;
    struct link *link;
    struct outbox *outbox;
    struct chunk_writer writer;
    struct sent *messages[10];
    char log[128];
};

static void note(struct world *world, char what, uint64_t number)
{
    size_t len = strlen(world->log);
    snprintf(world->log + len, sizeof(world->log) - len, "%c%llu ", what,
             (unsigned long long)number);
}

static void on_sending(void *context, const struct sent *sent)
{
    note(context, sent->retransmitted ? 'M' : 'm', sent->sequence);
}

static struct span on_answer(void *context, uint64_t asker, const struct sent *sent)
{
    assert_int_equal(7, asker);
    note(context, 'a', sent->sequence);
    return sent->command;
}

static void on_change(void *context, struct link *link)
{
    struct world *world = context;
    if (link_state(link) == LINK_DOWN)
        outbox_take_back(world->outbox);
    else
        outbox_pump(world->outbox);
}

static void on_reply(void *context, struct link *link UNUSED, bool ok UNUSED,
                     struct slice text UNUSED)
{
    struct world *world = context;
    struct sent *sent = outbox_replied(world->outbox);
    if (sent != NULL)
        sent_ring_confirm(world->ring, sent, timing_now());
    note(world, sent != NULL ? '=' : '-', sent != NULL ? sent->sequence : 0);
    outbox_pump(world->outbox);
}

static struct span command_of(struct world *world)
{
    return chunk_writer_copy(&world->writer, SLICE("<S1\1\0 envelope and payload>"));
}

static void begin(struct world *world)
{
    *world = (struct world){.ring = sent_ring_new(10, SECONDS(10), 1 << 20)};
    const struct link_config config = {.kind = LINK_PUBLISHING};
    const struct link_callbacks link = {
        .on_change = on_change, .on_reply = on_reply, .context = world};
    world->link = link_new(NULL, NULL, NULL, &config, &link);
    const struct outbox_callbacks callbacks = {on_sending, on_answer, world};
    world->outbox = outbox_new(world->ring, world->link, &callbacks);
}

static void end(struct world *world)
{
    sent_ring_check(world->ring);
    outbox_free(world->outbox);
    link_free(world->link);
    sent_ring_free(world->ring);
    chunk_writer_cleanup(&world->writer);
}

/* Message `number` is of partition number % 2. */
static void put(struct world *world, unsigned number)
{
    struct span command = command_of(world);
    world->messages[number] =
        sent_ring_add(world->ring, (uint16_t)(number % 2), number, command, 1,
                      (uint32_t)command.len - 2, timing_now());
    outbox_put(world->outbox, world->messages[number]);
}

static void play(struct world *world, const char *event)
{
    unsigned number = isdigit((unsigned char)event[1]) ? (unsigned)(event[1] - '0') : 0;
    switch (event[0]) {
    case 'm': /* a message is accepted */
        put(world, number);
        break;
    case 'a': /* one is asked for */
        outbox_put_answer(world->outbox, 7, (uint16_t)(number % 2), number);
        break;
    case 'c':
        outbox_put_control(world->outbox, command_of(world));
        break;
    case 'u': /* the link is up, with so much room */
        world->link->room = number;
        fake_link_set(world->link, LINK_UP);
        break;
    case 'd':
        fake_link_set(world->link, LINK_DOWN);
        break;
    case 'r': /* so many replies */
        for (unsigned i = 0; i < number; i++)
            fake_link_reply(world->link);
        break;
    case 'v': /* the partition moves away */
        outbox_void(world->outbox, number);
        break;
    case 'x': /* a message that waits is taken out */
        outbox_remove(world->outbox, world->messages[number]);
        break;
    default:
        fail_msg("%s", event);
    }
    outbox_pump(world->outbox);
}

/* log: m and M are given to the link, M again; a is an answer; = is confirmed; - a reply to anything else. */
static const struct {
    const char *events, *log;
    bool is_idle;
} cases[] = {
    {"m1 m2 m3", "", false},
    {"m1 m2 m3 u9", "m1 m2 m3 ", false},
    {"m1 m2 m3 u2", "m1 m2 ", false},
    {"u2 m1 m2 m3 r1", "m1 m2 =1 m3 ", false},
    {"u9 m1 m2 r2", "m1 m2 =1 =2 ", true},
    /* the link ends: first what was in flight, in order, marked */
    {"u2 m1 m2 m3 d u9", "m1 m2 M1 M2 m3 ", false},
    {"u2 m1 m2 m3 r1 d u9 r2", "m1 m2 =1 m3 M2 M3 =2 =3 ", true},
    /* control goes first and is lost with the link */
    {"u1 m1 c m2 r2", "m1 =1 -0 m2 ", false},
    {"u1 m1 c d u9 r1", "m1 M1 =1 ", true},
    {"c u9 m1", "m1 ", false},
    /* answers take turns with messages, wait once, and are lost with the link */
    {"u9 m1 m2 r2 d a1 u9", "m1 m2 =1 =2 ", true},
    {"u1 m1 m2 r2 m3 a1 a2 m4 m5 r4", "m1 =1 m2 =2 m3 =3 a1 -0 m4 =4 a2 -0 m5 ", false},
    {"u2 m1 r1 m2 m3 a1 a1 a1 r2 r1", "m1 =1 m2 m3 =2 a1 =3 -0 ", true},
    /* asked for and gone meanwhile: nothing */
    {"u1 m1 a9 r1", "m1 =1 ", true},
    /* a partition that moves: its replies confirm nothing, the other's do */
    {"u9 m1 m2 v1 r2", "m1 m2 -0 =2 ", true},
    {"u9 m1 m2 v1 d u9", "m1 m2 M2 ", false},
    {"u1 m1 m2 m3 x2 r1", "m1 =1 m3 ", false},
};

static void test_what_is_given_to_the_link(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world world;
        begin(&world);
        char events[128];
        snprintf(events, sizeof(events), "%s", cases[i].events);
        char *rest = events;
        for (char *event; (event = strsep(&rest, " ")) != NULL;)
            play(&world, event);
        if (strcmp(world.log, cases[i].log) != 0)
            fail_msg("%s: %s, not %s", cases[i].events, world.log, cases[i].log);
        if (outbox_is_idle(world.outbox) != cases[i].is_idle)
            fail_msg("%s: idle is wrong", cases[i].events);
        end(&world);
    }
}

static void test_control_and_answers_that_wait_are_bounded(void **state UNUSED)
{
    struct world world;
    begin(&world);
    play(&world, "u0");
    for (unsigned i = 0; i < 2000; i++) {
        outbox_put_control(world.outbox, command_of(&world));
        outbox_put_answer(world.outbox, 7, 0, i);
    }
    world.link->room = 1;
    unsigned sent = 0;
    for (outbox_pump(world.outbox); world.link->in_flight > 0; sent++)
        fake_link_reply(world.link);
    assert_in_range(sent, 100, 1000);
    end(&world);
}

/* Messages of pods wait for the flush window; what brokers say to each other, and what was asked for, do not. */
static void test_only_messages_of_pods_wait_for_company(void **state UNUSED)
{
    static const struct {
        const char *events;
        bool is_hurried;
    } flushes[] = {{"u9 m1 m2", false}, {"u9 c", true}, {"u9 m1 r1 a1", true}};
    for (size_t i = 0; i < ARRAY_LEN(flushes); i++) {
        struct world world;
        begin(&world);
        char events[128];
        snprintf(events, sizeof(events), "%s", flushes[i].events);
        char *rest = events;
        for (char *event; (event = strsep(&rest, " ")) != NULL;)
            play(&world, event);
        outbox_pump(world.outbox);
        if (link_is_hurried(world.link) != flushes[i].is_hurried)
            fail_msg("%s: the wait is wrong", flushes[i].events);
        end(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_given_to_the_link),
        cmocka_unit_test(test_control_and_answers_that_wait_are_bounded),
        cmocka_unit_test(test_only_messages_of_pods_wait_for_company),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
