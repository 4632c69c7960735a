/*
 * A table from (key, 64 bits) to a place: open addressing, linear probing, at most half full, built once
 * and then only read. The 64 bits are tags or digests, evenly spread already: they are their own hash.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>
#include <stdint.h>

#define TAG_TABLE_NONE UINT32_MAX

struct tag_slot {
    uint64_t tag;
    uint32_t place; /* TAG_TABLE_NONE: an empty slot */
    uint32_t key;
};

struct tag_table {
    struct tag_slot *slots;
    size_t slots_len; /* a power of two, at least 2 × maximum */
    size_t count;
};

/* Room for `maximum` entries. */
void tag_table_init(struct tag_table *table, size_t maximum);
void tag_table_cleanup(struct tag_table *table);

/* Adds, unless (key, tag) is there already: then false and nothing changes. */
bool tag_table_add(struct tag_table *table, size_t key, uint64_t tag, uint32_t place);

/* The place, or TAG_TABLE_NONE. */
uint32_t tag_table_find(const struct tag_table *table, size_t key, uint64_t tag);
