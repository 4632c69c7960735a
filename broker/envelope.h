/*
 * The header that brokers put around a payload on Redis. Little endian; the bytes are frozen by a golden
 * test, since brokers of different versions meet on one Redis.
 *
 *     "S1"  version  flags  method  dialect  partition  map  origin  sequence  message id
 *       2      1       1      1        1         2       4      8        8         8        = 36
 *     [host_id 16]  channel 1+n  namespace 2+n  rooms 2 + n × (2+n)  payload length 4  │ payload
 *
 * The payload is written by the caller behind the header, so that it is never copied. A count of rooms
 * of ffff says that the rooms are not known: deliver to all.
 */
#pragma once

#include "shared/slice.h"

#include <stdint.h>

struct evbuffer;

#define ENVELOPE_VERSION     1
#define ENVELOPE_HOST_ID_LEN 16
#define ENVELOPE_FIXED_LEN   36
#define ENVELOPE_ROOMS_MAX   65534

/* Where the flags are. */
#define ENVELOPE_FLAGS_OFFSET 3

enum envelope_flag {
    ENVELOPE_RETRANSMIT = 1,
    ENVELOPE_HAS_HOST = 2,
    ENVELOPE_HAS_CALLBACK = 4,
    ENVELOPE_PLAIN = 8,
    ENVELOPE_FROM_BRIDGE = 16,
};

struct envelope {
    uint8_t flags;   /* enum envelope_flag, OR-ed; unknown ones are kept */
    uint8_t method;  /* enum message_method; unknown ones are kept: deliver to all */
    uint8_t dialect; /* enum message_dialect */
    uint16_t partition;
    uint32_t map; /* low 32 bits of the map's hash */
    uint64_t origin;
    uint64_t sequence;
    uint64_t message_id;
    uint8_t host_id[ENVELOPE_HOST_ID_LEN]; /* where HAS_HOST */
    struct slice channel;                  /* at most 255 bytes */
    struct slice namespace;                /* at most 65,535 bytes */

    /* To write: rooms, room_count. Parsed: room_bytes, room_count; walk them with envelope_next_room. */
    bool rooms_known;
    size_t room_count;
    const struct slice *rooms; /* borrowed; each at most 65,535 bytes */
    struct slice room_bytes;

    struct slice payload; /* to write: only its len matters */
};

enum envelope_result {
    ENVELOPE_OK,
    ENVELOPE_BAD,             /* not an envelope, cut short, or bytes left over */
    ENVELOPE_UNKNOWN_VERSION, /* an envelope of a later broker: drop and count */
};

/* Length of the header that envelope_write makes, or 0 when a field is longer than the header can say. */
size_t envelope_size(const struct envelope *envelope);

/* Writes the header (envelope_size bytes) to `bytes`. */
void envelope_write_bytes(const struct envelope *envelope, char *bytes);

/* The same into an evbuffer; false when a field is too long. The caller adds the payload. */
bool envelope_write(const struct envelope *envelope, struct evbuffer *out) MUST_CHECK;

/* Of an envelope that may be cut short behind its first ENVELOPE_FIXED_LEN bytes: the numbers alone. */
bool envelope_parse_numbers(struct slice bytes, struct envelope *envelope) MUST_CHECK;

/* Reads header and payload; slices point into `bytes`. */
enum envelope_result envelope_parse(struct slice bytes,
                                    struct envelope *envelope) MUST_CHECK;

/* Takes the next room off *room_bytes (start with a copy of envelope->room_bytes). */
bool envelope_next_room(struct slice *room_bytes, struct slice *room) MUST_CHECK;

/* 32 lower-case hex digits, as python-socketio makes them, to 16 bytes; false for anything else. */
bool envelope_host_id_parse(struct slice text,
                            uint8_t host_id[ENVELOPE_HOST_ID_LEN]) MUST_CHECK;
void envelope_host_id_write(const uint8_t host_id[ENVELOPE_HOST_ID_LEN], char text[32]);
