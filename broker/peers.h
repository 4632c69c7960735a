/*
 * The other brokers, as far as their heartbeats show.
 *
 *     heartbeat ─ newer than the newest? ─▶ facts ─▶ LIVE: READY and heard within 5 s
 *                     └ no: ignored                    │ silent for 70 s
 *                                                      ▼
 *                                                    tomb: only what comes next of it is taken, until a heartbeat
 *                                                          with a higher number comes
 *
 * Times are of standing_now(), but `ready_at`: an age counts also while this broker was stopped.
 */
#pragma once

#include "broker/control.h"
#include "broker/number_track.h"
#include "broker/partition_map.h"
#include "shared/timing.h"

#include <sys/queue.h>

#define PEER_LIVE   SECONDS(5)
#define PEER_SILENT MILLISECONDS(2500)
#define PEER_KEEP   SECONDS(70)
/* Facts that were sent further apart than this may leave out what was sent between them: tails reach back 3.2 s. */
#define PEER_TAILS_JOIN_MS 2500
#define PEERS_MAX          1024
#define PEERS_TOMBS_MAX    1024
#define PEER_SHARDS_MAX    1024
#define PEER_CARRIES_MAX   255

struct peer {
    uint64_t origin;
    uint64_t number; /* of its newest heartbeat; 0: none yet, only messages */
    struct number_track track;
    uint64_t heard_at; /* its newest heartbeat */
    bool is_ready;
    bool has_managers;
    bool has_ready_at;
    uint64_t
        ready_at; /* timing_now() when it became READY, or was first heard before that */
    bool
        is_known; /* it is not new, or may not be: its age does not say where its messages begin */
    uint64_t used, loaded;
    unsigned carries_count;
    uint64_t carries[PEER_CARRIES_MAX];
    bool moves; /* its newest map is not in use yet */
    bool has_outline;
    struct map_outline outline; /* of the map that it uses */
    uint64_t
        named_map; /* this map of it was said to differ; 0: none. Kept by who says so */
    /* By index of this broker's shards: it is subscribed there; at the shard that it calls so, wherever that is; its
     * heartbeats were heard there since heard_since, and in the time before. */
    uint8_t subscribed[PEER_SHARDS_MAX / 8];
    uint8_t named[PEER_SHARDS_MAX / 8];
    uint8_t heard[2][PEER_SHARDS_MAX / 8];
    uint64_t heard_since; /* standing_now() */
    uint64_t answered_at; /* a message of it that was missing came */
    uint64_t back_at;     /* it was heard again after it was silent */
    uint64_t age;         /* of its newest facts as READY, milliseconds */
    bool
        lacks_tails; /* its newest facts came too long after those before them; whoever asks for its positions clears it */
    bool is_back;    /* it was buried; whoever wakes what is known of it clears it */
    /* Its positions: the question that waits for an answer (0: none), which answer it is known by, when it was asked,
     * whether another is due soon, the newest question that was answered, and the map that the answer said is used. */
    uint64_t question, token, asked_at;
    bool asks_again;
    uint64_t answered_question;
    uint64_t answered_map;
    TAILQ_ENTRY(peer) of_table;
};

enum peer_news {
    PEER_REFUSED, /* its number leaps, or there is no room for it: nothing was changed */
    PEER_OLD,     /* a copy, or late: nothing was changed */
    PEER_KNOWN,   /* its facts are taken */
    PEER_NEW,     /* and it is heard for the first time */
    PEER_NOW_READY, /* and it is heard READY for the first time: ready_at is set */
};

struct peer_table;

/* The shards of this broker, one after the other; false: there are no more. */
struct peer_shard {
    size_t index;
    struct slice name;
    uint64_t place; /* shard_url_place() */
};
typedef bool (*peer_shard_cb)(void *context, size_t turn, struct peer_shard *shard);

struct peer_table *peer_table_new(peer_shard_cb next_shard, void *context);

/* Told before a peer gives way to another in a full table: whatever is kept of the origin is to be forgotten. The
 * callback must not change the table. */
void peer_table_on_displaced(struct peer_table *table,
                             void (*on_displaced)(void *context, uint64_t origin),
                             void *context);
void peer_table_free(struct peer_table *table);

/* Takes a HEARTBEAT's or POSITIONS' facts. `*peer` is set but for PEER_OLD of a tomb and PEER_REFUSED (NULL). */
enum peer_news peer_hear(struct peer_table *table, const struct control *control,
                         uint64_t standing, uint64_t now, struct peer **peer);

/* NULL: not known. */
struct peer *peer_find(const struct peer_table *table, uint64_t origin);

/* Finds, or makes one that only messages were heard of. NULL: a tomb, or no room: a full table keeps those that are
 * live, and gives up first who sent no heartbeat, then who was never READY, then who is silent. */
struct peer *peer_get(struct peer_table *table, uint64_t origin, uint64_t standing);

bool peer_is_tomb(const struct peer_table *table, uint64_t origin);
bool peer_is_live(const struct peer *peer, uint64_t standing);

/* From now on a broker is believed to live when it has answered a question of this one: what was recorded, and is sent again
 * when its broker has ended, answers none. */
void peer_table_want_answers(struct peer_table *table, bool wants_answers);

/* Is a message of it to be delivered that nothing but the message speaks for? `peer` may be NULL. */
bool peer_is_believed(const struct peer_table *table, const struct peer *peer);

/* No heartbeat of it was heard. */
bool peer_is_stranger(const struct peer *peer);

/* Did it say itself, asked with a number that nobody else can guess, that it uses the map that is heard of it? A heartbeat may
 * be anybody's. */
bool peer_has_shown_map(const struct peer *peer);

/* 64 random bits, never 0, that nobody can guess: of an origin, or of a question. */
uint64_t peer_random_id(void);

/* Live, or about to be: heard as lately, READY or not. */
bool peer_is_present(const struct peer *peer, uint64_t standing);
bool peer_is_silent(const struct peer *peer, uint64_t standing);

/* Where it says so: at this place; or at a shard of this name that is the same Redis under another address, since its
 * heartbeats come from there. One of an earlier release says names only. */
bool peer_is_subscribed(const struct peer *peer, size_t shard);

/* A heartbeat of it, new or not, came from there. */
void peer_hear_on(struct peer *peer, size_t shard, uint64_t standing);

bool peer_carries(const struct peer *peer, uint64_t map);

/* Has any live one pods with a client manager? */
bool peers_have_managers(const struct peer_table *table, uint64_t standing);

struct peer *peer_first(const struct peer_table *table);
unsigned peer_live_count(const struct peer_table *table, uint64_t standing);

/* Do all that are live hear the shard, and carry the map? */
bool peers_hear_shard(const struct peer_table *table, size_t shard, uint64_t map,
                      uint64_t standing);

/* Are all that were READY and are not buried heard, or have they been silent for less than PEER_SILENT? */
bool peers_are_heard(const struct peer_table *table, uint64_t standing);

/* The shard with this index is no more. */
void peers_forget_shard(struct peer_table *table, size_t shard);

/* Buries one that was silent for PEER_KEEP; 0: none. Again until 0. */
uint64_t peer_bury(struct peer_table *table, uint64_t standing);
