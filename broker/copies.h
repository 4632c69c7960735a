/*
 * Messages that travel on two partitions under one id (enter_room, leave_room) and are delivered once.
 *
 *     the room's copy ────────────────────────────────▶ delivered, in the room's order; the sid's is dropped
 *     the sid's copy ─┬─ room's partition not received ▶ delivered; the room's is dropped
 *                     └─ received ▶ waits ─┬─ the room's copy comes ─▶ dropped
 *                                          └─ COPIES_WAIT, the need of the room's partition ends, or too many
 *                                             wait ─▶ delivered
 *
 * (docs/broker-protocol.md, "Delivered once")
 */
#pragma once

#include "shared/slice.h"
#include "shared/timing.h"

struct copies;
struct envelope;
struct partition_map;
struct sequence_table;

#define COPIES_WAIT      SECONDS(5)
#define COPIES_MAX       4096
#define COPIES_BYTES_MAX ((size_t)8 * 1024 * 1024)

struct copies_callbacks {
    /* Are messages of this origin on this partition received, from a known one on? */
    bool (*is_received)(void *context, uint64_t origin, unsigned partition);
    /* A copy that has waited is to be delivered. */
    void (*on_release)(void *context, const struct envelope *envelope);
    void *context;
};

/* `map` and `sequences` are borrowed. */
struct copies *copies_new(const struct partition_map *map,
                          struct sequence_table *sequences,
                          const struct copies_callbacks *callbacks);
void copies_free(struct copies *copies);

/* Does it travel twice? */
bool copies_has_two(const struct envelope *envelope);

/* A copy whose turn in its partition has come; `bytes` is the whole envelope, `standing` as standing_now(). True:
 * deliver it. False: it waits, or the other one was delivered. */
bool copies_take(struct copies *copies, const struct envelope *envelope,
                 struct slice bytes, uint64_t standing) MUST_CHECK;

/* The partition is no longer received: nothing waits for its copies. */
void copies_release(struct copies *copies, unsigned partition);

/* Releases who has waited long enough. */
void copies_expire(struct copies *copies, uint64_t standing);

unsigned copies_waiting(const struct copies *copies);
