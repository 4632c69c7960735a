#include "tests/simulation/world.h"

#include <stdlib.h>

/* More events without any time between them than this: something turns on the spot. */
#define SAME_TIME_MAX 2000000

/* What is in an order that is given comes before what is drawn. */
#define IN_ORDER_MAX ((uint64_t)1 << 32)

struct event {
    uint64_t at;
    uint64_t order; /* a draw, so that what is due together has no fixed order */
    world_cb run;
    void *argument;
    uint64_t number;
};

static struct {
    uint64_t now;
    uint64_t random;
    struct event *heap;
    size_t count, capacity;
    uint64_t events, at_same_time;
} world;

uint64_t world_stream(uint64_t *state)
{
    uint64_t mixed = (*state += 0x9e3779b97f4a7c15U);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
    return mixed ^ (mixed >> 31);
}

void world_begin(uint64_t seed)
{
    world.now = 0;
    world.random = seed * 0x2545f4914f6cdd1dU + 99;
    world.count = 0;
    world.events = world.at_same_time = 0;
}

void world_end(void)
{
    free(world.heap);
    world.heap = NULL;
    world.count = world.capacity = 0;
}

uint64_t world_now(void)
{
    return world.now;
}

uint64_t world_events(void)
{
    return world.events;
}

uint64_t world_draw(void)
{
    return world_stream(&world.random);
}

uint64_t world_below(uint64_t limit)
{
    return world_draw() % limit;
}

uint64_t world_between(uint64_t low, uint64_t high)
{
    return low + world_below(high - low + 1);
}

bool world_once_in(uint64_t times)
{
    return world_below(times) == 0;
}

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void add(struct event event)
{
    if (world.count == world.capacity) {
        world.capacity = world.capacity > 0 ? world.capacity * 2 : 256;
        world.heap = must_realloc(world.heap, world.capacity * sizeof(*world.heap));
    }
    size_t i = world.count++;
    while (i > 0 && is_before(&event, &world.heap[(i - 1) / 2])) {
        world.heap[i] = world.heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    world.heap[i] = event;
}

static uint64_t not_past(uint64_t when)
{
    return when > world.now ? when : world.now;
}

void world_at(uint64_t when, world_cb run, void *argument, uint64_t number)
{
    add((struct event){not_past(when), world_draw() | IN_ORDER_MAX, run, argument,
                       number});
}

void world_at_in_order(uint64_t when, world_cb run, void *argument, uint64_t number)
{
    check(number < IN_ORDER_MAX);
    add((struct event){not_past(when), number, run, argument, number});
}

void world_after(uint64_t delay, world_cb run, void *argument, uint64_t number)
{
    world_at(world.now + delay, run, argument, number);
}

static struct event pop(void)
{
    struct event first = world.heap[0];
    struct event last = world.heap[--world.count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= world.count)
            break;
        if (child + 1 < world.count &&
            is_before(&world.heap[child + 1], &world.heap[child]))
            child++;
        if (!is_before(&world.heap[child], &last))
            break;
        world.heap[i] = world.heap[child];
        i = child;
    }
    if (world.count > 0)
        world.heap[i] = last;
    return first;
}

void world_run_until(uint64_t time)
{
    while (world.count > 0 && world.heap[0].at <= time) {
        struct event event = pop();
        world.at_same_time = event.at == world.now ? world.at_same_time + 1 : 0;
        check(world.at_same_time < SAME_TIME_MAX);
        world.now = event.at;
        world.events++;
        event.run(event.argument, event.number);
    }
    if (time > world.now)
        world.now = time;
}
