#include "proxy/proxy_admin.h"

#include "shared/admin.h"
#include "shared/ctl.h"
#include "shared/json_write.h"
#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/client.h"
#include "proxy/close_reason.h"
#include "proxy/discovery.h"
#include "proxy/endpoint_set.h"
#include "proxy/exchange.h"
#include "proxy/learned_sids.h"
#include "proxy/proxy_metrics.h"
#include "proxy/proxy_orders.h"
#include "proxy/proxy_run.h"
#include "proxy/reload.h"
#include "proxy/route.h"
#include "proxy/upstream.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <stdlib.h>

/* ---- rates ---- */

#define RATE_SECONDS 120

/* What is drawn: a sum of metrics, its change from second to second. */
static const struct rate_row {
    const char *name;
    int metric;
    int value; /* of the fixed label; -1: it has none, -2: all of them */
} rate_rows[] = {
    {"requests", M_REQUESTS, -2},
    {"handshakes", M_HANDSHAKES, -2},
    {"frames_to_client", M_TUNNEL_FRAMES, TO_CLIENT},
    {"frames_to_endpoint", M_TUNNEL_FRAMES, TO_ENDPOINT},
    {"bytes_to_client", M_TUNNEL_BYTES, TO_CLIENT},
    {"bytes_to_endpoint", M_TUNNEL_BYTES, TO_ENDPOINT},
    {"clients_accepted", M_CLIENTS_ACCEPTED, -1},
};

struct proxy_rates {
    struct event timer;
    int64_t last[ARRAY_LEN(rate_rows)];
    int64_t changes[ARRAY_LEN(rate_rows)][RATE_SECONDS];
    unsigned count; /* samples taken, ever */
};

static int64_t rate_sum(const struct rate_row *row)
{
    if (row->value == -1)
        return metrics_sum(row->metric);
    if (row->value >= 0)
        return metrics_sum_by(row->metric, row->value);
    int64_t sum = 0;
    for (int i = 0; i < proxy_metric_rows[row->metric].label_values; i++)
        sum += metrics_sum_by(row->metric, i);
    return sum;
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct proxy_rates *rates = arg;
    for (size_t i = 0; i < ARRAY_LEN(rate_rows); i++) {
        int64_t sum = rate_sum(&rate_rows[i]);
        rates->changes[i][rates->count % RATE_SECONDS] = sum - rates->last[i];
        rates->last[i] = sum;
    }
    rates->count++;
}

struct proxy_rates *proxy_rates_new(struct proxy *proxy)
{
    static const struct timeval second = {1, 0};
    struct proxy_rates *rates = must_calloc(1, sizeof *rates);
    event_assign(&rates->timer, proxy->base, -1, EV_PERSIST, on_second, rates);
    event_add(&rates->timer, &second);
    return rates;
}

void proxy_rates_free(struct proxy_rates *rates)
{
    event_del(&rates->timer);
    free(rates);
}

/* ---- status ---- */

/* Seconds, rounded up: 0 is that it does not drain. */
static unsigned draining_seconds(const struct endpoint *endpoint, uint64_t now)
{
    uint64_t since = atomic_load(&endpoint->draining_since);
    if (since == 0)
        return 0;
    return (unsigned)((now > since ? now - since : 0) / SECONDS(1)) + 1;
}

void proxy_admin_write_endpoint(struct json_writer *json, const struct endpoint_set *set,
                                const struct endpoint_entry *entry, uint64_t now)
{
    const struct endpoint *endpoint = entry->endpoint;
    json_object_begin(json, NULL);
    json_text(json, "upstream", slice_from_text(set->upstream->name));
    json_text(json, "address", slice_from_text(endpoint->address_text));
    json_text(json, "id", slice_from_text(endpoint->identity));
    json_text(
        json, "state",
        slice_from_text(endpoint_state_word(endpoint_entry_state(set, entry, now))));
    json_unsigned(json, "weight", entry->weight);
    json_bool(json, "by_operator", entry->is_ordered);
    json_unsigned(json, "draining_s", draining_seconds(endpoint, now));
    json_unsigned(json, "tunnels", atomic_load(&endpoint->tunnels));
    json_unsigned(json, "exchanges", atomic_load(&endpoint->polls));
    json_unsigned(json, "handshakes_last_10s", endpoint_placed(endpoint, now));
    json_unsigned(json, "handshakes", atomic_load(&endpoint->handshakes_total));
    json_bool(json, "suspect", endpoint_is_suspect(endpoint, now));
    json_object_end(json);
}

static void write_endpoints(struct json_writer *json, const struct proxy *proxy,
                            const char *name)
{
    const struct snapshot *snapshot = proxy->snapshot;
    uint64_t now = timing_now();
    json_array_begin(json, name);
    for (size_t i = 0; i < snapshot->sets_len; i++)
        for (size_t e = 0; e < snapshot->sets[i]->len; e++)
            proxy_admin_write_endpoint(json, snapshot->sets[i],
                                       &snapshot->sets[i]->entries[e], now);
    json_array_end(json);
}

static void write_discovery(struct json_writer *json, const struct proxy *proxy,
                            size_t place)
{
    struct discovery_facts facts = discovery_facts(proxy->discovery, place);
    json_text(json, "discovery", slice_from_text(facts.source));
    json_bool(json, "discovery_synced", facts.is_synced);
    json_unsigned(json, "discovery_generation", facts.lists);
    json_text(json, "discovery_trouble", slice_from_text(facts.trouble));
}

static void write_upstreams(struct json_writer *json, const struct proxy *proxy)
{
    json_array_begin(json, "upstreams");
    for (size_t i = 0; i < proxy->snapshot->sets_len; i++) {
        const struct endpoint_set *set = proxy->snapshot->sets[i];
        json_object_begin(json, NULL);
        json_text(json, "name", slice_from_text(set->upstream->name));
        json_unsigned(json, "endpoints", set->len);
        write_discovery(json, proxy, i);
        json_unsigned(json, "learned_sids", learned_sids_count(set->learned));
        json_unsigned(json, "session_unknown",
                      atomic_load(&set->upstream->session_unknown));
        json_decimal(json, "silence_limit_s",
                     (double)upstream_idle_limit(set->upstream) / 1e6);
        json_object_end(json);
    }
    json_array_end(json);
}

/* {"word": count, …} of a metric with a fixed label. */
static void write_labelled(struct json_writer *json, const char *name, int metric)
{
    const struct metric_row *row = &proxy_metric_rows[metric];
    json_object_begin(json, name);
    for (int i = 0; i < row->label_values; i++)
        json_number(json, row->label_text(i), metrics_sum_by(metric, i));
    json_object_end(json);
}

static void write_reasons(struct json_writer *json, const char *name, int metric)
{
    json_array_begin(json, name);
    for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
        int64_t count = metrics_sum_by(metric, i);
        const struct close_reason_row *row = close_reason_get((enum close_reason)i);
        if (count == 0)
            continue;
        json_object_begin(json, NULL);
        json_text(json, "reason", slice_from_text(row->word));
        json_number(json, "count", count);
        json_bool(json, "error", row->is_error);
        json_text(json, "sentence", slice_from_text(row->sentence));
        json_object_end(json);
    }
    json_array_end(json);
}

/* The last two minutes, oldest first, and the rate over the last five seconds. */
static void write_rates(struct json_writer *json, const struct proxy_rates *rates)
{
    unsigned known = rates->count < RATE_SECONDS ? rates->count : RATE_SECONDS;
    json_object_begin(json, "per_second");
    for (size_t i = 0; i < ARRAY_LEN(rate_rows); i++) {
        json_array_begin(json, rate_rows[i].name);
        for (unsigned at = rates->count - known; at != rates->count; at++)
            json_number(json, NULL, rates->changes[i][at % RATE_SECONDS]);
        json_array_end(json);
    }
    json_object_end(json);
}

static void write_summary(struct json_writer *json, const struct proxy *proxy)
{
    json_text(json, "daemon", SLICE("sidrail-proxy"));
    json_text(json, "version", SLICE(SIDRAIL_VERSION));
    json_text(json, "phase",
              slice_from_text(lifecycle_phase_text(lifecycle_phase(proxy->lifecycle))));
    json_decimal(json, "uptime_s", (double)(timing_now() - proxy->process.started) / 1e6);
    json_unsigned(json, "generation", proxy->snapshot->generation);
    json_unsigned(json, "workers", proxy->workers_len);
    json_unsigned(json, "clients_open", atomic_load(&proxy->process.clients));
    json_number(json, "clients_accepted", metrics_sum(M_CLIENTS_ACCEPTED));
    json_number(json, "clients_refused", metrics_sum(M_CLIENTS_REFUSED));
    json_number(json, "tunnels_open", metrics_sum(M_TUNNELS_OPEN));
    json_number(json, "tunnels", metrics_sum(M_TUNNELS));
    json_number(json, "upstream_session_unknown", metrics_sum(M_SESSION_UNKNOWN));
    json_unsigned(json, "buffered_bytes", atomic_load(&proxy->process.buffered_bytes));
}

static void write_reload(struct json_writer *json, const struct proxy *proxy)
{
    struct reload_facts facts = reload_facts(proxy->reload);
    json_object_begin(json, "reload");
    json_unsigned(json, "applied", facts.applied);
    json_unsigned(json, "refused", facts.refused);
    json_unsigned(json, "applied_at", facts.applied_at);
    json_text(json, "error", slice_from_text(facts.error));
    json_text(json, "waits_for_restart", slice_from_text(facts.restart));
    json_object_end(json);
}

static void write_status(void *argument, struct evbuffer *out)
{
    const struct proxy *proxy = argument;
    struct json_writer json;
    json_init(&json, out);
    json_object_begin(&json, NULL);
    write_summary(&json, proxy);
    write_reload(&json, proxy);
    write_upstreams(&json, proxy);
    write_endpoints(&json, proxy, "endpoints");
    write_labelled(&json, "requests", M_REQUESTS);
    write_labelled(&json, "route_decisions", M_ROUTES);
    write_labelled(&json, "route_refused", M_ROUTES_REFUSED);
    write_labelled(&json, "handshakes", M_HANDSHAKES);
    write_labelled(&json, "sid_rewrites", M_SID_REWRITES);
    write_labelled(&json, "exchanges", M_EXCHANGES);
    write_labelled(&json, "endpoint_connects", M_CONNECTS);
    write_reasons(&json, "clients_closed", M_CLIENTS_CLOSED);
    write_reasons(&json, "edge_answers", M_EDGE_ANSWERS);
    write_rates(&json, proxy->rates);
    json_object_end(&json);
}

static bool is_ready(void *argument, struct evbuffer *reason)
{
    const struct proxy *proxy = argument;
    enum lifecycle_phase phase = lifecycle_phase(proxy->lifecycle);
    const char *name, *why;
    if (phase == LIFECYCLE_READY) {
        if (discovery_is_synced(proxy->discovery, &name, &why))
            return true;
        evbuffer_add_printf(reason, "no endpoints of %s yet: %s", name, why);
        return false;
    }
    evbuffer_add_printf(reason, "%s", lifecycle_phase_text(phase));
    return false;
}

static bool is_started(void *argument, struct evbuffer *reason)
{
    const struct proxy *proxy = argument;
    if (lifecycle_phase(proxy->lifecycle) != LIFECYCLE_STARTING)
        return true;
    evbuffer_add_printf(reason, "starting");
    return false;
}

static const struct text_list *hosts(void *argument)
{
    const struct proxy *proxy = argument;
    return &discovery_snapshot(proxy->discovery)->config->admin.hosts;
}

const struct admin_callbacks *proxy_admin_callbacks(void)
{
    static const struct admin_callbacks callbacks = {.page = proxy_status_page,
                                                     .is_started = is_started,
                                                     .is_ready = is_ready,
                                                     .write_status = write_status,
                                                     .hosts = hosts};
    return &callbacks;
}

/* ---- gauges that are asked ---- */

static void collect_endpoint(struct metrics_page *page, int metric,
                             const struct endpoint_set *set,
                             const struct endpoint_entry *entry)
{
    const struct endpoint *endpoint = entry->endpoint;
    struct slice labels[3] = {slice_from_text(set->upstream->name),
                              slice_from_text(endpoint->address_text)};
    double value = 1;
    if (metric == M_ENDPOINT_TUNNELS)
        value = atomic_load(&endpoint->tunnels);
    else if (metric == M_ENDPOINT_POLLS)
        value = atomic_load(&endpoint->polls);
    else if (metric == M_ENDPOINT_HANDSHAKES)
        value = (double)atomic_load(&endpoint->handshakes_total);
    else
        labels[2] = slice_from_text(
            endpoint_state_word(endpoint_entry_state(set, entry, timing_now())));
    metrics_sample(page, value, labels);
}

static void collect_endpoints(struct metrics_page *page, int metric, void *argument)
{
    const struct proxy *proxy = argument;
    for (size_t i = 0; i < proxy->snapshot->sets_len; i++)
        for (size_t e = 0; e < proxy->snapshot->sets[i]->len; e++)
            collect_endpoint(page, metric, proxy->snapshot->sets[i],
                             &proxy->snapshot->sets[i]->entries[e]);
}

static void collect_states(struct metrics_page *page, int metric, void *argument)
{
    (void)metric;
    const struct proxy *proxy = argument;
    uint64_t now = timing_now();
    for (size_t i = 0; i < proxy->snapshot->sets_len; i++) {
        const struct endpoint_set *set = proxy->snapshot->sets[i];
        unsigned counts[ENDPOINT_GONE] = {0};
        for (size_t e = 0; e < set->len; e++)
            counts[endpoint_entry_state(set, &set->entries[e], now)]++;
        for (int state = 0; state < ENDPOINT_GONE; state++) {
            struct slice labels[2] = {
                slice_from_text(set->upstream->name),
                slice_from_text(endpoint_state_word((enum endpoint_state)state))};
            metrics_sample(page, counts[state], labels);
        }
    }
}

static void collect_discovery(struct metrics_page *page, int metric, void *argument)
{
    const struct proxy *proxy = argument;
    for (size_t i = 0; i < proxy->snapshot->sets_len; i++) {
        struct discovery_facts facts = discovery_facts(proxy->discovery, i);
        struct slice labels[2] = {
            slice_from_text(proxy->snapshot->sets[i]->upstream->name),
            slice_from_text(facts.source)};
        double value = facts.is_synced;
        if (metric == M_DISCOVERY_GENERATION)
            value = (double)facts.lists;
        else if (metric == M_DISCOVERY_AGE && facts.lists == 0)
            continue;
        else if (metric == M_DISCOVERY_AGE)
            value = (double)(timing_now() - facts.listed_at) / 1e6;
        metrics_sample(page, value, labels);
    }
}

static void collect_learned(struct metrics_page *page, int metric, void *argument)
{
    (void)metric;
    const struct proxy *proxy = argument;
    for (size_t i = 0; i < proxy->snapshot->sets_len; i++) {
        const struct endpoint_set *set = proxy->snapshot->sets[i];
        struct slice label = slice_from_text(set->upstream->name);
        metrics_sample(page, (double)learned_sids_count(set->learned), &label);
    }
}

static void collect_process(struct metrics_page *page, int metric, void *argument)
{
    const struct proxy *proxy = argument;
    double value = (double)proxy->workers_len;
    if (metric == M_BUFFERED_BYTES)
        value = (double)atomic_load(&proxy->process.buffered_bytes);
    else if (metric == M_RELOAD_FAILED)
        value = reload_facts(proxy->reload).error[0] != '\0';
    else if (metric == M_RELOAD_AT)
        value = (double)reload_facts(proxy->reload).applied_at;
    else if (metric == M_RESTART_OPTIONS)
        value = (double)reload_facts(proxy->reload).restart_count;
    else if (metric == M_GENERATION)
        value = (double)proxy->snapshot->generation;
    metrics_sample(page, value, NULL);
}

void proxy_admin_set_collectors(struct proxy *proxy)
{
    metrics_set_collector(M_ENDPOINT_TUNNELS, collect_endpoints, proxy);
    metrics_set_collector(M_ENDPOINT_POLLS, collect_endpoints, proxy);
    metrics_set_collector(M_ENDPOINT_HANDSHAKES, collect_endpoints, proxy);
    metrics_set_collector(M_ENDPOINT_STATE, collect_endpoints, proxy);
    metrics_set_collector(M_ENDPOINTS, collect_states, proxy);
    metrics_set_collector(M_DISCOVERY_SYNCED, collect_discovery, proxy);
    metrics_set_collector(M_DISCOVERY_GENERATION, collect_discovery, proxy);
    metrics_set_collector(M_DISCOVERY_AGE, collect_discovery, proxy);
    metrics_set_collector(M_LEARNED_SIDS, collect_learned, proxy);
    metrics_set_collector(M_BUFFERED_BYTES, collect_process, proxy);
    metrics_set_collector(M_GENERATION, collect_process, proxy);
    metrics_set_collector(M_WORKERS, collect_process, proxy);
    metrics_set_collector(M_RELOAD_FAILED, collect_process, proxy);
    metrics_set_collector(M_RELOAD_AT, collect_process, proxy);
    metrics_set_collector(M_RESTART_OPTIONS, collect_process, proxy);
}

/* ---- ctl ---- */

static void ctl_status(void *argument, struct ctl_call *call, int count, char **arguments)
{
    (void)count, (void)arguments;
    const struct proxy *proxy = argument;
    struct evbuffer *out = ctl_call_out(call);
    if (ctl_call_wants_json(call)) {
        write_status(argument, out);
        evbuffer_add(out, "\n", 1);
        ctl_finish(call, true);
        return;
    }
    evbuffer_add_printf(
        out, "sidrail-proxy %s  %s  up %.0f s  generation %llu  workers %zu\n",
        SIDRAIL_VERSION, lifecycle_phase_text(lifecycle_phase(proxy->lifecycle)),
        (double)(timing_now() - proxy->process.started) / 1e6,
        (unsigned long long)proxy->snapshot->generation, proxy->workers_len);
    evbuffer_add_printf(
        out,
        "clients %u open, %lld accepted   tunnels %lld open   session unknown %lld\n",
        atomic_load(&proxy->process.clients), (long long)metrics_sum(M_CLIENTS_ACCEPTED),
        (long long)metrics_sum(M_TUNNELS_OPEN),
        (long long)metrics_sum(M_SESSION_UNKNOWN));
    for (int i = 0; i < CLOSE_REASON_COUNT; i++)
        if (metrics_sum_by(M_CLIENTS_CLOSED, i) > 0)
            evbuffer_add_printf(out, "  closed %-20s %lld\n", close_reason_words[i],
                                (long long)metrics_sum_by(M_CLIENTS_CLOSED, i));
    ctl_finish(call, true);
}

static void ctl_endpoints(void *argument, struct ctl_call *call, int count,
                          char **arguments)
{
    (void)count, (void)arguments;
    const struct proxy *proxy = argument;
    struct evbuffer *out = ctl_call_out(call);
    if (ctl_call_wants_json(call)) {
        struct json_writer json;
        json_init(&json, out);
        write_endpoints(&json, proxy, NULL);
        evbuffer_add(out, "\n", 1);
        ctl_finish(call, true);
        return;
    }
    uint64_t now = timing_now();
    evbuffer_add_printf(out, "%-16s %-28s %-9s %7s %9s %10s\n", "upstream", "endpoint",
                        "state", "tunnels", "exchanges", "handshakes");
    for (size_t i = 0; i < proxy->snapshot->sets_len; i++) {
        const struct endpoint_set *set = proxy->snapshot->sets[i];
        for (size_t e = 0; e < set->len; e++) {
            const struct endpoint *endpoint = set->entries[e].endpoint;
            unsigned draining = draining_seconds(endpoint, now);
            evbuffer_add_printf(
                out, "%-16s %-28s %-9s %7u %9u %10llu", set->upstream->name,
                endpoint->address_text,
                endpoint_state_word(endpoint_entry_state(set, &set->entries[e], now)),
                atomic_load(&endpoint->tunnels), atomic_load(&endpoint->polls),
                (unsigned long long)atomic_load(&endpoint->handshakes_total));
            if (draining > 0)
                evbuffer_add_printf(out, "  for %u s", draining);
            evbuffer_add_printf(out, "%s\n",
                                set->entries[e].is_ordered ? "  by operator" : "");
        }
    }
    evbuffer_add_printf(out, "A polling session between two requests is not visible.\n");
    ctl_finish(call, true);
}

#define CLIENTS_SHOWN 1000 /* for each worker */

/* Goes to a worker, is filled there, and comes back. */
struct client_listing {
    struct post_job job;
    struct proxy *proxy;
    struct worker *worker;
    struct clients_call *call;
    struct evbuffer *lines;
    bool wants_json;
};

struct clients_call {
    struct ctl_call *call;
    struct evbuffer *lines;
    size_t missing; /* workers that have not answered */
    bool has_any;
};

static const char *client_state_word(const struct client *client)
{
    switch ((enum client_state)client->state) {
    case CLIENT_INTRODUCED:
        return "introducing";
    case CLIENT_GREETING:
        return "greeting";
    case CLIENT_WAITING:
        return "waiting";
    case CLIENT_HEAD:
        return "reading";
    case CLIENT_EXCHANGING:
        return "exchanging";
    case CLIENT_TUNNELING:
        return "tunneling";
    case CLIENT_LINGERING:
        return "lingering";
    case CLIENT_CLOSED:
        return "closed";
    }
    unreachable();
}

static void list_client(struct client_listing *it, const struct client *client)
{
    char ip[CLIENT_IP_SIZE];
    struct slice peer = client_ip_text(client, ip);
    uint32_t open = deadline_now(&it->worker->wheel) - client->accepted_at;
    if (it->wants_json) {
        evbuffer_add_printf(it->lines,
                            "%s{\"id\":%llu,\"ip\":\"%.*s\",\"port\":%u,\"state\":\"%s\","
                            "\"requests\":%u,\"open_s\":%.1f,\"worker\":%u}",
                            evbuffer_get_length(it->lines) > 0 ? "," : "",
                            (unsigned long long)client->id, SLICE_ARGS(peer),
                            client->port, client_state_word(client), client->requests,
                            open / 1e3, it->worker->index);
        return;
    }
    evbuffer_add_printf(it->lines, "%-8llu %-22.*s %5u  %-11s %8u requests  %8.1f s\n",
                        (unsigned long long)client->id, SLICE_ARGS(peer), client->port,
                        client_state_word(client), client->requests, open / 1e3);
}

static void merge_listing(struct post_job *job)
{
    struct client_listing *it = CONTAINER_OF(job, struct client_listing, job);
    struct clients_call *all = it->call;
    if (it->wants_json && all->has_any && evbuffer_get_length(it->lines) > 0)
        evbuffer_add(all->lines, ",", 1);
    all->has_any = all->has_any || evbuffer_get_length(it->lines) > 0;
    evbuffer_add_buffer(all->lines, it->lines);
    if (--all->missing == 0) {
        struct evbuffer *out = ctl_call_out(all->call);
        evbuffer_add_printf(out, "%s", it->wants_json ? "[" : "");
        evbuffer_add_buffer(out, all->lines);
        evbuffer_add_printf(out, "%s", it->wants_json ? "]\n" : "");
        ctl_finish(all->call, true);
        evbuffer_free(all->lines);
        free(all);
    }
    evbuffer_free(it->lines);
    free(it);
}

static void list_clients(struct post_job *job)
{
    struct client_listing *it = CONTAINER_OF(job, struct client_listing, job);
    const struct client *client;
    unsigned shown = 0;
    TAILQ_FOREACH(client, &it->worker->clients, entry)
    {
        if (shown++ == CLIENTS_SHOWN)
            break;
        list_client(it, client);
    }
    job->run = merge_listing;
    post_send(&it->proxy->box, job);
}

static void ctl_clients(void *argument, struct ctl_call *call, int count,
                        char **arguments)
{
    (void)count, (void)arguments;
    struct proxy *proxy = argument;
    struct clients_call *all = must_calloc(1, sizeof *all);
    all->call = call;
    all->lines = evbuffer_new();
    all->missing = proxy->workers_len;
    check(all->lines != NULL);
    for (size_t i = 0; i < proxy->workers_len; i++) {
        struct client_listing *it = must_calloc(1, sizeof *it);
        it->job.run = list_clients;
        it->proxy = proxy;
        it->worker = proxy->workers[i];
        it->call = all;
        it->lines = evbuffer_new();
        it->wants_json = ctl_call_wants_json(call);
        check(it->lines != NULL);
        post_send(&proxy->workers[i]->box, &it->job);
    }
}

static void ctl_shutdown(void *argument, struct ctl_call *call, int count,
                         char **arguments)
{
    struct proxy *proxy = argument;
    if (count == 1 && strcmp(arguments[0], "--no-wait") != 0) {
        ctl_refuse(call, "shutdown takes --no-wait or nothing");
        return;
    }
    if (count == 0 && proxy->shutdown_call != NULL) {
        ctl_refuse(call, "somebody waits for the shutdown already");
        return;
    }
    lifecycle_drain(proxy->lifecycle);
    if (count == 1) {
        evbuffer_add_printf(ctl_call_out(call), "draining\n");
        ctl_finish(call, true);
        return;
    }
    proxy->shutdown_call = call; /* answered when the workers have ended */
}

static void ctl_log_level(void *argument, struct ctl_call *call, int count,
                          char **arguments)
{
    (void)argument, (void)count;
    for (int i = 0; log_level_words[i] != NULL; i++)
        if (strcmp(arguments[0], log_level_words[i]) == 0) {
            log_set_level((enum log_level)i);
            evbuffer_add_printf(ctl_call_out(call), "level is %s\n", log_level_words[i]);
            ctl_finish(call, true);
            return;
        }
    ctl_refuse(call, "the level is one of debug, info, warn, error");
}

static void ctl_reload(void *argument, struct ctl_call *call, int count, char **arguments)
{
    (void)count, (void)arguments;
    struct proxy *proxy = argument;
    reload_begin_for(proxy->reload, call);
}

static const struct ctl_verb verbs[] = {
    {"status", "", "Phase, clients, tunnels and why clients ended.", 0, 0, ctl_status},
    {"endpoints", "", "Every endpoint with its state and what is open on it.", 0, 0,
     ctl_endpoints},
    {"clients", "", "Open client connections, at most 1,000 of each worker.", 0, 0,
     ctl_clients},
    {"drain", "ENDPOINT | --upstream NAME",
     "No new session, and its WebSockets go as upstreams[].drain says; until undrain.", 1,
     2, proxy_orders_drain},
    {"undrain", "ENDPOINT | --upstream NAME",
     "Takes drain back; what discovery says counts again.", 1, 2, proxy_orders_undrain},
    {"weight", "ENDPOINT N|auto",
     "Another share of new sessions until the process ends; auto: the listed one.", 2, 2,
     proxy_orders_weigh},
    {"reload", "",
     "Reads the configuration again; returns when all threads have it, or says what is "
     "wrong.",
     0, 0, ctl_reload},
    {"shutdown", "[--no-wait]",
     "Lets all clients go as SIGTERM does; returns when the process ends.", 0, 1,
     ctl_shutdown},
    {"log-level", "debug|info|warn|error", "Sets the level of the log until the end.", 1,
     1, ctl_log_level},
};

const struct ctl_verb *proxy_admin_verbs(size_t *count)
{
    *count = ARRAY_LEN(verbs);
    return verbs;
}
