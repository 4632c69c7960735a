/*
 * WebSocket frame headers of one direction of a tunnel, RFC 6455 5.2. Payload is never
 * looked at.
 *
 *          ┌────────────── payload skipped, O(1) ──────────────┐
 *          ▼                                                    │
 *     boundary ─ byte 1 ─▶ byte 2 ─▶ [2 or 8 length bytes] ─▶ [4 mask bytes] ─▶ payload
 *          ▲                                                                      │
 *          └────────────────────────── left == 0 ─────────────────────────────────┘
 *
 * The tracker says whether the direction stands between two frames, so that a Close can
 * be put there, and counts.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>

enum {
    WS_CLOSE_FRAME_MAX = 8,
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_PROTOCOL_ERROR = 1002,
    WS_CLOSE_TOO_BIG = 1009,
    WS_CLOSE_INTERNAL = 1011,
    WS_CLOSE_RESTART = 1012,
};

enum ws_side {
    WS_FROM_CLIENT, /* frames must be masked */
    WS_FROM_SERVER, /* must not */
};

/* A plain value of 16 bytes: one sits in every idle tunnel, twice. */
struct ws_tracker {
    uint64_t left; /* payload bytes of this frame that have not come yet */
    uint8_t state;
    uint8_t header_left; /* bytes of the length or mask that have not come yet */
    uint8_t first;       /* first byte of this frame: FIN, RSV, opcode */
    uint8_t side;        /* enum ws_side */
    bool has_deflate;    /* RSV1 is legal on the first frame of a message */
    bool is_masked;
    bool in_message; /* a fragmented message is open */
    bool has_close;  /* a Close frame has begun: nothing may be added behind it */
};

/* What one call of ws_track saw. */
struct ws_seen {
    uint32_t frames;   /* headers completed */
    uint32_t messages; /* data messages ended */
    uint64_t largest;  /* longest payload among those headers */
    /* bytes up to and including the last frame that ended in this call; 0: none ended */
    size_t boundary;
    uint16_t fault;         /* 0, or the close code to answer with: 1002, 1009 */
    const char *fault_text; /* constant sentence; NULL without fault */
};

void ws_tracker_init(struct ws_tracker *tracker, enum ws_side side, bool has_deflate);

/* Follows `data`. False on a fault: seen->fault tells the code, seen->boundary how
 * many bytes before it may still be relayed, and the tracker stays faulty. A frame
 * above `max_frame_bytes` is a fault (0: no limit). */
bool ws_track(struct ws_tracker *tracker, struct slice data, uint64_t max_frame_bytes,
              struct ws_seen *seen) MUST_CHECK;

/* True between two frames. (Between the fragments of a message too: a control frame
 * may stand there.) */
bool ws_tracker_is_at_boundary(const struct ws_tracker *tracker);

/* Writes a Close frame with `code` and no text. `mask`: four random bytes when it goes
 * to an endpoint, NULL when it goes to a client. Gives back its length. */
size_t ws_frame_write_close(char out[WS_CLOSE_FRAME_MAX], uint16_t code,
                            const uint8_t mask[4]);
