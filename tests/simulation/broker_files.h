/*
 * What is in the files of a broker: its configuration, and the keys of its cluster.
 */
#pragma once

#include "tests/simulation/schedule.h"

/* What may differ between brokers, and from time to time. */
struct broker_files {
    /* Of the first `setup.shards` servers those whose bit is not set, of the others those whose bit is; bit 8 + k: shard
     * k's name leads to another server. */
    unsigned map;
    unsigned keys;  /* enum keys_stage */
    unsigned wrong; /* enum wrong_file */
};

/* The steps of docs/broker-protocol.md, "Introducing keys" and "Rotation". */
enum keys_stage {
    KEYS_NONE,
    KEYS_ACCEPT,   /* the file is there, and accept_unsigned */
    KEYS_STRICT,   /* no accept_unsigned any more */
    KEYS_APPENDED, /* a new key is at the end */
    KEYS_MOVED,    /* it is at the front */
    KEYS_ROTATED,  /* the old one is removed */
    KEYS_ACCEPT_AGAIN,
    KEYS_STAGE_COUNT
};

/* How a file is another cluster's. */
enum wrong_file {
    WRONG_NOT,
    WRONG_PARTITIONS,
    WRONG_ORDER,
    WRONG_CHANNELS,
    WRONG_SHARDS,
    WRONG_FILE_COUNT
};

bool broker_files_have(const struct setup *setup, unsigned map, unsigned server);
unsigned broker_files_count(const struct setup *setup, unsigned map);

/* Writes its key file, and returns the text of its configuration; the caller frees it. */
char *broker_files_write(const struct setup *setup, unsigned slot,
                         const struct broker_files *files);
