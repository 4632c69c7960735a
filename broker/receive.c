#include "broker/receive_parts.h"

#include "broker/batch_clock.h"
#include "broker/broker_metrics.h"
#include "broker/control.h"
#include "broker/copies.h"
#include "broker/deliver.h"
#include "broker/envelope.h"
#include "broker/implausible.h"
#include "broker/message.h"
#include "broker/partition_map.h"
#include "broker/peers.h"
#include "broker/standing_clock.h"
#include "shared/log.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <stdlib.h>

#define LOOK_EVERY     MILLISECONDS(20)
#define ASK_EVERY      MILLISECONDS(400)
#define GIVE_UP        SECONDS(5)
#define GIVE_UP_SILENT SECONDS(10)

/* After its origin has confirmed that it sent a message that is too long: the right one may be on its way. */
#define TOO_LONG_WAIT MILLISECONDS(500)

/* Before it gives up, the origin is asked where it is. */
#define CONFIRM_AT SECONDS(4)

/* When a gap is asked for, from its beginning; then each ASK_EVERY. */
static const uint64_t ask_at[] = {MILLISECONDS(20), MILLISECONDS(100), MILLISECONDS(300)};

const char *loss_reason_label(int reason)
{
    static const char *const labels[] = {
#define LOSS_REASON(constant, label, sentence) label,
#include "broker/loss_reason.def"
#undef LOSS_REASON
    };
    check(reason >= 0 && reason < LOSS_REASON_COUNT);
    return labels[reason];
}

static void lose(struct receiver *receiver, const struct gap_key *key, uint64_t count,
                 enum loss_reason reason)
{
    if (count == 0)
        return;
    metrics_add_by(M_LOST, (int)reason, (int64_t)count);
    log_warn(LOG_SUBJECT("receive"), "messages lost", LOG_UNSIGNED("messages", count),
             LOG_TEXT("reason", loss_reason_label((int)reason)),
             LOG_UNSIGNED("partition", key->partition),
             LOG_BOOL("own", key->origin == receiver->origin));
}

/* ── to the pods ── */

static void pass_on(struct receiver *receiver, const struct envelope *envelope)
{
    if (!receiver->callbacks.is_safe(receiver->callbacks.context, envelope)) {
        const struct gap_key key = {envelope->origin, envelope->partition};
        lose(receiver, &key, 1, LOSS_UNSAFE);
        return;
    }
    deliver_message(receiver->deliverer, envelope, batch_now());
    if (envelope->method == METHOD_ENTER_ROOM)
        receiver->callbacks.on_entry(receiver->callbacks.context, envelope);
}

static void look_soon(struct receiver *receiver)
{
    if (receiver->looks)
        return;
    struct timeval after = timing_to_timeval(LOOK_EVERY);
    check(event_add(receiver->look, &after) == 0);
    receiver->looks = true;
}

/* `bytes` is the whole of the envelope. */
static void deliver(struct receiver *receiver, const struct envelope *envelope,
                    struct slice bytes)
{
    sequence_advance(receiver->sequences, envelope->origin, envelope->partition,
                     envelope->sequence, batch_now());
    if (!copies_has_two(envelope) ||
        copies_take(receiver->copies, envelope, bytes, standing_now()))
        pass_on(receiver, envelope);
    else if (copies_waiting(receiver->copies) > 0)
        look_soon(receiver);
}

static void deliver_bytes(struct receiver *receiver, struct slice bytes)
{
    struct envelope envelope;
    check(envelope_parse(bytes, &envelope) == ENVELOPE_OK);
    deliver(receiver, &envelope, bytes);
}

static bool is_received(void *context, uint64_t origin, unsigned partition)
{
    const struct receiver *receiver = context;
    return partition < receiver->partitions && receiver->wanted_since[partition] != 0 &&
           sequence_expected(receiver->sequences, origin, partition) != 0;
}

static void on_copy_release(void *context, const struct envelope *envelope)
{
    pass_on(context, envelope);
}

/* ── gaps ── */

static void begin_timing(struct receiver *receiver, struct gap *gap)
{
    if (gap->since != 0)
        return;
    gap->since = standing_now();
    gap->asked = 0;
    gap->is_confirming = false;
    gap->asks_at = gap->since + ask_at[0];
    metrics_add(M_GAPS, 1);
    /* Stays in the order of age. */
    TAILQ_REMOVE(&receiver->gaps, gap, of_receiver);
    TAILQ_INSERT_TAIL(&receiver->gaps, gap, of_receiver);
    look_soon(receiver);
}

static uint64_t expected_of(const struct receiver *receiver, const struct gap *gap)
{
    return sequence_expected(receiver->sequences, gap->key.origin,
                             (unsigned)gap->key.partition);
}

static void skip_to(struct receiver *receiver, const struct gap *gap, uint64_t expected)
{
    sequence_set_base(receiver->sequences, gap->key.origin, (unsigned)gap->key.partition,
                      expected, timing_now());
}

/* Held ones that are expected now; returns what is expected then. */
static uint64_t deliver_held(struct receiver *receiver, struct gap *gap,
                             uint64_t expected)
{
    struct held *held;
    while ((held = TAILQ_FIRST(&gap->held)) != NULL && held->sequence <= expected) {
        if (held->sequence == expected) {
            if (held->is_gone)
                skip_to(receiver, gap, expected + 1);
            else
                deliver_bytes(receiver, slice_of(held->bytes, held->len));
            expected++;
        }
        gap_let_go(receiver, gap, held);
    }
    return expected;
}

/* Own messages up to `known`, from the hold and the ring. */
static unsigned fill_own(struct receiver *receiver, struct gap *gap, uint64_t expected)
{
    unsigned filled = 0;
    while (expected <= gap->known) {
        const struct sent *sent =
            sent_ring_find(receiver->ring, (uint16_t)gap->key.partition, expected);
        if (sent != NULL) {
            deliver_bytes(receiver, sent_envelope(sent));
            filled++;
            expected = deliver_held(receiver, gap, expected + 1);
            continue;
        }
        /* No more can be missing than what lies before the first that is kept. */
        const struct sent *kept =
            sent_ring_first_of(receiver->ring, (uint16_t)gap->key.partition);
        const struct held *held = TAILQ_FIRST(&gap->held);
        uint64_t next = gap->known + 1;
        if (kept != NULL && kept->sequence > expected && kept->sequence < next)
            next = kept->sequence;
        if (held != NULL && held->sequence < next)
            next = held->sequence;
        lose(receiver, &gap->key, next - expected, LOSS_OWN);
        skip_to(receiver, gap, next);
        expected = deliver_held(receiver, gap, next);
    }
    metrics_add(M_FILLED, filled);
    return filled;
}

/* Delivers what is contiguous; the gap is timed, or ends. */
static void advance(struct receiver *receiver, struct gap *gap)
{
    uint64_t expected = expected_of(receiver, gap);
    if (expected == 0) {
        begin_timing(receiver, gap);
        receiver->callbacks.on_lost_track(receiver->callbacks.context, gap->key.origin);
        return;
    }
    uint64_t before = expected;
    expected = deliver_held(receiver, gap, expected);
    if (gap->known >= expected && gap->key.origin == receiver->origin) {
        fill_own(receiver, gap, expected);
    } else if (gap->known >= expected) {
        if (expected > before)
            gap->since = 0;
        begin_timing(receiver, gap);
        return;
    }
    gap_free(receiver, gap);
}

/* The first run of missing ones; what is missing behind it gets its own time. */
static void give_up(struct receiver *receiver, struct gap *gap, enum loss_reason reason)
{
    uint64_t expected = expected_of(receiver, gap);
    const struct held *first = TAILQ_FIRST(&gap->held);
    gap->since = 0;
    if (expected == 0 && first == NULL) {
        gap_free(receiver, gap);
        return;
    }
    uint64_t next = first != NULL ? first->sequence : gap->known + 1;
    if (expected != 0)
        lose(receiver, &gap->key, next - expected, reason);
    skip_to(receiver, gap, next);
    advance(receiver, gap);
}

static void confirm_soon(struct receiver *receiver, struct gap *gap)
{
    if (gap->is_confirming)
        return;
    gap->is_confirming = true;
    receiver->callbacks.on_lost_track(receiver->callbacks.context, gap->key.origin);
}

/* The hold is full: what is missing in front is given up if the origin says that there is more behind it, or is silent.
 * Else the last one held goes, which is asked for again. */
static void make_room(struct receiver *receiver, struct gap *gap)
{
    const struct peer *peer = peer_find(receiver->peers, gap->key.origin);
    bool is_heard = peer != NULL && !peer_is_silent(peer, standing_now());
    if (!is_heard || TAILQ_FIRST(&gap->held)->sequence <= gap->confirmed) {
        give_up(receiver, gap, LOSS_HOLD);
        return;
    }
    gap_let_go(receiver, gap, TAILQ_LAST(&gap->held, held_list));
    confirm_soon(receiver, gap);
}

static void bound_hold(struct receiver *receiver, uint64_t origin)
{
    while (receiver->held_bytes > RECEIVER_HOLD_MAX) {
        size_t bytes = 0;
        struct gap *oldest = NULL;
        struct gap *gap;
        TAILQ_FOREACH(gap, &receiver->gaps, of_receiver)
        {
            if (gap->key.origin != origin || gap->held_bytes == 0)
                continue;
            bytes += gap->held_bytes;
            if (oldest == NULL)
                oldest = gap;
        }
        if (oldest == NULL || bytes <= RECEIVER_HOLD_MAX)
            return;
        make_room(receiver, oldest);
    }
}

/* ── asking ── */

/* Adds what is missing of a gap; false when the ask is full before all of it is in. */
static bool add_missing(const struct receiver *receiver, const struct gap *gap,
                        struct evbuffer *ranges, size_t *count)
{
    uint64_t first = expected_of(receiver, gap);
    uint64_t end = gap->known + 1;
    if (end > first + CONTROL_RANGE_MAX)
        end = first + CONTROL_RANGE_MAX;
    const struct held *held = TAILQ_FIRST(&gap->held);
    while (first < end) {
        uint64_t stop = held != NULL && held->sequence < end ? held->sequence : end;
        if (stop > first) {
            if (*count == CONTROL_RANGES_MAX)
                return false;
            control_add_range(ranges, (uint16_t)gap->key.partition, first,
                              (unsigned)(stop - first));
            (*count)++;
        }
        first = stop + 1;
        if (held != NULL)
            held = TAILQ_NEXT(held, of_gap);
    }
    return true;
}

static void note_asked(struct gap *gap, uint64_t now)
{
    gap->is_due = false;
    gap->asked++;
    uint64_t next = gap->asked < ARRAY_LEN(ask_at) ? gap->since + ask_at[gap->asked]
                                                   : now + ASK_EVERY;
    gap->asks_at = next > now + LOOK_EVERY ? next : now + LOOK_EVERY;
}

/* All that is due of one origin, in one ask. What does not fit stays due. */
static void ask(struct receiver *receiver, uint64_t origin, uint64_t now)
{
    struct evbuffer *ranges = evbuffer_new();
    size_t count = 0;
    struct gap *gap;
    TAILQ_FOREACH(gap, &receiver->gaps, of_receiver)
    {
        if (!gap->is_due || gap->key.origin != origin)
            continue;
        if (!add_missing(receiver, gap, ranges, &count))
            break;
        note_asked(gap, now);
    }
    TAILQ_FOREACH(gap, &receiver->gaps, of_receiver)
    if (gap->key.origin == origin)
        gap->is_due = false;
    if (count > 0) {
        size_t len = evbuffer_get_length(ranges);
        const struct control_list list = {count,
                                          slice_of(evbuffer_pullup(ranges, -1), len)};
        metrics_add(M_ASKS, 1);
        receiver->callbacks.on_ask(receiver->callbacks.context, origin, &list);
    }
    evbuffer_free(ranges);
}

static void ask_all(struct receiver *receiver, uint64_t now)
{
    const struct gap *gap;
    do {
        TAILQ_FOREACH(gap, &receiver->gaps, of_receiver)
        if (gap->is_due)
            break;
        if (gap != NULL)
            ask(receiver, gap->key.origin, now);
    } while (gap != NULL);
}

/* The front is a message that is too long: asking for it brings the same. */
static bool is_too_long(const struct receiver *receiver, const struct gap *gap)
{
    return gap->too_long != 0 && gap->too_long == expected_of(receiver, gap);
}

static bool is_skipped(struct receiver *receiver, struct gap *gap, uint64_t now)
{
    if (!is_too_long(receiver, gap) || gap->confirmed < gap->too_long ||
        now - gap->too_long_at < TOO_LONG_WAIT)
        return false;
    lose(receiver, &gap->key, 1, LOSS_TOO_LONG);
    skip_to(receiver, gap, gap->too_long + 1);
    gap->since = 0;
    advance(receiver, gap);
    return true;
}

/* True when the gap was given up; it may be gone then. */
static bool is_given_up(struct receiver *receiver, struct gap *gap, uint64_t now)
{
    const struct peer *peer = peer_find(receiver->peers, gap->key.origin);
    bool is_heard = peer != NULL && !peer_is_silent(peer, now);
    uint64_t since = gap->since;
    if (peer != NULL && peer->answered_at > since)
        since = peer->answered_at; /* it is answering, one after the other */
    if (peer != NULL && peer->back_at > since)
        since = peer->back_at; /* while it was silent it could not */
    if (receiver->deaf_at > since)
        since = receiver->deaf_at; /* nor could it be asked */
    if (is_heard && now - since >= CONFIRM_AT)
        confirm_soon(receiver, gap);
    if (now - since < (is_heard ? GIVE_UP : GIVE_UP_SILENT))
        return false;
    if (expected_of(receiver, gap) == 0 && !peer_is_believed(receiver->peers, peer)) {
        implausible_note(IMPLAUSIBLE_STRANGER, gap->key.origin);
        gap_free(receiver, gap);
        return true;
    }
    give_up(receiver, gap, is_heard ? LOSS_GAP : LOSS_ORIGIN);
    return true;
}

static void on_look(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct receiver *receiver = argument;
    receiver->looks = false;
    uint64_t now = standing_now();
    if (!receiver->callbacks.hears(receiver->callbacks.context))
        receiver->deaf_at = now;
    struct gap *next;
    for (struct gap *gap = TAILQ_FIRST(&receiver->gaps); gap != NULL; gap = next) {
        next = TAILQ_NEXT(gap, of_receiver);
        if (is_skipped(receiver, gap, now) || is_given_up(receiver, gap, now) ||
            now < gap->asks_at)
            continue;
        if (expected_of(receiver, gap) == 0) {
            note_asked(gap, now);
            receiver->callbacks.on_lost_track(receiver->callbacks.context,
                                              gap->key.origin);
        } else {
            gap->is_due = !is_too_long(receiver, gap);
        }
    }
    ask_all(receiver, now);
    copies_expire(receiver->copies, now);
    if (receiver->gap_count > 0 || copies_waiting(receiver->copies) > 0)
        look_soon(receiver);
}

/* ── public ── */

struct receiver *receiver_new(struct event_base *base, const struct partition_map *map,
                              struct deliverer *deliverer,
                              struct sequence_table *sequences, struct sent_ring *ring,
                              struct peer_table *peers, uint64_t origin,
                              const struct receiver_callbacks *callbacks)
{
    struct receiver *receiver = must_calloc(1, sizeof(*receiver));
    receiver->deliverer = deliverer;
    receiver->sequences = sequences;
    receiver->ring = ring;
    receiver->peers = peers;
    receiver->callbacks = *callbacks;
    receiver->origin = origin;
    receiver->partitions = partition_map_partitions(map);
    receiver->wanted_since = must_calloc(receiver->partitions, sizeof(uint64_t));
    TAILQ_INIT(&receiver->gaps);
    const struct copies_callbacks copies = {is_received, on_copy_release, receiver};
    receiver->copies = copies_new(map, sequences, &copies);
    receiver->look = event_new(base, -1, 0, on_look, receiver);
    check(receiver->look != NULL);
    return receiver;
}

void receiver_free(struct receiver *receiver)
{
    struct gap *gap;
    while ((gap = TAILQ_FIRST(&receiver->gaps)) != NULL)
        gap_free(receiver, gap);
    copies_free(receiver->copies);
    event_free(receiver->look);
    free(receiver->wanted_since);
    free(receiver);
}

void receiver_want(struct receiver *receiver, unsigned partition, uint64_t next_own)
{
    check(partition < receiver->partitions);
    uint64_t now = timing_now();
    receiver->wanted_since[partition] = now;
    sequence_set_base(receiver->sequences, receiver->origin, partition, next_own, now);
}

void receiver_unwant(struct receiver *receiver, unsigned partition)
{
    check(partition < receiver->partitions);
    receiver->wanted_since[partition] = 0;
    copies_release(receiver->copies, partition);
    struct gap *next;
    for (struct gap *gap = TAILQ_FIRST(&receiver->gaps); gap != NULL; gap = next) {
        next = TAILQ_NEXT(gap, of_receiver);
        if (gap->key.partition == partition)
            gap_free(receiver, gap);
    }
    sequence_forget_partition(receiver->sequences, partition, receiver->origin);
}

/* Of an own message: is it what was sent? What the ring does not keep any more was sent before what it keeps. */
static bool is_as_sent(const struct receiver *receiver, const struct envelope *envelope,
                       struct slice bytes)
{
    const struct sent *sent =
        sent_ring_find(receiver->ring, envelope->partition, envelope->sequence);
    if (sent == NULL)
        return envelope->sequence <=
               receiver->callbacks.last_sent(receiver->callbacks.context,
                                             envelope->partition);
    struct slice own = sent_envelope(sent);
    const size_t behind = ENVELOPE_FLAGS_OFFSET + 1;
    return own.len == bytes.len &&
           memcmp(own.data, bytes.data, ENVELOPE_FLAGS_OFFSET) == 0 &&
           memcmp(own.data + behind, bytes.data + behind, own.len - behind) == 0;
}

/* Of another broker, which is kept from now on, and not the next one of its partition. False: it is dropped, counted. */
static bool may_hold(struct receiver *receiver, const struct envelope *envelope,
                     const struct gap *gap, uint64_t expected, size_t len)
{
    uint64_t origin = envelope->origin;
    const struct peer *peer = peer_get(receiver->peers, origin, standing_now());
    if (peer == NULL && peer_is_tomb(receiver->peers, origin)) {
        /* A shard woke with messages of a broker that has ended, or one is back that is not heard yet. */
        sequence_rest(receiver->sequences, origin);
        metrics_add(M_DUPLICATES, 1);
        return false;
    }
    if (expected != 0 && envelope->sequence - expected > RECEIVER_AHEAD_MAX) {
        implausible_note(IMPLAUSIBLE_SEQUENCE, origin);
        return false;
    }
    bool is_crowd = peer == NULL || receiver->held_bytes + len > RECEIVER_HOLD_ALL_MAX ||
                    (gap == NULL && receiver->gap_count >= RECEIVER_GAPS_MAX);
    if (!is_crowd && peer_is_stranger(peer))
        is_crowd =
            receiver->held_of_strangers + len > RECEIVER_HOLD_STRANGERS_MAX ||
            (gap == NULL && receiver->gaps_of_strangers >= RECEIVER_GAPS_STRANGERS_MAX);
    if (is_crowd)
        implausible_note(IMPLAUSIBLE_CROWD, origin);
    return !is_crowd;
}

static void take_ahead(struct receiver *receiver, const struct envelope *envelope,
                       struct gap *gap, struct slice bytes)
{
    if (gap == NULL)
        gap = gap_get(receiver, envelope->origin, envelope->partition);
    if (envelope->sequence > gap->known) {
        gap_hear_of(gap, envelope->sequence);
    } else {
        struct peer *peer = peer_find(receiver->peers, envelope->origin);
        if (peer != NULL)
            peer->answered_at = standing_now();
    }
    if (!gap_hold(receiver, gap, envelope->sequence, bytes, false))
        metrics_add(M_DUPLICATES, 1);
    advance(receiver, gap);
    bound_hold(receiver, envelope->origin);
}

/* Number 0 does not exist; it would mean "unknown" in the table. */
static bool has_good_numbers(const struct receiver *receiver,
                             const struct envelope *envelope)
{
    return envelope->partition < receiver->partitions && envelope->sequence != 0 &&
           envelope->sequence != UINT64_MAX && envelope->origin != 0;
}

/* False: its number was delivered before, or nobody wants it, or it came on another partition's channel. */
static bool is_expected(struct receiver *receiver, const struct envelope *envelope,
                        uint32_t partition, uint64_t *expected)
{
    if (partition != RECEIVER_ANY_PARTITION && envelope->partition != partition) {
        implausible_note(IMPLAUSIBLE_CHANNEL, envelope->origin);
        return false;
    }
    if (receiver->wanted_since[envelope->partition] == 0)
        return false;
    enum sequence_verdict verdict =
        sequence_check(receiver->sequences, envelope->origin, envelope->partition,
                       envelope->sequence, batch_now(), expected);
    if (verdict == SEQUENCE_DUPLICATE)
        metrics_add(M_DUPLICATES, 1);
    return verdict != SEQUENCE_DUPLICATE;
}

void receiver_take(struct receiver *receiver, struct slice bytes, uint32_t partition)
{
    metrics_add(M_RECEIVED, 1);
    struct envelope envelope;
    if (envelope_parse(bytes, &envelope) != ENVELOPE_OK ||
        !has_good_numbers(receiver, &envelope)) {
        metrics_add(M_ENVELOPES_BAD, 1);
        return;
    }
    uint64_t expected;
    if (!is_expected(receiver, &envelope, partition, &expected))
        return;
    bool is_own = envelope.origin == receiver->origin;
    if (is_own && !is_as_sent(receiver, &envelope, bytes)) {
        implausible_note(IMPLAUSIBLE_OWN, envelope.origin);
        return;
    }
    struct gap *gap = gap_find(receiver, envelope.origin, envelope.partition);
    if (envelope.sequence == expected && gap == NULL)
        deliver(receiver, &envelope, bytes);
    else if (is_own || may_hold(receiver, &envelope, gap, expected, bytes.len))
        take_ahead(receiver, &envelope, gap, bytes);
}

void receiver_skip(struct receiver *receiver, const struct envelope *envelope,
                   uint32_t partition, size_t len)
{
    uint64_t expected;
    if (!has_good_numbers(receiver, envelope) || envelope->origin == receiver->origin ||
        !is_expected(receiver, envelope, partition, &expected))
        return;
    struct gap *gap = gap_find(receiver, envelope->origin, envelope->partition);
    if (!may_hold(receiver, envelope, gap, expected, 0))
        return;
    if (gap == NULL)
        gap = gap_get(receiver, envelope->origin, envelope->partition);
    gap_hear_of(gap, envelope->sequence);
    if (gap->too_long < expected || gap->too_long == 0) {
        gap->too_long = envelope->sequence;
        gap->too_long_at = standing_now();
        log_warn(LOG_SUBJECT("receive"),
                 "a message is longer than this broker reads; limits.payload of its "
                 "origin is higher",
                 LOG_UNSIGNED("bytes", len), LOG_UNSIGNED("origin", envelope->origin));
    }
    receiver->callbacks.on_lost_track(receiver->callbacks.context, envelope->origin);
    advance(receiver, gap);
}

unsigned receiver_fill_own(struct receiver *receiver, unsigned partition, uint64_t last)
{
    if (receiver->wanted_since[partition] == 0)
        return 0;
    uint64_t expected =
        sequence_expected(receiver->sequences, receiver->origin, partition);
    if (expected == 0 || last < expected)
        return 0;
    struct gap *gap = gap_get(receiver, receiver->origin, partition);
    gap->known = last;
    unsigned filled = fill_own(receiver, gap, expected);
    gap_free(receiver, gap);
    return filled;
}

unsigned receiver_take_own(struct receiver *receiver, const struct sent *sent)
{
    if (receiver->wanted_since[sent->partition] == 0)
        return 0;
    if (sequence_expected(receiver->sequences, receiver->origin, sent->partition) !=
            sent->sequence ||
        gap_find(receiver, receiver->origin, sent->partition) != NULL)
        return receiver_fill_own(receiver, sent->partition, sent->sequence);
    deliver_bytes(receiver, sent_envelope(sent));
    return 1;
}

void receiver_hear_of(struct receiver *receiver, uint64_t origin, unsigned partition,
                      uint64_t last)
{
    if (partition >= receiver->partitions || receiver->wanted_since[partition] == 0 ||
        last == 0 || last == UINT64_MAX)
        return;
    uint64_t expected = sequence_expected(receiver->sequences, origin, partition);
    if (expected == 0) {
        receiver->callbacks.on_lost_track(receiver->callbacks.context, origin);
        return;
    }
    if (last < expected)
        return;
    if (last - expected > RECEIVER_AHEAD_MAX) {
        implausible_note(IMPLAUSIBLE_SEQUENCE, origin);
        return;
    }
    struct gap *gap = gap_find(receiver, origin, partition);
    if (gap == NULL && receiver->gap_count >= RECEIVER_GAPS_MAX) {
        implausible_note(IMPLAUSIBLE_CROWD, origin);
        return;
    }
    gap = gap_get(receiver, origin, partition);
    gap_hear_of(gap, last);
    advance(receiver, gap);
}

void receiver_set_base(struct receiver *receiver, uint64_t origin, unsigned partition,
                       uint64_t last)
{
    if (partition >= receiver->partitions || receiver->wanted_since[partition] == 0 ||
        last == UINT64_MAX ||
        sequence_expected(receiver->sequences, origin, partition) != 0)
        return;
    sequence_set_base(receiver->sequences, origin, partition, last + 1, timing_now());
    struct gap *gap = gap_find(receiver, origin, partition);
    if (gap == NULL)
        return;
    gap->since = 0;
    if (gap->known > last && gap->known - last > RECEIVER_AHEAD_MAX)
        gap_disbelieve(receiver, gap, last + RECEIVER_AHEAD_MAX);
    advance(receiver, gap);
}

void receiver_confirm(struct receiver *receiver, uint64_t origin, unsigned partition,
                      uint64_t last, uint64_t asked_at)
{
    struct gap *gap = gap_find(receiver, origin, partition);
    if (gap == NULL)
        return;
    if (last > gap->confirmed)
        gap->confirmed = last;
    if (gap->asks_when_confirmed)
        gap->asks_at = standing_now();
    gap->asks_when_confirmed = false;
    if (gap->known <= last || gap->known_at >= asked_at)
        return;
    gap_disbelieve(receiver, gap, last);
    if (expected_of(receiver, gap) != 0)
        advance(receiver, gap);
    else if (TAILQ_EMPTY(&gap->held))
        gap_free(receiver, gap);
}

void receiver_set_age(struct receiver *receiver, uint64_t origin, uint64_t ready_at)
{
    for (unsigned i = 0; i < receiver->partitions; i++)
        if (receiver->wanted_since[i] != 0 && receiver->wanted_since[i] <= ready_at)
            receiver_set_base(receiver, origin, i, 0);
}

/* What is missing from the front up to `end` is gone; what is held there is delivered. Returns how many are gone. */
static uint64_t skip_front(struct receiver *receiver, struct gap *gap, uint64_t end)
{
    uint64_t lost = 0;
    uint64_t expected = deliver_held(receiver, gap, expected_of(receiver, gap));
    while (expected < end) {
        const struct held *held = TAILQ_FIRST(&gap->held);
        uint64_t next = held != NULL && held->sequence < end ? held->sequence : end;
        lost += next - expected;
        skip_to(receiver, gap, next);
        expected = deliver_held(receiver, gap, next);
        gap->since = 0; /* the front has advanced */
    }
    return lost;
}

void receiver_take_gone(struct receiver *receiver, uint64_t origin,
                        struct control_list ranges)
{
    uint16_t partition;
    uint64_t first;
    unsigned count;
    while (control_next_range(&ranges, &partition, &first, &count)) {
        struct gap *gap = gap_find(receiver, origin, partition);
        uint64_t expected = gap != NULL ? expected_of(receiver, gap) : 0;
        if (expected == 0)
            continue;
        uint64_t end = first + count <= gap->known ? first + count : gap->known + 1;
        if (end > gap->confirmed + 1) {
            /* The origin has not said that it sent these: where is it? */
            end = gap->confirmed + 1;
            gap->asks_when_confirmed = true;
            receiver->callbacks.on_lost_track(receiver->callbacks.context, origin);
        }
        uint64_t lost = first <= expected ? skip_front(receiver, gap, end) : 0;
        expected = expected_of(receiver, gap);
        for (uint64_t i = first > expected ? first : expected; i < end; i++)
            lost += gap_hold(receiver, gap, i, SLICE(""), true);
        lose(receiver, &gap->key, lost, LOSS_GONE);
        advance(receiver, gap);
    }
}

/* A gap of it ends as every other does: it may be this broker that was cut off, and nothing was given up then. */
void receiver_rest_origin(struct receiver *receiver, uint64_t origin)
{
    sequence_rest(receiver->sequences, origin);
}

bool receiver_wake_origin(struct receiver *receiver, uint64_t origin)
{
    return sequence_wake(receiver->sequences, origin);
}

size_t receiver_held_bytes(const struct receiver *receiver)
{
    return receiver->held_bytes;
}

size_t receiver_gap_count(const struct receiver *receiver)
{
    return receiver->gap_count;
}
