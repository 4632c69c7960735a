#include "proxy/config_files.h"

#include "shared/file_read.h"

#include "proxy/endpoint_file.h"
#include "proxy/endpoint_tls.h"
#include "proxy/listener_place.h"

#include <stdlib.h>
#include <string.h>

#define ERROR_SIZE    1024
#define USUAL_FOLDER  "/var/run/secrets/kubernetes.io/"
#define ACCOUNT_BYTES (1024 * 1024)

static bool check_listeners(const struct proxy_config *config, FILE *errors)
{
    bool is_good = true;
    char error[ERROR_SIZE + 4096];
    for (size_t i = 0; i < config->listeners.count; i++) {
        struct listener_place *place = listener_place_new(config, i, error, sizeof error);
        if (place == NULL)
            fprintf(errors, "%s\n", error);
        else
            listener_place_unref(place);
        is_good &= place != NULL;
    }
    return is_good;
}

static bool check_keys(const struct proxy_config *config, FILE *errors)
{
    struct file_keys keys;
    bool is_random, is_readable_by_others;
    char error[ERROR_SIZE + 4096];
    bool is_good = proxy_config_load_keys(config, &keys, &is_random,
                                          &is_readable_by_others, error, sizeof error);
    if (!is_good)
        fprintf(errors, "affinity_keys: %s\n", error);
    else if (is_readable_by_others)
        fprintf(errors, "warning: affinity_keys: %s can be read by others\n",
                config->affinity_keys);
    return is_good;
}

static bool check_tls(const struct upstream_config *upstream, size_t index, FILE *errors)
{
    char *error;
    struct endpoint_tls *tls = endpoint_tls_read(upstream, &error);
    if (tls == NULL) {
        fprintf(errors, "upstreams[%zu].tls: %s\n", index, error);
        free(error);
        return false;
    }
    endpoint_tls_unref(tls);
    return true;
}

static bool check_endpoint_file(const char *path, size_t index, FILE *errors)
{
    char *text, why[FILE_WHY_SIZE], error[ERROR_SIZE];
    size_t len;
    struct endpoint_file file;
    if (!file_read(path, ENDPOINT_FILE_BYTES_MAX, &text, &len, NULL, why)) {
        fprintf(errors, "upstreams[%zu].discovery.file: %s: %s\n", index, path, why);
        return false;
    }
    bool is_good = endpoint_file_parse(slice_of(text, len), &file, error, sizeof error);
    if (is_good)
        endpoint_file_cleanup(&file);
    else
        fprintf(errors, "upstreams[%zu].discovery.file: %s:%s\n", index, path, error);
    free(text);
    return is_good;
}

static bool check_account_file(const char *path, const char *option, size_t index,
                               FILE *errors)
{
    char *text, why[FILE_WHY_SIZE];
    size_t len;
    if (path[0] == '\0' || strncmp(path, USUAL_FOLDER, strlen(USUAL_FOLDER)) == 0)
        return true;
    bool is_good = file_read(path, ACCOUNT_BYTES, &text, &len, NULL, why);
    if (is_good)
        free(text);
    else
        fprintf(errors, "upstreams[%zu].discovery.kubernetes.%s: %s: %s\n", index, option,
                path, why);
    return is_good;
}

static bool check_upstream(const struct upstream_config *upstream, size_t index,
                           FILE *errors)
{
    bool is_good = true;
    if (upstream->has_tls)
        is_good &= check_tls(upstream, index, errors);
    if (upstream->discovery.kind == DISCOVERY_FILE)
        is_good &= check_endpoint_file(upstream->discovery.file, index, errors);
    if (upstream->discovery.kind == DISCOVERY_KUBERNETES) {
        is_good &= check_account_file(upstream->discovery.kubernetes.token_file,
                                      "token_file", index, errors);
        is_good &= check_account_file(upstream->discovery.kubernetes.ca_file, "ca_file",
                                      index, errors);
    }
    return is_good;
}

bool config_files_check(const struct proxy_config *config, FILE *errors)
{
    bool is_good = check_listeners(config, errors);
    is_good &= check_keys(config, errors);
    for (size_t i = 0; i < config->upstreams.count; i++)
        is_good &= check_upstream(proxy_config_upstream(config, i), i, errors);
    return is_good;
}

size_t config_files_keys(const struct proxy_config *config, const char ***keys)
{
    size_t count = config->upstreams.count, len = 0;
    for (size_t i = 0; i < config->listeners.count; i++)
        count += proxy_config_listener(config, i)->tls.certificates.count;
    *keys = must_calloc(count, sizeof **keys);
    for (size_t i = 0; i < config->listeners.count; i++) {
        const struct listener_config *listener = proxy_config_listener(config, i);
        for (size_t c = 0; c < listener->tls.certificates.count; c++)
            (*keys)[len++] =
                OPTION_ITEM(listener->tls.certificates, certificate_config, c)->key;
    }
    for (size_t i = 0; i < config->upstreams.count; i++)
        if (proxy_config_upstream(config, i)->tls.key[0] != '\0')
            (*keys)[len++] = proxy_config_upstream(config, i)->tls.key;
    return len;
}
