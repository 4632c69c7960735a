/*
 * One connection from accept to end; it may carry requests of many sessions.
 *
 *      accept ─▶ INTRODUCED ─▶ GREETING ─TLS done─▶ WAITING ◀── answered, connection stays ───────┐
 *                (PROXY header) (TLS only)          │  first byte                                 │
 *                                       ┌───────────┘                                             │
 *                                       ▼                                                         │
 *                                     HEAD ──head whole──▶ EXCHANGING ──response complete─────────┤
 *                                       │                     │  └──edge answer─────▶ (answered) ──┤
 *                                       │ bad, too slow       └──verified 101──▶ TUNNELING        │
 *                                       ▼                                            │            │
 *                                  (answered) ──── connection does not stay ─────────┼────────────┘
 *                                       │                                            │
 *                                       ▼                                            ▼
 *                                   LINGERING ──2 s, 64 KiB or the client's end──▶ CLOSED ─end of turn─▶ freed
 *
 *  state       socket  input buffer                deadline
 *  INTRODUCED  open    the PROXY header so far     3 s
 *  GREETING    open    none                        timeouts.request_head
 *  WAITING     open    none                        timeouts.keep_alive (first request: request_head)
 *  HEAD        open    the head so far             timeouts.request_head, absolute
 *  EXCHANGING  open    early and pipelined bytes   the exchange's
 *  TUNNELING   open    none                        the tunnel's
 *  LINGERING   half    none                        2 s
 *
 * Every connection ends through client_close() with a row of close_reason.def; whoever owns the client (its
 * worker) frees it at the end of the turn. While an exchange runs, pipelined bytes are held up to
 * a bound and then not read; the next request begins at the end of the turn in which the one before was
 * answered. An idle client owns no buffer.
 */
#pragma once

#include "shared/stream.h"

#include "proxy/close_reason.h"
#include "proxy/deadline.h"
#include "proxy/worker.h"

#include <event2/event_struct.h>
#include <netinet/in.h>
#include <sys/queue.h>

struct exchange;
struct tunnel;

enum client_state {
    CLIENT_INTRODUCED,
    CLIENT_GREETING,
    CLIENT_WAITING,
    CLIENT_HEAD,
    CLIENT_EXCHANGING,
    CLIENT_TUNNELING,
    CLIENT_LINGERING,
    CLIENT_CLOSED,
};

/* Only the client's own files (client_parts.h) change `state`, `exchange` and `tunnel`. */
struct client {
    struct event event;
    struct stream stream;
    struct worker *worker;        /* owner */
    struct listener_place *place; /* one reference */
    TAILQ_ENTRY(client) entry;    /* the worker's list that fits the state */
    TAILQ_ENTRY(client) idle;     /* the worker's idle ones, while is_idle */
    struct deadline deadline;
    struct exchange *exchange; /* EXCHANGING; owned */
    struct tunnel *tunnel;     /* TUNNELING; owned */
    struct buffer *in;         /* bytes read but not yet used */
    struct buffer *out;        /* bytes that the socket would not take */
    uint64_t id;
    uint32_t accepted_at; /* deadline_now() */
    uint32_t active_at;   /* last byte from the client, or begin of the state */
    /* of `in`: http_request_parse said MORE for so many bytes; INTRODUCED: bytes to skip */
    uint32_t parsed_len;
    uint32_t requests;
    uint32_t queued;    /* in the socket's own queue when `out` began or was looked at */
    struct in6_addr ip; /* the peer, or who the PROXY header says; v4-mapped for IPv4 */
    struct in6_addr
        holder;    /* whom its buffers count for: `ip`, or who a trusted proxy says */
    uint32_t held; /* counted for the holder */
    uint16_t port;
    short watched;
    uint8_t state;         /* enum client_state */
    bool has_ended;        /* the client has finished writing */
    bool is_resuming;      /* on the worker's list of those */
    bool is_idle;          /* WAITING, between two requests, nothing to send */
    bool is_taking;        /* bytes are being handed to an exchange */
    bool closes_after_out; /* LINGERING begins when `out` is empty */
    bool has_ip;           /* false: over a unix socket */
    bool has_holder;
    bool is_admitted;      /* counted for its address */
    bool is_leaving;       /* its next answer is the last one */
    uint8_t linger_reason; /* enum close_reason to close with after lingering */
};

/* Takes an accepted socket. */
void client_open(struct worker *worker, struct listener_place *place, int fd,
                 const struct address *peer);

/* The one door: ends exchange or tunnel, closes the socket, counts and logs the reason. Does nothing when
 * closed already. The memory stays until the end of the turn. */
void client_close(struct client *client, enum close_reason reason);

/* End of the turn: goes on with requests that wait; gives memory of closed clients back. */
void client_resume(struct client *client);
void client_free(struct client *client);

/* The process is going: an idle client is closed, one with an exchange after its answer, a tunnel within
 * `delay_ms`. */
void client_drain(struct client *client, uint32_t delay_ms);

/* The timeouts of the configuration have changed: between two requests the new one begins now, a tunnel's silence
 * counts from its last byte. An exchange keeps those that it began with. */
void client_follow_limits(struct client *client);

/* Its listener is removed: it ends in the same way, but one that has not asked anything yet is answered once. */
void client_leave(struct client *client, uint32_t delay_ms);

/* ---- for the exchange and the tunnel ---- */

/* Is the next answer the last one of the connection? */
static inline bool client_stays(const struct client *client)
{
    return !client->has_ended && !client->is_leaving &&
           !atomic_load_explicit(&client->worker->process->is_draining,
                                 memory_order_relaxed);
}

/* Sends bytes, or keeps what the socket does not take. False when the socket failed: the client is closed. */
bool client_write(struct client *client, struct slice bytes) MUST_CHECK;

/* ---- what it holds (client_hold.c) ---- */

/* Its buffers, or those of its exchange or tunnel, have grown or shrunk. */
void client_settle(struct client *client);

/* From now on they count for `ip`; NULL: for no address. */
void client_set_holder(struct client *client, const struct in6_addr *ip);

enum client_use { CLIENT_USE_HEAD, CLIENT_USE_BODY };

/* May it hold `more` bytes of a head or body? False, and in *reason what to answer, when buffers are used up. */
bool client_has_room(struct client *client, enum client_use use, size_t more,
                     enum close_reason *reason) MUST_CHECK;

/* How many bytes for the client may be read at a time: less while its address holds much. */
size_t client_portion(const struct client *client);

/* Bytes wait for the client: produce no more until the drained callback (exchange or tunnel). */
static inline bool client_is_blocked(const struct client *client)
{
    return client->out != NULL;
}

/* Has the client taken anything since bytes had to wait for it, or since the last call? The kernel's queue may be
 * large: the socket can be full for longer than a slow, but living client is to be waited for. */
bool client_has_taken(struct client *client);

/* Which of EV_READ and EV_WRITE the client's socket is watched for. EV_READ comes too when bytes lie in OpenSSL, of
 * which the socket knows nothing: whoever stops reading in the middle of a record needs no more than this. */
void client_watch(struct client *client, short what);

/* The exchange wants its body from now on: it gets what came before it did. */
void client_offer_body(struct client *client);

/* The response is complete: the connection goes on with the next request or ends. The exchange is freed. */
void client_end_exchange(struct client *client, bool is_persistent);

/* The edge answers with the row's status. `stays`: the request was read whole, so the connection may go on;
 * else it lingers and closes with the reason. Ends the exchange. */
struct edge_answer;
void client_answer(struct client *client, const struct edge_answer *answer, bool stays);

/* The exchange became a tunnel, which is the client's from now on; the exchange is freed. */
void client_begin_tunnel(struct client *client, struct tunnel *tunnel);

/* Nothing more will be sent: closes in a way that lets the peer read what was sent before. */
void client_linger(struct client *client, enum close_reason reason);

/* The IP of an address, v4-mapped for IPv4. */
void client_ip_of(const struct address *address, struct in6_addr *ip);

/* The peer's IP as text; "" for a unix socket. */
#define CLIENT_IP_SIZE INET6_ADDRSTRLEN
struct slice client_ip_text(const struct client *client, char text[CLIENT_IP_SIZE]);
