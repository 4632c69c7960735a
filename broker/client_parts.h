/*
 * What client.c (a connection), client_park.c (a subscriber between two connections) and their neighbours share, and
 * what deliver.c does in line for each delivery.
 */
#pragma once

#include "broker/client.h"
#include "broker/output.h"
#include "broker/replay.h"
#include "broker/resp.h"
#include "broker/window.h"
#include "shared/log.h"

#include <event2/event.h>
#include <event2/event_struct.h>

/* One read; also the most that one client gets done in a turn while others wait. */
#define READ_SIZE ((size_t)64 * 1024)

enum client_state {
    CLIENT_OPEN,
    CLIENT_GREETING, /* TLS */
    CLIENT_FINISHING,
    CLIENT_ENDING,
    CLIENT_PARKED,
    CLIENT_CLOSED
};

TAILQ_HEAD(client_list, client);

/* What was acknowledged when; a second and a bit of them. */
#define CLIENT_MARKS 12

struct client_mark {
    uint64_t at, acknowledged;
};

struct client {
    struct client_set *set; /* borrowed */
    struct stream stream;
    struct event readable;
    struct event writable;
    enum client_state state;
    enum close_reason finish_reason; /* FINISHING: what the end will be */
    uint64_t finishing_since;
    bool is_reading; /* readable is added */
    bool is_blocked; /* writable is added: the socket is full */
    bool is_dirty;   /* on set->dirty */
    bool is_lagging; /* on set->lagging */
    bool yields;     /* on set->yielding: the rest of its input comes in the next turn */
    bool is_slow;    /* over slow_bytes: ends or is trimmed at the end of the turn */
    bool is_kept;    /* its pod is known: `replay` has what it has not acknowledged */
    bool is_exact;   /* kept until the pod says that it has handled it */
    bool is_identified;
    bool has_begun;         /* its first bytes are ours */
    bool is_answering;      /* an answer of several parts: see client_begin_answer() */
    struct client *heir_of; /* parked; to be emptied into this one */
    struct replay replay;
    struct client_mark marks[CLIENT_MARKS]; /* a ring, while is_kept and with overlap */
    unsigned mark_count;
    uint64_t queued; /* bytes of the connection, while is_kept */
    size_t trimmed_ago;
    uint64_t parked_at;
    uint64_t returned_at; /* it waits to subscribe since; 0: it does not */
    uint64_t probed_at,
        probed_from; /* when another of its pod returned, and what was queued before */
    struct resp_parser parser;
    char *input; /* NULL: empty */
    size_t input_len;
    size_t input_size;
    struct output output;
    struct output held; /* deliveries, behind that answer */
    uint64_t beats;     /* heartbeats among what is delivered */
    uint64_t delivered_at;
    struct backlog backlog;
    bool is_watched; /* on set->behind */
    struct client_facts facts;
    struct subscriber subscriber;
    TAILQ_ENTRY(client) of_set;
    struct client_queue *queue;     /* its request waits in this; NULL: it does not */
    TAILQ_ENTRY(client) of_waiting; /* of the queue */
    TAILQ_ENTRY(client) of_behind;
    TAILQ_ENTRY(client) of_yielding;
    TAILQ_ENTRY(client) of_work; /* dirty, lagging or closed */
};

/* See client_wait.c. */
struct client_waiting {
    struct client_queue *by_key;
    TAILQ_HEAD(, client_queue) queues; /* the next to look at first */
    struct client_queue *current;      /* is looked at; NULL: none, or it is gone */
    uint64_t pass;
    bool is_due; /* client_set_resume() */
};

struct client_set {
    struct event_base *base; /* borrowed */
    struct client_limits limits;
    struct client_callbacks callbacks;
    struct client_list open;
    struct client_list dirty;   /* something to do at the end of this turn */
    struct client_list lagging; /* deliveries that wait for the flush window */
    struct client_list ending;  /* ENDING */
    struct client_list parked;  /* PARKED, the oldest first */
    size_t parked_bytes;
    struct event *end_tick;
    struct event *mark_tick;
    struct client_waiting waiting;
    struct client_list yielding;
    struct event *go_on; /* with those that yield, when others have been looked at */
    struct client_list behind; /* subscribers that are, when last looked */
    struct event *look_behind; /* while there are some, and others wait */
    bool looks_behind;
    bool has_eased;            /* one is behind no more */
    struct client_list closed; /* to be freed at the end of this turn */
    unsigned count;
    size_t
        input_bytes; /* of all: what is left of input, requests that are not whole or wait */
    uint64_t next_id;
    struct chunk_writer replies;
    struct evbuffer *reply;
    struct turn *turn; /* borrowed */
    struct window window;
    bool passes;      /* deliveries go out with this turn */
    unsigned greeted; /* steps of handshakes in this turn */
    struct event *sweep;
    void (*on_empty)(void *context); /* client_set_finish; NULL: not finishing */
    void *on_empty_context;
    struct dialect_book *dialects;
    struct echo_book *echoes;
    bool has_logged_namesakes;
    uint64_t foreign_logged_at; /* timing_now(); 0: never */
    unsigned foreign;           /* since then */
    struct replay_rewrite *rewrite;
    char scratch[READ_SIZE];
};

/* ── client.c ── */

struct log_subject client_subject(const struct client *client);

/* Gives its kept input to on_request, request by request. */
void client_take_input(struct client *client);

/* Queues a heartbeat. */
void client_beat(struct client *client, uint64_t now);

/* client_deliver, for a message behind others of this turn: all that is left to do then is to count it and to lengthen
 * what is queued. False: client_deliver is to do it. In line, since it is done for each delivery. */
static inline bool client_deliver_more(struct client *client, struct span message,
                                       uint64_t now)
{
    if (client->state != CLIENT_OPEN || !client->is_dirty || client->is_kept ||
        client->is_answering ||
        client->output.bytes + message.len > client->set->limits.slow_bytes ||
        !output_extend(&client->output, message, true, now))
        return false;
    client->delivered_at = now;
    client->facts.delivered++;
    return true;
}

/* ── client_input.c: what is left of the input, requests that are not whole, or wait ── */

/* `len` bytes of it are in use; counts them for limits.input. */
void client_input_set_len(struct client *client, size_t len);
void client_input_give_back(struct client *client);

/* Keeps `rest`, in memory of the client's own. */
void client_input_keep(struct client *client, struct slice rest);

/* Room for the next read behind a request that is not whole. It doubles, so that a client that claims a
 * large bulk and sends none of it costs nothing; what is kept is never over the limit of a request. */
void client_input_grow(struct client *client);

/* Whose is the longest, while all together are over limits.input: a request that waits as a whole only where there is no
 * other. What clients that end have left is given back first, so not while requests are taken. NULL: nobody's. */
struct client *client_longest_input(struct client_set *set);

/* ── client_state.c ── */

/* The one way from a state to the next: aborts when that may not follow. Leaves and joins the set's lists; who leaves
 * OPEN is read from no more, and its request waits no more. Descriptor, events for writing, interests and counters are
 * the caller's. */
void client_enter(struct client *client, enum client_state state);

/* There is something to do for it at the end of this turn. No effect on who has ended. */
void client_make_dirty(struct client *client);

/* True only of OPEN and GREETING. */
void client_set_reading(struct client *client, bool reads);

/* ── client_wait.c ── */

void client_waiting_init(struct client_waiting *waiting);

/* Its request waits for facts.waits_for, since `now` where it did not wait before; or it waits no more. Neither changes
 * whether it is read from. */
void client_begin_to_wait(struct client *client, uint64_t now);
void client_cease_to_wait(struct client *client);

/* Input is left, and it is the others' turn: it is read from no more until that is done with, in a later turn. */
void client_yield(struct client *client);
void client_cease_to_yield(struct client *client);
void client_on_go_on(evutil_socket_t fd, short what, void *set);

bool client_set_has_waiting(const struct client_set *set);

/* At the end of a turn, after client_set_resume(): the first of each queue is tried, and more while they go on. */
void client_resume_waiting(struct client_set *set);

/* ── client_pace.c ── */

void client_cease_to_watch(struct client *client);
void client_on_look_behind(evutil_socket_t fd, short what, void *set);

/* ── client_identity.c ── */

void client_identity_cleanup(struct client *client);

/* ── client_greeting.c ── */

/* TLS before anything else: the client is GREETING, then OPEN. */
void client_begin_greeting(struct client *client);

/* It is readable, or writable. */
void client_greet(struct client *client);

/* Ends it when it takes too long. */
void client_hurry_greeting(struct client *client, uint64_t now);

/* ── client_answer.c ── */

/* Whole messages, one by one: what is dropped later is counted by messages. */
void client_queue_messages(struct client *client, struct span span, uint64_t now);

/* What waits to be written to it, and what is held back. */
size_t client_waiting_bytes(const struct client *client);

/* Its answer ends with what is written of it: what is held back is queued. */
void client_release_held(struct client *client);

/* ── client_park.c ── */

/* Queues bytes to the connection, and keeps them for the next one where the subscriber is kept. Deliveries are held back
 * while it is answered. */
void client_queue(struct client *client, struct span span, bool is_delivery,
                  uint64_t now);

/* Drops the oldest of what is not written, down to `bytes` and up to those queued at `since`, as output_drop_oldest; its
 * next connection does not get them either. Returns how many messages, and adds their bytes to `*bytes_dropped`. */
size_t client_drop_oldest(struct client *client, size_t bytes, uint64_t since,
                          size_t *bytes_dropped);

/* What it has acknowledged cannot be told any more. */
void client_keep_no_more(struct client *client);

/* Would this ending leave the subscriber parked? */
bool client_may_park(struct client *client, enum close_reason reason);

/* Before the descriptor is closed: forgets what is acknowledged. */
void client_trim(struct client *client);

/* The connection is over; the subscriber stays. */
void client_park(struct client *client);

/* The pod has closed its end, or (KILLED) is told that it ends: it may still read what is under way, nothing more is
 * written. */
void client_end(struct client *client, enum close_reason reason);

/* Has nothing come from its peer for ten heartbeats, though something was sent again and again? */
bool client_is_cut_off(const struct client *client);
void client_on_end_tick(evutil_socket_t fd, short what, void *set);

/* With overlap: what each has acknowledged is noted ten times a second. */
void client_begin_marks(struct client_set *set);
void client_on_mark_tick(evutil_socket_t fd, short what, void *set);

/* Behind the replies of the request that called client_inherit(), before anything else is delivered. */
void client_take_inheritance(struct client *client);

/* A message for one that is parked or ending. */
void client_deliver_parked(struct client *client, struct span message);

/* Parked ones end: over the bytes, over the window (told), or all. */
void client_bound_parked(struct client_set *set);
void client_expire(struct client *client, const char *why);
void client_discard(struct client *client);
