#include "broker/batch_clock.h"

#include <stdbool.h>

static bool is_batch;
static uint64_t read_at; /* 0: not yet in this batch */

void batch_clock_start(void)
{
    is_batch = true;
    read_at = 0;
}

void batch_clock_stop(void)
{
    is_batch = false;
}

uint64_t batch_now(void)
{
    if (!is_batch)
        return timing_now();
    if (read_at == 0)
        read_at = timing_now();
    return read_at;
}
