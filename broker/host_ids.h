/*
 * Processes that share one host_id: python-socketio makes it with its manager, so workers that were forked after that
 * (gunicorn --preload) have the same one, and from 5.10 on each of them ignores what the others emit.
 *
 *     PUBLISH with host_id, greeting of a client manager ─▶ note ─▶ connections of one host_id
 *
 *     tick ─▶ two identities, or two greetings with it ──────────────────────────────▶ told: certain
 *         └▶ of one pod more subscribers than host_ids, for SUSPECT_FOR, and two of its connections publish with one
 *            of them ─────────────────────────────────────────────────────────────────▶ told: likely
 *
 * One process publishes over several connections by itself (its pool), so these alone say nothing.
 */
#pragma once

#include "broker/client.h"
#include "broker/envelope.h"

struct host_ids;
struct host_id;

/* `is_pod`: does the client listen to a channel of python-socketio messages? */
struct host_ids *host_ids_new(struct client_set *clients,
                              bool (*is_pod)(void *context, struct client *client),
                              void *context);

/* No client may be noted any more. */
void host_ids_free(struct host_ids *ids);

/* The client published with this host_id, or greeted with it. Cheap when it did so before. */
void host_ids_note(struct host_ids *ids, struct client *client,
                   const uint8_t host_id[ENVELOPE_HOST_ID_LEN]);

/* It ends. */
void host_ids_forget(struct host_ids *ids, struct client *client);

/* Looks at one host_id of several connections; tells, once, when processes share it. */
void host_ids_tick(struct host_ids *ids, uint64_t now);

struct host_id_report {
    char host_id[32];
    unsigned connections; /* that published with it, or greeted */
    unsigned subscribers; /* of the pod */
    bool is_certain;
};

/* Those told whose connections live: walks with `index` from 0. False: no more. */
bool host_ids_reported(const struct host_ids *ids, size_t index,
                       struct host_id_report *report) MUST_CHECK;

/* What to do about it. */
extern const char host_ids_remedy[];
