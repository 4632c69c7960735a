/*
 * Where what other brokers send comes in: opened, or dropped, counted and logged.
 *
 *     channel, bytes ─▶ seal_open ─┬─ checked, or taken unchecked ─▶ envelope or control
 *                                  └─ unsigned, unknown key, forged, bad ─▶ dropped: metric by reason, log once a minute
 *
 * The heartbeats that pass here, or do not, show whether the brokers of the cluster have the same keys.
 */
#pragma once

#include "broker/seal.h"

struct gate;

/* Whether brokers of the cluster understand each other. */
enum gate_state {
    GATE_AGREES,
    GATE_UNSIGNED_TAKEN, /* keys here; heartbeats without a seal come, and are taken */
    GATE_SEALED_SEEN, /* no keys here; sealed heartbeats come from brokers that take unsigned ones too */
    GATE_SEALED_ALONE, /* no keys here; other brokers drop what this one sends */
    GATE_REFUSES,      /* keys here; heartbeats of other brokers are dropped */
};

/* `seal` is borrowed; `origin` is one's own. */
struct gate *gate_new(struct seal *seal, uint64_t origin);
void gate_free(struct gate *gate);

/* False: drop it. Else *body is an envelope or control, or neither. */
bool gate_take(struct gate *gate, struct slice channel, struct slice bytes,
               struct slice *body) MUST_CHECK;

/* Of the heartbeats of the last PEER_LIVE; `now` as standing_now(). */
enum gate_state gate_state(const struct gate *gate, uint64_t now);

/* "none", "accept_unsigned", "required" */
const char *gate_mode_text(const struct gate *gate);

/* A sentence; "" for GATE_AGREES. */
const char *gate_state_text(enum gate_state state);
