/*
 * What a publisher with shards is told, and by whom. See publish.h.
 *
 *     shards ──▶ answers ─▶ sent ring │ messages ─▶ receiver ─▶ pods │ control messages ─▶ herald
 *     receiver ─▶ what is missing ─▶ herald ─▶ other brokers
 *     pods and other brokers ─▶ who has entered a room ─▶ what was held for it goes on
 */
#include "broker/publish_parts.h"

#include "broker/batch_clock.h"
#include "broker/broker_metrics.h"
#include "broker/standing_clock.h"
#include "broker/subscriber_counts.h"
#include "shared/log.h"

#include <stdlib.h>

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
        /* Others get it only by asking, from the sent ring. */
        struct log_subject subject = {.kind = "shard", .name = shard_status(shard).name};
        log_error(&subject, "publish refused", LOG_SLICE("why", text));
        metrics_add_by(M_LOST, LOSS_REFUSED, 1);
        receiver_fill_own(publisher->receiver, sent->partition, sent->sequence);
        sent->is_refused = true;
    }
    sent_ring_confirm(publisher->ring, sent, batch_now());
    if (publisher->config->ack == ACK_SHARD) {
        publisher->has_answers = true;
        turn_request(publisher->turn);
    }
}

/* An envelope belongs on the channel of its partition, or, sent again, on one's own. */
static void on_shard_message(void *context, struct shard *shard, struct slice channel,
                             uint32_t partition, struct slice bytes)
{
    struct publisher *publisher = context;
    struct slice body;
    if (!gate_take(publisher->gate, channel, bytes, &body))
        return;
    if (partition == SHARD_CONTROL_CHANNEL)
        herald_take(publisher->herald, shard, body, false);
    else if (partition == SHARD_OWN_CHANNEL && control_is_control(body))
        herald_take(publisher->herald, shard, body, true);
    else
        receiver_take(publisher->receiver, body,
                      partition == SHARD_OWN_CHANNEL ? RECEIVER_ANY_PARTITION
                                                     : partition);
}

/* Read past, so that nothing but its numbers is known, and no seal is checked: the receiver asks the origin. */
static void on_shard_too_long(void *context, struct shard *shard UNUSED,
                              uint32_t partition, struct slice start, size_t len)
{
    const struct publisher *publisher = context;
    struct envelope envelope;
    struct slice body;
    unsigned flags;
    metrics_add(M_TOO_LONG, 1);
    if (partition == SHARD_CONTROL_CHANNEL || !seal_peek(start, &body, &flags) ||
        !envelope_parse_numbers(body, &envelope))
        return;
    receiver_skip(publisher->receiver, &envelope,
                  partition == SHARD_OWN_CHANNEL ? RECEIVER_ANY_PARTITION : partition,
                  len);
}

void publisher_set_keys(struct publisher *publisher, const struct broker_config *config)
{
    seal_set_keys(publisher->seal, config->has_keys ? &config->keys : NULL,
                  config->accepts_unsigned);
    peer_table_want_answers(publisher->peers, seal_is_strict(publisher->seal));
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

static bool hears(void *context)
{
    const struct publisher *publisher = context;
    return herald_hears(publisher->herald);
}

static uint64_t last_sent(void *context, unsigned partition)
{
    const struct publisher *publisher = context;
    return tails_last(publisher->tails, partition);
}

/* The broker that accepted a message has looked for pickles that make Python call something, but who says that it was that
 * broker? A seal; the sent ring of one's own messages, with which they were compared; else it is looked for again. */
static bool is_safe(void *context, const struct envelope *envelope)
{
    const struct publisher *publisher = context;
    if (publisher->policy.objects == PICKLE_OBJECTS_ALLOW ||
        seal_is_strict(publisher->seal) ||
        (envelope->origin == publisher->origin &&
         sent_ring_find(publisher->ring, envelope->partition, envelope->sequence) !=
             NULL) ||
        !publisher_knows_channel(publisher, envelope->channel))
        return true;
    const struct message_policy policy = {.objects = publisher->policy.objects,
                                          .depth_max = publisher->policy.depth_max};
    struct message message;
    message_scan(envelope->payload, &policy, publisher->arrival_scratch, &message);
    return !message_is_refused(&message);
}

static void on_peer_displaced(void *context, uint64_t origin)
{
    const struct publisher *publisher = context;
    receiver_rest_origin(publisher->receiver, origin);
    subscriber_counts_forget(publisher->counts, origin);
}

static bool next_shard(void *context, size_t turn, struct peer_shard *found)
{
    const struct publisher *publisher = context;
    if (turn >= shard_set_count(publisher->shards))
        return false;
    const struct shard *shard = shard_set_get(publisher->shards, turn);
    *found =
        (struct peer_shard){shard_index(shard), shard_name(shard), shard_place(shard)};
    return true;
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

/* ── public ── */

void publisher_shards_init(struct publisher *publisher, const struct partition_map *map)
{
    const struct broker_config *config = publisher->config;
    publisher->map = map;
    publisher->map_hash = partition_map_hash(map);
    publisher->head = must_printf(
        "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\nsidrail1:%s:p:",
        strlen("sidrail1::p:0000") + strlen(config->cluster_name), config->cluster_name);
    publisher->head_len = strlen(publisher->head);
    publisher->channel_start =
        publisher->head_len - strlen("sidrail1::p:") - strlen(config->cluster_name);
    publisher->seal = seal_new();
    publisher->gate = gate_new(publisher->seal, publisher->origin);
    unsigned partitions = partition_map_partitions(map);
    publisher->ring =
        sent_ring_new(partitions, config->resend_window, (size_t)config->resend_bytes);
    publisher->sequences = sequence_table_new(partitions);
    publisher->peers = peer_table_new(next_shard, publisher);
    publisher_set_keys(publisher, config);
    peer_table_on_displaced(publisher->peers, on_peer_displaced, publisher);
    publisher->arrival_scratch = scan_scratch_new();
    publisher->tails = tails_new(partitions);
    publisher->counts = subscriber_counts_new(publisher->interest);
    const struct receiver_callbacks callbacks = {
        on_ask, on_lost_track, hears, last_sent, is_safe, on_entry, publisher};
    publisher->receiver =
        receiver_new(publisher->base, map, publisher->deliverer, publisher->sequences,
                     publisher->ring, publisher->peers, publisher->origin, &callbacks);
    publisher->entries = entry_holds_new(publisher->base, on_holds_over, publisher);
    publisher->next_sequences = must_calloc(partitions, sizeof(uint64_t));
    for (unsigned i = 0; i < partitions; i++)
        publisher->next_sequences[i] = 1;
}

void publisher_shards_cleanup(struct publisher *publisher)
{
    if (publisher->shards != NULL) {
        shard_set_free(publisher->shards);
        map_change_free(publisher->map_change);
        herald_free(publisher->herald);
    }
    receiver_free(publisher->receiver);
    scan_scratch_free(publisher->arrival_scratch);
    gate_free(publisher->gate);
    seal_free(publisher->seal);
    entry_holds_free(publisher->entries);
    peer_table_free(publisher->peers);
    tails_free(publisher->tails);
    subscriber_counts_free(publisher->counts);
    sequence_table_free(publisher->sequences);
    sent_ring_free(publisher->ring);
    chunk_writer_cleanup(&publisher->writer);
    free(publisher->next_sequences);
    free(publisher->head);
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
        .on_too_long = on_shard_too_long,
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
        .seal = publisher->seal,
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
