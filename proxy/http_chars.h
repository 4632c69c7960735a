/*
 * Classes of bytes in HTTP and URLs: one table, one bit a class. Octets, not a character
 * set (RFC 9112 2.2); nothing here asks the locale.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>

enum http_char {
    HTTP_CHAR_TOKEN = 1, /* tchar, RFC 9110 5.6.2 */
    HTTP_CHAR_VALUE = 2, /* HTAB, SP, VCHAR, obs-text: RFC 9110 5.5 */
    /* VCHAR but " # < > \ ?: RFC 3986 and what browsers leave as it is in a path */
    HTTP_CHAR_PATH = 4,
    HTTP_CHAR_QUERY = 8,       /* the same with \ and ? */
    HTTP_CHAR_UNRESERVED = 16, /* A-Z a-z 0-9 - . _ ~: RFC 3986 2.3 */
    HTTP_CHAR_BASE64URL = 32,  /* A-Z a-z 0-9 - _ */
    HTTP_CHAR_HEX = 64,
    HTTP_CHAR_DIGIT = 128,
};

extern const uint8_t http_chars[256];

static inline bool http_char_is(char byte, enum http_char sort)
{
    return (http_chars[(unsigned char)byte] & sort) != 0;
}

/* True when every byte of `text` is of that sort; an empty text is. */
bool http_chars_only(struct slice text, enum http_char sort);

/* The value of a hexadecimal digit. */
static inline unsigned http_hex_value(char digit)
{
    return digit <= '9' ? (unsigned)(digit - '0') : (unsigned)((digit | 0x20) - 'a' + 10);
}
