/*
 * Proves that clients are handed over with their address, in bounded batches, that a paused listener leaves
 * them queued, and that running out of descriptors is waited out.
 */
#include "tests/unit/unit.h"

#include "shared/listener.h"
#include "shared/log.h"
#include "shared/net.h"
#include "shared/timing.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

struct seen {
    struct event_base *base;
    struct listener *listener;
    int accepted, back_offs, error;
    int stop_after;
    struct address peer;
};

static struct seen seen;
static struct address place;

static void on_accept(void *argument, int fd, const struct address *peer)
{
    struct seen *all = argument;
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    all->accepted++;
    all->peer = *peer;
    close(fd);
    if (all->accepted == all->stop_after)
        listener_stop(all->listener);
}

static void on_back_off(void *argument, int error)
{
    struct seen *all = argument;
    all->back_offs++;
    all->error = error;
}

static int begin(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    memset(&seen, 0, sizeof(seen));
    seen.base = event_base_new();
    const char *why_not;
    char why[NET_WHY_SIZE];
    assert_true(address_parse(SLICE("127.0.0.1:0"), &place, &why_not));
    int fd = net_listen(&place, &(struct net_listen_options){0}, why);
    assert_true(fd >= 0);
    place = net_local_address(fd);
    struct listener_callbacks callbacks = {on_accept, on_back_off};
    seen.listener = listener_new(seen.base, fd, "test", &callbacks, &seen);
    return 0;
}

static int end(void **state)
{
    (void)state;
    listener_free(seen.listener);
    event_base_free(seen.base);
    return 0;
}

static int dial(void)
{
    bool in_progress;
    int fd = net_connect(&place, &in_progress);
    assert_true(fd >= 0);
    return fd;
}

static void turn(void)
{
    event_base_loop(seen.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

static void test_clients_are_handed_over_with_their_address(void **state)
{
    (void)state;
    int client = dial();
    turn();
    assert_int_equal(0, seen.accepted); /* begins stopped */
    listener_start(seen.listener);
    listener_start(seen.listener);
    turn();
    assert_int_equal(1, seen.accepted);
    struct address mine = net_local_address(client);
    assert_true(address_equals(&mine, &seen.peer));
    close(client);
}

static void test_a_turn_takes_at_most_a_batch(void **state)
{
    (void)state;
    int clients[LISTENER_BATCH + 10];
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        clients[i] = dial();
    listener_start(seen.listener);
    turn();
    assert_int_equal(LISTENER_BATCH, seen.accepted);
    turn();
    assert_int_equal(LISTENER_BATCH + 10, seen.accepted);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        close(clients[i]);
}

static void test_a_stop_inside_the_callback_holds_at_once(void **state)
{
    (void)state;
    int clients[5];
    seen.stop_after = 2;
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        clients[i] = dial();
    listener_start(seen.listener);
    turn();
    turn();
    assert_int_equal(2, seen.accepted);
    assert_false(listener_is_accepting(seen.listener));
    listener_start(seen.listener);
    turn();
    assert_int_equal(5, seen.accepted);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        close(clients[i]);
}

static void test_no_descriptors_left_is_waited_out(void **state)
{
    (void)state;
    int client = dial(), other = dial();
    struct rlimit limit, none;
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &limit));
    int next = dup(0);
    close(next);
    none = (struct rlimit){(rlim_t)next, limit.rlim_max};
    listener_start(seen.listener);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &none));
    turn();
    turn();
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &limit));
    assert_int_equal(0, seen.accepted);
    assert_int_equal(1, seen.back_offs); /* not once a turn */
    assert_int_equal(EMFILE, seen.error);
    assert_false(listener_is_accepting(seen.listener));
    uint64_t began = timing_now();
    while (seen.accepted < 2 && timing_now() - began < SECONDS(10))
        event_base_loop(seen.base, EVLOOP_ONCE);
    assert_int_equal(2, seen.accepted);
    assert_true(timing_now() - began >= MILLISECONDS(50));
    close(client);
    close(other);
}

static void test_a_released_socket_goes_on_listening(void **state)
{
    (void)state;
    int fd = listener_release(seen.listener);
    int client = dial();
    struct listener_callbacks callbacks = {on_accept, NULL};
    seen.listener = listener_new(seen.base, fd, "again", &callbacks, &seen);
    listener_start(seen.listener);
    turn();
    assert_int_equal(1, seen.accepted);
    close(client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_clients_are_handed_over_with_their_address),
        TEST(test_a_turn_takes_at_most_a_batch),
        TEST(test_a_stop_inside_the_callback_holds_at_once),
        TEST(test_no_descriptors_left_is_waited_out),
        TEST(test_a_released_socket_goes_on_listening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
