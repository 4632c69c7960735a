/*
 * JSON into an evbuffer, well formed by construction: commas, quotes and escapes are ours.
 *
 *     struct json_writer json;
 *     json_init(&json, out);
 *     json_object_begin(&json, NULL);
 *     json_text(&json, "name", SLICE("chat"));
 *     json_array_begin(&json, "endpoints"); … json_array_end(&json);
 *     json_object_end(&json);
 *
 * `name` is the key inside an object (plain ASCII of ours) and NULL inside an array and at the top.
 * Text may be any bytes: what is not UTF-8 becomes U+FFFD, control bytes are escaped.
 */
#pragma once

#include "shared/slice.h"

struct evbuffer;

#define JSON_DEPTH_MAX 32

struct json_writer {
    struct evbuffer *out; /* borrowed */
    unsigned depth;
    bool has_members[JSON_DEPTH_MAX];
};

void json_init(struct json_writer *json, struct evbuffer *out);

void json_object_begin(struct json_writer *json, const char *name);
void json_object_end(struct json_writer *json);
void json_array_begin(struct json_writer *json, const char *name);
void json_array_end(struct json_writer *json);

void json_text(struct json_writer *json, const char *name, struct slice text);
void json_number(struct json_writer *json, const char *name, int64_t number);
void json_unsigned(struct json_writer *json, const char *name, uint64_t number);
void json_decimal(struct json_writer *json, const char *name,
                  double number); /* NaN, Inf: null */
void json_bool(struct json_writer *json, const char *name, bool truth);
void json_null(struct json_writer *json, const char *name);

/* Only the quotes and escapes: `text` as one JSON string. */
void json_write_quoted(struct evbuffer *out, struct slice text);
