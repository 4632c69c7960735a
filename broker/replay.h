/*
 * What was queued to one subscriber and not yet acknowledged by its kernel, to be given to its next connection.
 *
 *     replay_append ─▶ [ span │ span │ span ]      every byte that is queued, in order, replies too
 *                        ▲ replay_trim: acknowledged (bytes written minus SIOCOUTQ), by whole messages
 *
 * Spans are those of the output queue: bytes are shared, not copied. Only deliveries are replayed; replies count as
 * bytes of the connection, and end with it (replay_end).
 */
#pragma once

#include "broker/chunk.h"

#include <stdint.h>

struct replay_entry {
    struct span span;
    bool is_delivery;
};

/* All zero is an empty one, of a new connection. */
struct replay {
    struct replay_entry *entries; /* a ring of `capacity` */
    unsigned first, count, capacity;
    uint64_t begin; /* bytes of the connection before the first entry */
    size_t bytes;   /* of all entries */
    uint64_t
        taken; /* messages before `begin` that its reader counts: forgotten by replay_trim_messages, or never kept */
};

void replay_cleanup(struct replay *replay);

/* Holds the span. Deliveries are whole messages: RESP arrays of bulk strings. */
void replay_append(struct replay *replay, struct span span, bool is_delivery);

/* Forgets what lies within the connection's first `acknowledged` bytes; a message of which a part lies beyond
 * stays whole. */
void replay_trim(struct replay *replay, uint64_t acknowledged);

/* Forgets what lies beyond the connection's first `len` bytes, where a message or reply ends. */
void replay_cut(struct replay *replay, uint64_t len);

/* Forgets the connection's first `seen` messages. Not together with replay_trim. */
void replay_trim_messages(struct replay *replay, uint64_t seen);

/* The connection has ended: forgets replies. */
void replay_end(struct replay *replay);

/* Takes the first entry; the caller releases its span. False: there is none. */
bool replay_take(struct replay *replay, struct span *span) MUST_CHECK;

/* Takes the first message off *bytes, which are deliveries: its frame, and in it the channel and the payload. */
struct replay_message {
    struct slice frame;
    struct slice pattern; /* data NULL: none */
    struct slice channel;
    struct slice payload;
};
void replay_next_message(struct slice *bytes, struct replay_message *message);

/* Whole messages that it holds. */
unsigned replay_messages(const struct replay *replay);

/* What keeps the connection of an idle pod alive: JSON without a method, which python-socketio 5.0 to the newest reads and
 * passes over without a word, sync and async (before 5.14: when it is no pickle). */
#define HEARTBEAT_PAYLOAD "{}"

/* Whole messages in a span of deliveries; heartbeats are none. */
unsigned replay_count_messages(struct slice bytes);
