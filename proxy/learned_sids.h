/*
 * Learned sids: sid → endpoint, for sessions whose sid cannot carry a tag (EIO=3, JSONP, skipped
 * rewrites). The one mutable thing that threads share.
 *
 *     sid ─ hash ─┬─▶ stripe 0 [mutex · buckets · list: fresh … stale]
 *                 ├─▶ stripe 1        each stripe holds its part of the bound; when it is full
 *                 └─▶ …               the entry that was used longest ago makes room
 *
 * A lookup refreshes the entry's life; nothing else is told when a session ends, its entry just ages. An
 * endpoint that is gone stays in the table that long, so that its sessions can be told so. A lock is held for one lookup in one stripe, never while
 * anything else happens. One entry costs at most 96 bytes and its sid, allocator included.
 * Promised for one replica only: another one has not seen the handshake.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct endpoint;
struct learned_sids;

#define LEARNED_SID_LEN_MAX 256 /* longer ones are not learned */

/* A table of at most `maximum` entries (0: it learns nothing; 1..63 count as 64), with one reference. One
 * holder more (the same pointer), one less. Sets hold it, so that a table and the endpoints in it never
 * hold each other. */
struct learned_sids *learned_sids_new(size_t maximum);
struct learned_sids *learned_sids_ref(struct learned_sids *table);
void learned_sids_unref(struct learned_sids *table);

/* A new bound, for a reload; entries beyond it go as their stripes are next used. */
void learned_sids_set_maximum(struct learned_sids *table, size_t maximum);

/* Remembers the sid, replacing what was known of it; takes its own reference to the endpoint. The
 * entry lives `lifetime` from `now` and from each later lookup. */
void learned_sids_add(struct learned_sids *table, struct slice sid,
                      struct endpoint *endpoint, uint64_t lifetime, uint64_t now);

/* The endpoint that was learned, with a reference of its own (the caller calls endpoint_unref), or
 * NULL when the sid is unknown or its life is over. */
struct endpoint *learned_sids_find(struct learned_sids *table, struct slice sid,
                                   uint64_t now) MUST_CHECK;

/* How many entries there are now; each stripe is counted at its own moment. */
size_t learned_sids_count(struct learned_sids *table);

/* Bytes of one entry without its sid, allocator and bucket included: for the test of the bound. */
size_t learned_sids_entry_cost(void);
