#include "broker/publish.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/deliver.h"
#include "broker/dialect_book.h"
#include "broker/echo_book.h"
#include "broker/entry_hold.h"
#include "broker/envelope.h"
#include "broker/herald.h"
#include "broker/hot_rooms.h"
#include "broker/interest.h"
#include "broker/map_change.h"
#include "broker/receive.h"
#include "broker/resp.h"
#include "broker/shard.h"
#include "broker/standing_clock.h"
#include "broker/subscriber_counts.h"
#include "broker/tails.h"
#include "broker/turn.h"
#include "broker/window.h"
#include "shared/log.h"

#include <event2/event.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

/* An own message that its shard has confirmed and that has not come back after this is delivered from the
 * ring: the subscribing link lost it, and nothing came after it that would have shown the gap. */
#define RETURN_WITHIN SECONDS(1)

/* Counts of rooms are halved, so that they are about the last minutes. */
#define FADE_EVERY SECONDS(60)

/* So much is written to a shard whatever the window says: a quarter of what may be in flight. */
#define WINDOW_BYTES (LINK_IN_FLIGHT_BYTES / 4)

/* The partition's number, the envelope's length, and their line ends. */
#define HEAD_ROOM 64

/* The longest channel that an envelope carries. */
#define CHANNEL_MAX 255

struct publisher {
    const struct broker_config *config; /* borrowed */
    struct event_base *base;            /* borrowed */
    struct turn *turn;                  /* borrowed */
    const struct partition_map
        *map;          /* borrowed; NULL: hub. Tells partitions, not where they are */
    uint64_t map_hash; /* of the map in use */
    const struct interest_table *interest;
    struct deliverer *deliverer;
    struct message_policy policy;
    struct scan_scratch *scratch;
    struct hot_rooms hot_rooms;
    uint64_t faded_at;
    uint64_t origin;
    /* With shards: */
    struct shard_set *shards;
    struct sent_ring *ring;
    struct sequence_table *sequences;
    struct receiver *receiver;
    struct peer_table *peers;
    struct tails *tails;
    struct subscriber_counts *counts;
    struct map_change *map_change;
    struct herald *herald;
    struct entry_holds *entries;
    bool has_managers;
    void (*on_entry)(void *context, const struct envelope *envelope);
    void *on_entry_context;
    uint64_t *next_sequences; /* by partition, from 1 */
    uint64_t next_message_id;
    uint8_t host_id[ENVELOPE_HOST_ID_LEN]; /* of the last message that has one */
    struct chunk_writer writer;
    char *head; /* of every command, up to the partition's number */
    size_t head_len;
    struct window window;
    void (*on_relief)(void *context);
    void *on_relief_context;
    bool has_answers; /* of shards, in this turn: publishers may wait for them */
};

const char *publish_refusal_label(int refusal)
{
    static const char *const labels[PUBLISH_REFUSAL_COUNT] = {
        "unsafe", "overloaded", "channel_too_long", "unaddressable"};
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

/* ── what shards say ── */

static void on_shards_relief(void *context)
{
    struct publisher *publisher = context;
    if (shard_set_is_settled(publisher->shards))
        herald_settle(publisher->herald);
    if (publisher->on_relief != NULL)
        publisher->on_relief(publisher->on_relief_context);
}

static void on_shard_change(void *context, struct shard *shard UNUSED)
{
    on_shards_relief(context);
}

/* Neither home nor standby can be sent to: own pods do not wait for a return. */
static void on_homeless(void *context, unsigned partition)
{
    struct publisher *publisher = context;
    unsigned count = receiver_fill_own(publisher->receiver, partition,
                                       publisher->next_sequences[partition] - 1);
    metrics_add(M_DELIVERED_AT_ONCE, count);
}

static void on_shard_answer(void *context, struct shard *shard, struct sent *sent,
                            bool ok, struct slice text)
{
    struct publisher *publisher = context;
    if (!ok) {
        /* Redis has taken the command and refused it (ACL, memory): sending it again gives the same. */
        struct log_subject subject = {.kind = "shard", .name = shard_status(shard).name};
        log_error(&subject, "publish refused", LOG_SLICE("why", text));
        metrics_add(M_SHARD_REFUSED, 1);
        receiver_fill_own(publisher->receiver, sent->partition, sent->sequence);
        sent->is_refused = true;
    }
    sent_ring_confirm(publisher->ring, sent, timing_now());
    if (publisher->config->ack == ACK_SHARD) {
        publisher->has_answers = true;
        turn_request(publisher->turn);
    }
}

static void on_shard_message(void *context, struct shard *shard UNUSED,
                             struct slice bytes)
{
    struct publisher *publisher = context;
    receiver_take(publisher->receiver, bytes);
}

static void on_shard_control(void *context, struct shard *shard, struct slice bytes)
{
    struct publisher *publisher = context;
    herald_take(publisher->herald, shard, bytes);
}

static void on_shard_up(void *context, struct shard *shard)
{
    struct publisher *publisher = context;
    herald_shard_up(publisher->herald, shard);
}

static void on_shard_complete(void *context, struct shard *shard, bool is_complete)
{
    struct publisher *publisher = context;
    herald_shard_complete(publisher->herald, shard, is_complete);
}

static void on_sending(void *context, const struct sent *sent)
{
    struct publisher *publisher = context;
    tails_note(publisher->tails, sent->partition, sent->sequence, standing_now());
}

static struct span on_retransmit(void *context, uint64_t asker, const struct sent *sent)
{
    struct publisher *publisher = context;
    return herald_retransmit(publisher->herald, asker, sent);
}

static bool is_heard(void *context, size_t shard)
{
    const struct publisher *publisher = context;
    return herald_is_heard(publisher->herald, shard);
}

static void on_shard_gone(void *context, size_t shard)
{
    struct publisher *publisher = context;
    peers_forget_shard(publisher->peers, shard);
}

static void on_shard_carried(void *context)
{
    struct publisher *publisher = context;
    herald_look_at_map(publisher->herald);
}

static void on_map_change(void *context)
{
    struct publisher *publisher = context;
    herald_announce(publisher->herald);
}

static void on_map_used(void *context)
{
    struct publisher *publisher = context;
    publisher->map_hash = map_change_used(publisher->map_change);
    herald_announce(publisher->herald);
}

/* What was accepted before anybody here wanted the partition needs no delivery; what others send while
 * nobody does passes unseen. */
static void on_partition_wanted(void *context, unsigned partition, bool is_wanted)
{
    struct publisher *publisher = context;
    if (is_wanted) {
        receiver_want(publisher->receiver, partition,
                      publisher->next_sequences[partition]);
        herald_note_want(publisher->herald, partition);
    } else {
        receiver_unwant(publisher->receiver, partition);
    }
}

/* ── what the receiver misses ── */

static void on_ask(void *context, uint64_t origin, const struct control_list *ranges)
{
    struct publisher *publisher = context;
    herald_ask(publisher->herald, origin, ranges);
}

static void on_lost_track(void *context, uint64_t origin)
{
    struct publisher *publisher = context;
    herald_ask_where(publisher->herald, origin);
}

static int find_shard(void *context, struct slice name)
{
    const struct publisher *publisher = context;
    const struct shard *shard = shard_set_find(publisher->shards, name);
    return shard != NULL ? (int)shard_index(shard) : -1;
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

/* The command that Redis gets, in one piece; the envelope lies at *start. By hand: this is done for every
 * message. */
static struct span write_command(struct publisher *publisher,
                                 const struct envelope *envelope, size_t header_len,
                                 size_t *start)
{
    static const char digits[] = "0123456789abcdef";
    size_t envelope_len = header_len + envelope->payload.len;
    char *room = chunk_writer_reserve(&publisher->writer,
                                      publisher->head_len + HEAD_ROOM + envelope_len + 2);
    memcpy(room, publisher->head, publisher->head_len);
    char *at = room + publisher->head_len;
    for (int shift = 12; shift >= 0; shift -= 4)
        *at++ = digits[envelope->partition >> shift & 15];
    memcpy(at, "\r\n", 2);
    at += 2 + resp_put_bulk_head(at + 2, envelope_len);
    *start = (size_t)(at - room);
    envelope_write_bytes(envelope, at);
    at += header_len;
    if (envelope->payload.len > 0)
        memcpy(at, envelope->payload.data, envelope->payload.len);
    at += envelope->payload.len;
    memcpy(at, "\r\n", 2);
    return chunk_writer_commit(&publisher->writer, (size_t)(at + 2 - room));
}

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
}

/* ── who enters a room from afar ── */

static void on_entry(void *context, const struct envelope *envelope)
{
    const struct publisher *publisher = context;
    if (publisher->on_entry != NULL && publisher->has_managers)
        publisher->on_entry(publisher->on_entry_context, envelope);
}

static void on_entered(void *context, uint64_t message_id)
{
    const struct publisher *publisher = context;
    entry_hold_end(publisher->entries, message_id);
}

static void on_holds_over(void *context)
{
    on_shards_relief(context);
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
    struct envelope envelope;
    put_envelope(&envelope, publisher, channel, message, payload);
    size_t header_len = envelope_size(&envelope);
    if (header_len == 0) {
        refuse(result, PUBLISH_UNADDRESSABLE, "namespace or rooms are too long");
        return;
    }
    if (is_held(publisher, client, channel, message)) {
        result->must_wait = true;
        return;
    }
    uint16_t partitions[2];
    size_t count = partition_map_route(publisher->map, channel, message, partitions);
    for (size_t i = 0; i < count; i++) {
        if (waited < PUBLISH_WAIT_MAX &&
            shard_set_is_full(publisher->shards, partitions[i])) {
            result->must_wait = true;
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

/* ── the end of a turn: at once, or when the flush window is over ── */

static void flush(struct publisher *publisher)
{
    shard_set_flush(publisher->shards, 0);
    if (publisher->window.length > 0)
        window_note_flush(&publisher->window, timing_now());
}

static void on_window(void *context)
{
    flush(context);
}

static void end_turn(void *context)
{
    struct publisher *publisher = context;
    if (publisher->has_answers) {
        publisher->has_answers = false;
        publisher->on_relief(publisher->on_relief_context);
    }
    if (publisher->shards == NULL || shard_set_queued_bytes(publisher->shards) == 0)
        return;
    if (publisher->window.length == 0 ||
        window_passes(&publisher->window, timing_now())) {
        flush(publisher);
        return;
    }
    shard_set_flush(publisher->shards, WINDOW_BYTES);
    window_wait(&publisher->window);
}

/* ── public ── */

static uint64_t random_id(void)
{
    uint64_t id = 0;
    while (id == 0)
        check(RAND_bytes((unsigned char *)&id, (int)sizeof(id)) == 1);
    return id;
}

static struct message_policy policy_of(const struct broker_config *config)
{
    return (struct message_policy){
        .objects = (enum pickle_objects)config->pickle_objects,
        .refuse_pickle = config->pickle_mode == PICKLE_MODE_REJECT,
        .depth_max = (unsigned)config->json_depth,
    };
}

struct publisher *publisher_new(struct event_base *base, struct turn *turn,
                                const struct broker_config *config,
                                const struct partition_map *map,
                                const struct interest_table *interest,
                                struct deliverer *deliverer)
{
    struct publisher *publisher = must_calloc(1, sizeof(*publisher));
    publisher->config = config;
    publisher->base = base;
    publisher->turn = turn;
    publisher->interest = interest;
    publisher->deliverer = deliverer;
    publisher->policy = policy_of(config);
    publisher->scratch = scan_scratch_new();
    publisher->origin = random_id();
    if (map == NULL)
        return publisher;
    publisher->map = map;
    publisher->map_hash = partition_map_hash(map);
    publisher->head = must_printf(
        "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\nsidrail1:%s:p:",
        strlen("sidrail1::p:0000") + strlen(config->cluster_name), config->cluster_name);
    publisher->head_len = strlen(publisher->head);
    unsigned partitions = partition_map_partitions(map);
    publisher->ring =
        sent_ring_new(partitions, config->resend_window, (size_t)config->resend_bytes);
    publisher->sequences = sequence_table_new(partitions);
    publisher->peers = peer_table_new(find_shard, publisher);
    publisher->tails = tails_new(partitions);
    publisher->counts = subscriber_counts_new(interest);
    const struct receiver_callbacks callbacks = {on_ask, on_lost_track, on_entry,
                                                 publisher};
    publisher->receiver =
        receiver_new(base, map, deliverer, publisher->sequences, publisher->ring,
                     publisher->peers, publisher->origin, &callbacks);
    publisher->entries = entry_holds_new(base, on_holds_over, publisher);
    publisher->next_sequences = must_calloc(partitions, sizeof(uint64_t));
    for (unsigned i = 0; i < partitions; i++)
        publisher->next_sequences[i] = 1;
    window_init(&publisher->window, base,
                config->flush_window == OPTION_AUTO ? 0 : config->flush_window, on_window,
                publisher);
    turn_add_step(turn, end_turn, publisher);
    return publisher;
}

void publisher_free(struct publisher *publisher)
{
    if (publisher->shards != NULL) {
        shard_set_free(publisher->shards);
        map_change_free(publisher->map_change);
        herald_free(publisher->herald);
    }
    if (publisher->map != NULL) {
        receiver_free(publisher->receiver);
        entry_holds_free(publisher->entries);
        peer_table_free(publisher->peers);
        tails_free(publisher->tails);
        subscriber_counts_free(publisher->counts);
        sequence_table_free(publisher->sequences);
        sent_ring_free(publisher->ring);
        window_cleanup(&publisher->window);
    }
    free(publisher->next_sequences);
    free(publisher->head);
    chunk_writer_cleanup(&publisher->writer);
    scan_scratch_free(publisher->scratch);
    free(publisher);
}

void publisher_start(struct publisher *publisher, void (*on_relief)(void *context),
                     void *context)
{
    if (publisher->map == NULL)
        return;
    publisher->on_relief = on_relief;
    publisher->on_relief_context = context;
    const struct shard_callbacks callbacks = {
        .on_change = on_shard_change,
        .on_answer = on_shard_answer,
        .on_message = on_shard_message,
        .on_control = on_shard_control,
        .on_wanted = on_partition_wanted,
        .on_relief = on_shards_relief,
        .on_up = on_shard_up,
        .on_complete = on_shard_complete,
        .on_carried = on_shard_carried,
        .on_sending = on_sending,
        .on_retransmit = on_retransmit,
        .on_homeless = on_homeless,
        .is_heard = is_heard,
        .on_gone = on_shard_gone,
        .context = publisher,
    };
    publisher->shards = shard_set_new(publisher->base, publisher->turn, publisher->config,
                                      partition_map_partitions(publisher->map),
                                      publisher->ring, publisher->origin, &callbacks);
    const struct map_change_config change = {publisher->peers, publisher->shards,
                                             on_map_change, on_map_used, publisher};
    publisher->map_change = map_change_new(&change, publisher->config);
    publisher->map_hash = map_change_used(publisher->map_change);
    const struct herald_config herald = {
        .origin = publisher->origin,
        .partitions = partition_map_partitions(publisher->map),
        .cluster = publisher->config->cluster_name,
        .peers = publisher->peers,
        .ring = publisher->ring,
        .tails = publisher->tails,
        .receiver = publisher->receiver,
        .shards = publisher->shards,
        .map = publisher->map_change,
        .counts = publisher->counts,
        .on_joined = on_shards_relief,
        .on_entered = on_entered,
        .context = publisher,
    };
    publisher->herald = herald_new(publisher->base, &herald);
    shard_set_start(publisher->shards);
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

bool publisher_reload(struct publisher *publisher, const struct broker_config *config)
{
    if (publisher->shards != NULL) {
        bool is_ready = herald_is_ready(publisher->herald);
        if (map_change_load(publisher->map_change, config, is_ready) == MAP_FULL)
            return false;
        sent_ring_set_bounds(publisher->ring, config->resend_window,
                             (size_t)config->resend_bytes);
        uint64_t window = config->flush_window == OPTION_AUTO ? 0 : config->flush_window;
        if (window != publisher->window.length)
            window_set_length(&publisher->window, publisher->base, window);
    }
    publisher->config = config;
    publisher->policy = policy_of(config);
    return true;
}

void publisher_go_on_without(struct publisher *publisher, uint64_t origin)
{
    if (publisher->map_change != NULL)
        map_change_without(publisher->map_change, origin);
}

const struct map_change *publisher_map(const struct publisher *publisher)
{
    return publisher->map_change;
}

const struct peer_table *publisher_peers(const struct publisher *publisher)
{
    return publisher->peers;
}

void publish_message(struct publisher *publisher, struct dialect_view *dialect,
                     struct echo_view *echo, struct slice channel, struct slice payload,
                     uint64_t waited, uint64_t now, struct publish_result *result)
{
    result->must_wait = waited < PUBLISH_WAIT_SUBSCRIBERS_MAX &&
                        deliverer_is_behind(publisher->deliverer, channel);
    if (result->must_wait)
        return;
    struct message message;
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
    for (size_t i = 0; message.rooms_known && i < message.room_count; i++)
        hot_rooms_count(&publisher->hot_rooms, message.namespace, message.rooms[i]);
}

void publisher_set_managers(struct publisher *publisher, bool has_managers)
{
    publisher->has_managers = has_managers;
    if (publisher->herald != NULL)
        herald_set_managers(publisher->herald, has_managers);
}

void publisher_watch_entries(struct publisher *publisher,
                             void (*watcher)(void *context,
                                             const struct envelope *envelope),
                             void *context)
{
    publisher->on_entry = watcher;
    publisher->on_entry_context = context;
}

void publisher_say_entered(struct publisher *publisher, uint64_t origin,
                           uint64_t message_id)
{
    if (origin == publisher->origin)
        entry_hold_end(publisher->entries, message_id);
    else
        herald_say_joined(publisher->herald, origin, message_id);
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

bool publisher_knows_channel(const struct publisher *publisher, struct slice channel)
{
    const struct text_list *channels = &publisher->config->channels;
    for (size_t i = 0; i < channels->count; i++)
        if (slice_equals(slice_from_text(channels->items[i]), channel))
            return true;
    return false;
}

const struct subscriber_counts *publisher_counts(const struct publisher *publisher)
{
    return publisher->counts;
}

bool publisher_is_settled(const struct publisher *publisher)
{
    return publisher->shards == NULL || (shard_set_is_settled(publisher->shards) &&
                                         herald_is_joined(publisher->herald));
}

bool publisher_has_joined(const struct publisher *publisher, unsigned partition)
{
    return publisher->shards == NULL ||
           (shard_set_is_confirmed(publisher->shards, partition) &&
            herald_has_joined(publisher->herald, partition));
}

uint64_t publisher_want_pod(struct publisher *publisher, struct slice channel,
                            struct slice host_id)
{
    if (publisher->shards == NULL)
        return 0;
    uint32_t host = partition_of_host(publisher->map, channel, host_id);
    uint32_t any = partition_of_channel(publisher->map, channel);
    shard_set_want(publisher->shards, host);
    shard_set_want(publisher->shards, any);
    return (uint64_t)host << 32 | any;
}

void publisher_unwant_pod(struct publisher *publisher, uint64_t wanted)
{
    if (publisher->shards == NULL)
        return;
    shard_set_unwant(publisher->shards, (uint32_t)(wanted >> 32));
    shard_set_unwant(publisher->shards, (uint32_t)wanted);
}

uint32_t publisher_want_room(struct publisher *publisher, struct slice channel,
                             struct slice namespace, struct slice room)
{
    if (publisher->shards == NULL)
        return UINT32_MAX;
    uint32_t partition =
        room.len == 0 ? partition_of_everybody(publisher->map, channel, namespace)
                      : partition_of_room(publisher->map, channel, namespace, room);
    shard_set_want(publisher->shards, partition);
    return partition;
}

void publisher_unwant_room(struct publisher *publisher, uint32_t partition)
{
    if (publisher->shards != NULL)
        shard_set_unwant(publisher->shards, partition);
}

uint64_t publisher_origin(const struct publisher *publisher)
{
    return publisher->origin;
}

struct shard_set *publisher_shards(struct publisher *publisher)
{
    return publisher->shards;
}

bool publisher_is_idle(const struct publisher *publisher)
{
    if (publisher->shards == NULL)
        return true;
    if (!shard_set_is_idle(publisher->shards))
        return false;
    const struct sent *sent;
    for (sent = sent_ring_first(publisher->ring); sent != NULL;
         sent = TAILQ_NEXT(sent, of_ring))
        if (shard_set_is_wanted(publisher->shards, sent->partition) &&
            sent->sequence >= sequence_expected(publisher->sequences, publisher->origin,
                                                sent->partition))
            return false;
    return true;
}

const struct hot_rooms *publisher_hot_rooms(const struct publisher *publisher)
{
    return &publisher->hot_rooms;
}

/* Never sent for spill.age: own pods have them or get them now, other brokers hear that they are gone. */
static void give_up_unsent(struct publisher *publisher, uint64_t now)
{
    uint64_t before =
        now > publisher->config->spill_age ? now - publisher->config->spill_age : 0;
    unsigned count = 0;
    struct sent *sent;
    while ((sent = sent_ring_next_unsent(publisher->ring, NULL, before)) != NULL) {
        receiver_fill_own(publisher->receiver, sent->partition, sent->sequence);
        shard_set_take_out(publisher->shards, sent);
        sent_ring_drop(publisher->ring, sent);
        count++;
    }
    if (count == 0)
        return;
    metrics_add_by(M_LOST, LOSS_SPILL, count);
    log_error(LOG_SUBJECT("publish"), "messages waited too long for their shard",
              LOG_UNSIGNED("messages", count));
}

void publisher_tick(struct publisher *publisher)
{
    uint64_t now = timing_now();
    if (now - publisher->faded_at > FADE_EVERY) {
        publisher->faded_at = now;
        hot_rooms_fade(&publisher->hot_rooms);
    }
    if (publisher->shards == NULL)
        return;
    const struct sent *sent;
    while ((sent = sent_ring_next_overdue(publisher->ring, RETURN_WITHIN, now)) != NULL)
        receiver_fill_own(publisher->receiver, sent->partition, sent->sequence);
    sent_ring_expire(publisher->ring, now);
    give_up_unsent(publisher, now);
    herald_tick(publisher->herald);
    shard_set_tick(publisher->shards, now);
}

struct publisher_status publisher_status(const struct publisher *publisher)
{
    if (publisher->map == NULL)
        return (struct publisher_status){.origin = publisher->origin};
    unsigned origins = sequence_origin_count(publisher->sequences);
    bool is_own_known = sequence_knows(publisher->sequences, publisher->origin);
    return (struct publisher_status){
        .origin = publisher->origin,
        .map_hash = publisher->map_hash,
        .spill_bytes = sent_ring_unconfirmed_bytes(publisher->ring),
        .spill_messages = sent_ring_unconfirmed_count(publisher->ring),
        .sent_ring_bytes = sent_ring_confirmed_bytes(publisher->ring),
        .sent_ring_messages = sent_ring_count(publisher->ring),
        .origins = origins - (is_own_known ? 1 : 0),
        .live_brokers = peer_live_count(publisher->peers, standing_now()),
        .gaps = receiver_gap_count(publisher->receiver),
        .held_bytes = receiver_held_bytes(publisher->receiver),
    };
}
