/*
 * A Redis of which only pub/sub is modelled, with its faults. PUBLISH queues to those subscribed at that moment, then is
 * answered; nothing is remembered. A killed one loses what it had queued and not yet given to its kernel; a stopped one's
 * kernel takes connections and bytes, and waking it executes them all, also those of connections that have gone since.
 */
#pragma once

#include "tests/simulation/wire.h"

#define REDIS_MAX 6

void redis_begin(unsigned count);
void redis_end(void);

void redis_start(unsigned number); /* empty */
void redis_kill(unsigned number);  /* kill -9 */
void redis_stop(unsigned number);  /* SIGSTOP */
void redis_continue(unsigned number);
void redis_demote(unsigned number, bool is_replica);
/* PUBLISH is answered with an error, except each `one_in`-th (0: none at all). */
void redis_refuse_publish(unsigned number, bool refuses);
/* Answers and messages wait up to so long. */
void redis_slow(unsigned number, uint64_t delay);
/* New connections are closed (maxclients). */
void redis_refuse(unsigned number, bool refuses);
/* A subscriber for whom more than this is queued is disconnected; 0: a large one. */
void redis_limit_output(unsigned number, size_t limit);
/* Somebody who may PUBLISH there does so with what was published before. */
enum forgery {
    FORGE_REPEAT,   /* as it was */
    FORGE_MOVE,     /* on another channel */
    FORGE_NUMBER,   /* control with the highest number that there is */
    FORGE_AHEAD,    /* a message with a sequence that is far ahead */
    FORGE_STRANGER, /* a message of an origin that does not exist */
    FORGE_GARBAGE,
    FORGE_PLAIN_COUNT,              /* with keys also: */
    FORGE_NEXT = FORGE_PLAIN_COUNT, /* a message in the place of the origin's next one */
    FORGE_FLIP,                     /* with one bit that is another */
    FORGE_UNSEALED,                 /* without its seal */
    FORGERY_COUNT
};
void redis_forge(unsigned number, enum forgery kind, uint64_t drawn);

unsigned redis_subscriptions(unsigned number);
bool redis_is_running(unsigned number);
