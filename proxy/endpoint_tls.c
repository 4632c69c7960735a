#include "proxy/endpoint_tls.h"

#include "shared/log.h"
#include "shared/slice.h"
#include "shared/stream.h"
#include "shared/tls.h"
#include "shared/watched_files.h"

#include "proxy/endpoint.h"
#include "proxy/proxy_config.h"

#include <stdlib.h>
#include <string.h>

#define HOST_MAX 254

struct endpoint_tls_files {
    const struct upstream_config *config; /* borrowed */
    struct endpoint_tls *newest;          /* one holder */
    struct watched_files *watched;        /* ca, cert, key */
    char *trouble;                        /* what was logged last; NULL: nothing */
    endpoint_tls_cb on_change;
    void *argument;
};

/* ---- one generation ---- */

struct endpoint_tls *endpoint_tls_read(const struct upstream_config *config, char **error)
{
    struct tls_client_options options = {
        .ca = config->tls.ca,
        .cert = config->tls.cert,
        .key = config->tls.key,
        .alpn = "http/1.1",
        .verify = config->tls.verify,
    };
    struct tls_context *context = tls_client_new(&options, error);
    if (context == NULL)
        return NULL;
    struct endpoint_tls *tls = must_calloc(1, sizeof *tls);
    atomic_init(&tls->holders, 1);
    tls->context = context;
    tls->server_name = must_strdup(config->tls.server_name);
    return tls;
}

struct endpoint_tls *endpoint_tls_ref(struct endpoint_tls *tls)
{
    if (tls != NULL)
        atomic_fetch_add_explicit(&tls->holders, 1, memory_order_relaxed);
    return tls;
}

void endpoint_tls_unref(struct endpoint_tls *tls)
{
    if (tls == NULL ||
        atomic_fetch_sub_explicit(&tls->holders, 1, memory_order_acq_rel) != 1)
        return;
    tls_unref(tls->context);
    free(tls->server_name);
    free(tls);
}

/* "host:port", "[v6]:port" or "unix:/path" without what is not the host. */
static struct slice host_of(struct slice address)
{
    if (slice_starts_with(address, SLICE("unix:")))
        return SLICE("localhost");
    while (address.len > 0 && address.data[address.len - 1] != ':')
        address.len--;
    if (address.len > 0)
        address.len--;
    if (address.len >= 2 && address.data[0] == '[')
        address = slice_of(address.data + 1, address.len - 2);
    return address;
}

void endpoint_tls_start(const struct endpoint_tls *tls, const struct endpoint *endpoint,
                        struct stream *stream)
{
    if (tls->server_name[0] != '\0') {
        tls_connect(tls->context, stream, tls->server_name);
        return;
    }
    char host[HOST_MAX + 1] = "";
    struct slice found = host_of(slice_from_text(endpoint->address_text));
    found.len = min_size(found.len, HOST_MAX);
    memcpy(host, found.data, found.len);
    tls_connect(tls->context, stream, host);
}

/* ---- the files ---- */

/* Says it once: a certificate may wait long for its key. */
static void on_trouble(struct endpoint_tls_files *files, char *error)
{
    if (files->trouble == NULL || strcmp(files->trouble, error) != 0)
        log_error(LOG_SUBJECT("upstream"),
                  "TLS files have changed and are not good: the ones before stay in use",
                  LOG_TEXT("upstream", files->config->name), LOG_TEXT("why", error));
    free(files->trouble);
    files->trouble = error;
}

static void on_file(void *argument, const char *path, bool more)
{
    (void)path;
    struct endpoint_tls_files *files = argument;
    char *error;
    if (more)
        return;
    struct endpoint_tls *tls = endpoint_tls_read(files->config, &error);
    if (tls == NULL) {
        on_trouble(files, error);
        return;
    }
    free(files->trouble);
    files->trouble = NULL;
    log_info(LOG_SUBJECT("upstream"), "TLS files have changed",
             LOG_TEXT("upstream", files->config->name));
    endpoint_tls_unref(files->newest);
    files->newest = tls;
    files->on_change(files->argument);
}

struct endpoint_tls_files *endpoint_tls_files_new(struct event_base *base,
                                                  const struct upstream_config *config,
                                                  struct endpoint_tls *newest,
                                                  endpoint_tls_cb on_change,
                                                  void *argument)
{
    if (!config->tls.verify)
        log_warn(LOG_SUBJECT("upstream"),
                 "tls.verify is false: whoever answers at an endpoint's address is "
                 "taken for it",
                 LOG_TEXT("upstream", config->name));
    struct endpoint_tls_files *files = must_calloc(1, sizeof *files);
    files->config = config;
    files->newest = newest;
    files->on_change = on_change;
    files->argument = argument;
    files->watched = watched_files_new(base, on_file, files);
    watched_files_begin(files->watched);
    watched_files_add(files->watched, config->tls.ca);
    watched_files_add(files->watched, config->tls.cert);
    watched_files_add(files->watched, config->tls.key);
    watched_files_end(files->watched);
    return files;
}

void endpoint_tls_files_free(struct endpoint_tls_files *files)
{
    if (files == NULL)
        return;
    watched_files_free(files->watched);
    free(files->trouble);
    endpoint_tls_unref(files->newest);
    free(files);
}

struct endpoint_tls *endpoint_tls_newest(const struct endpoint_tls_files *files)
{
    return files != NULL ? files->newest : NULL;
}
