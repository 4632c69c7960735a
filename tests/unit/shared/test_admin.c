/*
 * Proves that the operators' port answers its paths and nothing else, echoes nothing, and cannot be taken away
 * by clients that are many, slow, or long-winded. The port runs in a thread, clients are plain sockets.
 */
#include "tests/unit/unit.h"

#include "shared/admin.h"
#include "shared/log.h"
#include "shared/metrics.h"
#include "shared/options.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static struct event_base *base;
static struct admin *admin;
static struct address place;
static pthread_t thread;
static atomic_bool is_ready_now;

static const struct metric_row rows[] = {
    METRIC_ROW(METRIC_COUNTER, "t_total", "A metric."),
};

static bool is_ready(void *argument, struct evbuffer *reason)
{
    (void)argument;
    if (!is_ready_now)
        evbuffer_add_printf(reason, "draining");
    return is_ready_now;
}

static void write_status(void *argument, struct evbuffer *out)
{
    (void)argument;
    evbuffer_add_printf(out, "{\"phase\":\"ready\"}");
}

static void *run(void *argument)
{
    (void)argument;
    event_base_dispatch(base);
    return NULL;
}

static const struct text_list *hosts(void *argument)
{
    (void)argument;
    static char exact[] = "Admin.example.com", below[] = "*.pods.test";
    static char *names[] = {exact, below};
    static const struct text_list list = {.items = names, .count = ARRAY_LEN(names)};
    return &list;
}

static int begin(void **state)
{
    (void)state;
    char why[NET_WHY_SIZE];
    const char *why_not;
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    evthread_use_pthreads();
    metrics_init(rows, ARRAY_LEN(rows));
    base = event_base_new();
    struct admin_callbacks callbacks = {.page = "<!doctype html><p>page",
                                        .is_ready = is_ready,
                                        .write_status = write_status,
                                        .hosts = hosts};
    admin = admin_new(base, &callbacks, NULL);
    assert_true(address_parse(SLICE("127.0.0.1:0"), &place, &why_not));
    assert_true(admin_listen(admin, &place, why));
    place = admin_address(admin);
    pthread_create(&thread, NULL, run, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    event_base_loopexit(base, NULL); /* also when the loop has not begun yet */
    pthread_join(thread, NULL);
    admin_free(admin);
    event_base_free(base);
    metrics_cleanup();
    return 0;
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(0, connect(fd, &place.socket.any, place.len));
    return fd;
}

/* What comes until the end of file; the caller frees. */
static char *read_all(int fd)
{
    char *text = must_calloc(1, 65536);
    size_t len = 0;
    ssize_t got;
    while (len < 65535 && (got = read(fd, text + len, 65535 - len)) > 0)
        len += (size_t)got;
    close(fd);
    return text;
}

static char *ask(const char *request)
{
    int fd = dial();
    assert_int_equal(strlen(request), write(fd, request, strlen(request)));
    return read_all(fd);
}

static void expect(const char *request, const char *status, const char *body)
{
    char *answer = ask(request);
    char *text = strstr(answer, "\r\n\r\n");
    if (text == NULL || strncmp(answer, status, strlen(status)) != 0 ||
        (body != NULL && strcmp(text + 4, body) != 0))
        fail_msg("%s\nexpected %s, %s\nfound %s", request, status,
                 body == NULL ? "any body" : body, answer);
    free(answer);
}

#define TAIL " HTTP/1.1\r\nHost: localhost\r\n\r\n"

/* A page whose name was rebound to this address sends that name. */
static void test_only_a_known_host_is_answered(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        const char *status;
    } heads[] = {
        {"Host: 127.0.0.1:9090\r\n", "200"},
        {"Host: 127.0.0.1\r\n", "200"},
        {"Host: 10.1.2.3:9090\r\n", "200"}, /* a pod's address: probes, Prometheus */
        {"Host: [::1]:9090\r\n", "200"},
        {"host:[fe80::1]\r\n", "200"},
        {"Host: LocalHost:8080\r\n", "200"},
        {"Host: localhost.\r\n", "200"},
        {"", "200"},
        {"X: 1\r\nHost:\tadmin.EXAMPLE.com:9090 \r\nY: 2\r\n", "200"},
        {"Host: a.pods.test\r\n", "200"},
        {"Host: pods.test\r\n", "421"},
        {"Host: apods.test\r\n", "421"},
        {"Host: evil.example\r\n", "421"},
        {"Host: evil.example:9090\r\n", "421"},
        {"Host: localhost.evil.example\r\n", "421"},
        {"Host: 127.0.0.1.evil.example\r\n", "421"},
        {"Host: unix:/tmp/x\r\n", "400"},
        {"Host: unix\r\n", "421"},
        {"Host:\r\n", "400"},
        {"Host: localhost:x\r\n", "400"},
        {"Host: localhost\r\nHost: evil.example\r\n", "400"},
        {"Host : localhost\r\n", "400"},
        {"Host: evil.example\r\nX-Forwarded-Host: localhost\r\n", "421"},
    };
    static const char *const known[] = {"/", "/livez", "/metrics", "/status.json"};
    is_ready_now = true;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        for (size_t j = 0; j < ARRAY_LEN(known); j++) {
            char *request =
                must_printf("GET %s HTTP/1.1\r\n%s\r\n", known[j], heads[i].fields);
            char *status = must_printf("HTTP/1.1 %s ", heads[i].status);
            expect(request, status, NULL);
            free(status);
            free(request);
        }
    char *answer = ask("GET /status.json HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_null(strstr(answer, "phase"));
    assert_null(strstr(answer, "evil"));
    assert_non_null(strstr(answer, "admin.hosts"));
    free(answer);
}

static void test_each_path_answers(void **state)
{
    (void)state;
    is_ready_now = true;
    expect("GET /livez" TAIL, "HTTP/1.1 200 ", "ok\n");
    expect("GET /startupz" TAIL, "HTTP/1.1 200 ", "ok\n");
    expect("GET /readyz" TAIL, "HTTP/1.1 200 ", "ok\n");
    expect("GET /readyz?verbose" TAIL, "HTTP/1.1 200 ", "ok\n");
    is_ready_now = false;
    expect("GET /readyz" TAIL, "HTTP/1.1 503 ", "draining\n");
    expect("GET /livez" TAIL, "HTTP/1.1 200 ", "ok\n");
    expect("GET /status.json" TAIL, "HTTP/1.1 200 ", "{\"phase\":\"ready\"}");
    expect("GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ",
           "# HELP t_total A metric.\n# TYPE t_total counter\nt_total 0\n");
    expect("GET /" TAIL, "HTTP/1.1 200 ", "<!doctype html><p>page");
    expect("HEAD /" TAIL, "HTTP/1.1 200 ", "");
}

static void test_the_page_may_load_nothing_from_elsewhere(void **state)
{
    (void)state;
    char *answer = ask("GET /" TAIL);
    assert_non_null(strstr(answer, "\r\nContent-Security-Policy: default-src 'none';"));
    assert_non_null(strstr(answer, "frame-ancestors 'none'\r\n"));
    assert_non_null(strstr(answer, "\r\nX-Content-Type-Options: nosniff\r\n"));
    assert_non_null(strstr(answer, "\r\nContent-Length: 22\r\n"));
    free(answer);
}

static void test_everything_else_is_refused_without_echo(void **state)
{
    (void)state;
    expect("GET /nothing<script>" TAIL, "HTTP/1.1 404 ", "not found\n");
    expect("GET http://x/livez" TAIL, "HTTP/1.1 404 ", "not found\n");
    expect("GET /livez/" TAIL, "HTTP/1.1 404 ", "not found\n");
    expect("POST /livez HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 ",
           "only GET and HEAD\n");
    expect("get /livez" TAIL, "HTTP/1.1 405 ", "only GET and HEAD\n");
    expect("GET /livez HTTP/2.0\r\n\r\n", "HTTP/1.1 400 ", "bad request\n");
    expect("GET  /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "bad request\n");
    expect("GET /livez\r\n\r\n", "HTTP/1.1 400 ", "bad request\n");
    expect("\r\n\r\n", "HTTP/1.1 400 ", "bad request\n");
    char *answer = ask("PUT / HTTP/1.1\r\n\r\n");
    assert_non_null(strstr(answer, "\r\nAllow: GET, HEAD\r\n"));
    free(answer);
}

static void test_a_head_that_is_too_large_is_refused(void **state)
{
    (void)state;
    char *request = must_calloc(1, 20000);
    int len = snprintf(request, 20000, "GET /livez HTTP/1.1\r\nX: ");
    memset(request + len, 'x', 9000);
    strcat(request, "\r\n\r\n");
    expect(request, "HTTP/1.1 431 ", "the head is too large\n");
    free(request);
}

static void test_a_head_may_come_in_pieces(void **state)
{
    (void)state;
    const char *request = "GET /livez" TAIL;
    int fd = dial();
    for (const char *at = request; *at != '\0'; at++) {
        assert_int_equal(1, write(fd, at, 1));
        usleep(500);
    }
    shutdown(fd, SHUT_WR);
    char *answer = read_all(fd);
    assert_non_null(strstr(answer, "\r\n\r\nok\n"));
    free(answer);
}

static void test_many_idle_clients_do_not_shut_others_out(void **state)
{
    (void)state;
    int idle[200];
    for (size_t i = 0; i < ARRAY_LEN(idle); i++)
        idle[i] = dial();
    expect("GET /livez" TAIL, "HTTP/1.1 200 ", "ok\n");
    size_t closed = 0;
    for (size_t i = 0; i < ARRAY_LEN(idle); i++) {
        struct pollfd wish = {.fd = idle[i], .events = POLLIN};
        closed += poll(&wish, 1, 0) == 1;
        close(idle[i]);
    }
    assert_in_range(closed, 200 - 64, 200 - 63 + 1);
}

static void test_an_address_in_use_is_named(void **state)
{
    (void)state;
    char why[NET_WHY_SIZE], expected[NET_WHY_SIZE], text[ADDRESS_TEXT_SIZE];
    struct admin_callbacks none = {0};
    struct admin *second = admin_new(base, &none, NULL);
    assert_false(admin_listen(second, &place, why));
    snprintf(expected, sizeof(expected), "%s: Address already in use",
             address_text(&place, text));
    assert_string_equal(expected, why);
    admin_free(second);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_only_a_known_host_is_answered),
        TEST(test_each_path_answers),
        TEST(test_the_page_may_load_nothing_from_elsewhere),
        TEST(test_everything_else_is_refused_without_echo),
        TEST(test_a_head_that_is_too_large_is_refused),
        TEST(test_a_head_may_come_in_pieces),
        TEST(test_many_idle_clients_do_not_shut_others_out),
        TEST(test_an_address_in_use_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
