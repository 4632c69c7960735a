#include "broker/window.h"

#include <event2/event.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "shared/base.h"
#include "shared/timing.h"

static void on_timer(evutil_socket_t fd, short what UNUSED, void *argument)
{
    struct window *window = argument;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return; /* told, and not over yet */
    window->waits = false;
    window->on_over(window->context);
}

void window_init(struct window *window, struct event_base *base, uint64_t length,
                 void (*on_over)(void *context), void *context)
{
    *window = (struct window){.length = length, .on_over = on_over, .context = context};
    if (length == 0)
        return;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    check(fd >= 0);
    window->timer = event_new(base, fd, EV_READ | EV_PERSIST, on_timer, window);
    check(window->timer != NULL && event_add(window->timer, NULL) == 0);
}

void window_set_length(struct window *window, struct event_base *base, uint64_t length)
{
    bool waits = window->waits;
    void (*on_over)(void *context) = window->on_over;
    void *context = window->context;
    window_cleanup(window);
    window_init(window, base, length, on_over, context);
    if (waits)
        on_over(context);
}

void window_cleanup(struct window *window)
{
    if (window->timer == NULL)
        return;
    int fd = event_get_fd(window->timer);
    event_free(window->timer);
    close(fd);
    window->timer = NULL;
}

void window_note_flush(struct window *window, uint64_t now)
{
    window->flushed_at = now;
}

void window_wait(struct window *window)
{
    if (window->waits || window->length == 0)
        return;
    const struct itimerspec once = {
        .it_value = {.tv_sec = (time_t)(window->length / SECONDS(1)),
                     .tv_nsec = (long)(window->length % SECONDS(1)) * 1000}};
    check(timerfd_settime(event_get_fd(window->timer), 0, &once, NULL) == 0);
    window->waits = true;
}
