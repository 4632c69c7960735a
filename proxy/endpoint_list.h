/*
 * The one place where the six states are made: what a source says of an upstream's endpoints, what health
 * checks say, and what time says, merged into the list that the next endpoint_set is made of.
 *
 *     source: whole lists ──────▶ ┌───────────────┐
 *     health checks: verdicts ──▶ │ endpoint_list │ ──▶ specs ──▶ endpoint_set (generation n + 1)
 *     operator: orders ─────────▶ │               │
 *     time: endpoint_list_tick ─▶ └───────────────┘
 *
 *                        ┌──────── conditions of the source ────────┐
 *                        ▼                                          ▼
 *     new ─▶ warming ─▶ ready ◀── checks pass, rise ──┐         draining ─▶ closing
 *           (by age, see   │                           │          ▲    ▲        │
 *            endpoint_set) └── checks fail, fall ─▶ degraded ─────┘    │        │
 *                                  (or not ready)                      │        │
 *                                                                      │        │
 *     absent from a list:  for less than `absence` nothing has changed │        │
 *                          longer, where a source knows no draining ───┘        │
 *                              (vanished: for as long as it accepts,            │
 *                               at most so long)                                │
 *                          longer, and nobody takes new sessions: draining for  │
 *                              `empty_hold`, then closing, while it accepts;    │
 *                              draining for `farewell` once somebody does       │
 *                          else ─▶ gone ◀───────────────────────────────────────┘
 *
 *     While no endpoint of the list takes new sessions (ready or degraded, with a weight; where health checks run, one that
 *     has passed a check and does not fail them), those that drain or close
 *     keep their tunnels (spec.keeps_tunnels): their clients would come back to them. The drain begins when
 *     there is somewhere to go. An operator's order to drain is carried out all the same.
 *
 *     A new endpoint that a source lists at the address of an absent one makes that one gone at once: what
 *     listens there is another.
 *
 * A verdict only turns ready into degraded and back. It never takes an endpoint out, so that replicas, which
 * see different verdicts, still rank the same endpoints. Pure: no clock, no events; times are microseconds
 * of timing_now().
 */
#pragma once

#include "proxy/endpoint_set.h"

struct endpoint_list;

struct endpoint_list_options {
    uint64_t absence;  /* absent no longer than this never was gone */
    uint64_t vanished; /* then draining for so long, while it accepts; 0: not */
    uint64_t
        empty_hold; /* no endpoint takes new sessions: absent ones do for so long; 0: not */
    uint64_t farewell; /* how long those so held drain when another one does */
    bool
        is_checked; /* health checks run: an endpoint takes sessions once it has passed */
};

/* `upstream_name` is for the log; copied. */
struct endpoint_list *endpoint_list_new(const char *upstream_name,
                                        const struct endpoint_list_options *options);
void endpoint_list_free(struct endpoint_list *list);
void endpoint_list_set_options(struct endpoint_list *list,
                               const struct endpoint_list_options *options);

/* What the source says now, whole; of equal identities and ports the first counts. Text is copied. */
void endpoint_list_apply(struct endpoint_list *list, const struct endpoint_spec *specs,
                         size_t len, uint64_t now);

/* The verdict of health checks, and the first check that an endpoint has passed: does it pass? No such endpoint: nothing. */
void endpoint_list_set_verdict(struct endpoint_list *list, struct slice identity,
                               unsigned port, bool passes);

/* A vanished endpoint does not accept any more: it is gone. Nothing for listed ones. */
void endpoint_list_set_refusing(struct endpoint_list *list, struct slice identity,
                                unsigned port);

/* An operator's word beats the source's: endpoints of this address or identity drain, or no more (how many there
 * are); all of the upstream, those to come included; they have this weight, -1: the listed one. What the source
 * lists as draining or closing stays so. It holds for endpoints that went and came back too. */
size_t endpoint_list_drain(struct endpoint_list *list, struct slice name, bool drains);
void endpoint_list_drain_all(struct endpoint_list *list, bool drains);
size_t endpoint_list_weigh(struct endpoint_list *list, struct slice name, int64_t weight);

/* Lets what is due happen; when to look again, UINT64_MAX: when something else does. */
uint64_t endpoint_list_tick(struct endpoint_list *list, uint64_t now);

/* Has anything changed that a set shows, since the last time this was asked? */
bool endpoint_list_take_changed(struct endpoint_list *list);

/* The endpoints that are not gone, sorted; borrowed until the list changes. */
const struct endpoint_spec *endpoint_list_specs(const struct endpoint_list *list,
                                                size_t *len);

/* Is it held although no list has had it for longer than `absence`? */
bool endpoint_list_is_vanished(const struct endpoint_list *list, size_t place);

/* For tests: aborts unless sorted, and states follow from what was said. */
void endpoint_list_check(const struct endpoint_list *list);
