#include "broker/broker_tls.h"

#include "broker/broker_config.h"

#include <stdlib.h>

struct tls_context *broker_tls_of_shard(const struct broker_shard_config *shard,
                                        char **error)
{
    const struct tls_client_options options = {
        .ca = shard->tls.ca,
        .cert = shard->tls.cert,
        .key = shard->tls.key,
        .verify = true,
    };
    return tls_client_new(&options, error);
}

struct tls_context *broker_tls_of_listener(const struct broker_listener_config *listener,
                                           char **error)
{
    const struct tls_certificate certificate = {listener->tls.cert, listener->tls.key};
    const struct tls_server_options options = {
        .certificates = &certificate,
        .certificate_count = 1,
        .min_version = "1.2",
        .client_ca = listener->tls.client_ca,
    };
    return tls_server_new(&options, error);
}

static size_t list_keys(const struct broker_config *config, const char ***keys)
{
    size_t len = 0;
    *keys = must_calloc(config->listeners.count + config->shards.count, sizeof **keys);
    for (size_t i = 0; i < config->listeners.count; i++)
        if (broker_config_listener(config, i)->has_tls)
            (*keys)[len++] = broker_config_listener(config, i)->tls.key;
    for (size_t i = 0; i < config->shards.count; i++)
        if (broker_config_shard(config, i)->tls.key[0] != '\0')
            (*keys)[len++] = broker_config_shard(config, i)->tls.key;
    return len;
}

void broker_tls_warn_of_keys(const struct broker_config *config,
                             const struct broker_config *before)
{
    const char **keys, **known = NULL;
    size_t count = list_keys(config, &keys);
    size_t known_count = before != NULL ? list_keys(before, &known) : 0;
    tls_warn_of_keys(keys, count, known, known_count);
    free(known);
    free(keys);
}

const char *broker_tls_name(const struct broker_shard_config *shard)
{
    const char *name = shard->tls.server_name;
    return name != NULL && name[0] != '\0' ? name : shard->host;
}

static void walk(const char *const *paths, size_t count,
                 void (*on_file)(void *context, const char *path), void *context)
{
    for (size_t i = 0; i < count; i++)
        if (paths[i] != NULL && paths[i][0] != '\0')
            on_file(context, paths[i]);
}

void broker_tls_walk_files(const struct broker_config *config,
                           void (*on_file)(void *context, const char *path),
                           void *context)
{
    for (size_t i = 0; i < config->listeners.count; i++) {
        const struct broker_listener_config *listener = broker_config_listener(config, i);
        const char *const paths[] = {listener->tls.cert, listener->tls.key,
                                     listener->tls.client_ca};
        walk(paths, ARRAY_LEN(paths), on_file, context);
    }
    for (size_t i = 0; i < broker_config_shard_count(config); i++) {
        const struct broker_shard_config *shard = broker_config_shard(config, i);
        const char *const paths[] = {shard->tls.ca, shard->tls.cert, shard->tls.key};
        walk(paths, ARRAY_LEN(paths), on_file, context);
    }
}
