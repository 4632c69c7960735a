#include "proxy/tag_table.h"

#include <stdlib.h>

void tag_table_init(struct tag_table *table, size_t maximum)
{
    table->slots_len = 2;
    while (table->slots_len < maximum * 2)
        table->slots_len *= 2;
    table->slots = must_calloc(table->slots_len, sizeof(struct tag_slot));
    for (size_t i = 0; i < table->slots_len; i++)
        table->slots[i].place = TAG_TABLE_NONE;
    table->count = 0;
}

void tag_table_cleanup(struct tag_table *table)
{
    free(table->slots);
}

/* The slot that holds (key, tag), or the empty one where it belongs. */
static struct tag_slot *slot_of(const struct tag_table *table, size_t key, uint64_t tag)
{
    size_t at = (size_t)tag & (table->slots_len - 1);
    for (;; at = (at + 1) & (table->slots_len - 1)) {
        struct tag_slot *slot = &table->slots[at];
        if (slot->place == TAG_TABLE_NONE || (slot->tag == tag && slot->key == key))
            return slot;
    }
}

bool tag_table_add(struct tag_table *table, size_t key, uint64_t tag, uint32_t place)
{
    struct tag_slot *slot = slot_of(table, key, tag);
    if (slot->place != TAG_TABLE_NONE)
        return false;
    check(++table->count * 2 <= table->slots_len);
    *slot = (struct tag_slot){.tag = tag, .place = place, .key = (uint32_t)key};
    return true;
}

uint32_t tag_table_find(const struct tag_table *table, size_t key, uint64_t tag)
{
    return slot_of(table, key, tag)->place;
}
