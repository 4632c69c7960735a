/*
 * Numbers for the operator: rows of a table, counted without a lock, summed when somebody looks.
 *
 *      thread 1 ─ metrics_add ─▶ slots of thread 1 ┐
 *      thread 2 ─ metrics_add ─▶ slots of thread 2 ┼─ summed ─▶ metrics_write ─▶ /metrics (Prometheus text 0.0.4)
 *      …                                           ┘     ▲
 *      collectors (endpoint, upstream, shard …) ─────────┘  asked at that moment, labels as they are then
 *
 * A slot is written by one thread only, so counting is a load, an add and a store.
 *
 * The pattern, shown with the proxy (the broker has the same in its own three files):
 *
 *   proxy/proxy_metrics.def — one row a metric: id, kind, name, sentence, and labels if it has any
 *     METRIC(M_CLIENTS_ACCEPTED, METRIC_COUNTER, "sidrail_proxy_clients_accepted_total",
 *            "Client connections accepted.")
 *     METRIC(M_CLIENTS_CLOSED, METRIC_COUNTER, "sidrail_proxy_clients_closed_total",
 *            "Client connections closed, by reason.", METRIC_BY("reason", close_reason_label, CLOSE_REASONS))
 *     METRIC(M_HANDSHAKE_SECONDS, METRIC_HISTOGRAM, "sidrail_proxy_handshake_seconds",
 *            "Time from a handshake to its answer.", METRIC_BUCKETS(metric_buckets_seconds))
 *     METRIC(M_ENDPOINT_SESSIONS, METRIC_COLLECTED_GAUGE, "sidrail_proxy_endpoint_sessions",
 *            "Open tunnels and polls of an endpoint.", METRIC_LABELS("upstream", "endpoint"))
 *
 *   proxy/proxy_metrics.h
 *     #define METRIC(id, ...) id,
 *     enum proxy_metric {
 *     #include "proxy/proxy_metrics.def"
 *         PROXY_METRIC_COUNT
 *     };
 *     #undef METRIC
 *     extern const struct metric_row proxy_metric_rows[PROXY_METRIC_COUNT];
 *
 *   proxy/proxy_metrics.c
 *     #define METRIC(id, ...) [id] = METRIC_ROW(__VA_ARGS__),
 *     const struct metric_row proxy_metric_rows[PROXY_METRIC_COUNT] = {
 *     #include "proxy/proxy_metrics.def"
 *     };
 *
 *   main:   metrics_init(proxy_metric_rows, PROXY_METRIC_COUNT);
 *   where:  metrics_add(M_CLIENTS_ACCEPTED, 1);   metrics_add_by(M_CLIENTS_CLOSED, reason, 1);
 *
 * To add a metric: one row and one increment. Before metrics_init() (unit tests of other modules) counting
 * does nothing.
 */
#pragma once

#include "shared/slice.h"

#include <stdio.h>

struct evbuffer;

enum metric_kind {
    METRIC_COUNTER,
    METRIC_GAUGE, /* counted up and down; the sum over threads is the value */
    METRIC_HISTOGRAM,
    METRIC_COLLECTED_GAUGE, /* no slot: a collector gives value and labels at scrape */
    METRIC_COLLECTED_COUNTER
};

#define METRIC_LABELS_MAX  4
#define METRIC_BUCKETS_MAX 24

/* Upper bounds of buckets in the unit that is observed, rising; what is printed is divided by `divisor`. */
struct metric_buckets {
    uint64_t bounds[METRIC_BUCKETS_MAX];
    size_t count;
    uint64_t divisor;
};

extern const struct metric_buckets
    metric_buckets_seconds; /* observed in microseconds, 100 us … 60 s */
extern const struct metric_buckets metric_buckets_bytes; /* 64 B … 16 MiB */

struct metric_row {
    enum metric_kind kind;
    const char *name;
    const char *help;
    const char *labels[METRIC_LABELS_MAX]; /* NULL after the last */
    const char *(*label_text)(int value);  /* of a fixed label; static text */
    int label_values; /* of a fixed label: values are 0 .. label_values-1 */
    const struct metric_buckets *buckets; /* of a histogram */
};

/* A row from what stands behind its id in the .def file. */
#define METRIC_ROW(kind_, name_, help_, ...)                                             \
    {                                                                                    \
        .kind = (kind_), .name = (name_), .help = (help_), ##__VA_ARGS__                 \
    }

/* The optional end of a row. */
#define METRIC_BY(label, text, values)                                                   \
    .labels = {(label)}, .label_text = (text), .label_values = (values)
#define METRIC_BUCKETS(table) .buckets = &(table)
#define METRIC_LABELS(...)    .labels = {__VA_ARGS__}

/* Takes the table (borrowed for ever; checks that names and labels are well formed, aborts if not). Call
 * before threads start. */
void metrics_init(const struct metric_row *rows, size_t count);

/* Forgets table, slots and collectors; for tests, when no other thread counts any more. */
void metrics_cleanup(void);

/* COUNTER (n >= 0) or GAUGE (any n), without and with a fixed label. Any thread. */
void metrics_add(int metric, int64_t n);
void metrics_add_by(int metric, int value, int64_t n);

/* HISTOGRAM: one value in the unit of its buckets (microseconds, bytes). Any thread. */
void metrics_observe(int metric, uint64_t value);
void metrics_observe_by(int metric, int value, uint64_t observed);

/* The sum over all threads: of a counter or gauge; of a histogram the number of observations. */
int64_t metrics_sum(int metric);
int64_t metrics_sum_by(int metric, int value);

struct metrics_page;
typedef void (*metrics_collect_cb)(struct metrics_page *page, int metric, void *argument);

/* `collect` answers for a COLLECTED metric at each scrape, on the thread that scrapes: it calls
 * metrics_sample() once for each set of labels. NULL takes it away again. */
void metrics_set_collector(int metric, metrics_collect_cb collect, void *argument);

/* One sample of the metric that is being collected; as many label values as the row has labels. Values are
 * any bytes: invalid UTF-8 becomes U+FFFD. */
void metrics_sample(struct metrics_page *page, double value,
                    const struct slice *label_values);

/* All metrics as Prometheus text 0.0.4, every metric with HELP and TYPE. */
#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
void metrics_write(struct evbuffer *out);

/* --print-metrics: name, type, labels (comma separated, "-" for none), sentence; tabs between. */
void metrics_print(const struct metric_row *rows, size_t count, FILE *out);
