/*
 * The name server library (c-ares) in an event loop: one channel, which is opened for some questions and closed
 * when they are answered.
 *
 *     dns_channel_open ─▶ ares_query(channel->ares, …) … ─▶ dns_channel_rearm ─▶ the library's callbacks
 *                                                                                       │
 *                                          dns_channel_close (not from within them) ◀───┘
 *
 * A channel of its own for each round of questions: /etc/resolv.conf may be another one by then.
 */
#pragma once

#include "shared/base.h"

#include <ares.h>
#include <event2/event_struct.h>
#include <sys/queue.h>

struct event_base;
struct dns_socket;

LIST_HEAD(dns_socket_list, dns_socket);

struct dns_channel {
    struct event_base *base;
    ares_channel ares; /* NULL: closed */
    struct dns_socket_list sockets;
    struct event timer; /* the library's timeouts */
};

void dns_channel_init(struct dns_channel *channel, struct event_base *base);

/* Asks `server`, IP or IP:port; "": those of /etc/resolv.conf. `flags` are ARES_FLAG_ ones. ARES_SUCCESS, or why not
 * (ares_strerror); then it is closed. */
int dns_channel_open(struct dns_channel *channel, const char *server,
                     int flags) MUST_CHECK;

/* Questions were added. */
void dns_channel_rearm(struct dns_channel *channel);

/* What is outstanding is answered with ARES_EDESTRUCTION before it returns. Nothing when closed. */
void dns_channel_close(struct dns_channel *channel);
