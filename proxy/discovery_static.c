#include "proxy/discovery_static.h"

#include <stdio.h>
#include <stdlib.h>

struct static_lists {
    const struct proxy_config *config; /* borrowed */
    struct endpoint_spec **specs;      /* of each upstream */
};

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

bool discovery_static_list(const struct upstream_config *config,
                           struct endpoint_spec *specs, char *error, size_t error_size)
{
    for (size_t i = 0; i < config->endpoints.count; i++) {
        const struct endpoint_config *endpoint =
            OPTION_ITEM(config->endpoints, endpoint_config, i);
        const char *why;
        if (fill_spec(endpoint, &specs[i], &why))
            continue;
        snprintf(error, error_size, "upstream %s: endpoint %s: %s", config->name,
                 endpoint->address, why);
        return false;
    }
    return true;
}

struct static_lists *static_lists_new(const struct proxy_config *config, char *error,
                                      size_t error_size)
{
    struct static_lists *lists = must_calloc(1, sizeof *lists);
    lists->config = config;
    lists->specs = must_calloc(config->upstreams.count, sizeof(struct endpoint_spec *));
    for (size_t i = 0; i < config->upstreams.count; i++) {
        const struct upstream_config *upstream = proxy_config_upstream(config, i);
        lists->specs[i] = must_calloc(upstream->endpoints.count, sizeof *lists->specs[i]);
        if (discovery_static_list(upstream, lists->specs[i], error, error_size))
            continue;
        static_lists_free(lists);
        return NULL;
    }
    return lists;
}

void static_lists_free(struct static_lists *lists)
{
    for (size_t i = 0; i < lists->config->upstreams.count; i++)
        free(lists->specs[i]);
    free(lists->specs);
    free(lists);
}

const struct endpoint_spec *static_lists_get(const struct static_lists *lists,
                                             size_t place, size_t *len)
{
    *len = proxy_config_upstream(lists->config, place)->endpoints.count;
    return lists->specs[place];
}
