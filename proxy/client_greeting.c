/*
 * The first bytes of a connection, before any request:
 *
 *      accept ─▶ PROXY header due? ─▶ from a trusted peer? ─▶ header ─▶ its address is the client's
 *                      │ no                                                   │
 *                      └───────────────────▶ too many of this address? ◀──────┘
 *                                                     │ no
 *                                                     ▼
 *                                           TLS ─▶ handshake ─▶ WAITING
 */
#include "proxy/client_parts.h"

#include "shared/cidr.h"

#include "proxy/admission.h"
#include "proxy/proxy_header_read.h"

#include <arpa/inet.h>
#include <event2/event.h>

#define INTRODUCTION_MS 3000u /* for a PROXY header */
#define RESERVE_PART    10u   /* of limits.connections, for addresses that have few */

void client_ip_of(const struct address *address, struct in6_addr *ip)
{
    memset(ip, 0, sizeof *ip);
    if (address->socket.any.sa_family == AF_INET) {
        ip->s6_addr[10] = ip->s6_addr[11] = 0xff;
        memcpy(&ip->s6_addr[12], &address->socket.v4.sin_addr, 4);
    } else if (address->socket.any.sa_family == AF_INET6) {
        *ip = address->socket.v6.sin6_addr;
    }
}

void client_remember_peer(struct client *client, const struct address *peer)
{
    client->has_ip = !address_is_unix(peer);
    client_ip_of(peer, &client->ip);
    if (peer->socket.any.sa_family == AF_INET)
        client->port = ntohs(peer->socket.v4.sin_port);
    else if (peer->socket.any.sa_family == AF_INET6)
        client->port = ntohs(peer->socket.v6.sin6_port);
}

static bool is_trusted_proxy(const struct client *client)
{
    struct sockaddr_in6 ip = {.sin6_family = AF_INET6, .sin6_addr = client->ip};
    struct address address = address_from_socket((const struct sockaddr *)&ip, sizeof ip);
    return cidr_list_contains(&client_config(client)->trusted_proxies, &address);
}

/* 127.0.0.1 or ::1: a proxy or sidecar on this machine, which has the connections of many. */
static bool is_this_host(const struct in6_addr *ip)
{
    static const struct in6_addr v4 = {
        {{[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}}};
    return IN6_ARE_ADDR_EQUAL(ip, &v4) || IN6_IS_ADDR_LOOPBACK(ip);
}

/* Connections that one address may have. What hides behind one is often a whole network, so by itself it is
 * bounded only where the last tenth would go to an address that has half of all. */
static uint64_t connections_maximum(const struct client *client)
{
    const struct proxy_config *config = client_config(client);
    uint64_t all = (uint64_t)config->limits.connections;
    if (config->limits.connections_per_ip != OPTION_AUTO_INTEGER)
        return (uint64_t)config->limits.connections_per_ip;
    uint64_t open =
        atomic_load_explicit(&client->worker->process->clients, memory_order_relaxed);
    return open > all - all / RESERVE_PART && !is_this_host(&client->ip) ? all / 2
                                                                         : UINT64_MAX;
}

/* The address is known: it may connect, or has too many connections. A trusted proxy has those of many clients, so that
 * its requests say whose the buffers are. */
static bool is_let_in(struct client *client)
{
    if (!client->has_ip || is_trusted_proxy(client))
        return true;
    client_set_holder(client, &client->ip);
    uint64_t maximum = connections_maximum(client);
    if (maximum == 0)
        return true;
    client->is_admitted =
        admission_enter(client->worker->process->admission, &client->ip, maximum);
    return client->is_admitted;
}

void client_begin_greeting(struct client *client)
{
    if (!is_let_in(client)) {
        metrics_add_by(M_CLIENTS_REFUSED, CLOSE_IP_CONNECTIONS_FULL, 1);
        client_close(client, CLOSE_IP_CONNECTIONS_FULL);
        return;
    }
    if (!client->place->is_tls) {
        client_begin_waiting(client);
        return;
    }
    tls_accept(client->place->tls, &client->stream);
    client->state = CLIENT_GREETING;
    client_set_deadline(client,
                        deadline_limit(client_config(client)->timeouts.request_head));
    client_watch(client, EV_READ);
}

/* Anybody who may open the file of a unix socket is trusted. */
void client_begin_introduction(struct client *client, const struct address *peer)
{
    if (!address_is_unix(peer) &&
        !cidr_list_contains(&client_config(client)->trusted_proxies, peer)) {
        client_close(client, CLOSE_UNTRUSTED_PROXY);
        return;
    }
    client->state = CLIENT_INTRODUCED;
    client_set_deadline(client, INTRODUCTION_MS);
    client_watch(client, EV_READ);
}

void client_read_introduction(struct client *client)
{
    struct worker *worker = client->worker;
    struct proxy_header header;
    switch (proxy_header_read(client->stream.fd, &worker->buffers, &client->in,
                              &client->parsed_len, &header)) {
    case PROXY_HEADER_MORE:
        return;
    case PROXY_HEADER_CLIENT:
        client_remember_peer(client, &header.client);
        break;
    case PROXY_HEADER_NO_CLIENT:
        break;
    case PROXY_HEADER_BAD:
        client_close(client, CLOSE_BAD_PROXY_HEADER);
        return;
    case PROXY_HEADER_ENDED: /* a balancer that only looks whether we are there */
        client_close(client,
                     client->in == NULL ? CLOSE_CLIENT_LEFT : CLOSE_BAD_PROXY_HEADER);
        return;
    case PROXY_HEADER_FAILED:
        client_close(client, CLOSE_CLIENT_RESET);
        return;
    }
    if (client->parsed_len == 0)
        client_begin_greeting(client);
}

void client_greet(struct client *client)
{
    const char *why = NULL;
    switch (stream_handshake(&client->stream, &why)) {
    case STREAM_READY:
        client_begin_waiting(client);
        return;
    case STREAM_WANTS_READ:
        client_watch(client, EV_READ);
        return;
    case STREAM_WANTS_WRITE:
        client_watch(client, EV_WRITE);
        return;
    case STREAM_REFUSED: {
        struct log_subject subject = client_subject(client);
        log_debug(&subject, "TLS refused", LOG_TEXT("why", why));
        client_close(client, CLOSE_TLS_FAILED);
        return;
    }
    }
    unreachable();
}
