/*
 * The first bytes of a connection to a listener with TLS:
 *
 *      accept ─▶ GREETING ─▶ handshake, in turns ─▶ OPEN
 *                   └─ refused, no TLS, 10 s ─▶ closed (tls_failed)
 *
 * A handshake costs a signature. When all pods come back in one moment, only a few steps are made in a turn of the loop,
 * so that who is connected already goes on; the others' bytes wait in the kernel, and their descriptors stay readable.
 */
#include "broker/client_parts.h"

#include "broker/broker_config.h"
#include "broker/turn.h"
#include "shared/timing.h"
#include "shared/tls.h"

#define GREET_WITHIN SECONDS(10)

/* About a millisecond with RSA. */
#define STEPS_A_TURN 2

static void refuse(struct client *client, const char *why)
{
    struct log_subject subject = client_subject(client);
    char text[ADDRESS_TEXT_SIZE];
    log_warn(&subject, "TLS refused", LOG_TEXT("why", why),
             LOG_TEXT("peer", address_text(&client->facts.peer, text)));
    client_close(client, CLOSE_TLS_FAILED);
}

void client_begin_greeting(struct client *client)
{
    tls_accept(client->facts.listener->tls_context, &client->stream);
    stream_track(&client->stream);
    client->state = CLIENT_GREETING;
}

/* A balancer that only looks whether we are there. */
static bool has_left(const struct client *client)
{
    char byte;
    return recv(client->stream.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void client_greet(struct client *client)
{
    struct client_set *set = client->set;
    if (set->greeted == STEPS_A_TURN)
        return;
    set->greeted++;
    turn_request(set->turn);
    if (has_left(client)) {
        client_close(client, CLOSE_PEER);
        return;
    }
    const char *why = "";
    switch (stream_handshake(&client->stream, &why)) {
    case STREAM_READY:
        event_del(&client->writable);
        client_enter(client, CLIENT_OPEN);
        client_set_reading(client, true);
        return;
    case STREAM_WANTS_READ:
        event_del(&client->writable);
        client_set_reading(client, true);
        return;
    case STREAM_WANTS_WRITE:
        client_set_reading(client, false);
        check(event_add(&client->writable, NULL) == 0);
        return;
    case STREAM_REFUSED:
        refuse(client, why);
        return;
    }
    unreachable();
}

void client_hurry_greeting(struct client *client, uint64_t now)
{
    if (now - client->facts.connected_at > GREET_WITHIN)
        refuse(client, "no handshake in time");
}
