/*
 * Who was promised what, from the pods' point of view (docs/broker-protocol.md, "Promised" and "Pods"): who was
 * subscribed when, what was acknowledged to publishers, what each subscriber got, in which order, and what brokers
 * counted as lost. It knows nothing of how brokers work, and waits for no later message.
 */
#pragma once

#include "tests/simulation/payload.h"
#include "tests/simulation/slot.h"

#define MESSAGES_MAX 8192

/* What a run may do, by its class. */
struct promise {
    bool loses_counted;  /* messages may be lost, each counted */
    bool loses_accepted; /* brokers are killed: what they had accepted may be lost */

    bool one_order; /* of a room, for all */
    bool ends_pods; /* subscribers' connections end */
    bool
        may_refuse; /* errors do not say that a message is not delivered (delivery.ack: shard) */
    bool has_strangers; /* who subscribe, and do not come back: counted (ring) */
};

void oracle_begin(const struct promise *promise);
void oracle_end(void);

/* A violation, as printf; the first is kept, a run ends with it. */
void oracle_violated(const char *format, ...) PRINTF_LIKE(1, 2);
/* NULL: none so far. The word before the first colon says which rule. */
const char *oracle_violation(void);

/* ── publishers ── */

/* A message is on its way to a broker; its number. UINT32_MAX: there are too many. */
unsigned oracle_sent(int client, unsigned connection, unsigned incarnation, int channel,
                     int room);
/* VOID: of a transaction that is not executed; it is delivered to nobody. */
enum answer { ANSWER_NONE, ANSWER_OK, ANSWER_ERROR, ANSWER_NEVER, ANSWER_VOID };
void oracle_answered(unsigned message, enum answer answer);
/* This broker has another cluster's file: what it is sent from then on it must not acknowledge. */
void oracle_must_refuse(unsigned incarnation, uint64_t from);

/* ── subscribers ── */

/* The subscription of these channels (bits) is acknowledged. `continues`: it has the name and the broker of an earlier one that ended in a way
 * after which nothing is lost. */
void oracle_subscribed(int client, unsigned channels, unsigned incarnation,
                       bool continues);
/* It may get what comes there, and is owed nothing yet. */
void oracle_listens(int client, unsigned channels, unsigned incarnation);
/* A client manager is told that it has joined the room: from now on it gets what is sent there. */
void oracle_joined(int client, int room, unsigned incarnation);
/* It wants no more of this; room -1: of none. */
void oracle_left(int client, int channel, int room);
/* Its connection ended; `abruptly`: what had come and was not acknowledged may come again, but for one that says itself
 * what it has had (`is_exact`). */
void oracle_unsubscribed(int client, bool abruptly, bool is_exact);
/* The path between it and its broker passes no acknowledgements for so long: what comes may come again. */
void oracle_cut(int client, uint64_t lasting);
/* It cannot be owed anything any more, until it subscribes again. */
void oracle_forgive(int client);
void oracle_got(int client, int channel, unsigned message, size_t len);

/* At the end, when all is quiet. */
void oracle_judge(void);

unsigned oracle_messages(void);
unsigned oracle_deliveries(void);
