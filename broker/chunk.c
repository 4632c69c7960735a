#include "broker/chunk.h"

#include <stdlib.h>

/* Large enough that a burst of small messages is one span; small enough that a subscriber that holds
 * one message of it does not hold much. Larger messages get a chunk of their own size. */
#define CHUNK_SIZE ((size_t)64 * 1024)

static struct chunk *chunk_new(size_t size)
{
    /* not calloc: every byte is written before it is read */
    struct chunk *chunk = must_realloc(NULL, sizeof(*chunk) + size);
    chunk->holders = 1;
    chunk->size = size;
    chunk->len = 0;
    return chunk;
}

static void chunk_release(struct chunk *chunk)
{
    check(chunk->holders > 0);
    if (--chunk->holders == 0)
        free(chunk);
}

void chunk_writer_cleanup(struct chunk_writer *writer)
{
    if (writer->chunk != NULL)
        chunk_release(writer->chunk);
    writer->chunk = NULL;
}

char *chunk_writer_reserve(struct chunk_writer *writer, size_t len)
{
    if (writer->chunk != NULL && writer->chunk->size - writer->chunk->len < len)
        chunk_writer_cleanup(writer);
    if (writer->chunk == NULL)
        writer->chunk = chunk_new(max_size(len, CHUNK_SIZE));
    return writer->chunk->data + writer->chunk->len;
}

struct span chunk_writer_commit(struct chunk_writer *writer, size_t len)
{
    struct chunk *chunk = writer->chunk;
    check(chunk != NULL && chunk->size - chunk->len >= len);
    struct span span = {chunk, chunk->len, len};
    chunk->len += len;
    return span;
}

struct span chunk_writer_copy(struct chunk_writer *writer, struct slice bytes)
{
    char *room = chunk_writer_reserve(writer, bytes.len);
    if (bytes.len > 0)
        memcpy(room, bytes.data, bytes.len);
    return chunk_writer_commit(writer, bytes.len);
}

void chunk_writer_rewind(struct chunk_writer *writer)
{
    struct chunk *chunk = writer->chunk;
    if (chunk == NULL || chunk->holders > 1)
        return;
    if (chunk->size > CHUNK_SIZE)
        chunk_writer_cleanup(writer);
    else
        chunk->len = 0;
}

void span_hold(struct span span)
{
    span.chunk->holders++;
}

void span_release(struct span span)
{
    chunk_release(span.chunk);
}
