/*
 * What a python-socketio message says about itself: everything that the broker needs to route, to
 * transcode and to refuse it. The payload stays as it is.
 *
 *                       ┌▶ json_scan ───┐
 *     payload, policy ──┤               ├──▶ method, namespace, rooms, sid, host_id ──▶ struct message
 *                       └▶ pickle_scan ─┘    or opaque: not known, delivered to all
 */
#pragma once

#include "broker/scan_scratch.h"
#include "shared/slice.h"

#include <stdint.h>

enum message_encoding { MESSAGE_PICKLE, MESSAGE_JSON, MESSAGE_OPAQUE };

/* Numbers are in the envelope: never change one. RAW: opaque and generic payloads. */
enum message_dialect {
    DIALECT_PICKLE = 0,
    DIALECT_JSON14 = 1,
    DIALECT_JSON15 = 2,
    DIALECT_RAW = 3,
};

/* Numbers are in the envelope: never change one. OPAQUE: a payload on a channel of messages that is not
 * one, or has a method that is not known. GENERIC: a payload on any other channel. */
enum message_method {
    METHOD_EMIT = 0,
    METHOD_CALLBACK = 1,
    METHOD_DISCONNECT = 2,
    METHOD_CLOSE_ROOM = 3,
    METHOD_ENTER_ROOM = 4,
    METHOD_LEAVE_ROOM = 5,
    METHOD_OPAQUE = 6,
    METHOD_GENERIC = 7,
};
#define METHOD_COUNT 8

/* pickle.objects: what to do with pickles that make Python look up or call something. */
enum pickle_objects {
    PICKLE_OBJECTS_REJECT,
    PICKLE_OBJECTS_BYTEARRAY_ONLY,
    PICKLE_OBJECTS_ALLOW
};

struct message_policy {
    enum pickle_objects objects;
    bool refuse_pickle; /* pickle.mode: reject */
    unsigned depth_max; /* limits.json_depth, 1..256 */
};

/* What the contract gives as defaults. */
extern const struct message_policy message_policy_default;

#define MESSAGE_REFUSED_MAX 224

struct message {
    enum message_encoding encoding;
    enum message_dialect dialect;
    bool
        dialect_is_proven; /* false: json15 is assumed (a list as data, or no data at all) */
    enum message_method method;

    /* Borrowed from the payload or the scratch. data is NULL where the message has none (or no text). */
    struct slice namespace;
    struct slice sid;
    struct slice host_id;

    /* Canonical. None and rooms_known: everybody in the namespace. Not rooms_known: nobody can tell,
     * deliver to all. For methods without a room: none, known. */
    bool rooms_known;
    size_t room_count;
    const struct slice *rooms;

    /* What an envelope carries as rooms: the rooms for emit and close_room, the sid (canonical) for
     * disconnect, the room and then the sid for enter_room and leave_room. Valid where rooms_known. */
    size_t address_count;
    const struct slice *addresses;

    bool has_callback; /* emit that wants an answer */
    bool has_data;     /* it has the key: only then does JSON tell a dialect */
    bool
        is_plain; /* nothing in it makes Python look up or call anything (JSON: always) */

    /* Not empty: pods must not get it; this is why, and which option would let it pass: one line of printable
     * ASCII. */
    char refused[MESSAGE_REFUSED_MAX];
};

/* Reads `payload`, which came on a channel of python-socketio messages. Resets `scratch`; slices in
 * *message live until its next reset, and as long as the payload. Any bytes give a message: see method
 * OPAQUE, rooms_known and refused. */
void message_scan(struct slice payload, const struct message_policy *policy,
                  struct scan_scratch *scratch, struct message *message);

/* A payload on a generic channel. */
void message_init_generic(struct message *message);

static inline bool message_is_refused(const struct message *message)
{
    return message->refused[0] != '\0';
}

/* "emit", "pickle", "json14": as in explain, metrics and logs. */
const char *message_method_name(enum message_method method);
const char *message_encoding_name(enum message_encoding encoding);
const char *message_dialect_name(enum message_dialect dialect);
