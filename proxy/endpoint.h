/*
 * One endpoint as it lives: who it is, and what this process has open on it now.
 *
 *                 endpoint_set (generation 7)   endpoint_set (generation 8)      immutable
 *                        │ state, weight, tags         │
 *                        └────────────┬────────────────┘
 *                                     ▼
 *                                 endpoint            open tunnels, polls in flight,
 *                                                     handshakes of the last 10 s,   atomic, all threads
 *                                                     connect failures
 *
 * Reference-counted: sets, learned sids and whoever has a connection open to it hold references. An
 * endpoint keeps its identity and address for life; the same identity at another address is another
 * endpoint.
 *
 * Suspicion: ENDPOINT_SUSPECT_FAILURES connect failures in a row make it suspect for 1 s, doubled by
 * each failed probe up to 30 s (many connects that fail together count as one); one success ends it. When the time is over the next handshake is the
 * probe, and only that one: endpoint_count_placed() renews the suspicion until the probe's result is in.
 * It steers handshakes only.
 *
 * All times are microseconds of timing_now().
 */
#pragma once

#include "shared/address.h"
#include "shared/base.h"
#include "shared/slice.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct upstream;

#define ENDPOINT_PLACED_SECONDS   10 /* a handshake counts as load that long */
#define ENDPOINT_SUSPECT_FAILURES 3

struct endpoint {
    struct upstream *upstream; /* one reference */
    char *identity;            /* pod UID, else configured id, else address */
    char *label;               /* rendezvous label: StatefulSet hostname, else identity */
    char *address_text;        /* as configured: host:port, [v6]:port, unix:/path */
    struct address address;
    unsigned port;    /* 0 for a unix socket */
    uint64_t created; /* of timing_now() */
    bool is_founder;  /* was there when its upstream began: no warming, no slow start */

    atomic_uint failures; /* connect failures in a row */
    atomic_uint probes;   /* sent since the suspicion began */
    _Atomic uint64_t suspect_until;

    atomic_uint idle_announced; /* milliseconds, of Keep-Alive: timeout=; 0: never said */
    atomic_uint
        idle_seen; /* so long an idle connection lasts, as far as we saw; 0: never */

    /* Every route reads what is above, and every request changes what is below. */
    char apart[CACHE_LINE];
    atomic_uint holders;
    atomic_uint tunnels;
    atomic_uint tunnels_total;    /* the number of the next; began at random */
    atomic_uint polls;            /* exchanges in flight, long polls above all */
    _Atomic uint64_t placed_last; /* the second of the last handshake */
    _Atomic uint64_t placed[ENDPOINT_PLACED_SECONDS]; /* second << 24 | count, a ring */
    _Atomic uint64_t handshakes_total;
    _Atomic uint64_t draining_since; /* 0: it takes sessions. The main thread writes it */
};

/* What discovery says of one endpoint, all borrowed. */
struct endpoint_identity {
    struct slice identity;
    struct slice label;
    struct slice address_text;
    struct address address;
    unsigned port;
};

/* The one order of endpoints: by identity, then port. Below, equal to or above 0, as memcmp. */
int endpoint_identity_compare(struct slice a, unsigned a_port, struct slice b,
                              unsigned b_port);

/* A new one with one reference; takes a reference to the upstream, copies the text. */
struct endpoint *endpoint_new(struct upstream *upstream,
                              const struct endpoint_identity *identity, uint64_t now,
                              bool is_founder);
struct endpoint *endpoint_ref(struct endpoint *endpoint);
void endpoint_unref(struct endpoint *endpoint);

/* A tunnel or an exchange begins / ends on it. Every begin has exactly one end. Tunnels of one endpoint have
 * numbers in a row, from one at random. */
uint32_t endpoint_begin_tunnel(struct endpoint *endpoint);
void endpoint_end_tunnel(struct endpoint *endpoint);
void endpoint_begin_poll(struct endpoint *endpoint);
void endpoint_end_poll(struct endpoint *endpoint);

/* A handshake has been sent its way: counts as load for ENDPOINT_PLACED_SECONDS. */
void endpoint_count_placed(struct endpoint *endpoint, uint64_t now);

/* Main thread: its tunnels are to end by and by from `now` on, or to stay. True when that is news. */
bool endpoint_note_draining(struct endpoint *endpoint, bool is_draining, uint64_t now);

/* Then the one who asks holds it: nobody else can reach it, now or later. */
bool endpoint_has_one_holder(const struct endpoint *endpoint);

/* A connect failed (refused, timed out) / succeeded. */
void endpoint_note_failure(struct endpoint *endpoint, uint64_t now);
void endpoint_note_success(struct endpoint *endpoint);
bool endpoint_is_suspect(const struct endpoint *endpoint, uint64_t now);

/* How long the endpoint keeps an idle connection: it said so; it closed one; it answered on one that had been idle. All
 * in milliseconds. */
void endpoint_note_idle_announced(struct endpoint *endpoint, unsigned limit);
void endpoint_note_idle_end(struct endpoint *endpoint, unsigned idle);
void endpoint_note_idle_served(struct endpoint *endpoint, unsigned idle);

/* Up to this age it does not close an idle connection, with a margin: three quarters of what is known, else of half a
 * second. */
unsigned endpoint_idle_safe_ms(const struct endpoint *endpoint);

/* Handshakes of the last 10 s; of this second only. */
unsigned endpoint_placed(const struct endpoint *endpoint, uint64_t now);
unsigned endpoint_placed_this_second(const struct endpoint *endpoint, uint64_t now);

/* Open tunnels + polls in flight + handshakes of the last 10 s, of this process, all threads. */
unsigned endpoint_sessions(const struct endpoint *endpoint, uint64_t now);
