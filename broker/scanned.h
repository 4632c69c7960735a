/*
 * What both scanners (pickle_scan, json_scan) find in the outermost dict of a payload: the values of
 * the keys that python-socketio writes, by type, the texts decoded to UTF-8.
 *
 *     payload ─▶ pickle_scan ┐
 *                            ├─▶ struct scanned ─▶ message
 *     payload ─▶ json_scan ──┘
 *
 * Texts are UTF-8 in which a lone surrogate is written as its three bytes (ED A0 80 … ED BF BF), in
 * both encodings, so that equal Python strings are equal bytes.
 */
#pragma once

#include "shared/slice.h"

#include <stdint.h>

/* Keys of a message; the name of each is in scanned_key_names. */
enum scanned_key {
    KEY_METHOD,
    KEY_EVENT,
    KEY_DATA,
    KEY_BINARY,
    KEY_NAMESPACE,
    KEY_ROOM,
    KEY_SKIP_SID,
    KEY_CALLBACK,
    KEY_HOST_ID,
    KEY_SID,
    KEY_ID,
    KEY_ARGS,
    KEY_COUNT,
};

enum value_type {
    VALUE_ABSENT, /* the dict has no such key */
    VALUE_NONE,
    VALUE_BOOL,    /* integer is 0 or 1 */
    VALUE_INTEGER, /* fits int64 */
    VALUE_BIG_INTEGER,
    VALUE_FLOAT,
    VALUE_TEXT,
    VALUE_BYTES, /* bytes or bytearray; pickle only */
    VALUE_LIST,  /* list or tuple; len = number of items */
    VALUE_OTHER, /* dict, set, object */
};

struct scanned_value {
    enum value_type type;
    union {
        int64_t integer;
        double real;
        struct slice text; /* TEXT, BYTES: borrowed from the payload or the scratch */
        size_t len;        /* LIST */
    };
};

struct scanned {
    bool is_dict; /* false: whole and well-formed, but not a dict: no value is set */

    /* TEXT is resolved (text set) for method, namespace, room, host_id and sid; of the other keys only
     * the type is told. */
    struct scanned_value values[KEY_COUNT];

    /* The items of `room` where it is a LIST; NULL when there are more than fit the scratch. */
    const struct scanned_value *room_items; /* borrowed from the scratch */

    /* JSON: the first item of `data` where that is a LIST, else ABSENT. */
    enum value_type data_first;
    /* JSON: `binary` is true. */
    bool is_binary;
};

extern const struct slice scanned_key_names[KEY_COUNT];

/* The key of that name, or KEY_COUNT. */
enum scanned_key scanned_key_find(struct slice name);

bool scanned_utf8_is_valid_slow(const char *bytes, size_t len);

/* Is this UTF-8 as Python's surrogatepass reads it: lone surrogates allowed, all else strict? Most texts are
 * short and ASCII: that is seen here. */
static inline bool scanned_utf8_is_valid(const char *bytes, size_t len)
{
    const uint64_t tops = 0x8080808080808080u;
    uint64_t head = 0;
    uint64_t tail = 0;
    if (len > 16)
        return scanned_utf8_is_valid_slow(bytes, len);
    if (len >= 8) {
        memcpy(&head, bytes, 8);
        memcpy(&tail, bytes + len - 8, 8);
    } else if (len >= 4) {
        memcpy(&head, bytes, 4);
        memcpy(&tail, bytes + len - 4, 4);
    } else if (len > 0) {
        head = (uint64_t)(unsigned char)bytes[0] | (unsigned char)bytes[len / 2] |
               (unsigned char)bytes[len - 1];
    }
    return ((head | tail) & tops) == 0 || scanned_utf8_is_valid_slow(bytes, len);
}

/* Bytes (2 to 4) of the well-formed character that begins at a byte of 80 or more, 0 if none. */
size_t scanned_utf8_len(const unsigned char *bytes, size_t len);

/* Writes one code point (at most 10ffff, surrogates as any other); returns 1 to 4. */
size_t scanned_utf8_write(uint32_t code_point, char *bytes);
