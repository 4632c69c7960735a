/*
 * Rendezvous hashing (highest random weight): every name is scored for a key, the best score wins.
 *
 *      seed(name, r) = XXH64(name, seed r)      r = 0 .. weight-1
 *      score         = fmix64(seed ^ key)       fmix64: the finaliser of MurmurHash3
 *      rank of a name: by its best score, ties by the lower name in byte order
 *
 * A pure function of (key, set of names and weights): the order in which names are given does not matter, any
 * two processes agree, and taking a name away moves only the keys that it had. A plain loop (34 us at 10,000
 * names), so nothing has to be built or kept in step. Immutable after rendezvous_new(); any thread.
 */
#pragma once

#include "shared/slice.h"

struct rendezvous;

#define RENDEZVOUS_WEIGHT_MAX 100
#define RENDEZVOUS_NONE       SIZE_MAX

/* Names are copied as hashes only. `weights` NULL: all 1; else each is 1..RENDEZVOUS_WEIGHT_MAX. All answers
 * are indexes into `names`. Names should differ; of equal ones the lower index wins. */
struct rendezvous *rendezvous_new(const struct slice *names, const unsigned *weights,
                                  size_t count);
void rendezvous_free(struct rendezvous *rendezvous);
size_t rendezvous_count(const struct rendezvous *rendezvous);

/* A routing key from bytes: XXH64 with seed 0. Keys that are random bits already are used as they are. */
uint64_t rendezvous_key(struct slice bytes);

/* The best name, RENDEZVOUS_NONE when there is none. */
size_t rendezvous_best(const struct rendezvous *rendezvous, uint64_t key);

/* May this name be used? Called for few of the names (about log2 of their number), in no useful order. */
typedef bool (*rendezvous_accept_cb)(size_t index, void *argument);

/* The best name that is accepted, RENDEZVOUS_NONE when none is: bounded load, states. */
size_t rendezvous_pick(const struct rendezvous *rendezvous, uint64_t key,
                       rendezvous_accept_cb accept, void *argument);

/* The two best that are accepted (`accept` NULL: all), best first; how many there are, 0..2. */
size_t rendezvous_pick_two(const struct rendezvous *rendezvous, uint64_t key,
                           rendezvous_accept_cb accept, void *argument, size_t best[2]);

/* All names, best first, into ranked[rendezvous_count()]. */
void rendezvous_rank(const struct rendezvous *rendezvous, uint64_t key, size_t *ranked);
