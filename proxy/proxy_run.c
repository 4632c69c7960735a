#include "proxy/proxy_run.h"

#include "shared/admin.h"
#include "shared/ctl.h"
#include "shared/log.h"
#include "shared/timing.h"
#include "shared/tls.h"

#include "proxy/admission.h"
#include "proxy/config_files.h"
#include "proxy/discovery.h"
#include "proxy/event_memory.h"
#include "proxy/listener_set.h"
#include "proxy/proxy_admin.h"
#include "proxy/proxy_metrics.h"
#include "proxy/reload.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DRAIN_LOOK MILLISECONDS(50)

static bool fail(const char *what, const char *why)
{
    fprintf(stderr, "sidrail-proxy: %s%s%s\n", what, what[0] != '\0' ? ": " : "", why);
    return false;
}

/* ---- start ---- */

static void on_snapshot(void *argument, struct snapshot *snapshot)
{
    struct proxy *proxy = argument;
    if (proxy->snapshot != NULL)
        snapshot_unref(proxy->snapshot);
    proxy->snapshot = snapshot_ref(snapshot);
    for (size_t i = 0; i < proxy->workers_len; i++) {
        struct snapshot_mailbox *mailbox = worker_mailbox(proxy->workers[i]);
        snapshot_publish(snapshot, &mailbox, 1);
    }
}

static bool start_discovery(struct proxy *proxy, struct proxy_config *config)
{
    struct file_keys keys;
    bool is_random = false, is_readable_by_others = false;
    char error[512];
    if (!proxy_config_load_keys(config, &keys, &is_random, &is_readable_by_others, error,
                                sizeof error))
        return fail("affinity_keys", error);
    if (is_random)
        log_warn(LOG_SUBJECT("main"),
                 "affinity_keys is empty: routes in sids and cookies hold "
                 "for this process only");
    if (is_readable_by_others)
        log_warn(LOG_SUBJECT("main"), "the key file can be read by others",
                 LOG_TEXT("path", config->affinity_keys));
    const char **tls_keys;
    size_t tls_key_count = config_files_keys(config, &tls_keys);
    tls_warn_of_keys(tls_keys, tls_key_count, NULL, 0);
    free(tls_keys);
    struct discovery_plan *plan = discovery_plan_new(config, error, sizeof error);
    if (plan == NULL)
        return fail("upstreams", error);
    proxy->discovery = discovery_new(proxy->base, on_snapshot, proxy);
    discovery_apply(proxy->discovery, config, &keys, plan);
    discovery_plan_free(plan);
    return true;
}

static void on_listening(void *argument)
{
    struct proxy *proxy = argument;
    reload_ready(proxy->reload);
}

static bool start_listening(struct proxy *proxy, const struct proxy_config *config)
{
    char error[1024];
    proxy->listeners = listener_set_new(proxy->workers, proxy->workers_len, &proxy->box);
    struct listener_plan *plan =
        listener_plan_new(proxy->listeners, config, error, sizeof error);
    if (plan == NULL)
        return fail("", error);
    listener_set_apply(proxy->listeners, plan, on_listening, proxy);
    return true;
}

static bool start_workers(struct proxy *proxy)
{
    const struct proxy_config *config = proxy->snapshot->config;
    proxy->workers_len = config->threads;
    proxy->workers = must_calloc(proxy->workers_len, sizeof(struct worker *));
    for (size_t i = 0; i < proxy->workers_len; i++)
        proxy->workers[i] = worker_new(&proxy->process, proxy->snapshot, (unsigned)i);
    return start_listening(proxy, config);
}

static bool open_admin(struct proxy *proxy)
{
    const struct proxy_config *config = proxy->snapshot->config;
    char why[NET_WHY_SIZE];
    if (config->admin.address.len != 0) {
        proxy->admin = admin_new(proxy->base, proxy_admin_callbacks(), proxy);
        if (!admin_listen(proxy->admin, &config->admin.address, why))
            return fail("admin.address", why);
    }
    const char *path = config->admin.socket;
    if (path[0] == '\0')
        return true;
    bool is_auto = strcmp(path, "auto") == 0;
    char *found = is_auto ? ctl_default_path("proxy") : must_strdup(path);
    bool is_open = false;
    if (found == NULL) {
        snprintf(why, sizeof why,
                 "neither /run/sidrail nor $XDG_RUNTIME_DIR can be written");
    } else {
        size_t count;
        const struct ctl_verb *verbs = proxy_admin_verbs(&count);
        proxy->ctl = ctl_new(proxy->base, verbs, count, proxy);
        is_open = ctl_listen(proxy->ctl, found, why);
    }
    free(found);
    if (is_open)
        return true;
    if (!is_auto)
        return fail("admin.socket", why);
    log_warn(LOG_SUBJECT("main"), "the ctl socket is off", LOG_TEXT("why", why));
    return true;
}

/* ---- shutdown ---- */

static void on_drain_look(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct proxy *proxy = arg;
    if (atomic_load_explicit(&proxy->process.clients, memory_order_relaxed) == 0)
        lifecycle_drained(proxy->lifecycle);
}

static void on_drain_begins(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct proxy *proxy = arg;
    struct timeval every = timing_to_timeval(DRAIN_LOOK);
    uint32_t window = deadline_limit(proxy->snapshot->config->shutdown.window);
    if (proxy->snapshot->config->shutdown.window == 0)
        window = 0;
    atomic_store_explicit(&proxy->process.is_draining, true, memory_order_relaxed);
    for (size_t i = 0; i < proxy->workers_len; i++)
        worker_drain(proxy->workers[i], window);
    event_add(&proxy->drain_look, &every);
}

static void on_drain(void *argument)
{
    struct proxy *proxy = argument;
    uint64_t delay = lifecycle_is_interrupted(proxy->lifecycle)
                         ? 0
                         : proxy->snapshot->config->shutdown.readiness_delay;
    struct timeval wait = timing_to_timeval(delay);
    event_add(&proxy->drain_begins, &wait);
}

static void stop_workers(struct proxy *proxy)
{
    for (size_t i = 0; i < proxy->workers_len; i++)
        if (proxy->workers[i]->has_thread)
            worker_stop(proxy->workers[i]);
    for (size_t i = 0; i < proxy->workers_len; i++) {
        worker_join(proxy->workers[i]);
        worker_free(proxy->workers[i]);
    }
    free(proxy->workers);
    proxy->workers_len = 0;
}

/* The main loop has ended: a few more turns carry the answer out. */
static void answer_shutdown_call(struct proxy *proxy)
{
    if (proxy->shutdown_call == NULL)
        return;
    ctl_finish(proxy->shutdown_call, true);
    proxy->shutdown_call = NULL;
    for (int i = 0; i < 10; i++)
        event_base_loop(proxy->base, EVLOOP_NONBLOCK);
}

static void cleanup(struct proxy *proxy)
{
    stop_workers(proxy);
    if (proxy->lifecycle != NULL)
        post_box_cleanup(&proxy->box); /* whom its jobs are about is gone */
    answer_shutdown_call(proxy);       /* turns the loop: what follows is still there */
    if (proxy->reload != NULL)
        reload_free(proxy->reload);
    if (proxy->listeners != NULL)
        listener_set_free(proxy->listeners);
    if (proxy->discovery != NULL)
        discovery_free(proxy->discovery);
    if (proxy->admin != NULL)
        admin_free(proxy->admin);
    if (proxy->ctl != NULL)
        ctl_free(proxy->ctl);
    if (proxy->rates != NULL)
        proxy_rates_free(proxy->rates);
    if (proxy->lifecycle != NULL) {
        event_del(&proxy->drain_begins);
        event_del(&proxy->drain_look);
        lifecycle_free(proxy->lifecycle);
    }
    if (proxy->snapshot != NULL)
        snapshot_unref(proxy->snapshot);
    if (proxy->base != NULL)
        event_base_free(proxy->base);
    admission_free(proxy->process.admission);
}

static void on_reload(void *argument)
{
    struct proxy *proxy = argument;
    reload_begin(proxy->reload, "SIGHUP");
}

static bool start(struct proxy *proxy, struct proxy_config *config, const char *path)
{
    static const struct lifecycle_callbacks callbacks = {.on_drain = on_drain,
                                                         .on_reload = on_reload};
    proxy->base = event_base_new();
    check(proxy->base != NULL);
    if (!start_discovery(proxy, config))
        return false;
    proxy->lifecycle = lifecycle_new(proxy->base, &callbacks, proxy);
    post_box_init(&proxy->box, proxy->base);
    event_assign(&proxy->drain_begins, proxy->base, -1, 0, on_drain_begins, proxy);
    event_assign(&proxy->drain_look, proxy->base, -1, EV_PERSIST, on_drain_look, proxy);
    lifecycle_set_deadline(proxy->lifecycle, config->shutdown.deadline);
    if (!start_workers(proxy))
        return false;
    struct reload_parts parts = {.base = proxy->base,
                                 .discovery = proxy->discovery,
                                 .listeners = proxy->listeners,
                                 .lifecycle = proxy->lifecycle};
    proxy->reload = reload_new(&parts, config, path);
    proxy->rates = proxy_rates_new(proxy);
    if (!open_admin(proxy))
        return false;
    proxy_admin_set_collectors(proxy);
    for (size_t i = 0; i < proxy->workers_len; i++)
        worker_start(proxy->workers[i]);
    return true;
}

int proxy_run(struct proxy_config *config, const char *path)
{
    event_memory_init();
    struct proxy proxy = {
        .process = {.started = timing_now(), .admission = admission_new()}};
    /* Replicas, and an edge in front of a sidecar, must not take each other for themselves. */
    snprintf(proxy.process.via, sizeof proxy.process.via, "sidrail-%08x",
             (unsigned)(timing_random() >> 32));
    log_init((enum log_level)config->log.level, (enum log_format)config->log.format);
    net_raise_descriptor_limit();
    metrics_init(proxy_metric_rows, PROXY_METRIC_COUNT);
    int code = EXIT_CODE_START;
    if (start(&proxy, config, path)) {
        lifecycle_ready(proxy.lifecycle);
        code = lifecycle_run(proxy.lifecycle);
    }
    cleanup(&proxy);
    proxy_config_unref(config);
    return code;
}
