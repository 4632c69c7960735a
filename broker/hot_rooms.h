/*
 * The rooms that carry most messages, by the space-saving rule: HOT_ROOMS_MAX counters; a room without one takes
 * over the smallest and its count. So a count is at most its `error` too high, and every room with more
 * than 1/HOT_ROOMS_MAX of all messages is among them. Counts are halved now and then, so that they tell
 * about the present.
 */
#pragma once

#include "shared/slice.h"

#define HOT_ROOMS_MAX      64
#define HOT_ROOMS_NAME_MAX 128

struct hot_room {
    uint64_t hash;
    uint64_t count;
    uint64_t error;
    size_t len;
    char name[HOT_ROOMS_NAME_MAX]; /* "namespace room", cut */
};

/* All zero is empty. */
struct hot_rooms {
    struct hot_room rooms[HOT_ROOMS_MAX];
    size_t count; /* of rooms */
};

/* A message to a canonical room of a namespace. */
void hot_rooms_count(struct hot_rooms *hot, struct slice namespace, struct slice room);

/* Halves all counts. */
void hot_rooms_fade(struct hot_rooms *hot);

/* The busiest first; at most HOT_ROOMS_MAX. Returns how many. */
size_t hot_rooms_rank(const struct hot_rooms *hot,
                      const struct hot_room *ranked[HOT_ROOMS_MAX]);
