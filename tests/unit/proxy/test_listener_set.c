/*
 * Two workers with threads of their own, and configurations that come one after the other.
 */
#include "tests/unit/unit.h"

#include "shared/log.h"
#include "shared/net.h"
#include "shared/timing.h"

#include "proxy/admission.h"
#include "proxy/listener_place.h"
#include "proxy/listener_set.h"
#include "proxy/proxy_metrics.h"
#include "proxy/worker.h"

#include "tests/unit/proxy/static_snapshot.h"

#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#define WORKERS 2

static const struct file_keys keys = {.count = 1, .keys = {{'k', {1}}}};

struct rig {
    struct event_base *base;
    struct post_box box;
    struct process process;
    struct snapshot *snapshot;
    struct worker *workers[WORKERS];
    struct listener_set *set;
    unsigned applied;
    bool has_threads;
};

static struct proxy_config *config_with(const char *listeners)
{
    char *yaml = must_printf("listeners: [%s]\n"
                             "upstreams: [{name: chat, discovery:"
                             " {static: [\"127.0.0.1:1\"]}}]\n"
                             "shutdown: {window: 0s}\n",
                             listeners);
    struct proxy_config *config =
        proxy_config_parse("test", slice_from_text(yaml), stderr);
    assert_non_null(config);
    free(yaml);
    return config;
}

static void rig_start(struct rig *rig)
{
    char error[256];
    *rig = (struct rig){.base = event_base_new()};
    rig->process.admission = admission_new();
    post_box_init(&rig->box, rig->base);
    rig->snapshot = static_snapshot(config_with("{address: \"127.0.0.1:1\"}"), &keys,
                                    NULL, timing_now(), error, sizeof error);
    assert_non_null(rig->snapshot);
    for (unsigned i = 0; i < WORKERS; i++)
        rig->workers[i] = worker_new(&rig->process, rig->snapshot, i);
    rig->set = listener_set_new(rig->workers, WORKERS, &rig->box);
}

static void rig_run(struct rig *rig)
{
    for (unsigned i = 0; i < WORKERS; i++)
        worker_start(rig->workers[i]);
    rig->has_threads = true;
}

static void rig_stop(struct rig *rig)
{
    for (unsigned i = 0; i < WORKERS && rig->has_threads; i++)
        worker_stop(rig->workers[i]);
    for (unsigned i = 0; i < WORKERS; i++) {
        worker_join(rig->workers[i]);
        worker_free(rig->workers[i]);
    }
    listener_set_free(rig->set);
    post_box_cleanup(&rig->box);
    snapshot_unref(rig->snapshot);
    event_base_free(rig->base);
    admission_free(rig->process.admission);
}

static void on_applied(void *argument)
{
    ((struct rig *)argument)->applied++;
}

/* Plans and applies; waits until the workers have it. */
static void apply(struct rig *rig, const char *listeners)
{
    char error[1024] = "";
    struct proxy_config *config = config_with(listeners);
    struct listener_plan *plan = listener_plan_new(rig->set, config, error, sizeof error);
    assert_string_equal(error, "");
    assert_non_null(plan);
    unsigned applied = rig->applied;
    listener_set_apply(rig->set, plan, on_applied, rig);
    uint64_t began = timing_now();
    while (rig->has_threads && rig->applied == applied) {
        assert_true(timing_now() - began < SECONDS(20));
        event_base_loop(rig->base, EVLOOP_NONBLOCK);
        usleep(500);
    }
    proxy_config_unref(config);
}

/* A port that was free a moment ago. */
static unsigned free_port(void)
{
    const char *wrong;
    char why[NET_WHY_SIZE];
    struct address any;
    struct net_listen_options options = {0};
    assert_true(address_parse(SLICE("127.0.0.1:0"), &any, &wrong));
    int fd = net_listen(&any, &options, why);
    assert_true(fd >= 0);
    struct address local = net_local_address(fd);
    close(fd);
    return (unsigned)address_port(&local);
}

/* 0 or an errno. */
static int try_connect(unsigned port, int *fd)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(*fd >= 0);
    return connect(*fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
}

static int connect_to(unsigned port)
{
    int fd;
    assert_int_equal(try_connect(port, &fd), 0);
    return fd;
}

/* A request that the edge answers alone: the connection is served, and by whom does not matter. */
static void check_is_served(int fd)
{
    static const char request[] = "BREW / HTTP/1.1\r\nHost: a\r\n\r\n";
    char answer[256];
    assert_int_equal(write(fd, request, sizeof request - 1), sizeof request - 1);
    assert_true(read(fd, answer, sizeof answer) > 12);
    assert_memory_equal(answer, "HTTP/1.1 501", 12);
    close(fd);
}

static void check_is_refused(unsigned port)
{
    int fd;
    assert_int_equal(try_connect(port, &fd), ECONNREFUSED);
    close(fd);
}

static void test_workers_that_start_later_find_their_sockets(void **state)
{
    (void)state;
    struct rig rig;
    char listeners[128];
    unsigned port = free_port();
    rig_start(&rig);
    snprintf(listeners, sizeof listeners, "{address: \"127.0.0.1:%u\"}", port);
    apply(&rig, listeners);
    int early = connect_to(port); /* waits in the kernel's queue */
    rig_run(&rig);
    check_is_served(early);
    for (int i = 0; i < 8; i++)
        check_is_served(connect_to(port));
    while (rig.applied == 0)
        event_base_loop(rig.base, EVLOOP_ONCE);
    rig_stop(&rig);
}

static void test_sockets_of_workers_that_never_ran_are_closed(void **state)
{
    (void)state;
    struct rig rig;
    char listeners[128];
    unsigned port = free_port();
    rig_start(&rig);
    snprintf(listeners, sizeof listeners, "{address: \"127.0.0.1:%u\"}", port);
    apply(&rig, listeners);
    assert_int_equal(listener_set_count(rig.set), 1);
    rig_stop(&rig);
    check_is_refused(port);
}

static void test_an_address_comes_stays_and_goes(void **state)
{
    (void)state;
    struct rig rig;
    unsigned one = free_port(), other = free_port();
    char first[128], both[256];
    rig_start(&rig);
    rig_run(&rig);
    snprintf(first, sizeof first, "{address: \"127.0.0.1:%u\"}", one);
    snprintf(both, sizeof both,
             "{address: \"127.0.0.1:%u\"}, {address: \"127.0.0.1:%u\"}", other, one);
    apply(&rig, first);
    for (int i = 0; i < 5; i++) {
        check_is_refused(other);
        int held = connect_to(one);
        apply(&rig, both);
        check_is_served(held);
        check_is_served(connect_to(one));
        check_is_served(connect_to(other));
        /* whoever is in a queue when it ends is served still */
        int waiting[4];
        for (size_t w = 0; w < ARRAY_LEN(waiting); w++)
            waiting[w] = connect_to(other);
        apply(&rig, first);
        for (size_t w = 0; w < ARRAY_LEN(waiting); w++)
            check_is_served(waiting[w]);
    }
    rig_stop(&rig);
}

static void test_a_wider_address_may_take_the_place_of_a_narrow_one(void **state)
{
    (void)state;
    struct rig rig;
    unsigned port = free_port();
    char narrow[128], wide[128];
    rig_start(&rig);
    rig_run(&rig);
    snprintf(narrow, sizeof narrow, "{address: \"127.0.0.1:%u\"}", port);
    snprintf(wide, sizeof wide, "{address: \"0.0.0.0:%u\"}", port);
    for (int i = 0; i < 3; i++) {
        apply(&rig, narrow);
        check_is_served(connect_to(port));
        apply(&rig, wide);
        check_is_served(connect_to(port));
    }
    rig_stop(&rig);
}

static void test_a_unix_address_leaves_no_file_behind(void **state)
{
    (void)state;
    struct rig rig;
    char path[64], listeners[256], first[128];
    unsigned port = free_port();
    rig_start(&rig);
    rig_run(&rig);
    snprintf(path, sizeof path, "/tmp/sidrail-listener-set-%d", (int)getpid());
    snprintf(first, sizeof first, "{address: \"127.0.0.1:%u\"}", port);
    snprintf(listeners, sizeof listeners, "%s, {address: \"unix:%s\"}", first, path);
    for (int i = 0; i < 3; i++) {
        apply(&rig, listeners);
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        check_is_served(fd);
        apply(&rig, first);
        assert_int_equal(access(path, F_OK), -1);
    }
    rig_stop(&rig);
}

static void test_a_plan_that_fails_or_is_dropped_changes_nothing(void **state)
{
    (void)state;
    struct rig rig;
    unsigned one = free_port(), fresh = free_port();
    int taken_port;
    char error[1024], text[320], why[NET_WHY_SIZE];
    const char *wrong;
    struct address any;
    struct net_listen_options options = {0};
    assert_true(address_parse(SLICE("127.0.0.1:0"), &any, &wrong));
    int other = net_listen(&any, &options, why);
    struct address local = net_local_address(other);
    taken_port = address_port(&local);
    rig_start(&rig);
    rig_run(&rig);
    snprintf(text, sizeof text, "{address: \"127.0.0.1:%u\"}", one);
    apply(&rig, text);

    snprintf(text, sizeof text,
             "{address: \"127.0.0.1:%u\"}, {address: \"127.0.0.1:%d\"}", fresh,
             taken_port);
    struct proxy_config *config = config_with(text);
    assert_null(listener_plan_new(rig.set, config, error, sizeof error));
    assert_non_null(strstr(error, "listeners[1].address: 127.0.0.1:"));
    assert_non_null(strstr(error, "in use"));
    proxy_config_unref(config);
    check_is_refused(fresh);
    check_is_served(connect_to(one));

    snprintf(text, sizeof text,
             "{address: \"127.0.0.1:%u\"}, {address: \"127.0.0.1:%u\","
             " tls: {certificates: [{cert: /none.pem, key: /none.pem}]}}",
             fresh, one);
    config = config_with(text);
    assert_null(listener_plan_new(rig.set, config, error, sizeof error));
    assert_non_null(strstr(error, "listeners[1].tls: "));
    assert_non_null(strstr(error, "/none.pem"));
    proxy_config_unref(config);

    snprintf(text, sizeof text, "{address: \"127.0.0.1:%u\"}", fresh);
    config = config_with(text);
    struct listener_plan *plan = listener_plan_new(rig.set, config, error, sizeof error);
    assert_non_null(plan);
    listener_plan_free(plan);
    proxy_config_unref(config);
    check_is_refused(fresh);
    check_is_served(connect_to(one));
    assert_int_equal(listener_set_count(rig.set), 1);
    close(other);
    rig_stop(&rig);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    metrics_init(proxy_metric_rows, PROXY_METRIC_COUNT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers_that_start_later_find_their_sockets),
        cmocka_unit_test(test_sockets_of_workers_that_never_ran_are_closed),
        cmocka_unit_test(test_an_address_comes_stays_and_goes),
        cmocka_unit_test(test_a_wider_address_may_take_the_place_of_a_narrow_one),
        cmocka_unit_test(test_a_unix_address_leaves_no_file_behind),
        cmocka_unit_test(test_a_plan_that_fails_or_is_dropped_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
