/*
 * What the proxy tells its operators.
 *
 *      /status.json, the page, ctl status ◀── endpoints with their live counters (atomic, any thread)
 *                                         ◀── sums of the metrics
 *                                         ◀── proxy_rates: the same sums once a second for two minutes
 *      ctl clients ─ post ─▶ each worker lists its own ─ post ─▶ one answer
 *
 * Reads only; the verbs that change something are reload, shutdown, log-level and those of proxy_orders.h. To add a
 * verb: a row in proxy_admin.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct admin_callbacks;
struct ctl_verb;
struct endpoint_entry;
struct endpoint_set;
struct json_writer;
struct proxy;
struct proxy_rates;

/* For admin_new(); the argument is the struct proxy. */
const struct admin_callbacks *proxy_admin_callbacks(void);

/* For ctl_new() (the argument is the struct proxy) and for `sidrail-proxy ctl`. */
const struct ctl_verb *proxy_admin_verbs(size_t *count);

/* One endpoint as /status.json shows it. */
void proxy_admin_write_endpoint(struct json_writer *json, const struct endpoint_set *set,
                                const struct endpoint_entry *entry, uint64_t now);

/* Gauges that are asked at scrape. */
void proxy_admin_set_collectors(struct proxy *proxy);

/* Samples the metrics once a second on the main loop. */
struct proxy_rates *proxy_rates_new(struct proxy *proxy);
void proxy_rates_free(struct proxy_rates *rates);

/* The status page: one HTML document, nothing external. */
extern const char proxy_status_page[];
