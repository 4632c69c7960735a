/*
 * Numbers and fields of what brokers say to each other: little endian, every length checked against the bytes
 * that are there.
 *
 *     take_*   from the front of *rest, which becomes what is behind; false when it is too short
 *     put_*    to `at`, where the caller has made room; returns the byte behind
 */
#pragma once

#include "shared/slice.h"

#include <stdint.h>

static inline char *put_little(char *at, uint64_t number, size_t width)
{
    for (size_t i = 0; i < width; i++)
        *at++ = (char)(number >> (8 * i));
    return at;
}

static inline char *put_bytes(char *at, const void *bytes, size_t len)
{
    if (len > 0)
        memcpy(at, bytes, len);
    return at + len;
}

/* A length of `width` bytes, then the bytes. */
static inline char *put_field(char *at, struct slice field, size_t width)
{
    return put_bytes(put_little(at, field.len, width), field.data, field.len);
}

static inline bool MUST_CHECK take_little(struct slice *rest, size_t width,
                                          uint64_t *number)
{
    if (rest->len < width)
        return false;
    *number = 0;
    for (size_t i = 0; i < width; i++)
        *number |= (uint64_t)(unsigned char)rest->data[i] << (8 * i);
    *rest = slice_from(*rest, width);
    return true;
}

static inline bool MUST_CHECK take_bytes(struct slice *rest, uint64_t len,
                                         struct slice *bytes)
{
    if (rest->len < len)
        return false;
    *bytes = slice_to(*rest, (size_t)len);
    *rest = slice_from(*rest, (size_t)len);
    return true;
}

static inline bool MUST_CHECK take_field(struct slice *rest, size_t width,
                                         struct slice *field)
{
    uint64_t len;
    return take_little(rest, width, &len) && take_bytes(rest, len, field);
}
