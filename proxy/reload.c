#include "proxy/reload.h"

#include "shared/ctl.h"
#include "shared/lifecycle.h"
#include "shared/log.h"
#include "shared/option_tree.h"
#include "shared/option_value.h"
#include "shared/timing.h"
#include "shared/tls.h"
#include "shared/watched_files.h"

#include "proxy/config_files.h"
#include "proxy/discovery.h"
#include "proxy/listener_set.h"
#include "proxy/proxy_config.h"
#include "proxy/proxy_config_rows.h"
#include "proxy/proxy_metrics.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <xxhash.h>

#define ERROR_SIZE 1024
#define SETTLE     MILLISECONDS(50) /* files that change one after the other */

struct waiting_call {
    STAILQ_ENTRY(waiting_call) entry;
    struct ctl_call *call;
};

STAILQ_HEAD(waiting_calls, waiting_call);

struct reload {
    struct reload_parts parts;
    char *path;                   /* NULL: none */
    struct proxy_config *started; /* what threads and admin run with; one reference */
    struct proxy_config *config;  /* the newest; one reference */
    uint64_t digest;              /* of the text that was read last */
    struct watched_files *files;  /* NULL: no path */
    struct event settled;
    bool others_changed; /* a file that the configuration names */

    bool is_under_way;
    const char *next_why;         /* of one more; NULL: none */
    struct waiting_calls calls;   /* of the one under way */
    struct waiting_calls pending; /* of one more */

    uint64_t applied, refused, applied_at;
    char *error;
    char restart[256];
    size_t restart_count;
};

/* A configuration with all that can be missing. */
struct prepared {
    struct proxy_config *config;
    struct file_keys keys;
    struct discovery_plan *discovery;
    struct listener_plan *listeners;
};

/* ---- answers ---- */

static void answer(struct reload *reload, bool ok, const char *text)
{
    struct waiting_call *it;
    while ((it = STAILQ_FIRST(&reload->calls)) != NULL) {
        STAILQ_REMOVE_HEAD(&reload->calls, entry);
        evbuffer_add(ctl_call_out(it->call), text, strlen(text));
        ctl_finish(it->call, ok);
        free(it);
    }
}

static void refuse(struct reload *reload, const char *errors)
{
    size_t count = 0;
    for (const char *at = errors; (at = strchr(at, '\n')) != NULL; at++)
        count++;
    reload->refused++;
    metrics_add_by(M_RELOADS, RELOAD_REFUSED, 1);
    free(reload->error);
    reload->error = must_memdup(errors, strcspn(errors, "\n"));
    log_error(LOG_SUBJECT("reload"), "refused, the configuration stays as it was",
              LOG_TEXT("why", reload->error), LOG_UNSIGNED("errors", count));
    answer(reload, false, errors);
}

/* ---- what is prepared ---- */

static void prepared_free(struct prepared *prepared)
{
    if (prepared->listeners != NULL)
        listener_plan_free(prepared->listeners);
    if (prepared->discovery != NULL)
        discovery_plan_free(prepared->discovery);
    if (prepared->config != NULL)
        proxy_config_unref(prepared->config);
}

/* A process that has made its own keys goes on with them. */
static bool load_keys(const struct reload *reload, struct prepared *prepared,
                      FILE *errors)
{
    bool is_random = false, is_readable_by_others = false;
    char error[ERROR_SIZE];
    if (prepared->config->affinity_keys[0] == '\0' &&
        reload->config->affinity_keys[0] == '\0') {
        prepared->keys = discovery_snapshot(reload->parts.discovery)->keys;
        return true;
    }
    bool is_good = proxy_config_load_keys(prepared->config, &prepared->keys, &is_random,
                                          &is_readable_by_others, error, sizeof error);
    if (!is_good)
        fprintf(errors, "affinity_keys: %s\n", error);
    if (is_good && is_random)
        log_warn(LOG_SUBJECT("reload"), "affinity_keys is empty now: routes in sids and "
                                        "cookies hold for this process only");
    if (is_good && is_readable_by_others)
        log_warn(LOG_SUBJECT("reload"), "the key file can be read by others",
                 LOG_TEXT("path", prepared->config->affinity_keys));
    return is_good;
}

/* False: what is wrong is in `errors`, one line each. */
static bool prepare(struct reload *reload, struct prepared *prepared, FILE *errors)
{
    char *text, why[OPTION_WHY_SIZE], error[ERROR_SIZE];
    size_t len;
    if (!option_tree_read_file(reload->path, &text, &len, why)) {
        fprintf(errors, "%s: %s\n", reload->path, why);
        return false;
    }
    reload->digest = XXH64(text, len, 0);
    prepared->config = proxy_config_parse(reload->path, slice_of(text, len), errors);
    free(text);
    if (prepared->config == NULL || !load_keys(reload, prepared, errors))
        return false;
    prepared->discovery = discovery_plan_new(prepared->config, error, sizeof error);
    if (prepared->discovery != NULL)
        prepared->listeners = listener_plan_new(reload->parts.listeners, prepared->config,
                                                error, sizeof error);
    if (prepared->listeners == NULL)
        fprintf(errors, "%s\n", error);
    return prepared->listeners != NULL;
}

/* ---- files ---- */

static void on_settled(evutil_socket_t fd, short what, void *argument);

static void look_soon(struct reload *reload)
{
    struct timeval wait = timing_to_timeval(SETTLE);
    event_add(&reload->settled, &wait);
}

static void on_file_change(void *argument, const char *path, bool more)
{
    struct reload *reload = argument;
    if (strcmp(path, reload->path) != 0)
        reload->others_changed = true;
    if (!more)
        look_soon(reload);
}

static void watch_files(struct reload *reload)
{
    const struct proxy_config *config = reload->config;
    watched_files_begin(reload->files);
    watched_files_add(reload->files, reload->path);
    watched_files_add(reload->files, config->affinity_keys);
    for (size_t i = 0; i < config->listeners.count; i++) {
        const struct listener_config *listener = proxy_config_listener(config, i);
        if (!listener->has_tls)
            continue;
        for (size_t c = 0; c < listener->tls.certificates.count; c++) {
            const struct certificate_config *it =
                OPTION_ITEM(listener->tls.certificates, certificate_config, c);
            watched_files_add(reload->files, it->cert);
            watched_files_add(reload->files, it->key);
        }
        watched_files_add(reload->files, listener->tls.client_ca);
        watched_files_add(reload->files, listener->tls.ticket_keys);
    }
    watched_files_end(reload->files);
}

/* ---- the swap ---- */

/* A level that ctl has set stays until the option changes. */
static void apply_log(const struct proxy_config *before,
                      const struct proxy_config *config)
{
    if (before->log.format != config->log.format)
        log_init(log_get_level(), (enum log_format)config->log.format);
    if (before->log.level != config->log.level)
        log_set_level((enum log_level)config->log.level);
}

static void tell_restart(struct reload *reload)
{
    char names[sizeof reload->restart];
    reload->restart_count = options_restart_changes(&proxy_config_table, reload->started,
                                                    reload->config, names, sizeof names);
    if (reload->restart_count > 0 && strcmp(names, reload->restart) != 0)
        log_warn(LOG_SUBJECT("reload"), "these options change by a restart only",
                 LOG_TEXT("options", names));
    snprintf(reload->restart, sizeof reload->restart, "%s", names);
}

static void warn_of_keys(const struct proxy_config *before,
                         const struct proxy_config *config)
{
    const char **known, **keys;
    size_t known_count = config_files_keys(before, &known);
    size_t count = config_files_keys(config, &keys);
    tls_warn_of_keys(keys, count, known, known_count);
    free(known);
    free(keys);
}

static void on_applied(void *argument);

static void swap(struct reload *reload, struct prepared *prepared)
{
    apply_log(reload->config, prepared->config);
    warn_of_keys(reload->config, prepared->config);
    proxy_config_unref(reload->config);
    reload->config = prepared->config;
    prepared->config = NULL;
    lifecycle_set_deadline(reload->parts.lifecycle, reload->config->shutdown.deadline);
    discovery_apply(reload->parts.discovery, reload->config, &prepared->keys,
                    prepared->discovery);
    listener_set_apply(reload->parts.listeners, prepared->listeners, on_applied, reload);
    prepared->listeners = NULL;
    tell_restart(reload);
    watch_files(reload);
}

static void run(struct reload *reload, const char *why)
{
    char *errors = NULL;
    size_t errors_size;
    FILE *out = open_memstream(&errors, &errors_size);
    struct prepared prepared = {0};
    check(out != NULL);
    log_info(LOG_SUBJECT("reload"), "asked for", LOG_TEXT("by", why));
    bool is_good = prepare(reload, &prepared, out);
    fclose(out);
    if (is_good) {
        reload->is_under_way = true;
        swap(reload, &prepared);
    } else {
        refuse(reload, errors);
    }
    prepared_free(&prepared);
    free(errors);
}

static void run_pending(struct reload *reload)
{
    const char *why = reload->next_why;
    reload->next_why = NULL;
    STAILQ_CONCAT(&reload->calls, &reload->pending);
    run(reload, why);
}

/* Every worker has the snapshot and its listeners. */
static void on_applied(void *argument)
{
    struct reload *reload = argument;
    uint64_t generation = discovery_snapshot(reload->parts.discovery)->generation;
    reload->is_under_way = false;
    reload->applied++;
    reload->applied_at = (uint64_t)time(NULL);
    free(reload->error);
    reload->error = must_strdup("");
    metrics_add_by(M_RELOADS, RELOAD_APPLIED, 1);
    log_info(LOG_SUBJECT("reload"), "the configuration is in use",
             LOG_UNSIGNED("generation", generation));
    char *text = must_printf(
        "the configuration is in use, generation %llu\n%s%s%s",
        (unsigned long long)generation,
        reload->restart_count > 0 ? "these options change by a restart only: " : "",
        reload->restart, reload->restart_count > 0 ? "\n" : "");
    answer(reload, true, text);
    free(text);
    if (reload->next_why != NULL)
        run_pending(reload);
}

/* ---- asked for ---- */

void reload_begin(struct reload *reload, const char *why)
{
    if (lifecycle_phase(reload->parts.lifecycle) != LIFECYCLE_READY) {
        log_warn(LOG_SUBJECT("reload"), "ignored: the process is ending");
        return;
    }
    if (reload->path == NULL) {
        log_warn(LOG_SUBJECT("reload"), "ignored: started without --config");
        return;
    }
    reload->next_why = why;
    if (!reload->is_under_way)
        run_pending(reload);
}

void reload_begin_for(struct reload *reload, struct ctl_call *call)
{
    if (reload->path == NULL) {
        ctl_refuse(call, "there is no file: the proxy was started without --config");
        return;
    }
    if (lifecycle_phase(reload->parts.lifecycle) != LIFECYCLE_READY) {
        ctl_refuse(call, "the process is ending");
        return;
    }
    struct waiting_call *it = must_calloc(1, sizeof *it);
    it->call = call;
    STAILQ_INSERT_TAIL(&reload->pending, it, entry);
    reload_begin(reload, "ctl");
}

/* A file that was written, but says what is in use already, is left alone. */
static bool is_news(struct reload *reload)
{
    char *text, why[OPTION_WHY_SIZE];
    size_t len;
    bool others_changed = reload->others_changed;
    reload->others_changed = false;
    if (others_changed || !option_tree_read_file(reload->path, &text, &len, why))
        return true;
    uint64_t digest = XXH64(text, len, 0);
    free(text);
    return digest != reload->digest;
}

static void on_settled(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct reload *reload = argument;
    if (watched_files_are_busy(reload->files))
        look_soon(reload);
    else if (is_news(reload))
        reload_begin(reload, "a changed file");
}

/* ---- life ---- */

struct reload *reload_new(const struct reload_parts *parts, struct proxy_config *config,
                          const char *path)
{
    struct reload *reload = must_calloc(1, sizeof *reload);
    reload->parts = *parts;
    reload->started = proxy_config_ref(config);
    reload->config = proxy_config_ref(config);
    reload->error = must_strdup("");
    reload->applied_at = (uint64_t)time(NULL);
    reload->is_under_way = true;
    STAILQ_INIT(&reload->calls);
    STAILQ_INIT(&reload->pending);
    event_assign(&reload->settled, parts->base, -1, 0, on_settled, reload);
    if (path == NULL)
        return reload;
    reload->path = must_strdup(path);
    reload->files = watched_files_new(parts->base, on_file_change, reload);
    watch_files(reload);
    return reload;
}

void reload_ready(struct reload *reload)
{
    reload->is_under_way = false;
    if (reload->next_why != NULL)
        run_pending(reload);
}

static void free_calls(struct waiting_calls *calls)
{
    struct waiting_call *it;
    while ((it = STAILQ_FIRST(calls)) != NULL) {
        STAILQ_REMOVE_HEAD(calls, entry);
        free(it);
    }
}

void reload_free(struct reload *reload)
{
    event_del(&reload->settled);
    if (reload->files != NULL)
        watched_files_free(reload->files);
    free_calls(&reload->calls);
    free_calls(&reload->pending);
    proxy_config_unref(reload->started);
    proxy_config_unref(reload->config);
    free(reload->error);
    free(reload->path);
    free(reload);
}

struct reload_facts reload_facts(const struct reload *reload)
{
    return (struct reload_facts){
        .applied = reload->applied,
        .refused = reload->refused,
        .applied_at = reload->applied_at,
        .error = reload->error,
        .restart = reload->restart,
        .restart_count = reload->restart_count,
    };
}
