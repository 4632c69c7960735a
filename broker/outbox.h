/*
 * What goes to one shard, in which order, and what of it is unanswered.
 *
 *     control  (heartbeats, asks) ───── first ─┐
 *     messages (FIFO)             ──┐          ├─▶ link ─▶ in flight ─▶ outbox_replied
 *     answers  (retransmissions)  ──┴─ in turn ┘              │
 *                 ▲                                           │ link lost
 *                 └── messages only, first, in order ─────────┘
 *
 * Control and answers are lost with the link: who needs them asks again. A message whose partition is sent elsewhere
 * from now on is voided: its reply confirms nothing.
 */
#pragma once

#include "broker/sent_ring.h"

struct link;
struct outbox;

struct outbox_callbacks {
    /* The message is given to the link now. */
    void (*on_sending)(void *context, const struct sent *sent);
    /* The command that carries the message to one broker; borrowed until the next call. */
    struct span (*on_answer)(void *context, uint64_t asker, const struct sent *sent);
    void *context;
};

/* `ring` and `link` are borrowed. */
struct outbox *outbox_new(struct sent_ring *ring, struct link *link,
                          const struct outbox_callbacks *callbacks);
void outbox_free(struct outbox *outbox);

/* Puts a WAITING message at the end, or takes one out again. */
void outbox_put(struct outbox *outbox, struct sent *sent);
void outbox_remove(struct outbox *outbox, struct sent *sent);

/* What is in flight of the partition waits, in no queue. */
void outbox_void(struct outbox *outbox, unsigned partition);

/* Dropped when the link is down or too many wait. Holds `command`. */
void outbox_put_control(struct outbox *outbox, struct span command);

/* The same; false: it was dropped, and so is whatever comes now. */
bool outbox_put_answer(struct outbox *outbox, uint64_t asker, uint16_t partition,
                       uint64_t sequence);

/* Gives the link what it has room for. */
void outbox_pump(struct outbox *outbox);

/* The oldest in flight was answered: the message, now off every queue; NULL for anything else. */
struct sent *outbox_replied(struct outbox *outbox);

/* The link is gone. */
void outbox_take_back(struct outbox *outbox);

struct outbox_status {
    size_t waiting, waiting_bytes;
    uint64_t retransmitted; /* messages sent again, to all or to one */
};
struct outbox_status outbox_status(const struct outbox *outbox);
size_t outbox_waiting_bytes(const struct outbox *outbox);
bool outbox_is_idle(const struct outbox *outbox);
const struct sent *outbox_first(const struct outbox *outbox);
