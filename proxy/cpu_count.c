#include "proxy/cpu_count.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#define CGROUP_ROOT "/sys/fs/cgroup"
#define QUOTA_MAX   UINT64_C(1000000000000)

unsigned cpu_count_of_quota(struct slice cpu_max)
{
    struct slice rest = cpu_max, quota, period;
    uint64_t quota_time, period_time;
    if (rest.len > 0 && rest.data[rest.len - 1] == '\n')
        rest.len--;
    if (!slice_cut(&rest, ' ', &quota) || !slice_cut(&rest, ' ', &period) ||
        !slice_to_number(quota, 1, QUOTA_MAX, &quota_time) ||
        !slice_to_number(period, 1, QUOTA_MAX, &period_time))
        return 0;
    return (unsigned)((quota_time + period_time - 1) / period_time);
}

/* The first line of a small file; empty when there is none. */
static struct slice first_line(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return SLICE("");
    struct slice line = SLICE("");
    if (fgets(text, (int)size, file) != NULL)
        line = slice_from_text(text);
    fclose(file);
    return line;
}

static unsigned smaller_quota(unsigned a, unsigned b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The smallest quota from our cgroup up to the root: "0::/a/b" asks /a/b, /a and the root. */
static unsigned quota_v2(void)
{
    char own[1024], path[1200], text[128];
    struct slice line = first_line("/proc/self/cgroup", own, sizeof(own));
    unsigned quota = 0;
    if (!slice_starts_with(line, SLICE("0::/")))
        return 0;
    struct slice group = slice_from(line, 3);
    group.len -= slice_ends_with(group, SLICE("\n"));
    for (;;) {
        snprintf(path, sizeof(path), CGROUP_ROOT "%.*s/cpu.max", SLICE_ARGS(group));
        quota = smaller_quota(quota,
                              cpu_count_of_quota(first_line(path, text, sizeof(text))));
        if (group.len == 0)
            return quota;
        group = slice_to(group, slice_find_last(group, '/'));
    }
}

static unsigned quota_v1(void)
{
    char quota[64], period[64], both[160];
    struct slice quota_line =
        first_line(CGROUP_ROOT "/cpu/cpu.cfs_quota_us", quota, sizeof(quota));
    struct slice period_line =
        first_line(CGROUP_ROOT "/cpu/cpu.cfs_period_us", period, sizeof(period));
    if (quota_line.len == 0 || period_line.len == 0)
        return 0;
    quota_line.len--; /* the line's end */
    int len = snprintf(both, sizeof(both), "%.*s %.*s", SLICE_ARGS(quota_line),
                       SLICE_ARGS(period_line));
    return cpu_count_of_quota(slice_of(both, (size_t)len));
}

unsigned cpu_count_available(void)
{
    cpu_set_t set;
    unsigned cpus = 1;
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        cpus = (unsigned)CPU_COUNT(&set);
    return smaller_quota(cpus, smaller_quota(quota_v2(), quota_v1()));
}
