#include "proxy/discovery.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/discovery_dns.h"
#include "proxy/discovery_file.h"
#include "proxy/discovery_k8s.h"
#include "proxy/discovery_static.h"
#include "proxy/endpoint_list.h"
#include "proxy/endpoint_tls.h"
#include "proxy/health_check.h"
#include "proxy/proxy_metrics.h"
#include "proxy/upstream_set.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ABSENCE SECONDS(1)

/* One upstream. */
struct discovered {
    struct discovery *discovery;
    const struct upstream_config *config; /* discovery's */
    struct endpoint_list *list;
    struct endpoint_set *set;       /* the newest; one reference. NULL: none yet */
    const struct source_kind *kind; /* NULL: static */
    void *source;
    struct health_checks *checks;
    struct endpoint_tls_files *tls; /* NULL: plain */
    bool has_new_tls;               /* which the set does not know yet */
    bool is_shown;                  /* a list of the source is in the set */
    uint64_t lists, listed_at;
    char *trouble; /* NULL: none */
};

struct discovery {
    struct event_base *base;
    struct proxy_config *config; /* one reference */
    struct route_keys keys;
    struct discovered *upstreams; /* config->upstreams.count, same order */
    size_t len;
    struct snapshot *snapshot; /* one reference */
    discovery_snapshot_cb on_snapshot;
    void *argument;
    struct event publish, tick;
    bool has_started;
};

/* ---- snapshots ---- */

/* The next set of each upstream that has changed. */
static bool make_sets(struct discovery *discovery, uint64_t now)
{
    bool is_any_new = false;
    for (size_t i = 0; i < discovery->len; i++) {
        struct discovered *it = &discovery->upstreams[i];
        bool has_changed = endpoint_list_take_changed(it->list);
        if (!has_changed && !it->has_new_tls && it->set != NULL &&
            (it->is_shown || it->lists == 0))
            continue;
        size_t len;
        const struct endpoint_spec *specs = endpoint_list_specs(it->list, &len);
        struct endpoint_set *before = it->set;
        it->set = upstream_set_new(it->config, &discovery->keys, specs, len, before, now);
        endpoint_set_secure(it->set, endpoint_tls_newest(it->tls));
        it->has_new_tls = false;
        if (before != NULL)
            endpoint_set_unref(before);
        it->is_shown = it->lists > 0;
        is_any_new = true;
    }
    return is_any_new;
}

static void make_snapshot(struct discovery *discovery)
{
    uint64_t generation =
        discovery->snapshot != NULL ? discovery->snapshot->generation + 1 : 1;
    struct endpoint_set **sets = must_calloc(discovery->len, sizeof *sets);
    for (size_t i = 0; i < discovery->len; i++)
        sets[i] = endpoint_set_ref(discovery->upstreams[i].set);
    if (discovery->snapshot != NULL)
        snapshot_unref(discovery->snapshot);
    discovery->snapshot = snapshot_new(generation, proxy_config_ref(discovery->config),
                                       &discovery->keys, sets);
    free(sets);
}

static void apply_checks(struct discovery *discovery)
{
    for (size_t i = 0; i < discovery->len; i++) {
        struct discovered *it = &discovery->upstreams[i];
        health_checks_apply(it->checks, it->set, it->list);
    }
}

static void on_publish(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct discovery *discovery = argument;
    if (!make_sets(discovery, timing_now()))
        return;
    make_snapshot(discovery);
    apply_checks(discovery);
    discovery->on_snapshot(discovery->argument, discovery->snapshot);
}

static void publish_soon(struct discovery *discovery)
{
    struct timeval wait = timing_to_timeval(DISCOVERY_DEBOUNCE);
    if (discovery->has_started && !event_pending(&discovery->publish, EV_TIMEOUT, NULL))
        event_add(&discovery->publish, &wait);
}

/* ---- time ---- */

/* Lets what is due happen in every list, and comes back when the next thing is. */
static void look_at_lists(struct discovery *discovery)
{
    uint64_t now = timing_now(), next = UINT64_MAX;
    for (size_t i = 0; i < discovery->len; i++) {
        uint64_t due = endpoint_list_tick(discovery->upstreams[i].list, now);
        next = due < next ? due : next;
    }
    publish_soon(discovery);
    event_del(&discovery->tick);
    if (next == UINT64_MAX)
        return;
    struct timeval wait = timing_to_timeval(next > now ? next - now : 0);
    event_add(&discovery->tick, &wait);
}

static void on_tick(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    look_at_lists(argument);
}

/* ---- what sources tell ---- */

static void on_well(void *owner)
{
    struct discovered *it = owner;
    if (it->trouble != NULL)
        log_info(LOG_SUBJECT("discovery"), "learns again",
                 LOG_TEXT("upstream", it->config->name));
    free(it->trouble);
    it->trouble = NULL;
}

static void on_list(void *owner, const struct endpoint_spec *specs, size_t len)
{
    struct discovered *it = owner;
    on_well(owner);
    it->lists++;
    it->listed_at = timing_now();
    metrics_add_by(M_DISCOVERY_LISTS, it->config->discovery.kind, 1);
    endpoint_list_apply(it->list, specs, len, it->listed_at);
    log_debug(LOG_SUBJECT("discovery"), "list", LOG_TEXT("upstream", it->config->name),
              LOG_UNSIGNED("endpoints", len), LOG_UNSIGNED("lists", it->lists));
    if (it->discovery->has_started)
        look_at_lists(it->discovery);
}

static void on_trouble(void *owner, const char *why)
{
    struct discovered *it = owner;
    metrics_add_by(M_DISCOVERY_ERRORS, it->config->discovery.kind, 1);
    if (it->trouble == NULL || strcmp(it->trouble, why) != 0)
        log_warn(LOG_SUBJECT("discovery"),
                 it->lists > 0 ? "learns nothing, the endpoints stay as they are"
                               : "learns nothing, there are no endpoints yet",
                 LOG_TEXT("upstream", it->config->name), LOG_TEXT("why", why));
    char *trouble = must_strdup(why);
    free(it->trouble);
    it->trouble = trouble;
}

static const struct source_callbacks source_callbacks = {
    .on_list = on_list, .on_well = on_well, .on_trouble = on_trouble};

/* ---- what health checks tell ---- */

static void on_verdict(void *owner, struct slice identity, unsigned port, bool passes)
{
    struct discovered *it = owner;
    endpoint_list_set_verdict(it->list, identity, port, passes);
    publish_soon(it->discovery);
}

static void on_refusing(void *owner, struct slice identity, unsigned port)
{
    struct discovered *it = owner;
    endpoint_list_set_refusing(it->list, identity, port);
    look_at_lists(it->discovery);
}

static const struct health_callbacks health_callbacks = {.on_verdict = on_verdict,
                                                         .on_refusing = on_refusing};

/* ---- what operators say ---- */

static void publish_now(struct discovery *discovery)
{
    event_del(&discovery->publish);
    on_publish(-1, 0, discovery);
}

size_t discovery_drain(struct discovery *discovery, struct slice endpoint, bool drains)
{
    size_t count = 0;
    for (size_t i = 0; i < discovery->len; i++)
        count += endpoint_list_drain(discovery->upstreams[i].list, endpoint, drains);
    publish_now(discovery);
    return count;
}

size_t discovery_weigh(struct discovery *discovery, struct slice endpoint, int64_t weight)
{
    size_t count = 0;
    for (size_t i = 0; i < discovery->len; i++)
        count += endpoint_list_weigh(discovery->upstreams[i].list, endpoint, weight);
    publish_now(discovery);
    return count;
}

bool discovery_drain_upstream(struct discovery *discovery, struct slice name, bool drains)
{
    size_t place = proxy_config_find_upstream(discovery->config, name);
    if (place == discovery->len)
        return false;
    endpoint_list_drain_all(discovery->upstreams[place].list, drains);
    publish_now(discovery);
    return true;
}

/* ---- what TLS files tell ---- */

static void on_tls_files(void *owner)
{
    struct discovered *it = owner;
    it->has_new_tls = true;
    publish_soon(it->discovery);
}

static bool start_tls(struct discovered *it, struct event_base *base, char *error,
                      size_t error_size)
{
    char *why;
    struct endpoint_tls *tls = endpoint_tls_read(it->config, &why);
    if (tls != NULL) {
        it->tls = endpoint_tls_files_new(base, it->config, tls, on_tls_files, it);
        return true;
    }
    snprintf(error, error_size, "tls of upstream %s: %s", it->config->name, why);
    free(why);
    return false;
}

/* ---- life ---- */

static const struct source_kind *kind_of(const struct upstream_config *config)
{
    switch (config->discovery.kind) {
    case DISCOVERY_STATIC:
        return NULL;
    case DISCOVERY_FILE:
        return &discovery_file;
    case DISCOVERY_DNS:
        return &discovery_dns;
    case DISCOVERY_KUBERNETES:
        return &discovery_k8s;
    }
    unreachable();
}

static struct endpoint_list_options list_options(const struct upstream_config *config)
{
    struct endpoint_list_options options = {.absence = ABSENCE};
    if (config->discovery.kind == DISCOVERY_STATIC)
        options.absence = 0;
    if (config->discovery.kind == DISCOVERY_DNS)
        options.vanished = config->drain.delay + config->drain.window;
    if (config->discovery.kind == DISCOVERY_KUBERNETES)
        options.empty_hold = config->discovery.kubernetes.empty_hold;
    return options;
}

static bool start_upstream(struct discovery *discovery, size_t place, char *error,
                           size_t error_size)
{
    struct discovered *it = &discovery->upstreams[place];
    it->discovery = discovery;
    it->config = proxy_config_upstream(discovery->config, place);
    struct endpoint_list_options options = list_options(it->config);
    it->list = endpoint_list_new(it->config->name, &options);
    it->checks = health_checks_new(discovery->base, it->config, &health_callbacks, it);
    if (it->config->has_tls && !start_tls(it, discovery->base, error, error_size))
        return false;
    it->kind = kind_of(it->config);
    if (it->kind != NULL) {
        it->source = it->kind->start(discovery->base, it->config, &source_callbacks, it);
        return true;
    }
    size_t len = it->config->endpoints.count;
    struct endpoint_spec *specs = must_calloc(len, sizeof *specs);
    bool is_good = discovery_static_list(it->config, specs, error, error_size);
    if (is_good)
        on_list(it, specs, len);
    free(specs);
    return is_good;
}

struct discovery *discovery_new(struct event_base *base, struct proxy_config *config,
                                const struct route_keys *keys,
                                discovery_snapshot_cb on_snapshot, void *argument,
                                char *error, size_t error_size)
{
    struct discovery *discovery = must_calloc(1, sizeof *discovery);
    discovery->base = base;
    discovery->config = proxy_config_ref(config);
    discovery->keys = *keys;
    discovery->on_snapshot = on_snapshot;
    discovery->argument = argument;
    discovery->upstreams =
        must_calloc(config->upstreams.count, sizeof *discovery->upstreams);
    event_assign(&discovery->publish, base, -1, 0, on_publish, discovery);
    event_assign(&discovery->tick, base, -1, 0, on_tick, discovery);
    bool is_good = true;
    for (; is_good && discovery->len < config->upstreams.count; discovery->len++)
        is_good = start_upstream(discovery, discovery->len, error, error_size);
    if (!is_good) {
        discovery_free(discovery);
        return NULL;
    }
    make_sets(discovery, timing_now());
    make_snapshot(discovery);
    apply_checks(discovery);
    discovery->has_started = true;
    return discovery;
}

void discovery_free(struct discovery *discovery)
{
    event_del(&discovery->publish);
    event_del(&discovery->tick);
    for (size_t i = 0; i < discovery->len; i++) {
        struct discovered *it = &discovery->upstreams[i];
        if (it->source != NULL)
            it->kind->stop(it->source);
        health_checks_free(it->checks);
        endpoint_tls_files_free(it->tls);
        endpoint_list_free(it->list);
        if (it->set != NULL)
            endpoint_set_unref(it->set);
        free(it->trouble);
    }
    free(discovery->upstreams);
    if (discovery->snapshot != NULL)
        snapshot_unref(discovery->snapshot);
    proxy_config_unref(discovery->config);
    free(discovery);
}

/* ---- questions ---- */

struct snapshot *discovery_snapshot(const struct discovery *discovery)
{
    return discovery->snapshot;
}

bool discovery_is_synced(const struct discovery *discovery, const char **name,
                         const char **why)
{
    for (size_t i = 0; i < discovery->len; i++) {
        const struct discovered *it = &discovery->upstreams[i];
        if (it->is_shown)
            continue;
        *name = it->config->name;
        *why = it->trouble != NULL ? it->trouble : "no answer yet";
        return false;
    }
    return true;
}

struct discovery_facts discovery_facts(const struct discovery *discovery, size_t place)
{
    check(place < discovery->len);
    const struct discovered *it = &discovery->upstreams[place];
    return (struct discovery_facts){
        .source = it->kind != NULL ? it->kind->word : "static",
        .is_synced = it->lists > 0 && it->trouble == NULL,
        .lists = it->lists,
        .listed_at = it->listed_at,
        .trouble = it->trouble != NULL ? it->trouble : "",
    };
}
