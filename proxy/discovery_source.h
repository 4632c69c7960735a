/*
 * What a way of learning endpoints has to offer, and what it is given: one file an implementation.
 *
 *     discovery ── start(config) ─▶ source ── on_list(whole list) ──────▶ discovery
 *               ── stop ──────────▶        ── on_trouble(why, details) ─▶ (keeps the last list)
 *
 * A source reports whole lists; differences, states and snapshots are discovery's. All on the main thread.
 */
#pragma once

#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"

struct event_base;

struct source_callbacks {
    /* Everything that is there now; text is borrowed until it returns. */
    void (*on_list)(void *owner, const struct endpoint_spec *specs, size_t len);
    /* It can be learned from again, and the last list still holds. */
    void (*on_well)(void *owner);
    /* What keeps the source from learning, in words; the last list stays. Told once for each attempt. */
    void (*on_trouble)(void *owner, const char *why);
};

struct source_kind {
    const char *word; /* in logs and metrics */
    /* Never fails: what is wrong comes as on_trouble. May call back before it returns. `config` outlives
     * the source. */
    void *(*start)(struct event_base *base, const struct upstream_config *config,
                   const struct source_callbacks *callbacks, void *owner);
    void (*stop)(void *source);
    /* Other options from now on, `config` as for start; NULL: it is stopped and started. */
    void (*change)(void *source, const struct upstream_config *config);
};
