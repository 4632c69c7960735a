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
#include "proxy/removed_endpoints.h"
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
    const struct upstream_config *config; /* of discovery's config */
    struct endpoint_list *list;
    struct endpoint_set *set;           /* the newest; one reference. NULL: none yet */
    const struct source_kind *kind;     /* NULL: not begun */
    void *source;                       /* NULL: not begun, or it is about to */
    struct proxy_config *source_config; /* that it has; one reference, or NULL */
    struct health_checks *checks;
    struct endpoint_tls_files *tls; /* NULL: plain */
    bool is_first;   /* of the first config: the proxy is not ready without its list */
    bool is_shown;   /* a list of the source is in the set */
    bool is_waiting; /* for the first list of the source that it has now */
    bool is_renewed; /* its options or TLS may have changed: a new set is made */
    uint64_t lists, listed_at;
    char *trouble; /* NULL: none */
};

struct discovery {
    struct event_base *base;
    struct proxy_config *config; /* one reference; NULL before the first */
    struct file_keys keys;
    struct discovered **upstreams; /* config->upstreams.count, same order */
    size_t len;
    struct removed_endpoints removed;
    struct snapshot *snapshot; /* one reference; NULL before the first */
    discovery_snapshot_cb on_snapshot;
    void *argument;
    struct event publish, tick;
    bool is_applying; /* the snapshot is made at the end of it */
};

/* ---- snapshots ---- */

/* The next set of each upstream that has changed. */
static bool make_sets(struct discovery *discovery, uint64_t now)
{
    bool is_any_new = false;
    for (size_t i = 0; i < discovery->len; i++) {
        struct discovered *it = discovery->upstreams[i];
        bool has_changed = endpoint_list_take_changed(it->list);
        if (!has_changed && !it->is_renewed && (it->is_shown || it->lists == 0))
            continue;
        size_t len;
        const struct endpoint_spec *specs = endpoint_list_specs(it->list, &len);
        struct endpoint_set *before = it->set;
        it->set = upstream_set_new(it->config, &discovery->keys, specs, len, before, now);
        endpoint_set_secure(it->set, endpoint_tls_newest(it->tls));
        if (before != NULL)
            endpoint_set_unref(before);
        it->is_shown = it->lists > 0;
        it->is_renewed = false;
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
        sets[i] = endpoint_set_ref(discovery->upstreams[i]->set);
    if (discovery->snapshot != NULL)
        snapshot_unref(discovery->snapshot);
    discovery->snapshot = snapshot_new(generation, proxy_config_ref(discovery->config),
                                       &discovery->keys, sets);
    discovery->snapshot->drain_changes = discovery->removed.drain_changes;
    free(sets);
}

/* Lets endpoints of removed upstreams drain, or stay, as the new sets say. */
static bool follow_sets(struct discovery *discovery, uint64_t now)
{
    struct endpoint_set **sets = must_calloc(discovery->len, sizeof *sets);
    bool are_complete = true;
    for (size_t i = 0; i < discovery->len; i++) {
        const struct discovered *it = discovery->upstreams[i];
        sets[i] = it->set;
        are_complete = are_complete && !it->is_waiting;
    }
    bool has_changed = removed_endpoints_follow(&discovery->removed, sets, discovery->len,
                                                are_complete, now);
    free(sets);
    return has_changed;
}

static void apply_checks(struct discovery *discovery)
{
    for (size_t i = 0; i < discovery->len; i++) {
        struct discovered *it = discovery->upstreams[i];
        health_checks_apply(it->checks, it->set, it->list);
    }
}

static void publish(struct discovery *discovery)
{
    uint64_t now = timing_now();
    event_del(&discovery->publish);
    bool is_any_new = make_sets(discovery, now);
    if (!follow_sets(discovery, now) && !is_any_new)
        return;
    make_snapshot(discovery);
    apply_checks(discovery);
    discovery->on_snapshot(discovery->argument, discovery->snapshot);
}

static void on_publish(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    publish(argument);
}

static void publish_soon(struct discovery *discovery)
{
    struct timeval wait = timing_to_timeval(DISCOVERY_DEBOUNCE);
    if (!discovery->is_applying && !event_pending(&discovery->publish, EV_TIMEOUT, NULL))
        event_add(&discovery->publish, &wait);
}

/* ---- time ---- */

/* Lets what is due happen in every list, and comes back when the next thing is. */
static void look_at_lists(struct discovery *discovery)
{
    uint64_t now = timing_now(), next = UINT64_MAX;
    for (size_t i = 0; i < discovery->len; i++) {
        uint64_t due = endpoint_list_tick(discovery->upstreams[i]->list, now);
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

/* ---- what sources report ---- */

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
    it->is_waiting = false;
    it->listed_at = timing_now();
    metrics_add_by(M_DISCOVERY_LISTS, it->config->discovery.kind, 1);
    endpoint_list_apply(it->list, specs, len, it->listed_at);
    log_debug(LOG_SUBJECT("discovery"), "list", LOG_TEXT("upstream", it->config->name),
              LOG_UNSIGNED("endpoints", len), LOG_UNSIGNED("lists", it->lists));
    if (!it->discovery->is_applying)
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

/* ---- what health checks report ---- */

static void on_verdict(void *owner, struct slice identity, unsigned port, bool passes)
{
    struct discovered *it = owner;
    endpoint_list_set_verdict(it->list, identity, port, passes);
    if (!it->discovery->is_applying)
        look_at_lists(it->discovery);
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

size_t discovery_drain(struct discovery *discovery, struct slice endpoint, bool drains)
{
    size_t count = 0;
    for (size_t i = 0; i < discovery->len; i++)
        count += endpoint_list_drain(discovery->upstreams[i]->list, endpoint, drains);
    look_at_lists(discovery);
    publish(discovery);
    return count;
}

size_t discovery_weigh(struct discovery *discovery, struct slice endpoint, int64_t weight)
{
    size_t count = 0;
    for (size_t i = 0; i < discovery->len; i++)
        count += endpoint_list_weigh(discovery->upstreams[i]->list, endpoint, weight);
    look_at_lists(discovery);
    publish(discovery);
    return count;
}

bool discovery_drain_upstream(struct discovery *discovery, struct slice name, bool drains)
{
    size_t place = proxy_config_find_upstream(discovery->config, name);
    if (place == discovery->len)
        return false;
    endpoint_list_drain_all(discovery->upstreams[place]->list, drains);
    look_at_lists(discovery);
    publish(discovery);
    return true;
}

/* ---- changed TLS files ---- */

static void on_tls_files(void *owner)
{
    struct discovered *it = owner;
    it->is_renewed = true;
    publish_soon(it->discovery);
}

/* Files that were read before, and are followed from now on. */
static void renew_tls(struct discovered *it, struct endpoint_tls *tls)
{
    endpoint_tls_files_free(it->tls);
    it->tls = tls != NULL
                  ? endpoint_tls_files_new(it->discovery->base, it->config,
                                           endpoint_tls_ref(tls), on_tls_files, it)
                  : NULL;
}

/* ---- what can fail ---- */

struct discovery_plan {
    struct endpoint_tls **tls; /* of each upstream, one holder; NULL: plain */
    size_t len;
};

static bool read_tls(struct discovery_plan *plan, const struct proxy_config *config,
                     char *error, size_t error_size)
{
    for (size_t i = 0; i < plan->len; i++) {
        const struct upstream_config *upstream = proxy_config_upstream(config, i);
        char *why;
        if (!upstream->has_tls)
            continue;
        plan->tls[i] = endpoint_tls_read(upstream, &why);
        if (plan->tls[i] != NULL)
            continue;
        snprintf(error, error_size, "tls of upstream %s: %s", upstream->name, why);
        free(why);
        return false;
    }
    return true;
}

struct discovery_plan *discovery_plan_new(const struct proxy_config *config, char *error,
                                          size_t error_size)
{
    struct discovery_plan *plan = must_calloc(1, sizeof *plan);
    plan->len = config->upstreams.count;
    plan->tls = must_calloc(plan->len, sizeof(struct endpoint_tls *));
    if (read_tls(plan, config, error, error_size))
        return plan;
    discovery_plan_free(plan);
    return NULL;
}

void discovery_plan_free(struct discovery_plan *plan)
{
    for (size_t i = 0; i < plan->len; i++)
        endpoint_tls_unref(plan->tls[i]);
    free(plan->tls);
    free(plan);
}

/* ---- life ---- */

static const struct source_kind *kind_of(const struct upstream_config *config)
{
    switch (config->discovery.kind) {
    case DISCOVERY_STATIC:
        return &discovery_static;
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
    struct endpoint_list_options options = {
        .absence = ABSENCE,
        .empty_hold = config->empty_hold,
        .farewell = config->drain.delay + config->drain.window,
        .is_checked = config->health_check.type != HEALTH_CHECK_NONE,
    };
    if (config->discovery.kind == DISCOVERY_STATIC)
        options.absence = 0;
    if (config->discovery.kind == DISCOVERY_DNS)
        options.vanished = options.farewell;
    return options;
}

static void stop_source(struct discovered *it)
{
    if (it->source != NULL)
        it->kind->stop(it->source);
    if (it->source_config != NULL)
        proxy_config_unref(it->source_config);
    free(it->trouble);
    it->kind = NULL;
    it->source = NULL;
    it->source_config = NULL;
    it->trouble = NULL;
}

static void start_source(struct discovered *it, const struct source_kind *kind)
{
    it->kind = kind;
    it->is_waiting = true;
    it->source_config = proxy_config_ref(it->discovery->config);
    it->source = it->kind->start(it->discovery->base, it->config, &source_callbacks, it);
}

/* Learns from where the config says, which is what it did before if nothing about it has changed. */
static void renew_source(struct discovered *it, const struct upstream_config *before)
{
    const struct source_kind *kind = kind_of(it->config);
    if (kind == it->kind && proxy_config_agrees(before, it->config, "discovery."))
        return;
    if (kind == it->kind && kind->change != NULL) {
        struct proxy_config *config_before = it->source_config;
        it->source_config = proxy_config_ref(it->discovery->config);
        kind->change(it->source, it->config);
        proxy_config_unref(config_before);
        return;
    }
    stop_source(it);
    start_source(it, kind);
}

static struct discovered *discovered_new(struct discovery *discovery,
                                         const struct upstream_config *config)
{
    struct discovered *it = must_calloc(1, sizeof *it);
    struct endpoint_list_options options = list_options(config);
    it->discovery = discovery;
    it->is_first = discovery->snapshot == NULL;
    it->list = endpoint_list_new(config->name, &options);
    it->checks = health_checks_new(discovery->base, config, &health_callbacks, it);
    return it;
}

static void discovered_free(struct discovered *it)
{
    stop_source(it);
    health_checks_free(it->checks);
    endpoint_tls_files_free(it->tls);
    endpoint_list_free(it->list);
    if (it->set != NULL)
        endpoint_set_unref(it->set);
    free(it);
}

/* The upstream of that name is what it was, with all that is known of its endpoints; else a new one. */
static struct discovered *take_upstream(struct discovered **upstreams, size_t len,
                                        const char *name)
{
    for (size_t i = 0; i < len; i++) {
        struct discovered *it = upstreams[i];
        if (it == NULL || strcmp(it->config->name, name) != 0)
            continue;
        upstreams[i] = NULL;
        return it;
    }
    return NULL;
}

static struct discovered *renew_upstream(struct discovery *discovery,
                                         struct discovered *it,
                                         const struct discovery_plan *plan, size_t place)
{
    const struct upstream_config *config =
        proxy_config_upstream(discovery->config, place);
    if (it == NULL)
        it = discovered_new(discovery, config);
    const struct upstream_config *before = it->config;
    struct endpoint_list_options options = list_options(config);
    it->config = config;
    it->is_renewed = true;
    endpoint_list_set_options(it->list, &options);
    health_checks_set_config(it->checks, config);
    renew_tls(it, plan->tls[place]);
    renew_source(it, before);
    return it;
}

void discovery_apply(struct discovery *discovery, struct proxy_config *config,
                     const struct file_keys *keys, const struct discovery_plan *plan)
{
    struct proxy_config *config_before = discovery->config;
    struct discovered **before = discovery->upstreams;
    size_t before_len = discovery->len;
    discovery->is_applying = true;
    discovery->config = proxy_config_ref(config);
    discovery->keys = *keys;
    discovery->len = config->upstreams.count;
    discovery->upstreams = must_calloc(discovery->len, sizeof(struct discovered *));
    for (size_t i = 0; i < discovery->len; i++) {
        const char *name = proxy_config_upstream(config, i)->name;
        discovery->upstreams[i] =
            renew_upstream(discovery, take_upstream(before, before_len, name), plan, i);
    }
    for (size_t i = 0; i < before_len; i++) {
        if (before[i] == NULL)
            continue;
        removed_endpoints_add(&discovery->removed, before[i]->set, before[i]->config);
        discovered_free(before[i]);
    }
    free(before);
    if (config_before != NULL)
        proxy_config_unref(config_before);
    look_at_lists(discovery);
    discovery->is_applying = false;
    publish(discovery);
}

struct discovery *discovery_new(struct event_base *base,
                                discovery_snapshot_cb on_snapshot, void *argument)
{
    struct discovery *discovery = must_calloc(1, sizeof *discovery);
    discovery->base = base;
    discovery->on_snapshot = on_snapshot;
    discovery->argument = argument;
    event_assign(&discovery->publish, base, -1, 0, on_publish, discovery);
    event_assign(&discovery->tick, base, -1, 0, on_tick, discovery);
    return discovery;
}

void discovery_free(struct discovery *discovery)
{
    event_del(&discovery->publish);
    event_del(&discovery->tick);
    for (size_t i = 0; i < discovery->len; i++)
        discovered_free(discovery->upstreams[i]);
    free(discovery->upstreams);
    removed_endpoints_cleanup(&discovery->removed);
    if (discovery->snapshot != NULL)
        snapshot_unref(discovery->snapshot);
    if (discovery->config != NULL)
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
        const struct discovered *it = discovery->upstreams[i];
        if (it->is_shown || !it->is_first)
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
    const struct discovered *it = discovery->upstreams[place];
    return (struct discovery_facts){
        .source = it->kind->word,
        .is_synced = it->lists > 0 && it->trouble == NULL,
        .lists = it->lists,
        .listed_at = it->listed_at,
        .trouble = it->trouble != NULL ? it->trouble : "",
    };
}
