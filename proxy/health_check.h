/*
 * Health checks of one upstream: each endpoint is probed now and then, and a row of equal results is a verdict.
 *
 *      waiting ── interval, ±1/8 ──▶ connecting ──▶ (TLS) securing ──▶ (http) awaiting a status ──▶ passed or failed ──▶ waiting
 *                                        └── timeout, refused ──┴──────────────────────────────▶ failed
 *
 *      passing ── `fall` failed in a row ──▶ failing       the verdict degrades an endpoint, no more
 *      failing ── `rise` passed in a row ──▶ passing       (endpoint_list)
 *
 * Every endpoint begins as passing. The first probe of a few new endpoints comes within half a second, since others may
 * wait to drain until it has passed; that of many at a random moment of the first interval, so that they are spread. The probe of an endpoint that has become suspect, because clients
 * could not connect to it, comes within a second; a probe that connects ends the suspicion: then it is the
 * probe that finds the endpoint half open, and not a client's handshake.
 *
 * A vanished endpoint (endpoint_list) is only asked, every second, whether it accepts; two refusals in a row
 * are told by on_refusing. That happens with type none too.
 *
 * tcp connects (with TLS: shakes hands) and resets; http sends GET `path` and takes a status of 200 to 399. On the main thread.
 */
#pragma once

#include "shared/slice.h"

#include <stdbool.h>

struct endpoint_list;
struct endpoint_set;
struct event_base;
struct health_checks;
struct upstream_config;

struct health_callbacks {
    /* a verdict, and once for each endpoint the first probe that has passed */
    void (*on_verdict)(void *owner, struct slice identity, unsigned port, bool passes);
    void (*on_refusing)(void *owner, struct slice identity, unsigned port);
};

/* `config` and `callbacks` are borrowed and outlive the checks. */
struct health_checks *health_checks_new(struct event_base *base,
                                        const struct upstream_config *config,
                                        const struct health_callbacks *callbacks,
                                        void *owner);
void health_checks_free(struct health_checks *checks);

/* Other options (the caller's as before): when those of health_check differ, every endpoint is probed anew and keeps its
 * verdict until the new probes say otherwise; with type none it passes. Not from within a callback. */
void health_checks_set_config(struct health_checks *checks,
                              const struct upstream_config *config);

/* From now on these are probed: the endpoints of the set that was made of the list. What is known of
 * endpoints that were there before stays. Not from within a callback. */
void health_checks_apply(struct health_checks *checks, const struct endpoint_set *set,
                         const struct endpoint_list *list);
