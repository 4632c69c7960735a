#include "proxy/dns_channel.h"

#include <event2/event.h>
#include <stdlib.h>

#define TRY_MS        2000
#define TRIES         2
#define UDP_BYTES_MAX 1232 /* fits any path unfragmented */

/* A socket of the library. */
struct dns_socket {
    LIST_ENTRY(dns_socket) entry;
    struct dns_channel *channel;
    int fd;
    struct event event;
};

void dns_channel_rearm(struct dns_channel *channel)
{
    struct timeval wait;
    struct timeval *due = ares_timeout(channel->ares, NULL, &wait);
    if (due != NULL)
        event_add(&channel->timer, due);
    else
        event_del(&channel->timer);
}

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct dns_channel *channel = argument;
    ares_process_fd(channel->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    dns_channel_rearm(channel);
}

static void on_socket(evutil_socket_t fd, short what, void *argument)
{
    struct dns_channel *channel = ((struct dns_socket *)argument)->channel;
    ares_process_fd(channel->ares, (what & EV_READ) != 0 ? fd : ARES_SOCKET_BAD,
                    (what & EV_WRITE) != 0 ? fd : ARES_SOCKET_BAD);
    dns_channel_rearm(channel);
}

static void remove_socket(struct dns_socket *it)
{
    event_del(&it->event);
    LIST_REMOVE(it, entry);
    free(it);
}

static void on_socket_state(void *argument, ares_socket_t fd, int reads, int writes)
{
    struct dns_channel *channel = argument;
    struct dns_socket *it;
    LIST_FOREACH(it, &channel->sockets, entry)
    {
        if (it->fd == fd)
            break;
    }
    if (!reads && !writes) {
        if (it != NULL)
            remove_socket(it);
        return;
    }
    if (it == NULL) {
        it = must_calloc(1, sizeof *it);
        it->channel = channel;
        it->fd = fd;
        LIST_INSERT_HEAD(&channel->sockets, it, entry);
    } else {
        event_del(&it->event);
    }
    event_assign(&it->event, channel->base, fd,
                 (short)(EV_PERSIST | (reads ? EV_READ : 0) | (writes ? EV_WRITE : 0)),
                 on_socket, it);
    event_add(&it->event, NULL);
}

void dns_channel_init(struct dns_channel *channel, struct event_base *base)
{
    channel->base = base;
    channel->ares = NULL;
    LIST_INIT(&channel->sockets);
    event_assign(&channel->timer, base, -1, 0, on_timer, channel);
}

int dns_channel_open(struct dns_channel *channel, const char *server, int flags)
{
    struct ares_options options = {
        .flags = flags | ARES_FLAG_EDNS,
        .timeout = TRY_MS,
        .tries = TRIES,
        .ednspsz = UDP_BYTES_MAX,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = channel,
    };
    int status = ares_init_options(&channel->ares, &options,
                                   ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                       ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS)
        channel->ares = NULL;
    else if (server[0] != '\0')
        status = ares_set_servers_ports_csv(channel->ares, server);
    if (status != ARES_SUCCESS)
        dns_channel_close(channel);
    return status;
}

void dns_channel_close(struct dns_channel *channel)
{
    struct dns_socket *it;
    ares_channel ares = channel->ares;
    event_del(&channel->timer);
    if (ares != NULL)
        ares_destroy(ares);
    channel->ares = NULL;
    while ((it = LIST_FIRST(&channel->sockets)) != NULL)
        remove_socket(it);
}
