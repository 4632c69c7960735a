/*
 * Which pods need not get their own messages back.
 *
 *     python-socketio up to 5.9    delivers to its own clients what comes back: without the echo they miss it
 *     from 5.10                    has delivered it before, and drops what bears its own host_id (but callbacks)
 *
 *     client of a pod publishes ─▶ entry of its identity: host_id ─▶ its subscriber is spared that host_id
 *                                  └ a second host_id, or a second subscriber: several processes; nobody is spared
 *
 * Automatic needs proof of both: a close_room, disconnect, enter_room or leave_room with a host_id (up to 5.9 they have
 * none, and JSON proves nothing, since distributions patched it in), and a process that the kernel names. A pod with a
 * client manager says it itself (pod_rooms.h). An entry lives as long as a connection of its pod.
 */
#pragma once

#include "broker/envelope.h"
#include "broker/message.h"

enum echo_mode { ECHO_AUTO, ECHO_ON, ECHO_OFF }; /* listeners[].echo */

struct echo_book;
struct echo_entry;

/* Of one client, embedded in it; all zero is attached to nothing. */
struct echo_view {
    struct echo_entry *entry;
    bool is_subscribed;
};

struct echo_book *echo_book_new(void);

/* No view may be attached any more. */
void echo_book_free(struct echo_book *book);

/* `key` is the pod's; `is_process`: the kernel says that it is one process. */
void echo_view_attach(struct echo_view *view, struct echo_book *book, const char *key,
                      bool is_process);
void echo_view_detach(struct echo_view *view);

/* The client subscribes: once. */
void echo_view_subscribe(struct echo_view *view);

/* The client published this. */
void echo_view_learn(struct echo_view *view, enum message_method method,
                     const uint8_t host_id[ENVELOPE_HOST_ID_LEN]);

/* Is this message the client's own echo, which it does not need? */
bool echo_view_spares(const struct echo_view *view, enum echo_mode mode,
                      const struct envelope *envelope);
