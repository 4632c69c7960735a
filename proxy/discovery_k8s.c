#include "proxy/discovery_k8s.h"

#include "shared/log.h"
#include "shared/timing.h"
#include "shared/tls.h"

#include "proxy/dns_channel.h"
#include "proxy/endpoint_slice.h"
#include "proxy/http_get.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TOKEN_MAX       16384
#define PATIENCE        SECONDS(30)
#define PAGE_TIME       SECONDS(60)  /* of one page; servers themselves take no longer */
#define LIST_TIME       SECONDS(300) /* of all pages: so old a token is expired */
#define UPDATE_WAIT     MILLISECONDS(20) /* events of one change come together */
#define BACKOFF_MIN     MILLISECONDS(800)
#define BACKOFF_MAX     SECONDS(30)
#define RETRY_AFTER_MAX 120
#define NAME_LIFE       SECONDS(30) /* an address of the API's name is used for so long */
#define LIST_FAILURES   3 /* failed watches in a row until slices are listed again */

#define HOST_NAME_SIZE 300 /* with a port */

/* Where the API is. */
struct api_place {
    struct address address;    /* when it is known */
    char name[HOST_NAME_SIZE]; /* verified */
    char host[HOST_NAME_SIZE]; /* with the port */
    unsigned port;
    bool is_name; /* `name` has to be looked up */
    bool is_tls;
};

enum k8s_state { K8S_WAITING, K8S_LISTING, K8S_WATCHING };

struct k8s_source {
    struct event_base *base;
    const struct upstream_config *config; /* borrowed */
    const struct source_callbacks *callbacks;
    void *owner;
    enum k8s_state state;
    struct http_get *get; /* the request under way, NULL: none */
    struct slice_store *store;
    struct slice_store *listed; /* being listed */
    char version[RESOURCE_VERSION_SIZE], list_version[RESOURCE_VERSION_SIZE];
    char continuation[CONTINUE_SIZE];
    char *bytes; /* a page, or the beginning of an event */
    size_t len, room;
    unsigned status; /* of the answer */
    unsigned retry_after;
    bool must_list;
    unsigned failures;
    uint64_t listed_at, expired_at, relist_at;
    uint64_t list_until; /* when the pages being listed must all have come */
    struct backoff backoff;
    struct event next, update;
    struct api_place place;
    uint64_t looked_up_at; /* when place.address was; 0: it is to be */
    unsigned turn;         /* which of its addresses is tried */
    struct dns_channel names;
    int names_status;
    struct event names_end; /* outside of the library's callbacks */
    char why[WATCH_WHY_SIZE];
};

static void begin(struct k8s_source *source);

/* ---- where the API is, and who we are ---- */

/* Text of a small file without the white space at its end; NULL with errno. */
static char *read_small_file(const char *path)
{
    char text[TOKEN_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t len = fd >= 0 ? read(fd, text, sizeof text) : -1;
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    if (len < 0)
        return NULL;
    while (len > 0 && (unsigned char)text[len - 1] <= ' ')
        len--;
    for (ssize_t i = 0; i < len; i++) /* goes into a field of a head */
        if ((unsigned char)text[i] < ' ' || (unsigned char)text[i] > '~') {
            errno = EILSEQ;
            return NULL;
        }
    return must_memdup(text, (size_t)len);
}

/* Writes the cluster's API as the pod's environment has it: an IP, bare or in brackets, or a name. False: there is
 * none. */
static bool find_cluster(char *url, size_t size)
{
    const char *host = getenv("KUBERNETES_SERVICE_HOST");
    const char *port = getenv("KUBERNETES_SERVICE_PORT");
    if (host == NULL || port == NULL)
        return false;
    bool is_bare_v6 = strchr(host, ':') != NULL && host[0] != '[';
    snprintf(url, size, "https://%s%s%s:%s", is_bare_v6 ? "[" : "", host,
             is_bare_v6 ? "]" : "", port);
    return true;
}

static bool find_api(const struct upstream_config *config, struct api_place *place,
                     char why[WATCH_WHY_SIZE])
{
    const char *url = config->discovery.kubernetes.api_server;
    char found[2 * HOST_NAME_SIZE];
    if (url[0] == '\0') {
        if (!find_cluster(found, sizeof found)) {
            snprintf(why, WATCH_WHY_SIZE,
                     "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: "
                     "not in a cluster? (api_server names another API)");
            return false;
        }
        url = found;
    }
    const char *wrong;
    struct slice name;
    place->is_tls = slice_starts_with(slice_from_text(url), SLICE("https://"));
    struct slice authority = slice_from(slice_from_text(url), place->is_tls ? 8 : 7);
    if (!address_parse_or_name(authority, &place->address, &name, &place->port, &wrong)) {
        snprintf(why, WATCH_WHY_SIZE, "%.100s: %s", url, wrong);
        return false;
    }
    place->is_name = name.len > 0;
    snprintf(place->host, sizeof place->host, "%.*s", SLICE_ARGS(authority));
    if (place->is_name)
        snprintf(place->name, sizeof place->name, "%.*s", SLICE_ARGS(name));
    else
        address_ip_text(&place->address, place->name);
    return true;
}

/* ---- ends ---- */

static void clear_bytes(struct k8s_source *source)
{
    free(source->bytes);
    source->bytes = NULL;
    source->len = source->room = 0;
}

static void stop_request(struct k8s_source *source)
{
    if (source->get != NULL)
        http_get_stop(source->get);
    source->get = NULL;
    if (source->listed != NULL)
        slice_store_free(source->listed);
    source->listed = NULL;
    dns_channel_close(&source->names);
    event_del(&source->names_end);
    clear_bytes(source);
}

static void go_on_in(struct k8s_source *source, uint64_t wait)
{
    struct timeval time = timing_to_timeval(wait);
    source->state = K8S_WAITING;
    event_add(&source->next, &time);
}

/* The one end of a request that went wrong; `why` without the name of what was done. */
static void fail(struct k8s_source *source, const char *why)
{
    char text[2 * WATCH_WHY_SIZE];
    snprintf(text, sizeof text, "%s the EndpointSlices of %s: %s",
             source->state == K8S_WATCHING ? "watching" : "listing",
             source->config->discovery.kubernetes.service, why);
    bool was_listing = source->state != K8S_WATCHING;
    uint64_t asked = SECONDS(source->retry_after);
    source->looked_up_at = 0; /* its next address, or another one by now */
    source->turn++;
    stop_request(source);
    source->must_list =
        source->must_list || was_listing || ++source->failures >= LIST_FAILURES;
    source->callbacks->on_trouble(source->owner, text);
    uint64_t wait = backoff_next(&source->backoff);
    go_on_in(source, asked > wait ? asked : wait);
}

/* The version is too old: lists again, at once when that has not just happened. A server
 * may also answer each list so; then none ends, and only expired_at shows it. */
static void expire(struct k8s_source *source)
{
    uint64_t now = timing_now();
    bool is_fresh = (source->listed_at != 0 && now < source->listed_at + SECONDS(5)) ||
                    (source->expired_at != 0 && now < source->expired_at + SECONDS(5));
    source->expired_at = now;
    log_info(LOG_SUBJECT("discovery"), "the version is too old, listing again",
             LOG_TEXT("upstream", source->config->name));
    stop_request(source);
    source->must_list = true;
    go_on_in(source, is_fresh ? backoff_next(&source->backoff) : 0);
}

static void describe_status(const struct k8s_source *source, char why[WATCH_WHY_SIZE])
{
    const char *namespace_name = source->config->discovery.kubernetes.namespace_name;
    if (source->status == 403)
        snprintf(why, WATCH_WHY_SIZE,
                 "403: the service account lacks the rule apiGroups [discovery.k8s.io], "
                 "resources [endpointslices], verbs [list, watch] in namespace %.63s",
                 namespace_name[0] != '\0' ? namespace_name : "(its own)");
    else if (source->status == 401)
        snprintf(why, WATCH_WHY_SIZE, "401: the token is not accepted");
    else
        snprintf(why, WATCH_WHY_SIZE, "status %u", source->status);
}

/* ---- lists ---- */

static void give_list(struct k8s_source *source)
{
    const char *own = getenv("POD_IP");
    int family = source->config->discovery.kubernetes.ip_family;
    struct slice_wants wants = {
        .ports = &source->config->discovery.kubernetes.ports,
        .only_v4 = family == IP_FAMILY_V4,
        .only_v6 = family == IP_FAMILY_V6,
        .prefers_v6 = own != NULL && strchr(own, ':') != NULL,
    };
    struct endpoint_spec *specs;
    size_t len;
    slice_store_list(source->store, &wants, &specs, &len);
    source->callbacks->on_list(source->owner, specs, len);
    free(specs);
}

static void on_update(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    give_list(argument);
}

static void end_list(struct k8s_source *source)
{
    uint64_t relist = source->config->discovery.kubernetes.relist;
    slice_store_free(source->store);
    source->store = source->listed;
    source->listed = NULL;
    memcpy(source->version, source->list_version, sizeof source->version);
    source->must_list = false;
    source->failures = 0;
    source->listed_at = timing_now();
    source->relist_at = source->listed_at + relist + timing_random() % (relist / 2 + 1);
    event_del(&source->update);
    log_debug(LOG_SUBJECT("discovery"), "slices listed",
              LOG_TEXT("upstream", source->config->name),
              LOG_UNSIGNED("slices", slice_store_count(source->store)),
              LOG_TEXT("version", source->version));
    give_list(source);
}

static void take_page(struct k8s_source *source)
{
    struct slice body = slice_of(source->bytes, source->len);
    if (!slice_list_apply(source->listed, body, source->list_version,
                          source->continuation, source->why)) {
        fail(source, source->why);
        return;
    }
    clear_bytes(source);
    if (source->continuation[0] == '\0')
        end_list(source);
    begin(source);
}

/* ---- watches ---- */

/* False: the watch is over. */
static bool take_line(struct k8s_source *source, struct slice line)
{
    struct timeval wait = timing_to_timeval(UPDATE_WAIT);
    if (slice_trim(line).len == 0)
        return true;
    switch (watch_event_apply(source->store, line, source->version, source->why)) {
    case WATCH_CHANGED:
        if (!event_pending(&source->update, EV_TIMEOUT, NULL))
            event_add(&source->update, &wait);
        backoff_reset(&source->backoff);
        source->failures = 0;
        return true;
    case WATCH_BOOKMARK:
        backoff_reset(&source->backoff);
        source->failures = 0;
        return true;
    case WATCH_EXPIRED:
        expire(source);
        return false;
    case WATCH_BAD:
        source->must_list = true;
        fail(source, source->why);
        return false;
    case WATCH_ERROR:
        fail(source, source->why);
        return false;
    }
    unreachable();
}

/* False: there would be more than `maximum`. */
static bool keep_bytes(struct k8s_source *source, struct slice bytes, size_t maximum)
{
    if (bytes.len > maximum - source->len)
        return false;
    if (source->len + bytes.len > source->room) {
        source->room = max_size(2 * source->room, source->len + bytes.len);
        source->bytes = must_realloc(source->bytes, source->room);
    }
    memcpy(source->bytes + source->len, bytes.data, bytes.len);
    source->len += bytes.len;
    return true;
}

static void take_watch_bytes(struct k8s_source *source, struct slice bytes)
{
    size_t end;
    while ((end = slice_find(bytes, '\n')) < bytes.len) {
        struct slice line = slice_to(bytes, end);
        if (source->len > 0) {
            if (!keep_bytes(source, line, WATCH_LINE_MAX))
                break;
            line = slice_of(source->bytes, source->len);
        }
        if (!take_line(source, line))
            return;
        clear_bytes(source);
        bytes = slice_from(bytes, end + 1);
    }
    if (bytes.len == 0 || (end == bytes.len && keep_bytes(source, bytes, WATCH_LINE_MAX)))
        return;
    source->must_list = true;
    fail(source, "an event is longer than 8 MiB");
}

/* ---- answers ---- */

static void on_head(void *argument, const struct http_response *response)
{
    struct k8s_source *source = argument;
    uint64_t seconds;
    source->status = response->status;
    source->retry_after = 0;
    const struct http_field *after =
        http_field_find_name(&response->fields, SLICE("retry-after"));
    if (after != NULL && slice_to_number(after->value, 0, RETRY_AFTER_MAX, &seconds))
        source->retry_after = (unsigned)seconds;
    if (source->status == 200) {
        if (source->state == K8S_WATCHING)
            source->callbacks->on_well(source->owner);
        return;
    }
    if (source->status == 410) {
        expire(source);
        return;
    }
    describe_status(source, source->why);
    fail(source, source->why);
}

static void on_body(void *argument, struct slice bytes)
{
    struct k8s_source *source = argument;
    if (source->state == K8S_WATCHING)
        take_watch_bytes(source, bytes);
    else if (!keep_bytes(source, bytes, LIST_PAGE_MAX))
        fail(source, "a page is longer than 64 MiB");
}

static void on_end(void *argument, enum http_get_end end, const char *why)
{
    struct k8s_source *source = argument;
    source->get = NULL; /* frees itself */
    if (end == HTTP_GET_BROKEN) {
        fail(source, why);
    } else if (source->state == K8S_LISTING) {
        take_page(source);
    } else if (source->len > 0) {
        source->must_list = true;
        fail(source, "the last event is cut off");
    } else {
        clear_bytes(source);
        go_on_in(source, MILLISECONDS(100)); /* the end of the watch's time */
    }
}

static const struct http_get_callbacks get_callbacks = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

/* ---- requests ---- */

/* %XX for all but unreserved bytes (RFC 3986 2.3); the caller frees it. */
static char *escape(const char *text)
{
    char *escaped = must_calloc(3 * strlen(text) + 1, 1);
    size_t len = 0;
    for (; *text != '\0'; text++) {
        bool is_plain = (*text >= 'a' && *text <= 'z') ||
                        (*text >= 'A' && *text <= 'Z') ||
                        (*text >= '0' && *text <= '9') || strchr("-._~", *text) != NULL;
        if (is_plain)
            escaped[len++] = *text;
        else
            len += (size_t)snprintf(escaped + len, 4, "%%%02X", (unsigned char)*text);
    }
    escaped[len] = '\0';
    return escaped;
}

static char *make_target(const struct k8s_source *source, const char *namespace_name,
                         unsigned seconds)
{
    bool is_list = source->state == K8S_LISTING;
    char *service = escape(source->config->discovery.kubernetes.service);
    char *place = escape(namespace_name);
    char *word = escape(is_list ? source->continuation : source->version);
    char *base = must_printf("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices"
                             "?labelSelector=kubernetes.io%%2Fservice-name%%3D%s",
                             place, service);
    char *target = is_list ? must_printf("%s&limit=%d%s%s", base, LIST_PAGE,
                                         word[0] != '\0' ? "&continue=" : "", word)
                           : must_printf("%s&watch=1&allowWatchBookmarks=true"
                                         "&resourceVersion=%s&timeoutSeconds=%u",
                                         base, word, seconds);
    free(base);
    free(word);
    free(place);
    free(service);
    return target;
}

/* How long the request may take in all: `time` is that of a watch. At least 1. */
static uint64_t longest(const struct k8s_source *source, uint64_t time)
{
    if (source->state == K8S_WATCHING)
        return time + PATIENCE;
    uint64_t now = timing_now();
    uint64_t left = source->list_until > now ? source->list_until - now : 1;
    return left < PAGE_TIME ? left : PAGE_TIME;
}

/* Sends it; false with `why`: a file is missing. */
static bool send_request(struct k8s_source *source, const char *namespace_name,
                         const char *token)
{
    const struct api_place *place = &source->place;
    struct tls_context *tls = NULL;
    if (place->is_tls) {
        char *error = NULL;
        struct tls_client_options options = {
            .ca = source->config->discovery.kubernetes.ca_file,
            .alpn = "http/1.1",
            .verify = true,
        };
        tls = tls_client_new(&options, &error);
        if (tls == NULL) {
            snprintf(source->why, sizeof source->why, "%.190s", error);
            free(error);
            return false;
        }
    }
    uint64_t shortest = source->config->discovery.kubernetes.watch_time;
    uint64_t time = shortest + timing_random() % (shortest + 1);
    char *target = make_target(source, namespace_name, (unsigned)(time / SECONDS(1)));
    struct http_get_request request = {
        .address = place->address,
        .tls = tls,
        .server_name = place->name,
        .host = slice_from_text(place->host),
        .target = slice_from_text(target),
        .bearer = slice_from_text(token),
        /* a watch may be silent until its time is over */
        .patience = source->state == K8S_WATCHING ? time + PATIENCE : PATIENCE,
        .whole = longest(source, time),
    };
    source->get = http_get_new(source->base, &request, &get_callbacks, source);
    free(target);
    tls_unref(tls);
    return true;
}

/* Asks the API, whose address is known. */
static void ask(struct k8s_source *source)
{
    const char *token_file = source->config->discovery.kubernetes.token_file;
    const char *own_file = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    const char *given = source->config->discovery.kubernetes.namespace_name;
    char *namespace_name =
        given[0] != '\0' ? must_strdup(given) : read_small_file(own_file);
    char *token = token_file[0] != '\0' ? read_small_file(token_file) : must_strdup("");
    bool is_sent = false;
    if (namespace_name == NULL)
        snprintf(source->why, sizeof source->why, "%s: %s", own_file, strerror(errno));
    else if (token == NULL)
        snprintf(source->why, sizeof source->why, "%.120s: %s", token_file,
                 strerror(errno));
    else
        is_sent = send_request(source, namespace_name, token);
    free(namespace_name);
    free(token);
    if (!is_sent)
        fail(source, source->why);
}

/* ---- an API that has a name ---- */

/* Node number `turn` of the addresses, IPv4 before IPv6. NULL: there is none. */
static const struct ares_addrinfo_node *choose(const struct ares_addrinfo *found,
                                               unsigned turn)
{
    static const int families[] = {AF_INET, AF_INET6};
    const struct ares_addrinfo_node *it;
    unsigned count = 0, place = 0;
    for (it = found->nodes; it != NULL; it = it->ai_next)
        count += it->ai_family == AF_INET || it->ai_family == AF_INET6;
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        for (it = found->nodes; it != NULL; it = it->ai_next)
            if (it->ai_family == families[i] && place++ == turn % count)
                return it;
    return NULL;
}

static void on_addresses(void *argument, int status, int timeouts,
                         struct ares_addrinfo *found)
{
    (void)timeouts;
    static const struct timeval at_once;
    struct k8s_source *source = argument;
    const struct ares_addrinfo_node *node =
        status == ARES_SUCCESS ? choose(found, source->turn) : NULL;
    source->names_status = status == ARES_SUCCESS && node == NULL ? ARES_ENODATA : status;
    if (node != NULL) {
        source->place.address = address_from_socket(node->ai_addr, node->ai_addrlen);
        address_set_port(&source->place.address, source->place.port);
        source->looked_up_at = timing_now();
    }
    if (found != NULL)
        ares_freeaddrinfo(found);
    event_add(&source->names_end, &at_once);
}

static void on_names_end(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct k8s_source *source = argument;
    dns_channel_close(&source->names);
    if (source->names_status == ARES_SUCCESS) {
        ask(source);
        return;
    }
    snprintf(source->why, sizeof source->why, "%.120s: %s", source->place.name,
             ares_strerror(source->names_status));
    fail(source, source->why);
}

static void look_up(struct k8s_source *source)
{
    static const struct ares_addrinfo_hints hints = {
        .ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int status = dns_channel_open(&source->names, "", 0);
    if (status != ARES_SUCCESS) {
        on_addresses(source, status, 0, NULL);
        return;
    }
    ares_getaddrinfo(source->names.ares, source->place.name, NULL, &hints, on_addresses,
                     source);
    dns_channel_rearm(&source->names);
}

/* The next page, list or watch. */
static void begin(struct k8s_source *source)
{
    struct api_place place = {0};
    bool is_first_page = source->must_list && source->listed == NULL;
    if (timing_now() >= source->relist_at && source->listed == NULL)
        is_first_page = true;
    if (is_first_page) {
        source->listed = slice_store_new();
        source->list_until = timing_now() + LIST_TIME;
        source->continuation[0] = source->list_version[0] = '\0';
    }
    source->state = source->listed != NULL ? K8S_LISTING : K8S_WATCHING;
    if (!find_api(source->config, &place, source->why)) {
        fail(source, source->why);
        return;
    }
    bool is_known = !place.is_name || (source->looked_up_at != 0 &&
                                       timing_now() < source->looked_up_at + NAME_LIFE);
    if (place.is_name && is_known)
        place.address = source->place.address;
    source->place = place;
    if (is_known)
        ask(source);
    else
        look_up(source);
}

static void on_next(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    begin(argument);
}

static void *start(struct event_base *base, const struct upstream_config *config,
                   const struct source_callbacks *callbacks, void *owner)
{
    static const struct timeval at_once;
    struct k8s_source *source = must_calloc(1, sizeof *source);
    source->base = base;
    source->config = config;
    source->callbacks = callbacks;
    source->owner = owner;
    source->store = slice_store_new();
    source->must_list = true;
    backoff_init(&source->backoff, BACKOFF_MIN, BACKOFF_MAX);
    event_assign(&source->next, base, -1, 0, on_next, source);
    event_assign(&source->update, base, -1, 0, on_update, source);
    event_assign(&source->names_end, base, -1, 0, on_names_end, source);
    dns_channel_init(&source->names, base);
    event_add(&source->next, &at_once);
    return source;
}

static void stop(void *argument)
{
    struct k8s_source *source = argument;
    stop_request(source);
    event_del(&source->next);
    event_del(&source->update);
    slice_store_free(source->store);
    free(source);
}

const struct source_kind discovery_k8s = {
    .word = "kubernetes", .start = start, .stop = stop};
