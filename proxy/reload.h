/*
 * Another configuration while the proxy runs.
 *
 *      SIGHUP ────────┐                       ┌ affinity keys · TLS files · new sockets bound
 *      ctl reload ────┼─▶ the file ─▶ parsed ─▶ prepared ─▶ swapped: discovery makes a snapshot ─┬─▶ every worker has
 *      a file changed ┘         └──────┬──────┘             listeners: each worker's list ───────┘   both: answered
 *                              anything wrong:
 *                              one error line, everything stays as it is
 *
 * All that can fail happens before anything changes. Exchanges in flight keep the snapshot that they began with,
 * and the configuration in it, until their end; tunnels and idle clients follow the newest. One reload at a
 * time: what is asked for meanwhile becomes one more.
 *
 * Watched are the configuration's file and the files that it names: keys and certificates. What only a restart
 * changes (threads, admin.address, admin.socket) is named in one warning. On the main thread.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ctl_call;
struct discovery;
struct event_base;
struct lifecycle;
struct listener_set;
struct proxy_config;
struct reload;

/* What a configuration is handed to; all borrowed. */
struct reload_parts {
    struct event_base *base;
    struct discovery *discovery;
    struct listener_set *listeners;
    struct lifecycle *lifecycle;
};

/* `config` is what runs, read from `path` (NULL: from flags; then there is nothing to reload). Takes its own
 * reference. Until reload_ready() what is asked for waits. */
struct reload *reload_new(const struct reload_parts *parts, struct proxy_config *config,
                          const char *path);

/* The workers have the listeners of the first configuration. */
void reload_ready(struct reload *reload);

/* Calls that have not been answered are left to ctl_free(). */
void reload_free(struct reload *reload);

/* Begins one; `why` is for the log, static text. */
void reload_begin(struct reload *reload, const char *why);

/* The same, and the call is answered when every worker has the new configuration, or with what is wrong. */
void reload_begin_for(struct reload *reload, struct ctl_call *call);

struct reload_facts {
    uint64_t applied, refused;
    uint64_t applied_at; /* Unix time, seconds, of the last one or the start */
    const char *error;   /* why the last one was refused; "": it was not */
    const char *restart; /* options that wait for a restart, ", " between them */
    size_t restart_count;
};

/* Borrowed until the loop turns. */
struct reload_facts reload_facts(const struct reload *reload);
