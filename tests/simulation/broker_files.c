#include "tests/simulation/broker_files.h"

#include "tests/simulation/libc.h"
#include "tests/simulation/redis_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_A "a 60303ae22b998861bce3b28f33eec1be\n"
#define KEY_B "b 9f86d081884c7d659a2feaa0c55ad015\n"

static const struct {
    const char *keys; /* NULL: no file */
    bool accepts_unsigned;
} stages[KEYS_STAGE_COUNT] = {
    [KEYS_NONE] = {NULL, false},         [KEYS_ACCEPT] = {KEY_A, true},
    [KEYS_STRICT] = {KEY_A, false},      [KEYS_APPENDED] = {KEY_A KEY_B, false},
    [KEYS_MOVED] = {KEY_B KEY_A, false}, [KEYS_ROTATED] = {KEY_B, false},
    [KEYS_ACCEPT_AGAIN] = {KEY_B, true},
};

bool broker_files_have(const struct setup *setup, unsigned map, unsigned server)
{
    return (server < setup->shards) != ((map >> server & 1) != 0);
}

unsigned broker_files_count(const struct setup *setup, unsigned map)
{
    unsigned count = 0;
    for (unsigned k = 0; k < REDIS_MAX; k++)
        count += broker_files_have(setup, map, k);
    return count;
}

static void write_cluster(FILE *out, const struct setup *setup, unsigned slot,
                          const struct broker_files *files)
{
    const char *keys = stages[files->keys % KEYS_STAGE_COUNT].keys;
    fprintf(out, "cluster:\n  partitions: %u\n",
            files->wrong == WRONG_PARTITIONS ? setup->partitions * 2 + 1
                                             : setup->partitions);
    if (keys == NULL)
        return;
    char path[32];
    snprintf(path, sizeof(path), "/sim/keys%u", slot);
    libc_set_file(path, keys);
    fprintf(out, "  key_file: %s\n", path);
    if (stages[files->keys % KEYS_STAGE_COUNT].accepts_unsigned)
        fputs("  accept_unsigned: true\n", out);
}

static void write_shards(FILE *out, const struct setup *setup,
                         const struct broker_files *files)
{
    fputs("shards:\n", out);
    for (unsigned k = 0; k < REDIS_MAX; k++) {
        if (!broker_files_have(setup, files->map, k))
            continue;
        bool is_moved = (files->map >> (8 + k) & 1) != 0;
        unsigned server = is_moved ? (k + REDIS_MAX / 2) % REDIS_MAX : k;
        fprintf(out, "  - {name: %s%u, url: \"redis://10.0.0.%d:%d\"}\n",
                files->wrong == WRONG_SHARDS ? "other" : "s", k,
                HOST_REDIS((int)server) + 1, SIM_PORT);
    }
}

char *broker_files_write(const struct setup *setup, unsigned slot,
                         const struct broker_files *files)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    check(out != NULL);
    fprintf(out,
            "listeners:\n"
            "  - address: 10.0.0.%u:%d\n"
            "    echo: \"on\"\n"
            "admin: {address: \"\", socket: \"\"}\n"
            "log: {level: debug, format: text}\n"
            "resend: {window: %us}\n",
            slot + 1, SIM_PORT, (unsigned)setup->resend_window);
    fprintf(out, "delivery: {local_fast: %s, ack: %s, order: %s}\n",
            (setup->fast_brokers >> slot & 1) != 0 ? "true" : "false",
            setup->ack_shard ? "shard" : "fast",
            files->wrong == WRONG_ORDER ? "total" : "room");
    if (files->wrong == WRONG_CHANNELS)
        fputs("channels: [flask-socketio, another]\n", out);
    if (setup->slow_bytes > 0)
        fprintf(out, "slow_subscriber: {bytes: %u, policy: %s}\n",
                (unsigned)setup->slow_bytes,
                setup->slow_drops ? "drop_oldest" : "disconnect");
    if (setup->payload_max[slot] > 0)
        fprintf(out, "limits: {payload: %u}\n", (unsigned)setup->payload_max[slot]);
    write_cluster(out, setup, slot, files);
    if (setup->shards > 0)
        write_shards(out, setup, files);
    fclose(out);
    return text;
}
