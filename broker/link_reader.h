/*
 * What Redis sends, seen where it was read to: no object and no copy for a reply.
 *
 *     recv ─▶ [ whole reply │ whole reply │ part of one ]      one buffer of the reader's own
 *               └────────── told ────────┘ └ moved to the front, and the next bytes go behind it
 *
 *     told of one reply:  type, integer, text       (":3", "+OK", "-ERR …")
 *                         word, channel, payload    (["message", channel, payload])
 *
 * Of an array only the first three elements count, as far as they are strings; that is all that pub/sub and
 * ROLE need. RESP2 only: a link never says HELLO 3.
 */
#pragma once

#include "shared/slice.h"

#include <stdint.h>

enum link_reply_type {
    LINK_REPLY_OTHER, /* null, a bulk string at the top */
    LINK_REPLY_INTEGER,
    LINK_REPLY_STATUS,
    LINK_REPLY_ERROR,
    LINK_REPLY_ARRAY
};

/* Slices live until the callback returns. */
struct link_reply {
    enum link_reply_type type;
    int64_t integer;
    struct slice text; /* STATUS, ERROR; ARRAY: the first element; OTHER: a bulk string */
    struct slice channel; /* ARRAY: the second element */
};

struct link_reader_callbacks {
    /* ["message", channel, payload]. Both must not free the reader, and say false to stop: nothing more
     * is wanted. */
    bool (*on_message)(void *context, struct slice channel, struct slice payload);
    /* ["message", channel, payload] with a payload of `len` bytes, over reply_max: `start` are its first bytes, at most
     * LINK_READER_START; the rest is read past. */
    bool (*on_too_long)(void *context, struct slice channel, struct slice start,
                        size_t len);
    /* Any other reply. */
    bool (*on_reply)(void *context, const struct link_reply *reply);
    void *context;
};

struct link_reader;

/* Of a message that is too long: so much is seen. */
#define LINK_READER_START ((size_t)64)

/* `read_size`: bytes of one read. `reply_max`: a message of more bytes than this is read past and never kept, anything else
 * of more is an error. */
struct link_reader *link_reader_new(size_t read_size, size_t reply_max,
                                    const struct link_reader_callbacks *callbacks);
void link_reader_free(struct link_reader *reader);

/* Where the next bytes are to be put, and how many at most (never none). */
char *link_reader_room(struct link_reader *reader, size_t *size);

/* `len` bytes were put there: calls back for each reply that is whole now. False: not the Redis protocol, or
 * over reply_max. */
bool link_reader_take(struct link_reader *reader, size_t len) MUST_CHECK;

/* Bytes that came of a reply that is not whole yet. */
size_t link_reader_begun(const struct link_reader *reader);
