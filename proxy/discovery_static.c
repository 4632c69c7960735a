#include "proxy/discovery_static.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/dns_channel.h"

#include <event2/event.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIFE_MIN     SECONDS(1)
#define LIFE_MAX     SECONDS(60)
#define BACKOFF_MIN  SECONDS(1)
#define BACKOFF_MAX  SECONDS(30)
#define NAME_MAX_LEN 254

/* One endpoint of the configuration, at its place there. */
struct static_endpoint {
    struct static_source *source;
    char *host; /* NULL: numeric */
    unsigned port;
    struct address address;
    bool has_address;
    uint64_t due;      /* when to ask, timing_now() */
    uint64_t backoff;  /* the next one; 0: the last answer was good */
    const char *fault; /* why there was none; NULL: there was, or none is needed */
};

struct static_source {
    struct event_base *base;
    const struct upstream_config *config; /* borrowed */
    const struct source_callbacks *callbacks;
    void *owner;
    struct static_endpoint *endpoints; /* those of the config */
    size_t len;
    struct dns_channel channel; /* closed between two rounds */
    unsigned outstanding;       /* questions */
    bool has_news;              /* since the last list */
    struct event next;          /* the round begins */
    struct event answered;      /* outside of the library's callbacks */
};

static const struct endpoint_config *config_of(const struct upstream_config *config,
                                               size_t place)
{
    return OPTION_ITEM(config->endpoints, endpoint_config, place);
}

static struct endpoint_spec make_spec(const struct endpoint_config *endpoint,
                                      const struct address *address)
{
    struct slice text = slice_from_text(endpoint->address);
    struct slice identity =
        endpoint->id[0] != '\0' ? slice_from_text(endpoint->id) : text;
    return (struct endpoint_spec){
        .who = {.identity = identity,
                .label = identity,
                .address_text = text,
                .address = *address,
                .port = address_port(address)},
        .state = endpoint->state == ENDPOINT_START_DRAINING ? ENDPOINT_DRAINING
                                                            : ENDPOINT_READY,
        .weight = (unsigned)endpoint->weight,
    };
}

/* ---- what is reported ---- */

static void give_list(struct static_source *source)
{
    struct endpoint_spec *specs = must_calloc(source->len, sizeof *specs);
    size_t len = 0;
    for (size_t i = 0; i < source->len; i++)
        if (source->endpoints[i].has_address)
            specs[len++] =
                make_spec(config_of(source->config, i), &source->endpoints[i].address);
    source->has_news = false;
    if (len > 0)
        source->callbacks->on_list(source->owner, specs, len);
    free(specs);
}

static void tell_trouble(struct static_source *source)
{
    char why[NAME_MAX_LEN + 128];
    for (size_t i = 0; i < source->len; i++) {
        const struct static_endpoint *it = &source->endpoints[i];
        if (it->fault == NULL)
            continue;
        snprintf(why, sizeof why, "endpoint %s: %s",
                 config_of(source->config, i)->address, it->fault);
        source->callbacks->on_trouble(source->owner, why);
        return;
    }
    source->callbacks->on_well(source->owner);
}

/* ---- answers ---- */

static struct address address_of(const struct ares_addrinfo_node *node, unsigned port)
{
    struct address address = address_from_socket(node->ai_addr, node->ai_addrlen);
    address_set_port(&address, port);
    return address;
}

static bool is_usable(const struct ares_addrinfo_node *node)
{
    return node->ai_family == AF_INET || node->ai_family == AF_INET6;
}

/* How long the answer holds. */
static uint64_t life_of(const struct ares_addrinfo *found)
{
    uint64_t life = LIFE_MAX;
    for (const struct ares_addrinfo_node *it = found->nodes; it != NULL;
         it = it->ai_next) {
        uint64_t lives = it->ai_ttl > 0 ? SECONDS((uint64_t)it->ai_ttl) : 0;
        life = lives < life ? lives : life;
    }
    return life > LIFE_MIN ? life : LIFE_MIN;
}

/* The address that it has already, else the first of IPv4, else the first. False: there is none. */
static bool choose(const struct static_endpoint *it, const struct ares_addrinfo *found,
                   struct address *chosen)
{
    const struct ares_addrinfo_node *best = NULL;
    for (const struct ares_addrinfo_node *node = found->nodes; node != NULL;
         node = node->ai_next) {
        if (!is_usable(node))
            continue;
        *chosen = address_of(node, it->port);
        if (it->has_address && address_equals(chosen, &it->address))
            return true;
        if (best == NULL || (best->ai_family != AF_INET && node->ai_family == AF_INET))
            best = node;
    }
    if (best != NULL)
        *chosen = address_of(best, it->port);
    return best != NULL;
}

static void note_fault(struct static_endpoint *it, const char *fault)
{
    it->fault = fault;
    it->backoff = it->backoff == 0 ? BACKOFF_MIN : it->backoff * 2;
    it->backoff = it->backoff < BACKOFF_MAX ? it->backoff : BACKOFF_MAX;
    it->due = timing_now() + it->backoff;
}

static void note_address(struct static_endpoint *it, const struct address *address,
                         uint64_t life)
{
    char text[ADDRESS_TEXT_SIZE];
    it->fault = NULL;
    it->backoff = 0;
    it->due = timing_now() + life;
    if (it->has_address && address_equals(&it->address, address))
        return;
    log_info(LOG_SUBJECT("discovery"),
             it->has_address ? "the name has another address" : "the name has an address",
             LOG_TEXT("upstream", it->source->config->name), LOG_TEXT("name", it->host),
             LOG_TEXT("address", address_text(address, text)));
    it->address = *address;
    it->has_address = true;
    it->source->has_news = true;
}

static void on_addresses(void *argument, int status, int timeouts,
                         struct ares_addrinfo *found)
{
    (void)timeouts;
    static const struct timeval at_once;
    struct static_endpoint *it = argument;
    struct address address;
    it->source->outstanding--;
    if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED)
        it->due = 0; /* the question was taken back */
    else if (status != ARES_SUCCESS)
        note_fault(it, ares_strerror(status));
    else if (!choose(it, found, &address))
        note_fault(it, "the name has no address");
    else
        note_address(it, &address, life_of(found));
    if (found != NULL)
        ares_freeaddrinfo(found);
    event_add(&it->source->answered, &at_once);
}

/* ---- rounds ---- */

static void plan_round(struct static_source *source)
{
    uint64_t due = UINT64_MAX, now = timing_now();
    for (size_t i = 0; i < source->len; i++)
        if (source->endpoints[i].host != NULL && source->endpoints[i].due < due)
            due = source->endpoints[i].due;
    event_del(&source->next);
    if (due == UINT64_MAX)
        return;
    struct timeval wait = timing_to_timeval(due > now ? due - now : 0);
    event_add(&source->next, &wait);
}

/* Some questions are answered, or all of the round. */
static void on_answered(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct static_source *source = argument;
    if (source->has_news)
        give_list(source);
    if (source->outstanding > 0)
        return;
    dns_channel_close(&source->channel);
    tell_trouble(source);
    plan_round(source);
}

static bool is_due(const struct static_endpoint *it, uint64_t now)
{
    return it->host != NULL && it->due <= now;
}

static void on_next(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    static const struct timeval at_once;
    static const struct ares_addrinfo_hints hints = {
        .ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct static_source *source = argument;
    uint64_t now = timing_now();
    int status =
        dns_channel_open(&source->channel, source->config->discovery.name_server, 0);
    for (size_t i = 0; i < source->len; i++) {
        struct static_endpoint *it = &source->endpoints[i];
        if (!is_due(it, now))
            continue;
        if (status != ARES_SUCCESS) {
            note_fault(it, ares_strerror(status));
            continue;
        }
        source->outstanding++;
        ares_getaddrinfo(source->channel.ares, it->host, NULL, &hints, on_addresses, it);
    }
    if (status == ARES_SUCCESS)
        dns_channel_rearm(&source->channel);
    event_add(&source->answered, &at_once);
}

/* ---- life ---- */

/* The address that the name had, if it was there before. */
static void take_over(struct static_endpoint *it, const struct static_endpoint *before,
                      size_t before_len)
{
    for (size_t i = 0; i < before_len; i++) {
        if (before[i].host == NULL || strcmp(before[i].host, it->host) != 0 ||
            !before[i].has_address)
            continue;
        it->address = before[i].address;
        address_set_port(&it->address, it->port);
        it->has_address = true;
        return;
    }
}

static void begin_endpoint(struct static_source *source, size_t place,
                           const struct static_endpoint *before, size_t before_len)
{
    struct static_endpoint *it = &source->endpoints[place];
    struct slice host;
    it->source = source;
    if (!address_parse_or_name(slice_from_text(config_of(source->config, place)->address),
                               &it->address, &host, &it->port, &it->fault))
        return;
    it->fault = NULL;
    it->has_address = host.len == 0;
    if (host.len == 0)
        return;
    it->host = slice_dup(host);
    take_over(it, before, before_len);
}

static void free_endpoints(struct static_endpoint *endpoints, size_t len)
{
    for (size_t i = 0; i < len; i++)
        free(endpoints[i].host);
    free(endpoints);
}

/* Lists what is known at once, and asks for the names. */
static void change(void *argument, const struct upstream_config *config)
{
    struct static_source *source = argument;
    dns_channel_close(&source->channel); /* takes questions back */
    event_del(&source->answered);
    struct static_endpoint *before = source->endpoints;
    size_t before_len = source->len;
    source->config = config;
    source->len = config->endpoints.count;
    source->endpoints = must_calloc(source->len, sizeof *source->endpoints);
    for (size_t i = 0; i < source->len; i++)
        begin_endpoint(source, i, before, before_len);
    free_endpoints(before, before_len);
    give_list(source);
    plan_round(source);
}

static void *start(struct event_base *base, const struct upstream_config *config,
                   const struct source_callbacks *callbacks, void *owner)
{
    struct static_source *source = must_calloc(1, sizeof *source);
    source->base = base;
    source->callbacks = callbacks;
    source->owner = owner;
    dns_channel_init(&source->channel, base);
    event_assign(&source->next, base, -1, 0, on_next, source);
    event_assign(&source->answered, base, -1, 0, on_answered, source);
    change(source, config);
    return source;
}

static void stop(void *argument)
{
    struct static_source *source = argument;
    dns_channel_close(&source->channel);
    event_del(&source->next);
    event_del(&source->answered);
    free_endpoints(source->endpoints, source->len);
    free(source);
}

const struct source_kind discovery_static = {
    .word = "static", .start = start, .stop = stop, .change = change};

bool discovery_static_has_names(const struct upstream_config *config)
{
    for (size_t i = 0; i < config->endpoints.count; i++) {
        struct address address;
        struct slice host;
        unsigned port;
        const char *why;
        if (address_parse_or_name(slice_from_text(config_of(config, i)->address),
                                  &address, &host, &port, &why) &&
            host.len > 0)
            return true;
    }
    return false;
}

bool discovery_static_list(const struct upstream_config *config,
                           struct endpoint_spec *specs, char *error, size_t error_size)
{
    for (size_t i = 0; i < config->endpoints.count; i++) {
        const char *why;
        struct address address;
        const char *text = config_of(config, i)->address;
        if (!address_parse(slice_from_text(text), &address, &why)) {
            snprintf(error, error_size, "upstream %s: endpoint %s: %s", config->name,
                     text, why);
            return false;
        }
        specs[i] = make_spec(config_of(config, i), &address);
    }
    return true;
}
