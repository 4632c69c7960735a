/*
 * An operator's word on the endpoints of one upstream: to drain, and another weight.
 *
 *      drain, undrain, weight ─▶ endpoint_orders ─▶ endpoint_list merges: it beats what discovery lists
 *
 * Kept by identity and port, so that an endpoint that went and came back is still under orders; until it is taken
 * back or the process ends. Pure, no clock.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct endpoint_order {
    char *identity; /* owned */
    unsigned port;
    bool drains;
    int64_t weight; /* -1: as listed */
};

struct endpoint_orders {
    bool drains_all; /* the whole upstream, endpoints to come included */
    size_t len;
    struct endpoint_order *items;
};

void endpoint_orders_cleanup(struct endpoint_orders *orders);

/* Drain this endpoint. */
void endpoint_orders_drain(struct endpoint_orders *orders, struct slice identity,
                           unsigned port);

/* Drain the endpoints of this identity no more, listed or not: how many were ordered to. */
size_t endpoint_orders_undrain(struct endpoint_orders *orders, struct slice identity);

/* This weight from now on; -1: as listed. */
void endpoint_orders_weigh(struct endpoint_orders *orders, struct slice identity,
                           unsigned port, int64_t weight);

/* Drain the upstream, or no more: then none of its endpoints is under orders to drain either. */
void endpoint_orders_drain_all(struct endpoint_orders *orders, bool drains);

/* What is ordered of this endpoint, the upstream's order included; weight -1: nothing. `identity` of the result
 * is NULL. */
struct endpoint_order endpoint_orders_of(const struct endpoint_orders *orders,
                                         struct slice identity, unsigned port);
