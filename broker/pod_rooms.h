/*
 * Which rooms the pods with a client manager need.
 *
 *     pod ──▶ pod_room ◀── room          pod:   one process with a client manager (broker/pods.h)
 *              one for each pair         room:  (channel, namespace, canonical room) that at least one pod needs;
 *                                               its first and its last pod are told to the owner
 *
 *     message ─▶ pod_rooms_select ─▶ the pods of its rooms are marked ─▶ pod_is_selected, subscriber by subscriber
 *
 * The room "" is everybody of the namespace. A pod that has not told all its rooms is not filtered: it is selected
 * for every message. So is every pod for a message of which the broker cannot tell whom it is for.
 */
#pragma once

#include "broker/envelope.h"

#include <sys/queue.h>

struct pod_room;
struct pod_rooms;
LIST_HEAD(pod_room_list, pod_room);

/* Embedded in a pod; set up by pod_rooms_init. */
struct pod_filter {
    struct slice channel;                  /* borrowed */
    uint8_t host_id[ENVELOPE_HOST_ID_LEN]; /* of its client manager */
    bool is_filtered;                      /* false: gets everything */
    bool skips_own; /* what was published under its host_id it has handled already */
    uint64_t mark;
    struct pod_room_list rooms;
    unsigned count;
};

struct pod_rooms_callbacks {
    /* The room got its first pod: where its messages come from; given back when its last has gone. */
    uint32_t (*on_first)(void *context, struct slice channel, struct slice namespace,
                         struct slice room);
    void (*on_last)(void *context, uint32_t partition);
    void *context;
};

struct pod_rooms *pod_rooms_new(const struct pod_rooms_callbacks *callbacks);

/* No pod may have a room any more. */
void pod_rooms_free(struct pod_rooms *rooms);

void pod_rooms_init(struct pod_filter *pod, struct slice channel,
                    const uint8_t host_id[ENVELOPE_HOST_ID_LEN]);

/* The pod needs the room; seen in this generation of its snapshots. Returns the room's partition. */
uint32_t pod_rooms_add(struct pod_rooms *rooms, struct pod_filter *pod,
                       struct slice namespace, struct slice room, uint64_t generation);

/* No effect when it does not need it. */
void pod_rooms_remove(struct pod_rooms *rooms, struct pod_filter *pod,
                      struct slice namespace, struct slice room);

/* Those that were not seen in this generation. */
void pod_rooms_remove_older(struct pod_rooms *rooms, struct pod_filter *pod,
                            uint64_t generation);
void pod_rooms_remove_all(struct pod_rooms *rooms, struct pod_filter *pod);

/* `to`, which has none, needs what `from` needs, and `from` nothing. The channel is the same. */
void pod_rooms_move(struct pod_filter *from, struct pod_filter *to);

/* From now on pod_is_selected() is about this message. `rooms` of the envelope, or `room_bytes`. */
void pod_rooms_select(struct pod_rooms *rooms, const struct envelope *envelope);
bool pod_is_selected(const struct pod_rooms *rooms, const struct pod_filter *pod);

enum pod_entry {
    POD_ENTRY_NOT_HERE, /* no pod needs the first room */
    POD_ENTRY_WAITS,
    POD_ENTRY_DONE, /* each pod that needs the first needs the second too; *partition is that one's */
};

/* A client, whose own room is `sid`, was put into `room`: does its pod need that by now? */
enum pod_entry pod_rooms_look_at_entry(const struct pod_rooms *rooms,
                                       struct slice channel, struct slice namespace,
                                       struct slice sid, struct slice room,
                                       uint32_t *partition);

/* Aborts when the two directions and the counts do not agree. For tests. */
void pod_rooms_check(const struct pod_rooms *rooms);
