/*
 * Objects of one size, close together, given back when they are gone.
 *
 *      slab ─▶ chunk [header | object | object | free | object | … ]   16 KiB, aligned, mapped alone
 *          └─▶ chunk [header | free   | free   | free | …        ]   empty: unmapped, but for the last one
 *
 * malloc would do, if nothing else lay between: libevent keeps a few bytes for each descriptor for ever, and
 * a page with one of those among twenty closed clients is never given back to the system. Here a page
 * holds one kind of object only, without malloc's words, and 10,000 tunnels that ended leave nothing.
 * One thread uses one slab. Under AddressSanitizer every object is its own allocation, so that a
 * late use is found.
 */
#pragma once

#include <stddef.h>
#include <sys/queue.h>

struct slab_chunk;
LIST_HEAD(slab_chunk_list, slab_chunk);

struct slab {
    struct slab_chunk_list roomy; /* chunks with a free object */
    size_t size;                  /* of an object */
    size_t chunks;                /* mapped now */
};

/* For objects of `size` bytes, at most 1 KiB; aligned to 16. */
void slab_init(struct slab *slab, size_t size);

/* All objects have been given back. */
void slab_cleanup(struct slab *slab);

/* A zeroed object; never NULL. slab_put() gives it back. */
void *slab_get(struct slab *slab);
void slab_put(struct slab *slab, void *object);
