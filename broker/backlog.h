/*
 * How far a subscriber is behind: what waits here for its socket, and what it has not taken from there.
 *
 *     queued (broker/output.h) ─▶ written ─▶ [ kernel here │ kernel there ] ─▶ taken
 *     └───────────── the backlog ────────────────────────────────────────┘
 *         above `high` ─▶ BEHIND ─nothing taken for BACKLOG_STUCK_AFTER─▶ STUCK
 *         at most half of `high` ─▶ KEEPS_UP
 *
 * Kernels take megabytes for a connection before a write ends short, and each of them is delay for whatever
 * comes next. So the kernel is asked, but only when enough was written since to make a difference. `high` is what the
 * subscriber was last seen to take within some milliseconds: enough to keep it at work until publishers may continue.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/timing.h"

/* Bounds of `high`. */
#define BACKLOG_LEAST ((size_t)128 * 1024)
#define BACKLOG_MOST  ((size_t)1024 * 1024)

/* One that is behind and takes nothing for this long is stuck. Not less: a kernel shows that a peer has read only when
 * it has read a good part of the buffers, and a busy machine lets all of them wait; if all are taken for stuck, nobody
 * is waited for and all are flooded. */
#define BACKLOG_STUCK_AFTER MILLISECONDS(250)

enum pace {
    PACE_KEEPS_UP,
    PACE_BEHIND,
    PACE_STUCK, /* behind, and it has stopped reading: nobody shall wait for it */
};

/* All zero is a new connection. */
struct backlog {
    uint64_t written;   /* bytes, of the whole connection; raised by whoever writes */
    uint64_t taken;     /* of those, when last looked */
    uint64_t looked_at; /* timing_now() */
    uint64_t looked_written;
    uint64_t taken_at; /* when it was last seen to take something while behind */
    uint64_t measured_at, measured_taken; /* how fast that is */
    size_t high;                          /* 0: not measured yet */
    enum pace pace;
};

/* `queued` bytes wait to be written to the socket `fd`; a backlog above `most` bytes is behind whatever it takes.
 * `now` as timing_now(). */
enum pace backlog_look(struct backlog *backlog, int fd, size_t queued, size_t most,
                       uint64_t now);
