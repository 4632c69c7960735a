#include "broker/standing_clock.h"

#include "broker/batch_clock.h"

#include <stddef.h>

/* Far enough from 0 that a moment "long ago" can be written as one. */
#define BEGIN SECONDS(1000)

static struct standing_clock own;
static struct standing_clock *clock_now = &own;

uint64_t standing_now(void)
{
    uint64_t now = batch_now();
    uint64_t passed = now > clock_now->read_at ? now - clock_now->read_at : 0;
    clock_now->read_at = now;
    clock_now->now += passed < STANDING_TURN ? passed : STANDING_TURN;
    return BEGIN + clock_now->now;
}

void standing_clock_use(struct standing_clock *clock)
{
    clock_now = clock != NULL ? clock : &own;
}
