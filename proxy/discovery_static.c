#include "proxy/discovery_static.h"

#include <stdio.h>

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
