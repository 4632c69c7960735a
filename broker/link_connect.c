/*
 * From a shard's URL to a connection on which the start can be said: the addresses of its name, each in turn, and TLS.
 *
 *     link_connect ─▶ RESOLVING ─▶ an address ─▶ CONNECTING ─┬─ plain ───────────┬─▶ link_begin_checking
 *          ▲                                                  └─ TLS: handshake ─┘
 *          └──────────── another address of the answer ◀── refused, or too slow (link.c)
 */
#include "broker/link_parts.h"

#include "broker/broker_config.h"
#include "broker/broker_tls.h"
#include "shared/net.h"

#include <errno.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>

bool link_has_other_address(const struct link *link)
{
    return link->address_next < link->address_count;
}

/* ── TLS ── */

static void refuse_peer(struct link *link, const char *why)
{
    char text[REASON_TEXT_SIZE];
    bool is_certificate = stream_distrusts_peer(&link->stream);
    snprintf(text, sizeof(text), is_certificate ? "certificate of %s: %s" : "%s%s",
             is_certificate ? broker_tls_name(link->config.shard) : "", why);
    link_close_with_text(link, CLOSE_LINK_TLS, slice_from_text(text));
}

static void secure(struct link *link)
{
    const char *why = "";
    switch (stream_handshake(&link->stream, &why)) {
    case STREAM_READY:
        event_del(&link->writable);
        link_begin_checking(link);
        return;
    case STREAM_WANTS_READ:
        event_del(&link->writable);
        check(event_add(&link->readable, NULL) == 0);
        return;
    case STREAM_WANTS_WRITE:
        event_del(&link->readable);
        check(event_add(&link->writable, NULL) == 0);
        return;
    case STREAM_REFUSED:
        refuse_peer(link, why);
        return;
    }
    unreachable();
}

/* Connected. The context is that of now: a later one is for later connections. */
static void begin_securing(struct link *link)
{
    const struct broker_shard_config *shard = link->config.shard;
    if (shard->tls_context != NULL)
        tls_connect(shard->tls_context, &link->stream, broker_tls_name(shard));
    secure(link);
}

/* ── addresses ── */

static void connect_to(struct link *link, const struct address *address)
{
    link_change(link, LINK_CONNECTING);
    bool in_progress = false;
    int fd = net_connect(address, &in_progress);
    if (fd < 0) {
        link_close_with_text(link, CLOSE_LINK_REFUSED, slice_from_text(strerror(errno)));
        return;
    }
    link_open(link, fd);
    if (in_progress)
        check(event_add(&link->writable, NULL) == 0);
    else
        begin_securing(link);
}

static void on_resolved(int result, struct evutil_addrinfo *found, void *argument)
{
    struct link *link = argument;
    if (result == EVUTIL_EAI_CANCEL)
        return; /* by let_go(); the link may be freed already */
    link->request = NULL;
    if (result != 0 || found == NULL) {
        link_close_with_text(link, CLOSE_LINK_UNRESOLVED,
                             slice_from_text(evutil_gai_strerror(result)));
    } else {
        link->address_count = link->address_next = 0;
        for (const struct evutil_addrinfo *it = found;
             it != NULL && link->address_count < ADDRESSES_MAX; it = it->ai_next)
            link->addresses[link->address_count++] =
                address_from_socket(it->ai_addr, it->ai_addrlen);
        connect_to(link, &link->addresses[link->address_next++]);
    }
    if (found != NULL)
        evutil_freeaddrinfo(found);
}

void link_connect(struct link *link)
{
    const struct broker_shard_config *shard = link->config.shard;
    link_change(link, LINK_RESOLVING);
    if (link_has_other_address(link)) {
        connect_to(link, &link->addresses[link->address_next++]);
        return;
    }
    struct address address;
    const char *why;
    char *text = shard->unix_path != NULL ? must_strdup(shard->unix_path)
                 : strchr(shard->host, ':') != NULL
                     ? must_printf("[%s]:%s", shard->host, shard->port)
                     : must_printf("%s:%s", shard->host, shard->port);
    bool is_numeric = address_parse(slice_from_text(text), &address, &why);
    free(text);
    if (is_numeric) {
        connect_to(link, &address);
        return;
    }
    if (link->dns == NULL) {
        link_close_with_text(link, CLOSE_LINK_UNRESOLVED, slice_from_text(why));
        return;
    }
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    /* May call back at once, from a hosts file. */
    struct evdns_getaddrinfo_request *request =
        evdns_getaddrinfo(link->dns, shard->host, shard->port, &hints, on_resolved, link);
    if (link->state == LINK_RESOLVING)
        link->request = request;
}

void link_go_on_connecting(struct link *link)
{
    if (link->stream.ssl != NULL) {
        secure(link);
        return;
    }
    event_del(&link->writable);
    int error = net_connect_result(link->stream.fd);
    if (error == 0)
        begin_securing(link);
    else
        link_close_with_text(link, CLOSE_LINK_REFUSED, slice_from_text(strerror(error)));
}
