/*
 * Who wants what.
 *
 *     subscriber ──▶ interest ◀── target          interest: one (client, channel or pattern) pair
 *      (a client)      │ │ │      (a channel       target:   a channel or pattern somebody wants
 *         └ of it ─────┘ │ └──────  or pattern)
 *                        └ table by pair
 *
 * A target exists while it has an interest. An interest is *whole*, it wants every message of its target, unless it is
 * made *partial*: then its pod's rooms say what it wants (pod_rooms.h). A target's first and last whole interest are
 * told to the owner, who subscribes the shards accordingly. A new interest can be *silent*: it counts as wanted but
 * receives nothing until it is activated, which is how a SUBSCRIBE waits until the shards have confirmed.
 *
 * The table knows subscribers only as the struct below, which a client embeds.
 */
#pragma once

#include "shared/slice.h"

#include <sys/queue.h>

enum interest_kind { INTEREST_CHANNEL, INTEREST_PATTERN };
#define INTEREST_KINDS 2

struct interest;
LIST_HEAD(interest_list, interest);
TAILQ_HEAD(interest_queue, interest);

/* Embedded in a client; set up by subscriber_init. */
struct subscriber {
    struct interest_queue interests[INTEREST_KINDS]; /* in the order they were added */
    unsigned counts[INTEREST_KINDS];                 /* active ones only */
    unsigned total;                                  /* silent and parked ones too */
};

/* A channel or pattern that at least one subscriber wants. Borrowed from the table. */
struct interest_target {
    enum interest_kind kind;
    struct slice name;
    struct interest_list interests;
    unsigned count;  /* interests, silent ones too */
    unsigned active; /* those that receive */
    unsigned whole;  /* those that want everything, silent and parked ones too */
    uint64_t mark;   /* of interest_covers() */
    struct interest_table *table;
    bool is_changed; /* since interest_take_change() */
    bool is_taken;   /* by it, once at least */
    TAILQ_ENTRY(interest_target) of_changed;
    TAILQ_ENTRY(interest_target) of_kind;
    struct interest_target *next_in_bucket;
    uint64_t hash;
};

struct interest {
    struct subscriber *subscriber;
    struct interest_target *target;
    bool active;
    bool is_whole;
    bool is_parked; /* not counted, but its messages are kept for who returns */
    LIST_ENTRY(interest) of_target;
    TAILQ_ENTRY(interest) of_subscriber;
    struct interest *next_in_bucket;
    uint64_t hash;
};

struct interest_table;

struct interest_callbacks {
    /* The target got its first whole interest, or lost its last. It is valid during the call. */
    void (*on_first)(void *context, struct interest_target *target);
    void (*on_last)(void *context, struct interest_target *target);
    void *context;
};

struct interest_table *interest_table_new(const struct interest_callbacks *callbacks);

/* A channel whose number of active interests has changed since it was taken last: each once, however often it changed, with
 * its number now. The name lives until the next call. False: there is none. */
bool interest_take_change(struct interest_table *table, struct slice *name,
                          unsigned *active) MUST_CHECK;
bool interest_has_change(const struct interest_table *table);

/* The channels in turn, for whoever looks at a few at a time: the next one, from the first on when *begins, or NULL behind the
 * last. One walk a table. */
const struct interest_target *interest_walk_next(struct interest_table *table,
                                                 bool begins);

/* No subscriber may have an interest any more. */
void interest_table_free(struct interest_table *table);

void subscriber_init(struct subscriber *subscriber);

/* The interest of this pair, made silent and whole if there was none. `*added` says which. The name is copied. */
struct interest *interest_add(struct interest_table *table, struct subscriber *subscriber,
                              enum interest_kind kind, struct slice name, bool *added);

/* The same, made partial if there was none. */
struct interest *interest_add_partial(struct interest_table *table,
                                      struct subscriber *subscriber,
                                      enum interest_kind kind, struct slice name);

/* From now on it wants everything, or what its pod's rooms say. */
void interest_set_whole(struct interest_table *table, struct interest *interest,
                        bool is_whole);

/* The subscriber's active interests count no longer, but are parked. */
void interest_park_all(struct subscriber *subscriber);

/* From now on the subscriber receives what the target matches. No effect on an active one. */
void interest_activate(struct interest *interest);

/* False when there was no such interest. */
bool interest_remove(struct interest_table *table, struct subscriber *subscriber,
                     enum interest_kind kind, struct slice name);

/* Everything of this subscriber, at its end. */
void interest_remove_all(struct interest_table *table, struct subscriber *subscriber);

struct interest *interest_find(const struct interest_table *table,
                               const struct subscriber *subscriber,
                               enum interest_kind kind, struct slice name);

/* Has `one` an interest in everything that `other` has one in? In time linear in both. */
bool interest_covers(const struct subscriber *one, const struct subscriber *other);

/* NULL when nobody wants exactly this channel or pattern. */
struct interest_target *interest_target_find(const struct interest_table *table,
                                             enum interest_kind kind, struct slice name);

/* The first target of a kind, oldest first; the rest follow by TAILQ_NEXT(target, of_kind). */
struct interest_target *interest_first(const struct interest_table *table,
                                       enum interest_kind kind);

unsigned interest_target_count(const struct interest_table *table,
                               enum interest_kind kind);

/* How many receive a message on this channel, each pattern counted by itself (as Redis answers). */
unsigned interest_receivers(const struct interest_table *table, struct slice channel);

/* Longer patterns and names are not accepted, since this bounds the time of interest_pattern_matches(). */
#define INTEREST_PATTERN_MAX 1024
#define INTEREST_NAME_MAX    4096

/* Redis's glob: * ? [abc] [^a] [a-z] and \x. Time is bounded by pattern length times name length. */
bool interest_pattern_matches(struct slice pattern, struct slice name);

/* Aborts when the two directions and the counts do not agree. For tests. */
void interest_table_check(const struct interest_table *table);
