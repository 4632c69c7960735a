/*
 * The floor under every proxy on libevent: bytes from one socket to the other, without a look at them.
 *
 *      client ──▶ accept ──▶ connect to the next endpoint        recv + send per event, nothing else
 *             ◀───────────── one persistent EV_READ each ──▶
 *
 * What a short send leaves waits in a blocking poll(), which a proxy may not do; with the loads here it does not
 * happen. One thread, 127.0.0.1 only; ends at SIGTERM or after an hour.
 *
 *     cc -O2 -Wall -Wextra -o relay relay.c -levent_core && ./relay PORT ENDPOINT-PORT...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIFE_SECONDS 3600
#define BATCH        64

struct side {
    int fd;
    struct event *readable;
    struct side *other; /* both lie in one allocation, ours or the other's the first */
    bool is_first;
};

static struct event_base *base;
static struct sockaddr_in *endpoints;
static unsigned endpoints_len, next_endpoint;
static char space[65536];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void pair_close(struct side *side)
{
    struct side *first = side->is_first ? side : side->other;
    for (int i = 0; i < 2; i++) {
        event_free(first[i].readable);
        close(first[i].fd);
    }
    free(first);
}

static bool send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
        } else if (sent < 0) {
            return false;
        } else {
            data += sent;
            len -= (size_t)sent;
        }
    }
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    struct side *side = argument;
    (void)what;
    ssize_t got = recv(fd, space, sizeof space, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0 || !send_all(side->other->fd, space, (size_t)got))
        pair_close(side);
}

static void on_accept(evutil_socket_t listener, short what, void *argument)
{
    int fd, one = 1;
    (void)what, (void)argument;
    for (int i = 0; i < BATCH && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;
         i++) {
        struct sockaddr_in *to = &endpoints[next_endpoint++ % endpoints_len];
        struct side *sides = calloc(2, sizeof *sides);
        int other = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (sides == NULL || other < 0)
            die("socket");
        if (connect(other, (struct sockaddr *)to, sizeof *to) != 0 &&
            errno != EINPROGRESS)
            die("connect");
        for (int at = 0; at < 2; at++) {
            sides[at] = (struct side){
                .fd = at == 0 ? fd : other, .other = &sides[1 - at], .is_first = at == 0};
            setsockopt(sides[at].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            sides[at].readable = event_new(base, sides[at].fd, EV_READ | EV_PERSIST,
                                           on_readable, &sides[at]);
            event_add(sides[at].readable, NULL);
        }
    }
}

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int main(int argc, char **argv)
{
    struct rlimit files;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (argc < 3) {
        fprintf(stderr, "usage: relay PORT ENDPOINT-PORT...\n");
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    alarm(LIFE_SECONDS);
    struct sockaddr_in at = loopback(argv[1]);
    endpoints_len = (unsigned)argc - 2;
    endpoints = calloc(endpoints_len, sizeof *endpoints);
    base = event_base_new();
    if (endpoints == NULL || base == NULL)
        die("memory");
    for (int i = 2; i < argc; i++)
        endpoints[i - 2] = loopback(argv[i]);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 4096) != 0)
        die("listen");
    event_add(event_new(base, fd, EV_READ | EV_PERSIST, on_accept, NULL), NULL);
    return event_base_dispatch(base);
}
