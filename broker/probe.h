/*
 * `sidrail-broker probe URL`: does a broker (or a Redis) carry a message from a publisher to a subscriber?
 *
 *     subscriber  SUBSCRIBE sidrail-probe-<random> ─▶ confirmed
 *     publisher   PUBLISH  the same, a random payload ─▶ answered
 *     subscriber  ◀── the payload
 *
 * For helm test, container health commands and people: one line, exit code 0 or 1. It blocks.
 */
#pragma once

#include "shared/base.h"

#include <stdio.h>

struct broker_shard_config;

/* The whole probe; each step may take `timeout` microseconds. `target` is where to, as
 * the option shards[].url reads it. Writes "ok …" to `out` or one line that says which step failed and why to
 * `errors`; gives the exit code. */
int broker_probe(const struct broker_shard_config *target, uint64_t timeout, FILE *out,
                 FILE *errors);
