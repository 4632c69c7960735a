/*
 * Commands about the server: INFO, ROLE, TIME, COMMAND, CONFIG GET, SENTINEL MASTERS.
 */
#include "broker/command_handlers.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/command.h"
#include "broker/resp.h"
#include "shared/timing.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* ── INFO: the fields that exporters and ready checks read, under Redis' names ── */

static size_t resident_bytes(void)
{
    size_t pages = 0;
    size_t resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%zu %zu", &pages, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static void write_server(struct command_call *call, struct evbuffer *out)
{
    uint64_t uptime = (timing_now() - call->context->started_at) / SECONDS(1);
    evbuffer_add_printf(
        out,
        "# Server\r\nredis_version:" REDIS_VERSION "\r\nredis_mode:standalone\r\n"
        "os:Linux\r\narch_bits:64\r\nmultiplexing_api:epoll\r\nprocess_id:%d\r\n"
        "tcp_port:%u\r\nuptime_in_seconds:%llu\r\nuptime_in_days:%llu\r\n"
        "executable:sidrail-broker\r\nsidrail_version:" SIDRAIL_VERSION "\r\n",
        (int)getpid(), address_port(&call->facts->local), (unsigned long long)uptime,
        (unsigned long long)(uptime / 86400));
}

static void write_clients(struct command_call *call, struct evbuffer *out)
{
    evbuffer_add_printf(out,
                        "# Clients\r\nconnected_clients:%u\r\ncluster_connections:0\r\n"
                        "maxclients:%lld\r\nblocked_clients:0\r\n",
                        client_count(call->context->clients),
                        (long long)call->context->config->clients_max);
}

static void write_memory(struct command_call *call UNUSED, struct evbuffer *out)
{
    size_t bytes = resident_bytes();
    evbuffer_add_printf(out,
                        "# Memory\r\nused_memory:%zu\r\nused_memory_rss:%zu\r\n"
                        "maxmemory:0\r\nmaxmemory_policy:noeviction\r\n",
                        bytes, bytes);
}

static void write_persistence(struct command_call *call UNUSED, struct evbuffer *out)
{
    evbuffer_add_printf(out, "# Persistence\r\nloading:0\r\nasync_loading:0\r\n"
                             "rdb_bgsave_in_progress:0\r\naof_enabled:0\r\n");
}

static void write_counters(struct command_call *call, struct evbuffer *out)
{
    const struct interest_table *interest = call->context->interest;
    evbuffer_add_printf(
        out,
        "# Stats\r\ntotal_connections_received:%lld\r\ntotal_commands_processed:%lld\r\n"
        "rejected_connections:%lld\r\npubsub_channels:%u\r\npubsub_patterns:%u\r\n",
        (long long)metrics_sum(M_CLIENTS_ACCEPTED), (long long)metrics_sum(M_COMMANDS),
        (long long)metrics_sum_by(M_CLIENTS_CLOSED, CLOSE_CLIENT_LIMIT),
        interest_target_count(interest, INTEREST_CHANNEL),
        interest_target_count(interest, INTEREST_PATTERN));
}

static void write_replication(struct command_call *call UNUSED, struct evbuffer *out)
{
    evbuffer_add_printf(out,
                        "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"
                        "master_failover_state:no-failover\r\nmaster_repl_offset:0\r\n");
}

static void write_cpu(struct command_call *call UNUSED, struct evbuffer *out)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    evbuffer_add_printf(
        out, "# CPU\r\nused_cpu_sys:%lld.%06ld\r\nused_cpu_user:%lld.%06ld\r\n",
        (long long)usage.ru_stime.tv_sec, (long)usage.ru_stime.tv_usec,
        (long long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec);
}

static void write_cluster(struct command_call *call UNUSED, struct evbuffer *out)
{
    evbuffer_add_printf(out, "# Cluster\r\ncluster_enabled:0\r\n");
}

static void write_keyspace(struct command_call *call UNUSED, struct evbuffer *out)
{
    evbuffer_add_printf(out, "# Keyspace\r\n");
}

static const struct {
    const char *name;
    void (*write)(struct command_call *call, struct evbuffer *out);
} sections[] = {
    {"server", write_server},     {"clients", write_clients},
    {"memory", write_memory},     {"persistence", write_persistence},
    {"stats", write_counters},    {"replication", write_replication},
    {"cpu", write_cpu},           {"cluster", write_cluster},
    {"keyspace", write_keyspace},
};

static bool wants_section(const struct command_call *call, const char *name)
{
    if (call->argc == 1)
        return true;
    for (size_t i = 1; i < call->argc; i++)
        if (slice_equals_nocase(call->argv[i], slice_from_text(name)) ||
            slice_equals_nocase(call->argv[i], SLICE("all")) ||
            slice_equals_nocase(call->argv[i], SLICE("default")) ||
            slice_equals_nocase(call->argv[i], SLICE("everything")))
            return true;
    return false;
}

void command_info(struct command_call *call)
{
    struct evbuffer *out = evbuffer_new();
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        if (!wants_section(call, sections[i].name))
            continue;
        if (evbuffer_get_length(out) > 0)
            evbuffer_add(out, "\r\n", 2);
        sections[i].write(call, out);
    }
    size_t len = evbuffer_get_length(out);
    const char *text = len > 0 ? (const char *)evbuffer_pullup(out, -1) : "";
    resp_write_verbatim(call->reply, call->facts->protocol, slice_of(text, len));
    evbuffer_free(out);
}

/* ── what tools ask to find their way ── */

void command_command(struct command_call *call)
{
    resp_write_array(call->reply, 0);
}

void command_command_count(struct command_call *call)
{
    resp_write_integer(call->reply, (int64_t)command_count());
}

void command_command_docs(struct command_call *call)
{
    resp_write_map(call->reply, call->facts->protocol, 0);
}

void command_config_get(struct command_call *call)
{
    resp_write_map(call->reply, call->facts->protocol, 0);
}

void command_role(struct command_call *call)
{
    resp_write_array(call->reply, 3);
    resp_write_bulk(call->reply, SLICE("master"));
    resp_write_integer(call->reply, 0);
    resp_write_array(call->reply, 0);
}

void command_time(struct command_call *call)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char text[32];
    resp_write_array(call->reply, 2);
    snprintf(text, sizeof(text), "%lld", (long long)now.tv_sec);
    resp_write_bulk(call->reply, slice_from_text(text));
    snprintf(text, sizeof(text), "%ld", now.tv_nsec / 1000);
    resp_write_bulk(call->reply, slice_from_text(text));
}

/* A pod with redis+sentinel:// is sent back here: whatever master it asks for is this broker, at the address
 * that it has reached. */
void command_sentinel_masters(struct command_call *call)
{
    static const char *const names[] = {"mymaster", "master"};
    unsigned protocol = call->facts->protocol;
    char ip[ADDRESS_TEXT_SIZE];
    char port[16];
    snprintf(port, sizeof(port), "%u", address_port(&call->facts->local));
    address_ip_text(&call->facts->local, ip);
    resp_write_array(call->reply, ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *pairs[][2] = {{"name", names[i]},
                                  {"ip", ip},
                                  {"port", port},
                                  {"runid", ""},
                                  {"flags", "master"},
                                  {"num-slaves", "0"},
                                  {"num-other-sentinels", "0"},
                                  {"quorum", "1"}};
        resp_write_map(call->reply, protocol, ARRAY_LEN(pairs));
        for (size_t j = 0; j < ARRAY_LEN(pairs); j++) {
            resp_write_bulk(call->reply, slice_from_text(pairs[j][0]));
            resp_write_bulk(call->reply, slice_from_text(pairs[j][1]));
        }
    }
}
