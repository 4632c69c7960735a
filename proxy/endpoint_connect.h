/*
 * Connections to endpoints: dialled, reused, given back.
 *
 *                     ┌── none idle ──▶ CONNECTING ── writable ──▶ (TLS: SECURING) ──┐
 *    endpoint_connect ┤                     └─ error ─▶ owner retries ◀─ refused ┘    ├─▶ OWNED ── complete and clean ──▶ IDLE
 *                     └── an idle one ────────────────────────────────────────────────┘   │  ▲                             │
 *                                                      abort, stray bytes, HEAD,          │  └────── reused ───────────────┤
 *                                                      101's end                          ▼                                ▼
 *                                                                                       CLOSED ◀── any byte or EOF, or endpoint_keep_alive over
 *
 * While OWNED the owner gets every event through `on_ready` and sets what it wants by
 * endpoint_connection_watch(); the event stays registered over reuse, so that a request on a reused
 * connection costs no epoll_ctl. Idle connections are kept for each worker and endpoint, the freshest
 * is reused first. An idle connection that its endpoint closes at the very moment at which a request is sent loses the
 * request: what may not be sent twice takes only a young one (endpoint_idle_safe_ms). A connection lives until the end of the turn in which it was closed. The owner's
 * deadline bounds connecting; there is never a half-close before a 101.
 */
#pragma once

#include "shared/slice.h"
#include "shared/stream.h"

#include "proxy/deadline.h"
#include "proxy/endpoint.h"

#include <event2/event_struct.h>
#include <sys/queue.h>

struct endpoint_connection;
struct endpoint_tls;
struct worker;

typedef void (*endpoint_ready_cb)(struct endpoint_connection *connection, short what);

struct endpoint_connection {
    struct event event;
    struct stream stream;
    struct worker *worker;                   /* borrowed */
    struct endpoint *endpoint;               /* one reference */
    struct endpoint_tls *tls;                /* one holder; NULL: plain */
    void *owner;                             /* borrowed; NULL while idle or closed */
    endpoint_ready_cb on_ready;              /* NULL while idle */
    TAILQ_ENTRY(endpoint_connection) entry;  /* idle of its bucket, or the closed ones */
    TAILQ_ENTRY(endpoint_connection) by_age; /* idle of the worker, oldest first */
    uint32_t since;    /* deadline_now() when it became idle, or began to connect */
    uint32_t idled_ms; /* how long it was idle before this exchange */
    short watched;     /* EV_READ, EV_WRITE */
    bool is_connected; /* and TLS is ready */
    bool is_securing;  /* connected, TLS is not ready */
    bool is_reused;    /* has carried an exchange before this one */
};

TAILQ_HEAD(endpoint_connection_list, endpoint_connection);

#define ENDPOINT_POOL_BUCKETS 256

/* The idle connections of one worker. */
struct endpoint_pool {
    struct endpoint_connection_list buckets[ENDPOINT_POOL_BUCKETS];
    struct endpoint_connection_list by_age;
    unsigned idle_count;
    struct deadline expiry;
};

void endpoint_pool_init(struct endpoint_pool *pool);

/* Closes the one that is idle longest; false: none is. */
bool endpoint_pool_close_one(struct worker *worker);

/* Closes what is idle. */
void endpoint_pool_cleanup(struct worker *worker);

/* Which idle connections a request may take. */
enum endpoint_reuse {
    ENDPOINT_REUSE_NONE,
    ENDPOINT_REUSE_YOUNG, /* one that the endpoint does not close just now: the request cannot be sent again */
    ENDPOINT_REUSE_ANY,
};

/* A connection to the endpoint for `owner`, with `tls` of its set (NULL: plain): an idle one as `reuse` says when there is
 * one, else a new one that may still be connecting (is_connected tells; then the owner calls
 * endpoint_connection_write_early, and whenever on_ready comes endpoint_connection_finish). Takes its own
 * references. NULL with errno when the connect failed at once; that counts as a failure of the endpoint. */
struct endpoint_connection *
endpoint_connection_open(struct worker *worker, struct endpoint *endpoint,
                         struct endpoint_tls *tls, enum endpoint_reuse reuse, void *owner,
                         endpoint_ready_cb on_ready);

/* The first bytes on a connection that is still connecting, before any event: on the loopback the handshake is
 * over by the time connect(2) has returned, and an attempt costs less than waiting to be told. As
 * stream_write; -1 with EAGAIN: not yet (always so for other addresses and TLS), on_ready will come; -1 with another
 * errno: the connect failed, which is noted. */
ssize_t endpoint_connection_write_early(struct endpoint_connection *connection,
                                        struct slice bytes) MUST_CHECK;

enum endpoint_connecting {
    ENDPOINT_CONNECTED,
    ENDPOINT_CONNECTING,  /* on_ready will come again */
    ENDPOINT_NOT_REACHED, /* no connection */
    ENDPOINT_TLS_REFUSED, /* a connection, but TLS failed: logged with the reason */
};

/* Goes on with connecting. Its end is noted on the endpoint. */
enum endpoint_connecting
endpoint_connection_finish(struct endpoint_connection *connection) MUST_CHECK;

/* Is there no network between us and this address, so that its host cannot vanish alone? */
bool endpoint_address_is_local(const struct address *address);

/* The owner gave up waiting for the connect: noted on the endpoint. Close it next. */
void endpoint_connection_give_up(struct endpoint_connection *connection);

/* From now on on_ready comes for these of EV_READ and EV_WRITE (0: none); EV_READ also for bytes that lie in
 * OpenSSL. */
void endpoint_connection_watch(struct endpoint_connection *connection, short what);

/* The exchange was complete and clean: keep it for reuse (or close it when timeouts.endpoint_keep_alive is 0).
 * The owner lets go of it. */
void endpoint_connection_keep(struct endpoint_connection *connection);

/* Closes the socket at once. The owner lets go of it. */
void endpoint_connection_close(struct endpoint_connection *connection);

/* End of the turn: gives the memory of closed connections back. */
void endpoint_connection_free_closed(struct worker *worker);
