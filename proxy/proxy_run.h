/*
 * The proxy put together: from a checked configuration to the exit code.
 *
 *      config ─▶ keys ─▶ discovery, first snapshot ─▶ sockets bound ─▶ admin and ctl ─▶ workers started ─▶ READY
 *                  any of these fails: one line on stderr, exit code 1
 *
 *      SIGTERM ─▶ not ready ─ readiness_delay ─▶ listeners closed, tunnels closed with 1012 over window
 *      SIGINT ──▶ the same without the delay               └─ nobody left, or deadline ─▶ workers stopped ─▶ 0
 *      a second SIGINT, SIGQUIT ─▶ everything closed at once
 *
 *      SIGHUP, ctl reload, a changed file ─▶ reload
 *
 * Each further snapshot that discovery makes goes to every worker's mailbox. The main thread runs signals,
 * discovery, admin and ctl; clients are the workers'.
 */
#pragma once

#include "shared/lifecycle.h"

#include "proxy/proxy_config.h"
#include "proxy/worker.h"

#include <event2/event_struct.h>

struct admin;
struct discovery;
struct ctl;
struct ctl_call;
struct listener_set;
struct proxy_rates;
struct reload;

struct proxy {
    struct process process;
    struct event_base *base;
    struct discovery *discovery;
    struct snapshot *snapshot; /* the newest; one reference */
    struct worker **workers;
    size_t workers_len;
    struct listener_set *listeners;
    struct reload *reload;
    struct lifecycle *lifecycle;
    struct admin *admin; /* NULL: off */
    struct ctl *ctl;     /* NULL: off */
    struct proxy_rates *rates;
    struct post_box box;            /* what workers tell the main thread */
    struct event drain_begins;      /* readiness_delay is over */
    struct event drain_look;        /* is anybody left? */
    struct ctl_call *shutdown_call; /* waits for the end; NULL: nobody does */
};

/* Runs until the end; the exit code for main(). Takes over the caller's reference to `config`, which was read from
 * `path`; NULL: from flags. */
int proxy_run(struct proxy_config *config, const char *path);
