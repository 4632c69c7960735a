#include "shared/rendezvous.h"

#include <stdlib.h>
#include <xxhash.h>

/*
 * Seeds stand in the byte order of their names (then of the index given, for equal names), all seeds of one
 * name together; so "ties by the lower name" is "the first seed that reaches the best score wins".
 */
struct rendezvous {
    uint64_t *seeds;
    uint32_t *owners; /* index into the caller's names, of each seed */
    size_t seed_count;
    size_t name_count;
};

struct ordered_name {
    struct slice name;
    size_t index;
};

struct ranked_name {
    uint64_t score;
    size_t index;
    size_t order; /* place by name, for ties */
};

static uint64_t score_of(uint64_t seed, uint64_t key)
{
    uint64_t mixed = seed ^ key;
    mixed = (mixed ^ (mixed >> 33)) * 0xff51afd7ed558ccdU;
    mixed = (mixed ^ (mixed >> 33)) * 0xc4ceb9fe1a85ec53U;
    return mixed ^ (mixed >> 33);
}

static int compare_names(const void *a, const void *b)
{
    const struct ordered_name *one = a, *other = b;
    size_t common = min_size(one->name.len, other->name.len);
    int order = common > 0 ? memcmp(one->name.data, other->name.data, common) : 0;
    if (order != 0)
        return order;
    if (one->name.len != other->name.len)
        return one->name.len < other->name.len ? -1 : 1;
    return one->index < other->index ? -1 : one->index > other->index;
}

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked_name *one = a, *other = b;
    if (one->score != other->score)
        return one->score > other->score ? -1 : 1;
    return one->order < other->order ? -1 : one->order > other->order;
}

struct rendezvous *rendezvous_new(const struct slice *names, const unsigned *weights,
                                  size_t count)
{
    check(count <= UINT32_MAX);
    struct ordered_name *ordered = must_calloc(count, sizeof(*ordered));
    size_t seed_count = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned weight = weights != NULL ? weights[i] : 1;
        check(weight >= 1 && weight <= RENDEZVOUS_WEIGHT_MAX);
        seed_count += weight;
        ordered[i] = (struct ordered_name){names[i], i};
    }
    qsort(ordered, count, sizeof(*ordered), compare_names);

    struct rendezvous *rendezvous = must_calloc(1, sizeof(*rendezvous));
    rendezvous->seeds = must_calloc(seed_count, sizeof(*rendezvous->seeds));
    rendezvous->owners = must_calloc(seed_count, sizeof(*rendezvous->owners));
    rendezvous->name_count = count;
    for (size_t i = 0; i < count; i++) {
        unsigned weight = weights != NULL ? weights[ordered[i].index] : 1;
        for (unsigned r = 0; r < weight; r++) {
            size_t place = rendezvous->seed_count++;
            rendezvous->seeds[place] =
                XXH64(ordered[i].name.data, ordered[i].name.len, r);
            rendezvous->owners[place] = (uint32_t)ordered[i].index;
        }
    }
    free(ordered);
    return rendezvous;
}

void rendezvous_free(struct rendezvous *rendezvous)
{
    if (rendezvous == NULL)
        return;
    free(rendezvous->seeds);
    free(rendezvous->owners);
    free(rendezvous);
}

size_t rendezvous_count(const struct rendezvous *rendezvous)
{
    return rendezvous->name_count;
}

uint64_t rendezvous_key(struct slice bytes)
{
    return XXH64(bytes.data, bytes.len, 0);
}

size_t rendezvous_best(const struct rendezvous *rendezvous, uint64_t key)
{
    size_t best = RENDEZVOUS_NONE;
    uint64_t best_score = 0;
    for (size_t i = 0; i < rendezvous->seed_count; i++) {
        uint64_t score = score_of(rendezvous->seeds[i], key);
        if (score > best_score || best == RENDEZVOUS_NONE) {
            best_score = score;
            best = i;
        }
    }
    return best == RENDEZVOUS_NONE ? best : rendezvous->owners[best];
}

size_t rendezvous_pick(const struct rendezvous *rendezvous, uint64_t key,
                       rendezvous_accept_cb accept, void *argument)
{
    size_t best = RENDEZVOUS_NONE;
    uint64_t best_score = 0;
    for (size_t i = 0; i < rendezvous->seed_count; i++) {
        uint64_t score = score_of(rendezvous->seeds[i], key);
        if (best != RENDEZVOUS_NONE && score <= best_score)
            continue;
        if (rendezvous->owners[i] == best || accept(rendezvous->owners[i], argument)) {
            best_score = score;
            best = rendezvous->owners[i];
        }
    }
    return best;
}

size_t rendezvous_pick_two(const struct rendezvous *rendezvous, uint64_t key,
                           rendezvous_accept_cb accept, void *argument, size_t best[2])
{
    size_t count = 0;
    uint64_t scores[2] = {0, 0};
    for (size_t i = 0; i < rendezvous->seed_count; i++) {
        uint64_t score = score_of(rendezvous->seeds[i], key);
        size_t owner = rendezvous->owners[i];
        if (count == 2 && score <= scores[1])
            continue;
        if (count > 0 && owner == best[0]) { /* another seed of the first */
            scores[0] = score > scores[0] ? score : scores[0];
            continue;
        }
        bool is_second = count == 2 && owner == best[1];
        if (is_second && score <= scores[1])
            continue;
        if (!is_second && accept != NULL && !accept(owner, argument))
            continue;
        if (count == 0 || score > scores[0]) {
            if (count > 0) {
                best[1] = best[0];
                scores[1] = scores[0];
            }
            best[0] = owner;
            scores[0] = score;
            count += count < 2 && !is_second;
        } else {
            best[1] = owner;
            scores[1] = score;
            count = 2;
        }
    }
    return count;
}

void rendezvous_rank(const struct rendezvous *rendezvous, uint64_t key, size_t *ranked)
{
    struct ranked_name *names = must_calloc(rendezvous->name_count, sizeof(*names));
    size_t count = 0;
    for (size_t i = 0; i < rendezvous->seed_count; i++) {
        uint64_t score = score_of(rendezvous->seeds[i], key);
        size_t owner = rendezvous->owners[i];
        if (count > 0 && names[count - 1].index == owner) {
            if (score > names[count - 1].score)
                names[count - 1].score = score;
        } else {
            names[count] = (struct ranked_name){score, owner, count};
            count++;
        }
    }
    check(count == rendezvous->name_count);
    qsort(names, count, sizeof(*names), compare_ranked);
    for (size_t i = 0; i < count; i++)
        ranked[i] = names[i].index;
    free(names);
}
