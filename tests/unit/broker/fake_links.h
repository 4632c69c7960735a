/*
 * Links and a clock that do what a test says: defined here, they take the place of broker/link.c and
 * broker/standing_clock.c in the program that includes this.
 */
#pragma once

#include "tests/unit/unit.h"

#include "broker/broker_config.h"
#include "broker/link.h"
#include "broker/standing_clock.h"
#include "shared/timing.h"

#include <event2/buffer.h>
#include <stdlib.h>

#define FAKE_LINKS_MAX 64

struct link {
    struct link_config config;
    struct link_callbacks callbacks;
    enum link_state state;
    enum close_reason reason;
    bool is_started;
    unsigned room;      /* commands that may be in flight */
    unsigned in_flight; /* of link_send */
    unsigned sent;
    unsigned hurried;
    struct evbuffer *out;   /* what was sent, one command behind the other */
    struct evbuffer *asked; /* SUBSCRIBE without answer: "channel\n" each */
    unsigned subscribed, unsubscribed;
};

static struct link *fake_links[FAKE_LINKS_MAX]; /* those that live */
static unsigned fake_link_count;
static uint64_t fake_now = SECONDS(1000);

uint64_t standing_now(void)
{
    return fake_now;
}

struct link *link_new(struct event_base *base UNUSED, struct turn *turn UNUSED,
                      struct evdns_base *dns UNUSED, const struct link_config *config,
                      const struct link_callbacks *callbacks)
{
    struct link *link = must_calloc(1, sizeof(*link));
    link->config = *config;
    link->callbacks = *callbacks;
    link->room = LINK_IN_FLIGHT_MESSAGES;
    link->out = evbuffer_new();
    link->asked = evbuffer_new();
    assert_true(fake_link_count < FAKE_LINKS_MAX);
    fake_links[fake_link_count++] = link;
    return link;
}

void link_free(struct link *link)
{
    for (unsigned i = 0; i < fake_link_count; i++)
        if (fake_links[i] == link)
            fake_links[i] = fake_links[--fake_link_count];
    evbuffer_free(link->out);
    evbuffer_free(link->asked);
    free(link);
}

void link_start(struct link *link)
{
    link->is_started = true;
}

static void fake_link_set(struct link *link, enum link_state state)
{
    if (link->state == state)
        return;
    link->state = state;
    link->in_flight = 0;
    if (state == LINK_DOWN)
        evbuffer_drain(link->asked, evbuffer_get_length(link->asked));
    link->callbacks.on_change(link->callbacks.context, link);
}

void link_close(struct link *link, enum close_reason reason)
{
    link->reason = reason;
    fake_link_set(link, LINK_DOWN);
}

enum link_state link_state(const struct link *link)
{
    return link->state;
}

const char *link_state_text(enum link_state state UNUSED)
{
    return "";
}

enum close_reason link_last_reason(const struct link *link)
{
    return link->reason;
}

const char *link_last_text(const struct link *link UNUSED)
{
    return "";
}

bool link_has_room(const struct link *link, size_t len UNUSED)
{
    return link->in_flight < link->room;
}

void link_send(struct link *link, struct span command)
{
    assert_int_equal(LINK_PUBLISHING, link->config.kind);
    assert_int_equal(LINK_UP, link->state);
    link->in_flight++;
    link->sent++;
    struct slice bytes = span_bytes(command);
    evbuffer_add(link->out, bytes.data, bytes.len);
}

void link_subscribe(struct link *link, struct slice channel)
{
    assert_int_equal(LINK_UP, link->state);
    link->subscribed++;
    evbuffer_add_printf(link->asked, "%.*s\n", SLICE_ARGS(channel));
}

void link_unsubscribe(struct link *link, struct slice channel UNUSED)
{
    link->unsubscribed++;
}

unsigned link_in_flight_count(const struct link *link)
{
    return link->in_flight;
}

bool link_is_held_up(const struct link *link UNUSED)
{
    return false;
}

uint64_t link_moved_at(const struct link *link UNUSED)
{
    return 0;
}

size_t link_in_flight_bytes(const struct link *link UNUSED)
{
    return 0;
}

void link_hurry(struct link *link)
{
    link->hurried++;
}

bool link_is_hurried(const struct link *link)
{
    return link->hurried > 0;
}

size_t link_queued_bytes(const struct link *link UNUSED)
{
    return 0;
}

void link_flush(struct link *link UNUSED)
{
}

/* Redis answers the oldest PUBLISH. */
static inline void fake_link_reply(struct link *link)
{
    assert_true(link->in_flight > 0);
    link->in_flight--;
    link->callbacks.on_reply(link->callbacks.context, link, true, SLICE("0"));
}

/* Redis confirms all that was subscribed. */
static inline void fake_link_confirm(struct link *link)
{
    char *line;
    size_t len;
    while ((line = evbuffer_readln(link->asked, &len, EVBUFFER_EOL_LF)) != NULL) {
        link->callbacks.on_subscribed(link->callbacks.context, link, slice_of(line, len),
                                      true);
        free(line);
    }
}

/* The living link of a shard. */
static inline struct link *fake_link_find(const char *shard, enum link_kind kind)
{
    for (unsigned i = 0; i < fake_link_count; i++)
        if (fake_links[i]->config.kind == kind && fake_links[i]->config.shard != NULL &&
            strcmp(fake_links[i]->config.shard->name, shard) == 0)
            return fake_links[i];
    return NULL;
}
