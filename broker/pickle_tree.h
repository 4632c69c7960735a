/*
 * What is in the lists, dicts and tuples of a pickle, kept while the pickle machine runs. Containers may be
 * filled in parts, be in several places at once, and be inside themselves:
 *
 *     containers   0 ──▶ chunk ──▶ chunk          a part for each APPENDS, SETITEMS, …
 *                  1 ──▶ chunk     │
 *     items        [ entry entry entry … ]        a dict's keys and values in turn
 */
#pragma once

#include "broker/pickle_entry.h"

/* Most values and containers that are kept: 16 MiB and 12 MiB. */
#define PICKLE_TREE_ITEMS_MAX      (1024 * 1024)
#define PICKLE_TREE_CONTAINERS_MAX (1024 * 1024)

struct tree_container {
    uint32_t first; /* chunk, plus 1; 0: none */
    uint32_t last;
    uint32_t is_open : 1; /* for whoever walks: he is inside of it */
    uint32_t count : 31;  /* items */
};

struct tree_chunk {
    uint32_t next; /* chunk, plus 1 */
    uint32_t start;
    uint32_t count;
};

/* Its tables are the scratch's: borrowed until its next reset. */
struct pickle_tree {
    struct scan_scratch *scratch;
    struct tree_container *containers;
    size_t container_count;
    struct tree_chunk *chunks;
    size_t chunk_count;
    struct entry *items;
    size_t item_count;
};

/* Walks the items of one container. */
struct tree_cursor {
    uint32_t chunk; /* plus 1 */
    uint32_t at;    /* in that chunk */
};

void pickle_tree_init(struct pickle_tree *tree, struct scan_scratch *scratch);

/* Makes an empty container and tells its number. False: too many. */
bool pickle_tree_open(struct pickle_tree *tree, uint32_t *container) MUST_CHECK;

/* Puts `count` items at the end of a container. False: too many. */
bool pickle_tree_add(struct pickle_tree *tree, uint32_t container,
                     const struct entry *items, size_t count) MUST_CHECK;

struct tree_cursor pickle_tree_walk(const struct pickle_tree *tree, uint32_t container);

/* The next item, NULL behind the last. */
const struct entry *pickle_tree_next(const struct pickle_tree *tree,
                                     struct tree_cursor *cursor);
