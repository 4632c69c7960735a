#include "broker/pickle_tree.h"

void pickle_tree_init(struct pickle_tree *tree, struct scan_scratch *scratch)
{
    *tree = (struct pickle_tree){.scratch = scratch};
}

bool pickle_tree_open(struct pickle_tree *tree, uint32_t *container)
{
    if (tree->container_count >= PICKLE_TREE_CONTAINERS_MAX)
        return false;
    tree->containers =
        scan_scratch_table(tree->scratch, SCAN_TABLE_TREE_CONTAINERS,
                           (tree->container_count + 1) * sizeof(struct tree_container));
    tree->containers[tree->container_count] = (struct tree_container){0};
    *container = (uint32_t)tree->container_count++;
    return true;
}

bool pickle_tree_add(struct pickle_tree *tree, uint32_t container,
                     const struct entry *items, size_t count)
{
    check(container < tree->container_count);
    if (count == 0)
        return true;
    if (count > PICKLE_TREE_ITEMS_MAX - tree->item_count)
        return false;
    tree->items = scan_scratch_table(tree->scratch, SCAN_TABLE_TREE_ITEMS,
                                     (tree->item_count + count) * sizeof(struct entry));
    memcpy(tree->items + tree->item_count, items, count * sizeof(struct entry));
    tree->chunks =
        scan_scratch_table(tree->scratch, SCAN_TABLE_TREE_CHUNKS,
                           (tree->chunk_count + 1) * sizeof(struct tree_chunk));
    tree->chunks[tree->chunk_count] = (struct tree_chunk){
        .start = (uint32_t)tree->item_count, .count = (uint32_t)count};
    tree->item_count += count;
    uint32_t number = (uint32_t)++tree->chunk_count;
    struct tree_container *filled = &tree->containers[container];
    if (filled->first == 0)
        filled->first = number;
    else
        tree->chunks[filled->last - 1].next = number;
    filled->last = number;
    filled->count += (uint32_t)count;
    return true;
}

struct tree_cursor pickle_tree_walk(const struct pickle_tree *tree, uint32_t container)
{
    check(container < tree->container_count);
    return (struct tree_cursor){.chunk = tree->containers[container].first};
}

const struct entry *pickle_tree_next(const struct pickle_tree *tree,
                                     struct tree_cursor *cursor)
{
    if (cursor->chunk == 0)
        return NULL;
    const struct tree_chunk *chunk = &tree->chunks[cursor->chunk - 1];
    const struct entry *item = &tree->items[chunk->start + cursor->at++];
    if (cursor->at == chunk->count)
        *cursor = (struct tree_cursor){.chunk = chunk->next};
    return item;
}
