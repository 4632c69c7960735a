/*
 * JSON texts, numbers and bytes as Python's json module writes them, into a transcoding.
 *
 *   texts      escaped are quotes, backslashes, controls and lone surrogates; all else is UTF-8
 *   integers   any length, up to the 4,300 digits that Python reads
 *   floats     Python's repr; NaN, Infinity, -Infinity
 *   bytes      standard base64, padded
 */
#pragma once

#include "broker/transcoding.h"

void json_text_write(struct transcoding *transcoding, struct slice text);
void json_integer_write(struct transcoding *transcoding, int64_t number);
void json_float_write(struct transcoding *transcoding, double number);
void json_base64_write(struct transcoding *transcoding, struct slice bytes);

/* Two's complement, little endian, as in pickles. False: more digits than Python reads. */
bool json_long_write(struct transcoding *transcoding, struct slice bytes) MUST_CHECK;

/* The bytes behind a base64 text without its quotes (at most 3/4 of its length) to `bytes`; false when it is
 * not padded standard base64. */
bool json_base64_read(struct slice text, char *bytes, size_t *len) MUST_CHECK;
