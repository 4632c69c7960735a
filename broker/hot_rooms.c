#include "broker/hot_rooms.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

/* A few hundred 8-byte compares in a row cost less than a table would. */
static struct hot_room *find(struct hot_rooms *hot, uint64_t hash)
{
    for (size_t i = 0; i < hot->count; i++)
        if (hot->rooms[i].hash == hash)
            return &hot->rooms[i];
    return NULL;
}

static struct hot_room *smallest(struct hot_rooms *hot)
{
    struct hot_room *least = &hot->rooms[0];
    for (size_t i = 1; i < hot->count; i++)
        if (hot->rooms[i].count < least->count)
            least = &hot->rooms[i];
    return least;
}

void hot_rooms_count(struct hot_rooms *hot, struct slice namespace, struct slice room)
{
    uint64_t hash = XXH3_64bits_withSeed(room.data, room.len,
                                         XXH3_64bits(namespace.data, namespace.len));
    struct hot_room *found = find(hot, hash);
    if (found != NULL) {
        found->count++;
        return;
    }
    if (hot->count < HOT_ROOMS_MAX) {
        found = &hot->rooms[hot->count++];
        *found = (struct hot_room){0};
    } else {
        found = smallest(hot);
        found->error = found->count;
    }
    found->hash = hash;
    found->count++;
    struct slice shown_namespace = slice_to(namespace, HOT_ROOMS_NAME_MAX / 2 - 1);
    struct slice shown_room =
        slice_to(room, HOT_ROOMS_NAME_MAX - shown_namespace.len - 1);
    memcpy(found->name, shown_namespace.data, shown_namespace.len);
    found->name[shown_namespace.len] = ' ';
    memcpy(found->name + shown_namespace.len + 1, shown_room.data, shown_room.len);
    found->len = shown_namespace.len + 1 + shown_room.len;
}

void hot_rooms_fade(struct hot_rooms *hot)
{
    for (size_t i = 0; i < hot->count; i++) {
        hot->rooms[i].count /= 2;
        hot->rooms[i].error /= 2;
    }
}

static int by_count(const void *a, const void *b)
{
    const struct hot_room *const *first = a;
    const struct hot_room *const *second = b;
    return ((*first)->count < (*second)->count) - ((*first)->count > (*second)->count);
}

size_t hot_rooms_rank(const struct hot_rooms *hot,
                      const struct hot_room *ranked[HOT_ROOMS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < hot->count; i++)
        if (hot->rooms[i].count > 0)
            ranked[count++] = &hot->rooms[i];
    qsort(ranked, count, sizeof(ranked[0]), by_count);
    return count;
}
