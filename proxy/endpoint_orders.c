#include "proxy/endpoint_orders.h"

#include <stdlib.h>

void endpoint_orders_cleanup(struct endpoint_orders *orders)
{
    for (size_t i = 0; i < orders->len; i++)
        free(orders->items[i].identity);
    free(orders->items);
    *orders = (struct endpoint_orders){0};
}

static struct endpoint_order *find(const struct endpoint_orders *orders,
                                   struct slice identity, unsigned port)
{
    for (size_t i = 0; i < orders->len; i++)
        if (orders->items[i].port == port &&
            slice_equals(slice_from_text(orders->items[i].identity), identity))
            return &orders->items[i];
    return NULL;
}

static struct endpoint_order *find_or_add(struct endpoint_orders *orders,
                                          struct slice identity, unsigned port)
{
    struct endpoint_order *order = find(orders, identity, port);
    if (order != NULL)
        return order;
    orders->items =
        must_realloc(orders->items, (orders->len + 1) * sizeof *orders->items);
    order = &orders->items[orders->len++];
    *order = (struct endpoint_order){
        .identity = slice_dup(identity), .port = port, .weight = -1};
    return order;
}

/* Orders that say nothing any more are forgotten. */
static void drop_empty(struct endpoint_orders *orders)
{
    size_t kept = 0;
    for (size_t i = 0; i < orders->len; i++) {
        struct endpoint_order *order = &orders->items[i];
        if (order->drains || order->weight >= 0)
            orders->items[kept++] = *order;
        else
            free(order->identity);
    }
    orders->len = kept;
}

void endpoint_orders_drain(struct endpoint_orders *orders, struct slice identity,
                           unsigned port)
{
    find_or_add(orders, identity, port)->drains = true;
}

size_t endpoint_orders_undrain(struct endpoint_orders *orders, struct slice identity)
{
    size_t count = 0;
    for (size_t i = 0; i < orders->len; i++) {
        struct endpoint_order *order = &orders->items[i];
        if (!order->drains || !slice_equals(slice_from_text(order->identity), identity))
            continue;
        order->drains = false;
        count++;
    }
    drop_empty(orders);
    return count;
}

void endpoint_orders_weigh(struct endpoint_orders *orders, struct slice identity,
                           unsigned port, int64_t weight)
{
    find_or_add(orders, identity, port)->weight = weight;
    drop_empty(orders);
}

void endpoint_orders_drain_all(struct endpoint_orders *orders, bool drains)
{
    orders->drains_all = drains;
    for (size_t i = 0; !drains && i < orders->len; i++)
        orders->items[i].drains = false;
    drop_empty(orders);
}

struct endpoint_order endpoint_orders_of(const struct endpoint_orders *orders,
                                         struct slice identity, unsigned port)
{
    const struct endpoint_order *order = find(orders, identity, port);
    return (struct endpoint_order){
        .port = port,
        .drains = orders->drains_all || (order != NULL && order->drains),
        .weight = order != NULL ? order->weight : -1,
    };
}
