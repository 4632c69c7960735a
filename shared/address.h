/*
 * Where a socket listens or connects: IPv4, IPv6, or a unix path. A plain value, compared and copied freely.
 *
 *     127.0.0.1:5000     [::1]:5000     unix:/run/sidrail/web.sock     chat.example:5000 (address_resolve only)
 */
#pragma once

#include "shared/slice.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

struct address {
    socklen_t len;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } socket;
};

/* Enough for every text form with its NUL. */
#define ADDRESS_TEXT_SIZE (sizeof("unix:") + sizeof(((struct sockaddr_un *)0)->sun_path))

/* Text with numeric addresses only; never asks a name server. The port is 0..65535 (0: the kernel chooses
 * when listening). On false *why says what is wrong, in static text. */
bool address_parse(struct slice text, struct address *address,
                   const char **why) MUST_CHECK;

/* As address_parse; a host name is not looked up, but given back in *host with its *port (host->len is 0 for all
 * else). */
bool address_parse_or_name(struct slice text, struct address *address, struct slice *host,
                           unsigned *port, const char **why) MUST_CHECK;

/* Nothing for unix. */
void address_set_port(struct address *address, unsigned port);

/* As address_parse, and a host name is looked up once with getaddrinfo (blocks: for commands only). IPv4 is
 * preferred when the name has both. */
bool address_resolve(struct slice text, struct address *address,
                     const char **why) MUST_CHECK;

/* From accept4, getpeername. An unnamed unix peer is an address with an empty path. */
struct address address_from_socket(const struct sockaddr *any, socklen_t len);

/* "1.2.3.4:80", "[::1]:80", "unix:/path", "unix:" (unnamed); returns text. */
const char *address_text(const struct address *address, char text[ADDRESS_TEXT_SIZE]);

/* The IP alone, "1.2.3.4" or "::1" (v4-mapped v6 as v4); "" for unix. */
const char *address_ip_text(const struct address *address, char text[ADDRESS_TEXT_SIZE]);

/* 0 for unix. */
unsigned address_port(const struct address *address);

bool address_equals(const struct address *a, const struct address *b);
static inline bool address_is_unix(const struct address *address)
{
    return address->socket.any.sa_family == AF_UNIX;
}
