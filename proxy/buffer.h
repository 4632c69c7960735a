/*
 * Bytes that wait: a request that has not been sent, a response that a slow client has not taken.
 *
 * Nothing here is used while both sides keep up: relayed bytes go through the worker's scratch buffer.
 * A `struct buffer *` that is NULL is an empty one, so an idle owner pays eight bytes.
 *
 *        data                data+start        data+end            data+size
 *          |  taken already     |  waiting        |  room              |
 *
 * Every worker has a buffer_pool: it keeps a few small buffers for reuse and counts what its buffers
 * hold against limits.buffered_bytes, which all workers share: at the end of a turn, or as soon as it is much,
 * since requests that use a buffer for a moment would have all threads fight for that number. One thread uses one
 * pool.
 */
#pragma once

#include "shared/slice.h"

#include <stdatomic.h>
#include <stdint.h>

struct buffer {
    uint32_t start, end, size;
    char data[];
};

#define BUFFER_SMALL 1000u /* with the header and malloc's word 1,024; most heads fit */
#define BUFFER_KEPT  64    /* small buffers that a pool keeps */

struct buffer_pool {
    atomic_size_t *held; /* bytes of all pools, borrowed */
    size_t told;         /* of `own`: what is in there */
    size_t limit;        /* limits.buffered_bytes; 0: none */
    size_t own, peak; /* bytes of this pool: now, and the most since buffer_pool_trim() */
    struct buffer *kept[BUFFER_KEPT];
    unsigned kept_count;
};

/* `held` counts the bytes of all pools and outlives the pool. */
void buffer_pool_init(struct buffer_pool *pool, atomic_size_t *held, size_t limit);
void buffer_pool_cleanup(struct buffer_pool *pool);

/* Gives memory that malloc holds for a burst that is over back to the system: when the pool holds less than a
 * quarter of its peak. Takes about a millisecond. */
void buffer_pool_trim(struct buffer_pool *pool);

/* At the end of a turn: what the pool holds is counted. */
void buffer_pool_tell(struct buffer_pool *pool);

/* False when so many eighths of limits.buffered_bytes are used up: the owner should refuse new work. */
#define BUFFER_POOL_WHOLE 8u
bool buffer_pool_has_room(const struct buffer_pool *pool, unsigned eighths);

/* What it takes of the memory. */
static inline size_t buffer_size(const struct buffer *buffer)
{
    return buffer == NULL ? 0 : buffer->size;
}

static inline size_t buffer_len(const struct buffer *buffer)
{
    return buffer == NULL ? 0 : buffer->end - buffer->start;
}

static inline struct slice buffer_bytes(const struct buffer *buffer)
{
    return buffer == NULL ? slice_of(NULL, 0)
                          : slice_of(buffer->data + buffer->start, buffer_len(buffer));
}

/* Makes room for `len` bytes behind the waiting ones and returns where they go; *buffer may move or,
 * when it was NULL, is allocated. The caller has bounded the total (below 2 GiB). buffer_fill() tells
 * how many bytes were put there. */
char *buffer_reserve(struct buffer_pool *pool, struct buffer **buffer, size_t len);
void buffer_fill(struct buffer *buffer, size_t len);

/* Appends a copy. */
void buffer_append(struct buffer_pool *pool, struct buffer **buffer, struct slice bytes);

/* Takes the first `len` waiting bytes away; an empty buffer is given back and *buffer becomes NULL. */
void buffer_take(struct buffer_pool *pool, struct buffer **buffer, size_t len);

/* Gives the buffer back with whatever it holds; *buffer becomes NULL. */
void buffer_drop(struct buffer_pool *pool, struct buffer **buffer);
