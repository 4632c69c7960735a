/*
 * hiredis' reader without its objects: replies of Redis are seen where they lie in the reader's buffer.
 *
 *     bytes ─▶ redisReader ─▶ what matters of one reply:  type, integer, text     (":3", "+OK", "-ERR …")
 *                                                         word, channel, payload  (["message", ch, payload])
 *
 * Of an array only the first three elements count, as far as they are strings; that is all that pub/sub and
 * ROLE need. The payload is not kept: it is handed over while it lies in the buffer.
 */
#pragma once

#include "shared/slice.h"

#include <stdint.h>

#define LINK_READER_TEXT_MAX 512

struct redisReader;

enum link_reply_type {
    LINK_REPLY_OTHER, /* nil, a bulk string at the top */
    LINK_REPLY_INTEGER,
    LINK_REPLY_STATUS,
    LINK_REPLY_ERROR,
    LINK_REPLY_ARRAY
};

struct link_reply {
    enum link_reply_type type;
    int64_t integer;
    size_t text_len;
    char text[LINK_READER_TEXT_MAX]; /* STATUS, ERROR: cut; ARRAY: the first element */
    size_t channel_len;
    char channel[LINK_READER_TEXT_MAX]; /* ARRAY: the second element */
    bool is_message;                    /* its payload has been handed over */
};

struct link_reader_callbacks {
    /* A payload of ["message", channel, payload]. Must not free the reader. */
    void (*on_message)(void *context, struct slice channel, struct slice payload);
    /* Every reply, messages too, when it is whole; false: stop, nothing more is wanted. */
    bool (*on_reply)(void *context, const struct link_reply *reply);
    void *context;
};

struct link_reader;

/* `reply_max`: more bytes than this for one reply are an error. */
struct link_reader *link_reader_new(size_t reply_max,
                                    const struct link_reader_callbacks *callbacks);
void link_reader_free(struct link_reader *reader);

/* Calls back for each whole reply. False: not the Redis protocol, or over reply_max. */
bool link_reader_feed(struct link_reader *reader, struct slice bytes) MUST_CHECK;
