/*
 * Requests that wait, in one queue for each thing that they wait for. See client.h.
 *
 *     WAIT, facts.waits_for ─▶ queue of that number ─client_set_resume(), end of turn─▶ its first is tried
 *                                   ▲                                                     │  └ answered: then the next
 *                                   └──────────── waits still: so do all behind it ◀──────┘
 *
 * So a relief costs what goes on because of it, however many wait, and whoever has waited longest is first.
 *
 * And clients with more to do than a turn has time for: they yield, and go on when the others have been looked at.
 */
#include "broker/client_parts.h"

#include "broker/turn.h"

#include <stdlib.h>

/* uthash is a macro package with its own opinion about these. */
#include <uthash.h>

struct client_queue {
    uint64_t key; /* facts.waits_for */
    struct client_list clients;
    unsigned count;
    uint64_t pass; /* the last in which it was looked at, or begun */
    TAILQ_ENTRY(client_queue) of_set;
    UT_hash_handle hh;
};

static struct client_queue *queue_new(struct client_waiting *waiting, uint64_t key)
{
    struct client_queue *queue = must_calloc(1, sizeof(*queue));
    queue->key = key;
    queue->pass = waiting->pass;
    TAILQ_INIT(&queue->clients);
    TAILQ_INSERT_TAIL(&waiting->queues, queue, of_set);
    HASH_ADD(hh, waiting->by_key, key, sizeof(queue->key), queue);
    return queue;
}

static void queue_free(struct client_waiting *waiting, struct client_queue *queue)
{
    if (waiting->current == queue)
        waiting->current = NULL;
    TAILQ_REMOVE(&waiting->queues, queue, of_set);
    HASH_DEL(waiting->by_key, queue);
    free(queue);
}

/* Behind those that wait as long or longer; nearly always the last. */
static void join(struct client_queue *queue, struct client *client)
{
    struct client *before = TAILQ_LAST(&queue->clients, client_list);
    while (before != NULL && before->facts.waits_since > client->facts.waits_since)
        before = TAILQ_PREV(before, client_list, of_waiting);
    if (before != NULL)
        TAILQ_INSERT_AFTER(&queue->clients, before, client, of_waiting);
    else
        TAILQ_INSERT_HEAD(&queue->clients, client, of_waiting);
    queue->count++;
    client->queue = queue;
}

static void leave(struct client *client)
{
    struct client_queue *queue = client->queue;
    client->queue = NULL;
    TAILQ_REMOVE(&queue->clients, client, of_waiting);
    if (--queue->count == 0)
        queue_free(&client->set->waiting, queue);
}

void client_wait_for(struct client *client, enum client_wait kind, uint64_t which)
{
    client->facts.waits_for = (uint64_t)kind << 56 | (which & ((UINT64_C(1) << 56) - 1));
}

void client_waiting_init(struct client_waiting *waiting)
{
    *waiting = (struct client_waiting){0};
    TAILQ_INIT(&waiting->queues);
}

void client_begin_to_wait(struct client *client, uint64_t now)
{
    struct client_waiting *waiting = &client->set->waiting;
    uint64_t key = client->facts.waits_for;
    check(client->state == CLIENT_OPEN);
    if (client->queue != NULL && client->queue->key == key)
        return;
    if (client->queue != NULL)
        leave(client);
    else
        client->facts.waits_since = now;
    struct client_queue *queue;
    HASH_FIND(hh, waiting->by_key, &key, sizeof(key), queue);
    join(queue != NULL ? queue : queue_new(waiting, key), client);
}

void client_cease_to_wait(struct client *client)
{
    if (client->queue == NULL)
        return;
    client->facts.waits_since = 0;
    leave(client);
}

void client_yield(struct client *client)
{
    struct client_set *set = client->set;
    check(client->state == CLIENT_OPEN);
    if (client->yields)
        return;
    /* It stays in the loop until more comes (on_readable): mostly it goes on before that. */
    client->yields = true;
    TAILQ_INSERT_TAIL(&set->yielding, client, of_yielding);
    /* A timer, since what is made active is run before descriptors are looked at. */
    static const struct timeval now = {0, 0};
    check(event_add(set->go_on, &now) == 0);
}

void client_cease_to_yield(struct client *client)
{
    if (!client->yields)
        return;
    client->yields = false;
    TAILQ_REMOVE(&client->set->yielding, client, of_yielding);
}

void client_on_go_on(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct client_set *set = argument;
    unsigned count = 0;
    struct client *client;
    TAILQ_FOREACH(client, &set->yielding, of_yielding)
    count++;
    while (count-- > 0 && (client = TAILQ_FIRST(&set->yielding)) != NULL) {
        client_cease_to_yield(client);
        client_set_reading(client, true);
        client_take_input(client);
    }
}

bool client_set_has_waiting(const struct client_set *set)
{
    return !TAILQ_EMPTY(&set->waiting.queues);
}

void client_set_resume(struct client_set *set)
{
    if (!client_set_has_waiting(set))
        return;
    set->waiting.is_due = true;
    turn_request(set->turn);
}

/* Each once at most: who is answered and waits again has come behind the others. */
static void resume(struct client_waiting *waiting, struct client_queue *queue)
{
    waiting->current = queue;
    for (unsigned i = queue->count; i > 0 && waiting->current != NULL; i--) {
        struct client *first = TAILQ_FIRST(&queue->clients);
        client_take_input(first);
        if (waiting->current != NULL && TAILQ_FIRST(&queue->clients) == first)
            break;
    }
    waiting->current = NULL;
}

void client_resume_waiting(struct client_set *set)
{
    struct client_waiting *waiting = &set->waiting;
    if (!waiting->is_due)
        return;
    waiting->is_due = false;
    waiting->pass++;
    struct client_queue *queue;
    while ((queue = TAILQ_FIRST(&waiting->queues)) != NULL &&
           queue->pass != waiting->pass) {
        queue->pass = waiting->pass;
        TAILQ_REMOVE(&waiting->queues, queue, of_set);
        TAILQ_INSERT_TAIL(&waiting->queues, queue, of_set);
        resume(waiting, queue);
    }
}
