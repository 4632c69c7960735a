#include "broker/turn.h"

#include "shared/base.h"

#include <event2/event.h>
#include <stdlib.h>

struct turn {
    struct event *end;
    unsigned count;
    struct {
        void (*run)(void *context);
        void *context;
    } steps[TURN_STEPS_MAX];
};

static void on_end(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct turn *turn = argument;
    for (unsigned i = 0; i < turn->count; i++)
        turn->steps[i].run(turn->steps[i].context);
}

struct turn *turn_new(struct event_base *base)
{
    struct turn *turn = must_calloc(1, sizeof(*turn));
    turn->end = event_new(base, -1, 0, on_end, turn);
    check(turn->end != NULL);
    return turn;
}

void turn_free(struct turn *turn)
{
    event_free(turn->end);
    free(turn);
}

void turn_add_step(struct turn *turn, void (*step)(void *context), void *context)
{
    check(turn->count < TURN_STEPS_MAX);
    turn->steps[turn->count].run = step;
    turn->steps[turn->count].context = context;
    turn->count++;
}

void turn_request(struct turn *turn)
{
    /* libevent runs what is made active behind everything that became ready in this turn. */
    event_active(turn->end, EV_TIMEOUT, 0);
}
