/*
 * Memory that the message scanners use again and again: the pickle stack and memo, the values of a list
 * of rooms, and text that had to be decoded. It grows to what messages need and no further than its
 * bounds; in steady state a scan allocates nothing. One per loop: not for two threads at once.
 *
 * What a scan hands out (slices, arrays) lives until the next scan_scratch_reset of the same scratch.
 */
#pragma once

#include "shared/slice.h"

struct scan_scratch;

/* Most bytes of decoded text and canonical rooms that one message may need: beyond it the rooms of the
 * message count as not known. */
#define SCAN_TEXT_MAX (1024 * 1024)

struct scan_scratch *scan_scratch_new(void);
void scan_scratch_free(struct scan_scratch *scratch);

/* Forgets the last message. Gives back what only a huge message needed. */
void scan_scratch_reset(struct scan_scratch *scratch);

/* `size` bytes, aligned for any value, that stay where they are until the next reset; NULL when the
 * message has used SCAN_TEXT_MAX. */
void *scan_scratch_take(struct scan_scratch *scratch, size_t size) MUST_CHECK;

/* Gives back the last `unused` bytes of what was taken last. */
void scan_scratch_give_back(struct scan_scratch *scratch, size_t unused);

/* Tables that keep their contents while they grow: at least `size` bytes. Not reset. */
enum scan_table {
    SCAN_TABLE_STACK,
    SCAN_TABLE_MEMO,
    SCAN_TABLE_ITEMS,
    SCAN_TABLE_TREE_CONTAINERS, /* of pickle_tree, as the two below */
    SCAN_TABLE_TREE_CHUNKS,
    SCAN_TABLE_TREE_ITEMS,
    SCAN_TABLE_ATTACHMENTS, /* of a message that is transcoded */
    SCAN_TABLE_COUNT
};
void *scan_scratch_table(struct scan_scratch *scratch, enum scan_table table,
                         size_t size);
size_t scan_scratch_table_size(const struct scan_scratch *scratch, enum scan_table table);
