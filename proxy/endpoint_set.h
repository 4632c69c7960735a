/*
 * The endpoints of one upstream in one generation: immutable, reference-counted, shared by threads.
 *
 *                        new sessions                       existing sessions
 *     warming    only while no ready one is there           yes
 *     ready      yes                                        yes
 *     degraded   when neither of those is there             yes
 *     draining   when none of those is there                yes
 *     closing    no                                         yes: connect; refused is lost
 *     gone       no (not in the set; its tags stay for 10 minutes as tombstones)  lost
 *
 * The tag table is open addressing, at most half full; a slot leads to an entry or to a tombstone:
 *
 *     slots:  [tag · key · entry 0] [ ] [tag · key · tombstone] [tag · key · entry 2] [ ] …
 *
 * Entries are sorted by identity, then port, so that replicas rank and number them alike. When two tags
 * collide the later one in that order is hashed again with a suffix, on every replica alike.
 * Locally observed health never changes what is in a set; it only steers handshakes.
 */
#pragma once

#include "shared/base.h"
#include "shared/rendezvous.h"
#include "shared/slice.h"
#include "shared/timing.h"

#include "proxy/endpoint.h"
#include "proxy/route_tag.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct endpoint_tls;
struct learned_sids;
struct upstream;

#define ENDPOINT_WEIGHT_MAX     RENDEZVOUS_WEIGHT_MAX
#define ENDPOINT_TOMBSTONE_LIFE SECONDS(600)
#define ENDPOINT_TOMBSTONES_MAX 8192 /* tags kept; the oldest make room */

enum endpoint_state {
    ENDPOINT_WARMING,
    ENDPOINT_READY,
    ENDPOINT_DEGRADED,
    ENDPOINT_DRAINING,
    ENDPOINT_CLOSING,
    ENDPOINT_GONE,
};

/* The state's word in logs, metrics and status. */
const char *endpoint_state_word(enum endpoint_state state);

struct endpoint_entry {
    struct endpoint *endpoint; /* the set holds one reference */
    enum endpoint_state state; /* as discovery says, warming by age excluded */
    unsigned weight;           /* 0..ENDPOINT_WEIGHT_MAX; 0: no new session */
    bool is_ordered;           /* an operator said something of state or weight */
    bool keeps_tunnels;   /* drains or closes, but its tunnels have nowhere to go yet */
    const uint64_t *tags; /* one a key, in the order of set->keys */
};

struct endpoint_set {
    atomic_uint holders;
    struct upstream *upstream;    /* one reference */
    struct learned_sids *learned; /* one reference; the same one in every generation */
    struct file_keys keys;
    uint64_t place_after;
    uint64_t slow_start;
    bool is_static;           /* discovery cannot learn of an endpoint later than we do */
    uint64_t drain_changes;   /* how many endpoints ever began or ended to drain */
    struct endpoint_tls *tls; /* one holder; NULL: plain */
    size_t len;
    struct endpoint_entry *entries;
    struct rendezvous *rendezvous; /* of all entries, by label and port; same places */
    struct endpoint_index *index;  /* tags, tombstones, ingress-nginx keys: in the .c */
};

/* What discovery says of one endpoint. state: any but gone. */
struct endpoint_spec {
    struct endpoint_identity who;
    enum endpoint_state state;
    unsigned weight;
    bool is_ordered;    /* state or weight are an operator's */
    bool keeps_tunnels; /* though it drains or closes */
};

/* What is the same for a whole set. */
struct endpoint_set_options {
    const struct file_keys *keys; /* copied */
    uint64_t place_after;
    uint64_t slow_start;
    bool is_static;
    size_t learned_maximum;             /* of learned_sids_new() */
    struct slice ingress_upstream_name; /* of accept_ingress_nginx_cookie; empty: off */
    /* NULL: route_tag_make(); tests make tags collide with another */
    uint64_t (*make_tag)(const struct file_key *key, struct slice upstream,
                         struct slice identity, unsigned port, unsigned attempt);
};

/* The next set of an upstream. Endpoints whose identity, port and address were in `previous` (NULL for
 * the first) are carried on with their counters; tags of those that went are added to its tombstones,
 * expired ones dropped. Of two specs with equal identity and port the later is ignored. The caller
 * holds the one reference of the result. */
struct endpoint_set *endpoint_set_new(struct upstream *upstream,
                                      const struct endpoint_set_options *options,
                                      const struct endpoint_spec *specs, size_t specs_len,
                                      const struct endpoint_set *previous, uint64_t now);
/* Before it is published: connections to its endpoints are made with `tls` (NULL: plain); one holder more. */
void endpoint_set_secure(struct endpoint_set *set, struct endpoint_tls *tls);

struct endpoint_set *endpoint_set_ref(struct endpoint_set *set);
void endpoint_set_unref(struct endpoint_set *set);

/* What a tag is to this set; TAG_NONE: there is none of ours. */
enum tag_meaning { TAG_KNOWN, TAG_TOMBSTONE, TAG_UNKNOWN, TAG_NONE };

/* Looks a tag up; `key` is the place of its key in set->keys. *entry is set for TAG_KNOWN. */
enum tag_meaning endpoint_set_find_tag(const struct endpoint_set *set, size_t key,
                                       uint64_t tag, uint64_t now,
                                       const struct endpoint_entry **entry);

/* The entry of this very endpoint, or NULL when the set does not have it (gone). */
const struct endpoint_entry *endpoint_set_find(const struct endpoint_set *set,
                                               const struct endpoint *endpoint);

/* The entry that a cookie of ingress-nginx in persistent mode names, "KEY" or "KEY|CHECK", or NULL:
 * KEY is hex MD5(upstream_name ‖ address), CHECK hex MD5(MD5 hex(upstream_name) ‖ upstream_name). */
const struct endpoint_entry *endpoint_set_find_legacy(const struct endpoint_set *set,
                                                      struct slice cookie);

/* The state at this moment: a ready one younger than place_after is warming. */
enum endpoint_state endpoint_entry_state(const struct endpoint_set *set,
                                         const struct endpoint_entry *entry,
                                         uint64_t now);

/* The weight at this moment: rises from a tenth to all of it over slow_start. */
double endpoint_entry_weight(const struct endpoint_set *set,
                             const struct endpoint_entry *entry, uint64_t now);

/* load(e) = endpoint_sessions / weight; infinite for weight 0. */
double endpoint_entry_load(const struct endpoint_set *set,
                           const struct endpoint_entry *entry, uint64_t now);

/* Tombstones that are not expired; tags that had to be hashed again. */
size_t endpoint_set_tombstones(const struct endpoint_set *set, uint64_t now);
size_t endpoint_set_collisions(const struct endpoint_set *set);

/* For tests: aborts unless every invariant holds (sorted, every tag found and of its entry, table at
 * most half full, tombstones not live). */
void endpoint_set_check(const struct endpoint_set *set);
