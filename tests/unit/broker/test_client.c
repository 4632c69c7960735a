/* The life of clients: whatever order their endings come in (KILL, FIN, reset, QUIT, a slow reader, a return, shutdown),
 * while requests wait or not, the loop comes to rest, and each client ends exactly once. */
#include "tests/unit/unit.h"

#include "broker/broker_config.h"
#include "broker/client_parts.h"
#include "broker/command.h"
#include "broker/deliver.h"
#include "broker/host_ids.h"
#include "broker/pods.h"
#include "broker/publish.h"
#include "broker/turn.h"
#include "shared/timing.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define PEERS    6
#define ENDS_MAX 4096

struct world {
    struct event_base *base;
    struct turn *turn;
    struct broker_config config;
    struct broker_listener_config listener;
    struct command_context context;
    struct pod_rooms *pod_rooms;
    struct deliverer *deliverer;
    struct client_limits limits;
    bool is_held;            /* HOLD waits */
    unsigned room, tries;    /* ROOM waits while there is none */
    char order[256];         /* what ROOM named, in the order of their answers */
    unsigned opened, closed; /* clients */
    unsigned char ends[ENDS_MAX];
    unsigned emptied;
    int fds[PEERS]; /* -1: none */
    uint64_t random;
};

static enum client_verdict take_room(struct world *world, struct client *client,
                                     struct slice name, struct evbuffer *reply)
{
    world->tries++;
    if (world->room == 0) {
        client_wait_for(client, CLIENT_WAITS_FOR_SHARD, 7);
        return CLIENT_WAIT;
    }
    world->room--;
    strncat(world->order, name.data, name.len);
    evbuffer_add(reply, "+ROOM\r\n", 7);
    return CLIENT_GO_ON;
}

static enum client_verdict on_request(void *context, struct client *client, size_t argc,
                                      const struct slice *argv, struct evbuffer *reply)
{
    struct world *world = context;
    if (slice_equals(argv[0], SLICE("SLOW"))) {
        world->tries++;
        timing_advance_for_test(MILLISECONDS(1));
        return CLIENT_GO_ON;
    }
    if (slice_equals(argv[0], SLICE("ROOM")))
        return take_room(world, client, argv[1], reply);
    if (!slice_equals(argv[0], SLICE("HOLD")))
        return command_run(&world->context, client, argc, argv, reply);
    if (world->is_held)
        return CLIENT_WAIT;
    evbuffer_add(reply, "+HELD\r\n", 7);
    return CLIENT_GO_ON;
}

static void on_close(void *context, struct client *client,
                     enum close_reason reason UNUSED)
{
    struct world *world = context;
    assert_true(client_id(client) < ENDS_MAX);
    assert_int_equal(0, world->ends[client_id(client)]++);
    world->closed++;
    if (client_facts(client)->pod != NULL)
        pod_free(world->context.pods, client_facts(client)->pod);
    interest_remove_all(world->context.interest, client_subscriber(client));
    host_ids_forget(world->context.host_ids, client);
}

static bool is_subscriber(void *context UNUSED, struct client *client)
{
    return client_subscriber(client)->counts[INTEREST_CHANNEL] > 0;
}

static struct slice channel_of(void *context UNUSED, struct client *client)
{
    return client_subscriber(client)->counts[INTEREST_CHANNEL] > 0 ? SLICE("socketio")
                                                                   : slice_of(NULL, 0);
}

static bool carries_none(void *context UNUSED, struct slice channel UNUSED)
{
    return false;
}

static uint32_t on_first_room(void *context UNUSED, struct slice channel UNUSED,
                              struct slice namespace UNUSED, struct slice room UNUSED)
{
    return UINT32_MAX;
}

static void on_last_room(void *context UNUSED, uint32_t partition UNUSED)
{
}

static void begin(struct world *world, uint64_t seed)
{
    static const struct pod_rooms_callbacks no_rooms = {on_first_room, on_last_room,
                                                        NULL};
    *world = (struct world){.base = event_base_new(), .random = seed};
    timing_set_for_test(SECONDS(1000));
    for (int i = 0; i < PEERS; i++)
        world->fds[i] = -1;
    world->config.clients_max = 100;
    world->config.json_depth = 256;
    world->config.channels_max = 1000;
    world->config.request_max = 1 << 21;
    world->config.holders = 1;
    world->listener.whole = &world->config;
    world->turn = turn_new(world->base);
    const struct interest_callbacks none = {0};
    world->context.interest = interest_table_new(&none);
    world->pod_rooms = pod_rooms_new(&no_rooms);
    world->deliverer = deliverer_new(world->context.interest, world->pod_rooms);
    world->limits = (struct client_limits){.clients = 100,
                                           .payload = 1 << 20,
                                           .request = 1 << 21,
                                           .input = 1 << 24,
                                           .slow_bytes = 1 << 16,
                                           .slow_age = SECONDS(3),
                                           .heartbeat = SECONDS(1),
                                           .replay_window = SECONDS(5),
                                           .replay_bytes = 1 << 17};
    const struct client_callbacks callbacks = {.on_request = on_request,
                                               .on_close = on_close,
                                               .wants_heartbeat = is_subscriber,
                                               .message_channel = channel_of,
                                               .carries_messages = carries_none,
                                               .context = world};
    world->context.config = &world->config;
    world->context.clients =
        client_set_new(world->base, world->turn, &world->limits, &callbacks);
    world->context.publisher =
        publisher_new(world->base, world->turn, &world->config, NULL,
                      world->context.interest, world->deliverer);
    world->context.pods = pods_new(world->context.interest, world->pod_rooms,
                                   world->context.clients, world->context.publisher);
    world->context.host_ids = host_ids_new(world->context.clients, is_subscriber, NULL);
}

static void end(struct world *world)
{
    client_set_free(world->context.clients);
    assert_int_equal(world->opened, world->closed);
    host_ids_free(world->context.host_ids);
    publisher_free(world->context.publisher);
    deliverer_free(world->deliverer);
    pods_free(world->context.pods);
    pod_rooms_free(world->pod_rooms);
    interest_table_free(world->context.interest);
    turn_free(world->turn);
    event_base_free(world->base);
    for (int i = 0; i < PEERS; i++)
        if (world->fds[i] >= 0)
            close(world->fds[i]);
    timing_unset_for_test();
}

static int enter(struct world *world)
{
    int fds[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    int small = 4096;
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    struct address peer = {0};
    client_open(world->context.clients, fds[0], &peer, &world->listener);
    world->opened++;
    return fds[1];
}

static void turn(struct world *world)
{
    event_base_loop(world->base, EVLOOP_NONBLOCK);
}

static void turns(struct world *world, unsigned count)
{
    while (count-- > 0)
        turn(world);
}

/* Time passes: what is looked at once a second, and each hundredth. */
static void pass(struct world *world, uint64_t microseconds)
{
    struct client_set *set = world->context.clients;
    timing_advance_for_test(microseconds);
    event_active(set->sweep, EV_TIMEOUT, 0);
    event_active(set->end_tick, EV_TIMEOUT, 0);
    turns(world, 3);
}

static void say(int fd, const char *text)
{
    ssize_t wrote = send(fd, text, strlen(text), MSG_NOSIGNAL);
    (void)wrote; /* it may have ended */
}

static void read_all(int fd)
{
    char bytes[65536];
    while (read(fd, bytes, sizeof(bytes)) > 0)
        continue;
}

static struct client *newest(struct world *world)
{
    struct client *client = NULL;
    for (struct client *it = client_first(world->context.clients); it != NULL;
         it = client_next(it))
        client = it;
    return client;
}

/* ── the order that hung ── */

static void test_a_killed_subscriber_whose_request_waits_ends_once(void **state UNUSED)
{
    struct world world;
    alarm(20); /* it was a loop without end */
    begin(&world, 1);
    int fd = enter(&world);
    say(fd, "CLIENT SETNAME pod-1\r\nSUBSCRIBE socketio\r\n");
    turns(&world, 3);
    world.is_held = true;
    say(fd, "HOLD\r\n");
    turns(&world, 3);
    struct client *client = newest(&world);
    assert_true(client->facts.waits_since != 0 && client->is_kept);
    int other = enter(&world);
    say(other, "CLIENT KILL ID 1\r\n");
    turns(&world, 3);
    assert_int_equal(CLIENT_ENDING, client->state);
    assert_false(client->is_reading);
    say(fd, "PING\r\n");
    close(fd);
    turns(&world, 3);
    pass(&world, SECONDS(2));
    assert_int_equal(CLIENT_PARKED, client->state);
    pass(&world, SECONDS(6));
    assert_int_equal(1, world.closed);
    close(other);
    turns(&world, 3);
    end(&world);
    alarm(0);
}

static void test_who_waits_and_finishes_is_read_from_no_more(void **state UNUSED)
{
    struct world world;
    begin(&world, 1);
    int fd = enter(&world);
    world.is_held = true;
    say(fd, "HOLD\r\nPING\r\n");
    turns(&world, 3);
    struct client *client = newest(&world);
    client_kill(client);
    assert_int_equal(CLIENT_CLOSED, client->state);
    assert_true(!client_set_has_waiting(world.context.clients));
    world.is_held = false;
    client_set_resume(world.context.clients);
    turns(&world, 3);
    char bytes[16];
    assert_int_equal(0, read(fd, bytes, sizeof(bytes)));
    close(fd);
    end(&world);
}

/* ── who returns ── */

/* A named pod subscribes; its descriptor. */
static int enter_pod(struct world *world)
{
    int fd = enter(world);
    say(fd, "CLIENT SETNAME pod-1\r\nSUBSCRIBE socketio\r\n");
    turns(world, 3);
    return fd;
}

static void say_to_all(struct world *world, int fd, const char *text)
{
    char line[64];
    snprintf(line, sizeof(line), "PUBLISH socketio %s\r\n", text);
    say(fd, line);
    turns(world, 3);
}

/* What there is to read, as text; the socket takes a little at a time. */
static const char *read_text(struct world *world, int fd)
{
    static char bytes[65536];
    size_t len = 0;
    for (ssize_t read_now;
         (read_now = read(fd, bytes + len, sizeof(bytes) - 1 - len)) > 0;
         len += (size_t)read_now)
        turns(world, 3);
    bytes[len] = '\0';
    return bytes;
}

static void look_again(struct world *world)
{
    client_set_resume(world->context.clients);
    turns(world, 3);
}

/* What an old connection acknowledges proves only that its pod was there when that was sent: the rest may be of a pod
 * that has gone since. Here unread bytes stand for bytes that are not acknowledged. */
static void test_only_what_was_sent_since_shows_that_an_old_one_lives(void **state UNUSED)
{
    struct world world;
    begin(&world, 1);
    int publisher = enter(&world);
    int old = enter_pod(&world);
    for (int i = 0; i < 300;
         i++) { /* more than what the kernel adds to bytes that are unread */
        say_to_all(&world, publisher, "read-at-once");
        read_all(old);
    }
    say_to_all(&world, publisher, "sent-before");
    say_to_all(&world, publisher, "sent-before");
    int new = enter_pod(&world);
    const struct client *client = newest(&world);
    assert_true(client->facts.waits_since != 0);
    /* one of what was under way, as an acknowledgement that was as well */
    char bytes[sizeof("*3\r\n$7\r\nmessage\r\n$8\r\nsocketio\r\n$11\r\nsent-before\r\n") -
               1];
    assert_int_equal(sizeof(bytes), read(old, bytes, sizeof(bytes)));
    timing_advance_for_test(MILLISECONDS(50));
    look_again(&world);
    assert_true(client->facts.waits_since != 0);
    read_all(old); /* and the heartbeat */
    timing_advance_for_test(MILLISECONDS(50));
    look_again(&world);
    assert_int_equal(0, client->facts.waits_since);
    assert_non_null(strstr(read_text(&world, new), "subscribe"));
    close(old);
    close(new);
    close(publisher);
    turns(&world, 3);
    end(&world);
}

static void test_the_newest_of_several_hands_over(void **state UNUSED)
{
    struct world world;
    begin(&world, 1);
    int publisher = enter(&world);
    int old = enter_pod(&world);
    read_all(old);
    int new = enter(&world);
    say(new, "CLIENT SETNAME pod-1\r\nSUBSCRIBE socketio\r\n");
    turns(&world, 3);
    read_all(old);
    timing_advance_for_test(MILLISECONDS(50));
    look_again(&world);
    read_all(new);
    close(old);
    turns(&world, 3);
    pass(&world, MILLISECONDS(20));
    say_to_all(&world, publisher, "had-by-the-new-one");
    assert_non_null(strstr(read_text(&world, new), "had-by-the-new-one"));
    close(new);
    turns(&world, 3);
    pass(&world, MILLISECONDS(20));
    say_to_all(&world, publisher, "had-by-nobody");
    int third = enter_pod(&world);
    const char *text = read_text(&world, third);
    assert_null(strstr(text, "had-by-the-new-one"));
    assert_non_null(strstr(text, "had-by-nobody"));
    close(third);
    close(publisher);
    turns(&world, 3);
    end(&world);
}

/* ── what comes while EXEC is answered ── */

static void read_on(struct world *world, int fd)
{
    turns(world, 2);
    (void)read_text(world, fd);
}

/* EXEC of so many PUBLISH to a channel that nobody hears, between two to its own. */
static int enter_in_transaction(struct world *world, unsigned publishes)
{
    int fd = enter(world);
    say(fd, "HELLO 3\r\nCLIENT SETNAME pod-1\r\nSUBSCRIBE socketio\r\nMULTI\r\n");
    say(fd, "PUBLISH socketio own-first\r\n");
    for (unsigned i = 0; i < publishes; i++) {
        say(fd, "PUBLISH elsewhere x\r\n");
        if (i % 20 == 0)
            read_on(world, fd);
    }
    say(fd, "PUBLISH socketio own-last\r\n");
    read_on(world, fd);
    say(fd, "EXEC\r\n");
    event_base_loop(world->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    return fd;
}

static void test_what_is_delivered_comes_behind_what_exec_answers(void **state UNUSED)
{
    enum { OTHERS = 700 };
    struct world world;
    begin(&world, 1);
    int publisher = enter(&world);
    int fd = enter_in_transaction(&world, OTHERS);
    assert_true(newest(&world)->is_answering); /* not done */
    say_to_all(&world, publisher, "of-another");
    turns(&world, 10);
    char expected[OTHERS * 4 + 64];
    size_t len =
        (size_t)snprintf(expected, sizeof(expected), "*%d\r\n:1\r\n", OTHERS + 2);
    for (int i = 0; i < OTHERS; i++)
        len += (size_t)snprintf(expected + len, sizeof(expected) - len, ":0\r\n");
    snprintf(expected + len, sizeof(expected) - len, ":1\r\n>3\r\n");
    const char *text = read_text(&world, fd);
    assert_memory_equal(expected, text, strlen(expected));
    const char *first = strstr(text, "own-first");
    const char *other = strstr(text, "of-another");
    const char *last = strstr(text, "own-last");
    assert_true(first != NULL && first < other && other < last);
    assert_int_equal(3, newest(&world)->facts.delivered);
    close(fd);
    close(publisher);
    turns(&world, 3);
    end(&world);
}

static void test_what_is_held_back_is_kept_when_its_connection_ends(void **state UNUSED)
{
    struct world world;
    begin(&world, 1);
    int fd = enter_in_transaction(&world, 700);
    assert_true(newest(&world)->is_answering && newest(&world)->is_kept);
    client_kill(newest(&world));
    read_on(&world, fd);
    close(fd);
    turns(&world, 3);
    pass(&world, MILLISECONDS(20));
    int heir = enter(&world);
    say(heir, "HELLO 3\r\nCLIENT SETNAME pod-1\r\nSUBSCRIBE socketio\r\n");
    turns(&world, 3);
    const char *text = read_text(&world, heir);
    assert_non_null(strstr(text, "own-first"));
    assert_null(strstr(text, ":0\r\n"));
    close(heir);
    turns(&world, 3);
    end(&world);
}

/* ── who waits for the same ── */

static void resume(struct world *world, unsigned room)
{
    world->room = room;
    world->tries = 0;
    client_set_resume(world->context.clients);
    turns(world, 3);
}

static void test_only_as_many_are_tried_as_there_is_room_for(void **state UNUSED)
{
    enum { WAITING = 60 };
    static const char names[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567";
    struct world world;
    begin(&world, 1);
    int fds[WAITING];
    for (int i = 0; i < WAITING; i++) {
        char text[9000];
        fds[i] = enter(&world);
        /* long enough that who has had room waits again, behind the others */
        snprintf(text, sizeof(text), "ROOM %c %08192d\r\nROOM !\r\n", names[i], 0);
        say(fds[i], text);
        timing_advance_for_test(10);
        turns(&world, 2);
    }
    assert_int_equal(WAITING, world.tries);
    resume(&world, 0);
    assert_int_equal(1, world.tries);
    resume(&world, 3);
    assert_int_equal(3 + 3 + 1, world.tries); /* their next requests too, and one more */
    assert_string_equal("abc", world.order);
    client_kill(client_find(world.context.clients, 4));
    resume(&world, 1);
    assert_string_equal("abce", world.order);
    resume(&world, WAITING - 5);
    assert_int_equal(WAITING - 1, strlen(world.order));
    assert_memory_equal("abcefghij", world.order, 9);
    assert_string_equal("67", world.order + WAITING - 3);
    resume(&world, 2);
    assert_string_equal("!!", world.order + WAITING - 1);
    for (int i = 0; i < WAITING; i++)
        close(fds[i]);
    turns(&world, 3);
    end(&world);
}

static void test_short_requests_that_waited_go_on_together(void **state UNUSED)
{
    struct world world;
    begin(&world, 1);
    int first = enter(&world);
    int second = enter(&world);
    char text[20 * 8 + 1] = "";
    for (int i = 0; i < 20; i++)
        memcpy(text + i * 8, "ROOM a\r\n", 9);
    say(first, text);
    turns(&world, 2);
    timing_advance_for_test(10);
    say(second, "ROOM b\r\n");
    turns(&world, 2);
    resume(&world, 100);
    assert_string_equal("aaaaaaaaaaaaaaaabaaaa", world.order);

    world.order[0] = '\0';
    world.room = 0;
    say(first, text);
    turns(&world, 2);
    timing_advance_for_test(10);
    say(second, "ROOM b\r\n");
    turns(&world, 2);
    resume(&world, 3);
    resume(&world, 2); /* who has had room is behind the other */
    assert_string_equal("aaaba", world.order);
    close(first);
    close(second);
    turns(&world, 3);
    end(&world);
}

/* One look at the descriptors, where turn() goes on while there is something to do. */
static void once(struct world *world)
{
    event_base_loop(world->base, EVLOOP_NONBLOCK | EVLOOP_ONCE);
}

static void test_who_asks_for_much_lets_others_come_between(void **state UNUSED)
{
    enum { REQUESTS = 400 };
    struct world world;
    begin(&world, 1);
    int fd = enter(&world);
    int other = enter(&world);
    char text[REQUESTS * 6 + 7] = "";
    for (int i = 0; i < REQUESTS; i++)
        memcpy(text + i * 6, "SLOW\r\n", 7);
    memcpy(text + sizeof(text) - 7, "PING\r\n", 7);
    say(fd, text);
    once(&world);
    assert_true(world.tries < 100);
    say(other, "PING\r\n");
    once(&world);
    once(&world);
    char bytes[16];
    assert_int_equal(7, read(other, bytes, sizeof(bytes)));
    assert_true(world.tries < 100);
    for (int i = 0; i < REQUESTS && world.tries < REQUESTS; i++)
        turn(&world);
    turns(&world, 2);
    assert_int_equal(REQUESTS, world.tries);
    assert_int_equal(7, read(fd, bytes, sizeof(bytes)));
    close(fd);
    close(other);
    turns(&world, 2);
    end(&world);
}

/* ── any order ── */

static unsigned draw(struct world *world, unsigned count)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return (unsigned)(world->random >> 11) % count;
}

static struct client *any_client(struct world *world)
{
    unsigned count = client_count(world->context.clients);
    struct client *client = client_first(world->context.clients);
    for (unsigned i = count > 0 ? draw(world, count) : 0; i > 0; i--)
        client = client_next(client);
    return client;
}

static void subscribe(struct world *world, int fd)
{
    char text[128];
    unsigned pod = draw(world, 3);
    snprintf(text, sizeof(text), "CLIENT SETNAME pod-%u\r\nSUBSCRIBE %s\r\n", pod,
             draw(world, 4) == 0 ? "other" : "socketio");
    size_t len = strlen(text);
    if (draw(world, 3) == 0)
        text[len / 2] = '\0'; /* the rest never comes, or other words complete it */
    say(fd, text);
}

static void publish(struct world *world, int fd)
{
    char text[8192];
    size_t len = draw(world, 2) == 0 ? 10 : 4000;
    int head = snprintf(text, sizeof(text), "PUBLISH socketio ");
    memset(text + head, 'x', len);
    snprintf(text + head + len, sizeof(text) - (size_t)head - len, "\r\n");
    for (unsigned i = draw(world, 20); i > 0; i--)
        say(fd, text);
}

static void leave(struct world *world, int *fd)
{
    if (draw(world, 2) == 0)
        read_all(*fd); /* else what is unread makes it a reset */
    close(*fd);
    *fd = -1;
}

static void reload(struct world *world)
{
    static const uint64_t windows[] = {0, SECONDS(1), SECONDS(5)};
    world->limits.replay_window = windows[draw(world, 3)];
    world->limits.slow_policy = draw(world, 2) == 0 ? SLOW_DISCONNECT : SLOW_DROP_OLDEST;
    client_set_set_limits(world->context.clients, &world->limits);
}

static void act_on(struct world *world, int *fd)
{
    switch (draw(world, 12)) {
    case 0:
    case 1:
        subscribe(world, *fd);
        break;
    case 2:
    case 3:
        say(*fd, "HOLD\r\n");
        break;
    case 4:
        say(*fd, draw(world, 2) == 0 ? "QUIT\r\n" : "RESET\r\n");
        break;
    case 5:
        say(*fd, draw(world, 2) == 0 ? "UNSUBSCRIBE\r\n" : "*1\r\nnonsense");
        break;
    case 6:
        shutdown(*fd, SHUT_WR);
        break;
    case 7:
        leave(world, fd);
        break;
    case 8:
        read_all(*fd);
        break;
    case 9: {
        char text[64];
        snprintf(text, sizeof(text), "CLIENT KILL ID %u\r\n",
                 1 + draw(world, world->opened));
        say(*fd, text);
        break;
    }
    default:
        publish(world, *fd);
    }
}

static void act(struct world *world)
{
    switch (draw(world, 10)) {
    case 0:
        world->is_held = !world->is_held;
        client_set_resume(world->context.clients);
        return;
    case 1:
        if (client_count(world->context.clients) > 0)
            client_kill(any_client(world));
        return;
    case 2:
        pass(world, MILLISECONDS(1 + draw(world, 1500)));
        return;
    case 3:
        if (draw(world, 8) == 0)
            reload(world);
        return;
    default:
        break;
    }
    int *fd = &world->fds[draw(world, PEERS)];
    if (*fd < 0)
        *fd = enter(world);
    act_on(world, fd);
}

static void on_empty(void *context)
{
    struct world *world = context;
    world->emptied++;
}

/* Nobody is left, and nothing waits. */
static void finish(struct world *world)
{
    client_set_finish(world->context.clients, on_empty, world);
    for (int i = 0; i < PEERS; i++) {
        if (world->fds[i] < 0)
            continue;
        read_all(world->fds[i]);
        turns(world, 3);
        close(world->fds[i]);
        world->fds[i] = -1;
    }
    turns(world, 10);
    assert_int_equal(1, world->emptied);
    assert_int_equal(0, client_count(world->context.clients));
    struct client_set *set = world->context.clients;
    assert_true(!client_set_has_waiting(set) && TAILQ_EMPTY(&set->behind));
    assert_true(TAILQ_EMPTY(&set->ending) && TAILQ_EMPTY(&set->parked));
    assert_int_equal(0, set->parked_bytes);
}

static void test_clients_end_once_in_any_order(void **state UNUSED)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct world world;
        alarm(30);
        begin(&world, seed * UINT64_C(0x9e3779b97f4a7c15));
        unsigned steps = 20 + draw(&world, 200);
        for (unsigned i = 0; i < steps; i++) {
            act(&world);
            turns(&world, draw(&world, 3));
        }
        if (draw(&world, 4) > 0)
            finish(&world);
        end(&world);
    }
    alarm(0);
}

static void test_a_heartbeat_opens_no_flush_window_and_waits_in_none(void **state UNUSED)
{
    struct world world;
    begin(&world, 1);
    world.limits.flush_window = MILLISECONDS(500);
    client_set_set_limits(world.context.clients, &world.limits);
    int pod = enter_pod(&world);
    int publisher = enter(&world);
    read_all(pod);
    const struct window *window = &world.context.clients->window;
    client_beat(client_first(world.context.clients), timing_now());
    turns(&world, 2);
    assert_non_null(strstr(read_text(&world, pod), "{}"));
    assert_true(window_passes(window, timing_now()));
    say_to_all(&world, publisher, "alone");
    assert_non_null(strstr(read_text(&world, pod), "alone"));
    assert_false(window_passes(window, timing_now()));
    client_beat(client_first(world.context.clients), timing_now());
    turns(&world, 2);
    assert_non_null(strstr(read_text(&world, pod), "{}"));
    close(pod);
    close(publisher);
    turns(&world, 3);
    end(&world);
}

/* Each has sent so much of a request. */
static int begin_request(struct world *world, size_t len)
{
    int fd = enter(world);
    say(fd, "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$500000\r\n");
    char *bytes = must_calloc(1, len);
    for (size_t sent = 0; sent < len; turn(world)) {
        ssize_t wrote = send(fd, bytes + sent, len - sent, MSG_NOSIGNAL);
        sent += wrote > 0 ? (size_t)wrote : 0;
    }
    free(bytes);
    turns(world, 3);
    return fd;
}

static void
test_the_longest_unfinished_request_ends_when_all_are_too_long(void **state UNUSED)
{
    struct world world;
    begin(&world, 1);
    world.limits.input = 500000;
    client_set_set_limits(world.context.clients, &world.limits);
    int first = begin_request(&world, 100000);
    int longest = begin_request(&world, 200000);
    int third = begin_request(&world, 150000);
    assert_int_equal(0, world.closed);
    int last = begin_request(&world, 60000);
    assert_non_null(strstr(read_text(&world, longest), "limits.input"));
    assert_int_equal(1, world.closed);
    assert_in_range(world.context.clients->input_bytes, 310000, 311000);
    close(first);
    close(longest);
    close(third);
    close(last);
    turns(&world, 4);
    assert_int_equal(0, world.context.clients->input_bytes);
    end(&world);
}

/* ── a client manager ── */

#define GREETING "socketio.sidrail.0123456789abcdef0123456789abcdef"

/* A manager connects; `name` of its connection is what the greeting says. */
static int enter_manager(struct world *world, char name[64])
{
    int fd = enter(world);
    say(fd, "SUBSCRIBE " GREETING " socketio\r\n");
    turns(world, 3);
    const char *hello = strstr(read_text(world, fd), "hello 1 ");
    assert_non_null(hello);
    assert_int_equal(1, sscanf(hello, "hello 1 %63s", name));
    return fd;
}

/* It reads the greeting late. An opened pod got what came meanwhile at once, and again with what had waited for it. */
static void test_a_manager_that_says_hello_late_gets_everything_once(void **state UNUSED)
{
    static char channel[] = "socketio";
    static char *channels[] = {channel};
    struct world world;
    char name[64];
    char hello[128];
    begin(&world, 1);
    world.config.channels.items = channels;
    world.config.channels.count = 1;
    int publisher = enter(&world);
    for (int returns = 0; returns < 2; returns++) {
        int old = enter_manager(&world, name);
        say(old, "SIDRAIL HELLO 1 echo auto\r\n");
        turns(&world, 3);
        close(old);
        snprintf(hello, sizeof(hello), "SIDRAIL HELLO 1 echo auto %s 0\r\n", name);
        int fd = enter_manager(&world, name);
        say_to_all(&world, publisher, "'{\"one\":1}'");
        pass(&world, SECONDS(2));
        pods_tick(world.context.pods);
        say_to_all(&world, publisher, "'{\"two\":1}'");
        if (returns == 0)
            say(fd, hello);
        else
            pass(&world, SECONDS(6)); /* it says nothing: the old one's time is up */
        turns(&world, 3);
        say_to_all(&world, publisher, "'{\"three\":1}'");
        const char *text = read_text(&world, fd);
        const char *one = strstr(text, "one");
        const char *two = strstr(text, "two");
        assert_true((one != NULL && two > one) == (returns == 0));
        assert_true(two == NULL || strstr(two + 1, "two") == NULL);
        assert_non_null(strstr(text, "three"));
        close(fd);
        pass(&world, SECONDS(8));
    }
    close(publisher);
    end(&world);
}

/* It was opened before it said HELLO, and counts what it got until then. */
static void test_what_a_manager_got_before_its_hello_is_seen(void **state UNUSED)
{
    static char channel[] = "socketio";
    static char *channels[] = {channel};
    struct world world;
    char name[64];
    char hello[128];
    begin(&world, 1);
    world.config.channels.items = channels;
    world.config.channels.count = 1;
    int publisher = enter(&world);
    int old = enter_manager(&world, name);
    pass(&world, SECONDS(2));
    pods_tick(world.context.pods);
    say_to_all(&world, publisher, "'{\"one\":1}'");
    say(old, "SIDRAIL HELLO 1 echo auto\r\n");
    turns(&world, 3);
    say_to_all(&world, publisher, "'{\"two\":1}'");
    assert_non_null(strstr(read_text(&world, old), "two"));
    close(old); /* it has handled the first alone */
    snprintf(hello, sizeof(hello), "SIDRAIL HELLO 1 echo auto %s 1\r\n", name);
    int fd = enter_manager(&world, name);
    say(fd, hello);
    turns(&world, 3);
    const char *text = read_text(&world, fd);
    assert_null(strstr(text, "one"));
    assert_non_null(strstr(text, "two"));
    close(fd);
    close(publisher);
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_killed_subscriber_whose_request_waits_ends_once),
        cmocka_unit_test(test_who_waits_and_finishes_is_read_from_no_more),
        cmocka_unit_test(test_only_what_was_sent_since_shows_that_an_old_one_lives),
        cmocka_unit_test(test_the_newest_of_several_hands_over),
        cmocka_unit_test(test_what_is_delivered_comes_behind_what_exec_answers),
        cmocka_unit_test(test_the_longest_unfinished_request_ends_when_all_are_too_long),
        cmocka_unit_test(test_a_heartbeat_opens_no_flush_window_and_waits_in_none),
        cmocka_unit_test(test_what_is_held_back_is_kept_when_its_connection_ends),
        cmocka_unit_test(test_only_as_many_are_tried_as_there_is_room_for),
        cmocka_unit_test(test_short_requests_that_waited_go_on_together),
        cmocka_unit_test(test_who_asks_for_much_lets_others_come_between),
        cmocka_unit_test(test_a_manager_that_says_hello_late_gets_everything_once),
        cmocka_unit_test(test_what_a_manager_got_before_its_hello_is_seen),
        cmocka_unit_test(test_clients_end_once_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
