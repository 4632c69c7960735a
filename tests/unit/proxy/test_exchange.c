/*
 * Requests that wait for a newer snapshot: a worker whose loop is turned by hand, a client of this program, and an
 * endpoint that discovery tells of too late, or never.
 */
#include "tests/unit/unit.h"

#include "proxy/client.h"
#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"
#include "proxy/upstream.h"
#include "proxy/worker.h"
#include "shared/timing.h"

#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct file_keys keys = {.count = 1, .keys = {{'k', {1}}}};

struct rig {
    struct process process;
    struct proxy_config *config;
    struct upstream *upstream;
    struct snapshot *snapshot;
    struct worker *worker;
    struct listener_place place;
    int listener; /* of the endpoint */
    struct endpoint_spec late;
    char address[32];
    int client_end;
};

static void turn(struct rig *rig)
{
    for (int i = 0; i < 4; i++)
        event_base_loop(rig->worker->base, EVLOOP_NONBLOCK);
}

static int listen_anywhere(char address[32])
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in any = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof any;
    assert_int_equal(0, bind(fd, (struct sockaddr *)&any, sizeof any));
    assert_int_equal(0, listen(fd, 8));
    assert_int_equal(0, getsockname(fd, (struct sockaddr *)&any, &len));
    snprintf(address, 32, "127.0.0.1:%u", ntohs(any.sin_port));
    return fd;
}

/* A set as dynamic discovery makes it, with the late endpoint or without. */
static struct snapshot *make_snapshot(struct rig *rig, bool has_late)
{
    const struct endpoint_set *before =
        rig->snapshot != NULL ? rig->snapshot->sets[0] : NULL;
    const char *why;
    struct endpoint_spec specs[2] = {
        {.who = {SLICE("early"), SLICE("early"), SLICE("early"), .port = 1},
         .state = ENDPOINT_READY,
         .weight = 1},
        rig->late};
    assert_true(address_parse(SLICE("127.0.0.1:1"), &specs[0].who.address, &why));
    struct endpoint_set_options options = {.keys = &keys, .learned_maximum = 100};
    struct endpoint_set **sets = must_calloc(1, sizeof *sets);
    sets[0] = endpoint_set_new(rig->upstream, &options, specs, has_late ? 2 : 1, before,
                               timing_now());
    struct snapshot *snapshot = snapshot_new(rig->snapshot != NULL ? 2 : 1,
                                             proxy_config_ref(rig->config), &keys, sets);
    free(sets);
    return snapshot;
}

static void rig_start(struct rig *rig, const char *grace)
{
    *rig = (struct rig){
        .place = {.holders = 1, .name = (char *)(uintptr_t) "test", .is_unix = true}};
    rig->listener = listen_anywhere(rig->address);
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "listeners: [{address: \"127.0.0.1:1\"}]\n"
             "routes: [{upstream: chat}]\n"
             "upstreams: [{name: chat, discovery: {static: [\"%s\"]},"
             " affinity: {unknown_tag_grace: %s}}]\n",
             rig->address, grace);
    rig->config = proxy_config_parse("test", slice_from_text(yaml), stderr);
    assert_non_null(rig->config);
    rig->upstream = upstream_new(SLICE("chat"));
    const char *why;
    rig->late = (struct endpoint_spec){
        .who = {SLICE("late"), SLICE("late"), SLICE("late"), .port = 5000},
        .state = ENDPOINT_READY,
        .weight = 1};
    assert_true(
        address_parse(slice_from_text(rig->address), &rig->late.who.address, &why));
    rig->snapshot = make_snapshot(rig, false);
    rig->worker = worker_new(&rig->process, rig->snapshot, 0);
    int pair[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
    rig->client_end = pair[0];
    struct address peer = {.socket.any.sa_family = AF_UNIX};
    rig->process.clients = 1;
    client_open(rig->worker, &rig->place, pair[1], &peer);
}

static void rig_stop(struct rig *rig)
{
    struct client *client;
    while ((client = TAILQ_FIRST(&rig->worker->clients)) != NULL)
        client_close(client, CLOSE_SHUTDOWN_DEADLINE);
    worker_free(rig->worker);
    snapshot_unref(rig->snapshot);
    upstream_unref(rig->upstream);
    proxy_config_unref(rig->config);
    close(rig->listener);
    close(rig->client_end);
}

/* What another replica, which knows the endpoint, has made its client say. */
static void ask(struct rig *rig, const char *method, const char *body)
{
    uint64_t tag = route_tag_make(&keys.keys[0], SLICE("chat"), SLICE("late"), 5000, 0);
    char suffix[ROUTE_TAG_SUFFIX_LEN], text[512];
    route_tag_suffix('k', tag, suffix);
    int len = snprintf(text, sizeof text,
                       "%s /socket.io/?EIO=4&transport=polling&sid=SSSS%.*s HTTP/1.1\r\n"
                       "Host: a\r\nContent-Length: %zu\r\n\r\n%s",
                       method, ROUTE_TAG_SUFFIX_LEN, suffix, strlen(body), body);
    assert_int_equal(write(rig->client_end, text, (size_t)len), len);
    turn(rig);
}

/* Turns the loop until something can be read from `fd`, 5 s at most; gives back the microseconds. */
static uint64_t read_some(struct rig *rig, int fd, char *text, size_t size)
{
    uint64_t began = timing_now();
    ssize_t got;
    while ((got = read(fd, text, size - 1)) < 0) {
        assert_true(timing_now() - began < SECONDS(5));
        turn(rig);
        usleep(500);
    }
    text[got] = '\0';
    return timing_now() - began;
}

static void publish_late(struct rig *rig)
{
    struct snapshot *newer = make_snapshot(rig, true);
    struct snapshot_mailbox *mailbox = worker_mailbox(rig->worker);
    snapshot_publish(newer, &mailbox, 1);
    snapshot_unref(rig->snapshot);
    rig->snapshot = newer;
}

static int accept_late(struct rig *rig)
{
    uint64_t began = timing_now();
    int fd;
    while ((fd = accept4(rig->listener, NULL, NULL, SOCK_NONBLOCK)) < 0) {
        assert_true(timing_now() - began < SECONDS(5));
        turn(rig);
        usleep(500);
    }
    return fd;
}

static void check_it_goes_on(const char *method, const char *body)
{
    struct rig rig;
    rig_start(&rig, "10s");
    char text[2048];
    ask(&rig, method, body);
    assert_int_equal(read(rig.client_end, text, sizeof text), -1); /* it waits */
    publish_late(&rig);
    int endpoint_end = accept_late(&rig); /* far sooner than the grace is over */
    read_some(&rig, endpoint_end, text, sizeof text);
    assert_non_null(strstr(text, "sid=SSSS HTTP/1.1\r\n"));
    assert_string_equal(strstr(text, "\r\n\r\n") + 4, body);
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2";
    assert_int_equal(write(endpoint_end, answer, sizeof answer - 1), sizeof answer - 1);
    read_some(&rig, rig.client_end, text, sizeof text);
    assert_memory_equal(text, "HTTP/1.1 200 OK\r\n", 17);
    close(endpoint_end);
    turn(&rig);
    rig_stop(&rig);
}

static void test_a_newer_snapshot_with_the_endpoint_lets_a_request_go_on(void **state)
{
    (void)state;
    check_it_goes_on("GET", "");
    check_it_goes_on("POST", "4hello");
}

/* Writes all, while the proxy reads. */
static void send_all(struct rig *rig, const char *bytes, size_t len)
{
    uint64_t began = timing_now();
    while (len > 0) {
        ssize_t sent = write(rig->client_end, bytes, len);
        assert_true(timing_now() - began < SECONDS(5));
        turn(rig);
        bytes += sent > 0 ? sent : 0;
        len -= sent > 0 ? (size_t)sent : 0;
    }
}

/* The body comes after its request has begun to wait, more of it than is held meanwhile. */
static void test_a_body_is_read_once_there_is_a_way(void **state)
{
    (void)state;
    enum { BODY = 40000 };
    char *body = must_calloc(1, BODY + 1), *text = must_calloc(1, BODY + 4096);
    memset(body, 'b', BODY);
    struct rig rig;
    rig_start(&rig, "10s");
    char suffix[ROUTE_TAG_SUFFIX_LEN], head[512];
    route_tag_suffix('k',
                     route_tag_make(&keys.keys[0], SLICE("chat"), SLICE("late"), 5000, 0),
                     suffix);
    int len =
        snprintf(head, sizeof head,
                 "POST /socket.io/?EIO=4&transport=polling&sid=SSSS%.*s HTTP/1.1\r\n"
                 "Host: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
                 ROUTE_TAG_SUFFIX_LEN, suffix, BODY);
    send_all(&rig, head, (size_t)len);
    send_all(&rig, body, BODY / 2);
    for (int i = 0; i < 20; i++)
        turn(&rig);
    assert_int_equal(read(rig.client_end, text, 100), -1); /* no 100 Continue yet */
    assert_true(rig.process.buffered_bytes + rig.worker->buffers.own < BODY);
    publish_late(&rig);
    read_some(&rig, rig.client_end, text, 100);
    assert_memory_equal(text, "HTTP/1.1 100 ", 13);
    send_all(&rig, body, BODY - BODY / 2);
    int endpoint_end = accept_late(&rig);
    size_t got = 0;
    uint64_t began = timing_now();
    while (strstr(text, "\r\n\r\n") == NULL ||
           strlen(strstr(text, "\r\n\r\n") + 4) < BODY) {
        ssize_t more = read(endpoint_end, text + got, BODY + 4095 - got);
        got += more > 0 ? (size_t)more : 0;
        text[got] = '\0';
        assert_true(timing_now() - began < SECONDS(5));
        turn(&rig);
    }
    assert_string_equal(strstr(text, "\r\n\r\n") + 4, body);
    close(endpoint_end);
    rig_stop(&rig);
    free(body);
    free(text);
}

static void test_a_body_that_would_wait_is_refused_without_room(void **state)
{
    (void)state;
    struct rig rig;
    char text[2048];
    rig_start(&rig, "10s");
    rig.process.buffered_bytes = rig.worker->buffers.limit;
    ask(&rig, "POST", "4hello");
    read_some(&rig, rig.client_end, text, sizeof text);
    assert_memory_equal(text, "HTTP/1.1 503 ", 13);
    rig.process.buffered_bytes = 0;
    rig_stop(&rig);
}

/* A request with a head of more than 1 KiB waits, and goes on with another configuration: "" or what stands
 * behind the upstreams. Its routes are `routes`. */
static void change_config_while_it_waits(struct rig *rig, const char *routes,
                                         const char *more)
{
    uint64_t tag = route_tag_make(&keys.keys[0], SLICE("chat"), SLICE("late"), 5000, 0);
    char suffix[ROUTE_TAG_SUFFIX_LEN], padding[1500], text[2048], yaml[512];
    rig_start(rig, "10s");
    route_tag_suffix('k', tag, suffix);
    memset(padding, 'x', sizeof padding);
    int len = snprintf(text, sizeof text,
                       "GET /socket.io/?EIO=4&transport=polling&sid=SSSS%.*s HTTP/1.1\r\n"
                       "Host: a\r\nX-Long: %.*s\r\n\r\n",
                       ROUTE_TAG_SUFFIX_LEN, suffix, (int)sizeof padding, padding);
    assert_int_equal(write(rig->client_end, text, (size_t)len), len);
    turn(rig);
    snprintf(yaml, sizeof yaml,
             "listeners: [{address: \"127.0.0.1:1\"}]\nroutes: [%s]\n"
             "upstreams: [{name: chat, discovery: {static: [\"%s\"]}}]\n%s",
             routes, rig->address, more);
    proxy_config_unref(rig->config);
    rig->config = proxy_config_parse("test", slice_from_text(yaml), stderr);
    assert_non_null(rig->config);
    publish_late(rig);
}

static void
test_a_request_that_waits_outlives_smaller_limits_and_other_paths(void **state)
{
    (void)state;
    static const char *const others[] = {"limits: {head_bytes: 1KiB}\n",
                                         "engine_io_paths: [/elsewhere/]\n"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        struct rig rig;
        char text[4096];
        change_config_while_it_waits(&rig, "{upstream: chat}", others[i]);
        int endpoint_end = accept_late(&rig);
        read_some(&rig, endpoint_end, text, sizeof text);
        assert_memory_equal(text, "GET /socket.io/?EIO=4&", 22);
        assert_non_null(strstr(text, "sid=SSSS HTTP/1.1\r\n"));
        close(endpoint_end);
        rig_stop(&rig);
    }
}

static void test_a_request_that_waits_is_told_when_no_route_is_left(void **state)
{
    (void)state;
    struct rig rig;
    char text[4096];
    change_config_while_it_waits(&rig, "{path: /other, upstream: chat}", "");
    read_some(&rig, rig.client_end, text, sizeof text);
    assert_memory_equal(text, "HTTP/1.1 404 ", 13);
    rig_stop(&rig);
}

static void test_without_one_it_is_lost_when_the_grace_is_over(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, "300ms");
    char text[2048];
    ask(&rig, "GET", "");
    uint64_t passed = read_some(&rig, rig.client_end, text, sizeof text);
    assert_true(passed >= MILLISECONDS(200));
    assert_memory_equal(text, "HTTP/1.1 400 ", 13);
    assert_non_null(strstr(text, "\"Session ID unknown\""));
    rig_stop(&rig);
}

static void test_a_tombstone_is_answered_at_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, "10s");
    publish_late(&rig);
    turn(&rig);
    struct snapshot *newer = make_snapshot(&rig, false);
    struct snapshot_mailbox *mailbox = worker_mailbox(rig.worker);
    snapshot_publish(newer, &mailbox, 1);
    snapshot_unref(rig.snapshot);
    rig.snapshot = newer;
    turn(&rig);
    char text[2048];
    ask(&rig, "GET", "");
    read_some(&rig, rig.client_end, text, sizeof text);
    assert_memory_equal(text, "HTTP/1.1 400 ", 13);
    rig_stop(&rig);
}

static void test_a_client_that_leaves_while_it_waits_leaves_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, "10s");
    ask(&rig, "POST", "4hello");
    shutdown(rig.client_end, SHUT_RDWR);
    uint64_t began = timing_now();
    while (!TAILQ_EMPTY(&rig.worker->clients)) {
        assert_true(timing_now() - began < SECONDS(5));
        turn(&rig);
    }
    rig_stop(&rig);
}

int main(void)
{
    metrics_init(proxy_metric_rows, PROXY_METRIC_COUNT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_newer_snapshot_with_the_endpoint_lets_a_request_go_on),
        cmocka_unit_test(test_a_body_is_read_once_there_is_a_way),
        cmocka_unit_test(test_a_body_that_would_wait_is_refused_without_room),
        cmocka_unit_test(
            test_a_request_that_waits_outlives_smaller_limits_and_other_paths),
        cmocka_unit_test(test_a_request_that_waits_is_told_when_no_route_is_left),
        cmocka_unit_test(test_without_one_it_is_lost_when_the_grace_is_over),
        cmocka_unit_test(test_a_tombstone_is_answered_at_once),
        cmocka_unit_test(test_a_client_that_leaves_while_it_waits_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
