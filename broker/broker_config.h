/*
 * All settings of the broker as one immutable struct: the rows of broker_config.c applied to a file, to
 * flags of the command line, and to defaults. Options whose feature does not exist have no row.
 */
#pragma once

#include "broker/partition_map.h"
#include "shared/file_read.h"
#include "shared/key_file.h"
#include "shared/options.h"

#include <stdio.h>

struct tls_context;

struct broker_user_config {
    char *name;
    char *password_file;
    bool publish_only;
    struct text_list channels;  /* empty: all */
    struct text_list commands;  /* words of command_class.def; empty: by what it is */
    unsigned classes;           /* of them, a bit each; no row of its own */
    struct text_list passwords; /* the file's lines; no row of its own */
};

struct broker_listener_config {
    struct address address;
    unsigned mode;
    int dialect;              /* enum broker_dialect */
    int echo;                 /* enum echo_mode */
    struct option_list users; /* struct broker_user_config; none: no authentication */
    bool has_tls;
    struct {
        char *cert, *key, *client_ca;
    } tls;
    /* No rows of their own. */
    struct broker_config *whole;     /* that it is part of */
    struct tls_context *tls_context; /* one holder; NULL: plain */
};

struct broker_shard_config {
    char *name; /* host:port of the URL when the file gives none */
    char *url;
    char *username;
    char *password_file;
    int64_t weight;
    bool has_tls;
    struct {
        char *ca, *cert, *key, *server_name;
    } tls;
    /* From the URL; no rows of their own. */
    char *host; /* NULL: unix_path */
    char *port;
    char *unix_path;
    char *url_password;              /* NULL: none in the URL */
    struct tls_context *tls_context; /* one holder; NULL: plain */
};

enum broker_tail { TAIL_ACKED, TAIL_OVERLAP };
enum broker_ack { ACK_FAST, ACK_SHARD };
enum pickle_mode { PICKLE_MODE_TRANSCODE, PICKLE_MODE_PASS, PICKLE_MODE_REJECT };
enum broker_dialect {
    ALL_SPEAK_AUTO,
    ALL_SPEAK_PICKLE,
    ALL_SPEAK_JSON14,
    ALL_SPEAK_JSON15
};
enum broker_readiness { READINESS_NONE, READINESS_ANY, READINESS_ALL };

struct broker_config {
    unsigned holders;             /* no row of its own */
    struct option_list listeners; /* struct broker_listener_config */
    struct address admin_address;
    char *admin_socket;           /* "auto", a path, or "" for none */
    struct text_list admin_hosts; /* that requests may name, see shared/admin_host.h */
    struct text_list channels;
    char *cluster_name;
    int64_t cluster_partitions;
    char *key_file; /* "": none */
    bool accepts_unsigned;
    /* No rows of their own. */
    bool has_keys;
    bool keys_are_readable_by_others;
    struct file_keys keys;
    struct option_list shards; /* struct broker_shard_config; none: embedded hub */
    int ack;                   /* enum broker_ack */
    int order;                 /* enum delivery_order */
    uint64_t flush_window;     /* OPTION_AUTO: at the end of each loop turn */
    bool is_local_fast;
    uint64_t resend_window, resend_bytes;
    uint64_t replay_window, replay_bytes; /* window 0: none */
    int replay_tail;                      /* enum broker_tail */
    uint64_t slow_bytes, slow_age;
    int slow_policy; /* enum slow_policy */
    uint64_t spill_bytes, spill_age;
    int pickle_mode;    /* enum pickle_mode */
    int pickle_objects; /* enum pickle_objects */
    int64_t clients_max;
    int64_t channels_max;
    uint64_t payload_max;
    uint64_t request_max; /* OPTION_AUTO: broker_config_request_max() */
    uint64_t input_max;   /* OPTION_AUTO: broker_config_input_max() */
    int64_t json_depth;
    uint64_t heartbeat; /* 0: none */
    int readiness;      /* enum broker_readiness */
    uint64_t shutdown_deadline;
    int log_level;  /* enum log_level */
    int log_format; /* enum log_format */
};

extern const struct option_table broker_config_table;

/* A value of the command line, replacing what the file says. */
struct broker_flag {
    const char *flag; /* "--listen" */
    const char *path; /* "listeners[0].address" */
    struct slice value;
};

/* Reads file (NULL: none) and flags, passwords included. NULL after printing every error to `errors`. The
 * caller owns the configuration. */
struct broker_config *broker_config_load(const char *file,
                                         const struct broker_flag *flags,
                                         size_t flag_count, FILE *errors) MUST_CHECK;

/* A configuration has one holder when it is loaded, and ends with its last one: a client holds that of its listener. */
struct broker_config *broker_config_hold(struct broker_config *config);
void broker_config_release(struct broker_config *config);

/* Takes over from `old_config` what cannot change while the broker runs: what every broker of a cluster must agree on,
 * the cluster's name, what rewriting is made for. */
void broker_config_keep(struct broker_config *config,
                        const struct broker_config *old_config);

/* What the partition map is made of. Slices and shards point into `config` and into what is returned,
 * which the caller frees after use. */
struct partition_map_config broker_config_map(const struct broker_config *config);
void broker_config_map_cleanup(struct partition_map_config *map_config);

/* limits.request, in bytes: as given, or what a payload of limits.payload and its other arguments take. */
size_t broker_config_request_max(const struct broker_config *config);

/* limits.input, in bytes: as given, or enough for four of the longest requests. */
size_t broker_config_input_max(const struct broker_config *config);

/* The longest payload, in bytes, that is taken from shards: other brokers may have a larger limits.payload. */
size_t broker_config_foreign_payload_max(const struct broker_config *config);

/* Has it shards, and is limits.payload so long that a Redis with its default client-output-buffer-limit may drop one? */
bool broker_config_strains_redis(const struct broker_config *config);

/* Logs a warning where it does. */
void broker_config_warn_of_payload(const struct broker_config *config);

/* One shard's configuration by itself, to outlive the whole; the caller frees it. */
struct broker_shard_config *
broker_shard_config_copy(const struct broker_shard_config *shard);
void broker_shard_config_free(struct broker_shard_config *shard);

/* Takes over everything from `from` but the name, which is the same. */
void broker_shard_config_replace(struct broker_shard_config *shard,
                                 const struct broker_shard_config *from);

/* The password for a shard: from the file, else from the URL; "" for none. False: the file cannot be read,
 * `why` says why. The caller frees *password. */
bool broker_config_shard_password(const struct broker_shard_config *shard,
                                  char **password, char why[FILE_WHY_SIZE]) MUST_CHECK;

static inline size_t broker_config_shard_count(const struct broker_config *config)
{
    return config->shards.count;
}

static inline const struct broker_shard_config *
broker_config_shard(const struct broker_config *config, size_t index)
{
    return OPTION_ITEM(config->shards, broker_shard_config, index);
}

static inline const struct broker_listener_config *
broker_config_listener(const struct broker_config *config, size_t index)
{
    return OPTION_ITEM(config->listeners, broker_listener_config, index);
}
