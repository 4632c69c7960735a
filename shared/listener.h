/*
 * Accepts on one listening socket and hands each client over.
 *
 *                 listener_start
 *      STOPPED ──────────────────▶ ACCEPTING ──EMFILE, ENFILE, ENOBUFS, ENOMEM──▶ BACKED_OFF
 *         ▲                          │    ▲                                           │
 *         └──────listener_stop───────┘    └───────────────── 100 ms ──────────────────┘
 *
 * At most LISTENER_BATCH clients a turn, so that the clients already there get their turn too. Level-triggered:
 * what is left in the queue comes with the next turn, or goes to another thread that listens on the socket.
 */
#pragma once

#include "shared/address.h"

struct event_base;
struct listener;

#define LISTENER_BATCH 64

struct listener_callbacks {
    /* A new client: `fd` is non-blocking, close-on-exec, and the callee's. May stop, not free, the listener. */
    void (*on_accept)(void *argument, int fd, const struct address *peer);
    /* accept4 failed for want of `error` (an errno); once a back-off, logged by the listener. May be NULL. */
    void (*on_back_off)(void *argument, int error);
};

/* `fd` comes from net_listen() and is the listener's from now on; `name` (copied) is the subject in the
 * log. Begins stopped. */
struct listener *listener_new(struct event_base *base, int fd, const char *name,
                              const struct listener_callbacks *callbacks, void *argument);

/* Accept, or cease to (pause: the kernel queues clients); both may be called in any state. */
void listener_start(struct listener *listener);
void listener_stop(struct listener *listener);
bool listener_is_accepting(const struct listener *listener);

int listener_fd(const struct listener *listener);

/* Accepts all that the kernel has queued by now (a thread's share of it), before the listener is freed. */
void listener_accept_queued(struct listener *listener);

/* Frees it and closes the socket (a unix socket's file is unlinked). */
void listener_free(struct listener *listener);

/* Frees it and returns the socket, still listening; it is the caller's again. */
int listener_release(struct listener *listener);
