/*
 * Two kinds of memory.
 *
 *     chunks   4 KiB ─ 8 KiB ─ … ─ 1 MiB     texts and arrays that slices point to: never moved, taken from
 *              ▲ current                     front to back, all empty again at a reset
 *     tables   stack, memo, items, …         grow by realloc; only the scanner that is running points there
 *
 * What is larger than a usual message needs is given back at the next reset.
 */
#include "broker/scan_scratch.h"

#include <stdlib.h>

#define CHUNK_FIRST    4096
#define CHUNK_COUNT    10
#define CHUNK_KEPT     3             /* chunks kept at a reset: 28 KiB */
#define TABLE_FIRST    (16 * 1024)   /* 1,024 pickle entries */
#define TABLE_KEPT     (1024 * 1024) /* bytes of a table kept at a reset */
#define TAKE_ALIGNMENT 16

struct chunk {
    char *bytes;
    size_t size;
    size_t used;
};

struct table {
    char *bytes;
    size_t size;
};

struct scan_scratch {
    struct chunk chunks[CHUNK_COUNT];
    size_t current;
    size_t taken;
    struct table tables[SCAN_TABLE_COUNT];
};

struct scan_scratch *scan_scratch_new(void)
{
    return must_calloc(1, sizeof(struct scan_scratch));
}

void scan_scratch_free(struct scan_scratch *scratch)
{
    if (scratch == NULL)
        return;
    for (size_t i = 0; i < CHUNK_COUNT; i++)
        free(scratch->chunks[i].bytes);
    for (size_t i = 0; i < SCAN_TABLE_COUNT; i++)
        free(scratch->tables[i].bytes);
    free(scratch);
}

void scan_scratch_reset(struct scan_scratch *scratch)
{
    for (size_t i = 0; i <= scratch->current; i++) {
        struct chunk *chunk = &scratch->chunks[i];
        chunk->used = 0;
        if (i >= CHUNK_KEPT) {
            free(chunk->bytes);
            *chunk = (struct chunk){0};
        }
    }
    scratch->current = 0;
    scratch->taken = 0;
    for (size_t i = 0; i < SCAN_TABLE_COUNT; i++) {
        if (scratch->tables[i].size > TABLE_KEPT) {
            free(scratch->tables[i].bytes);
            scratch->tables[i] = (struct table){0};
        }
    }
}

/* The chunk that has room for `size` bytes: the current one or one behind it; NULL past the last. */
static struct chunk *find_chunk(struct scan_scratch *scratch, size_t size)
{
    for (; scratch->current < CHUNK_COUNT; scratch->current++) {
        struct chunk *chunk = &scratch->chunks[scratch->current];
        if (chunk->bytes == NULL) {
            chunk->size = max_size((size_t)CHUNK_FIRST << scratch->current, size);
            chunk->bytes = must_realloc(NULL, chunk->size);
        } else if (chunk->used == 0 && chunk->size < size) {
            chunk->size = size;
            chunk->bytes = must_realloc(chunk->bytes, size);
        }
        if (chunk->size - chunk->used >= size)
            return chunk;
    }
    scratch->current = CHUNK_COUNT - 1;
    return NULL;
}

void *scan_scratch_take(struct scan_scratch *scratch, size_t size)
{
    if (size > SCAN_TEXT_MAX)
        return NULL;
    size = (size + TAKE_ALIGNMENT - 1) / TAKE_ALIGNMENT * TAKE_ALIGNMENT;
    if (size > SCAN_TEXT_MAX - scratch->taken)
        return NULL;
    struct chunk *chunk = find_chunk(scratch, size);
    if (chunk == NULL)
        return NULL;
    char *bytes = chunk->bytes + chunk->used;
    chunk->used += size;
    scratch->taken += size;
    return bytes;
}

void scan_scratch_give_back(struct scan_scratch *scratch, size_t unused)
{
    /* whole steps only, so that what is taken next stays aligned */
    unused = unused / TAKE_ALIGNMENT * TAKE_ALIGNMENT;
    struct chunk *chunk = &scratch->chunks[scratch->current];
    check(unused <= chunk->used && unused <= scratch->taken);
    chunk->used -= unused;
    scratch->taken -= unused;
}

void *scan_scratch_table(struct scan_scratch *scratch, enum scan_table table, size_t size)
{
    struct table *grown = &scratch->tables[table];
    if (grown->size < size) {
        size_t next = max_size(grown->size, TABLE_FIRST);
        while (next < size)
            next *= 2;
        grown->bytes = must_realloc(grown->bytes, next);
        grown->size = next;
    }
    return grown->bytes;
}

size_t scan_scratch_table_size(const struct scan_scratch *scratch, enum scan_table table)
{
    return scratch->tables[table].size;
}
