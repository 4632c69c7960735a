#include "broker/publish_parts.h"

#include "broker/broker_metrics.h"
#include "broker/standing_clock.h"
#include "broker/subscriber_counts.h"
#include "shared/log.h"

#include <event2/event.h>
#include <stdlib.h>

/* An own message that its shard has confirmed and that has not come back after this is delivered from the
 * ring: the subscribing link lost it, and nothing came after it that would have shown the gap. */
#define RETURN_WITHIN SECONDS(1)

/* Counts of rooms are halved, so that they are about the last minutes. */
#define FADE_EVERY SECONDS(60)

/* So much is written to a shard whatever the window says: a quarter of what may be in flight. */
#define WINDOW_BYTES (LINK_IN_FLIGHT_BYTES / 4)

/* ── the end of a turn: at once, or when the flush window is over ── */

static void flush(struct publisher *publisher)
{
    shard_set_flush(publisher->shards, 0);
    if (publisher->window.length > 0)
        window_note_flush(&publisher->window, timing_now());
}

static void on_window(void *context)
{
    struct publisher *publisher = context;
    if (publisher->shards != NULL && shard_set_queued_bytes(publisher->shards) > 0)
        flush(publisher);
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
    if (publisher->window.length == 0) {
        flush(publisher);
        return;
    }
    /* What brokers say to each other and to shards each second is no company for a message. */
    shard_set_flush_hurried(publisher->shards);
    if (shard_set_queued_bytes(publisher->shards) == 0)
        return;
    if (window_passes(&publisher->window, timing_now())) {
        flush(publisher);
        return;
    }
    shard_set_flush(publisher->shards, WINDOW_BYTES);
    window_wait(&publisher->window);
}

/* ── public ── */

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
                                struct interest_table *interest,
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
    publisher->origin = peer_random_id();
    if (map == NULL)
        return publisher;
    publisher_shards_init(publisher, map);
    window_init(&publisher->window, base,
                config->flush_window == OPTION_AUTO ? 0 : config->flush_window, on_window,
                publisher);
    turn_add_step(turn, end_turn, publisher);
    return publisher;
}

void publisher_free(struct publisher *publisher)
{
    if (publisher->map != NULL) {
        publisher_shards_cleanup(publisher);
        window_cleanup(&publisher->window);
    }
    scan_scratch_free(publisher->scratch);
    free(publisher);
}

bool publisher_reload(struct publisher *publisher, const struct broker_config *config)
{
    if (publisher->shards != NULL) {
        bool is_ready = herald_is_ready(publisher->herald);
        if (map_change_load(publisher->map_change, config, is_ready) == MAP_FULL)
            return false;
        publisher_set_keys(publisher, config);
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

bool publisher_knows_channel(const struct publisher *publisher, struct slice channel)
{
    const struct text_list *channels = &publisher->config->channels;
    for (size_t i = 0; i < channels->count; i++)
        if (slice_equals(slice_from_text(channels->items[i]), channel))
            return true;
    return false;
}

size_t publisher_channels_max(const struct publisher *publisher)
{
    return (size_t)publisher->config->channels_max;
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

const char *publisher_outvoted(const struct publisher *publisher)
{
    return publisher->shards != NULL ? herald_outvoted(publisher->herald) : NULL;
}

struct agreement publisher_agreement(const struct publisher *publisher)
{
    return herald_agreement(publisher->herald);
}

uint64_t publisher_origin(const struct publisher *publisher)
{
    return publisher->origin;
}

const struct gate *publisher_gate(const struct publisher *publisher)
{
    return publisher->gate;
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

/* What has passed of the resend window since the last tick: its clock stands while somebody who may ask later is not heard. */
static uint64_t time_of_ring(struct publisher *publisher)
{
    uint64_t now = standing_now();
    uint64_t passed = publisher->ticked_at != 0 ? now - publisher->ticked_at : 0;
    publisher->ticked_at = now;
    return peers_are_heard(publisher->peers, now) ? passed : 0;
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
    sent_ring_expire(publisher->ring, time_of_ring(publisher));
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
