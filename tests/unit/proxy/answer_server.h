/*
 * A server in the test's own loop that says what it is told, in pieces of a given size, whatever is asked.
 *
 *     accept ─▶ read a request to its empty line ─▶ piece, piece … ─▶ close, or stay open, or again and again
 *
 * One connection at a time; the next one begins anew.
 */
#pragma once

#include "tests/unit/unit.h"

#include "shared/base.h"
#include "shared/net.h"
#include "shared/slice.h"
#include "shared/timing.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <signal.h>
#include <stdio.h>

enum answer_end { ANSWER_CLOSES, ANSWER_STAYS, ANSWER_REPEATS };

struct answer_server {
    struct event_base *base;
    struct address address;
    int listener, fd;
    struct event accept, read, write;
    char request[4096]; /* of the newest connection, with NUL */
    size_t request_len;
    unsigned accepted;
    struct slice text; /* borrowed */
    size_t piece;
    uint64_t pause;      /* microseconds between pieces; 0: as the socket takes them */
    struct slice repeat; /* with ANSWER_REPEATS, behind the text */
    enum answer_end end;
    size_t sent;
};

static inline void answer_server_hang_up(struct answer_server *server)
{
    if (server->fd < 0)
        return;
    event_del(&server->read);
    event_del(&server->write);
    close(server->fd);
    server->fd = -1;
}

static inline void answer_server_wait(struct answer_server *server)
{
    struct timeval pause = timing_to_timeval(server->pause);
    event_add(&server->write, server->pause > 0 ? &pause : NULL);
}

static inline void answer_server_on_write(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct answer_server *server = argument;
    struct slice rest = slice_from(server->text, server->sent);
    if (rest.len == 0 && server->end == ANSWER_REPEATS)
        rest = server->repeat;
    ssize_t taken = write(server->fd, rest.data, min_size(rest.len, server->piece));
    if (server->sent < server->text.len && taken > 0)
        server->sent += (size_t)taken;
    if (server->sent < server->text.len || server->end == ANSWER_REPEATS)
        answer_server_wait(server);
    else if (server->end == ANSWER_CLOSES)
        answer_server_hang_up(server);
}

static inline void answer_server_on_read(evutil_socket_t fd, short what, void *argument)
{
    (void)what;
    struct answer_server *server = argument;
    ssize_t got = read(fd, server->request + server->request_len,
                       sizeof server->request - 1 - server->request_len);
    if (got <= 0) { /* the other side is gone */
        answer_server_hang_up(server);
        return;
    }
    server->request_len += (size_t)got;
    server->request[server->request_len] = '\0';
    if (strstr(server->request, "\r\n\r\n") == NULL)
        return;
    server->sent = 0;
    answer_server_wait(server);
}

static inline void answer_server_on_accept(evutil_socket_t fd, short what, void *argument)
{
    (void)what;
    struct answer_server *server = argument;
    int accepted = accept(fd, NULL, NULL);
    assert_true(accepted >= 0);
    answer_server_hang_up(server);
    evutil_make_socket_nonblocking(accepted);
    net_set_no_delay(accepted);
    server->fd = accepted;
    server->accepted++;
    server->request_len = 0;
    short writes = server->pause > 0 ? 0 : EV_WRITE;
    event_assign(&server->read, server->base, accepted, EV_READ | EV_PERSIST,
                 answer_server_on_read, server);
    event_assign(&server->write, server->base, server->pause > 0 ? -1 : accepted, writes,
                 answer_server_on_write, server);
    event_add(&server->read, NULL);
}

static inline void answer_server_start(struct answer_server *server,
                                       struct event_base *base)
{
    const char *wrong;
    char why[NET_WHY_SIZE];
    *server = (struct answer_server){.base = base, .fd = -1, .piece = SIZE_MAX};
    struct net_listen_options options = {0};
    signal(SIGPIPE, SIG_IGN);
    assert_true(address_parse(SLICE("127.0.0.1:0"), &server->address, &wrong));
    server->listener = net_listen(&server->address, &options, why);
    assert_true(server->listener >= 0);
    server->address = net_local_address(server->listener);
    event_assign(&server->accept, base, server->listener, EV_READ | EV_PERSIST,
                 answer_server_on_accept, server);
    event_add(&server->accept, NULL);
}

static inline void answer_server_stop(struct answer_server *server)
{
    answer_server_hang_up(server);
    event_del(&server->accept);
    net_listen_close(server->listener);
}
