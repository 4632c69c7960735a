#include "proxy/event_memory.h"

#include "shared/base.h"

#include <event2/event.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SMALL_SIZE  16u
#define BLOCK_SIZE  4096u
#define REGION_SIZE (32u << 20) /* 2 million descriptors of all loops ever */

static char *region;
static atomic_size_t region_used;
static _Thread_local char *block;
static _Thread_local size_t block_left;

static bool is_in_region(const void *pointer)
{
    const char *at = pointer;
    return region != NULL && at >= region && at < region + REGION_SIZE;
}

/* NULL when the region is used up: malloc serves then. */
static void *small_get(void)
{
    if (block_left == 0) {
        size_t at = atomic_fetch_add(&region_used, BLOCK_SIZE);
        if (at + BLOCK_SIZE > REGION_SIZE) {
            atomic_fetch_sub(&region_used, BLOCK_SIZE);
            return NULL;
        }
        block = region + at;
        block_left = BLOCK_SIZE;
    }
    block_left -= SMALL_SIZE;
    return block + block_left;
}

static void *event_malloc(size_t size)
{
    void *small = size == SMALL_SIZE ? small_get() : NULL;
    return small != NULL ? small : must_realloc(NULL, size);
}

static void event_free_memory(void *pointer)
{
    if (!is_in_region(
            pointer)) /* those in the region stay: the loop that had them has ended */
        free(pointer);
}

static void *event_realloc(void *pointer, size_t size)
{
    if (!is_in_region(pointer))
        return must_realloc(pointer, size);
    void *moved = must_realloc(NULL, size);
    memcpy(moved, pointer, min_size(size, SMALL_SIZE));
    return moved;
}

void event_memory_init(void)
{
    region = mmap(NULL, REGION_SIZE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        base_abort(__FILE__, __LINE__, "out of memory");
    event_set_mem_functions(event_malloc, event_realloc, event_free_memory);
}
