/*
 * Pods with a client manager (broker/python): the talk with them, and what they need of the shards.
 *
 *      SUBSCRIBE <channel>.sidrail.<host_id> <channel>     a manager asks for the greeting; Redis confirms and stays silent
 *        │ "hello 1 <connection>"                          greeting, a message on the first channel
 *        ▼
 *      GREETED ─SIDRAIL HELLO─▶ SPOKEN ─SIDRAIL ROOMS … 0─▶ FILTERED ◀─JOIN, LEAVE
 *        │                        │                           │
 *        │ 1 s, nothing waits     │ 1 s                       │ anything odd, a JOIN whose partitions take 1 s, ALL
 *        └────────────────────────┴──────────▶ OPEN ◀─────────┘     gets everything; "again" after 5 s asks for ROOMS
 *
 *      ROOMS, JOIN ─▶ pod_rooms ─▶ partitions ─▶ subscribed, and every broker has said where it is ─▶ "joined"
 *
 * All of it goes over the pod's subscribing connection, so that it is in one order and ends with it. SIDRAIL has no
 * replies: what the broker says are messages on the greeting's channel, which nobody else can publish to a pod.
 * (docs/interest.md has the wire form.)
 */
#pragma once

#include "broker/client.h"
#include "broker/pod_rooms.h"
#include "shared/timing.h"

struct pods;
struct publisher;

#define PODS_PROTOCOL 1

/* A manager that says nothing for so long, or whose partitions take so long, gets everything. */
#define PODS_WAIT_MAX SECONDS(1)

/* Then it is asked for its rooms again. */
#define PODS_AGAIN_AFTER SECONDS(5)

enum pod_state { POD_GREETED, POD_SPOKEN, POD_FILTERED, POD_OPEN };

struct pod_wait;
TAILQ_HEAD(pod_wait_queue, pod_wait);

struct pod {
    struct pod_filter filter;
    struct client *client; /* its subscribing connection */
    char *greeting;        /* owned; the channel that only it hears */
    struct interest
        *interest; /* in the channel; owned by its table, lives as long as the pod */
    uint64_t host_partition;
    enum pod_state state;
    uint64_t since;      /* of the state, timing_now() */
    uint64_t generation; /* of its newest snapshot */
    uint64_t sequence;   /* of its last change */
    bool has_spoken;
    bool is_held; /* not opened yet: its manager has an earlier connection */
    struct pod_wait_queue waits;
    size_t wait_count;
    TAILQ_ENTRY(pod) of_pods;
};

/* All borrowed. */
struct pods *pods_new(struct interest_table *interest, struct pod_rooms *rooms,
                      struct client_set *clients, struct publisher *publisher);

/* No pod may live any more. */
void pods_free(struct pods *pods);

/* Of "<channel>.sidrail.<32 hex digits>": the channel. False for any other name. */
bool pods_is_greeting(struct slice name, struct slice *channel);

/* The client subscribes `channel`, and `greeting` is its greeting: its interest is made, silent until HELLO. */
void pods_greet(struct pods *pods, struct client *client, struct slice channel,
                struct slice greeting);

/* Writes the greeting to where its confirmation went. */
void pods_write_greeting(const struct pods *pods, const struct pod *pod,
                         struct evbuffer *reply);

/* The pod as it was at a connection that its manager had before and on which it said HELLO; NULL if it is not waited for. */
struct pod *pods_find_earlier(const struct pods *pods, const struct pod *pod,
                              struct slice connection);

/* What a manager says. Of `earlier` (NULL: none) it has had `seen` messages. */
void pods_hello(struct pods *pods, struct pod *pod, bool skips_own, struct pod *earlier,
                uint64_t seen);

/* Pairs of namespace and canonical room ("": everybody). `is_last`: the snapshot is whole now. */
void pods_rooms(struct pods *pods, struct pod *pod, uint64_t generation, bool is_last,
                const struct slice *pairs, size_t count);
void pods_change(struct pods *pods, struct pod *pod, uint64_t generation,
                 uint64_t sequence, bool is_join, const struct slice *pairs,
                 size_t count);

/* An enter_room was delivered: its origin hears when the client's pod, if it is here, gets what is for the room. */
void pods_note_entry(struct pods *pods, const struct envelope *envelope);

/* It gets everything from now on; asked for its rooms again later if it `is_odd`. Has it not said HELLO, nothing changes
 * while another connection of its manager is open or waited for: HELLO continues that one, or its end opens this one. */
void pods_open(struct pods *pods, struct pod *pod, bool is_odd);

/* The client ends. */
void pod_free(struct pods *pods, struct pod *pod);

/* Joins may be complete; a few times a second for what is late. */
void pods_look(struct pods *pods);
void pods_tick(struct pods *pods);

/* Oldest first; TAILQ_NEXT(pod, of_pods). */
struct pod *pods_first(const struct pods *pods);
const char *pod_state_text(const struct pod *pod);
