/*
 * discovery.dns: the addresses of a name, asked for again and again.
 *
 *      _http._tcp.chat.prod.svc.cluster.local. ─▶ SRV ─▶ target, port ─▶ A, else AAAA ─┐
 *      chat.prod.svc.cluster.local. ───────────▶ A, else AAAA (port: discovery.dns.port) ┴─▶ list
 *
 *      list     every answer was good, or said that there is nothing (NXDOMAIN, no data)
 *      trouble  any other: SERVFAIL, refused, timeout: the last list stays
 *
 * An endpoint's identity is its address, its label the SRV target's name if that has one address (a StatefulSet
 * pod keeps it when its address changes). DNS tells of ready endpoints only: one that is not in an answer any
 * more drains while it accepts (endpoint_list), since its sessions may still live.
 * The next question comes after `interval`, or after the answer's time to live when that is shorter. Answers
 * that are too long for UDP are asked for by TCP. Priority and weight of SRV records are not looked at.
 */
#pragma once

#include "proxy/discovery_source.h"

#define DISCOVERY_DNS_MAX 4096 /* endpoints of one name */

extern const struct source_kind discovery_dns;
