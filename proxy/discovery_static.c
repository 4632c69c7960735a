#include "proxy/discovery_static.h"

#include "proxy/endpoint_set.h"
#include "proxy/upstream.h"

#include <stdio.h>
#include <stdlib.h>

static bool fill_spec(const struct endpoint_config *endpoint, struct endpoint_spec *spec,
                      const char **why)
{
    struct slice address = slice_from_text(endpoint->address);
    struct slice identity =
        endpoint->id[0] != '\0' ? slice_from_text(endpoint->id) : address;
    spec->who = (struct endpoint_identity){
        .identity = identity, .label = identity, .address_text = address};
    spec->state =
        endpoint->state == ENDPOINT_START_DRAINING ? ENDPOINT_DRAINING : ENDPOINT_READY;
    spec->weight = (unsigned)endpoint->weight;
    if (!address_resolve(address, &spec->who.address, why))
        return false;
    spec->who.port = address_port(&spec->who.address);
    return true;
}

static const struct endpoint_set *find_previous(const struct snapshot *previous,
                                                const char *name)
{
    if (previous == NULL)
        return NULL;
    size_t place = proxy_config_find_upstream(previous->config, slice_from_text(name));
    return place < previous->sets_len ? previous->sets[place] : NULL;
}

static struct endpoint_set *make_set(const struct upstream_config *config,
                                     const struct route_keys *keys,
                                     const struct snapshot *previous, uint64_t now,
                                     char *error, size_t error_size)
{
    struct endpoint_spec *specs = must_calloc(config->endpoints.count, sizeof(*specs));
    struct endpoint_set *set = NULL;
    for (size_t i = 0; i < config->endpoints.count; i++) {
        const struct endpoint_config *endpoint =
            OPTION_ITEM(config->endpoints, endpoint_config, i);
        const char *why;
        if (!fill_spec(endpoint, &specs[i], &why)) {
            snprintf(error, error_size, "upstream %s: endpoint %s: %s", config->name,
                     endpoint->address, why);
            goto out;
        }
    }
    struct endpoint_set_options options = {
        .keys = keys,
        .place_after = config->place_after,
        .slow_start = config->slow_start,
        .is_static = true,
        .learned_maximum = (size_t)config->affinity.learned_sids,
    };
    if (config->affinity.has_ingress_nginx_cookie)
        options.ingress_upstream_name =
            slice_from_text(config->affinity.ingress_nginx_cookie.upstream_name);
    const struct endpoint_set *before = find_previous(previous, config->name);
    struct upstream *upstream = before != NULL
                                    ? upstream_ref(before->upstream)
                                    : upstream_new(slice_from_text(config->name));
    set =
        endpoint_set_new(upstream, &options, specs, config->endpoints.count, before, now);
    upstream_unref(upstream);
out:
    free(specs);
    return set;
}

struct snapshot *discovery_static_snapshot(struct proxy_config *config,
                                           const struct route_keys *keys,
                                           const struct snapshot *previous, uint64_t now,
                                           char *error, size_t error_size)
{
    size_t len = config->upstreams.count, made = 0;
    struct endpoint_set **sets = must_calloc(len, sizeof(struct endpoint_set *));
    struct snapshot *snapshot = NULL;
    for (; made < len; made++) {
        sets[made] = make_set(proxy_config_upstream(config, made), keys, previous, now,
                              error, error_size);
        if (sets[made] == NULL)
            break;
    }
    if (made == len) {
        snapshot = snapshot_new(previous != NULL ? previous->generation + 1 : 1, config,
                                keys, sets);
    } else {
        while (made > 0)
            endpoint_set_unref(sets[--made]);
        proxy_config_unref(config);
    }
    free(sets);
    return snapshot;
}
