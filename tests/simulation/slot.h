/*
 * A place where a broker runs: the real one, its loop turned by the world.
 *
 *     slot_launch ─▶ a turn whenever a descriptor changes or its loop's timer is due ─▶ slot_kill | slot_drain
 *                      └ not while it is paused (SIGSTOP)
 *
 * Each start is an incarnation of its own, with a new origin and a standing clock.
 */
#pragma once

#include "broker/broker.h"
#include "broker/receive.h"
#include "broker/standing_clock.h"
#include "tests/simulation/wire.h"

#define SLOTS_MAX 4

struct slot {
    int number;
    struct broker *broker; /* NULL: nobody runs here */
    unsigned incarnation;  /* counts starts over all slots, from 1 */
    uint64_t started_at;
    bool is_paused;
    bool is_draining;
    struct standing_clock clock;
    char path[32]; /* of its configuration */
    uint64_t step_at;
    uint64_t step_number; /* the event that is due; others are old */
    uint64_t turns;
    int64_t lost[LOSS_REASON_COUNT]; /* since this start */
    int64_t dropped;                 /* deliveries of slow subscribers */
};

/* `verbose`: brokers log to standard error. */
void slots_begin(unsigned count, bool verbose);
void slots_end(void);
struct slot *slot_at(unsigned number);
unsigned slots_count(void);

/* Starts a broker with this configuration file (YAML text). */
void slot_launch(struct slot *slot, const char *yaml);
/* kill -9; `silent`: the machine went with it. */
void slot_kill(struct slot *slot, bool silent);
void slot_pause(struct slot *slot);
void slot_continue(struct slot *slot);
/* SIGTERM. */
void slot_drain(struct slot *slot);
/* The file changes; `at_once`: SIGHUP, else the broker finds it by itself. False: refused. */
bool slot_reload(struct slot *slot, const char *yaml, bool at_once);

/* Runs in the broker's name. */
void slot_enter(struct slot *slot);
void slot_leave(struct slot *slot);

/* A number that changes with each turn of any loop, and is odd within one: for who watches that turns end. */
extern volatile uint64_t slot_turns_seen;
int64_t slot_lost(const struct slot *slot);
