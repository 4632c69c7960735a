/*
 * Discovery: keeps the endpoints of all upstreams and publishes a snapshot when anything has changed.
 *
 *     source of chat ───── whole lists ─▶ endpoint_list of chat ─┐
 *     health checks ────── verdicts ────▶       │                ├─ 50 ms after the first change,
 *     source of canary ─── …                    │ one tick a     │  at most DISCOVERY_DEBOUNCE late
 *                                               │ second or when ▼
 *                                               ▼ due         endpoint_set of each changed upstream
 *                                             gone …             └─▶ snapshot n + 1 ─▶ on_snapshot
 *
 * Sets of upstreams that did not change are shared with the snapshot before. An endpoint that fails checks
 * stays in its set as degraded. On the main thread only.
 */
#pragma once

#include "shared/base.h"

#include "proxy/proxy_config.h"
#include "proxy/snapshot.h"

#define DISCOVERY_DEBOUNCE 50000u /* microseconds */

struct discovery;
struct event_base;

/* A new snapshot: the receiver takes its own reference. */
typedef void (*discovery_snapshot_cb)(void *argument, struct snapshot *snapshot);

/* Reads static lists and starts the sources; a list that a source has at once is in the first snapshot,
 * which discovery_snapshot() gives. Takes its own reference to `config`. NULL: `error` has one line; nothing
 * else fails than looking up the name of a static endpoint. */
struct discovery *discovery_new(struct event_base *base, struct proxy_config *config,
                                const struct route_keys *keys,
                                discovery_snapshot_cb on_snapshot, void *argument,
                                char *error, size_t error_size) MUST_CHECK;
void discovery_free(struct discovery *discovery);

/* The newest one; borrowed. */
struct snapshot *discovery_snapshot(const struct discovery *discovery);

/* Has every upstream a list in the snapshot? Otherwise *name and *why tell of one that has not (borrowed until
 * the loop turns). */
bool discovery_is_synced(const struct discovery *discovery, const char **name,
                         const char **why);

/* An operator's word, in a snapshot before this returns: the endpoints of this address or identity, of any
 * upstream, are to drain or no more; have this weight (-1: as listed). How many there are. */
size_t discovery_drain(struct discovery *discovery, struct slice endpoint, bool drains);
size_t discovery_weigh(struct discovery *discovery, struct slice endpoint,
                       int64_t weight);

/* The same for all endpoints of an upstream, those to come included. False: there is no such upstream. */
bool discovery_drain_upstream(struct discovery *discovery, struct slice name,
                              bool drains);

/* What is known of the source of an upstream, by its place in the config. */
struct discovery_facts {
    const char *source;  /* static, file, … */
    bool is_synced;      /* the last attempt gave a list */
    uint64_t lists;      /* generation: how many lists it has given */
    uint64_t listed_at;  /* timing_now() of the last one; 0: none yet */
    const char *trouble; /* what is wrong now, "" */
};
struct discovery_facts discovery_facts(const struct discovery *discovery, size_t place);
