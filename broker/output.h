/*
 * What waits to be written to one socket: a queue of spans, oldest first.
 *
 *     output_append ─▶ [ span │ span │ span ] ─▶ output_write (one writev)
 *                        └ `written` bytes of the first are gone already
 *
 * Spans that touch are merged, so a burst for one subscriber is one entry. A span is either
 * *droppable* (deliveries, always whole messages) or not (replies to commands); only equals merge.
 * Memory of an empty queue is given back but for a few entries.
 */
#pragma once

#include "broker/chunk.h"
#include "shared/stream.h"
#include "shared/timing.h"

#include <stdint.h>

struct output_entry {
    struct span span;
    uint64_t queued_at; /* microseconds, of its first byte */
    unsigned messages;
    bool droppable;
};

/* All zero is an empty queue. */
struct output {
    struct output_entry *entries; /* a ring of `capacity` */
    unsigned first;
    unsigned count;
    unsigned capacity;
    size_t written; /* of the first entry */
    size_t bytes;   /* still to write, of all entries */
};

enum output_result {
    OUTPUT_EMPTY,   /* everything is written */
    OUTPUT_BLOCKED, /* the socket takes no more now */
    OUTPUT_BROKEN,  /* errno says why */
};

void output_cleanup(struct output *output);

/* An entry is not merged into one that has waited longer than this, so that output_age is honest. */
#define OUTPUT_MERGE_WITHIN SECONDS(1)

/* Queues a span that belongs to the last entry, which holds it already. False, and nothing done: it does not. In line,
 * since each delivery asks. */
static inline bool output_extend(struct output *output, struct span span, bool droppable,
                                 uint64_t now)
{
    if (output->count == 0)
        return false;
    struct output_entry *last =
        &output->entries[(output->first + output->count - 1) & (output->capacity - 1)];
    if (last->droppable != droppable || !span_touches(last->span, span) ||
        now - last->queued_at > OUTPUT_MERGE_WITHIN)
        return false;
    last->span.len += span.len;
    last->messages++;
    output->bytes += span.len;
    return true;
}

/* Queues a span and holds it. `now` as timing_now(). */
void output_append(struct output *output, struct span span, bool droppable, uint64_t now);

/* Writes as much as the stream takes. `*wrote` is raised by the bytes that went out. */
enum output_result output_write(struct output *output, struct stream *stream,
                                size_t *wrote) MUST_CHECK;

/* Deliveries that are not written, about: of the first entry its share. */
size_t output_messages(const struct output *output);

/* Bytes of the first entry that are still to write; 0 when empty. */
size_t output_first_bytes(const struct output *output);

/* The entry at `index` < count; 0 is the oldest. Borrowed until the queue changes. */
const struct output_entry *output_entry_get(const struct output *output, unsigned index);

/* How long the oldest byte has waited, microseconds; 0 when empty. */
uint64_t output_age(const struct output *output, uint64_t now);

/* Drops the oldest droppable entries until at most `bytes` are left and none was queued before `since` (timing_now();
 * 0: whatever their age), or nothing more can be dropped. The
 * first entry always stays, since a part of it may be out already, and so does what holds the next `sealed` bytes: the
 * gathered pieces that TLS has made a record of (STREAM_RECORD_MAX; 0 for a plain stream). Returns the number of
 * messages dropped and adds their bytes to `*dropped_bytes`. */
size_t output_drop_oldest(struct output *output, size_t bytes, uint64_t since,
                          size_t sealed, size_t *dropped_bytes);

/* Drops everything. */
void output_clear(struct output *output);
