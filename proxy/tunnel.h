/*
 * Bytes both ways after the 101: what Sidrail exists for.
 *
 *      client ──read──▶ [worker's scratch] ──write──▶ endpoint        one read and one write a message,
 *      client ◀─write── [worker's scratch] ◀──read─── endpoint        nothing owned, nothing allocated
 *
 *   When the sink takes less than was read:
 *
 *      FLOWING ──short write──▶ BLOCKED: the rest waits in a buffer, the source is not read, the sink is
 *         ▲                        │     watched for EV_WRITE, timeouts.write_stall runs
 *         └──────all written───────┘
 *
 *   When the source has finished, what waits is written, then the sink is told (FIN) and the other
 *   direction has 10 s to finish too. An endpoint that ends without a Close frame has died, with many tunnels at
 *   once: each client is closed at its place in herd_spread, at once when it sends something.
 *
 * Frame headers are followed in both directions, so that a Close can be put between two frames, limits hold
 * and frames are counted; payloads stay opaque. A client that breaks the framing is told 1002 (1009 above
 * limits.websocket_frame_bytes) and its endpoint's connection is closed; an endpoint that writes no
 * frames costs the client 1011. The client's silence is measured lazily: a read notes the tick, the
 * deadline looks at the note.
 *
 * An idle tunnel is its client, its endpoint's connection and this struct, no buffer: see TUNNEL_COST.
 */
#pragma once

#include "shared/slice.h"

#include "proxy/client.h"
#include "proxy/ws_frame.h"

struct endpoint_connection;

/* One direction. */
struct tunnel_pipe {
    struct ws_tracker tracker;
    struct buffer *waiting; /* read, but not taken by the sink */
    uint64_t bytes;
    uint32_t moved_at; /* deadline_now() when `waiting` last shrank or began */
    bool has_ended;    /* the source has finished writing */
    bool sink_is_told; /* and the sink knows */
};

enum tunnel_leave { TUNNEL_STAYS, TUNNEL_LEAVES_LATER, TUNNEL_LEAVES_AT_BOUNDARY };

struct tunnel {
    struct client *client;                  /* borrowed: it owns us */
    struct endpoint_connection *connection; /* owned; NULL once closed */
    struct tunnel_pipe pipes[2];            /* TO_CLIENT, TO_ENDPOINT */
    uint32_t number;                        /* among the tunnels of its endpoint */
    uint32_t ended_at;                      /* deadline_now() of the first end */
    uint32_t leave_at;    /* deadline_now() at which it is to leave, boundary or not */
    uint8_t leave;        /* enum tunnel_leave */
    uint16_t close_code;  /* the Close to leave with */
    uint8_t close_reason; /* and its enum close_reason */
    uint8_t first_reason; /* what the first end would be called */
    bool is_engine_io;
    bool is_orphan; /* its endpoint has died; it is to leave */
};

/* What an idle proxied plaintext WebSocket takes of our own memory, libevent's included: the three objects, and
 * for each of the two descriptors an entry in libevent's table (16 bytes) and a pointer to it,
 * in a table that may be half empty. */
#define TUNNEL_COST                                                                      \
    (sizeof(struct client) + sizeof(struct endpoint_connection) +                        \
     sizeof(struct tunnel) + 2 * (16 + 2 * 8))

/* Takes the connection over after a verified 101, whose head has been written to the client already. What the
 * client sent before it (client->in) and `behind`, what came with it, flow at once. */
void tunnel_start(struct client *client, struct endpoint_connection *connection,
                  bool has_deflate, bool is_engine_io, struct slice behind);

/* Bytes of its buffers. */
size_t tunnel_holds(const struct tunnel *tunnel);

/* The client's socket is ready. */
void tunnel_on_client(struct tunnel *tunnel, short what);

/* A Close with `code` is put between two frames towards the client (within a second; then without), and the
 * client is closed with the reason. */
void tunnel_leave(struct tunnel *tunnel, uint16_t code, enum close_reason reason);

/* The same with 1012 after `delay_ms`, unless it is to leave earlier. */
void tunnel_leave_later(struct tunnel *tunnel, uint32_t delay_ms,
                        enum close_reason reason);

/* The timeouts of the configuration have changed. */
void tunnel_follow_limits(struct tunnel *tunnel);

/* Its endpoint drains (endpoint->draining_since): it leaves at its place in the window (proxy/drain.h); drains no more:
 * it stays. `is_new`: it has just begun. `now`: timing_now(). */
void tunnel_follow_drain(struct tunnel *tunnel, uint64_t now, bool is_new);

/* Frees it and closes the endpoint's connection; the client does this when it is closed. */
void tunnel_free(struct tunnel *tunnel);
