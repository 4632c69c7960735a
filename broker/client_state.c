/*
 * The states of a client: which follows which, and what is true in each. See client.h.
 *
 *     state      on the list      reads  its request may wait  written to
 *     GREETING   open             yes    no                    by the handshake
 *     OPEN       open             yes    yes                   yes
 *     FINISHING  open             no     no                    until it is empty
 *     ENDING     open, ending     no     no                    no
 *     PARKED     parked           no     no                    no
 *     CLOSED     closed           no     no                    no
 *
 * Every change goes through client_enter(), which keeps the lists; no state is entered twice.
 */
#include "broker/client_parts.h"

#include "broker/turn.h"

#define BIT(state) (1U << (state))

static const unsigned followers[] = {
    [CLIENT_GREETING] = BIT(CLIENT_OPEN) | BIT(CLIENT_FINISHING) | BIT(CLIENT_CLOSED),
    [CLIENT_OPEN] = BIT(CLIENT_FINISHING) | BIT(CLIENT_ENDING) | BIT(CLIENT_PARKED) |
                    BIT(CLIENT_CLOSED),
    [CLIENT_FINISHING] = BIT(CLIENT_PARKED) | BIT(CLIENT_CLOSED),
    [CLIENT_ENDING] = BIT(CLIENT_PARKED) | BIT(CLIENT_CLOSED),
    [CLIENT_PARKED] = BIT(CLIENT_CLOSED),
    [CLIENT_CLOSED] = 0,
};

static bool is_connected(enum client_state state)
{
    return state != CLIENT_PARKED && state != CLIENT_CLOSED;
}

static void leave_work(struct client *client)
{
    struct client_set *set = client->set;
    if (client->is_dirty)
        TAILQ_REMOVE(&set->dirty, client, of_work);
    if (client->is_lagging)
        TAILQ_REMOVE(&set->lagging, client, of_work);
    client->is_dirty = client->is_lagging = false;
}

/* It asks for nothing more, and nobody waits for it. */
static void leave_open(struct client *client)
{
    client_set_reading(client, false);
    client_cease_to_wait(client);
    client_cease_to_yield(client);
    client_cease_to_watch(client);
}

void client_enter(struct client *client, enum client_state state)
{
    struct client_set *set = client->set;
    enum client_state before = client->state;
    check((followers[before] & BIT(state)) != 0);
    if (state != CLIENT_OPEN)
        leave_open(client);
    if (state != CLIENT_OPEN && state != CLIENT_FINISHING)
        leave_work(client);
    if (before == CLIENT_ENDING)
        TAILQ_REMOVE(&set->ending, client, of_work);
    if (before == CLIENT_PARKED)
        TAILQ_REMOVE(&set->parked, client, of_set);
    if (is_connected(before) && !is_connected(state)) {
        TAILQ_REMOVE(&set->open, client, of_set);
        set->count--;
    }
    client->state = state;
    if (state == CLIENT_ENDING)
        TAILQ_INSERT_TAIL(&set->ending, client, of_work);
    if (state == CLIENT_PARKED)
        TAILQ_INSERT_TAIL(&set->parked, client, of_set);
    if (state == CLIENT_CLOSED)
        TAILQ_INSERT_TAIL(&set->closed, client, of_work);
}

void client_make_dirty(struct client *client)
{
    struct client_set *set = client->set;
    if (client->is_dirty || client->state == CLIENT_CLOSED || client_is_parked(client))
        return;
    if (client->is_lagging) {
        TAILQ_REMOVE(&set->lagging, client, of_work);
        client->is_lagging = false;
    }
    client->is_dirty = true;
    TAILQ_INSERT_TAIL(&set->dirty, client, of_work);
    turn_request(set->turn);
}

void client_set_reading(struct client *client, bool reads)
{
    if (client->is_reading == reads)
        return;
    check(!reads || client->state == CLIENT_OPEN || client->state == CLIENT_GREETING);
    client->is_reading = reads;
    if (reads)
        check(event_add(&client->readable, NULL) == 0);
    else
        event_del(&client->readable);
    if (reads && stream_has_pending(&client->stream))
        event_active(&client->readable, EV_READ, 0);
}
