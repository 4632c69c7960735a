#include "proxy/deadline.h"

#include "shared/base.h"
#include "shared/timing.h"

#include <event2/event.h>

static uint32_t tick_at(const struct deadline_wheel *wheel, uint64_t now)
{
    return (uint32_t)((now - wheel->started) / MILLISECONDS(DEADLINE_STEP_MS));
}

/* All due deadlines are moved to a list of their own first: on_due may set or clear any deadline,
 * its neighbours included. */
static void wheel_step(struct deadline_wheel *wheel)
{
    struct deadline_list *slot = &wheel->slots[wheel->tick % DEADLINE_SLOTS];
    struct deadline_list due = LIST_HEAD_INITIALIZER(due);
    struct deadline *deadline = LIST_FIRST(slot);
    while (deadline != NULL) {
        struct deadline *next = LIST_NEXT(deadline, entry);
        if (deadline->due == wheel->tick) {
            LIST_REMOVE(deadline, entry);
            LIST_INSERT_HEAD(&due, deadline, entry);
        }
        deadline = next;
    }
    while ((deadline = LIST_FIRST(&due)) != NULL) {
        deadline_cb on_due = deadline->on_due;
        deadline_clear(wheel, deadline);
        on_due(deadline);
    }
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct deadline_wheel *wheel = arg;
    uint32_t now = tick_at(wheel, timing_now());
    /* The wheel itself counts as one while it steps: a deadline that is set by the last one that falls due must
     * not find it standing still and move the tick, past `now` at worst. */
    wheel->count++;
    while (wheel->tick != now && wheel->count > 1) {
        wheel->tick++;
        wheel_step(wheel);
    }
    wheel->tick = now;
    if (--wheel->count == 0)
        event_del(&wheel->timer);
}

void deadline_wheel_init(struct deadline_wheel *wheel, struct event_base *base)
{
    wheel->base = base;
    for (size_t i = 0; i < DEADLINE_SLOTS; i++)
        LIST_INIT(&wheel->slots[i]);
    wheel->started = timing_now();
    wheel->tick = 0;
    wheel->count = 0;
    event_assign(&wheel->timer, base, -1, EV_PERSIST, on_step, wheel);
}

void deadline_wheel_cleanup(struct deadline_wheel *wheel)
{
    event_del(&wheel->timer);
}

void deadline_set(struct deadline_wheel *wheel, struct deadline *deadline,
                  uint32_t delay_ms, deadline_cb on_due)
{
    deadline_clear(wheel, deadline);
    if (wheel->count++ == 0) {
        static const struct timeval step = {0, DEADLINE_STEP_MS * 1000};
        wheel->tick = tick_at(wheel, timing_now());
        event_add(&wheel->timer, &step);
    }
    uint32_t steps = (delay_ms + DEADLINE_STEP_MS - 1) / DEADLINE_STEP_MS + 1;
    deadline->due = wheel->tick + steps;
    deadline->on_due = on_due;
    LIST_INSERT_HEAD(&wheel->slots[deadline->due % DEADLINE_SLOTS], deadline, entry);
}

void deadline_clear(struct deadline_wheel *wheel, struct deadline *deadline)
{
    if (deadline->on_due == NULL)
        return;
    LIST_REMOVE(deadline, entry);
    deadline->on_due = NULL;
    wheel->count--;
}
