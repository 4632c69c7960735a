#include "broker/sent_ring.h"

#include "broker/envelope.h"

#include <stdlib.h>

struct sent_ring {
    struct sent_queue all;
    struct sent_queue confirmed;
    struct sent *
        not_overdue; /* the first confirmed one that sent_ring_next_overdue has not given */
    struct sent_queue *partitions;
    struct sent **found; /* by partition: the last one that was looked for; NULL: none */
    unsigned partition_count;
    uint64_t window;
    uint64_t passed; /* of the window's time, since the beginning */
    size_t bytes_max;
    size_t confirmed_bytes;
    size_t unconfirmed_bytes;
    size_t count;
    size_t confirmed_count;
};

/* What a message costs: its bytes and what is kept beside them. */
static size_t cost(const struct sent *sent)
{
    return sent->command.len + sizeof(*sent);
}

static void take_out(struct sent_ring *ring, struct sent *sent)
{
    TAILQ_REMOVE(&ring->all, sent, of_ring);
    TAILQ_REMOVE(&ring->partitions[sent->partition], sent, of_partition);
    if (ring->found[sent->partition] == sent)
        ring->found[sent->partition] = NULL;
    if (sent->state == SENT_CONFIRMED) {
        if (ring->not_overdue == sent)
            ring->not_overdue = TAILQ_NEXT(sent, of_confirmed);
        TAILQ_REMOVE(&ring->confirmed, sent, of_confirmed);
        ring->confirmed_bytes -= cost(sent);
        ring->confirmed_count--;
    } else if (!sent->is_again) {
        ring->unconfirmed_bytes -= cost(sent);
    }
    ring->count--;
    span_release(sent->command);
    free(sent);
}

struct sent_ring *sent_ring_new(unsigned partitions, uint64_t window, size_t bytes)
{
    struct sent_ring *ring = must_calloc(1, sizeof(*ring));
    TAILQ_INIT(&ring->all);
    TAILQ_INIT(&ring->confirmed);
    ring->partitions = must_calloc(partitions, sizeof(*ring->partitions));
    ring->found = must_calloc(partitions, sizeof(*ring->found));
    ring->partition_count = partitions;
    for (unsigned i = 0; i < partitions; i++)
        TAILQ_INIT(&ring->partitions[i]);
    ring->window = window;
    ring->bytes_max = bytes;
    return ring;
}

void sent_ring_set_bounds(struct sent_ring *ring, uint64_t window, size_t bytes)
{
    ring->window = window;
    ring->bytes_max = bytes;
}

void sent_ring_free(struct sent_ring *ring)
{
    struct sent *sent;
    while ((sent = TAILQ_FIRST(&ring->all)) != NULL)
        take_out(ring, sent);
    free(ring->partitions);
    free(ring->found);
    free(ring);
}

struct sent *sent_ring_add(struct sent_ring *ring, uint16_t partition, uint64_t sequence,
                           struct span command, uint32_t envelope_start,
                           uint32_t envelope_len, uint64_t now)
{
    check(partition < ring->partition_count);
    check((size_t)envelope_start + envelope_len <= command.len);
    const struct sent *last = TAILQ_LAST(&ring->partitions[partition], sent_queue);
    check(last == NULL || last->sequence < sequence);
    struct sent *sent = must_calloc(1, sizeof(*sent));
    sent->sequence = sequence;
    sent->accepted_at = now;
    sent->command = command;
    sent->envelope_start = envelope_start;
    sent->envelope_len = envelope_len;
    sent->partition = partition;
    sent->state = SENT_WAITING;
    span_hold(command);
    TAILQ_INSERT_TAIL(&ring->all, sent, of_ring);
    TAILQ_INSERT_TAIL(&ring->partitions[partition], sent, of_partition);
    ring->unconfirmed_bytes += cost(sent);
    ring->count++;
    return sent;
}

void sent_ring_send(struct sent_ring *ring UNUSED, struct sent *sent)
{
    check(sent->state == SENT_WAITING);
    sent->state = SENT_IN_FLIGHT;
}

static void unconfirm(struct sent_ring *ring, struct sent *sent)
{
    if (ring->not_overdue == sent)
        ring->not_overdue = TAILQ_NEXT(sent, of_confirmed);
    TAILQ_REMOVE(&ring->confirmed, sent, of_confirmed);
    ring->confirmed_bytes -= cost(sent);
    ring->confirmed_count--;
    sent->is_again = true;
}

void sent_ring_return(struct sent_ring *ring, struct sent *sent)
{
    check(sent->state != SENT_WAITING);
    if (sent->state == SENT_CONFIRMED)
        unconfirm(ring, sent);
    sent->state = SENT_WAITING;
    sent->retransmitted = true;
    /* Whoever still reads these bytes sees one flag or the other, and either is right. */
    sent->command.chunk
        ->data[sent->command.start + sent->envelope_start + ENVELOPE_FLAGS_OFFSET] |=
        ENVELOPE_RETRANSMIT;
}

void sent_ring_confirm(struct sent_ring *ring, struct sent *sent, uint64_t now)
{
    check(sent->state == SENT_IN_FLIGHT);
    sent->state = SENT_CONFIRMED;
    sent->confirmed_at = now;
    sent->kept_from = ring->passed;
    if (!sent->is_again)
        ring->unconfirmed_bytes -= cost(sent);
    ring->confirmed_bytes += cost(sent);
    ring->confirmed_count++;
    TAILQ_INSERT_TAIL(&ring->confirmed, sent, of_confirmed);
    if (ring->not_overdue == NULL)
        ring->not_overdue = sent;
    while (ring->confirmed_bytes > ring->bytes_max)
        take_out(ring, TAILQ_FIRST(&ring->confirmed));
}

struct sent *sent_ring_next_unsent(const struct sent_ring *ring, const struct sent *from,
                                   uint64_t before)
{
    if (sent_ring_unconfirmed_count(ring) == 0)
        return NULL;
    struct sent *sent =
        from == NULL ? TAILQ_FIRST(&ring->all) : TAILQ_NEXT(from, of_ring);
    for (; sent != NULL && sent->accepted_at < before; sent = TAILQ_NEXT(sent, of_ring))
        if (sent->state == SENT_WAITING && !sent->retransmitted)
            return sent;
    return NULL;
}

void sent_ring_drop(struct sent_ring *ring, struct sent *sent)
{
    check(sent->state == SENT_WAITING && !sent->is_queued);
    take_out(ring, sent);
}

struct sent *sent_ring_find(const struct sent_ring *ring, uint16_t partition,
                            uint64_t sequence)
{
    check(partition < ring->partition_count);
    /* One after the other, as they come back; else from the end: what is asked for is nearly always young. */
    struct sent *sent = ring->found[partition];
    if (sent != NULL && sent->sequence == sequence)
        return sent;
    if (sent != NULL)
        sent = TAILQ_NEXT(sent, of_partition);
    if (sent == NULL || sent->sequence != sequence) {
        TAILQ_FOREACH_REVERSE(sent, &ring->partitions[partition], sent_queue,
                              of_partition)
        if (sent->sequence <= sequence)
            break;
    }
    if (sent == NULL || sent->sequence != sequence)
        return NULL;
    ring->found[partition] = sent;
    return sent;
}

struct sent *sent_ring_last_of(const struct sent_ring *ring, uint16_t partition)
{
    check(partition < ring->partition_count);
    return TAILQ_LAST(&ring->partitions[partition], sent_queue);
}

struct sent *sent_ring_first_of(const struct sent_ring *ring, uint16_t partition)
{
    check(partition < ring->partition_count);
    return TAILQ_FIRST(&ring->partitions[partition]);
}

struct sent *sent_ring_first(const struct sent_ring *ring)
{
    return TAILQ_FIRST(&ring->all);
}

const struct sent *sent_ring_next_overdue(struct sent_ring *ring, uint64_t age,
                                          uint64_t now)
{
    struct sent *sent = ring->not_overdue;
    if (sent == NULL || now - sent->confirmed_at < age)
        return NULL;
    ring->not_overdue = TAILQ_NEXT(sent, of_confirmed);
    return sent;
}

void sent_ring_expire(struct sent_ring *ring, uint64_t passed)
{
    ring->passed += passed;
    struct sent *sent;
    while ((sent = TAILQ_FIRST(&ring->confirmed)) != NULL &&
           sent->kept_from + ring->window < ring->passed)
        take_out(ring, sent);
}

struct slice sent_envelope(const struct sent *sent)
{
    return slice_to(slice_from(span_bytes(sent->command), sent->envelope_start),
                    sent->envelope_len);
}

size_t sent_ring_unconfirmed_bytes(const struct sent_ring *ring)
{
    return ring->unconfirmed_bytes;
}

size_t sent_ring_unconfirmed_count(const struct sent_ring *ring)
{
    return ring->count - ring->confirmed_count;
}

size_t sent_ring_confirmed_bytes(const struct sent_ring *ring)
{
    return ring->confirmed_bytes;
}

size_t sent_ring_count(const struct sent_ring *ring)
{
    return ring->count;
}

void sent_ring_check(const struct sent_ring *ring)
{
    size_t count = 0;
    size_t by_partition = 0;
    size_t confirmed = 0;
    size_t unconfirmed = 0;
    const struct sent *sent;
    TAILQ_FOREACH(sent, &ring->all, of_ring)
    {
        count++;
        if (sent->state == SENT_CONFIRMED)
            confirmed += cost(sent);
        else if (!sent->is_again)
            unconfirmed += cost(sent);
    }
    for (unsigned i = 0; i < ring->partition_count; i++) {
        uint64_t last = 0;
        TAILQ_FOREACH(sent, &ring->partitions[i], of_partition)
        {
            check(sent->partition == i && sent->sequence > last);
            last = sent->sequence;
            by_partition++;
        }
    }
    check(count == ring->count && by_partition == ring->count);
    check(confirmed == ring->confirmed_bytes && unconfirmed == ring->unconfirmed_bytes);
}
