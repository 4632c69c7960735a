/*
 * One connection to one Redis, kept up.
 *
 *     DOWN ──link_start, back-off over──▶ RESOLVING ──address──▶ CONNECTING ──connected, TLS──▶ CHECKING
 *      ▲                                                                                    │ AUTH, CLIENT SETNAME,
 *      │                                                                                    ▼ ROLE = master
 *      └◀── any failure: link_close(reason), wait 0.1 s … 5 s ──────────────────────────── UP
 *
 * A link that was up and is reset is tried again at once, once. A publishing link ends when its oldest command is
 * unanswered for 1 s, and when the ROLE that it asks each second says anything but master (where ROLE is refused, INFO is asked, and where that is as well, the
 * shard is trusted, with a warning); a subscribing link, asked
 * PING when nothing was heard for a second, when nothing comes for two more. So a Redis that hangs without closing is
 * noticed, and one that was demoted. A name is resolved for each connection; its addresses are tried one after the other,
 * without a back-off between them. A message that takes long is no silence: while the peer's kernel acknowledges
 * bytes of the oldest command, its second starts again. These deadlines run on standing_now().
 *
 * What the two kinds carry: a *publishing* link one command a message and a reply to each, in order, with a bound
 * on what is unanswered; a *subscribing* link confirmations and messages. The messages are read where they
 * lie in hiredis' reader, without an object for each reply.
 */
#pragma once

#include "broker/chunk.h"
#include "broker/close_reason.h"

#include <stdint.h>

struct broker_shard_config;
struct event_base;
struct evdns_base;
struct link;
struct turn;

/* What may be unanswered on a publishing link; one message is always allowed. */
#define LINK_IN_FLIGHT_BYTES    ((size_t)64 * 1024)
#define LINK_IN_FLIGHT_MESSAGES 256

enum link_kind { LINK_PUBLISHING, LINK_SUBSCRIBING };

enum link_state { LINK_DOWN, LINK_RESOLVING, LINK_CONNECTING, LINK_CHECKING, LINK_UP };

struct link_callbacks {
    /* CHECKING to UP, anything to DOWN; ask link_state(). */
    void (*on_change)(void *context, struct link *link);
    /* Publishing: the reply to the oldest command of link_send. False: an error, `text` says which. */
    void (*on_reply)(void *context, struct link *link, bool ok, struct slice text);
    /* Subscribing. Slices live until the call returns. */
    void (*on_subscribed)(void *context, struct link *link, struct slice channel,
                          bool is_subscribed);
    void (*on_message)(void *context, struct link *link, struct slice channel,
                       struct slice payload);
    /* Subscribing: a message of `len` bytes, over message_max, is read past; `start` is its first 64. */
    void (*on_too_long)(void *context, struct link *link, struct slice channel,
                        struct slice start, size_t len);
    void *context;
};

struct link_config {
    enum link_kind kind;
    const struct broker_shard_config *shard; /* borrowed */
    const char *client_name;                 /* for CLIENT SETNAME; copied */
    size_t message_max; /* longest message that may come; longer ones are read past */
};

/* Begins DOWN. `dns` may be NULL: then host names are not resolved, addresses only. The owner calls
 * link_flush() at the end of a loop turn in which `turn` was requested. All borrowed. */
struct link *link_new(struct event_base *base, struct turn *turn, struct evdns_base *dns,
                      const struct link_config *config,
                      const struct link_callbacks *callbacks);

/* Ends without calling back. */
void link_free(struct link *link);

/* Connects, and again whenever the link has ended. */
void link_start(struct link *link);

/* Ends the link for this reason; a started link comes back by itself. */
void link_close(struct link *link, enum close_reason reason);

enum link_state link_state(const struct link *link);
const char *link_state_text(enum link_state state);

/* Why the link ended last, in the shard's own words where it gave some (else the reason's sentence). The text lives until
 * the next ending. */
enum close_reason link_last_reason(const struct link *link);
const char *link_last_text(const struct link *link);

/* Publishing, UP: may another command of `len` bytes be sent now? */
bool link_has_room(const struct link *link, size_t len);

/* Publishing, UP: queues one command that gets one reply. Written at the end of the loop turn. */
void link_send(struct link *link, struct span command);

/* What is queued must not wait for the flush window. Until it is written; a change of channels is hurried by itself. */
void link_hurry(struct link *link);
bool link_is_hurried(const struct link *link);

/* Subscribing, UP: SUBSCRIBE or UNSUBSCRIBE of one channel; many in a turn go out as one command. */
void link_subscribe(struct link *link, struct slice channel);
void link_unsubscribe(struct link *link, struct slice channel);

unsigned link_in_flight_count(const struct link *link);
size_t link_in_flight_bytes(const struct link *link);

/* Publishing: a message is under way that is longer than what else may be in flight; all others wait. */
bool link_is_held_up(const struct link *link);

/* standing_now() when bytes of a long message last went on, to Redis or from it; 0: not on this connection. */
uint64_t link_moved_at(const struct link *link);

/* Bytes that the next flush writes. */
size_t link_queued_bytes(const struct link *link);

/* End of the loop turn: writes what is queued. */
void link_flush(struct link *link);
