/*
 * The route: facts in, endpoint and why out. A pure function of a snapshot and facts (and of the live
 * counters beside the snapshot); no I/O, no allocation, no clock, no randomness of its own.
 *
 *   which upstream     routes in order: host, path prefix ─▶ one upstream, or a split:
 *                      sid's tag ▸ learned sid ▸ cookie of a member ▸ by weight
 *   which endpoint
 *     names a session  tag ▸ learned sid ▸ affinity cookie ▸ the only endpoint ▸ refused 400 (lost)
 *                      Never a hash, never another endpoint.
 *     handshake        explicit key ▸ cookie's tag ▸ ingress-nginx cookie ▸ client key of the cookie ▸ a
 *                      fresh client key. Explicit: best-ranked below the bounded load. Client key: the
 *                      less loaded of the two best-ranked.
 *     other path       cookie ▸ least loaded
 *
 * Usage, per request:
 *
 *     const struct route_config *rule = route_match(snapshot->config, host, path);      NULL: 404
 *     size_t upstream = route_pick_upstream(snapshot, rule, &facts);
 *     facts.explicit_key = …what hash_by of that upstream finds in the request…
 *     route_pick(snapshot, rule, upstream, &facts, &route);
 *
 * and for a handshake that could not connect: add the endpoint to facts.tried and call route_pick again.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include "proxy/affinity_cookie.h"
#include "proxy/snapshot.h"

#include <stdbool.h>
#include <stdint.h>

struct endpoint;
struct endpoint_entry;
struct proxy_config;
struct route_config;

#define ROUTE_TRIES_MAX   3 /* endpoints that one handshake may try */
#define ROUTE_COOKIES_MAX 8 /* Cookie fields of one head that are looked at */

enum route_kind {
    ROUTE_SESSION,   /* Engine.IO path with a sid, OPTIONS included */
    ROUTE_HANDSHAKE, /* Engine.IO path without one, OPTIONS included */
    ROUTE_OTHER,     /* any other path */
};

/* What the request says about itself. All slices are borrowed for the call. */
struct route_facts {
    enum route_kind kind;
    bool is_options;  /* never sets a cookie, is never counted as a handshake */
    struct slice sid; /* of ROUTE_SESSION, as in the query, percent-decoded */
    const struct slice *cookies; /* values of the Cookie fields, in order */
    size_t cookies_len;
    struct slice
        explicit_key;    /* what hash_by found; empty: nothing, or hash_by is auto */
    uint64_t random_key; /* fresh for each request, kept over its retries and waits */
    uint64_t now;        /* microseconds, timing_now() */
    uint64_t waited;     /* how long this request has waited because of ROUTE_WAIT */
    const struct endpoint
        *tried[ROUTE_TRIES_MAX]; /* could not be reached by this request */
    size_t tried_len;
};

/* What decided: the words in logs, metrics and status. */
enum route_why {
    ROUTE_WHY_TAG,
    ROUTE_WHY_LEARNED,
    ROUTE_WHY_COOKIE,
    ROUTE_WHY_LEGACY_COOKIE,
    ROUTE_WHY_KEY,
    ROUTE_WHY_PLACED,
    ROUTE_WHY_ONLY,
};
#define ROUTE_WHYS 7

const char *route_why_word(enum route_why why);

enum route_outcome {
    ROUTE_FOUND,   /* go to entry->endpoint */
    ROUTE_REFUSED, /* answer `status` locally */
    ROUTE_WAIT, /* ask again with a newer snapshot or after wait, whichever is first; count the
                      time in waited */
};

/* Why a request has nowhere to go. */
enum route_refusal {
    ROUTE_LOST_GONE,        /* 400: its endpoint is gone (tombstone, or left the set) */
    ROUTE_LOST_UNKNOWN_TAG, /* 400: a tag of ours that no endpoint has */
    ROUTE_LOST_NO_ROUTE,    /* 400: an untagged sid that nothing else places */
    ROUTE_NO_ENDPOINT,      /* 503: nobody takes new sessions */
    ROUTE_ALL_FULL,         /* 503 and Retry-After: max_sessions_per_endpoint */
    ROUTE_TOO_FAST, /* 503 and Retry-After: max_handshake_rate, after a second of waiting */
    ROUTE_ALL_TRIED, /* 502: every candidate was tried, or ROUTE_TRIES_MAX of them */
};
#define ROUTE_REFUSALS 7

/* Label for logs and metrics ("gone", "unknown_tag", …). */
const char *route_refusal_word(enum route_refusal refusal);

struct route {
    enum route_outcome outcome;

    /* ROUTE_FOUND */
    enum route_why why;
    size_t upstream; /* place in config->upstreams and snapshot->sets */
    const struct endpoint_entry
        *entry;          /* borrowed from the snapshot; keep entry->endpoint by
                                           endpoint_ref() */
    size_t bare_sid_len; /* ROUTE_SESSION: how much of facts.sid the endpoint knows */
    bool is_tagged;      /* ROUTE_SESSION: our suffix was there and is to be cut off */
    char key_id; /* the first key, and the endpoint's tag under it: what to write */
    uint64_t tag;
    bool set_cookie; /* write `cookie` with the options of route_cookie_options() */
    struct affinity_cookie cookie;

    /* ROUTE_REFUSED */
    enum route_refusal refusal;
    unsigned status;

    /* ROUTE_WAIT */
    uint64_t wait;
};

/* The first rule whose host and path match, or NULL. `host`: the Host field without its port; case does
 * not count. `path`: the raw path without its query, "/" at least; it is percent-decoded for this look.
 * A rule's path is a prefix of whole segments: "/a" matches "/a" and "/a/b", not "/ab"; "/a/" matches
 * what is below it. */
const struct route_config *route_match(const struct proxy_config *config,
                                       struct slice host, struct slice path);

/* Place of the upstream that serves the request: the rule's, or one of its split. */
size_t route_pick_upstream(const struct snapshot *snapshot,
                           const struct route_config *rule,
                           const struct route_facts *facts);

/* The decision. Every field that belongs to the outcome is set. Counts nothing: the caller calls
 * endpoint_count_placed() for a handshake that it sends. */
void route_pick(const struct snapshot *snapshot, const struct route_config *rule,
                size_t upstream, const struct route_facts *facts, struct route *route);

/* The cookie that the rule's requests carry: that of its upstream; members of a split share that of the
 * first member. */
const struct affinity_cookie_options *
route_cookie_options(const struct proxy_config *config, const struct route_config *rule);
