/*
 * Bytes that are written once and read by many.
 *
 *     chunk   [ message │ message │ message │ reply │ …free… ]      a block with a count of holders
 *                 └────span────┘                                   a part of it, waiting somewhere
 *
 * A message is rendered once for all its subscribers, behind the message before it. Whoever has both
 * to send holds one longer span, so that a burst is one span and one write() for each subscriber,
 * and nothing is copied per subscriber. The same holds for what goes to a shard.
 *
 * A chunk lives as long as somebody holds a span of it, or a writer fills it.
 */
#pragma once

#include "shared/slice.h"

struct chunk {
    unsigned holders;
    size_t size; /* of data */
    size_t len;  /* written so far */
    char data[];
};

struct span {
    struct chunk *chunk;
    size_t start;
    size_t len;
};

/* Fills chunks one after the other; owns a hold on the one it fills. All zero is a fresh writer. */
struct chunk_writer {
    struct chunk *chunk; /* NULL: none yet */
};

void chunk_writer_cleanup(struct chunk_writer *writer);

/* Room for `len` bytes in one piece, to be filled before the next call. What chunk_writer_commit takes
 * of it becomes a span; the rest is offered again. */
char *chunk_writer_reserve(struct chunk_writer *writer, size_t len);

/* The first `len` bytes of the reserved room as a span, which is borrowed from the writer until the
 * next reserve: who keeps it calls span_hold. */
struct span chunk_writer_commit(struct chunk_writer *writer, size_t len);

/* A copy of `bytes` as a span, borrowed as above. */
struct span chunk_writer_copy(struct chunk_writer *writer, struct slice bytes);

/* Once per loop turn: starts from the chunk's beginning again when nobody holds a part of it. */
void chunk_writer_rewind(struct chunk_writer *writer);

void span_hold(struct span span);
void span_release(struct span span);

static inline struct slice span_bytes(struct span span)
{
    return slice_of(span.chunk->data + span.start, span.len);
}

/* True when `next` begins where `first` ends, in the same chunk. */
static inline bool span_touches(struct span first, struct span next)
{
    return first.chunk == next.chunk && first.start + first.len == next.start;
}
