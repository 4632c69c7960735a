/*
 * Sets of IP addresses: "10.0.0.0/8", "2001:db8::/32", "192.0.2.7" (one address). IPv4 lives inside IPv6 as
 * ::ffff:0:0/96, so that a v4 client of a v6 listener meets the v4 rule.
 */
#pragma once

#include "shared/address.h"

struct cidr {
    uint8_t bytes[16];
    uint8_t bits; /* 0..128, of the v6 form */
};

/* Bits behind the prefix must be zero ("10.0.0.1/8" is a mistake more often than a wish). On false *why says
 * what is wrong, in static text. */
bool cidr_parse(struct slice text, struct cidr *cidr, const char **why) MUST_CHECK;

bool cidr_contains(const struct cidr *cidr, const struct address *address);

struct cidr_list {
    struct cidr *items; /* owned */
    size_t count;
};

/* Is the address in one of them? A unix peer is in none. */
bool cidr_list_contains(const struct cidr_list *list, const struct address *address);
