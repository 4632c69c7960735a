/*
 * One pod's connection, from accept to end.
 *
 *                     request ─▶ on_request ─▶ GO_ON, next request
 *                        │           └──────▶ WAIT: the request stays in the input until client_set_resume()
 *      bytes ─▶ input ─▶ resp_parse                └──▶ FINISH: what is queued goes out, then the end
 *                                     client_deliver ─▶ output ─┐
 *                                     replies ────────▶ output ─┴▶ one write at the end of the loop turn
 *
 *  GREETING ──TLS handshake, where the listener has TLS──▶ OPEN
 *      OPEN ──QUIT, end of file──▶ FINISHING ──output empty, 1 s──▶ closed ──end of turn──▶ freed
 *        └──any error, limit, shutdown: client_close()──────────────▲
 *
 *      OPEN ──known subscriber, end of file──▶ ENDING ──all acknowledged, 1 s, reset──▶ PARKED ──window, bytes──▶ closed
 *        └──known subscriber, reset──────────────────────────────────────────────────────▲  └─its pod subscribes again:
 *                                                                    what it has not acknowledged goes to the new one
 *
 * An idle client owns no buffer: input is read into one buffer of the set and copied only when a request
 * is not whole; output is spans of chunks that all subscribers share (broker/output.h).
 * Every ending goes through client_close() with a reason. Nothing is ever sent to a client that is not
 * subscribed but the replies to its own requests: pooled connections of redis-py are dropped by their pool
 * when they are readable.
 */
#pragma once

#include "broker/backlog.h"
#include "broker/chunk.h"
#include "broker/close_reason.h"
#include "broker/dialect_book.h"
#include "broker/echo_book.h"
#include "broker/first_bytes.h"
#include "broker/interest.h"
#include "broker/publish.h"
#include "shared/address.h"
#include "shared/stream.h"

struct broker_listener_config;
struct broker_user_config;
struct client;
struct client_set;
struct event_base;
struct evbuffer;
struct host_id;
struct pod;
struct resp_request;
struct transaction;
struct turn;

/* CLIENT REPLY: all requests are answered, none is, this one is not, the next one will not be. */
enum client_answers { ANSWERS_ALL, ANSWERS_NONE, ANSWERS_SKIP, ANSWERS_SKIP_NEXT };

/* What a client said about itself, and what it may do. Plain values; handlers of commands change them. */
struct client_facts {
    uint64_t id;
    uint64_t connected_at; /* timing_now() */
    uint64_t active_at;    /* last request; while it is handled, now */
    struct address peer;
    struct address local;
    const struct broker_listener_config *listener; /* borrowed from the configuration */
    const struct broker_user_config
        *user; /* NULL: no authentication asked for, or not yet given */
    bool is_authenticated;
    unsigned protocol; /* 2 or 3 */
    int64_t database;
    char *name;               /* owned by the client; "" if none */
    char *identity;           /* identity.h, of a subscriber; owned, "" */
    char *lib_name;           /* owned, "" */
    char *lib_version;        /* owned, "" */
    const char *last_command; /* static text, lower case */
    uint64_t commands;
    uint64_t published;
    uint64_t delivered;
    uint64_t dropped;
    bool has_logged_refusal;
    bool has_logged_too_long;
    struct pod *pod; /* NULL: not a pod with a client manager; owned by pods.h */
    bool has_logged_missed;
    uint64_t missed;              /* messages that its dialect has no form for */
    struct host_id *host_id;      /* owned by host_ids.h; NULL: none yet */
    struct dialect_view dialect;  /* after client_identify() */
    struct echo_view echo;        /* after client_identify(), while connected */
    struct publish_ticket ticket; /* of the PUBLISH whose answer waits for its shard */
    unsigned ticket_receivers;    /* what that answer will be */
    enum client_answers answers;
    struct transaction *transaction; /* owned: after MULTI; NULL: none */
    bool has_begun;           /* the request that waits has done what is done once */
    struct publish_wait wait; /* of the PUBLISH that waits */
    uint64_t waits_for;       /* before WAIT: client_wait_for() */
    uint64_t waits_since;     /* since when its request waits; 0: it does not */
};

/* What a request waits for. Those that wait for the same are tried in their order: while the first waits, so do the
 * others. */
enum client_wait {
    CLIENT_WAITS_ALONE, /* the default */
    CLIENT_WAITS_FOR_SUBSCRIPTIONS,
    CLIENT_WAITS_FOR_ANSWER,  /* `which`: the partition */
    CLIENT_WAITS_FOR_READERS, /* the channel's hash */
    CLIENT_WAITS_FOR_ANY_SHARD,
    CLIENT_WAITS_FOR_SHARD, /* the shard's index */
};

/* YIELD: more of the request is to be done, in the next turn of the loop. DISTRUST: nothing it sends was meant for us; it
 * is ended at once, without an answer. */
enum client_verdict {
    CLIENT_GO_ON,
    CLIENT_WAIT,
    CLIENT_YIELD,
    CLIENT_FINISH,
    CLIENT_DISTRUST
};

struct client_callbacks {
    /* A request of argc >= 1; the reply is written to `reply`. After WAIT the same request comes again,
     * and nothing of the client before it, after client_set_resume(). */
    enum client_verdict (*on_request)(void *context, struct client *client, size_t argc,
                                      const struct slice *argv, struct evbuffer *reply);
    /* What the first bytes of a connection are; NULL: they are not looked at. */
    enum first_bytes (*look_first)(void *context, struct slice input);
    /* A request that is longer than a limit (resp.h: `over`, `over_len`), and was skipped; the error is written to
     * `reply`. */
    void (*on_too_long)(void *context, struct client *client,
                        const struct resp_request *request, struct evbuffer *reply);
    /* The client ends; its interests go. */
    void (*on_close)(void *context, struct client *client, enum close_reason reason);
    /* Is it a pod: does it get heartbeats while idle, and is it waited for? */
    bool (*wants_heartbeat)(void *context, struct client *client);
    /* The channel of python-socketio messages that it listens to; no data: none. */
    struct slice (*message_channel)(void *context, struct client *client);
    /* Are the payloads of this channel python-socketio messages? */
    bool (*carries_messages)(void *context, struct slice channel);
    void *context;
};

enum slow_policy { SLOW_DISCONNECT, SLOW_DROP_OLDEST };

struct client_limits {
    unsigned clients;
    size_t payload;
    size_t request; /* a whole request, as resp.h counts it */
    size_t input;   /* of all clients: requests that are not whole, or wait */
    size_t slow_bytes;
    uint64_t slow_age; /* microseconds */
    enum slow_policy slow_policy;
    uint64_t
        flush_window;   /* microseconds; 0: deliveries go out at the end of each turn */
    uint64_t heartbeat; /* microseconds; 0: none */
    uint64_t replay_window; /* microseconds; 0: nobody is parked */
    size_t replay_bytes;    /* of all that are parked */
    bool replay_overlaps;   /* also what was acknowledged in the last second */
    unsigned depth_max;     /* of what is rewritten */
    size_t rewritten_max;   /* bytes of one message; 0: nothing is rewritten */
};

/* `turn` (borrowed) gets a step: what is queued is written, closed clients are freed. */
struct client_set *client_set_new(struct event_base *base, struct turn *turn,
                                  const struct client_limits *limits,
                                  const struct client_callbacks *callbacks);

/* Other limits from now on, for all clients; that of payloads for new ones. */
void client_set_set_limits(struct client_set *set, const struct client_limits *limits);

/* Closes all clients (CLOSE_SHUTDOWN). */
void client_set_free(struct client_set *set);

/* Holds the configuration of the listener. Takes a connected descriptor; answers an error and closes it when the limit of clients is reached. */
void client_open(struct client_set *set, int fd, const struct address *peer,
                 const struct broker_listener_config *listener);

/* The one door out. The client is freed at the end of the loop turn; until then client_is_closed(). */
void client_close(struct client *client, enum close_reason reason);
bool client_is_closed(const struct client *client);

/* Ends it (CLOSE_KILLED); a subscriber that may return reads to the end of what is under way first. */
void client_kill(struct client *client);

/* Queues a message; `message` is held as long as needed. `now` is timing_now(), asked once for all
 * subscribers. Limits are applied at the end of the turn. */
void client_deliver(struct client *client, struct span message, uint64_t now);

/* It publishes or subscribes, so it has said who it is: settles its identity and whose dialect it speaks. Cheap when
 * that is done. */
void client_identify(struct client *client);

/* Its client manager, of that host_id, named its dialect (not RAW). */
void client_name_dialect(struct client *client,
                         const uint8_t host_id[ENVELOPE_HOST_ID_LEN],
                         enum message_dialect dialect);

/* It says anew who it is. */
void client_forget_identity(struct client *client);

/* The subscriber misses a message that has no form in its dialect: counts it, and tells once. */
void client_miss(struct client *client, enum message_dialect from,
                 enum message_dialect to, const char *why);

/* This client subscribes for the first time: who of its identity (identity.h) has ended hands over what its pod has
 * not acknowledged, if the new one wants all that it wanted and speaks the same RESP. False: one is ending just now, ask
 * again soon (client_set_resume). What is handed over is queued behind the replies of this request. */
bool client_inherit(struct client *client) MUST_CHECK;

/* A pod's client manager is there. From now on it says what it has seen (client_note_seen), and `earlier`, which was its
 * connection, hands over what comes after the first `seen` messages of that. NULL: there was none. */
void client_take_over(struct client *client, struct client *earlier, uint64_t seen);

/* The pod has handled the connection's first `seen` messages. */
void client_note_seen(struct client *client, uint64_t seen);

/* Queues what is in `reply`, outside of a request. */
void client_reply(struct client *client, struct evbuffer *reply);

/* The same within a request that is done in steps, each like a request of its own: in order with what is delivered, and
 * with what client_inherit() found. */
void client_reply_partly(struct client *client, struct evbuffer *reply);

/* An answer that is written in parts begins: what is delivered to the client from now on comes behind it, as Redis has it,
 * and counts for the limits of a slow subscriber meanwhile. */
void client_begin_answer(struct client *client);

/* The answer is complete with what is in `reply`. No effect when none has begun. */
void client_end_answer(struct client *client, struct evbuffer *reply);

/* Parked: it has no connection, and messages wait for its name's next one. */
bool client_is_parked(const struct client *client);

/* Does the subscriber read as fast as messages come? client_set_resume() is called soon after one that was behind no
 * longer is, or is stuck. */
enum pace client_pace(struct client *client, uint64_t now);

/* For a handler that answers WAIT: what for. Of `which` the lower 56 bits tell things of one kind apart. */
void client_wait_for(struct client *client, enum client_wait kind, uint64_t which);

/* Requests that wait are given to on_request again, at the end of this loop turn: of those that wait for the same the
 * longest waiting one first, and the others while they are answered. */
void client_set_resume(struct client_set *set);

struct client_facts *client_facts(struct client *client);
uint64_t client_id(const struct client *client);
struct subscriber *client_subscriber(struct client *client);
struct client *client_from_subscriber(struct subscriber *subscriber);

/* Bytes of requests not yet answered, and of answers and messages not yet taken. */
size_t client_input_bytes(const struct client *client);
size_t client_output_bytes(const struct client *client);
uint64_t client_output_age(const struct client *client);

struct client *client_find(struct client_set *set, uint64_t id);

/* Oldest first. A client may be closed during the walk. */
struct client *client_first(struct client_set *set);
struct client *client_next(struct client *client);
/* Messages queued to clients and not written, about (output_messages). */
size_t client_set_undelivered(const struct client_set *set);

unsigned client_count(const struct client_set *set);

/* Shutdown: write what is queued, then close. Calls `on_empty` (once, never from within this call) when
 * no client is left. */
void client_set_finish(struct client_set *set, void (*on_empty)(void *context),
                       void *context);
