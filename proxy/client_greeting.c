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

void client_remember_peer(struct client *client, const struct address *peer)
{
    client->has_ip = !address_is_unix(peer);
    if (peer->socket.any.sa_family == AF_INET) {
        client->ip.s6_addr[10] = client->ip.s6_addr[11] = 0xff;
        memcpy(&client->ip.s6_addr[12], &peer->socket.v4.sin_addr, 4);
        client->port = ntohs(peer->socket.v4.sin_port);
    } else if (peer->socket.any.sa_family == AF_INET6) {
        client->ip = peer->socket.v6.sin6_addr;
        client->port = ntohs(peer->socket.v6.sin6_port);
    }
}

/* The address is known: it may connect, or has too many connections. A trusted proxy has those of many clients. */
static bool is_let_in(struct client *client)
{
    int64_t maximum = client_config(client)->limits.connections_per_ip;
    struct sockaddr_in6 ip = {.sin6_family = AF_INET6, .sin6_addr = client->ip};
    if (maximum == 0 || !client->has_ip)
        return true;
    struct address address = address_from_socket((const struct sockaddr *)&ip, sizeof ip);
    if (cidr_list_contains(&client_config(client)->trusted_proxies, &address))
        return true;
    client->is_admitted = admission_enter(client->worker->process->admission, &client->ip,
                                          (uint64_t)maximum);
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

/* Who may open the file of a unix socket is trusted. */
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
