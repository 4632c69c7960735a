#include "broker/deliver.h"

#include "broker/broker_metrics.h"
#include "broker/client.h"
#include "broker/envelope.h"
#include "broker/pods.h"
#include "broker/resp.h"
#include "shared/timing.h"

#include <stdlib.h>

/* RESP2 and RESP3 frames lie in chunks of their own, so that the spans of a subscriber, which speaks one
 * of them, touch. */
#define PROTOCOLS 2

struct deliverer {
    const struct interest_table *interest; /* borrowed */
    struct pod_rooms *pod_rooms;           /* borrowed */
    struct chunk_writer writers[PROTOCOLS];
};

/* A frame on its way to the subscribers of one target, made when the first of a protocol is met. */
struct frame {
    struct slice pattern; /* data NULL: a "message" */
    struct slice channel;
    struct slice payload;
    struct span spans[PROTOCOLS]; /* chunk NULL: not made yet */
};

static void make_frame(struct deliverer *deliverer, struct frame *frame, unsigned version)
{
    unsigned protocol = version + 2;
    struct slice payload = frame->payload;
    char *room = chunk_writer_reserve(&deliverer->writers[version],
                                      RESP_HEAD_ROOM + frame->pattern.len +
                                          frame->channel.len + payload.len + 2);
    size_t len = frame->pattern.data == NULL
                     ? resp_put_message_head(room, protocol, frame->channel, payload.len)
                     : resp_put_pmessage_head(room, protocol, frame->pattern,
                                              frame->channel, payload.len);
    if (payload.len > 0)
        memcpy(room + len, payload.data, payload.len);
    memcpy(room + len + payload.len, "\r\n", 2);
    frame->spans[version] =
        chunk_writer_commit(&deliverer->writers[version], len + payload.len + 2);
}

static unsigned deliver_frame(struct deliverer *deliverer, struct frame *frame,
                              const struct interest_target *target, uint64_t now)
{
    unsigned receivers = 0;
    size_t bytes = 0;
    const struct interest *interest;
    LIST_FOREACH(interest, &target->interests, of_target)
    {
        if (!interest->active && !interest->is_parked)
            continue;
        struct client *client = client_from_subscriber(interest->subscriber);
        const struct pod *pod = client_facts(client)->pod;
        if (pod != NULL && !pod_is_selected(deliverer->pod_rooms, &pod->filter)) {
            metrics_add(M_DELIVERIES_SPARED, 1);
            continue;
        }
        unsigned version = client_facts(client)->protocol - 2;
        if (frame->spans[version].chunk == NULL)
            make_frame(deliverer, frame, version);
        client_deliver(client, frame->spans[version], now);
        bytes += interest->active ? frame->spans[version].len : 0;
        receivers += interest->active;
    }
    if (receivers > 0) {
        metrics_add(M_DELIVERIES, receivers);
        metrics_add(M_DELIVERED_BYTES, (int64_t)bytes);
    }
    return receivers;
}

struct deliverer *deliverer_new(const struct interest_table *interest,
                                struct pod_rooms *pod_rooms)
{
    struct deliverer *deliverer = must_calloc(1, sizeof(*deliverer));
    deliverer->interest = interest;
    deliverer->pod_rooms = pod_rooms;
    return deliverer;
}

void deliverer_free(struct deliverer *deliverer)
{
    for (unsigned i = 0; i < PROTOCOLS; i++)
        chunk_writer_cleanup(&deliverer->writers[i]);
    free(deliverer);
}

unsigned deliver_message(struct deliverer *deliverer, const struct envelope *envelope,
                         uint64_t now)
{
    struct slice channel = envelope->channel;
    struct slice payload = envelope->payload;
    unsigned receivers = 0;
    pod_rooms_select(deliverer->pod_rooms, envelope);
    const struct interest_target *target =
        interest_target_find(deliverer->interest, INTEREST_CHANNEL, channel);
    if (target != NULL) {
        struct frame frame = {.channel = channel, .payload = payload};
        receivers += deliver_frame(deliverer, &frame, target, now);
    }
    for (target = interest_first(deliverer->interest, INTEREST_PATTERN); target != NULL;
         target = TAILQ_NEXT(target, of_kind)) {
        if (!interest_pattern_matches(target->name, channel))
            continue;
        struct frame frame = {
            .pattern = target->name, .channel = channel, .payload = payload};
        receivers += deliver_frame(deliverer, &frame, target, now);
    }
    return receivers;
}

bool deliverer_is_behind(const struct deliverer *deliverer, struct slice channel)
{
    const struct interest_target *target =
        interest_target_find(deliverer->interest, INTEREST_CHANNEL, channel);
    if (target == NULL)
        return false;
    uint64_t now = 0;
    bool is_behind = false;
    const struct interest *interest;
    LIST_FOREACH(interest, &target->interests, of_target)
    {
        const struct client *client = client_from_subscriber(interest->subscriber);
        if (!interest->active || client_is_parked(client))
            continue;
        if (client_output_bytes(client) <= CLIENT_BEHIND_BYTES)
            return false; /* nearly always the first */
        if (now == 0)
            now = timing_now();
        is_behind |= !client_is_stuck(client, now);
    }
    return is_behind;
}

void deliverer_rewind(struct deliverer *deliverer)
{
    for (unsigned i = 0; i < PROTOCOLS; i++)
        chunk_writer_rewind(&deliverer->writers[i]);
}
