#include "broker/standing_clock.h"

#include "broker/batch_clock.h"

/* Far enough from 0 that a moment "long ago" can be written as one. */
static uint64_t now_standing = SECONDS(1000);
static uint64_t read_at;

uint64_t standing_now(void)
{
    uint64_t now = batch_now();
    uint64_t passed = now > read_at ? now - read_at : 0;
    read_at = now;
    now_standing += passed < STANDING_TURN ? passed : STANDING_TURN;
    return now_standing;
}
