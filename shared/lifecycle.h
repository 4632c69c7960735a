/*
 * From start to end of a daemon.
 *
 *      STARTING ──lifecycle_ready──▶ READY ──SIGTERM, SIGINT, lifecycle_drain──▶ DRAINING ──▶ STOPPED
 *          │                           │ ▲                                          │  lifecycle_drained (nothing left),
 *          │                           └─┘ SIGHUP: on_reload                        │  the deadline,
 *          └────────── SIGTERM, SIGINT ─────────────────────────────────────────────┘  a second SIGINT, or SIGQUIT
 *
 * Readiness is true in READY only. on_drain asks the daemon to let its clients go; the daemon says
 * lifecycle_drained() when none is left. on_stop comes exactly once, whichever arrow led there; after it the
 * main loop ends and lifecycle_run() returns the exit code.
 *
 * SIGTERM while draining changes nothing and is logged: supervisors send it twice, and after `ctl shutdown`. The
 * second SIGINT, and SIGQUIT in any phase, end the daemon at once; the first SIGINT after SIGTERM does not.
 * SIGUSR1 and SIGUSR2 are logged at debug and change nothing. SIGPIPE is ignored from lifecycle_new() on.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>

struct event_base;
struct lifecycle;

enum exit_code {
    EXIT_CODE_WELL = 0,  /* ended well */
    EXIT_CODE_START = 1, /* configuration or start-up error, one clear line on stderr */
    EXIT_CODE_USAGE = 2
};

enum lifecycle_phase {
    LIFECYCLE_STARTING,
    LIFECYCLE_READY,
    LIFECYCLE_DRAINING,
    LIFECYCLE_STOPPED
};

/* "starting", "ready", "draining", "stopped". */
const char *lifecycle_phase_text(enum lifecycle_phase phase);

enum lifecycle_end {
    LIFECYCLE_END_DRAINED,
    LIFECYCLE_END_DEADLINE,
    LIFECYCLE_END_AT_ONCE
};

struct lifecycle_callbacks {
    void (*on_reload)(void *argument);
    void (*on_drain)(void *argument);
    void (*on_stop)(void *argument, enum lifecycle_end end);
};

/* Takes SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 and SIGUSR2 on `base` (the main thread's). Callbacks may be NULL. Also calls
 * log_tick() once a second. */
struct lifecycle *lifecycle_new(struct event_base *base,
                                const struct lifecycle_callbacks *callbacks,
                                void *argument);
void lifecycle_free(struct lifecycle *lifecycle);

/* How long DRAINING may last, microseconds, counted from its beginning; default 10 s. A change while draining
 * (reload) counts from that beginning too. */
void lifecycle_set_deadline(struct lifecycle *lifecycle, uint64_t deadline);

enum lifecycle_phase lifecycle_phase(const struct lifecycle *lifecycle);

/* Did DRAINING begin with SIGINT: somebody at a terminal waits? */
bool lifecycle_is_interrupted(const struct lifecycle *lifecycle);

/* What is left of DRAINING, microseconds; 0 when past or not draining. */
uint64_t lifecycle_remaining(const struct lifecycle *lifecycle);

/* The arrows that the daemon takes itself. A call in a phase without that arrow does nothing. On the main
 * loop's thread. */
void lifecycle_ready(struct lifecycle *lifecycle);
void lifecycle_drain(struct lifecycle *lifecycle);
void lifecycle_drained(struct lifecycle *lifecycle);
void lifecycle_stop(struct lifecycle *lifecycle); /* at once */

/* First thing of a daemon: SIGTERM, SIGINT and SIGQUIT end it at once until lifecycle_new(). Without it the first
 * process of a container would not hear them while it reads files or waits for a name server. SIGUSR1, SIGUSR2,
 * SIGALRM, SIGVTALRM and SIGIO, which would kill by default, are ignored from here on. */
void lifecycle_begin(void);

/* Runs the main loop until STOPPED; the exit code for main(). */
int lifecycle_run(struct lifecycle *lifecycle);

/* Any thread; a start-up failure found late: log it, then end with EXIT_CODE_START. */
void lifecycle_set_exit_code(struct lifecycle *lifecycle, int code);
