/*
 * How many subscribers channels have at other brokers, from their heartbeats; for PUBSUB.
 *
 *     few channels     all of them in each heartbeat, which replace what was known of the broker
 *     many             in each heartbeat those that have changed, and then some of all in turn:
 *
 *     own interests ─ changed ─▶ heartbeat ═▶ count of the channel; 0: it ends
 *                   └ in turn ─▶     │     ═▶ at the beginning of a turn: what was in none of the last two ends
 *                                    └ more have changed, or a broker is new ─▶ the next one follows soon
 *
 * Times are of standing_now(). Counts of a broker that is not heard for PEER_LIVE do not count.
 */
#pragma once

#include "broker/control.h"
#include "shared/timing.h"

struct evbuffer;
struct interest_table;
struct subscriber_counts;

/* Of parts of a broker that knows no turns. */
#define SUBSCRIBER_COUNT_KEEP SECONDS(10)

/* In a heartbeat when nothing has changed. */
#define SUBSCRIBER_COUNTS_CALM ((size_t)16 * 1024)

/* `interest` is borrowed. */
struct subscriber_counts *subscriber_counts_new(struct interest_table *interest);
void subscriber_counts_free(struct subscriber_counts *counts);

/* Appends own channels with their counts (control_add_channel), at most `room` bytes. Returns how many; *flags: CONTROL_GENERIC_PART,
 * CONTROL_GENERIC_TURN. */
size_t subscriber_counts_write(struct subscriber_counts *counts, struct evbuffer *out,
                               size_t room, uint8_t *flags);

/* More is to be written than fits in one heartbeat: the next one should follow soon. */
bool subscriber_counts_is_behind(const struct subscriber_counts *counts);

/* Somebody knows none of it yet: one turn is written as fast as may be. */
void subscriber_counts_hurry(struct subscriber_counts *counts);

/* What another broker's heartbeat says; its `flags`. */
void subscriber_counts_hear(struct subscriber_counts *counts, uint64_t origin,
                            struct control_list list, uint8_t flags, uint64_t now);
void subscriber_counts_forget(struct subscriber_counts *counts, uint64_t origin);

/* Subscribers of the channel at other brokers. */
uint64_t subscriber_counts_of(const struct subscriber_counts *counts,
                              struct slice channel, uint64_t now);

/* Each channel that has subscribers at other brokers, once; `on_channel` gets a borrowed name. */
void subscriber_counts_walk(const struct subscriber_counts *counts, uint64_t now,
                            void (*on_channel)(void *context, struct slice channel),
                            void *context);
