#include "proxy/buffer.h"

#include "shared/base.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdlib.h>

#define TELL_BYTES 16384u /* a turn's change that is counted at once */

void buffer_pool_init(struct buffer_pool *pool, atomic_size_t *held, size_t limit)
{
    *pool = (struct buffer_pool){.held = held, .limit = limit};
}

void buffer_pool_tell(struct buffer_pool *pool)
{
    if (pool->own == pool->told)
        return;
    atomic_fetch_add_explicit(pool->held, pool->own - pool->told, memory_order_relaxed);
    pool->told = pool->own;
}

void buffer_pool_cleanup(struct buffer_pool *pool)
{
    buffer_pool_tell(pool);
    while (pool->kept_count > 0)
        free(pool->kept[--pool->kept_count]);
}

bool buffer_pool_has_room(const struct buffer_pool *pool, unsigned eighths)
{
    size_t used =
        atomic_load_explicit(pool->held, memory_order_relaxed) + pool->own - pool->told;
    return pool->limit == 0 || used < pool->limit - pool->limit / BUFFER_POOL_WHOLE *
                                                        (BUFFER_POOL_WHOLE - eighths);
}

void buffer_pool_trim(struct buffer_pool *pool)
{
    if (pool->own < pool->peak / 4) {
        buffer_pool_cleanup(pool);
#ifdef __GLIBC__ /* musl gives large pieces back by itself */
        malloc_trim(0);
#endif
    }
    pool->peak = pool->own;
}

static void count(struct buffer_pool *pool, ptrdiff_t bytes)
{
    pool->own += (size_t)bytes;
    size_t untold =
        pool->own > pool->told ? pool->own - pool->told : pool->told - pool->own;
    if (untold >= TELL_BYTES)
        buffer_pool_tell(pool);
    pool->peak = max_size(pool->peak, pool->own);
}

static struct buffer *buffer_new(struct buffer_pool *pool, size_t len)
{
    struct buffer *buffer;
    if (len <= BUFFER_SMALL && pool->kept_count > 0) {
        buffer = pool->kept[--pool->kept_count];
    } else {
        size_t size = max_size(len, BUFFER_SMALL);
        buffer = must_realloc(NULL, sizeof *buffer + size);
        buffer->size = (uint32_t)size;
    }
    buffer->start = buffer->end = 0;
    count(pool, (ptrdiff_t)buffer->size);
    return buffer;
}

char *buffer_reserve(struct buffer_pool *pool, struct buffer **buffer, size_t len)
{
    struct buffer *it = *buffer;
    if (it == NULL)
        it = *buffer = buffer_new(pool, len);
    if (it->size - it->end < len && it->start > 0) {
        memmove(it->data, it->data + it->start, it->end - it->start);
        it->end -= it->start;
        it->start = 0;
    }
    if (it->size - it->end < len) {
        size_t size = max_size((size_t)it->end + len, (size_t)it->size * 2);
        check(size < UINT32_MAX / 2);
        count(pool, (ptrdiff_t)(size - it->size));
        it = *buffer = must_realloc(it, sizeof *it + size);
        it->size = (uint32_t)size;
    }
    return it->data + it->end;
}

void buffer_fill(struct buffer *buffer, size_t len)
{
    check(len <= buffer->size - buffer->end);
    buffer->end += (uint32_t)len;
}

void buffer_append(struct buffer_pool *pool, struct buffer **buffer, struct slice bytes)
{
    if (bytes.len == 0)
        return;
    memcpy(buffer_reserve(pool, buffer, bytes.len), bytes.data, bytes.len);
    buffer_fill(*buffer, bytes.len);
}

void buffer_take(struct buffer_pool *pool, struct buffer **buffer, size_t len)
{
    if (len == 0 && buffer_len(*buffer) > 0)
        return;
    if (*buffer == NULL)
        return;
    check(len <= buffer_len(*buffer));
    (*buffer)->start += (uint32_t)len;
    if (buffer_len(*buffer) == 0)
        buffer_drop(pool, buffer);
}

void buffer_drop(struct buffer_pool *pool, struct buffer **buffer)
{
    struct buffer *it = *buffer;
    if (it == NULL)
        return;
    *buffer = NULL;
    count(pool, -(ptrdiff_t)it->size);
    if (it->size == BUFFER_SMALL && pool->kept_count < BUFFER_KEPT)
        pool->kept[pool->kept_count++] = it;
    else
        free(it);
}
