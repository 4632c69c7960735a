/*
 * EndpointSlices of one Kubernetes Service, and the endpoints that they make together.
 *
 *      slice "chat-abc" (IPv4): ports http → 5000 · pod u-1 10.0.0.1 ready · pod u-2 10.0.0.2 terminating ─┐
 *      slice "chat-def" (IPv6): ports http → 5000 · pod u-1 fd00::1  ready ────────────────────────────────┼─▶ specs
 *      slice "chat-ghi" (IPv4): ports http → 5001 · pod u-3 10.0.0.3 not ready ────────────────────────────┘
 *
 *      identity: the pod's UID, else the address. One pod in slices of both families is one endpoint; in two
 *      slices of one family (the controller moves it) too, in the livelier of the two states.
 *
 *      terminating ∧ serving  draining       ready ∧ ¬terminating    ready
 *      terminating ∧ ¬serving closing        ¬ready ∧ ¬terminating   degraded       (no word: true, true, false)
 *
 * discovery.k8s.io/v1; slices of addressType FQDN have no meaning and are left out.
 */
#pragma once

#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"

#define ENDPOINT_SLICE_ENDPOINTS_MAX 4096 /* the API's own bound is 1,000 */
#define ENDPOINT_SLICE_PORTS_MAX     100
#define ENDPOINT_SLICES_MAX          2000

struct json_t;
struct slice_store; /* the slices by name */

struct slice_store *slice_store_new(void);
void slice_store_free(struct slice_store *store);
size_t slice_store_count(const struct slice_store *store);

/* Puts an EndpointSlice object in (in place of the one of its name), or takes it out. False with `why`, static
 * text: it is none, or has more than ENDPOINT_SLICE_ENDPOINTS_MAX endpoints; the store is as it was. */
bool slice_store_put(struct slice_store *store, const struct json_t *object,
                     const char **why) MUST_CHECK;
bool slice_store_remove(struct slice_store *store, const struct json_t *object,
                        const char **why) MUST_CHECK;

/* The ports that are wanted, names or numbers, and of which family the addresses are to be. */
struct slice_wants {
    const struct text_list *ports;
    bool only_v4, only_v6, prefers_v6;
};

/* Their endpoints; text points into the store. The caller frees *specs. */
void slice_store_list(const struct slice_store *store, const struct slice_wants *wants,
                      struct endpoint_spec **specs, size_t *len);

/* One line of a watch. */
enum watch_event {
    WATCH_CHANGED,  /* the store has changed */
    WATCH_BOOKMARK, /* only the version moved on */
    WATCH_EXPIRED,  /* the version is too old: list anew */
    WATCH_ERROR,    /* the server says so: `why` */
    WATCH_BAD       /* not an event of endpoint slices: `why` */
};

#define RESOURCE_VERSION_SIZE 64
#define WATCH_WHY_SIZE        200

/* Applies a line; `version` becomes the object's resourceVersion where it has one. */
enum watch_event watch_event_apply(struct slice_store *store, struct slice line,
                                   char version[RESOURCE_VERSION_SIZE],
                                   char why[WATCH_WHY_SIZE]) MUST_CHECK;

/* One page of a list: puts its items in. `continuation` is "" behind the last page. False with `why`. */
#define CONTINUE_SIZE 4096
bool slice_list_apply(struct slice_store *store, struct slice body,
                      char version[RESOURCE_VERSION_SIZE],
                      char continuation[CONTINUE_SIZE],
                      char why[WATCH_WHY_SIZE]) MUST_CHECK;
