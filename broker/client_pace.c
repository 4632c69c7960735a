/*
 * Which subscribers publishers wait for. See client.h.
 *
 *     PUBLISH ─▶ client_pace ─▶ BEHIND ─▶ watched ─a millisecond─▶ looked at again ─┬▶ BEHIND
 *                                 └ the publisher waits                             └▶ not: client_set_resume
 */
#include "broker/client_parts.h"

#include "shared/timing.h"

/* While publishers wait for subscribers these are looked at so often. */
#define LOOK_BEHIND_EVERY MILLISECONDS(1)

static void look_behind_soon(struct client_set *set)
{
    struct timeval after = timing_to_timeval(LOOK_BEHIND_EVERY);
    if (!set->looks_behind)
        check(event_add(set->look_behind, &after) == 0);
    set->looks_behind = true;
}

void client_cease_to_watch(struct client *client)
{
    if (!client->is_watched)
        return;
    client->is_watched = false;
    client->set->has_eased = true;
    TAILQ_REMOVE(&client->set->behind, client, of_behind);
}

/* No event tells that a peer has read what the kernels hold. */
void client_on_look_behind(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct client_set *set = argument;
    uint64_t now = timing_now();
    set->looks_behind = false;
    if (!client_set_has_waiting(set))
        return;
    struct client *next;
    for (struct client *client = TAILQ_FIRST(&set->behind); client != NULL;
         client = next) {
        next = TAILQ_NEXT(client, of_behind);
        client_pace(client, now); /* looks again */
    }
    if (set->has_eased)
        client_set_resume(set);
    set->has_eased = false;
}

enum pace client_pace(struct client *client, uint64_t now)
{
    struct client_set *set = client->set;
    enum pace before = client->backlog.pace;
    /* Publishers are braked well before a subscriber that reads is taken for a slow one. */
    enum pace pace = backlog_look(&client->backlog, client->stream.fd,
                                  client->output.bytes, set->limits.slow_bytes / 2, now);
    set->has_eased |= before == PACE_BEHIND && pace == PACE_STUCK;
    if (pace == PACE_KEEPS_UP) {
        client_cease_to_watch(client);
        return pace;
    }
    if (!client->is_watched)
        TAILQ_INSERT_TAIL(&set->behind, client, of_behind);
    client->is_watched = true;
    if (pace == PACE_BEHIND)
        look_behind_soon(set);
    return pace;
}
