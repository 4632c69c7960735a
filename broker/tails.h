/*
 * How far each partition was sent, for positions, and how far it had been sent a moment ago, for heartbeats.
 *
 *     tails_note ─▶ last        the highest sequence that was ever sent
 *                   tail        the last one sent at least TAILS_MIN ago, of partitions sent to within TAILS_MAX
 *
 * A tail also of a partition in steady use: who is cut off from its shard sees nothing at all of it
 * (docs/broker-protocol.md, "Heartbeat"). A tail may lag by another TAILS_MIN; it is never too high.
 */
#pragma once

#include "shared/timing.h"

#define TAILS_MIN MILLISECONDS(200)
#define TAILS_MAX MILLISECONDS(3200)

struct tails;

struct tails *tails_new(unsigned partitions);
void tails_free(struct tails *tails);

/* `sequence` goes to a shard now; sent again it changes nothing. */
void tails_note(struct tails *tails, unsigned partition, uint64_t sequence, uint64_t now);

/* 0: nothing was ever sent. */
uint64_t tails_last(const struct tails *tails, unsigned partition);

/* Calls back for each partition that has a tail, the latest used first. */
void tails_walk(const struct tails *tails, uint64_t now,
                void (*on_tail)(void *context, unsigned partition, uint64_t sequence),
                void *context);
