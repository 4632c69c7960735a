#include "proxy/proxy_config.h"

#include "shared/timing.h"

#include "proxy/cpu_count.h"
#include "proxy/proxy_config_rows.h"

#include <stdlib.h>
#include <string.h>

/* By which the kernel waits longer than write_stall, whose look comes up to a step late. */
#define STALL_MARGIN SECONDS(5)

/* ── derived members ── */

static void derive_hash_by(struct affinity_config *affinity)
{
    static const struct {
        struct slice prefix;
        enum hash_by hash_by;
    } kinds[] = {
        {SLICE_INIT("client_ip"), HASH_BY_CLIENT_IP},
        {SLICE_INIT("header:"), HASH_BY_HEADER},
        {SLICE_INIT("query:"), HASH_BY_QUERY},
        {SLICE_INIT("cookie:"), HASH_BY_COOKIE},
    };
    struct slice text = slice_from_text(affinity->hash_by_text);
    affinity->hash_by = HASH_BY_AUTO;
    affinity->hash_by_name = slice_of(text.data + text.len, 0);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (slice_starts_with(text, kinds[i].prefix)) {
            affinity->hash_by = kinds[i].hash_by;
            affinity->hash_by_name = slice_from(text, kinds[i].prefix.len);
        }
}

static void derive_upstream(struct upstream_config *upstream)
{
    upstream->discovery.kind = upstream->discovery.has_kubernetes ? DISCOVERY_KUBERNETES
                               : upstream->discovery.has_dns      ? DISCOVERY_DNS
                               : upstream->discovery.file[0] != '\0' ? DISCOVERY_FILE
                                                                     : DISCOVERY_STATIC;
    if (upstream->discovery.has_kubernetes &&
        upstream->discovery.kubernetes.empty_hold != OPTION_AUTO)
        upstream->empty_hold = upstream->discovery.kubernetes.empty_hold;
    derive_hash_by(&upstream->affinity);
    char **cookie_name = &upstream->affinity.cookie.name;
    if ((*cookie_name)[0] == '\0') {
        free(*cookie_name);
        *cookie_name = must_printf("sidrail_%s", upstream->name);
    }
}

/* An upstream alone becomes a split of one, so that nobody has to know two forms. */
static void derive_split(const struct proxy_config *config, struct route_config *route)
{
    if (route->split.count == 0) {
        struct split_config *only = must_calloc(1, sizeof(*only));
        only->upstream_name = must_strdup(route->upstream_name);
        only->weight = 1;
        free(route->split.items);
        route->split.items = only;
        route->split.count = 1;
    }
    for (size_t i = 0; i < route->split.count; i++) {
        struct split_config *member = OPTION_ITEM(route->split, split_config, i);
        member->upstream =
            proxy_config_find_upstream(config, slice_from_text(member->upstream_name));
        check(member->upstream < config->upstreams.count);
    }
}

static void derive_changes(const struct header_edits *edits, struct head_changes *changes)
{
    struct head_line *set = must_calloc(edits->set.count, sizeof(*set));
    for (size_t i = 0; i < edits->set.count; i++) {
        set[i].name = slice_from_text(edits->set.items[i].name);
        set[i].value = slice_from_text(edits->set.items[i].value);
    }
    struct slice *remove = must_calloc(edits->remove.count, sizeof(*remove));
    for (size_t i = 0; i < edits->remove.count; i++)
        remove[i] = slice_from_text(edits->remove.items[i]);
    *changes = (struct head_changes){.set = set,
                                     .set_count = edits->set.count,
                                     .remove = remove,
                                     .remove_count = edits->remove.count};
}

/* The only upstream serves every path when nothing else was said. */
static void derive_only_route(struct proxy_config *config)
{
    if (config->routes.count > 0)
        return;
    struct route_config *route = must_calloc(1, sizeof(*route));
    route->host = must_strdup("*");
    route->path = must_strdup("/");
    route->upstream_name = must_strdup(proxy_config_upstream(config, 0)->name);
    route->body_bytes = OPTION_AUTO;
    free(config->routes.items);
    config->routes.items = route;
    config->routes.count = 1;
}

static void derive(struct proxy_config *config)
{
    atomic_init(&config->holders, 1);
    derive_only_route(config);
    config->threads = config->threads_option == OPTION_AUTO_INTEGER
                          ? cpu_count_available()
                          : (unsigned)config->threads_option;
    config->engine_paths =
        must_calloc(config->engine_io_paths.count, sizeof(*config->engine_paths));
    for (size_t i = 0; i < config->engine_io_paths.count; i++)
        config->engine_paths[i] = slice_from_text(config->engine_io_paths.items[i]);
    for (size_t i = 0; i < config->upstreams.count; i++)
        derive_upstream(OPTION_ITEM(config->upstreams, upstream_config, i));
    for (size_t i = 0; i < config->routes.count; i++) {
        struct route_config *route = OPTION_ITEM(config->routes, route_config, i);
        derive_split(config, route);
        derive_changes(&route->request_headers, &route->request_changes);
        derive_changes(&route->response_headers, &route->response_changes);
        if (route->body_bytes == OPTION_AUTO)
            route->body_bytes = config->limits.body_bytes;
    }
}

/* ── life ── */

/* The config from options that were read and set; frees them. */
static struct proxy_config *finish(struct options *options, FILE *errors)
{
    struct proxy_config *config = must_calloc(1, sizeof(*config));
    if (options_apply(options, config)) {
        derive(config);
    } else {
        options_print_errors(options, errors);
        free(config);
        config = NULL;
    }
    options_free(options);
    return config;
}

struct proxy_config *proxy_config_load(const char *path, FILE *errors)
{
    struct options *options = options_new(&proxy_config_table);
    if (options_read_file(options, path))
        return finish(options, errors);
    options_print_errors(options, errors);
    options_free(options);
    return NULL;
}

struct proxy_config *proxy_config_parse(const char *name, struct slice yaml, FILE *errors)
{
    struct options *options = options_new(&proxy_config_table);
    if (options_read_text(options, name, yaml))
        return finish(options, errors);
    options_print_errors(options, errors);
    options_free(options);
    return NULL;
}

struct proxy_config *proxy_config_quick_start(const char *listen, const char *endpoints,
                                              const char *admin, const char *threads,
                                              FILE *errors)
{
    struct options *options = options_new(&proxy_config_table);
    options_set(options, "--listen", "listeners[0].address", slice_from_text(listen));
    options_set(options, "--upstream", "upstreams[0].name", SLICE("default"));
    struct slice rest = slice_from_text(endpoints), endpoint;
    for (size_t i = 0; slice_cut(&rest, ',', &endpoint); i++) {
        char path[64];
        snprintf(path, sizeof(path), "upstreams[0].discovery.static[%zu]", i);
        options_set(options, "--upstream", path, slice_trim(endpoint));
    }
    if (admin != NULL)
        options_set(options, "--admin", "admin.address", slice_from_text(admin));
    if (threads != NULL)
        options_set(options, "--threads", "threads", slice_from_text(threads));
    return finish(options, errors);
}

struct proxy_config *proxy_config_ref(struct proxy_config *config)
{
    atomic_fetch_add_explicit(&config->holders, 1, memory_order_relaxed);
    return config;
}

static void free_changes(struct head_changes *changes)
{
    free((void *)(uintptr_t)changes->set);
    free((void *)(uintptr_t)changes->remove);
}

void proxy_config_unref(struct proxy_config *config)
{
    if (atomic_fetch_sub_explicit(&config->holders, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < config->routes.count; i++) {
        struct route_config *route = OPTION_ITEM(config->routes, route_config, i);
        free_changes(&route->request_changes);
        free_changes(&route->response_changes);
    }
    free(config->engine_paths);
    options_cleanup(&proxy_config_table, config);
    free(config);
}

/* ── questions ── */

struct agreement {
    const char *prefix;
    bool agrees;
};

static void on_disagreement(void *argument, const char *path, enum option_reload reload)
{
    (void)reload;
    struct agreement *agreement = argument;
    if (slice_starts_with(slice_from_text(path), slice_from_text(agreement->prefix)))
        agreement->agrees = false;
}

bool proxy_config_agrees(const struct upstream_config *one,
                         const struct upstream_config *other, const char *prefix)
{
    struct agreement agreement = {.prefix = prefix, .agrees = true};
    options_compare(&proxy_upstream_table, one, other, on_disagreement, &agreement);
    return agreement.agrees;
}

bool proxy_config_load_keys(const struct proxy_config *config, struct file_keys *keys,
                            bool *is_random, bool *is_readable_by_others, char *error,
                            size_t error_size)
{
    *is_random = config->affinity_keys[0] == '\0';
    *is_readable_by_others = false;
    if (*is_random) {
        file_keys_make_random(keys);
        return true;
    }
    return file_keys_load(config->affinity_keys, keys, is_readable_by_others, error,
                          error_size);
}

void proxy_config_print_options(FILE *out)
{
    options_print(&proxy_config_table, out);
}

uint64_t proxy_config_user_timeout(const struct proxy_config *config)
{
    uint64_t least = config->timeouts.write_stall + STALL_MARGIN;
    if (config->tcp.user_timeout == 0)
        return 0;
    return config->tcp.user_timeout > least ? config->tcp.user_timeout : least;
}

size_t proxy_config_find_upstream(const struct proxy_config *config, struct slice name)
{
    size_t i = 0;
    while (i < config->upstreams.count &&
           !slice_equals(slice_from_text(proxy_config_upstream(config, i)->name), name))
        i++;
    return i;
}
