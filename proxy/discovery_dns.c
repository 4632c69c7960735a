#include "proxy/discovery_dns.h"

#include "shared/timing.h"

#include "proxy/dns_channel.h"

#include <arpa/nameser.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHORTEST_WAIT MILLISECONDS(500)

/* A name whose addresses are asked for. */
struct dns_target {
    struct dns_source *source;
    char *name;
    unsigned port;
    struct address *addresses;
    size_t len;
};

struct dns_source {
    struct event_base *base;
    const struct upstream_config *config; /* borrowed */
    const struct source_callbacks *callbacks;
    void *owner;
    struct dns_channel channel; /* closed between two rounds */
    struct event next;          /* the round begins */
    struct event finish;  /* the round has ended: outside of the library's callbacks */
    unsigned outstanding; /* questions */
    struct dns_target **targets;
    size_t len;
    unsigned time_to_live; /* seconds, the shortest of this round */
    char trouble[256];     /* of this round; "" none */
};

/* ---- answers ---- */

static void note_trouble(struct dns_source *source, const char *name, const char *what,
                         int status)
{
    if (source->trouble[0] == '\0')
        snprintf(source->trouble, sizeof source->trouble, "%.180s: %s: %s", name, what,
                 ares_strerror(status));
}

static void note_time_to_live(struct dns_source *source, int seconds)
{
    if (seconds >= 0 && (unsigned)seconds < source->time_to_live)
        source->time_to_live = (unsigned)seconds;
}

static void answered(struct dns_source *source)
{
    static const struct timeval at_once;
    if (--source->outstanding == 0)
        event_add(&source->finish, &at_once);
}

static bool is_nothing(int status)
{
    return status == ARES_ENOTFOUND || status == ARES_ENODATA;
}

static struct address *next_address(struct dns_target *target)
{
    target->addresses =
        must_realloc(target->addresses, (target->len + 1) * sizeof *target->addresses);
    struct address *address = &target->addresses[target->len++];
    memset(address, 0, sizeof *address);
    return address;
}

static void on_v6(void *argument, int status, int timeouts, unsigned char *answer,
                  int len)
{
    (void)timeouts;
    struct dns_target *target = argument;
    struct ares_addr6ttl found[DISCOVERY_DNS_MAX];
    int count = ARRAY_LEN(found);
    if (status == ARES_SUCCESS)
        status = ares_parse_aaaa_reply(answer, len, NULL, found, &count);
    for (int i = 0; status == ARES_SUCCESS && i < count; i++) {
        struct address *address = next_address(target);
        address->len = sizeof address->socket.v6;
        address->socket.v6.sin6_family = AF_INET6;
        address->socket.v6.sin6_port = htons((uint16_t)target->port);
        memcpy(&address->socket.v6.sin6_addr, &found[i].ip6addr, 16);
        note_time_to_live(target->source, found[i].ttl);
    }
    if (status != ARES_SUCCESS && !is_nothing(status))
        note_trouble(target->source, target->name, "AAAA", status);
    answered(target->source);
}

static void on_v4(void *argument, int status, int timeouts, unsigned char *answer,
                  int len)
{
    (void)timeouts;
    struct dns_target *target = argument;
    struct ares_addrttl found[DISCOVERY_DNS_MAX];
    int count = ARRAY_LEN(found);
    if (status == ARES_SUCCESS)
        status = ares_parse_a_reply(answer, len, NULL, found, &count);
    for (int i = 0; status == ARES_SUCCESS && i < count; i++) {
        struct address *address = next_address(target);
        address->len = sizeof address->socket.v4;
        address->socket.v4.sin_family = AF_INET;
        address->socket.v4.sin_port = htons((uint16_t)target->port);
        address->socket.v4.sin_addr = found[i].ipaddr;
        note_time_to_live(target->source, found[i].ttl);
    }
    if (status == ARES_ENODATA) { /* the name is there, without an IPv4 address */
        ares_query(target->source->channel.ares, target->name, ns_c_in, ns_t_aaaa, on_v6,
                   target);
        return;
    }
    if (status != ARES_SUCCESS && !is_nothing(status))
        note_trouble(target->source, target->name, "A", status);
    answered(target->source);
}

static void ask_addresses(struct dns_source *source, const char *name, unsigned port)
{
    struct dns_target *target = must_calloc(1, sizeof *target);
    target->source = source;
    target->name = must_strdup(name);
    target->port = port;
    source->targets =
        must_realloc(source->targets, (source->len + 1) * sizeof *source->targets);
    source->targets[source->len++] = target;
    source->outstanding++;
    ares_query(source->channel.ares, name, ns_c_in, ns_t_a, on_v4, target);
}

static void on_services(void *argument, int status, int timeouts, unsigned char *answer,
                        int len)
{
    (void)timeouts;
    struct dns_source *source = argument;
    struct ares_srv_reply *found = NULL;
    const char *name = source->config->discovery.dns.name;
    if (status == ARES_SUCCESS)
        status = ares_parse_srv_reply(answer, len, &found);
    if (status != ARES_SUCCESS && !is_nothing(status))
        note_trouble(source, name, "SRV", status);
    for (struct ares_srv_reply *it = found; it != NULL; it = it->next)
        /* a target "." says that there is no such service (RFC 2782) */
        if (it->port != 0 && it->host[0] != '\0' && strcmp(it->host, ".") != 0 &&
            source->len < DISCOVERY_DNS_MAX)
            ask_addresses(source, it->host, it->port);
    if (found != NULL)
        ares_free_data(found);
    answered(source);
}

/* ---- a round ---- */

static void begin_round(struct dns_source *source)
{
    const char *name = source->config->discovery.dns.name;
    const char *server = source->config->discovery.dns.server;
    source->trouble[0] = '\0';
    source->time_to_live = UINT32_MAX;
    source->outstanding = 1; /* this function */
    int status = dns_channel_open(&source->channel, server, ARES_FLAG_NOSEARCH);
    if (status != ARES_SUCCESS) {
        note_trouble(source, name, "the name servers", status);
    } else if (name[0] == '_') {
        source->outstanding++;
        ares_query(source->channel.ares, name, ns_c_in, ns_t_srv, on_services, source);
    } else {
        ask_addresses(source, name, (unsigned)source->config->discovery.dns.port);
    }
    answered(source);
    if (source->channel.ares != NULL)
        dns_channel_rearm(&source->channel);
}

static void end_round(struct dns_source *source)
{
    dns_channel_close(&source->channel);
    for (size_t i = 0; i < source->len; i++) {
        free(source->targets[i]->name);
        free(source->targets[i]->addresses);
        free(source->targets[i]);
    }
    free(source->targets);
    source->targets = NULL;
    source->len = 0;
}

static void give_list(struct dns_source *source)
{
    size_t count = 0, len = 0;
    for (size_t i = 0; i < source->len; i++)
        count += source->targets[i]->len;
    count = min_size(count, DISCOVERY_DNS_MAX);
    struct endpoint_spec *specs = must_calloc(count, sizeof *specs);
    char(*texts)[ADDRESS_TEXT_SIZE] = must_calloc(count, ADDRESS_TEXT_SIZE);
    bool is_service = source->config->discovery.dns.name[0] == '_';
    for (size_t i = 0; i < source->len; i++) {
        const struct dns_target *target = source->targets[i];
        for (size_t j = 0; j < target->len && len < count; j++, len++) {
            struct slice text =
                slice_from_text(address_text(&target->addresses[j], texts[len]));
            specs[len] = (struct endpoint_spec){
                .who = {.identity = text,
                        .label = is_service && target->len == 1
                                     ? slice_from_text(target->name)
                                     : text,
                        .address_text = text,
                        .address = target->addresses[j],
                        .port = target->port},
                .state = ENDPOINT_READY,
                .weight = 1,
            };
        }
    }
    source->callbacks->on_list(source->owner, specs, len);
    free(specs);
    free(texts);
}

static void on_finish(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct dns_source *source = argument;
    uint64_t interval = source->config->discovery.dns.interval;
    if (source->trouble[0] != '\0') {
        source->callbacks->on_trouble(source->owner, source->trouble);
    } else {
        give_list(source);
        uint64_t life = SECONDS(source->time_to_live);
        if (life < interval)
            interval = life > SHORTEST_WAIT       ? life
                       : interval < SHORTEST_WAIT ? interval
                                                  : SHORTEST_WAIT;
    }
    end_round(source);
    struct timeval wait = timing_to_timeval(interval);
    event_add(&source->next, &wait);
}

static void on_next(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    begin_round(argument);
}

static void *start(struct event_base *base, const struct upstream_config *config,
                   const struct source_callbacks *callbacks, void *owner)
{
    static const struct timeval at_once;
    struct dns_source *source = must_calloc(1, sizeof *source);
    source->base = base;
    source->config = config;
    source->callbacks = callbacks;
    source->owner = owner;
    dns_channel_init(&source->channel, base);
    event_assign(&source->next, base, -1, 0, on_next, source);
    event_assign(&source->finish, base, -1, 0, on_finish, source);
    event_add(&source->next, &at_once);
    return source;
}

static void stop(void *argument)
{
    struct dns_source *source = argument;
    end_round(source); /* answers what is outstanding, with an error */
    event_del(&source->next);
    event_del(&source->finish);
    free(source);
}

const struct source_kind discovery_dns = {.word = "dns", .start = start, .stop = stop};
