/*
 * See pod_rooms.h. One hash table of rooms with chaining, which grows by doubling; the pods of a room are a list,
 * seldom longer than the pods of a node.
 */
#include "broker/pod_rooms.h"

#include "broker/message.h"
#include "shared/base.h"
#include "shared/timing.h"

#include <stdlib.h>
#include <xxhash.h>

#define FIRST_BUCKETS 64

struct room {
    struct room *next_in_bucket;
    uint64_t hash;
    uint32_t partition;
    struct pod_room_list pods;
    struct slice channel, namespace, name; /* in `bytes` */
    char bytes[];
};

struct pod_room {
    struct pod_filter *pod;
    struct room *room;
    uint64_t generation;
    LIST_ENTRY(pod_room) of_pod;
    LIST_ENTRY(pod_room) of_room;
};

struct pod_rooms {
    struct pod_rooms_callbacks callbacks;
    struct room **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    uint64_t mark;
    uint64_t seed;
    const struct envelope *message; /* borrowed; of pod_rooms_select */
    bool is_for_all;
};

/* Rooms come from clients' clients: without the seed they could choose ones that share a bucket. */
static uint64_t hash_of(const struct pod_rooms *rooms, struct slice channel,
                        struct slice namespace, struct slice name)
{
    uint64_t hash = XXH3_64bits_withSeed(channel.data, channel.len, rooms->seed);
    hash = XXH3_64bits_withSeed(namespace.data, namespace.len, hash);
    return XXH3_64bits_withSeed(name.data, name.len, hash);
}

static struct room *room_find(const struct pod_rooms *rooms, struct slice channel,
                              struct slice namespace, struct slice name, uint64_t hash)
{
    struct room *room = rooms->buckets[hash & (rooms->bucket_count - 1)];
    for (; room != NULL; room = room->next_in_bucket)
        if (room->hash == hash && slice_equals(room->name, name) &&
            slice_equals(room->namespace, namespace) &&
            slice_equals(room->channel, channel))
            return room;
    return NULL;
}

static void grow(struct pod_rooms *rooms)
{
    size_t count = rooms->bucket_count * 2;
    struct room **buckets = must_calloc(count, sizeof(struct room *));
    for (size_t i = 0; i < rooms->bucket_count; i++) {
        struct room *next;
        for (struct room *room = rooms->buckets[i]; room != NULL; room = next) {
            next = room->next_in_bucket;
            struct room **bucket = &buckets[room->hash & (count - 1)];
            room->next_in_bucket = *bucket;
            *bucket = room;
        }
    }
    free(rooms->buckets);
    rooms->buckets = buckets;
    rooms->bucket_count = count;
}

static struct slice put(char **at, struct slice text)
{
    struct slice copy = slice_of(*at, text.len);
    if (text.len > 0)
        memcpy(*at, text.data, text.len);
    *at += text.len;
    return copy;
}

static struct room *room_new(struct pod_rooms *rooms, struct slice channel,
                             struct slice namespace, struct slice name, uint64_t hash)
{
    if (rooms->count >= rooms->bucket_count)
        grow(rooms);
    struct room *room =
        must_calloc(1, sizeof(*room) + channel.len + namespace.len + name.len);
    char *at = room->bytes;
    room->channel = put(&at, channel);
    room->namespace = put(&at, namespace);
    room->name = put(&at, name);
    room->hash = hash;
    LIST_INIT(&room->pods);
    struct room **bucket = &rooms->buckets[hash & (rooms->bucket_count - 1)];
    room->next_in_bucket = *bucket;
    *bucket = room;
    rooms->count++;
    room->partition = rooms->callbacks.on_first(rooms->callbacks.context, room->channel,
                                                room->namespace, room->name);
    return room;
}

static void room_free(struct pod_rooms *rooms, struct room *room)
{
    struct room **place = &rooms->buckets[room->hash & (rooms->bucket_count - 1)];
    while (*place != room)
        place = &(*place)->next_in_bucket;
    *place = room->next_in_bucket;
    rooms->count--;
    rooms->callbacks.on_last(rooms->callbacks.context, room->partition);
    free(room);
}

static struct pod_room *pair_find(const struct room *room, const struct pod_filter *pod)
{
    struct pod_room *pair;
    LIST_FOREACH(pair, &room->pods, of_room)
    if (pair->pod == pod)
        return pair;
    return NULL;
}

static void pair_free(struct pod_rooms *rooms, struct pod_room *pair)
{
    struct room *room = pair->room;
    LIST_REMOVE(pair, of_pod);
    LIST_REMOVE(pair, of_room);
    pair->pod->count--;
    free(pair);
    if (LIST_EMPTY(&room->pods))
        room_free(rooms, room);
}

struct pod_rooms *pod_rooms_new(const struct pod_rooms_callbacks *callbacks)
{
    struct pod_rooms *rooms = must_calloc(1, sizeof(*rooms));
    rooms->callbacks = *callbacks;
    rooms->seed = timing_random();
    rooms->bucket_count = FIRST_BUCKETS;
    rooms->buckets = must_calloc(FIRST_BUCKETS, sizeof(struct room *));
    return rooms;
}

void pod_rooms_free(struct pod_rooms *rooms)
{
    check(rooms->count == 0);
    free(rooms->buckets);
    free(rooms);
}

void pod_rooms_init(struct pod_filter *pod, struct slice channel,
                    const uint8_t host_id[ENVELOPE_HOST_ID_LEN])
{
    *pod = (struct pod_filter){.channel = channel};
    memcpy(pod->host_id, host_id, ENVELOPE_HOST_ID_LEN);
    LIST_INIT(&pod->rooms);
}

uint32_t pod_rooms_add(struct pod_rooms *rooms, struct pod_filter *pod,
                       struct slice namespace, struct slice name, uint64_t generation)
{
    uint64_t hash = hash_of(rooms, pod->channel, namespace, name);
    struct room *room = room_find(rooms, pod->channel, namespace, name, hash);
    if (room == NULL)
        room = room_new(rooms, pod->channel, namespace, name, hash);
    struct pod_room *pair = pair_find(room, pod);
    if (pair == NULL) {
        pair = must_calloc(1, sizeof(*pair));
        pair->pod = pod;
        pair->room = room;
        LIST_INSERT_HEAD(&pod->rooms, pair, of_pod);
        LIST_INSERT_HEAD(&room->pods, pair, of_room);
        pod->count++;
    }
    pair->generation = generation;
    return room->partition;
}

void pod_rooms_remove(struct pod_rooms *rooms, struct pod_filter *pod,
                      struct slice namespace, struct slice name)
{
    uint64_t hash = hash_of(rooms, pod->channel, namespace, name);
    const struct room *room = room_find(rooms, pod->channel, namespace, name, hash);
    struct pod_room *pair = room != NULL ? pair_find(room, pod) : NULL;
    if (pair != NULL)
        pair_free(rooms, pair);
}

void pod_rooms_remove_older(struct pod_rooms *rooms, struct pod_filter *pod,
                            uint64_t generation)
{
    struct pod_room *next;
    for (struct pod_room *pair = LIST_FIRST(&pod->rooms); pair != NULL; pair = next) {
        next = LIST_NEXT(pair, of_pod);
        if (pair->generation != generation)
            pair_free(rooms, pair);
    }
}

void pod_rooms_remove_all(struct pod_rooms *rooms, struct pod_filter *pod)
{
    while (!LIST_EMPTY(&pod->rooms))
        pair_free(rooms, LIST_FIRST(&pod->rooms));
}

void pod_rooms_move(struct pod_filter *from, struct pod_filter *to)
{
    check(LIST_EMPTY(&to->rooms));
    struct pod_room *pair;
    while ((pair = LIST_FIRST(&from->rooms)) != NULL) {
        LIST_REMOVE(pair, of_pod);
        pair->pod = to;
        LIST_INSERT_HEAD(&to->rooms, pair, of_pod);
    }
    to->count = from->count;
    from->count = 0;
}

static void mark(struct pod_rooms *rooms, const struct envelope *envelope,
                 struct slice name)
{
    const struct room *room =
        room_find(rooms, envelope->channel, envelope->namespace, name,
                  hash_of(rooms, envelope->channel, envelope->namespace, name));
    if (room == NULL)
        return;
    struct pod_room *pair;
    LIST_FOREACH(pair, &room->pods, of_room)
    pair->pod->mark = rooms->mark;
}

/* enter_room and leave_room are for who has the sid, which is the second address; all else for all its addresses. */
static void mark_all(struct pod_rooms *rooms, const struct envelope *envelope)
{
    bool is_for_sid =
        envelope->method == METHOD_ENTER_ROOM || envelope->method == METHOD_LEAVE_ROOM;
    struct slice bytes = envelope->room_bytes;
    for (size_t i = 0; i < envelope->room_count; i++) {
        struct slice name;
        if (envelope->rooms != NULL)
            name = envelope->rooms[i];
        else if (!envelope_next_room(&bytes, &name))
            return;
        if (!is_for_sid || i == 1)
            mark(rooms, envelope, name);
    }
}

void pod_rooms_select(struct pod_rooms *rooms, const struct envelope *envelope)
{
    rooms->mark++;
    rooms->message = envelope;
    rooms->is_for_all = false;
    switch (envelope->method) {
    case METHOD_EMIT:
    case METHOD_CLOSE_ROOM:
        if (envelope->rooms_known && envelope->room_count == 0)
            mark(rooms, envelope, SLICE(""));
        break;
    case METHOD_DISCONNECT:
    case METHOD_ENTER_ROOM:
    case METHOD_LEAVE_ROOM:
        rooms->is_for_all = envelope->room_count == 0;
        break;
    case METHOD_CALLBACK:
        rooms->is_for_all = (envelope->flags & ENVELOPE_HAS_HOST) == 0;
        return;
    default:
        rooms->is_for_all = true;
    }
    if (!envelope->rooms_known || envelope->namespace.len == 0)
        rooms->is_for_all = true;
    else if (rooms->count > 0)
        mark_all(rooms, envelope);
}

bool pod_is_selected(const struct pod_rooms *rooms, const struct pod_filter *pod)
{
    const struct envelope *message = rooms->message;
    bool is_own = (message->flags & ENVELOPE_HAS_HOST) != 0 &&
                  memcmp(message->host_id, pod->host_id, ENVELOPE_HOST_ID_LEN) == 0;
    if (message->method == METHOD_CALLBACK)
        return is_own || rooms->is_for_all || !pod->is_filtered;
    if (is_own && pod->skips_own)
        return false;
    return rooms->is_for_all || !pod->is_filtered || pod->mark == rooms->mark;
}

enum pod_entry pod_rooms_look_at_entry(const struct pod_rooms *rooms,
                                       struct slice channel, struct slice namespace,
                                       struct slice sid, struct slice room,
                                       uint32_t *partition)
{
    const struct room *own = room_find(rooms, channel, namespace, sid,
                                       hash_of(rooms, channel, namespace, sid));
    if (own == NULL)
        return POD_ENTRY_NOT_HERE;
    const struct room *entered = room_find(rooms, channel, namespace, room,
                                           hash_of(rooms, channel, namespace, room));
    if (entered == NULL)
        return POD_ENTRY_WAITS;
    const struct pod_room *pair;
    LIST_FOREACH(pair, &own->pods, of_room)
    if (pair_find(entered, pair->pod) == NULL)
        return POD_ENTRY_WAITS;
    *partition = entered->partition;
    return POD_ENTRY_DONE;
}

void pod_rooms_check(const struct pod_rooms *rooms)
{
    size_t count = 0;
    for (size_t i = 0; i < rooms->bucket_count; i++)
        for (const struct room *room = rooms->buckets[i]; room != NULL;
             room = room->next_in_bucket) {
            check(!LIST_EMPTY(&room->pods));
            check(room_find(rooms, room->channel, room->namespace, room->name,
                            room->hash) == room);
            const struct pod_room *pair;
            LIST_FOREACH(pair, &room->pods, of_room)
            {
                check(pair->room == room);
                const struct pod_room *other;
                unsigned of_pod = 0;
                bool is_there = false;
                LIST_FOREACH(other, &pair->pod->rooms, of_pod)
                {
                    of_pod++;
                    is_there |= other == pair;
                }
                check(is_there && of_pod == pair->pod->count);
            }
            count++;
        }
    check(count == rooms->count);
}
