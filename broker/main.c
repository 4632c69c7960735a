/*
 * sidrail-broker: the command line. What runs is broker.c.
 */
#include "broker/broker.h"
#include "broker/broker_admin.h"
#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/broker_tls.h"
#include "broker/explain.h"
#include "broker/probe.h"
#include "shared/lifecycle.h"
#include "shared/log.h"
#include "shared/net.h"
#include "shared/timing.h"

#include <event2/buffer.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char usage[] =
    "usage: sidrail-broker --config FILE [--check]\n"
    "       sidrail-broker [--listen ADDR]... [--shard URL]... [--admin ADDR]\n"
    "                      ADDR is host:port or unix:/path, URL "
    "redis[s]://[user:password@]host:port;\n"
    "                      default listen 127.0.0.1:6379; no shard is the embedded hub\n"
    "       sidrail-broker --print-options | --print-metrics | --version | --help\n"
    "       sidrail-broker explain [--config FILE | --shard URL...] [--channel NAME] < "
    "payload\n"
    "       sidrail-broker ctl [--socket PATH] VERB [--json]     (ctl help lists the "
    "verbs)\n"
    "       sidrail-broker probe URL      a message from a publisher to a subscriber, "
    "and "
    "back\n";

#define PROBE_TIMEOUT SECONDS(5) /* for each step */

/* More repetitions of one flag than this are a mistake. */
#define FLAGS_MAX 1100

struct command_line {
    const char *config, *channel;
    bool check;
    size_t listens, shards;
    size_t count;
    struct broker_flag flags[FLAGS_MAX];
    char *paths[FLAGS_MAX]; /* of the flags; owned */
};

enum {
    FLAG_CONFIG = 256,
    FLAG_LISTEN,
    FLAG_SHARD,
    FLAG_ADMIN,
    FLAG_CHANNEL,
    FLAG_CHECK,
    FLAG_PRINT_OPTIONS,
    FLAG_PRINT_METRICS,
    FLAG_VERSION,
    FLAG_HELP,
};

static const struct option flags[] = {
    {"config", required_argument, NULL, FLAG_CONFIG},
    {"listen", required_argument, NULL, FLAG_LISTEN},
    {"shard", required_argument, NULL, FLAG_SHARD},
    {"admin", required_argument, NULL, FLAG_ADMIN},
    {"channel", required_argument, NULL, FLAG_CHANNEL},
    {"check", no_argument, NULL, FLAG_CHECK},
    {"print-options", no_argument, NULL, FLAG_PRINT_OPTIONS},
    {"print-metrics", no_argument, NULL, FLAG_PRINT_METRICS},
    {"version", no_argument, NULL, FLAG_VERSION},
    {"help", no_argument, NULL, FLAG_HELP},
    {NULL, 0, NULL, 0},
};

static int refuse_usage(const char *why)
{
    if (why != NULL)
        fprintf(stderr, "sidrail-broker: %s\n", why);
    fputs(usage, stderr);
    return EXIT_CODE_USAGE;
}

/* Output that cannot be written is a failure: the caller may have redirected it to a full disk. */
static int flushed(void)
{
    return fflush(stdout) == 0 ? EXIT_CODE_WELL : EXIT_CODE_START;
}

static void add_flag(struct command_line *line, const char *flag, char *path,
                     const char *value)
{
    check(line->count < FLAGS_MAX);
    line->paths[line->count] = path;
    line->flags[line->count++] = (struct broker_flag){flag, path, slice_from_text(value)};
}

static struct broker_config *load(struct command_line *line)
{
    struct broker_config *config =
        broker_config_load(line->config, line->flags, line->count, stderr);
    for (size_t i = 0; i < line->count; i++)
        free(line->paths[i]);
    return config;
}

static int run_ctl(int count, char **words)
{
    const char *path = NULL;
    if (count >= 1 && strcmp(words[0], "--socket") == 0) {
        if (count < 2)
            return refuse_usage("ctl --socket needs a path");
        path = words[1];
        count -= 2;
        words += 2;
    }
    return ctl_client(path, "broker", broker_ctl_verbs, broker_ctl_verb_count, count,
                      words, stdout, stderr);
}

/* ── explain ── */

/* All of standard input; false when it is longer than the longest payload. */
static bool read_payload(struct evbuffer *payload, size_t longest)
{
    while (evbuffer_get_length(payload) <= longest) {
        int len = evbuffer_read(payload, STDIN_FILENO, 65536);
        if (len <= 0)
            return len == 0;
    }
    fprintf(stderr, "sidrail-broker: the payload is longer than limits.payload\n");
    return false;
}

static void explain(const struct broker_config *config, struct slice channel,
                    struct slice payload, struct evbuffer *out)
{
    struct partition_map_config map_config = broker_config_map(config);
    struct partition_map *map = partition_map_new(&map_config);
    const struct message_policy policy = {
        .objects = (enum pickle_objects)config->pickle_objects,
        .refuse_pickle = config->pickle_mode == PICKLE_MODE_REJECT,
        .depth_max = (unsigned)config->json_depth,
    };
    struct scan_scratch *scratch = scan_scratch_new();
    struct message message;
    message_init_generic(&message);
    for (size_t i = 0; i < config->channels.count; i++)
        if (slice_equals(slice_from_text(config->channels.items[i]), channel)) {
            message_scan(payload, &policy, scratch, &message);
            break;
        }
    explain_write(out, channel, &message, map, &map_config);
    scan_scratch_free(scratch);
    partition_map_free(map);
    broker_config_map_cleanup(&map_config);
}

static int run_explain(struct command_line *line)
{
    struct broker_config *config = load(line);
    if (config == NULL)
        return EXIT_CODE_START;
    struct slice channel = config->channels.count > 0
                               ? slice_from_text(config->channels.items[0])
                               : SLICE("");
    if (line->channel != NULL)
        channel = slice_from_text(line->channel);
    struct evbuffer *payload = evbuffer_new();
    struct evbuffer *out = evbuffer_new();
    int code = EXIT_CODE_START;
    if (read_payload(payload, (size_t)config->payload_max)) {
        size_t len = evbuffer_get_length(payload);
        const char *bytes = len > 0 ? (const char *)evbuffer_pullup(payload, -1) : "";
        explain(config, channel, slice_of(bytes, len), out);
        fwrite(evbuffer_pullup(out, -1), 1, evbuffer_get_length(out), stdout);
        code = flushed();
    }
    evbuffer_free(payload);
    evbuffer_free(out);
    broker_config_release(config);
    return code;
}

/* ── run ── */

static int run(struct command_line *line)
{
    struct broker_config *config = load(line);
    if (config == NULL)
        return EXIT_CODE_START;
    if (line->check) {
        log_init(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
        broker_tls_warn_of_keys(config, NULL);
        broker_config_warn_of_payload(config);
        broker_config_release(config);
        puts("configuration is good");
        return flushed();
    }
    log_init((enum log_level)config->log_level, (enum log_format)config->log_format);
    net_raise_descriptor_limit();
    metrics_init(broker_metric_rows, BROKER_METRIC_COUNT);
    struct broker *broker = broker_new(config, line->config);
    int code = EXIT_CODE_START;
    if (broker != NULL) {
        code = broker_run(broker);
        broker_free(broker);
    }
    metrics_cleanup();
    broker_config_release(config);
    return code;
}

/* Takes one flag; a code to end with, or -1 to go on. */
static int take_flag(struct command_line *line, int flag)
{
    if (line->count == FLAGS_MAX)
        return refuse_usage("too many flags");
    switch (flag) {
    case FLAG_CONFIG:
        line->config = optarg;
        return -1;
    case FLAG_CHANNEL:
        line->channel = optarg;
        return -1;
    case FLAG_CHECK:
        line->check = true;
        return -1;
    case FLAG_LISTEN:
        add_flag(line, "--listen", must_printf("listeners[%zu].address", line->listens++),
                 optarg);
        return -1;
    case FLAG_SHARD:
        add_flag(line, "--shard", must_printf("shards[%zu].url", line->shards++), optarg);
        return -1;
    case FLAG_ADMIN:
        add_flag(line, "--admin", must_strdup("admin.address"), optarg);
        return -1;
    case FLAG_PRINT_OPTIONS:
        options_print(&broker_config_table, stdout);
        return flushed();
    case FLAG_PRINT_METRICS:
        metrics_print(broker_metric_rows, BROKER_METRIC_COUNT, stdout);
        return flushed();
    case FLAG_VERSION:
        puts("sidrail-broker " SIDRAIL_VERSION);
        return flushed();
    case FLAG_HELP:
        fputs(usage, stdout);
        return flushed();
    default:
        return refuse_usage(NULL);
    }
}

/* The URL is read by the row of shards[].url, so that it is refused in the same words. */
static int run_probe(int count, char **words)
{
    if (count != 1)
        return refuse_usage("probe needs one URL");
    static struct command_line line;
    log_init(LOG_LEVEL_WARN, LOG_FORMAT_AUTO); /* also makes SIGPIPE harmless */
    add_flag(&line, "probe", must_strdup("shards[0].url"), words[0]);
    struct broker_config *config = load(&line);
    if (config == NULL)
        return EXIT_CODE_START;
    int code = broker_probe(OPTION_ITEM(config->shards, broker_shard_config, 0),
                            PROBE_TIMEOUT, stdout, stderr);
    broker_config_release(config);
    return code;
}

int main(int argc, char **argv)
{
    static struct command_line line;
    lifecycle_begin();
    if (argc >= 2 && strcmp(argv[1], "probe") == 0)
        return run_probe(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "ctl") == 0)
        return run_ctl(argc - 2, argv + 2);
    bool explains = argc >= 2 && strcmp(argv[1], "explain") == 0;
    if (explains) {
        argc--;
        argv++;
    }
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        int code = take_flag(&line, flag);
        if (code >= 0)
            return code;
    }
    if (optind < argc)
        return refuse_usage("arguments without a flag");
    if (line.channel != NULL && !explains)
        return refuse_usage("--channel belongs to explain");
    if (line.config != NULL && line.count > 0)
        return refuse_usage("--config stands alone; put the rest into the file");
    return explains ? run_explain(&line) : run(&line);
}
