/*
 * How many connections an address has, what they hold in buffers, and how many handshakes a second brings: counted
 * over all workers.
 *
 *      worker ─ enter(ip) ─▶ stripe[hash of the ip] ── connections of the address ─ full? ─▶ refused
 *             ─ leave(ip) ─▶ its mutex, 64 of them  ── bytes held for it
 *             ─ hold(ip) ──▶                           └ the entry goes with the last of both
 *
 *      worker ─ take_handshake ─▶ one atomic: the moment at which the next handshake is due. Each one moves
 *                                 it by 1/rate; more than a second ahead of now is too fast.
 *
 * An IPv6 address counts as its /64: that is what one customer has.
 */
#pragma once

#include "shared/base.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct admission;

struct admission *admission_new(void);
void admission_free(struct admission *admission);

/* One connection more from `ip` (v4-mapped for IPv4) unless it has `maximum` already; then false. Any
 * thread, as all below. */
bool admission_enter(struct admission *admission, const struct in6_addr *ip,
                     uint64_t maximum) MUST_CHECK;

/* The end of a connection that was let in. */
void admission_leave(struct admission *admission, const struct in6_addr *ip);

/* A client of `ip` holds `to` bytes in place of `from`: what all clients of the address hold now. Equal ones only ask. */
uint64_t admission_hold(struct admission *admission, const struct in6_addr *ip,
                        uint64_t from, uint64_t to);

/* Addresses that are counted now. */
size_t admission_count(struct admission *admission);

/* One handshake more; false when there have been more than `per_second` (positive): as many at once, then
 * one every 1/per_second. `now`: timing_now(). */
bool admission_take_handshake(struct admission *admission, uint64_t per_second,
                              uint64_t now) MUST_CHECK;
