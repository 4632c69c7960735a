#include "broker/entry_hold.h"

#include "broker/broker_metrics.h"

#include <event2/event.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <xxhash.h>

struct entry {
    const void *publisher;
    uint64_t message_id;
    uint64_t room; /* hash of all that names it */
    uint64_t over_at;
    TAILQ_ENTRY(entry) of_holds;
};

struct entry_holds {
    TAILQ_HEAD(, entry) all; /* the oldest first */
    unsigned count;
    struct event *timer; /* of the oldest */
    void (*on_over)(void *context);
    void *context;
};

static uint64_t room_hash(struct slice channel, struct slice namespace, struct slice room)
{
    uint64_t hash = XXH3_64bits(channel.data, channel.len);
    hash = XXH3_64bits_withSeed(namespace.data, namespace.len, hash);
    return XXH3_64bits_withSeed(room.data, room.len, hash);
}

static void let_go(struct entry_holds *holds, struct entry *entry)
{
    TAILQ_REMOVE(&holds->all, entry, of_holds);
    holds->count--;
    free(entry);
}

static void set_timer(struct entry_holds *holds)
{
    const struct entry *oldest = TAILQ_FIRST(&holds->all);
    if (oldest == NULL) {
        event_del(holds->timer);
        return;
    }
    uint64_t now = timing_now();
    struct timeval after =
        timing_to_timeval(oldest->over_at > now ? oldest->over_at - now : 0);
    check(event_add(holds->timer, &after) == 0);
}

static void on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct entry_holds *holds = argument;
    uint64_t now = timing_now();
    struct entry *entry;
    while ((entry = TAILQ_FIRST(&holds->all)) != NULL && entry->over_at <= now) {
        metrics_add(M_ENTRIES_LATE, 1);
        let_go(holds, entry);
    }
    set_timer(holds);
    holds->on_over(holds->context);
}

struct entry_holds *entry_holds_new(struct event_base *base,
                                    void (*on_over)(void *context), void *context)
{
    struct entry_holds *holds = must_calloc(1, sizeof(*holds));
    TAILQ_INIT(&holds->all);
    holds->on_over = on_over;
    holds->context = context;
    holds->timer = event_new(base, -1, 0, on_timer, holds);
    check(holds->timer != NULL);
    return holds;
}

void entry_holds_free(struct entry_holds *holds)
{
    while (!TAILQ_EMPTY(&holds->all))
        let_go(holds, TAILQ_FIRST(&holds->all));
    event_free(holds->timer);
    free(holds);
}

void entry_hold_begin(struct entry_holds *holds, const void *publisher,
                      uint64_t message_id, struct slice channel, struct slice namespace,
                      struct slice room)
{
    if (holds->count == ENTRY_HOLDS_MAX)
        let_go(holds, TAILQ_FIRST(&holds->all));
    struct entry *entry = must_calloc(1, sizeof(*entry));
    entry->publisher = publisher;
    entry->message_id = message_id;
    entry->room = room_hash(channel, namespace, room);
    entry->over_at = timing_now() + ENTRY_HOLD_MAX;
    TAILQ_INSERT_TAIL(&holds->all, entry, of_holds);
    holds->count++;
    set_timer(holds);
}

bool entry_hold_is_held(const struct entry_holds *holds, const void *publisher,
                        struct slice channel, struct slice namespace, struct slice room)
{
    if (holds->count == 0)
        return false;
    uint64_t hash = room_hash(channel, namespace, room);
    const struct entry *entry;
    TAILQ_FOREACH(entry, &holds->all, of_holds)
    if (entry->publisher == publisher && entry->room == hash)
        return true;
    return false;
}

void entry_hold_end(struct entry_holds *holds, uint64_t message_id)
{
    struct entry *entry;
    TAILQ_FOREACH(entry, &holds->all, of_holds)
    if (entry->message_id == message_id)
        break;
    if (entry == NULL)
        return;
    let_go(holds, entry);
    event_active(holds->timer, EV_TIMEOUT,
                 0); /* not from here: whoever told may be looking through its own */
}

unsigned entry_hold_count(const struct entry_holds *holds)
{
    return holds->count;
}
