#include "proxy/slab.h"

#include "shared/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK_SIZE 16384u
#define ALIGNMENT  16u

struct free_object {
    struct free_object *next;
};

struct slab_chunk {
    LIST_ENTRY(slab_chunk) entry; /* of slab->roomy while there is room */
    struct free_object *freed;
    unsigned used;    /* objects in use */
    unsigned touched; /* objects ever handed out: those behind have never been written */
    unsigned room;    /* objects in all */
};

#define HEADER_SIZE ((sizeof(struct slab_chunk) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

void slab_init(struct slab *slab, size_t size)
{
    check(size > 0 && size <= 1024);
    LIST_INIT(&slab->roomy);
    slab->size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    slab->chunks = 0;
}

#if defined(__SANITIZE_ADDRESS__)

void slab_cleanup(struct slab *slab)
{
    (void)slab;
}

void *slab_get(struct slab *slab)
{
    return must_calloc(1, slab->size);
}

void slab_put(struct slab *slab, void *object)
{
    (void)slab;
    free(object);
}

#else

/* Twice the size is mapped and the ends around the aligned middle are given back. */
static struct slab_chunk *chunk_map(struct slab *slab)
{
    char *map = mmap(NULL, 2 * CHUNK_SIZE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        base_abort(__FILE__, __LINE__, "out of memory");
    size_t before = (CHUNK_SIZE - (uintptr_t)map % CHUNK_SIZE) % CHUNK_SIZE;
    if (before > 0)
        munmap(map, before);
    munmap(map + before + CHUNK_SIZE, CHUNK_SIZE - before);
    struct slab_chunk *chunk = (struct slab_chunk *)(void *)(map + before);
    chunk->room = (unsigned)((CHUNK_SIZE - HEADER_SIZE) / slab->size);
    LIST_INSERT_HEAD(&slab->roomy, chunk, entry);
    slab->chunks++;
    return chunk;
}

static void chunk_unmap(struct slab *slab, struct slab_chunk *chunk)
{
    LIST_REMOVE(chunk, entry);
    slab->chunks--;
    munmap(chunk, CHUNK_SIZE);
}

void slab_cleanup(struct slab *slab)
{
    struct slab_chunk *chunk;
    while ((chunk = LIST_FIRST(&slab->roomy)) != NULL) {
        check(chunk->used == 0);
        chunk_unmap(slab, chunk);
    }
    check(slab->chunks == 0);
}

void *slab_get(struct slab *slab)
{
    struct slab_chunk *chunk = LIST_FIRST(&slab->roomy);
    if (chunk == NULL)
        chunk = chunk_map(slab);
    void *object;
    if (chunk->freed != NULL) {
        object = chunk->freed;
        chunk->freed = chunk->freed->next;
    } else {
        object = (char *)chunk + HEADER_SIZE + chunk->touched++ * slab->size;
    }
    if (++chunk->used == chunk->room)
        LIST_REMOVE(chunk, entry);
    return memset(object, 0, slab->size);
}

void slab_put(struct slab *slab, void *object)
{
    struct slab_chunk *chunk =
        (struct slab_chunk *)(void *)((uintptr_t)object / CHUNK_SIZE * CHUNK_SIZE);
    struct free_object *freed = object;
    freed->next = chunk->freed;
    chunk->freed = freed;
    if (chunk->used-- == chunk->room)
        LIST_INSERT_HEAD(&slab->roomy, chunk, entry);
    if (chunk->used == 0 && slab->chunks > 1)
        chunk_unmap(slab, chunk);
}

#endif
