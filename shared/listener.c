#include "shared/listener.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>

#include "shared/log.h"
#include "shared/net.h"
#include "shared/timing.h"

#define BACK_OFF MILLISECONDS(100)

#define QUEUED_BATCHES                                                                   \
    128 /* more than any backlog; clients that keep coming do not hold it up */

struct listener {
    int fd;
    char *name;
    struct event *readable;
    struct event *resume;
    struct listener_callbacks callbacks;
    void *argument;
    bool is_started;
    bool is_backed_off;
    int last_error; /* of a back-off that has been logged; 0 after a good accept */
};

/* These concern one client that is gone already, not the listener (accept(2)). */
static bool is_clients_own(int error)
{
    return error == ECONNABORTED || error == EINTR || error == EPROTO || error == EPERM ||
           error == ENETDOWN || error == ENOPROTOOPT || error == EHOSTDOWN ||
           error == ENONET || error == EHOSTUNREACH || error == EOPNOTSUPP ||
           error == ENETUNREACH || error == ETIMEDOUT;
}

static void back_off(struct listener *listener, int error)
{
    struct log_subject subject = {.kind = "listener", .name = listener->name};
    if (listener->last_error != error)
        log_warn(&subject, "cannot accept, clients wait", LOG_ERRNO(error));
    listener->last_error = error;
    listener->is_backed_off = true;
    event_del(listener->readable);
    struct timeval wait = timing_to_timeval(BACK_OFF);
    event_add(listener->resume, &wait);
    if (listener->callbacks.on_back_off != NULL)
        listener->callbacks.on_back_off(listener->argument, error);
}

static void recovered(struct listener *listener)
{
    struct log_subject subject = {.kind = "listener", .name = listener->name};
    log_info(&subject, "accepts again");
    listener->last_error = 0;
}

/* True: there may be more. */
static bool accept_some(struct listener *listener)
{
    for (int i = 0; i < LISTENER_BATCH && listener_is_accepting(listener); i++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof(peer);
        int client = accept4(listener->fd, (struct sockaddr *)&peer, &len,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            if (listener->last_error != 0)
                recovered(listener);
            struct address address = address_from_socket((struct sockaddr *)&peer, len);
            listener->callbacks.on_accept(listener->argument, client, &address);
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return false;
        if (is_clients_own(errno))
            continue;
        /* an unforeseen error must not spin the loop either */
        back_off(listener, errno);
        return false;
    }
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    accept_some(argument);
}

void listener_accept_queued(struct listener *listener)
{
    for (int i = 0; i < QUEUED_BATCHES && accept_some(listener); i++)
        ;
}

static void on_resume(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct listener *listener = argument;
    listener->is_backed_off = false;
    if (listener->is_started)
        event_add(listener->readable, NULL);
}

struct listener *listener_new(struct event_base *base, int fd, const char *name,
                              const struct listener_callbacks *callbacks, void *argument)
{
    struct listener *listener = must_calloc(1, sizeof(*listener));
    listener->fd = fd;
    listener->name = must_strdup(name);
    listener->callbacks = *callbacks;
    listener->argument = argument;
    listener->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, listener);
    listener->resume = evtimer_new(base, on_resume, listener);
    check(listener->readable != NULL && listener->resume != NULL);
    return listener;
}

void listener_start(struct listener *listener)
{
    if (listener->is_started)
        return;
    listener->is_started = true;
    if (!listener->is_backed_off)
        event_add(listener->readable, NULL);
}

void listener_stop(struct listener *listener)
{
    listener->is_started = false;
    event_del(listener->readable);
}

bool listener_is_accepting(const struct listener *listener)
{
    return listener->is_started && !listener->is_backed_off;
}

int listener_fd(const struct listener *listener)
{
    return listener->fd;
}

int listener_release(struct listener *listener)
{
    int fd = listener->fd;
    event_free(listener->readable);
    event_free(listener->resume);
    free(listener->name);
    free(listener);
    return fd;
}

void listener_free(struct listener *listener)
{
    if (listener != NULL)
        net_listen_close(listener_release(listener));
}
