/*
 * How many threads are worth starting: the CPUs that this process may run on, or the quota of its cgroup
 * (v2 cpu.max, v1 cpu.cfs_quota_us) when that is less. Read once, at start.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

/* At least 1. */
unsigned cpu_count_available(void);

/* CPUs of a cpu.max file, "200000 100000" is 2, parts count as a whole one; 0 when it sets no quota
 * ("max 100000") or is not such a text. */
unsigned cpu_count_of_quota(struct slice cpu_max);
