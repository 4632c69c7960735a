/*
 * See sequence.h. An origin has one number for each partition (32 KiB at 4096).
 */
#include "broker/sequence.h"

#include <stdlib.h>

/* uthash is a macro package with its own opinion about these. */
#include <uthash.h>

#define COPY_BUCKETS (SEQUENCE_COPIES * 2) /* a power of two, at most half full */

/* The last SEQUENCE_COPIES message ids: a ring in order of arrival, and an open-addressed table of the
 * places in it (+1; 0 is free). */
struct copies {
    uint64_t ids[SEQUENCE_COPIES];
    uint16_t buckets[COPY_BUCKETS];
    unsigned count; /* at most SEQUENCE_COPIES */
    unsigned next;
};

struct origin {
    uint64_t id;
    uint64_t heard_at;
    struct copies *copies; /* NULL until one came */
    UT_hash_handle hh;
    uint64_t
        rests_since; /* sequence_table.rests when its rest began; 0: it does not rest */
    uint64_t expected[]; /* by partition; 0: unknown */
};

struct sequence_table {
    struct origin *origins; /* by id */
    struct origin *last;    /* used; NULL: none */
    unsigned count;
    unsigned partitions;
    size_t resting_bytes;
    uint64_t rests; /* how many have begun */
};

static size_t cost_of(const struct sequence_table *table, const struct origin *origin)
{
    return sizeof(*origin) + table->partitions * sizeof(origin->expected[0]) +
           (origin->copies != NULL ? sizeof(*origin->copies) : 0);
}

static void end_rest(struct sequence_table *table, struct origin *origin)
{
    if (origin->rests_since != 0)
        table->resting_bytes -= cost_of(table, origin);
    origin->rests_since = 0;
}

static void origin_free(struct sequence_table *table, struct origin *origin)
{
    end_rest(table, origin);
    if (table->last == origin)
        table->last = NULL;
    HASH_DEL(table->origins, origin);
    table->count--;
    free(origin->copies);
    free(origin);
}

static struct origin *origin_find(const struct sequence_table *table, uint64_t id)
{
    struct origin *origin = table->last;
    if (origin == NULL || origin->id != id)
        HASH_FIND(hh, table->origins, &id, sizeof(id), origin);
    return origin;
}

static struct origin *longest_silent(const struct sequence_table *table)
{
    struct origin *silent = NULL;
    for (struct origin *origin = table->origins; origin != NULL; origin = origin->hh.next)
        if (silent == NULL || origin->heard_at < silent->heard_at)
            silent = origin;
    return silent;
}

static struct origin *origin_get(struct sequence_table *table, uint64_t id, uint64_t now)
{
    struct origin *origin = origin_find(table, id);
    if (origin == NULL) {
        if (table->count == SEQUENCE_ORIGINS_MAX)
            origin_free(table, longest_silent(table));
        origin = must_calloc(1, sizeof(*origin) +
                                    table->partitions * sizeof(origin->expected[0]));
        origin->id = id;
        HASH_ADD(hh, table->origins, id, sizeof(origin->id), origin);
        table->count++;
    }
    table->last = origin;
    origin->heard_at = now;
    return origin;
}

struct sequence_table *sequence_table_new(unsigned partitions)
{
    check(partitions >= 1 && partitions <= 65536);
    struct sequence_table *table = must_calloc(1, sizeof(*table));
    table->partitions = partitions;
    return table;
}

void sequence_table_free(struct sequence_table *table)
{
    while (table->origins != NULL)
        origin_free(table, table->origins);
    free(table);
}

enum sequence_verdict sequence_check(struct sequence_table *table, uint64_t origin_id,
                                     unsigned partition, uint64_t number, uint64_t now,
                                     uint64_t *expected)
{
    check(partition < table->partitions);
    struct origin *origin = origin_find(table, origin_id);
    *expected = origin != NULL ? origin->expected[partition] : 0;
    if (origin != NULL) {
        origin->heard_at = now;
        table->last = origin;
    }
    if (*expected == 0)
        return SEQUENCE_UNKNOWN;
    if (number < *expected)
        return SEQUENCE_DUPLICATE;
    return number == *expected ? SEQUENCE_NEXT : SEQUENCE_GAP;
}

void sequence_advance(struct sequence_table *table, uint64_t origin_id,
                      unsigned partition, uint64_t number, uint64_t now)
{
    check(partition < table->partitions);
    struct origin *origin = origin_get(table, origin_id, now);
    check(number >= origin->expected[partition]);
    origin->expected[partition] = number + 1;
}

void sequence_set_base(struct sequence_table *table, uint64_t origin_id,
                       unsigned partition, uint64_t expected, uint64_t now)
{
    check(partition < table->partitions);
    struct origin *origin = origin_get(table, origin_id, now);
    if (origin->expected[partition] < expected)
        origin->expected[partition] = expected;
}

uint64_t sequence_expected(const struct sequence_table *table, uint64_t origin_id,
                           unsigned partition)
{
    check(partition < table->partitions);
    const struct origin *origin = origin_find(table, origin_id);
    return origin != NULL ? origin->expected[partition] : 0;
}

void sequence_forget_partition(struct sequence_table *table, unsigned partition,
                               uint64_t kept)
{
    check(partition < table->partitions);
    for (struct origin *origin = table->origins; origin != NULL; origin = origin->hh.next)
        if (origin->id != kept)
            origin->expected[partition] = 0;
}

/* The bucket that holds the place of `id`, or the free one where it belongs. Ids are counted up by an
 * origin, so their low bits spread well by themselves. */
static unsigned copy_bucket(const struct copies *copies, uint64_t id)
{
    unsigned bucket = (unsigned)id & (COPY_BUCKETS - 1);
    while (copies->buckets[bucket] != 0 && copies->ids[copies->buckets[bucket] - 1] != id)
        bucket = (bucket + 1) & (COPY_BUCKETS - 1);
    return bucket;
}

/* Takes the id out of the table and closes the hole behind it (linear probing). */
static void copy_forget(struct copies *copies, uint64_t id)
{
    unsigned hole = copy_bucket(copies, id);
    check(copies->buckets[hole] != 0);
    unsigned next = hole;
    for (;;) {
        next = (next + 1) & (COPY_BUCKETS - 1);
        if (copies->buckets[next] == 0)
            break;
        unsigned home =
            (unsigned)copies->ids[copies->buckets[next] - 1] & (COPY_BUCKETS - 1);
        if (((next - home) & (COPY_BUCKETS - 1)) >=
            ((next - hole) & (COPY_BUCKETS - 1))) {
            copies->buckets[hole] = copies->buckets[next];
            hole = next;
        }
    }
    copies->buckets[hole] = 0;
}

bool sequence_is_first_copy(struct sequence_table *table, uint64_t origin_id,
                            uint64_t message_id, uint64_t now)
{
    struct origin *origin = origin_get(table, origin_id, now);
    if (origin->copies == NULL) {
        origin->copies = must_calloc(1, sizeof(*origin->copies));
        if (origin->rests_since != 0)
            table->resting_bytes += sizeof(*origin->copies);
    }
    struct copies *copies = origin->copies;
    if (copies->buckets[copy_bucket(copies, message_id)] != 0)
        return false;
    if (copies->count == SEQUENCE_COPIES)
        copy_forget(copies, copies->ids[copies->next]);
    else
        copies->count++;
    copies->ids[copies->next] = message_id;
    copies->buckets[copy_bucket(copies, message_id)] = (uint16_t)(copies->next + 1);
    copies->next = (copies->next + 1) % SEQUENCE_COPIES;
    return true;
}

bool sequence_has_copy(const struct sequence_table *table, uint64_t origin_id,
                       uint64_t message_id)
{
    const struct origin *origin = origin_find(table, origin_id);
    return origin != NULL && origin->copies != NULL &&
           origin->copies->buckets[copy_bucket(origin->copies, message_id)] != 0;
}

static struct origin *longest_resting(const struct sequence_table *table)
{
    struct origin *longest = NULL;
    for (struct origin *origin = table->origins; origin != NULL; origin = origin->hh.next)
        if (origin->rests_since != 0 &&
            (longest == NULL || origin->rests_since < longest->rests_since))
            longest = origin;
    return longest;
}

void sequence_rest(struct sequence_table *table, uint64_t origin_id)
{
    struct origin *origin = origin_find(table, origin_id);
    if (origin == NULL || origin->rests_since != 0)
        return;
    origin->rests_since = ++table->rests;
    table->resting_bytes += cost_of(table, origin);
    while (table->resting_bytes > SEQUENCE_RESTING_BYTES)
        origin_free(table, longest_resting(table));
}

bool sequence_wake(struct sequence_table *table, uint64_t origin_id)
{
    struct origin *origin = origin_find(table, origin_id);
    if (origin == NULL)
        return false;
    end_rest(table, origin);
    return true;
}

unsigned sequence_origin_count(const struct sequence_table *table)
{
    return table->count;
}

bool sequence_knows(const struct sequence_table *table, uint64_t origin)
{
    return origin_find(table, origin) != NULL;
}
