#include "broker/deliver.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/client_parts.h"
#include "broker/envelope.h"
#include "broker/pods.h"
#include "broker/resp.h"
#include "broker/transcoder.h"
#include "shared/timing.h"

#include <stdlib.h>

/* RESP2 and RESP3 frames, and dialects, lie in chunks of their own, so that the spans of a subscriber, which gets
 * one of each, touch. */
#define PROTOCOLS 2
#define DIALECTS  (DIALECT_RAW + 1)

struct deliverer {
    const struct interest_table *interest; /* borrowed */
    struct pod_rooms *pod_rooms;           /* borrowed */
    struct transcoder *transcoder;         /* NULL: all get payloads as they are */
    bool has_seen[DIALECTS];               /* in messages of python-socketio */
    struct chunk_writer writers[PROTOCOLS][DIALECTS];
};

/* A payload in one dialect, made when the first subscriber that speaks it is met. */
struct rendering {
    bool is_made;
    bool is_refused;
    struct slice payload;
    struct span
        held; /* where the payload of another dialect lies; chunk NULL: not yet, or not needed */
};

struct delivery {
    const struct envelope *envelope;
    enum message_dialect from; /* RAW: as it is, for all */
    struct rendering renderings[DIALECTS];
};

/* A frame on its way to the subscribers of one target, made when the first of a protocol and dialect is met. */
struct frame {
    struct slice pattern;                   /* data NULL: a "message" */
    struct span spans[PROTOCOLS][DIALECTS]; /* chunk NULL: not made yet */
};

/* ── what a subscriber is given ── */

/* A list, for a pod of which nothing is known: is it json15 for its readers, or one argument? As plain Redis has it
 * while nobody has published in another dialect, and where no python-socketio wrote it: any change were a guess at
 * both ends. */
static bool is_left_alone(const struct deliverer *deliverer,
                          const struct envelope *envelope)
{
    return (envelope->flags & ENVELOPE_HAS_HOST) == 0 ||
           !(deliverer->has_seen[DIALECT_PICKLE] || deliverer->has_seen[DIALECT_JSON14]);
}

static enum message_dialect dialect_for(const struct deliverer *deliverer,
                                        const struct delivery *delivery,
                                        struct client *client)
{
    if (deliverer->transcoder == NULL || delivery->from == DIALECT_RAW)
        return delivery->from;
    struct dialect_guess given = dialect_view_given(&client_facts(client)->dialect);
    if (given.basis == DIALECT_UNKNOWN && delivery->from == DIALECT_JSON15 &&
        is_left_alone(deliverer, delivery->envelope))
        return delivery->from;
    return given.dialect;
}

/* NULL: refused, the transcoder says why. */
static struct rendering *render(struct deliverer *deliverer, struct delivery *delivery,
                                enum message_dialect to)
{
    struct rendering *rendering = &delivery->renderings[to];
    if (!rendering->is_made) {
        rendering->is_made = true;
        rendering->payload = delivery->envelope->payload;
        if (to != delivery->from) {
            rendering->is_refused =
                !transcoder_run(deliverer->transcoder, delivery->envelope->payload,
                                delivery->from, to, &rendering->payload);
            metrics_add_by(M_TRANSCODED, (int)to, !rendering->is_refused);
        }
    }
    return rendering->is_refused ? NULL : rendering;
}

static void make_frame(struct deliverer *deliverer, const struct delivery *delivery,
                       struct frame *frame, struct rendering *rendering, unsigned version,
                       enum message_dialect to)
{
    unsigned protocol = version + 2;
    struct slice channel = delivery->envelope->channel;
    struct slice payload = rendering->payload;
    struct chunk_writer *writer = &deliverer->writers[version][to];
    char *room = chunk_writer_reserve(writer, RESP_HEAD_ROOM + frame->pattern.len +
                                                  channel.len + payload.len + 2);
    size_t len = frame->pattern.data == NULL
                     ? resp_put_message_head(room, protocol, channel, payload.len)
                     : resp_put_pmessage_head(room, protocol, frame->pattern, channel,
                                              payload.len);
    if (payload.len > 0)
        memcpy(room + len, payload.data, payload.len);
    memcpy(room + len + payload.len, "\r\n", 2);
    struct span span = chunk_writer_commit(writer, len + payload.len + 2);
    frame->spans[version][to] = span;
    if (to != delivery->from && rendering->held.chunk == NULL) {
        /* The transcoder's bytes last until it runs again; these until the delivery ends. */
        span_hold(span);
        rendering->held = span;
        rendering->payload = slice_to(slice_from(span_bytes(span), len), payload.len);
    }
}

/* The frame for this client. False: it misses the message. */
static bool frame_for(struct deliverer *deliverer, struct delivery *delivery,
                      struct frame *frame, struct client *client, struct span *span)
{
    unsigned version = client_facts(client)->protocol - 2;
    enum message_dialect to = dialect_for(deliverer, delivery, client);
    if (frame->spans[version][to].chunk == NULL) {
        struct rendering *rendering = render(deliverer, delivery, to);
        if (rendering == NULL) {
            client_miss(client, delivery->from, to,
                        transcoder_refused(deliverer->transcoder));
            return false;
        }
        make_frame(deliverer, delivery, frame, rendering, version, to);
    }
    *span = frame->spans[version][to];
    return true;
}

static unsigned deliver_frame(struct deliverer *deliverer, struct delivery *delivery,
                              struct slice pattern, const struct interest_target *target,
                              uint64_t now)
{
    struct frame frame = {.pattern = pattern};
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
        const struct client_facts *facts = client_facts(client);
        if (echo_view_spares(&facts->echo, (enum echo_mode)facts->listener->echo,
                             delivery->envelope)) {
            metrics_add(M_ECHOES_SPARED, 1);
            continue;
        }
        struct span span;
        if (!frame_for(deliverer, delivery, &frame, client, &span))
            continue;
        if (!client_deliver_more(client, span, now))
            client_deliver(client, span, now);
        bytes += interest->active ? span.len : 0;
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
        for (unsigned j = 0; j < DIALECTS; j++)
            chunk_writer_cleanup(&deliverer->writers[i][j]);
    transcoder_free(deliverer->transcoder);
    free(deliverer);
}

void deliverer_transcode(struct deliverer *deliverer, unsigned depth_max, size_t len_max)
{
    transcoder_free(deliverer->transcoder);
    deliverer->transcoder = transcoder_new(depth_max, len_max);
}

unsigned deliver_message(struct deliverer *deliverer, const struct envelope *envelope,
                         uint64_t now)
{
    struct delivery delivery = {
        .envelope = envelope,
        /* a number of a later broker is no dialect to read by */
        .from = envelope->dialect < DIALECT_RAW ? (enum message_dialect)envelope->dialect
                                                : DIALECT_RAW,
    };
    if ((envelope->flags & ENVELOPE_HAS_HOST) != 0)
        deliverer->has_seen[delivery.from] = true;
    unsigned receivers = 0;
    pod_rooms_select(deliverer->pod_rooms, envelope);
    const struct interest_target *target =
        interest_target_find(deliverer->interest, INTEREST_CHANNEL, envelope->channel);
    if (target != NULL)
        receivers += deliver_frame(deliverer, &delivery, slice_of(NULL, 0), target, now);
    for (target = interest_first(deliverer->interest, INTEREST_PATTERN); target != NULL;
         target = TAILQ_NEXT(target, of_kind))
        if (interest_pattern_matches(target->name, envelope->channel))
            receivers += deliver_frame(deliverer, &delivery, target->name, target, now);
    for (unsigned i = 0; i < DIALECTS; i++)
        if (delivery.renderings[i].held.chunk != NULL)
            span_release(delivery.renderings[i].held);
    return receivers;
}

bool deliverer_is_behind(const struct deliverer *deliverer, struct slice channel,
                         uint64_t now)
{
    const struct interest_target *target =
        interest_target_find(deliverer->interest, INTEREST_CHANNEL, channel);
    if (target == NULL)
        return false;
    bool is_behind = false;
    const struct interest *interest;
    LIST_FOREACH(interest, &target->interests, of_target)
    {
        struct client *client = client_from_subscriber(interest->subscriber);
        if (!interest->active || client->state != CLIENT_OPEN)
            continue;
        enum pace pace = client_pace(client, now);
        if (pace == PACE_KEEPS_UP)
            return false; /* nearly always the first */
        is_behind |= pace == PACE_BEHIND;
    }
    return is_behind;
}

void deliverer_rewind(struct deliverer *deliverer)
{
    for (unsigned i = 0; i < PROTOCOLS; i++)
        for (unsigned j = 0; j < DIALECTS; j++)
            chunk_writer_rewind(&deliverer->writers[i][j]);
}
