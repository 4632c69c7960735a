/*
 * What connects to brokers: pods, publishers, and who means no good.
 *
 *     observer    subscribes all channels, reads at once, is never touched: one a broker
 *     pod         named; subscribes python-socketio's channel, and comes back when its connection ends
 *     listener    subscribes other channels, by name or by pattern
 *     seeker      subscribes and unsubscribes channels as it is told
 *     manager     a client manager (docs/interest.md), whose rooms come and go
 *     publisher   PUBLISH, pipelined
 *     stranger    says anything
 *
 * Each is a host with an address of its own. What they do is asked for by the schedule; they connect again by
 * themselves.
 */
#pragma once

#include "tests/simulation/payload.h"
#include "tests/simulation/slot.h"

enum client_kind {
    KIND_OBSERVER,
    KIND_POD,
    KIND_LISTENER,
    KIND_SEEKER,
    KIND_MANAGER,
    KIND_PUBLISHER,
    KIND_STRANGER
};

/* How a connection ends. */
enum ending { END_FIN, END_RESET, END_VANISH, END_QUIT, END_COUNT };

struct visitor;

/* `speak`: pods with an odd number speak RESP3, and publish too. `check`: each looks whether its connection lives, as
 * health_check_interval of redis-py, and begins a new one if not. */
void visitors_begin(unsigned payload_forms, bool speak, bool check);
/* Brokers end connections of slow subscribers: what a kernel held then is in no count. */
void visitors_expect_slow(bool may_be_slow);

void visitors_end(void);
struct visitor *visitor_new(enum client_kind kind, struct slot *slot);
struct visitor *visitor_at(unsigned number);
unsigned visitors_count(void);
int visitor_number(const struct visitor *visitor);
enum client_kind visitor_kind(const struct visitor *visitor);
struct slot *visitor_slot(const struct visitor *visitor);

/* `count` messages in one write, each `filler` bytes longer than it must be. Nothing when it is not connected. */
void visitor_publish(struct visitor *visitor, int channel, int room, unsigned count,
                     size_t filler);
/* The same in one transaction, which is executed, or not: of one that is not, nothing is delivered. */
enum transaction_kind {
    TRANSACTION_PLAIN,
    TRANSACTION_BAD_COMMAND, /* among them: EXEC is refused */
    TRANSACTION_BAD_COUNT,   /* of arguments */
    TRANSACTION_DISCARDED,
    TRANSACTION_ABANDONED, /* no EXEC: the connection ends */
    TRANSACTION_KIND_COUNT
};
void visitor_transact(struct visitor *visitor, int room, unsigned count,
                      enum transaction_kind kind);
/* Can it publish: it does nothing else, or speaks RESP3? */
bool visitor_speaks(const struct visitor *visitor);
/* Its connection ends; it comes back after `away`. */
void visitor_end(struct visitor *visitor, enum ending how, uint64_t away);
/* Bytes as they are: commands of any kind, or none. What is answered is ignored from then on. */
void visitor_say(struct visitor *visitor, const void *bytes, size_t len);
/* CLIENT KILL of another. */
void visitor_kill(struct visitor *visitor, const struct visitor *victim);
/* A seeker subscribes a channel, a manager joins a room; or no longer. */
void visitor_seek(struct visitor *visitor, int what, bool wants);
void visitor_stop_reading(struct visitor *visitor, bool stop);
void visitor_move(struct visitor *visitor, struct slot *slot);
/* Those of whom nobody is at the other end any more. */
bool visitor_is_connected(const struct visitor *visitor);
bool visitor_is_subscribed(const struct visitor *visitor);
/* When the oldest request that waits for its answer was sent; UINT64_MAX: none waits. */
uint64_t visitor_waits_since(const struct visitor *visitor);
/* When the last answer came; 0: none came yet. */
uint64_t visitor_answered_at(const struct visitor *visitor);
/* The broker of the slot has gone: nothing is owed. */
void visitors_note_gone(const struct slot *slot);
/* PING; the answer is awaited by visitor_waits_since(). */
void visitor_ping(struct visitor *visitor);
