#include "shared/sealed_records.h"

#include <stdlib.h>

#define CAPACITY_FIRST 16u

void sealed_records_cleanup(struct sealed_records *records)
{
    free(records->items);
    *records = (struct sealed_records){0};
}

static void grow(struct sealed_records *records)
{
    unsigned capacity = records->capacity > 0 ? records->capacity * 2 : CAPACITY_FIRST;
    struct sealed_record *items = must_calloc(capacity, sizeof(*items));
    for (unsigned i = 0; i < records->count; i++)
        items[i] = records->items[(records->first + i) % records->capacity];
    free(records->items);
    records->items = items;
    records->first = 0;
    records->capacity = capacity;
}

void sealed_records_note(struct sealed_records *records, size_t len, uint64_t cipher_end)
{
    if (records->count == records->capacity)
        grow(records);
    records->plain += len;
    records->items[(records->first + records->count++) % records->capacity] =
        (struct sealed_record){records->plain, cipher_end};
}

bool sealed_records_is_full(const struct sealed_records *records)
{
    return records->count > 0 && records->count == records->capacity;
}

void sealed_records_acknowledge(struct sealed_records *records, uint64_t cipher)
{
    while (records->count > 0 && records->items[records->first].cipher_end <= cipher) {
        records->acknowledged_plain = records->items[records->first].plain_end;
        records->first = (records->first + 1) % records->capacity;
        records->count--;
    }
}

size_t sealed_records_unacknowledged(const struct sealed_records *records)
{
    return (size_t)(records->plain - records->acknowledged_plain);
}
