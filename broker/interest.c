/*
 * See interest.h. Two hash tables with chaining: targets by (kind, name), interests by (subscriber,
 * target). Both grow by doubling; a removal is O(1) but for the chain.
 */
#include "broker/interest.h"

#include "shared/timing.h"

#include <stdlib.h>
#include <xxhash.h>

#define FIRST_BUCKETS 64

TAILQ_HEAD(target_queue, interest_target);

struct interest_table {
    struct interest_callbacks callbacks;
    uint64_t seed;
    struct target_queue targets[INTEREST_KINDS];
    unsigned target_counts[INTEREST_KINDS];
    struct interest_target **target_buckets;
    size_t target_bucket_count; /* a power of two */
    struct interest **interest_buckets;
    size_t interest_bucket_count; /* a power of two */
    size_t interest_count;
    struct target_queue changed; /* channels: interest_take_change() */
    TAILQ_HEAD(, ended) ended;   /* channels that were taken once, and have ended */
    char *taken_name;
    struct interest_target *walked; /* the next of interest_walk_next(); NULL: the end */
};

/* The name of a channel without interests. */
struct ended {
    TAILQ_ENTRY(ended) of_table;
    size_t len;
    char name[];
};

/* Names come from clients: without the seed they could choose ones that share a bucket. */
static uint64_t name_hash(const struct interest_table *table, enum interest_kind kind,
                          struct slice name)
{
    return XXH3_64bits_withSeed(name.data, name.len, table->seed + (uint64_t)kind);
}

static uint64_t pair_hash(const struct subscriber *subscriber,
                          const struct interest_target *target)
{
    const void *pair[2] = {subscriber, target};
    return XXH3_64bits(pair, sizeof(pair));
}

static void grow_targets(struct interest_table *table)
{
    size_t count = table->target_bucket_count * 2;
    struct interest_target **buckets =
        must_calloc(count, sizeof(struct interest_target *));
    for (int kind = 0; kind < INTEREST_KINDS; kind++) {
        struct interest_target *target;
        TAILQ_FOREACH(target, &table->targets[kind], of_kind)
        {
            struct interest_target **bucket = &buckets[target->hash & (count - 1)];
            target->next_in_bucket = *bucket;
            *bucket = target;
        }
    }
    free(table->target_buckets);
    table->target_buckets = buckets;
    table->target_bucket_count = count;
}

static void grow_interests(struct interest_table *table)
{
    size_t count = table->interest_bucket_count * 2;
    struct interest **buckets = must_calloc(count, sizeof(struct interest *));
    for (size_t i = 0; i < table->interest_bucket_count; i++) {
        struct interest *next;
        for (struct interest *it = table->interest_buckets[i]; it != NULL; it = next) {
            next = it->next_in_bucket;
            struct interest **bucket = &buckets[it->hash & (count - 1)];
            it->next_in_bucket = *bucket;
            *bucket = it;
        }
    }
    free(table->interest_buckets);
    table->interest_buckets = buckets;
    table->interest_bucket_count = count;
}

static struct interest_target *target_new(struct interest_table *table,
                                          enum interest_kind kind, struct slice name,
                                          uint64_t hash)
{
    size_t count = (size_t)table->target_counts[0] + table->target_counts[1];
    if (count >= table->target_bucket_count)
        grow_targets(table);
    struct interest_target *target = must_calloc(1, sizeof(*target));
    target->kind = kind;
    target->name = slice_of(slice_dup(name), name.len);
    target->hash = hash;
    LIST_INIT(&target->interests);
    target->table = table;
    struct interest_target **bucket =
        &table->target_buckets[hash & (table->target_bucket_count - 1)];
    target->next_in_bucket = *bucket;
    *bucket = target;
    TAILQ_INSERT_TAIL(&table->targets[kind], target, of_kind);
    table->target_counts[kind]++;
    return target;
}

static void note_change(struct interest_target *target)
{
    if (target->is_changed || target->kind != INTEREST_CHANNEL)
        return;
    target->is_changed = true;
    TAILQ_INSERT_TAIL(&target->table->changed, target, of_changed);
}

/* It ends: whoever takes changes hears of it. */
static void note_end(struct interest_table *table, struct interest_target *target)
{
    if (table->walked == target)
        table->walked = TAILQ_NEXT(target, of_kind);
    if (target->is_changed)
        TAILQ_REMOVE(&table->changed, target, of_changed);
    if (!target->is_taken)
        return;
    struct ended *ended = must_calloc(1, sizeof(*ended) + target->name.len);
    ended->len = target->name.len;
    memcpy(ended->name, target->name.data, target->name.len);
    TAILQ_INSERT_TAIL(&table->ended, ended, of_table);
}

bool interest_has_change(const struct interest_table *table)
{
    return !TAILQ_EMPTY(&table->ended) || !TAILQ_EMPTY(&table->changed);
}

bool interest_take_change(struct interest_table *table, struct slice *name,
                          unsigned *active)
{
    free(table->taken_name);
    table->taken_name = NULL;
    struct ended *ended = TAILQ_FIRST(&table->ended);
    if (ended != NULL) {
        TAILQ_REMOVE(&table->ended, ended, of_table);
        table->taken_name = slice_dup(slice_of(ended->name, ended->len));
        *name = slice_of(table->taken_name, ended->len);
        *active = 0;
        free(ended);
        return true;
    }
    struct interest_target *target = TAILQ_FIRST(&table->changed);
    if (target == NULL)
        return false;
    TAILQ_REMOVE(&table->changed, target, of_changed);
    target->is_changed = false;
    target->is_taken = true;
    *name = target->name;
    *active = target->active;
    return true;
}

const struct interest_target *interest_walk_next(struct interest_table *table,
                                                 bool begins)
{
    if (begins)
        table->walked = TAILQ_FIRST(&table->targets[INTEREST_CHANNEL]);
    struct interest_target *target = table->walked;
    if (target != NULL)
        table->walked = TAILQ_NEXT(target, of_kind);
    return target;
}

static void target_free(struct interest_table *table, struct interest_target *target)
{
    note_end(table, target);
    struct interest_target **place =
        &table->target_buckets[target->hash & (table->target_bucket_count - 1)];
    while (*place != target)
        place = &(*place)->next_in_bucket;
    *place = target->next_in_bucket;
    TAILQ_REMOVE(&table->targets[target->kind], target, of_kind);
    table->target_counts[target->kind]--;
    union {
        const char *borrowed;
        char *owned;
    } name = {target->name.data};
    free(name.owned);
    free(target);
}

static struct interest *find_pair(const struct interest_table *table,
                                  const struct subscriber *subscriber,
                                  const struct interest_target *target)
{
    size_t index = pair_hash(subscriber, target) & (table->interest_bucket_count - 1);
    for (struct interest *it = table->interest_buckets[index]; it != NULL;
         it = it->next_in_bucket)
        if (it->subscriber == subscriber && it->target == target)
            return it;
    return NULL;
}

static void remove_interest(struct interest_table *table, struct interest *interest)
{
    struct interest_target *target = interest->target;
    struct subscriber *subscriber = interest->subscriber;
    struct interest **place =
        &table->interest_buckets[interest->hash & (table->interest_bucket_count - 1)];
    while (*place != interest)
        place = &(*place)->next_in_bucket;
    *place = interest->next_in_bucket;
    table->interest_count--;
    LIST_REMOVE(interest, of_target);
    TAILQ_REMOVE(&subscriber->interests[target->kind], interest, of_subscriber);
    interest_set_whole(table, interest, false);
    target->count--;
    subscriber->total--;
    if (interest->active) {
        target->active--;
        note_change(target);
        subscriber->counts[target->kind]--;
    }
    free(interest);
    if (target->count == 0)
        target_free(table, target);
}

struct interest_table *interest_table_new(const struct interest_callbacks *callbacks)
{
    struct interest_table *table = must_calloc(1, sizeof(*table));
    table->callbacks = *callbacks;
    table->seed = timing_random();
    for (int kind = 0; kind < INTEREST_KINDS; kind++)
        TAILQ_INIT(&table->targets[kind]);
    TAILQ_INIT(&table->changed);
    TAILQ_INIT(&table->ended);
    table->target_bucket_count = table->interest_bucket_count = FIRST_BUCKETS;
    table->target_buckets = must_calloc(FIRST_BUCKETS, sizeof(struct interest_target *));
    table->interest_buckets = must_calloc(FIRST_BUCKETS, sizeof(struct interest *));
    return table;
}

void interest_table_free(struct interest_table *table)
{
    struct ended *ended;
    while ((ended = TAILQ_FIRST(&table->ended)) != NULL) {
        TAILQ_REMOVE(&table->ended, ended, of_table);
        free(ended);
    }
    free(table->taken_name);
    check(table->interest_count == 0);
    free(table->target_buckets);
    free(table->interest_buckets);
    free(table);
}

void subscriber_init(struct subscriber *subscriber)
{
    for (int kind = 0; kind < INTEREST_KINDS; kind++) {
        TAILQ_INIT(&subscriber->interests[kind]);
        subscriber->counts[kind] = 0;
    }
    subscriber->total = 0;
}

void interest_set_whole(struct interest_table *table, struct interest *interest,
                        bool is_whole)
{
    struct interest_target *target = interest->target;
    if (interest->is_whole == is_whole)
        return;
    interest->is_whole = is_whole;
    if (is_whole && ++target->whole == 1 && table->callbacks.on_first != NULL)
        table->callbacks.on_first(table->callbacks.context, target);
    if (!is_whole && --target->whole == 0 && table->callbacks.on_last != NULL)
        table->callbacks.on_last(table->callbacks.context, target);
}

static struct interest *add(struct interest_table *table, struct subscriber *subscriber,
                            enum interest_kind kind, struct slice name, bool *added)
{
    struct interest_target *target = interest_target_find(table, kind, name);
    if (target == NULL)
        target = target_new(table, kind, name, name_hash(table, kind, name));
    struct interest *interest = find_pair(table, subscriber, target);
    *added = interest == NULL;
    if (interest != NULL)
        return interest;
    if (table->interest_count >= table->interest_bucket_count)
        grow_interests(table);
    interest = must_calloc(1, sizeof(*interest));
    interest->subscriber = subscriber;
    interest->target = target;
    interest->hash = pair_hash(subscriber, target);
    struct interest **bucket =
        &table->interest_buckets[interest->hash & (table->interest_bucket_count - 1)];
    interest->next_in_bucket = *bucket;
    *bucket = interest;
    table->interest_count++;
    LIST_INSERT_HEAD(&target->interests, interest, of_target);
    TAILQ_INSERT_TAIL(&subscriber->interests[kind], interest, of_subscriber);
    target->count++;
    subscriber->total++;
    return interest;
}

struct interest *interest_add(struct interest_table *table, struct subscriber *subscriber,
                              enum interest_kind kind, struct slice name, bool *added)
{
    struct interest *interest = add(table, subscriber, kind, name, added);
    if (*added)
        interest_set_whole(table, interest, true);
    return interest;
}

struct interest *interest_add_partial(struct interest_table *table,
                                      struct subscriber *subscriber,
                                      enum interest_kind kind, struct slice name)
{
    bool added;
    return add(table, subscriber, kind, name, &added);
}

void interest_park_all(struct subscriber *subscriber)
{
    for (int kind = 0; kind < INTEREST_KINDS; kind++) {
        struct interest *interest;
        TAILQ_FOREACH(interest, &subscriber->interests[kind], of_subscriber)
        {
            if (!interest->active)
                continue;
            interest->active = false;
            interest->is_parked = true;
            interest->target->active--;
            note_change(interest->target);
            subscriber->counts[kind]--;
        }
    }
}

void interest_activate(struct interest *interest)
{
    if (interest->active)
        return;
    interest->active = true;
    interest->target->active++;
    note_change(interest->target);
    interest->subscriber->counts[interest->target->kind]++;
}

bool interest_remove(struct interest_table *table, struct subscriber *subscriber,
                     enum interest_kind kind, struct slice name)
{
    struct interest *interest = interest_find(table, subscriber, kind, name);
    if (interest == NULL)
        return false;
    remove_interest(table, interest);
    return true;
}

void interest_remove_all(struct interest_table *table, struct subscriber *subscriber)
{
    for (int kind = 0; kind < INTEREST_KINDS; kind++) {
        struct interest *interest;
        while ((interest = TAILQ_FIRST(&subscriber->interests[kind])) != NULL)
            remove_interest(table, interest);
    }
}

struct interest *interest_find(const struct interest_table *table,
                               const struct subscriber *subscriber,
                               enum interest_kind kind, struct slice name)
{
    struct interest_target *target = interest_target_find(table, kind, name);
    return target != NULL ? find_pair(table, subscriber, target) : NULL;
}

bool interest_covers(const struct subscriber *one, const struct subscriber *other)
{
    static uint64_t mark;
    mark++;
    const struct interest *interest;
    for (int kind = 0; kind < INTEREST_KINDS; kind++)
        TAILQ_FOREACH(interest, &one->interests[kind], of_subscriber)
    interest->target->mark = mark;
    for (int kind = 0; kind < INTEREST_KINDS; kind++)
        TAILQ_FOREACH(interest, &other->interests[kind], of_subscriber)
    if (interest->target->mark != mark)
        return false;
    return true;
}

struct interest_target *interest_target_find(const struct interest_table *table,
                                             enum interest_kind kind, struct slice name)
{
    size_t index = name_hash(table, kind, name) & (table->target_bucket_count - 1);
    for (struct interest_target *it = table->target_buckets[index]; it != NULL;
         it = it->next_in_bucket)
        if (it->kind == kind && slice_equals(it->name, name))
            return it;
    return NULL;
}

struct interest_target *interest_first(const struct interest_table *table,
                                       enum interest_kind kind)
{
    return TAILQ_FIRST(&table->targets[kind]);
}

unsigned interest_target_count(const struct interest_table *table,
                               enum interest_kind kind)
{
    return table->target_counts[kind];
}

unsigned interest_receivers(const struct interest_table *table, struct slice channel)
{
    const struct interest_target *target =
        interest_target_find(table, INTEREST_CHANNEL, channel);
    unsigned receivers = target != NULL ? target->active : 0;
    TAILQ_FOREACH(target, &table->targets[INTEREST_PATTERN], of_kind)
    if (interest_pattern_matches(target->name, channel))
        receivers += target->active;
    return receivers;
}

/* "[...]" at the pattern's start: whether `byte` is in it; *len is its length. As Redis, an
 * unfinished class ends with the pattern. */
static bool class_matches(struct slice pattern, unsigned char byte, size_t *len)
{
    size_t i = 1;
    bool negated = i < pattern.len && pattern.data[i] == '^';
    if (negated)
        i++;
    bool matches = false;
    while (i < pattern.len && pattern.data[i] != ']') {
        if (pattern.data[i] == '\\' && i + 1 < pattern.len)
            i++;
        unsigned char low = (unsigned char)pattern.data[i];
        unsigned char high = low;
        if (i + 2 < pattern.len && pattern.data[i + 1] == '-') {
            high = (unsigned char)pattern.data[i + 2];
            i += 2;
        }
        if (low > high) {
            unsigned char swap = low;
            low = high;
            high = swap;
        }
        matches |= byte >= low && byte <= high;
        i++;
    }
    *len = i < pattern.len ? i + 1 : pattern.len;
    return matches != negated;
}

/* One element of the pattern (not '*') against one byte; *len is the element's length. */
static bool element_matches(struct slice pattern, unsigned char byte, size_t *len)
{
    *len = 1;
    switch (pattern.data[0]) {
    case '?':
        return true;
    case '[':
        return class_matches(pattern, byte, len);
    case '\\':
        if (pattern.len > 1) {
            *len = 2;
            return (unsigned char)pattern.data[1] == byte;
        }
        return byte == '\\';
    default:
        return (unsigned char)pattern.data[0] == byte;
    }
}

bool interest_pattern_matches(struct slice pattern, struct slice name)
{
    /* Not recursive: only the last '*' is ever tried again, one byte further each time. */
    struct slice retry_pattern = slice_of(NULL, 0);
    struct slice retry_name = slice_of(NULL, 0);
    for (;;) {
        size_t len = 0;
        if (pattern.len > 0 && pattern.data[0] == '*') {
            pattern = slice_from(pattern, 1);
            retry_pattern = pattern;
            retry_name = name;
            if (pattern.len == 0)
                return true;
        } else if (name.len == 0 && pattern.len == 0) {
            return true;
        } else if (name.len > 0 && pattern.len > 0 &&
                   element_matches(pattern, (unsigned char)name.data[0], &len)) {
            pattern = slice_from(pattern, len);
            name = slice_from(name, 1);
        } else if (retry_pattern.data != NULL && retry_name.len > 0) {
            retry_name = slice_from(retry_name, 1);
            pattern = retry_pattern;
            name = retry_name;
        } else {
            return false;
        }
    }
}

void interest_table_check(const struct interest_table *table)
{
    size_t total = 0;
    for (int kind = 0; kind < INTEREST_KINDS; kind++) {
        unsigned targets = 0;
        struct interest_target *target;
        TAILQ_FOREACH(target, &table->targets[kind], of_kind)
        {
            unsigned count = 0;
            unsigned active = 0;
            unsigned whole = 0;
            struct interest *interest;
            LIST_FOREACH(interest, &target->interests, of_target)
            {
                check(interest->target == target);
                check(find_pair(table, interest->subscriber, target) == interest);
                count++;
                active += interest->active;
                whole += interest->is_whole;
            }
            check(count > 0 && count == target->count && active == target->active &&
                  whole == target->whole);
            check(interest_target_find(table, target->kind, target->name) == target);
            total += count;
            targets++;
        }
        check(targets == table->target_counts[kind]);
    }
    check(total == table->interest_count);
}
