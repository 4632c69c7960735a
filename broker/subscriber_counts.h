/*
 * How many subscribers channels have at other brokers, from their heartbeats; for PUBSUB.
 *
 *     own interests ─▶ subscriber_counts_write ─▶ heartbeat ═▶ subscriber_counts_hear ─▶ subscriber_counts_of
 *                        so many bytes at a time, in turn        whole: replaces all of that broker
 *                                                                a part: adds, and each ends after SUBSCRIBER_COUNT_KEEP
 *
 * Counts are up to a second late; those of a broker that is not heard for PEER_LIVE do not count. Times are of
 * standing_now().
 */
#pragma once

#include "broker/control.h"
#include "shared/timing.h"

struct evbuffer;
struct interest_table;
struct subscriber_counts;

#define SUBSCRIBER_COUNT_KEEP SECONDS(10)

/* `interest` is borrowed. */
struct subscriber_counts *subscriber_counts_new(const struct interest_table *interest);
void subscriber_counts_free(struct subscriber_counts *counts);

/* Appends own channels with their counts (control_add_channel), those that were left out the last time first.
 * Returns how many; *is_part: there are more. */
size_t subscriber_counts_write(struct subscriber_counts *counts, struct evbuffer *out,
                               bool *is_part);

/* What another broker's heartbeat says. */
void subscriber_counts_hear(struct subscriber_counts *counts, uint64_t origin,
                            struct control_list list, bool is_part, uint64_t now);
void subscriber_counts_forget(struct subscriber_counts *counts, uint64_t origin);

/* Subscribers of the channel at other brokers. */
uint64_t subscriber_counts_of(const struct subscriber_counts *counts,
                              struct slice channel, uint64_t now);

/* Each channel that has subscribers at other brokers, once; `on_channel` gets a borrowed name. */
void subscriber_counts_walk(const struct subscriber_counts *counts, uint64_t now,
                            void (*on_channel)(void *context, struct slice channel),
                            void *context);
