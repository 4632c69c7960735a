/*
 * What the parts of the transcoder share: the bytes that are written, which are bounded, and why not.
 *
 *     transcoder ─▶ json_from_pickle │ pickle_from_json │ json_from_json ─▶ struct transcoding: bytes, refused
 *
 * Writing past the bound is remembered and otherwise does nothing, so that only loops need to look.
 */
#pragma once

#include "broker/message.h"

#include <stdlib.h>

struct transcoding {
    struct slice payload;
    enum message_dialect from;
    enum message_dialect to;
    unsigned depth_max;
    struct scan_scratch *scratch; /* borrowed */

    char *bytes; /* owned by the transcoder, used again */
    size_t len;
    size_t size;
    size_t len_max;
    bool is_full;

    char refused[MESSAGE_REFUSED_MAX]; /* empty: not refused */
};

/* Each returns false, so that it can be returned. `what` is static text; `offset` in the payload. */
bool transcoding_refuse(struct transcoding *transcoding, const char *what, size_t offset);

/* Room for `len` more bytes; false when the output would become too long. */
bool transcoding_grow(struct transcoding *transcoding, size_t len) MUST_CHECK;

/* A place for at most `len` bytes, NULL when there is none; tell with transcoding_wrote how many it was. */
static inline char *transcoding_reserve(struct transcoding *transcoding, size_t len)
{
    if (transcoding->size - transcoding->len < len && !transcoding_grow(transcoding, len))
        return NULL;
    return transcoding->bytes + transcoding->len;
}

static inline void transcoding_wrote(struct transcoding *transcoding, size_t len)
{
    transcoding->len += len;
}

static inline void transcoding_put(struct transcoding *transcoding, struct slice bytes)
{
    char *place = transcoding_reserve(transcoding, bytes.len);
    if (place == NULL)
        return;
    if (bytes.len > 0)
        memcpy(place, bytes.data, bytes.len);
    transcoding->len += bytes.len;
}

static inline void transcoding_put_byte(struct transcoding *transcoding, char byte)
{
    char *place = transcoding_reserve(transcoding, 1);
    if (place == NULL)
        return;
    *place = byte;
    transcoding->len++;
}
