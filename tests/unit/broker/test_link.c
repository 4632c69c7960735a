/*
 * A link to a name with several addresses: each is tried, in the order of the answer, and the name is asked again for each
 * connection. The name server is this test's, as are the listening sockets.
 */
#include "tests/unit/unit.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/link.h"
#include "broker/turn.h"
#include "shared/timing.h"

#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/dns_struct.h>
#include <event2/event.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"

struct world {
    struct event_base *base;
    unsigned questions;
    int connection; /* -1: none */
    unsigned changes;
    enum link_state state;
};

static void on_question(struct evdns_server_request *request, void *argument)
{
    struct world *world = argument;
    for (int i = 0; i < request->nquestions; i++) {
        if (request->questions[i]->type != EVDNS_TYPE_A)
            continue;
        in_addr_t addresses[] = {inet_addr("127.0.0.9"), inet_addr("127.0.0.1")};
        world->questions++;
        evdns_server_request_add_a_reply(request, request->questions[i]->name, 2,
                                         addresses, 60);
    }
    evdns_server_request_respond(request, 0);
}

static int bound(int type, const char *host, uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    address.sin_addr.s_addr = inet_addr(host);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    assert_true(bind(fd, (struct sockaddr *)&address, len) == 0);
    assert_true(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void on_readable(evutil_socket_t fd, short what UNUSED, void *argument UNUSED)
{
    char bytes[4096];
    ssize_t len = recv(fd, bytes, sizeof(bytes), 0);
    static const char start[] = "+OK\r\n" ANSWER; /* CLIENT SETNAME, ROLE */
    if (len > 0)
        assert_true(send(fd, start, sizeof(start) - 1, 0) > 0);
}

static void on_connection(evutil_socket_t fd, short what UNUSED, void *argument)
{
    struct world *world = argument;
    world->connection = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
    event_base_once(world->base, world->connection, EV_READ, on_readable, world, NULL);
}

static void on_change(void *context, struct link *link)
{
    struct world *world = context;
    world->changes++;
    world->state = link_state(link);
}

static void run_until_up(struct world *world, unsigned changes)
{
    uint64_t began = timing_now();
    struct timeval wait = {.tv_usec = 20000};
    while (world->changes < changes && timing_now() - began < SECONDS(10)) {
        event_base_loopexit(world->base, &wait);
        event_base_dispatch(world->base);
    }
    assert_int_equal(changes, world->changes);
    assert_int_equal(LINK_UP, world->state);
}

static void test_each_address_of_a_name_is_tried(void **state UNUSED)
{
    struct world world = {.base = event_base_new(), .connection = -1};
    metrics_init(broker_metric_rows, BROKER_METRIC_COUNT);
    uint16_t dns_port, port;
    int dns_fd = bound(SOCK_DGRAM, "127.0.0.1", &dns_port);
    struct evdns_server_port *server =
        evdns_add_server_port_with_base(world.base, dns_fd, 0, on_question, &world);
    int listener = bound(SOCK_STREAM, "127.0.0.1", &port);
    assert_true(listen(listener, 8) == 0);
    struct event *incoming =
        event_new(world.base, listener, EV_READ | EV_PERSIST, on_connection, &world);
    event_add(incoming, NULL);
    struct evdns_base *dns = evdns_base_new(world.base, 0);
    char text[32], port_text[8];
    snprintf(text, sizeof(text), "127.0.0.1:%u", dns_port);
    snprintf(port_text, sizeof(port_text), "%u", port);
    assert_true(evdns_base_nameserver_ip_add(dns, text) == 0);
    char empty[] = "", host[] = "shard.test", name[] = "a";
    struct broker_shard_config config = {.name = name,
                                         .host = host,
                                         .port = port_text,
                                         .username = empty,
                                         .password_file = empty};
    const struct link_config link_config = {LINK_PUBLISHING, &config, "test", 1 << 20};
    const struct link_callbacks callbacks = {.on_change = on_change, .context = &world};
    struct turn *turn = turn_new(world.base);
    struct link *link = link_new(world.base, turn, dns, &link_config, &callbacks);
    link_start(link);
    run_until_up(&world, 1); /* the first address was no ending to tell of */
    assert_int_equal(1, world.questions);
    close(world.connection);
    run_until_up(&world, 3); /* down, and up */
    assert_int_equal(2, world.questions);
    link_free(link);
    close(world.connection);
    turn_free(turn);
    event_free(incoming);
    close(listener);
    evdns_base_free(dns, 0);
    evdns_close_server_port(server);
    close(dns_fd);
    event_base_free(world.base);
    metrics_cleanup();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_address_of_a_name_is_tried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
