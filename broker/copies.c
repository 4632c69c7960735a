#include "broker/copies.h"

#include "broker/envelope.h"
#include "broker/message.h"
#include "broker/partition_map.h"
#include "broker/sequence.h"

#include <stdlib.h>
#include <sys/queue.h>

/* A copy of the sid's partition. */
struct copy {
    uint64_t origin;
    uint64_t message_id;
    uint64_t since; /* standing_now() */
    unsigned room_partition;
    size_t len;
    TAILQ_ENTRY(copy) of_copies;
    char bytes[];
};

struct copies {
    const struct partition_map *map;  /* borrowed */
    struct sequence_table *sequences; /* borrowed */
    struct copies_callbacks callbacks;
    TAILQ_HEAD(, copy) waiting; /* the oldest first */
    unsigned count;
    size_t bytes;
};

static void let_go(struct copies *copies, struct copy *copy)
{
    TAILQ_REMOVE(&copies->waiting, copy, of_copies);
    copies->count--;
    copies->bytes -= copy->len;
    free(copy);
}

static void release(struct copies *copies, struct copy *copy)
{
    struct envelope envelope;
    check(envelope_parse(slice_of(copy->bytes, copy->len), &envelope) == ENVELOPE_OK);
    if (sequence_is_first_copy(copies->sequences, copy->origin, copy->message_id,
                               timing_now()))
        copies->callbacks.on_release(copies->callbacks.context, &envelope);
    let_go(copies, copy);
}

static void keep(struct copies *copies, const struct envelope *envelope,
                 unsigned room_partition, struct slice bytes, uint64_t standing)
{
    struct copy *copy = must_realloc(NULL, sizeof(*copy) + bytes.len);
    copy->origin = envelope->origin;
    copy->message_id = envelope->message_id;
    copy->since = standing;
    copy->room_partition = room_partition;
    copy->len = bytes.len;
    memcpy(copy->bytes, bytes.data, bytes.len);
    TAILQ_INSERT_TAIL(&copies->waiting, copy, of_copies);
    copies->count++;
    copies->bytes += copy->len;
    while (copies->count > COPIES_MAX || copies->bytes > COPIES_BYTES_MAX)
        release(copies, TAILQ_FIRST(&copies->waiting));
}

static void drop_waiting(struct copies *copies, const struct envelope *envelope)
{
    struct copy *copy;
    TAILQ_FOREACH(copy, &copies->waiting, of_copies)
    if (copy->message_id == envelope->message_id && copy->origin == envelope->origin) {
        let_go(copies, copy);
        return;
    }
}

/* The partition of the room, which is the first of the two. The message's own where there is none: nothing to wait
 * for. */
static unsigned partition_of_copies_room(const struct copies *copies,
                                         const struct envelope *envelope)
{
    struct slice rooms = envelope->room_bytes;
    struct slice room;
    if (!envelope->rooms_known || !envelope_next_room(&rooms, &room))
        return envelope->partition;
    return partition_of_room(copies->map, envelope->channel, envelope->namespace, room);
}

struct copies *copies_new(const struct partition_map *map,
                          struct sequence_table *sequences,
                          const struct copies_callbacks *callbacks)
{
    struct copies *copies = must_calloc(1, sizeof(*copies));
    copies->map = map;
    copies->sequences = sequences;
    copies->callbacks = *callbacks;
    TAILQ_INIT(&copies->waiting);
    return copies;
}

void copies_free(struct copies *copies)
{
    while (!TAILQ_EMPTY(&copies->waiting))
        let_go(copies, TAILQ_FIRST(&copies->waiting));
    free(copies);
}

bool copies_has_two(const struct envelope *envelope)
{
    return envelope->method == METHOD_ENTER_ROOM || envelope->method == METHOD_LEAVE_ROOM;
}

bool copies_take(struct copies *copies, const struct envelope *envelope,
                 struct slice bytes, uint64_t standing)
{
    unsigned room_partition = partition_of_copies_room(copies, envelope);
    if (envelope->partition != room_partition &&
        copies->callbacks.is_received(copies->callbacks.context, envelope->origin,
                                      room_partition)) {
        if (!sequence_has_copy(copies->sequences, envelope->origin, envelope->message_id))
            keep(copies, envelope, room_partition, bytes, standing);
        return false;
    }
    drop_waiting(copies, envelope);
    return sequence_is_first_copy(copies->sequences, envelope->origin,
                                  envelope->message_id, timing_now());
}

void copies_release(struct copies *copies, unsigned partition)
{
    struct copy *next;
    for (struct copy *copy = TAILQ_FIRST(&copies->waiting); copy != NULL; copy = next) {
        next = TAILQ_NEXT(copy, of_copies);
        if (copy->room_partition == partition)
            release(copies, copy);
    }
}

void copies_expire(struct copies *copies, uint64_t standing)
{
    struct copy *copy;
    while ((copy = TAILQ_FIRST(&copies->waiting)) != NULL &&
           standing - copy->since >= COPIES_WAIT)
        release(copies, copy);
}

unsigned copies_waiting(const struct copies *copies)
{
    return copies->count;
}
