/*
 * A snapshot of static upstreams without a loop, for tests of what is decided by snapshots.
 */
#pragma once

#include "proxy/discovery_static.h"
#include "proxy/snapshot.h"
#include "proxy/upstream_set.h"

#include <stdlib.h>

/* Takes over the reference to `config`. NULL with a line in `error`. */
static inline struct snapshot *static_snapshot(struct proxy_config *config,
                                               const struct file_keys *keys,
                                               const struct snapshot *previous,
                                               uint64_t now, char *error,
                                               size_t error_size)
{
    size_t len = config->upstreams.count, made = 0;
    struct endpoint_set **sets = must_calloc(len, sizeof *sets);
    struct snapshot *snapshot = NULL;
    for (; made < len; made++) {
        const struct upstream_config *upstream = proxy_config_upstream(config, made);
        size_t count = upstream->endpoints.count;
        struct endpoint_spec *specs = must_calloc(count, sizeof *specs);
        bool is_good = discovery_static_list(upstream, specs, error, error_size);
        const struct endpoint_set *before = NULL;
        if (previous != NULL) {
            size_t place = proxy_config_find_upstream(previous->config,
                                                      slice_from_text(upstream->name));
            before = place < previous->sets_len ? previous->sets[place] : NULL;
        }
        if (is_good)
            sets[made] = upstream_set_new(upstream, keys, specs, count, before, now);
        free(specs);
        if (!is_good)
            break;
    }
    if (made == len) {
        snapshot = snapshot_new(previous != NULL ? previous->generation + 1 : 1, config,
                                keys, sets);
    } else {
        while (made > 0)
            endpoint_set_unref(sets[--made]);
        proxy_config_unref(config);
    }
    free(sets);
    return snapshot;
}
