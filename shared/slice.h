/*
 * Borrowed text: a pointer and a length, never NUL-terminated. A slice lives as long as the buffer
 * it points into; whoever keeps one longer copies it (slice_dup).
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>
#include <string.h>

struct slice {
    const char *data;
    size_t len;
};

/* The slice of a string literal, usable as a constant initialiser with its braces. */
#define SLICE_INIT(literal)                                                              \
    {                                                                                    \
        (literal), sizeof(literal) - 1                                                   \
    }
#define SLICE(literal) ((struct slice)SLICE_INIT(literal))

/* For printf: "%.*s", SLICE_ARGS(x). */
#define SLICE_ARGS(slice) (int)(slice).len, (slice).data

static inline struct slice slice_of(const void *data, size_t len)
{
    return (struct slice){data, len};
}

static inline struct slice slice_from_text(const char *text)
{
    return (struct slice){text, strlen(text)};
}

static inline bool slice_equals(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Equal when ASCII letters are compared without case. */
bool slice_equals_nocase(struct slice a, struct slice b);

bool slice_starts_with(struct slice text, struct slice prefix);
bool slice_ends_with(struct slice text, struct slice suffix);

/* From `offset` to the end; empty when the slice is not that long. */
static inline struct slice slice_from(struct slice text, size_t offset)
{
    offset = min_size(offset, text.len);
    return offset == 0 ? text : slice_of(text.data + offset, text.len - offset);
}

/* At most the first `len` bytes. */
static inline struct slice slice_to(struct slice text, size_t len)
{
    return slice_of(text.data, min_size(len, text.len));
}

/* Place of the first / last `byte`, or text.len when there is none. */
size_t slice_find(struct slice text, char byte);
size_t slice_find_last(struct slice text, char byte);

/* Takes the next part of `*rest` up to `separator` (not included) into `*part` and moves `*rest`
 * behind it; false when the last part has been taken (rest->data is NULL then). There is one part more
 * than separators: "a,,b" gives "a", "", "b"; "a," gives "a", ""; "" gives "". */
bool slice_cut(struct slice *rest, char separator, struct slice *part);

/* Without the spaces and tabs at both ends. */
struct slice slice_trim(struct slice text);

/* The whole slice as a decimal number, digits only, in minimum..maximum. False leaves *number alone. */
bool slice_to_number(struct slice text, uint64_t minimum, uint64_t maximum,
                     uint64_t *number) MUST_CHECK;

/* A NUL-terminated copy; the caller owns it. */
char *slice_dup(struct slice text);

/* How many bytes at the start of `text` are one well-formed UTF-8 character (RFC 3629: no surrogates, no
 * overlong forms, up to U+10FFFF): 1..4, or 0 if none. */
size_t slice_utf8_len(struct slice text);
