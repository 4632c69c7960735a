/*
 * sidrail-proxy: the command line. What runs is proxy_run.c.
 */
#include "proxy/config_files.h"
#include "proxy/probe.h"
#include "proxy/proxy_admin.h"
#include "proxy/proxy_config.h"
#include "proxy/proxy_metrics.h"
#include "proxy/proxy_run.h"

#include "shared/ctl.h"
#include "shared/lifecycle.h"
#include "shared/log.h"
#include "shared/options.h"
#include "shared/timing.h"
#include "shared/tls.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_TIMEOUT SECONDS(10) /* container health commands are given less */

static const char usage[] =
    "usage: sidrail-proxy --config FILE [--check]\n"
    "       sidrail-proxy --listen ADDR --upstream EP[,EP...] [--admin ADDR] [--threads "
    "N]\n"
    "                     EP is host:port, [v6]:port or unix:/path\n"
    "       sidrail-proxy --print-options | --print-metrics | --version | --help\n"
    "       sidrail-proxy ctl [--socket PATH] VERB [--json]      (ctl help lists the "
    "verbs)\n"
    "       sidrail-proxy probe URL       handshake, upgrade and echo of a Socket.IO "
    "server\n";

struct command_line {
    const char *config, *listen, *upstream, *admin, *threads;
    bool check;
};

enum {
    FLAG_CONFIG = 256,
    FLAG_LISTEN,
    FLAG_UPSTREAM,
    FLAG_ADMIN,
    FLAG_THREADS,
    FLAG_CHECK,
    FLAG_PRINT_OPTIONS,
    FLAG_PRINT_METRICS,
    FLAG_VERSION,
    FLAG_HELP,
};

static const struct option flags[] = {
    {"config", required_argument, NULL, FLAG_CONFIG},
    {"listen", required_argument, NULL, FLAG_LISTEN},
    {"upstream", required_argument, NULL, FLAG_UPSTREAM},
    {"admin", required_argument, NULL, FLAG_ADMIN},
    {"threads", required_argument, NULL, FLAG_THREADS},
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
        fprintf(stderr, "sidrail-proxy: %s\n", why);
    fputs(usage, stderr);
    return EXIT_CODE_USAGE;
}

/* Output that cannot be written is a failure: the caller may have redirected it to a full disk. */
static int flushed(void)
{
    return fflush(stdout) == 0 ? EXIT_CODE_WELL : EXIT_CODE_START;
}

static int run_ctl(int count, char **words)
{
    const char *path = NULL;
    size_t verb_count;
    const struct ctl_verb *verbs = proxy_admin_verbs(&verb_count);
    if (count >= 1 && strcmp(words[0], "--socket") == 0) {
        if (count < 2)
            return refuse_usage("ctl --socket needs a path");
        path = words[1];
        count -= 2;
        words += 2;
    }
    return ctl_client(path, "proxy", verbs, verb_count, count, words, stdout, stderr);
}

static int run_config(const struct command_line *line)
{
    struct proxy_config *config;
    if (line->config != NULL) {
        if (line->listen != NULL || line->upstream != NULL || line->admin != NULL ||
            line->threads != NULL)
            return refuse_usage("--config stands alone; put the rest into the file");
        config = proxy_config_load(line->config, stderr);
    } else if (line->listen != NULL && line->upstream != NULL) {
        config = proxy_config_quick_start(line->listen, line->upstream, line->admin,
                                          line->threads, stderr);
    } else {
        return refuse_usage("say --config FILE, or --listen ADDR and --upstream EP");
    }
    if (config == NULL)
        return EXIT_CODE_START;
    if (!line->check)
        return proxy_run(config, line->config);
    log_init(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    const char **keys;
    size_t key_count = config_files_keys(config, &keys);
    tls_warn_of_keys(keys, key_count, NULL, 0);
    free(keys);
    bool is_good = config_files_check(config, stderr);
    proxy_config_unref(config);
    if (!is_good)
        return EXIT_CODE_START;
    puts("configuration is good");
    return flushed();
}

static int run_probe(int count, char **words)
{
    if (count != 1)
        return refuse_usage("probe needs one URL");
    log_init(LOG_LEVEL_WARN, LOG_FORMAT_AUTO); /* also makes SIGPIPE harmless */
    return probe_run(words[0], PROBE_TIMEOUT, stdout, stderr);
}

int main(int argc, char **argv)
{
    struct command_line line = {0};
    lifecycle_begin();
    if (argc >= 2 && strcmp(argv[1], "probe") == 0)
        return run_probe(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "ctl") == 0)
        return run_ctl(argc - 2, argv + 2);
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        switch (flag) {
        case FLAG_CONFIG:
            line.config = optarg;
            break;
        case FLAG_LISTEN:
            line.listen = optarg;
            break;
        case FLAG_UPSTREAM:
            line.upstream = optarg;
            break;
        case FLAG_ADMIN:
            line.admin = optarg;
            break;
        case FLAG_THREADS:
            line.threads = optarg;
            break;
        case FLAG_CHECK:
            line.check = true;
            break;
        case FLAG_PRINT_OPTIONS:
            proxy_config_print_options(stdout);
            return flushed();
        case FLAG_PRINT_METRICS:
            metrics_print(proxy_metric_rows, PROXY_METRIC_COUNT, stdout);
            return flushed();
        case FLAG_VERSION:
            puts("sidrail-proxy " SIDRAIL_VERSION);
            return flushed();
        case FLAG_HELP:
            fputs(usage, stdout);
            return flushed();
        default:
            return refuse_usage(NULL);
        }
    }
    if (optind < argc)
        return refuse_usage("arguments without a flag");
    return run_config(&line);
}
