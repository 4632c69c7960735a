#include "proxy/upstream_set.h"

#include "proxy/discovery_static.h"
#include "proxy/upstream.h"

struct endpoint_set *upstream_set_new(const struct upstream_config *config,
                                      const struct file_keys *keys,
                                      const struct endpoint_spec *specs, size_t len,
                                      const struct endpoint_set *previous, uint64_t now)
{
    struct endpoint_set_options options = {
        .keys = keys,
        .place_after = config->place_after,
        .slow_start = config->slow_start,
        .is_static = config->discovery.kind == DISCOVERY_STATIC &&
                     !discovery_static_has_names(config),
        .learned_maximum = (size_t)config->affinity.learned_sids,
    };
    if (config->affinity.has_ingress_nginx_cookie)
        options.ingress_upstream_name =
            slice_from_text(config->affinity.ingress_nginx_cookie.upstream_name);
    struct upstream *upstream = previous != NULL
                                    ? upstream_ref(previous->upstream)
                                    : upstream_new(slice_from_text(config->name));
    struct endpoint_set *set =
        endpoint_set_new(upstream, &options, specs, len, previous, now);
    upstream_unref(upstream);
    return set;
}
