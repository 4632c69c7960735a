/*
 * A tunnel between two sockets of this program: the worker's loop is turned by hand.
 */
#include "tests/unit/proxy/static_snapshot.h"
#include "tests/unit/unit.h"

#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"
#include "proxy/tunnel.h"
#include "proxy/worker.h"
#include "shared/timing.h"

#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

struct rig {
    struct process process;
    struct snapshot *snapshot;
    struct worker *worker;
    struct listener_place place;
    struct client *client;
    int listener;
    int client_end;   /* the test's side of the client's socket */
    int endpoint_end; /* and of the endpoint's */
};

static void turn(struct rig *rig)
{
    for (int i = 0; i < 8; i++)
        event_base_loop(rig->worker->base, EVLOOP_NONBLOCK);
}

static void ignore(struct endpoint_connection *connection, short what)
{
    (void)connection, (void)what;
}

static int listen_anywhere(char address[32])
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof any;
    assert_int_equal(0, bind(fd, (struct sockaddr *)&any, sizeof any));
    assert_int_equal(0, listen(fd, 1));
    assert_int_equal(0, getsockname(fd, (struct sockaddr *)&any, &len));
    snprintf(address, 32, "127.0.0.1:%u", ntohs(any.sin_port));
    return fd;
}

static void rig_start(struct rig *rig)
{
    *rig = (struct rig){
        .place = {.holders = 1, .name = (char *)(uintptr_t) "test", .is_unix = true}};
    char address[32], error[256];
    rig->listener = listen_anywhere(address);
    struct proxy_config *config =
        proxy_config_quick_start("127.0.0.1:0", address, NULL, "1", stderr);
    assert_non_null(config);
    struct file_keys keys;
    file_keys_make_random(&keys);
    rig->snapshot =
        static_snapshot(config, &keys, NULL, timing_now(), error, sizeof error);
    assert_non_null(rig->snapshot);
    rig->worker = worker_new(&rig->process, rig->snapshot, 0);

    int pair[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
    rig->client_end = pair[0];
    struct address peer = {.socket.any.sa_family = AF_UNIX};
    rig->process.clients = 1;
    client_open(rig->worker, &rig->place, pair[1], &peer);
    rig->client = TAILQ_FIRST(&rig->worker->clients);
    assert_non_null(rig->client);

    struct endpoint *endpoint = rig->snapshot->sets[0]->entries[0].endpoint;
    struct endpoint_connection *connection = endpoint_connection_open(
        rig->worker, endpoint, NULL, ENDPOINT_REUSE_NONE, rig, ignore);
    assert_non_null(connection);
    rig->endpoint_end = accept4(rig->listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(rig->endpoint_end >= 0);
    assert_int_equal(ENDPOINT_CONNECTED, endpoint_connection_finish(connection));
    rig->client->state = CLIENT_EXCHANGING;
    tunnel_start(rig->client, connection, false, true, slice_of(NULL, 0));
}

static void rig_stop(struct rig *rig)
{
    struct client *client;
    while ((client = TAILQ_FIRST(&rig->worker->clients)) != NULL)
        client_close(client, CLOSE_SHUTDOWN_DEADLINE);
    worker_free(rig->worker);
    snapshot_unref(rig->snapshot);
    close(rig->listener);
    close(rig->client_end);
    close(rig->endpoint_end);
}

/* A whole frame of `len` times `byte`; masked with zeros for the way to an endpoint. */
static size_t make_frame(char *out, size_t len, char byte, bool is_masked)
{
    size_t at = 0;
    out[at++] = (char)0x82;
    out[at++] = (char)((is_masked ? 0x80 : 0) | (len < 126     ? (int)len
                                                 : len < 65536 ? 126
                                                               : 127));
    if (len >= 126)
        for (int shift = len < 65536 ? 8 : 56; shift >= 0; shift -= 8)
            out[at++] = (char)((uint64_t)len >> shift);
    if (is_masked)
        for (int i = 0; i < 4; i++)
            out[at++] = 0;
    memset(out + at, byte, len);
    return at + len;
}

static ssize_t get(int fd, char *space, size_t size)
{
    return recv(fd, space, size, 0);
}

static void test_a_frame_passes_both_ways_and_the_tunnel_owns_nothing(void **state)
{
    (void)state;
    struct rig rig;
    char frame[128], got[256];
    rig_start(&rig);
    size_t len = make_frame(frame, 50, 'a', true);
    assert_int_equal(len, send(rig.client_end, frame, len, 0));
    turn(&rig);
    assert_int_equal(len, get(rig.endpoint_end, got, sizeof got));
    assert_memory_equal(frame, got, len);
    len = make_frame(frame, 60, 'b', false);
    assert_int_equal(len, send(rig.endpoint_end, frame, len, 0));
    turn(&rig);
    assert_int_equal(len, get(rig.client_end, got, sizeof got));
    assert_memory_equal(frame, got, len);
    assert_int_equal(0, atomic_load(&rig.process.buffered_bytes));
    rig_stop(&rig);
}

static void test_every_cut_of_a_frame_arrives_whole(void **state)
{
    (void)state;
    struct rig rig;
    char frame[256], got[512];
    rig_start(&rig);
    size_t len = make_frame(frame, 150, 'c', true);
    for (size_t cut = 1; cut < len; cut++) {
        assert_int_equal(cut, send(rig.client_end, frame, cut, 0));
        turn(&rig);
        assert_int_equal(len - cut, send(rig.client_end, frame + cut, len - cut, 0));
        turn(&rig);
        size_t have = 0;
        ssize_t more;
        while ((more = get(rig.endpoint_end, got + have, sizeof got - have)) > 0)
            have += (size_t)more;
        assert_int_equal(len, have);
        assert_memory_equal(frame, got, len);
    }
    assert_true(
        ws_tracker_is_at_boundary(&rig.client->tunnel->pipes[TO_ENDPOINT].tracker));
    rig_stop(&rig);
}

static void test_a_slow_sink_stops_the_source_and_what_waits_is_bounded(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    size_t whole = 8u << 20;
    char *frame = malloc(whole + 32);
    size_t len = make_frame(frame, whole, 'd', false);
    size_t sent = 0, received = 0, most = 0;
    char got[65536];
    while (sent < len) { /* the client does not read */
        ssize_t took = send(rig.endpoint_end, frame + sent, len - sent, 0);
        turn(&rig);
        most = max_size(most, atomic_load(&rig.process.buffered_bytes));
        if (took < 0 && rig.client->tunnel->pipes[TO_CLIENT].waiting != NULL)
            break;
        sent += took > 0 ? (size_t)took : 0;
    }
    assert_true(sent < len);
    assert_in_range(most, 1, 2 * WORKER_READ_MAX);
    assert_int_equal(EV_WRITE, rig.client->watched & EV_WRITE);
    assert_int_equal(0, rig.client->tunnel->connection->watched & EV_READ);
    while (received < len) { /* now it does */
        ssize_t took = get(rig.client_end, got, sizeof got);
        for (ssize_t i = 0; i < took; i++)
            assert_int_equal(frame[received + (size_t)i], got[i]);
        received += took > 0 ? (size_t)took : 0;
        took = sent < len ? send(rig.endpoint_end, frame + sent, len - sent, 0) : 0;
        sent += took > 0 ? (size_t)took : 0;
        turn(&rig);
    }
    assert_int_equal(0, atomic_load(&rig.process.buffered_bytes));
    assert_int_equal(EV_READ, rig.client->watched);
    free(frame);
    rig_stop(&rig);
}

static void test_an_end_is_passed_on_and_the_second_one_closes(void **state)
{
    (void)state;
    struct rig rig;
    char frame[64], got[64];
    rig_start(&rig);
    shutdown(rig.client_end, SHUT_WR);
    turn(&rig);
    assert_int_equal(0, get(rig.endpoint_end, got, sizeof got));
    assert_int_equal(CLIENT_TUNNELING, rig.client->state);
    size_t len = make_frame(frame, 10, 'e', false);
    assert_int_equal(len, send(rig.endpoint_end, frame, len, 0));
    turn(&rig);
    assert_int_equal(len, get(rig.client_end, got, sizeof got));
    shutdown(rig.endpoint_end, SHUT_WR);
    turn(&rig);
    assert_int_equal(CLIENT_CLOSED, rig.client->state);
    assert_int_equal(0, get(rig.client_end, got, sizeof got));
    rig_stop(&rig);
}

static void test_a_dead_endpoint_leaves_its_client_for_a_while(void **state)
{
    (void)state;
    struct rig rig;
    char frame[64], got[64];
    rig_start(&rig);
    size_t len = make_frame(frame, 10, 'e', false);
    assert_int_equal(len, send(rig.endpoint_end, frame, len, 0));
    shutdown(rig.endpoint_end, SHUT_WR);
    turn(&rig);
    assert_int_equal(len, get(rig.client_end, got, sizeof got));
    assert_int_equal(-1, get(rig.client_end, got, sizeof got));
    assert_int_equal(CLIENT_TUNNELING, rig.client->state);

    len = make_frame(frame, 10, 'c', true);
    assert_int_equal(len, send(rig.client_end, frame, len, 0));
    turn(&rig);
    assert_int_equal(4, get(rig.client_end, got, sizeof got));
    assert_memory_equal("\x88\x02\x03\xf4", got, 4);
    assert_int_equal(CLIENT_LINGERING, rig.client->state);
    rig_stop(&rig);
}

static void test_a_dead_endpoint_within_a_frame_is_the_end(void **state)
{
    (void)state;
    struct rig rig;
    char frame[64], got[64];
    rig_start(&rig);
    size_t len = make_frame(frame, 10, 'e', false);
    assert_int_equal(len - 1, send(rig.endpoint_end, frame, len - 1, 0));
    shutdown(rig.endpoint_end, SHUT_WR);
    turn(&rig);
    assert_int_equal(CLIENT_TUNNELING, rig.client->state);
    assert_int_equal(3, send(rig.client_end, "\x81\x81\x01", 3, 0));
    turn(&rig);
    assert_int_equal(len - 1, get(rig.client_end, got, sizeof got));
    assert_int_equal(0, get(rig.client_end, got, sizeof got));
    assert_int_equal(CLIENT_CLOSED, rig.client->state);
    rig_stop(&rig);
}

static void test_a_close_is_put_between_two_frames_never_inside_one(void **state)
{
    (void)state;
    struct rig rig;
    char frame[64], got[128];
    rig_start(&rig);
    size_t len = make_frame(frame, 30, 'f', false);
    assert_int_equal(10, send(rig.endpoint_end, frame, 10, 0));
    turn(&rig);
    tunnel_leave(rig.client->tunnel, WS_CLOSE_RESTART, CLOSE_SHUTDOWN);
    assert_int_equal(CLIENT_TUNNELING, rig.client->state);
    assert_int_equal(10, get(rig.client_end, got, sizeof got));
    assert_int_equal(len - 10, send(rig.endpoint_end, frame + 10, len - 10, 0));
    turn(&rig);
    assert_int_equal(len - 10 + 4, get(rig.client_end, got, sizeof got));
    assert_memory_equal("\x88\x02\x03\xf4", got + len - 10, 4);
    assert_int_equal(CLIENT_LINGERING, rig.client->state);
    rig_stop(&rig);
}

static void test_an_idle_tunnel_costs_less_than_its_promise(void **state)
{
    (void)state;
    assert_in_range(TUNNEL_COST, 1, 800);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_frame_passes_both_ways_and_the_tunnel_owns_nothing),
        cmocka_unit_test(test_every_cut_of_a_frame_arrives_whole),
        cmocka_unit_test(test_a_slow_sink_stops_the_source_and_what_waits_is_bounded),
        cmocka_unit_test(test_an_end_is_passed_on_and_the_second_one_closes),
        cmocka_unit_test(test_a_dead_endpoint_leaves_its_client_for_a_while),
        cmocka_unit_test(test_a_dead_endpoint_within_a_frame_is_the_end),
        cmocka_unit_test(test_a_close_is_put_between_two_frames_never_inside_one),
        cmocka_unit_test(test_an_idle_tunnel_costs_less_than_its_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
