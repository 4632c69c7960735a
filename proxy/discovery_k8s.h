/*
 * discovery.kubernetes: the EndpointSlices of one Service, listed and then watched.
 *
 *      LISTING page, page … ─▶ swap ─▶ WATCHING ── event, event, bookmark … ──┐
 *         ▲  ▲                            ▲    │                              │
 *         │  │                            │    ├─ end of its time ────────────┘ (relist due: LISTING)
 *         │  └── expired (410, as status  │    │
 *         │      or as event) ◀───────────┼────┤
 *         │                               │    ▼
 *         └── 3 failures in a row ── WAITING ◀─ anything else: refused, 401, 403, 429, 5xx, garbage,
 *                                    back-off     an event over 8 MiB, silence, no end
 *
 * A list builds a new store and replaces the old one, which finds what was missed. The version (resourceVersion)
 * comes from the list, then from each event and bookmark. While the API cannot be reached the endpoints stay as
 * they are, for ever. Token and CA file are read for each request: both rotate.
 * Every watch ends after watch_time to twice that, so that a version which the server never reaches (it was
 * restored from a backup) does not hang; then, after relist, the slices are listed again. A server that does not
 * end it is left 30 s later, and in a list after 60 s of one page and 5 minutes of all, however it trickles.
 */
#pragma once

#include "proxy/discovery_source.h"

#define WATCH_LINE_MAX (8u * 1024 * 1024)  /* one event */
#define LIST_PAGE_MAX  (64u * 1024 * 1024) /* of LIST_PAGE slices */
#define LIST_PAGE      20

extern const struct source_kind discovery_k8s;
