#include "proxy/proxy_config_check.h"

#include "proxy/proxy_config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static struct slice text_of(const void *value)
{
    return slice_from_text(*(char *const *)value);
}

static bool is_letter_or_digit(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9');
}

static bool consists_of(struct slice text, const char *others)
{
    for (size_t i = 0; i < text.len; i++)
        if (!is_letter_or_digit(text.data[i]) &&
            (text.data[i] == '\0' || strchr(others, text.data[i]) == NULL))
            return false;
    return true;
}

/* RFC 9110 5.6.2. */
static bool is_token(struct slice text)
{
    return text.len > 0 && consists_of(text, "!#$%&'*+-.^_`|~");
}

/* ── one value ── */

const char *proxy_check_name(const void *text)
{
    return consists_of(text_of(text), "-_.") ? NULL
                                             : "may have letters, digits, '-', '_', '.'";
}

const char *proxy_check_endpoint(const void *text)
{
    struct slice endpoint = text_of(text);
    if (slice_starts_with(endpoint, SLICE("unix:"))) {
        struct address address;
        const char *why;
        return address_parse(endpoint, &address, &why) ? NULL : why;
    }
    size_t colon = slice_find_last(endpoint, ':');
    struct slice host = slice_to(endpoint, colon);
    uint64_t port;
    if (colon == endpoint.len || host.len == 0)
        return "must be host:port, [v6]:port or unix:/path";
    if (!slice_to_number(slice_from(endpoint, colon + 1), 1, 65535, &port))
        return "must have a port of 1..65535";
    if (host.data[0] == '[') {
        struct address address;
        const char *why;
        return address_parse(endpoint, &address, &why) ? NULL : why;
    }
    if (slice_find(host, ':') < host.len)
        return "must have an IPv6 address in brackets";
    if (!consists_of(host, "-._") || host.len > 253)
        return "does not have a valid host name";
    struct address address;
    struct slice name;
    unsigned number;
    const char *why;
    return address_parse_or_name(endpoint, &address, &name, &number, &why) ? NULL : why;
}

const char *proxy_check_cookie_name(const void *text)
{
    struct slice name = text_of(text);
    return name.len == 0 || is_token(name) ? NULL : "must be a token (RFC 9110 5.6.2)";
}

const char *proxy_check_cookie_path(const void *text)
{
    struct slice path = text_of(text);
    if (path.len == 0 || path.data[0] != '/')
        return "must begin with /";
    return consists_of(path, "!#$%&'()*+,-./:=?@[]_~")
               ? NULL
               : "has a character that cookies forbid";
}

const char *proxy_check_cookie_domain(const void *text)
{
    return consists_of(text_of(text), "-.") ? NULL : "must be a host name";
}

const char *proxy_check_hash_by(const void *text)
{
    struct slice rest = text_of(text), kind, name;
    if (slice_equals(rest, SLICE("auto")) || slice_equals(rest, SLICE("client_ip")))
        return NULL;
    bool is_named = slice_cut(&rest, ':', &kind) && slice_cut(&rest, ':', &name) &&
                    rest.data == NULL && is_token(name);
    if (is_named &&
        (slice_equals(kind, SLICE("header")) || slice_equals(kind, SLICE("query")) ||
         slice_equals(kind, SLICE("cookie"))))
        return NULL;
    return "must be auto, client_ip, header:NAME, query:NAME or cookie:NAME";
}

const char *proxy_check_health_path(const void *text)
{
    struct slice path = text_of(text);
    if (path.data[0] != '/')
        return "must begin with /";
    for (size_t i = 0; i < path.len; i++)
        if (path.data[i] <= ' ' || path.data[i] > '~' || path.data[i] == '#')
            return "has a character that a request target forbids";
    return NULL;
}

const char *proxy_check_dns_name(const void *text)
{
    struct slice name = text_of(text);
    return consists_of(name, "-._") && name.data[0] != '.'
               ? NULL
               : "does not look like a name of DNS";
}

const char *proxy_check_dns_server(const void *text)
{
    struct slice server = text_of(text);
    struct address address;
    const char *why;
    if (server.len == 0 || address_parse(server, &address, &why))
        return slice_starts_with(server, SLICE("unix:")) ? "must be IP or IP:port" : NULL;
    /* the same with a port: an IP alone */
    char *with_port = slice_find(server, ':') < server.len
                          ? must_printf("[%.*s]:53", SLICE_ARGS(server))
                          : must_printf("%.*s:53", SLICE_ARGS(server));
    bool is_ip = address_parse(slice_from_text(with_port), &address, &why);
    free(with_port);
    return is_ip ? NULL : "must be IP or IP:port";
}

const char *proxy_check_label(const void *text)
{
    return consists_of(text_of(text), "-") ? NULL : "may have letters, digits and '-'";
}

const char *proxy_check_api_server(const void *text)
{
    struct slice url = text_of(text);
    struct address address;
    const char *why;
    bool is_tls = slice_starts_with(url, SLICE("https://"));
    if (url.len == 0)
        return NULL;
    if (!is_tls && !slice_starts_with(url, SLICE("http://")))
        return "must begin with https:// or http://";
    struct slice name;
    unsigned port;
    return address_parse_or_name(slice_from(url, is_tls ? 8 : 7), &address, &name, &port,
                                 &why)
               ? NULL
               : why;
}

const char *proxy_check_host(const void *text)
{
    struct slice host = text_of(text);
    if (slice_equals(host, SLICE("*")))
        return NULL;
    if (slice_starts_with(host, SLICE("*.")))
        host = slice_from(host, 2);
    return host.len > 0 && consists_of(host, "-._:[]")
               ? NULL
               : "must be a host name, \"*.example.com\" or \"*\"";
}

static bool has_dot_segment(struct slice path)
{
    while (path.len > 0) {
        struct slice rest = slice_from(path, 1); /* behind the slash */
        size_t len = slice_find(rest, '/');
        struct slice segment = slice_of(rest.data, len);
        if (slice_equals(segment, SLICE(".")) || slice_equals(segment, SLICE("..")))
            return true;
        path = slice_from(rest, len);
    }
    return false;
}

const char *proxy_check_path(const void *text)
{
    struct slice path = text_of(text);
    if (path.len == 0 || path.data[0] != '/')
        return "must begin with /";
    if (slice_find(path, '?') < path.len || slice_find(path, '#') < path.len)
        return "is a path, it has no ? and no #";
    if (slice_find(path, '%') < path.len)
        return "must be percent-decoded, requests are compared decoded";
    return has_dot_segment(path) ? "must not have a segment \".\" or \"..\"" : NULL;
}

const char *proxy_check_engine_path(const void *text)
{
    struct slice path = text_of(text);
    if (path.len < 2 || path.data[0] != '/' || path.data[path.len - 1] != '/')
        return "must begin and end with /";
    if (!consists_of(path, "-._~/"))
        return "may have letters, digits and \"-._~/\"";
    for (size_t i = 1; i < path.len; i++)
        if (path.data[i - 1] == '/' && path.data[i] == '/')
            return "must not have an empty segment";
    return has_dot_segment(path) ? "must not have a segment \".\" or \"..\"" : NULL;
}

const char *proxy_check_origin(const void *text)
{
    struct slice origin = text_of(text);
    for (size_t i = 1; i + 3 < origin.len; i++)
        if (memcmp(origin.data + i, "://", 3) == 0)
            return consists_of(slice_from(origin, i + 3), "-._:[]")
                       ? NULL
                       : "must be scheme://host[:port], without a path";
    return "must be scheme://host[:port]";
}

/* What says where a message ends, or belongs to one connection, is written by the proxy alone. */
static bool is_field_of_framing(struct slice name)
{
    static const struct slice fields[] = {SLICE_INIT("connection"),
                                          SLICE_INIT("content-length"),
                                          SLICE_INIT("transfer-encoding"),
                                          SLICE_INIT("upgrade"),
                                          SLICE_INIT("keep-alive"),
                                          SLICE_INIT("proxy-connection"),
                                          SLICE_INIT("te"),
                                          SLICE_INIT("trailer"),
                                          SLICE_INIT("expect")};
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (slice_equals_nocase(name, fields[i]))
            return true;
    return slice_equals_nocase(slice_to(name, 14), SLICE("sec-websocket-"));
}

const char *proxy_check_field_name(const void *text)
{
    struct slice name = text_of(text);
    if (!is_token(name))
        return "must be the name of a header field";
    return is_field_of_framing(name) ? "is written by the proxy itself" : NULL;
}

const char *proxy_check_socket(const void *text)
{
    struct slice path = text_of(text);
    if (path.len == 0 || path.data[0] == '/' || slice_equals(path, SLICE("auto")))
        return NULL;
    return "must be auto, empty, or an absolute path";
}

/* ── one object ── */

static struct slice identity_of(const struct endpoint_config *endpoint)
{
    return slice_from_text(endpoint->id[0] != '\0' ? endpoint->id : endpoint->address);
}

static void check_same_endpoints(const struct upstream_config *upstream,
                                 const struct option_place *place)
{
    for (size_t i = 1; i < upstream->endpoints.count; i++)
        for (size_t before = 0; before < i; before++) {
            const struct endpoint_config *one =
                OPTION_ITEM(upstream->endpoints, endpoint_config, i);
            const struct endpoint_config *other =
                OPTION_ITEM(upstream->endpoints, endpoint_config, before);
            bool same_address = strcmp(one->address, other->address) == 0;
            if (!same_address && !slice_equals(identity_of(one), identity_of(other)))
                continue;
            char name[64];
            snprintf(name, sizeof(name), "discovery.static[%zu]", i);
            option_error(place, name, "has the %s of discovery.static[%zu]",
                         same_address ? "address" : "id", before);
            break;
        }
}

void proxy_check_upstream(void *object, const struct option_place *place)
{
    const struct upstream_config *upstream = object;
    static const char *const sources[] = {"discovery.static", "discovery.file",
                                          "discovery.dns", "discovery.kubernetes"};
    size_t given = 0;
    for (size_t i = 0; i < ARRAY_LEN(sources); i++)
        given += option_is_given(place, sources[i]);
    if (given != 1)
        option_error(place, "discovery",
                     "needs exactly one source: static, file, dns or kubernetes");
    else if (option_is_given(place, "discovery.file") &&
             upstream->discovery.file[0] == '\0')
        option_error(place, "discovery.file", "must be a path");
    bool is_service =
        upstream->discovery.has_dns && upstream->discovery.dns.name[0] == '_';
    if (upstream->discovery.has_dns && is_service == (upstream->discovery.dns.port != 0))
        option_error(place, "discovery.dns.port",
                     is_service ? "is not for SRV records: they have ports"
                                : "is required: addresses have no port");
    if (upstream->has_tls &&
        (upstream->tls.cert[0] != '\0') != (upstream->tls.key[0] != '\0'))
        option_error(place, "tls", "needs both cert and key, or neither");
    check_same_endpoints(upstream, place);
}

static void check_fields_to_set(const struct text_map *fields, const char *name,
                                const struct option_place *place)
{
    for (size_t i = 0; i < fields->count; i++) {
        const char *why = proxy_check_field_name(&fields->items[i].name);
        char path[300];
        snprintf(path, sizeof(path), "%s.%s", name, fields->items[i].name);
        if (why != NULL)
            option_error(place, path, "%s", why);
        for (const char *byte = fields->items[i].value; *byte != '\0'; byte++)
            if (((unsigned char)*byte < ' ' && *byte != '\t') || *byte == 0x7f) {
                option_error(place, path, "has a control character in its value");
                break;
            }
    }
}

void proxy_check_route(void *object, const struct option_place *place)
{
    const struct route_config *route = object;
    bool has_split = option_is_given(place, "split");
    if (has_split && option_is_given(place, "upstream"))
        option_error(place, "split", "excludes upstream: a route has one or the other");
    else if (!has_split && !option_is_given(place, "upstream"))
        option_error(place, NULL, "needs upstream or split");
    else if (!has_split && route->upstream_name[0] == '\0')
        option_error(place, "upstream", "must name an upstream");
    int64_t weights = 0;
    for (size_t i = 0; i < route->split.count; i++)
        weights += OPTION_ITEM(route->split, split_config, i)->weight;
    if (has_split && route->split.count > 0 && weights == 0)
        option_error(place, "split", "needs a weight above 0");
    for (size_t i = 1; i < route->split.count; i++)
        for (size_t before = 0; before < i; before++)
            if (strcmp(OPTION_ITEM(route->split, split_config, i)->upstream_name,
                       OPTION_ITEM(route->split, split_config, before)->upstream_name) ==
                0)
                option_error(place, "split", "names the upstream \"%s\" twice",
                             OPTION_ITEM(route->split, split_config, i)->upstream_name);
    check_fields_to_set(&route->request_headers.set, "request_headers.set", place);
    check_fields_to_set(&route->response_headers.set, "response_headers.set", place);
}

/* ── the whole ── */

static void check_upstream_names(const struct proxy_config *config,
                                 const struct option_place *place)
{
    for (size_t i = 1; i < config->upstreams.count; i++) {
        struct slice name = slice_from_text(proxy_config_upstream(config, i)->name);
        size_t first = proxy_config_find_upstream(config, name);
        if (first == i || name.len == 0)
            continue;
        char path[64];
        snprintf(path, sizeof(path), "upstreams[%zu].name", i);
        option_error(place, path, "\"%.*s\" is the name of upstreams[%zu] already",
                     SLICE_ARGS(name), first);
    }
}

static void check_upstream_reference(const struct proxy_config *config,
                                     const struct option_place *place, const char *path,
                                     const char *name)
{
    if (name[0] != '\0' && proxy_config_find_upstream(config, slice_from_text(name)) ==
                               config->upstreams.count)
        option_error(place, path, "names no upstream: \"%s\"", name);
}

static void check_routes(const struct proxy_config *config,
                         const struct option_place *place)
{
    char path[96];
    if (!option_is_given(place, "routes") && config->upstreams.count > 1)
        option_error(place, "routes", "is required: there are %zu upstreams",
                     config->upstreams.count);
    for (size_t i = 0; i < config->routes.count; i++) {
        const struct route_config *route = proxy_config_route(config, i);
        snprintf(path, sizeof(path), "routes[%zu].upstream", i);
        check_upstream_reference(config, place, path, route->upstream_name);
        for (size_t j = 0; j < route->split.count; j++) {
            snprintf(path, sizeof(path), "routes[%zu].split[%zu].upstream", i, j);
            check_upstream_reference(
                config, place, path,
                OPTION_ITEM(route->split, split_config, j)->upstream_name);
        }
    }
}

static void check_listeners(const struct proxy_config *config,
                            const struct option_place *place)
{
    char path[64];
    for (size_t i = 0; i < config->listeners.count; i++) {
        const struct listener_config *listener = proxy_config_listener(config, i);
        snprintf(path, sizeof(path), "listeners[%zu].address", i);
        for (size_t before = 0; before < i; before++)
            if (address_port(&listener->address) != 0 &&
                address_equals(&listener->address,
                               &proxy_config_listener(config, before)->address))
                option_error(place, path, "is the address of listeners[%zu] already",
                             before);
        if (config->admin.address.len > 0 && address_port(&listener->address) != 0 &&
            address_equals(&listener->address, &config->admin.address))
            option_error(place, path, "is the address of admin.address");
        snprintf(path, sizeof(path), "listeners[%zu].proxy_protocol", i);
        if (listener->proxy_protocol && config->trusted_proxies.count == 0 &&
            !address_is_unix(&listener->address))
            option_error(place, path, "needs trusted_proxies: who may send the header");
        snprintf(path, sizeof(path), "listeners[%zu].trusted", i);
        if (listener->trusted && !address_is_unix(&listener->address))
            option_error(place, path,
                         "is for unix:/path; name networks in trusted_proxies");
    }
}

static void check_descriptors(const struct proxy_config *config,
                              const struct option_place *place)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max == RLIM_INFINITY)
        return;
    uint64_t needed =
        (uint64_t)config->limits.connections * PROXY_DESCRIPTORS_PER_CONNECTION +
        PROXY_DESCRIPTORS_RESERVED;
    if (needed > limit.rlim_max)
        option_error(place, "limits.connections",
                     "%" PRId64 " needs %" PRIu64
                     " descriptors (%d each and %d), the hard "
                     "limit of this process is %" PRIu64,
                     config->limits.connections, needed, PROXY_DESCRIPTORS_PER_CONNECTION,
                     PROXY_DESCRIPTORS_RESERVED, (uint64_t)limit.rlim_max);
}

void proxy_check_config(void *object, const struct option_place *place)
{
    const struct proxy_config *config = object;
    check_upstream_names(config, place);
    check_routes(config, place);
    check_listeners(config, place);
    check_descriptors(config, place);
    if (config->shutdown.readiness_delay + config->shutdown.window >
        config->shutdown.deadline)
        option_error(place, "shutdown.deadline",
                     "is shorter than readiness_delay and window together");
}
