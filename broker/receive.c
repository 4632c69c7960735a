#include "broker/receive.h"

#include "broker/broker_metrics.h"
#include "broker/deliver.h"
#include "broker/envelope.h"
#include "broker/message.h"
#include "shared/log.h"

#include <stdlib.h>

struct receiver {
    struct deliverer *deliverer;
    struct sequence_table *sequences;
    struct sent_ring *ring;
    uint64_t origin;
};

/* Messages that travel on two partitions under one id. */
static bool has_copies(const struct envelope *envelope)
{
    return envelope->method == METHOD_ENTER_ROOM || envelope->method == METHOD_LEAVE_ROOM;
}

static void deliver(struct receiver *receiver, const struct envelope *envelope,
                    uint64_t now)
{
    sequence_advance(receiver->sequences, envelope->origin, envelope->partition,
                     envelope->sequence, now);
    if (has_copies(envelope) &&
        !sequence_is_first_copy(receiver->sequences, envelope->origin,
                                envelope->message_id, now))
        return;
    deliver_message(receiver->deliverer, envelope->channel, envelope->payload, now);
}

static void deliver_own(struct receiver *receiver, const struct sent *sent, uint64_t now)
{
    struct envelope envelope;
    check(envelope_parse(sent_envelope(sent), &envelope) == ENVELOPE_OK);
    deliver(receiver, &envelope, now);
}

/* Numbers first..end-1 of an origin's partition did not come. */
static void close_gap(struct receiver *receiver, const struct envelope *envelope,
                      uint64_t first, uint64_t end, uint64_t now)
{
    metrics_add(M_GAPS, 1);
    uint64_t lost = 0;
    if (envelope->origin != receiver->origin) {
        lost = end - first;
    } else {
        /* No more can be in the ring than it holds. */
        uint64_t count = sent_ring_count(receiver->ring);
        uint64_t from = end - first > count ? end - count : first;
        lost = from - first;
        for (uint64_t number = from; number < end; number++) {
            const struct sent *sent =
                sent_ring_find(receiver->ring, envelope->partition, number);
            if (sent != NULL)
                deliver_own(receiver, sent, now);
            else
                lost++;
        }
        metrics_add(M_FILLED, (int64_t)(end - first - lost));
    }
    if (lost == 0)
        return;
    metrics_add(M_LOST, (int64_t)lost);
    log_warn(LOG_SUBJECT("receive"), "messages lost", LOG_UNSIGNED("messages", lost),
             LOG_UNSIGNED("partition", envelope->partition),
             LOG_BOOL("own", envelope->origin == receiver->origin));
}

struct receiver *receiver_new(struct deliverer *deliverer,
                              struct sequence_table *sequences, struct sent_ring *ring,
                              uint64_t origin)
{
    struct receiver *receiver = must_calloc(1, sizeof(*receiver));
    receiver->deliverer = deliverer;
    receiver->sequences = sequences;
    receiver->ring = ring;
    receiver->origin = origin;
    return receiver;
}

void receiver_free(struct receiver *receiver)
{
    free(receiver);
}

void receiver_take(struct receiver *receiver, unsigned partition, struct slice bytes)
{
    metrics_add(M_RECEIVED, 1);
    struct envelope envelope;
    /* Number 0 does not exist; it would mean "unknown" in the table. */
    if (envelope_parse(bytes, &envelope) != ENVELOPE_OK ||
        envelope.partition != partition || envelope.sequence == 0 ||
        envelope.sequence == UINT64_MAX) {
        metrics_add(M_ENVELOPES_BAD, 1);
        return;
    }
    uint64_t now = timing_now();
    uint64_t expected;
    switch (sequence_check(receiver->sequences, envelope.origin, partition,
                           envelope.sequence, now, &expected)) {
    case SEQUENCE_DUPLICATE:
        metrics_add(M_DUPLICATES, 1);
        return;
    case SEQUENCE_GAP:
        close_gap(receiver, &envelope, expected, envelope.sequence, now);
        break;
    case SEQUENCE_NEXT:
        break;
    }
    deliver(receiver, &envelope, now);
}

bool receiver_take_own(struct receiver *receiver, const struct sent *sent)
{
    uint64_t now = timing_now();
    uint64_t expected;
    if (sequence_check(receiver->sequences, receiver->origin, sent->partition,
                       sent->sequence, now, &expected) == SEQUENCE_DUPLICATE)
        return false;
    deliver_own(receiver, sent, now);
    return true;
}
