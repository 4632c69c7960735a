#include "proxy/proxy_orders.h"

#include "shared/ctl.h"
#include "shared/json_write.h"
#include "shared/timing.h"

#include "proxy/discovery.h"
#include "proxy/endpoint_set.h"
#include "proxy/proxy_admin.h"
#include "proxy/proxy_run.h"
#include "proxy/upstream.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

/* Whom an order is for; one of both is empty. */
struct subject {
    struct slice upstream;
    struct slice endpoint;
};

static bool is_meant(const struct subject *subject, const struct endpoint_set *set,
                     const struct endpoint *endpoint)
{
    if (subject->upstream.len > 0)
        return slice_equals(subject->upstream, slice_from_text(set->upstream->name));
    return slice_equals(subject->endpoint, slice_from_text(endpoint->address_text)) ||
           slice_equals(subject->endpoint, slice_from_text(endpoint->identity));
}

static void show(struct evbuffer *out, struct json_writer *json,
                 const struct endpoint_set *set, const struct endpoint_entry *entry,
                 uint64_t now)
{
    if (json != NULL)
        proxy_admin_write_endpoint(json, set, entry, now);
    else
        evbuffer_add_printf(out, "%s %s is %s, weight %u, %u tunnels\n",
                            set->upstream->name, entry->endpoint->address_text,
                            endpoint_state_word(endpoint_entry_state(set, entry, now)),
                            entry->weight, atomic_load(&entry->endpoint->tunnels));
}

/* Tells what the endpoints are now. */
static void finish(const struct proxy *proxy, struct ctl_call *call,
                   const struct subject *subject)
{
    struct evbuffer *out = ctl_call_out(call);
    struct json_writer writer, *json = ctl_call_wants_json(call) ? &writer : NULL;
    uint64_t now = timing_now();
    if (json != NULL) {
        json_init(json, out);
        json_array_begin(json, NULL);
    }
    for (size_t i = 0; i < proxy->snapshot->sets_len; i++) {
        const struct endpoint_set *set = proxy->snapshot->sets[i];
        for (size_t e = 0; e < set->len; e++)
            if (is_meant(subject, set, set->entries[e].endpoint))
                show(out, json, set, &set->entries[e], now);
    }
    if (json != NULL) {
        json_array_end(json);
        evbuffer_add(out, "\n", 1);
    }
    ctl_finish(call, true);
}

static void order_drain(struct proxy *proxy, struct ctl_call *call, int count,
                        char **arguments, bool drains)
{
    struct subject subject = {0};
    bool is_upstream = strcmp(arguments[0], "--upstream") == 0;
    if (is_upstream != (count == 2)) {
        ctl_refuse(call, "takes an endpoint, by address or id, or --upstream NAME");
        return;
    }
    if (is_upstream) {
        subject.upstream = slice_from_text(arguments[1]);
        if (!discovery_drain_upstream(proxy->discovery, subject.upstream, drains)) {
            ctl_refuse(call, "there is no upstream %s", arguments[1]);
            return;
        }
    } else {
        subject.endpoint = slice_from_text(arguments[0]);
        if (discovery_drain(proxy->discovery, subject.endpoint, drains) == 0) {
            ctl_refuse(call, "there is no endpoint %s", arguments[0]);
            return;
        }
    }
    finish(proxy, call, &subject);
}

void proxy_orders_drain(void *argument, struct ctl_call *call, int count,
                        char **arguments)
{
    order_drain(argument, call, count, arguments, true);
}

void proxy_orders_undrain(void *argument, struct ctl_call *call, int count,
                          char **arguments)
{
    order_drain(argument, call, count, arguments, false);
}

/* Decimal digits up to ENDPOINT_WEIGHT_MAX, or auto: -1. */
static bool weight_parse(const char *text, int64_t *weight)
{
    *weight = -1;
    if (strcmp(text, "auto") == 0)
        return true;
    size_t len = strlen(text);
    if (len == 0 || len > 9 || strspn(text, "0123456789") != len)
        return false;
    *weight = strtol(text, NULL, 10);
    return *weight <= ENDPOINT_WEIGHT_MAX;
}

void proxy_orders_weigh(void *argument, struct ctl_call *call, int count,
                        char **arguments)
{
    (void)count;
    struct proxy *proxy = argument;
    struct subject subject = {.endpoint = slice_from_text(arguments[0])};
    int64_t weight;
    if (!weight_parse(arguments[1], &weight)) {
        ctl_refuse(call, "a weight is a number from 0 to %d, or auto",
                   (int)ENDPOINT_WEIGHT_MAX);
        return;
    }
    if (discovery_weigh(proxy->discovery, subject.endpoint, weight) == 0) {
        ctl_refuse(call, "there is no endpoint %s", arguments[0]);
        return;
    }
    finish(proxy, call, &subject);
}
