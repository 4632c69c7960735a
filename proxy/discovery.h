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
 *
 *     discovery_apply(config) ─▶ upstream of a name that was there: its list, set, source and checks go on
 *                             ─▶ another name: begins          ─▶ a name that is missing: ends, and its
 *                                            endpoints are left to removed_endpoints
 */
#pragma once

#include "shared/base.h"

#include "proxy/proxy_config.h"
#include "proxy/snapshot.h"

#define DISCOVERY_DEBOUNCE 50000u /* microseconds */

struct discovery;
struct discovery_plan;
struct event_base;

/* A new snapshot: the receiver takes its own reference. */
typedef void (*discovery_snapshot_cb)(void *argument, struct snapshot *snapshot);

/* Without upstreams until the first discovery_apply(). */
struct discovery *discovery_new(struct event_base *base,
                                discovery_snapshot_cb on_snapshot, void *argument);

/* What can fail of a config, which outlives it: reads the files of TLS. NULL with a line in `error`. */
struct discovery_plan *discovery_plan_new(const struct proxy_config *config, char *error,
                                          size_t error_size) MUST_CHECK;
void discovery_plan_free(struct discovery_plan *plan);

/* From now on these upstreams, with these options and keys; a snapshot of them is made and told before it
 * returns. `plan` is that of `config`, which it takes its own reference to. Upstreams are known by their
 * names: one that was there before keeps what is known of its endpoints (counters, verdicts, operators' orders,
 * learned sids, tombstones), its source goes on unless the options of `discovery` have changed, and until another
 * source has given a list the endpoints stay as they are. Not from within a callback of a source. */
void discovery_apply(struct discovery *discovery, struct proxy_config *config,
                     const struct file_keys *keys, const struct discovery_plan *plan);

void discovery_free(struct discovery *discovery);

/* The newest one; borrowed. NULL before the first discovery_apply(). */
struct snapshot *discovery_snapshot(const struct discovery *discovery);

/* Has every upstream of the first config a list in the snapshot? (One that a reload brought does not make a proxy that
 * serves others unready.) Otherwise *name and *why tell of one that has not (borrowed until
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
