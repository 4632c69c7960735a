#include "proxy/listener_place.h"

#include "shared/net.h"

#include <stdio.h>
#include <stdlib.h>

static struct tls_context *load_tls(const struct listener_config *listener, char **error)
{
    size_t count = listener->tls.certificates.count;
    struct tls_certificate *certificates = must_calloc(count, sizeof *certificates);
    for (size_t i = 0; i < count; i++) {
        const struct certificate_config *it =
            OPTION_ITEM(listener->tls.certificates, certificate_config, i);
        certificates[i] = (struct tls_certificate){.cert = it->cert, .key = it->key};
    }
    struct tls_server_options options = {
        .certificates = certificates,
        .certificate_count = count,
        .min_version = listener->tls.min_version == TLS_VERSION_1_3 ? "1.3" : "1.2",
        .client_ca = listener->tls.client_ca,
        .ticket_keys = listener->tls.ticket_keys,
        .alpn = "http/1.1",
    };
    struct tls_context *tls = tls_server_new(&options, error);
    free(certificates);
    return tls;
}

struct listener_place *listener_place_new(const struct proxy_config *config, size_t index,
                                          char *error, size_t error_size)
{
    const struct listener_config *listener = proxy_config_listener(config, index);
    struct tls_context *tls = NULL;
    char *why = NULL;
    if (listener->has_tls && (tls = load_tls(listener, &why)) == NULL) {
        snprintf(error, error_size, "listeners[%zu].tls: %s", index, why);
        free(why);
        return NULL;
    }
    struct listener_place *place = must_calloc(1, sizeof *place);
    char text[ADDRESS_TEXT_SIZE];
    atomic_init(&place->holders, 1);
    place->name = must_strdup(address_text(&listener->address, text));
    place->is_unix = address_is_unix(&listener->address);
    place->is_tls = listener->has_tls;
    place->trusts_unix_peers = listener->trusted;
    place->has_proxy_protocol = listener->proxy_protocol;
    place->redirects_https = listener->redirect_https;
    place->keep_alive = config->tcp.keep_alive;
    place->user_timeout = proxy_config_user_timeout(config);
    place->tls = tls;
    return place;
}

struct listener_place *listener_place_ref(struct listener_place *place)
{
    atomic_fetch_add_explicit(&place->holders, 1, memory_order_relaxed);
    return place;
}

void listener_place_unref(struct listener_place *place)
{
    if (atomic_fetch_sub_explicit(&place->holders, 1, memory_order_acq_rel) != 1)
        return;
    tls_unref(place->tls);
    free(place->name);
    free(place);
}

void listener_place_tune(const struct listener_place *place, int fd)
{
    if (place->is_unix)
        return;
    net_set_no_delay(fd);
    net_set_keep_alive(fd, place->keep_alive);
    net_set_user_timeout(fd, place->user_timeout);
}
