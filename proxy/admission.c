#include "proxy/admission.h"

#include "shared/timing.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <xxhash.h>

#define STRIPES         64
#define BUCKETS_MINIMUM 16

struct address_count {
    SLIST_ENTRY(address_count) entry;
    uint64_t key[2];
    uint64_t connections;
    uint64_t held; /* bytes of buffers */
};

SLIST_HEAD(bucket, address_count);

/* Its own cache line, so that two threads in two stripes do not meet. */
struct stripe {
    _Alignas(64) pthread_mutex_t mutex;
    struct bucket *buckets; /* NULL until the first entry */
    size_t buckets_len;     /* a power of two, at least as many as there are entries */
    size_t count;
};

struct admission {
    struct stripe stripes[STRIPES];
    _Atomic uint64_t next_handshake; /* timing_now() at which the next one is due */
    uint64_t seed;                   /* so that nobody can choose who shares a bucket */
};

struct admission *admission_new(void)
{
    size_t size = (sizeof(struct admission) + 63) / 64 * 64;
    struct admission *admission = aligned_alloc(64, size);
    check(admission != NULL);
    memset(admission, 0, size);
    for (size_t i = 0; i < STRIPES; i++)
        check(pthread_mutex_init(&admission->stripes[i].mutex, NULL) == 0);
    admission->seed = timing_random();
    return admission;
}

void admission_free(struct admission *admission)
{
    for (size_t i = 0; i < STRIPES; i++) {
        struct stripe *stripe = &admission->stripes[i];
        check(stripe->count == 0);
        free(stripe->buckets);
        pthread_mutex_destroy(&stripe->mutex);
    }
    free(admission);
}

/* What is counted as one: an IPv4 address, an IPv6 /64. */
static void make_key(const struct in6_addr *ip, uint64_t key[2])
{
    memcpy(key, ip, sizeof *ip);
    if (!IN6_IS_ADDR_V4MAPPED(ip))
        key[1] = 0;
}

static struct bucket *bucket_of(const struct stripe *stripe, uint64_t hash)
{
    return &stripe->buckets[hash & (stripe->buckets_len - 1)];
}

static struct address_count *find(const struct stripe *stripe, uint64_t hash,
                                  const uint64_t key[2])
{
    struct address_count *it;
    if (stripe->buckets == NULL)
        return NULL;
    SLIST_FOREACH(it, bucket_of(stripe, hash), entry)
    if (it->key[0] == key[0] && it->key[1] == key[1])
        return it;
    return NULL;
}

static uint64_t hash_of(const struct admission *admission, const uint64_t key[2])
{
    return XXH64(key, 2 * sizeof key[0], admission->seed);
}

static void grow(const struct admission *admission, struct stripe *stripe)
{
    struct bucket *old = stripe->buckets;
    size_t old_len = stripe->buckets_len;
    stripe->buckets_len = old_len == 0 ? BUCKETS_MINIMUM : 2 * old_len;
    stripe->buckets = must_calloc(stripe->buckets_len, sizeof *stripe->buckets);
    for (size_t i = 0; i < old_len; i++) {
        struct address_count *it;
        while ((it = SLIST_FIRST(&old[i])) != NULL) {
            SLIST_REMOVE_HEAD(&old[i], entry);
            uint64_t hash = hash_of(admission, it->key);
            SLIST_INSERT_HEAD(bucket_of(stripe, hash), it, entry);
        }
    }
    free(old);
}

static struct stripe *lock_stripe(struct admission *admission, uint64_t hash)
{
    struct stripe *stripe = &admission->stripes[hash >> 58];
    pthread_mutex_lock(&stripe->mutex);
    return stripe;
}

static struct address_count *add(const struct admission *admission, struct stripe *stripe,
                                 uint64_t hash, const uint64_t key[2])
{
    if (stripe->count == stripe->buckets_len)
        grow(admission, stripe);
    struct address_count *it = must_calloc(1, sizeof *it);
    memcpy(it->key, key, sizeof it->key);
    SLIST_INSERT_HEAD(bucket_of(stripe, hash), it, entry);
    stripe->count++;
    return it;
}

static void remove_unused(struct stripe *stripe, uint64_t hash, struct address_count *it)
{
    if (it->connections > 0 || it->held > 0)
        return;
    SLIST_REMOVE(bucket_of(stripe, hash), it, address_count, entry);
    free(it);
    stripe->count--;
}

bool admission_enter(struct admission *admission, const struct in6_addr *ip,
                     uint64_t maximum)
{
    uint64_t key[2];
    make_key(ip, key);
    uint64_t hash = hash_of(admission, key);
    struct stripe *stripe = lock_stripe(admission, hash);
    struct address_count *it = find(stripe, hash, key);
    bool has_room = it == NULL ? maximum > 0 : it->connections < maximum;
    if (has_room && it == NULL)
        it = add(admission, stripe, hash, key);
    if (has_room)
        it->connections++;
    pthread_mutex_unlock(&stripe->mutex);
    return has_room;
}

void admission_leave(struct admission *admission, const struct in6_addr *ip)
{
    uint64_t key[2];
    make_key(ip, key);
    uint64_t hash = hash_of(admission, key);
    struct stripe *stripe = lock_stripe(admission, hash);
    struct address_count *it = find(stripe, hash, key);
    check(it != NULL && it->connections > 0);
    it->connections--;
    remove_unused(stripe, hash, it);
    pthread_mutex_unlock(&stripe->mutex);
}

uint64_t admission_hold(struct admission *admission, const struct in6_addr *ip,
                        uint64_t from, uint64_t to)
{
    uint64_t key[2], held = 0;
    make_key(ip, key);
    uint64_t hash = hash_of(admission, key);
    struct stripe *stripe = lock_stripe(admission, hash);
    struct address_count *it = find(stripe, hash, key);
    if (it == NULL && to > 0)
        it = add(admission, stripe, hash, key);
    if (it != NULL) {
        check(it->held >= from);
        held = it->held = it->held - from + to;
        remove_unused(stripe, hash, it);
    }
    pthread_mutex_unlock(&stripe->mutex);
    return held;
}

size_t admission_count(struct admission *admission)
{
    size_t count = 0;
    for (size_t i = 0; i < STRIPES; i++) {
        pthread_mutex_lock(&admission->stripes[i].mutex);
        count += admission->stripes[i].count;
        pthread_mutex_unlock(&admission->stripes[i].mutex);
    }
    return count;
}

bool admission_take_handshake(struct admission *admission, uint64_t per_second,
                              uint64_t now)
{
    uint64_t step = SECONDS(1) / per_second;
    uint64_t due = atomic_load_explicit(&admission->next_handshake, memory_order_relaxed);
    for (;;) {
        uint64_t from = due > now ? due : now;
        if (from + step > now + SECONDS(1))
            return false;
        if (atomic_compare_exchange_weak_explicit(&admission->next_handshake, &due,
                                                  from + step, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
}
