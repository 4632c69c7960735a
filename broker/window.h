/*
 * The flush window: what is queued waits so long for company, and a lone message for none.
 *
 *     queued ─┬─ none was flushed for two windows ──▶ out at the end of this turn
 *             └─ else ──▶ window_wait ──▶ over ──▶ out, with all that came meanwhile
 *
 * The timer is a descriptor of its own: libevent's clock on epoll is as coarse as the kernel's tick (4 ms), and
 * its precise one costs a system call in every turn.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct event;
struct event_base;

struct window {
    struct event *timer; /* NULL: length is 0 */
    uint64_t length;     /* microseconds; 0: everything passes */
    uint64_t flushed_at;
    bool waits;
    void (*on_over)(void *context);
    void *context;
};

/* `base` is borrowed. */
void window_init(struct window *window, struct event_base *base, uint64_t length,
                 void (*on_over)(void *context), void *context);
/* Another length from now on; what waits goes out at once. */
void window_set_length(struct window *window, struct event_base *base, uint64_t length);
void window_cleanup(struct window *window);

/* May what is queued now go out with this turn? `now` as timing_now(). */
static inline bool window_passes(const struct window *window, uint64_t now)
{
    return window->length == 0 ||
           (!window->waits && now >= window->flushed_at + 2 * window->length);
}

/* Something has gone out. */
void window_note_flush(struct window *window, uint64_t now);

/* Something waits: on_over is called a window from now. No effect while one waits already. */
void window_wait(struct window *window);
