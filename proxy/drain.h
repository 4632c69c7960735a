/*
 * When each WebSocket of a draining endpoint, or of a process that shuts down, is let go.
 *
 *      t0 ────── delay ──────▶│◀──────────────── window ────────────────▶│
 *      draining               │  ×    ×    ×    ×    ×    ×    ×    ×    │   pace
 *      undrain: all stay      │                                          │× ×  wait, over herd_spread
 *                                                                            none: nobody
 *
 * Tunnels of an endpoint are numbered, and a tunnel's place in the window is a hash of its number by which numbers in a row
 * land far apart: any stretch of the window gets its share. At its place tunnel_leave() closes it with 1012 between
 * two frames; shutdown is the same without a delay, by the numbers of clients. The main thread says in
 * endpoint->draining_since what drains; nobody else writes it.
 *
 * A tunnel that begins while its endpoint drains has a place in what is left of the window, so that it too is gone
 * when the endpoint ends; or if all endpoints drain, so that it would come back to one of them, as much time as others.
 *
 * Whose upstream is taken out of the configuration drains as that one's last configuration says (removed_endpoints).
 *
 * An endpoint that dies takes all its tunnels with it at one moment: their clients have their places in herd_spread.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>
#include <stdint.h>

struct client;
struct endpoint;
struct snapshot;
struct upstream_config;
struct worker;

/* The place of client or tunnel `number` in a window, milliseconds, below `window_ms` (0: 0). */
uint32_t drain_place(uint64_t number, uint32_t window_ms);

/* As an upstream's configuration has them. */
struct drain_terms drain_terms_of(const struct upstream_config *config);

/* For tunnel `number` of an endpoint that has been draining since `since` (timing_now()): true when it is to
 * leave, in *delay_ms from `now`. `is_late`: it has just begun. Modes as upstreams[].drain says in `snapshot`,
 * or said last. */
bool drain_delay(const struct snapshot *snapshot, const struct endpoint *endpoint,
                 uint32_t number, uint64_t since, uint64_t now, bool is_late,
                 uint32_t *delay_ms) MUST_CHECK;

/* How long a client waits whose endpoint has died, milliseconds. */
uint32_t drain_herd_delay(const struct snapshot *snapshot,
                          const struct endpoint *endpoint, uint32_t number);

/* Has an endpoint begun or ended to drain between the two snapshots? */
bool drain_differs(const struct snapshot *before, const struct snapshot *after);

/* The worker's current snapshot tells of other draining endpoints than the one before: their tunnels get their
 * deadlines, those of endpoints that drain no more lose theirs. */
void drain_apply(struct worker *worker);
