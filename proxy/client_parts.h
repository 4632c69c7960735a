/*
 * What the files of the client share; nobody else includes this. client.h has the picture.
 *
 *      client.c           life, endings, sending, from one request to the next
 *      client_greeting.c  INTRODUCED, GREETING: who it is, TLS
 *      client_hold.c      what it holds in buffers
 *      client_read.c      HEAD, EXCHANGING, LINGERING: what comes from the socket
 */
#pragma once

#include "shared/log.h"

#include "proxy/client.h"
#include "proxy/proxy_config.h"

static inline const struct proxy_config *client_config(const struct client *client)
{
    return client->worker->current->snapshot->config;
}

static inline uint32_t client_now(const struct client *client)
{
    return deadline_now(&client->worker->wheel);
}

static inline struct log_subject client_subject(const struct client *client)
{
    return (struct log_subject){.kind = "client", .id = client->id};
}

/* ---- client.c ---- */

/* The deadline of a state that is the client's own. */
void client_set_deadline(struct client *client, uint32_t limit_ms);

/* It is not, or no longer, between two requests. */
void client_leave_idle(struct client *client);

/* For the next request, or for the room to send what is left of the last answer. */
void client_begin_waiting(struct client *client);

/* ---- client_greeting.c ---- */

/* Who the socket or a PROXY header says the client is. */
void client_remember_peer(struct client *client, const struct address *peer);

/* A PROXY header is due from `peer`, the other end of the socket. */
void client_begin_introduction(struct client *client, const struct address *peer);
void client_read_introduction(struct client *client);

/* The address is known: lets it in, or not, and begins TLS or waits for a request. */
void client_begin_greeting(struct client *client);
void client_greet(struct client *client);

/* ---- client_read.c ---- */

/* The socket is readable and the state wants that. */
void client_read(struct client *client);
