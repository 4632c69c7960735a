#include "proxy/learned_sids.h"

#include "proxy/endpoint.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <xxhash.h>

#define STRIPES         64
#define BUCKETS_MINIMUM 16

struct learned {
    SLIST_ENTRY(learned) bucket; /* others of the same bucket */
    TAILQ_ENTRY(learned) age;    /* fresh at the head, stale at the tail */
    struct endpoint *endpoint;   /* one reference */
    uint64_t expires;
    uint64_t lifetime;
    uint32_t hash;
    uint16_t len;
    char sid[];
};

SLIST_HEAD(bucket, learned);
TAILQ_HEAD(ages, learned);

/* Its own cache line, so that two threads in two stripes do not meet. */
struct stripe {
    _Alignas(64) pthread_mutex_t mutex;
    struct ages ages;
    struct bucket *buckets; /* NULL until the first entry */
    size_t buckets_len;     /* a power of two, at least as many as there are entries */
    size_t count;
};

struct learned_sids {
    struct stripe stripes[STRIPES];
    _Atomic size_t stripe_maximum;
    atomic_uint holders;
};

struct learned_sids *learned_sids_new(size_t maximum)
{
    size_t size = (sizeof(struct learned_sids) + 63) / 64 * 64;
    struct learned_sids *table = aligned_alloc(64, size);
    check(table != NULL);
    for (size_t i = 0; i < STRIPES; i++) {
        struct stripe *stripe = &table->stripes[i];
        check(pthread_mutex_init(&stripe->mutex, NULL) == 0);
        TAILQ_INIT(&stripe->ages);
        stripe->buckets = NULL;
        stripe->buckets_len = 0;
        stripe->count = 0;
    }
    atomic_init(&table->holders, 1);
    atomic_init(&table->stripe_maximum, 0);
    learned_sids_set_maximum(table, maximum);
    return table;
}

void learned_sids_set_maximum(struct learned_sids *table, size_t maximum)
{
    /* each stripe needs room for one, or some sids could never be learned */
    size_t part = maximum / STRIPES;
    atomic_store_explicit(&table->stripe_maximum, part == 0 && maximum > 0 ? 1 : part,
                          memory_order_relaxed);
}

static struct stripe *lock_stripe(struct learned_sids *table, uint64_t hash)
{
    struct stripe *stripe = &table->stripes[hash >> 58];
    pthread_mutex_lock(&stripe->mutex);
    return stripe;
}

static struct bucket *bucket_of(const struct stripe *stripe, uint32_t hash)
{
    return &stripe->buckets[hash & (stripe->buckets_len - 1)];
}

static void grow(struct stripe *stripe)
{
    size_t len = stripe->buckets_len == 0 ? BUCKETS_MINIMUM : stripe->buckets_len * 2;
    free(stripe->buckets);
    stripe->buckets = must_calloc(len, sizeof(struct bucket));
    stripe->buckets_len = len;
    struct learned *learned;
    TAILQ_FOREACH(learned, &stripe->ages, age)
    SLIST_INSERT_HEAD(bucket_of(stripe, learned->hash), learned, bucket);
}

static struct learned *find(const struct stripe *stripe, uint32_t hash, struct slice sid)
{
    if (stripe->buckets_len == 0)
        return NULL;
    struct learned *learned;
    SLIST_FOREACH(learned, bucket_of(stripe, hash), bucket)
    if (learned->hash == hash && learned->len == sid.len &&
        memcmp(learned->sid, sid.data, sid.len) == 0)
        return learned;
    return NULL;
}

static void drop(struct stripe *stripe, struct learned *learned)
{
    SLIST_REMOVE(bucket_of(stripe, learned->hash), learned, learned, bucket);
    TAILQ_REMOVE(&stripe->ages, learned, age);
    stripe->count--;
    endpoint_unref(learned->endpoint);
    free(learned);
}

/* Expired ones at the stale end, and whatever is above the bound. */
static void make_room(struct stripe *stripe, size_t bound, uint64_t now)
{
    struct learned *stale;
    while ((stale = TAILQ_LAST(&stripe->ages, ages)) != NULL &&
           (stripe->count > bound || stale->expires <= now))
        drop(stripe, stale);
}

struct learned_sids *learned_sids_ref(struct learned_sids *table)
{
    atomic_fetch_add_explicit(&table->holders, 1, memory_order_relaxed);
    return table;
}

void learned_sids_unref(struct learned_sids *table)
{
    if (atomic_fetch_sub_explicit(&table->holders, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < STRIPES; i++) {
        struct stripe *stripe = &table->stripes[i];
        make_room(stripe, 0, 0);
        free(stripe->buckets);
        pthread_mutex_destroy(&stripe->mutex);
    }
    free(table);
}

void learned_sids_add(struct learned_sids *table, struct slice sid,
                      struct endpoint *endpoint, uint64_t lifetime, uint64_t now)
{
    size_t bound = atomic_load_explicit(&table->stripe_maximum, memory_order_relaxed);
    if (bound == 0 || sid.len == 0 || sid.len > LEARNED_SID_LEN_MAX)
        return;
    uint64_t hash = XXH64(sid.data, sid.len, 0);
    struct learned *learned = must_calloc(1, sizeof(*learned) + sid.len);
    learned->endpoint = endpoint_ref(endpoint);
    learned->lifetime = lifetime;
    learned->expires = now + lifetime;
    learned->hash = (uint32_t)hash;
    learned->len = (uint16_t)sid.len;
    memcpy(learned->sid, sid.data, sid.len);

    struct stripe *stripe = lock_stripe(table, hash);
    struct learned *known = find(stripe, learned->hash, sid);
    if (known != NULL)
        drop(stripe, known);
    make_room(stripe, bound - 1, now);
    if (stripe->count >= stripe->buckets_len)
        grow(stripe);
    SLIST_INSERT_HEAD(bucket_of(stripe, learned->hash), learned, bucket);
    TAILQ_INSERT_HEAD(&stripe->ages, learned, age);
    stripe->count++;
    pthread_mutex_unlock(&stripe->mutex);
}

struct endpoint *learned_sids_find(struct learned_sids *table, struct slice sid,
                                   uint64_t now)
{
    if (sid.len == 0 || sid.len > LEARNED_SID_LEN_MAX)
        return NULL;
    uint64_t hash = XXH64(sid.data, sid.len, 0);
    struct endpoint *endpoint = NULL;
    struct stripe *stripe = lock_stripe(table, hash);
    struct learned *learned = find(stripe, (uint32_t)hash, sid);
    if (learned != NULL && learned->expires <= now) {
        drop(stripe, learned);
    } else if (learned != NULL) {
        learned->expires = now + learned->lifetime;
        TAILQ_REMOVE(&stripe->ages, learned, age);
        TAILQ_INSERT_HEAD(&stripe->ages, learned, age);
        endpoint = endpoint_ref(learned->endpoint);
    }
    pthread_mutex_unlock(&stripe->mutex);
    return endpoint;
}

size_t learned_sids_count(struct learned_sids *table)
{
    size_t count = 0;
    for (size_t i = 0; i < STRIPES; i++) {
        pthread_mutex_lock(&table->stripes[i].mutex);
        count += table->stripes[i].count;
        pthread_mutex_unlock(&table->stripes[i].mutex);
    }
    return count;
}

size_t learned_sids_entry_cost(void)
{
    /* at worst two buckets an entry, and glibc's header with the rounding of its sizes */
    return sizeof(struct learned) + 2 * sizeof(struct bucket) + 16;
}
