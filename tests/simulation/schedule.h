/*
 * What is done to the brokers of a run, as data: a class of faults and a seed give a list of timed deeds, which can be
 * printed, read again, and shortened. A deed that lasts says how long, so that none depends on another one.
 *
 *     class one_shard
 *     seed 17
 *     12.345678 redis_kill 1 800
 *     12.346000 publish 5 0 3 10 0
 */
#pragma once

#include "tests/simulation/oracle.h"
#include "tests/simulation/slot.h"

#include <stdio.h>

#define DEED_NUMBERS 5

/* Table: the word in the text, and what its numbers are. Times in them are milliseconds. */
#define DEEDS(DEED)                                                                      \
    DEED(publish, "visitor, channel, room, count, filler")                               \
    DEED(transact, "visitor, room, count, how (enum transaction_kind)")                  \
    DEED(seek, "visitor, channel or room, wants")                                        \
    DEED(end, "visitor, ending, away")                                                   \
    DEED(mute, "visitor, how long it does not read")                                     \
    DEED(client_kill, "visitor, victim")                                                 \
    DEED(kill_and_end, "visitor, victim, ending of the victim, after (microseconds)")    \
    DEED(say, "visitor, kind, what it is drawn from")                                    \
    DEED(cut_client, "visitor, direction, lasting")                                      \
    DEED(redis_kill, "server, lasting")                                                  \
    DEED(redis_stop, "server, lasting")                                                  \
    DEED(redis_demote, "server, lasting")                                                \
    DEED(redis_refuse, "server, lasting")                                                \
    DEED(redis_error, "server, lasting")                                                 \
    DEED(redis_slow, "server, delay, lasting")                                           \
    DEED(redis_limit, "server, bytes, lasting")                                          \
    DEED(reset, "broker, server, which connection")                                      \
    DEED(stall, "broker, server, which connection, direction, lasting")                  \
    DEED(cut, "broker, server (-1: all), directions (bits: up, down), lasting")          \
    DEED(pause, "broker, lasting")                                                       \
    DEED(crash, "broker, lasting")                                                       \
    DEED(vanish, "broker, lasting")                                                      \
    DEED(keys, "broker, stage, at once")                                                 \
    DEED(misfile, "broker, what is wrong, lasting")                                      \
    DEED(forge, "server, kind, what it is drawn from")                                   \
    DEED(drain, "broker, lasting")                                                       \
    DEED(reload, "broker, map, at once")

enum deed_kind {
#define DEED(word, numbers) DEED_##word,
    DEEDS(DEED)
#undef DEED
        DEED_COUNT
};

struct deed {
    uint64_t at;
    enum deed_kind kind;
    int64_t numbers[DEED_NUMBERS];
};

struct fault_class;

struct schedule {
    const struct fault_class *class;
    uint64_t seed;
    struct deed *deeds;
    size_t count, capacity;
};

/* How a run is set up: drawn from class and seed, never from the deeds. */
struct setup {
    unsigned brokers, shards; /* shards 0: the embedded hub */
    unsigned partitions;
    /* At each broker. */
    unsigned observers, pods, listeners, seekers, managers, publishers, strangers;
    unsigned forms;                  /* dialects */
    uint64_t resend_window;          /* seconds */
    unsigned fast_brokers;           /* bits: delivery.local_fast */
    bool ack_shard;                  /* delivery.ack */
    bool pods_speak;                 /* some pods publish, over RESP3 */
    bool is_checked;                 /* visitors look whether their connections live */
    uint64_t slow_bytes;             /* 0: the default */
    bool slow_drops;                 /* drop_oldest */
    uint64_t payload_max[SLOTS_MAX]; /* limits.payload; 0: the default */
    unsigned keys;                   /* enum keys_stage, at the start */
    struct wire_profile wires;
    uint64_t length;  /* deeds are before it */
    uint64_t settles; /* then all is quiet for so long */
};

struct fault_class {
    const char *name;
    const char *help;
    struct promise promise;
    void (*set_up)(struct setup *setup, uint64_t *random); /* NULL: as drawn */
    void (*fill)(struct schedule *schedule, const struct setup *setup, uint64_t *random);
};

extern const struct fault_class fault_classes[];
extern const unsigned fault_class_count;
const struct fault_class *fault_class_find(const char *name);

struct setup schedule_set_up(const struct fault_class *class, uint64_t seed);
void schedule_make(struct schedule *schedule, const struct fault_class *class,
                   uint64_t seed);
void schedule_free(struct schedule *schedule);
void schedule_print(const struct schedule *schedule, FILE *out);
/* False after a line on stderr. */
bool schedule_read(struct schedule *schedule, FILE *in);

/* For fault_classes.c. */
void schedule_add(struct schedule *schedule, uint64_t at, enum deed_kind kind, int64_t a,
                  int64_t b, int64_t c, int64_t d, int64_t e);
