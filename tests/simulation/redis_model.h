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
unsigned redis_subscriptions(unsigned number);
bool redis_is_running(unsigned number);
