/*
 * The PROXY protocol header, versions 1 and 2 (HAProxy's proxy-protocol.txt): what a balancer in front says
 * about the client, before any byte of the client.
 *
 *     "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"                       at most 107 bytes
 *     "PROXY UNKNOWN …\r\n"                                                  no address
 *     \r\n\r\n\0\r\nQUIT\n  2|command  family|protocol  length (2)  addresses  TLVs
 *       └ 12 bytes          └ LOCAL, PROXY                                  └ skipped, up to 65,535 bytes
 *
 * Nothing is kept of what comes behind the addresses: the parser is done once they are there, and tells how
 * many bytes the header has in all.
 */
#pragma once

#include "shared/address.h"
#include "shared/parse.h"
#include "shared/slice.h"

#include <stdbool.h>

enum {
    PROXY_V1_MAX = 107,         /* with its CRLF */
    PROXY_NEEDED_MAX = 16 + 36, /* of version 2: what is looked at */
};

struct proxy_header {
    bool has_client; /* false: LOCAL, UNKNOWN or UNSPEC, the socket's own address holds */
    struct address client; /* IPv4 or IPv6 with its port */
    size_t header_len;     /* of the whole header; may be more than the bytes that came */
};

/* Parses the header at the beginning of `data`, all that came so far. PARSE_MORE only while every byte of `data`
 * belongs to the header. PARSE_BAD for everything that is no header, a family that carries no IP address for
 * a stream (datagrams, unknown ones), and a length too short for its addresses. */
enum parse_result proxy_protocol_parse(struct slice data,
                                       struct proxy_header *header) MUST_CHECK;
