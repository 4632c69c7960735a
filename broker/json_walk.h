/*
 * Walks over JSON that json_scan has read whole: it is well formed, so nothing here can fail.
 *
 *     struct json_walk walk = {payload, 0};
 *     json_walk_enter(&walk);                          at the first item, or behind the end (false)
 *     do { json_walk_member(&walk, &key); json_walk_value(&walk, &value); } while (json_walk_more(&walk));
 */
#pragma once

#include "shared/slice.h"

struct json_walk {
    struct slice text; /* proved */
    size_t at;
};

/* The first byte of the value that comes next. */
char json_walk_peek(struct json_walk *walk);

/* Past the bracket of the list or object that comes next. False: it is empty, and passed. */
bool json_walk_enter(struct json_walk *walk);

/* Behind an item: true past a comma, false past the bracket that ends it. */
bool json_walk_more(struct json_walk *walk);

/* Past a text, which comes next: *raw is what is between its quotes. */
void json_walk_text(struct json_walk *walk, struct slice *raw);

/* The same and past the colon; the known key that it names, or KEY_COUNT. */
void json_walk_key(struct json_walk *walk, struct slice *raw);

/* Past any value: *value is all of its text. */
void json_walk_value(struct json_walk *walk, struct slice *value);

/* What Python's bool() says of a value. */
bool json_walk_is_true(struct slice value);
