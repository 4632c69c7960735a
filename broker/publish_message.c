/*
 * One PUBLISH, on its one way: scanned, its client learnt from, delivered (hub) or sent to its shards. See publish.h.
 */
#include "broker/publish_parts.h"

#include "broker/broker_metrics.h"
#include "broker/dialect_book.h"
#include "broker/echo_book.h"
#include "broker/interest.h"
#include "broker/resp.h"
#include "broker/standing_clock.h"

#include <stdio.h>
#include <xxhash.h>

/* The partition's number, the envelope's length, and their line ends. */
#define HEAD_ROOM 64

/* The longest channel that an envelope carries. */
#define CHANNEL_MAX 255

const char *publish_refusal_label(int refusal)
{
    static const char *const labels[PUBLISH_REFUSAL_COUNT] = {
        "unsafe",        "overloaded", "channel_too_long",
        "unaddressable", "too_long",   "map_differs"};
    check(refusal >= 0 && refusal < PUBLISH_REFUSAL_COUNT);
    return labels[refusal];
}

static void refuse(struct publish_result *result, enum publish_refusal refusal,
                   const char *text)
{
    result->is_accepted = false;
    result->refusal = refusal;
    snprintf(result->text, sizeof(result->text), "ERR %s", text);
    metrics_add_by(M_REFUSED, (int)refusal, 1);
}

/* ── one message over shards ── */

/* Over the spill, where the partition cannot be sent now. */
static bool is_overloaded(const struct publisher *publisher, unsigned partition,
                          size_t len)
{
    const struct shard *shard = shard_of_partition(publisher->shards, partition);
    if (shard != NULL && shard_is_usable(shard) &&
        !shard_set_has_waiting(publisher->shards, partition))
        return false;
    return sent_ring_unconfirmed_bytes(publisher->ring) + len >
           publisher->config->spill_bytes;
}

static void put_envelope(struct envelope *envelope, const struct publisher *publisher,
                         struct slice channel, const struct message *message,
                         struct slice payload)
{
    *envelope = (struct envelope){
        .flags = (message->has_callback ? ENVELOPE_HAS_CALLBACK : 0) |
                 (message->is_plain ? ENVELOPE_PLAIN : 0),
        .method = (uint8_t)message->method,
        .dialect = (uint8_t)message->dialect,
        .map = (uint32_t)publisher->map_hash,
        .origin = publisher->origin,
        .channel = channel,
        .namespace = message->namespace,
        .rooms_known = message->rooms_known,
        .room_count = message->rooms_known ? message->address_count : 0,
        .rooms = message->addresses,
        .payload = payload,
    };
    if (envelope_host_id_parse(message->host_id, envelope->host_id))
        envelope->flags |= ENVELOPE_HAS_HOST;
}

/* The command that Redis gets, in one piece, sealed; the envelope lies at *start. By hand: this is done for every
 * message. */
static struct span write_command(struct publisher *publisher,
                                 const struct envelope *envelope, size_t header_len,
                                 size_t *start)
{
    static const char digits[] = "0123456789abcdef";
    size_t envelope_len = header_len + envelope->payload.len;
    size_t sealed_len = seal_len(publisher->seal) + envelope_len;
    char *room = chunk_writer_reserve(&publisher->writer,
                                      publisher->head_len + HEAD_ROOM + sealed_len + 2);
    memcpy(room, publisher->head, publisher->head_len);
    char *at = room + publisher->head_len;
    for (int shift = 12; shift >= 0; shift -= 4)
        *at++ = digits[envelope->partition >> shift & 15];
    struct slice channel = slice_of(room + publisher->channel_start,
                                    (size_t)(at - room) - publisher->channel_start);
    memcpy(at, "\r\n", 2);
    at += 2 + resp_put_bulk_head(at + 2, sealed_len);
    char *seal = at;
    at += sealed_len - envelope_len;
    *start = (size_t)(at - room);
    envelope_write_bytes(envelope, at);
    at += header_len;
    if (envelope->payload.len > 0)
        memcpy(at, envelope->payload.data, envelope->payload.len);
    at += envelope->payload.len;
    seal_write(publisher->seal, channel, slice_of(room + *start, envelope_len), seal);
    memcpy(at, "\r\n", 2);
    return chunk_writer_commit(&publisher->writer, (size_t)(at + 2 - room));
}

/* With delivery.local_fast own pods have it from here, before it has left. */
static void send_on(struct publisher *publisher, struct envelope *envelope,
                    size_t header_len, uint16_t partition, uint64_t now)
{
    envelope->partition = partition;
    envelope->sequence = publisher->next_sequences[partition]++;
    size_t start;
    struct span command = write_command(publisher, envelope, header_len, &start);
    struct sent *sent = sent_ring_add(
        publisher->ring, partition, envelope->sequence, command, (uint32_t)start,
        (uint32_t)(header_len + envelope->payload.len), now);
    shard_set_send(publisher->shards, sent);
    if (publisher->config->is_local_fast)
        metrics_add(M_DELIVERED_AT_ONCE, receiver_take_own(publisher->receiver, sent));
}

static bool is_full(const struct publisher *publisher, unsigned partition,
                    uint64_t waited)
{
    return waited < PUBLISH_WAIT_MAX &&
           shard_set_is_full(publisher->shards, partition, waited > 0);
}

static struct publish_wait wait_for_shard(const struct publisher *publisher,
                                          uint16_t partition)
{
    const struct shard *shard = shard_of_partition(publisher->shards, partition);
    return (struct publish_wait){PUBLISH_WAITS_FOR_SHARD, partition, shard_index(shard)};
}

static bool is_to_rooms(const struct message *message)
{
    return message->rooms_known &&
           (message->method == METHOD_EMIT || message->method == METHOD_CLOSE_ROOM);
}

/* Does it wait until an enter_room of the same client is applied? */
static bool is_held(const struct publisher *publisher, const void *client,
                    struct slice channel, const struct message *message)
{
    for (size_t i = 0; is_to_rooms(message) && i < message->address_count; i++)
        if (entry_hold_is_held(publisher->entries, client, channel, message->namespace,
                               message->addresses[i]))
            return true;
    return false;
}

static void hold_what_follows(struct publisher *publisher, const void *client,
                              struct slice channel, const struct message *message,
                              uint64_t message_id)
{
    if (message->method != METHOD_ENTER_ROOM || !message->rooms_known ||
        message->address_count == 0)
        return;
    if (publisher->has_managers || peers_have_managers(publisher->peers, standing_now()))
        entry_hold_begin(publisher->entries, client, message_id, channel,
                         message->namespace, message->addresses[0]);
}

static void publish_over_shards(struct publisher *publisher, const void *client,
                                struct slice channel, struct slice payload,
                                const struct message *message, uint64_t waited,
                                uint64_t now, struct publish_result *result)
{
    if (channel.len > CHANNEL_MAX) {
        refuse(result, PUBLISH_CHANNEL_TOO_LONG, "channel name is longer than 255 bytes");
        return;
    }
    const char *outvoted = publisher_outvoted(publisher);
    if (outvoted != NULL) {
        refuse(result, PUBLISH_MAP_DIFFERS, outvoted);
        return;
    }
    struct envelope envelope;
    put_envelope(&envelope, publisher, channel, message, payload);
    size_t header_len = envelope_size(&envelope);
    if (header_len == 0) {
        refuse(result, PUBLISH_UNADDRESSABLE, "namespace or rooms are too long");
        return;
    }
    if (is_held(publisher, client, channel, message)) {
        result->must_wait = true;
        result->wait = (struct publish_wait){.what = PUBLISH_WAITS_FOR_ENTRY};
        return;
    }
    uint16_t partitions[2];
    size_t count = partition_map_route(publisher->map, channel, message, partitions);
    for (size_t i = 0; i < count; i++) {
        if (is_full(publisher, partitions[i], waited)) {
            result->must_wait = true;
            result->wait = wait_for_shard(publisher, partitions[i]);
            return;
        }
        if (is_overloaded(publisher, partitions[i], header_len + payload.len)) {
            refuse(result, PUBLISH_OVERLOADED, "backplane overloaded");
            return;
        }
    }
    envelope.message_id = ++publisher->next_message_id;
    hold_what_follows(publisher, client, channel, message, envelope.message_id);
    for (size_t i = 0; i < count; i++) {
        send_on(publisher, &envelope, header_len, partitions[i], now);
        result->ticket.places[i].partition = partitions[i];
        result->ticket.places[i].sequence = envelope.sequence;
    }
    result->ticket.count = publisher->config->ack == ACK_SHARD ? (unsigned)count : 0;
}

/* python-socketio gives each emit and callback a host_id; who does not is another publisher, whose dialect is not that
 * of the pods beside it. */
static void learn(struct publisher *publisher, struct dialect_view *dialect,
                  struct echo_view *echo, const struct message *message, uint64_t now,
                  struct publish_result *result)
{
    if (!envelope_host_id_parse(message->host_id, publisher->host_id))
        return;
    echo_view_learn(echo, message->method, publisher->host_id);
    /* a callback names the one that it is for */
    if (message->method != METHOD_CALLBACK)
        result->host_id = publisher->host_id;
    enum dialect_learned learned = dialect_view_learn(dialect, message, now);
    if (learned == DIALECT_CORRECTED)
        metrics_add(M_DIALECTS_CORRECTED, 1);
}

bool publish_must_wait(const struct publisher *publisher, struct slice channel,
                       uint64_t waited, uint64_t now, struct publish_wait *wait)
{
    if (waited < PUBLISH_WAIT_SUBSCRIBERS_MAX &&
        deliverer_is_behind(publisher->deliverer, channel, now)) {
        *wait = (struct publish_wait){.what = PUBLISH_WAITS_FOR_READERS,
                                      .which = XXH3_64bits(channel.data, channel.len)};
        return true;
    }
    if (publisher->shards == NULL || waited >= PUBLISH_WAIT_MAX)
        return false;
    if (wait->what == PUBLISH_WAITS_FOR_SHARD) {
        if (!is_full(publisher, wait->partition, waited))
            return false;
        *wait = wait_for_shard(publisher, wait->partition);
        return true;
    }
    if (!shard_set_is_full_everywhere(publisher->shards, waited > 0))
        return false;
    *wait = (struct publish_wait){.what = PUBLISH_WAITS_FOR_ANY_SHARD};
    return true;
}

void publish_message(struct publisher *publisher, struct dialect_view *dialect,
                     struct echo_view *echo, struct slice channel, struct slice payload,
                     uint64_t waited, uint64_t now, struct publish_result *result)
{
    struct message message;
    result->must_wait = false;
    if (channel.len > INTEREST_NAME_MAX) {
        refuse(result, PUBLISH_CHANNEL_TOO_LONG,
               "channel name is longer than 4096 bytes");
        return;
    }
    if (publisher_knows_channel(publisher, channel))
        message_scan(payload, &publisher->policy, publisher->scratch, &message);
    else
        message_init_generic(&message);
    result->is_accepted = true;
    result->host_id = NULL;
    result->ticket.count = 0;
    if (message_is_refused(&message)) {
        refuse(result, PUBLISH_UNSAFE, message.refused);
        return;
    }
    learn(publisher, dialect, echo, &message, now, result);
    enum dialect_basis basis = DIALECT_PROVEN;
    if (message.dialect != DIALECT_RAW)
        message.dialect = dialect_view_read(dialect, &message, &basis);
    if (publisher->shards != NULL) {
        publish_over_shards(publisher, echo, channel, payload, &message, waited, now,
                            result);
        if (!result->is_accepted || result->must_wait)
            return;
        result->receivers = interest_receivers(publisher->interest, channel);
    } else {
        struct envelope envelope;
        put_envelope(&envelope, publisher, channel, &message, payload);
        result->receivers = deliver_message(publisher->deliverer, &envelope, now);
    }
    if (message.dialect != DIALECT_RAW)
        metrics_add_by(M_PUBLISHED_BY_BASIS, (int)basis, 1);
    metrics_add_by(M_PUBLISHED, (int)message.method, 1);
    metrics_add_by(M_PUBLISHED_BY_DIALECT, (int)message.dialect, 1);
    metrics_add(M_PUBLISHED_BYTES, (int64_t)payload.len);
    if (!message.rooms_known)
        metrics_add(M_ROOMS_UNKNOWN, 1);
    for (size_t i = 0; message.rooms_known && i < message.room_count && i < HOT_ROOMS_MAX;
         i++)
        hot_rooms_count(&publisher->hot_rooms, message.namespace, message.rooms[i]);
}

enum publish_answer publish_answer(const struct publisher *publisher,
                                   const struct publish_ticket *ticket)
{
    for (unsigned i = 0; i < ticket->count; i++) {
        const struct publish_place *place = &ticket->places[i];
        const struct sent *sent =
            sent_ring_find(publisher->ring, place->partition, place->sequence);
        if (sent == NULL)
            continue; /* confirmed, and gone from a full ring */
        if (sent->is_refused)
            return ANSWER_REFUSED;
        if (sent->state != SENT_CONFIRMED && !sent->is_again)
            return ANSWER_DUE;
    }
    return ANSWER_CONFIRMED;
}
