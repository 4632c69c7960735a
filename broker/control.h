/*
 * What brokers say to each other beside messages: heartbeats on the control channel, and on a broker's own
 * channel questions and answers. Little endian; the bytes are frozen by a golden test (docs/broker-protocol.md,
 * "Bytes").
 *
 *     "SC"  version  kind  sender  number │ body of the kind
 *       2      1      1      8       8    │
 *
 *     heartbeat       facts
 *     ask             shard 1+n, ranges 2 + n × 12
 *     where           shard 1+n
 *     positions       number of the question 8, facts, positions 2 + n × 10
 *     gone            ranges 2 + n × 12
 *     joined          message id 8
 *
 * Lists stay bytes: a parsed one is walked, one to be written is built with the control_add functions. An
 * envelope begins with "S1" (envelope.h), so the first two bytes distinguish the two.
 */
#pragma once

#include "shared/slice.h"

#include <stdint.h>

struct evbuffer;
struct map_outline;

#define CONTROL_VERSION    1
#define CONTROL_RANGES_MAX 256 /* in one ask or gone */
#define CONTROL_RANGE_MAX  200 /* sequences of one range */

/* Where the kind is. */
#define CONTROL_KIND_OFFSET 3

enum control_kind {
    CONTROL_HEARTBEAT = 1,
    CONTROL_ASK = 2,
    CONTROL_WHERE = 3,
    CONTROL_POSITIONS = 4,
    CONTROL_GONE = 5,
    CONTROL_JOINED = 6,
};

/* So many elements, encoded one after the other. */
struct control_list {
    size_t count;
    struct slice bytes;
};

#define CONTROL_READY 1

/* `generic` does not name all. */
#define CONTROL_GENERIC_PART 2

/* This part of `generic` begins with the first channel: whatever is in none of the parts of two turns is no more. */
#define CONTROL_GENERIC_TURN 128

/* Pods with a client manager are here: an enter_room is answered with JOINED. */
#define CONTROL_MANAGERS 4

/* Its newest map is not in use yet. */
#define CONTROL_MOVES 8

struct control_facts {
    uint8_t flags; /* CONTROL_READY, CONTROL_GENERIC_PART; unknown ones are kept */
    uint64_t
        age; /* milliseconds since READY, by a clock that runs while the sender is stopped; 0 before */
    uint64_t used;               /* hash of the map that decides where it sends */
    uint64_t loaded;             /* of the newest in its configuration */
    struct control_list carries; /* hashes: control_next_hash */
    struct control_list
        subscribed; /* names, and names with places: control_next_name, control_take_place */
    struct control_list tails;   /* control_next_position */
    struct control_list generic; /* control_next_channel */
};

struct control {
    uint8_t kind; /* enum control_kind */
    uint64_t sender;
    uint64_t number; /* of the sender, for all that it sends as control, from 1 */
    struct control_facts facts; /* HEARTBEAT, POSITIONS */
    struct slice shard; /* ASK, WHERE: answer there; empty: anywhere. At most 255 bytes */
    struct control_list ranges; /* ASK, GONE: control_next_range */
    uint64_t question;          /* POSITIONS */
    struct control_list places; /* POSITIONS: control_next_position */
    uint64_t message_id;        /* JOINED */
};

enum control_result {
    CONTROL_OK,
    CONTROL_BAD, /* not control, cut short, out of bounds, or bytes left over */
    CONTROL_UNKNOWN_VERSION, /* drop and count */
    CONTROL_UNKNOWN_KIND,    /* drop and count; header fields are set */
};

bool control_is_control(struct slice bytes);

/* The sender of what begins like control; 0 for anything else. */
uint64_t control_peek_sender(struct slice bytes);

/* Slices point into `bytes`. Every list is whole and within its bounds. */
enum control_result control_parse(struct slice bytes, struct control *control) MUST_CHECK;

/* Appends the bytes of a control message whose lists are within their bounds. */
void control_write(const struct control *control, struct evbuffer *out);

/* Appends one element to a list under construction. Names and channels have at most 255 bytes; a range has 1 to
 * CONTROL_RANGE_MAX sequences. */
void control_add_hash(struct evbuffer *list, uint64_t hash);
void control_add_name(struct evbuffer *list, struct slice name);
void control_add_place(struct evbuffer *list, struct slice name,
                       uint64_t place); /* nothing, when the name is too long */
void control_add_outline(struct evbuffer *list, const struct map_outline *outline);
void control_add_position(struct evbuffer *list, uint16_t partition, uint64_t sequence);
void control_add_channel(struct evbuffer *list, struct slice channel, uint32_t count);
void control_add_range(struct evbuffer *list, uint16_t partition, uint64_t first,
                       unsigned count);

/* Take the next element off the list's front; false at its end. */
bool control_next_hash(struct control_list *list, uint64_t *hash) MUST_CHECK;
bool control_next_name(struct control_list *list, struct slice *name) MUST_CHECK;
/* Takes the place off a name that has one; false: it has none. */
bool control_take_place(struct slice *name, uint64_t *place) MUST_CHECK;
/* What the sender's map is made of, as an entry of `subscribed` that can be no name; false: it is another entry. */
bool control_read_outline(struct slice name, struct map_outline *outline) MUST_CHECK;
bool control_next_position(struct control_list *list, uint16_t *partition,
                           uint64_t *sequence) MUST_CHECK;
bool control_next_channel(struct control_list *list, struct slice *channel,
                          uint32_t *count) MUST_CHECK;
bool control_next_range(struct control_list *list, uint16_t *partition, uint64_t *first,
                        unsigned *count) MUST_CHECK;
