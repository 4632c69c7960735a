/*
 * Whether the brokers agree on the map: which of them use another map although no change is under way, what differs, and
 * which side gives way (docs/broker-protocol.md, "Maps that differ").
 *
 *     a live one uses a map that is not known here, and knows none of ours ─▶ it is asked ─ says the same ─▶ it differs
 *     differs ─▶ who has more right? ─┬─ the others ─▶ not ready, publishes are refused
 *                                     └─ this one ───▶ named in log, status and metric, that is all
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>

struct control_list;
struct evbuffer;
struct map_change;
struct peer;
struct peer_table;

/* For a client's error, a log line, or /readyz. */
#define AGREEMENT_TEXT_SIZE 200

struct agreement {
    const struct peer_table *peers; /* borrowed, as `map` */
    const struct map_change *map;
    uint64_t ready_at; /* timing_now() when this broker became READY; 0: it is not */
};

/* Does this broker route otherwise, and no change is under way that ends it? It has said so when it was asked: heartbeats alone
 * may be anybody's. */
bool agreement_differs(const struct agreement *agreement, const struct peer *peer);

/* Only its heartbeats say that it differs: it is to be asked. */
bool agreement_wants_answer(const struct agreement *agreement, const struct peer *peer);

/* What differs, as "partitions (64, here 4096), shards"; no longer than AGREEMENT_TEXT_SIZE / 2. */
void agreement_write(const struct agreement *agreement, const struct peer *peer,
                     char text[AGREEMENT_TEXT_SIZE]);

/* One of those who differ and have more right than this broker, which is not ready then and refuses publishes; NULL: none.
 *
 * More right has a map that is in use beside one of which no broker is READY; else that of more brokers; else that of the
 * one that has been READY for longest; else the one with the smaller hash. Where only the shards differ, brokers that are
 * READY go on: each gets what it misses by asking. */
const struct peer *agreement_outvoted_by(const struct agreement *agreement);

/* Does a live one use another map, whether or not a change is under way? Those who route differently must not become READY
 * together. */
bool agreement_has_other(const struct agreement *agreement);

struct agreement_verdict {
    char outvoted
        [AGREEMENT_TEXT_SIZE]; /* why this broker is not ready, and refuses publishes; "": it does not */
    uint64_t
        waits_since; /* standing_now(): it starts beside a change of the map; 0: no */
};

/* Judges again and logs what has changed. Call it after facts of other brokers, and a few times a second; zero the
 * structure before the first call. */
void agreement_look(const struct agreement *agreement, struct agreement_verdict *verdict);
