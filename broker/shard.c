#include "broker/shard_parts.h"

#include "broker/batch_clock.h"
#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/shard_url.h"
#include "broker/standing_clock.h"
#include "shared/log.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

/* Of a message beside its payload: an envelope repeats rooms of it. */
#define MESSAGE_EXTRA ((size_t)1024 * 1024)

_Static_assert(CLOSE_REASON_COUNT <= 64, "told_reasons has a bit for each");

static struct log_subject subject_of(const struct shard *shard)
{
    return (struct log_subject){.kind = "shard", .name = shard->label};
}

static bool link_is_up(const struct link *link)
{
    return link_state(link) == LINK_UP;
}

/* ── state ── */

void shard_tell(struct shard *shard)
{
    struct log_subject subject = subject_of(shard);
    if (shard->is_usable) {
        log_info(&subject, "up", LOG_UNSIGNED("partitions", shard->partitions),
                 LOG_UNSIGNED("waiting", outbox_status(shard->outbox).waiting));
        shard->has_been_down = false;
        shard->told_reasons = 0;
        return;
    }
    const struct link *link =
        link_is_up(shard->publishing) ? shard->subscribing : shard->publishing;
    bool is_up = link_is_up(link);
    if (is_up && !shard->refuses) {
        if (shard->is_complete)
            log_warn(&subject, "not heard by every broker");
        return;
    }
    enum close_reason reason = is_up ? CLOSE_LINK_DENIED : link_last_reason(link);
    if (reason == CLOSE_SHUTDOWN ||
        (shard->has_been_down && (shard->told_reasons & (UINT64_C(1) << reason)) != 0))
        return;
    shard->has_been_down = true;
    shard->told_reasons |= UINT64_C(1) << reason;
    log_error(&subject, "down", LOG_TEXT("reason", close_reason_label((int)reason)),
              LOG_TEXT("why", is_up ? shard->refusal : link_last_text(link)));
}

void shard_pump(struct shard *shard)
{
    outbox_pump(shard->outbox);
    if (shard->was_full && outbox_waiting_bytes(shard->outbox) < SHARD_FULL_BYTES / 2) {
        shard->was_full = false;
        shard->set->callbacks.on_relief(shard->set->callbacks.context);
    }
}

/* Its first connection is under way. */
static bool is_on_its_way(const struct shard *shard)
{
    enum link_state state = link_state(shard->subscribing);
    return (state == LINK_RESOLVING || state == LINK_CONNECTING ||
            state == LINK_CHECKING) &&
           !shard->has_been_down;
}

static bool is_settled(const struct shard *shard)
{
    return shard->due == 0 && !is_on_its_way(shard);
}

bool shard_set_is_confirmed(const struct shard_set *set, unsigned partition)
{
    for (unsigned rank = 0; rank < SHARD_RANKS; rank++) {
        uint16_t slot = set->partitions[partition].best[rank];
        if (slot == SHARD_NOWHERE)
            continue;
        const struct shard *shard = set->slots[slot];
        if (is_on_its_way(shard) || (link_is_up(shard->subscribing) &&
                                     (shard->seats[partition] & SEAT_CONFIRMED) == 0))
            return false;
    }
    return true;
}

bool shard_set_is_settled(const struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        if (!is_settled(set->shards[i]))
            return false;
    return true;
}

void shard_settle(struct shard_set *set)
{
    if (shard_set_is_settled(set))
        set->callbacks.on_relief(set->callbacks.context);
}

/* A broker that is subscribed somewhere else, or not at all any more, hears nobody and would not know. */
static void watch(struct shard *shard, uint64_t now)
{
    if (shard->beat_at != 0 && link_is_held_up(shard->publishing))
        shard->beat_at = now; /* it waits behind that message */
    uint64_t moved_at = link_moved_at(shard->subscribing);
    bool has_moved = moved_at != 0 && now - moved_at <= SHARD_STALE;
    bool is_deaf = shard->beat_at != 0 && now - shard->beat_at > SHARD_STALE &&
                   now - shard->own_heard_at > SHARD_STALE && !has_moved;
    bool is_unconfirmed =
        shard->due > 0 && now - shard->due_since > SHARD_STALE && !has_moved;
    if (link_is_up(shard->subscribing) && (is_deaf || is_unconfirmed))
        link_close(shard->subscribing, CLOSE_LINK_STALE);
}

void shard_note_beat(struct shard *shard)
{
    if (shard->beat_at == 0 && shard->is_complete && link_is_up(shard->publishing))
        shard->beat_at = standing_now();
}

void shard_hear_own(struct shard *shard)
{
    shard->beat_at = 0;
    shard->own_heard_at = standing_now();
}

static void on_link_change(void *context, struct link *link)
{
    struct shard *shard = context;
    struct shard_set *set = shard->set;
    bool is_up = link_is_up(link);
    bool was_usable = shard->is_usable;
    shard->beat_at = 0;
    if (link == shard->publishing && is_up)
        set->callbacks.on_up(set->callbacks.context, shard);
    if (link == shard->publishing && link_state(link) == LINK_DOWN)
        outbox_take_back(shard->outbox);
    if (link == shard->subscribing && is_up)
        shard_ask_all(shard);
    if (link == shard->subscribing && link_state(link) == LINK_DOWN)
        shard_forget_asked(shard);
    shard_set_place(set);
    if (!was_usable && !shard->is_usable && link_state(link) == LINK_DOWN)
        shard_tell(shard);
    if (is_up)
        shard_pump(shard);
    shard_settle(set);
}

static void on_link_subscribed(void *context, struct link *link UNUSED,
                               struct slice channel, bool is_subscribed)
{
    if (is_subscribed)
        shard_take_confirmation(context, channel);
}

/* A message came: its partition, or which other channel it came on. */
static uint32_t take_channel(struct shard *shard, struct slice channel)
{
    const struct shard_set *set = shard->set;
    unsigned partition;
    shard->heard_at = standing_now();
    if (shard_partition_of(set, channel, &partition)) {
        shard->received++;
        return partition;
    }
    return slice_equals(channel, slice_from_text(set->own_channel))
               ? SHARD_OWN_CHANNEL
               : SHARD_CONTROL_CHANNEL;
}

static void on_link_too_long(void *context, struct link *link UNUSED,
                             struct slice channel, struct slice start, size_t len)
{
    struct shard *shard = context;
    struct shard_set *set = shard->set;
    uint32_t partition = take_channel(shard, channel);
    set->callbacks.on_too_long(set->callbacks.context, shard, partition, start, len);
}

static void on_link_message(void *context, struct link *link UNUSED, struct slice channel,
                            struct slice payload)
{
    struct shard *shard = context;
    struct shard_set *set = shard->set;
    uint32_t partition = take_channel(shard, channel);
    set->callbacks.on_message(set->callbacks.context, shard, channel, partition, payload);
}

/* Nothing is sent there for now. `sent`, which is in no queue (NULL: it was no message), moves with its partition. */
static void take_refusal(struct shard *shard, struct sent *sent, struct slice text)
{
    bool did_refuse = shard->refuses;
    shard->refuses = true;
    shard->refused_at = standing_now();
    shard->beat_at = 0; /* what was refused does not come back */
    snprintf(shard->refusal, sizeof(shard->refusal), "%.*s", SLICE_ARGS(text));
    if (sent != NULL)
        sent_ring_return(shard->set->ring, sent);
    bool was_usable = shard->is_usable;
    shard_set_place(shard->set);
    check(sent == NULL || sent->is_queued || sent->state != SENT_WAITING);
    if (!was_usable && !did_refuse)
        shard_tell(shard);
}

static void take_acceptance(struct shard *shard)
{
    if (!shard->refuses || standing_now() - shard->refused_at < SHARD_REFUSES_FOR)
        return;
    shard->refuses = false;
    shard_set_place(shard->set);
}

static void on_link_reply(void *context, struct link *link UNUSED, bool ok,
                          struct slice text)
{
    struct shard *shard = context;
    struct sent *sent = outbox_replied(shard->outbox);
    if (ok)
        take_acceptance(shard);
    else if (sent == NULL)
        take_refusal(shard, NULL, text);
    if (sent != NULL && !ok) {
        metrics_add(M_SHARD_REFUSED, 1);
        if (++sent->refusals < SHARD_REFUSALS_MAX) {
            take_refusal(shard, sent, text);
            shard_pump(shard);
            return;
        }
    }
    if (sent != NULL) {
        uint64_t took = batch_now() - sent->accepted_at;
        shard->round_trip =
            shard->round_trip == 0 ? took : (shard->round_trip * 7 + took) / 8;
        metrics_observe(M_PUBLISH_SECONDS, took);
        shard->published += ok;
        shard->set->callbacks.on_answer(shard->set->callbacks.context, shard, sent, ok,
                                        text);
    }
    shard_pump(shard);
}

static void on_outbox_sending(void *context, const struct sent *sent)
{
    struct shard *shard = context;
    shard->set->callbacks.on_sending(shard->set->callbacks.context, sent);
}

static struct span on_outbox_answer(void *context, uint64_t asker,
                                    const struct sent *sent)
{
    struct shard *shard = context;
    return shard->set->callbacks.on_retransmit(shard->set->callbacks.context, asker,
                                               sent);
}

/* ── public ── */

struct shard *shard_open(struct shard_set *set, struct broker_shard_config *config)
{
    size_t slot = 0;
    while (slot < SHARDS_MAX && set->slots[slot] != NULL)
        slot++;
    check(slot < SHARDS_MAX);
    struct shard *shard = must_calloc(1, sizeof(*shard));
    set->slots[slot] = set->shards[set->count++] = shard;
    shard->set = set;
    shard->index = slot;
    shard->config = config;
    shard->place = shard_url_place(slice_from_text(config->url));
    shard->label = must_strdup(config->name);
    shard->changed_at = timing_now();
    shard->seats = must_calloc(set->partition_count, 1);
    const struct link_callbacks callbacks = {on_link_change,     on_link_reply,
                                             on_link_subscribed, on_link_message,
                                             on_link_too_long,   shard};
    struct link_config link = {
        .kind = LINK_PUBLISHING,
        .shard = shard->config,
        .client_name = set->client_name,
        .message_max = set->message_max,
    };
    shard->publishing = link_new(set->base, set->turn, set->dns, &link, &callbacks);
    const struct outbox_callbacks outbox = {on_outbox_sending, on_outbox_answer, shard};
    shard->outbox = outbox_new(set->ring, shard->publishing, &outbox);
    link.kind = LINK_SUBSCRIBING;
    shard->subscribing = link_new(set->base, set->turn, set->dns, &link, &callbacks);
    if (set->is_started) {
        link_start(shard->subscribing);
        link_start(shard->publishing);
    }
    return shard;
}

static void shard_free(struct shard *shard)
{
    outbox_free(shard->outbox); /* what waits belongs to the ring */
    link_free(shard->publishing);
    link_free(shard->subscribing);
    broker_shard_config_free(shard->config);
    free(shard->label);
    free(shard->seats);
    free(shard);
}

void shard_close(struct shard *shard)
{
    struct shard_set *set = shard->set;
    check(shard->sent_here == 0 && outbox_is_idle(shard->outbox));
    struct log_subject subject = subject_of(shard);
    log_info(&subject, "ended", LOG_TEXT("why", "no map has it any more"));
    size_t place = 0;
    while (set->shards[place] != shard)
        place++;
    set->count--;
    memmove(&set->shards[place], &set->shards[place + 1],
            (set->count - place) * sizeof(set->shards[0]));
    set->slots[shard->index] = NULL;
    set->callbacks.on_gone(set->callbacks.context, shard->index);
    shard_free(shard);
}

/* Does not keep a loop alive. Without a resolv.conf names are only looked up in the hosts file. */
static struct evdns_base *dns_new(struct event_base *base)
{
    struct evdns_base *dns = evdns_base_new(base, EVDNS_BASE_INITIALIZE_NAMESERVERS |
                                                      EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (dns != NULL)
        return dns;
    dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    check(dns != NULL);
    evdns_base_load_hosts(dns, "/etc/hosts");
    return dns;
}

struct shard_set *shard_set_new(struct event_base *base, struct turn *turn,
                                const struct broker_config *config, unsigned partitions,
                                struct sent_ring *ring, uint64_t origin,
                                const struct shard_callbacks *callbacks)
{
    struct shard_set *set = must_calloc(1, sizeof(*set));
    set->base = base;
    set->turn = turn;
    set->ring = ring;
    set->callbacks = *callbacks;
    set->message_max = broker_config_foreign_payload_max(config) + MESSAGE_EXTRA;
    set->prefix = must_printf("sidrail1:%s:p:", config->cluster_name);
    set->prefix_len = strlen(set->prefix);
    set->control_channel = must_printf("sidrail1:%s:c", config->cluster_name);
    set->own_channel = must_printf("sidrail1:%s:o:%016llx", config->cluster_name,
                                   (unsigned long long)origin);
    TAILQ_INIT(&set->homeless);
    set->dns = dns_new(base);
    snprintf(set->client_name, sizeof(set->client_name), "sidrail-broker-%016llx",
             (unsigned long long)origin);
    set->partition_count = partitions;
    set->partitions = must_calloc(set->partition_count, sizeof(struct partition));
    for (unsigned i = 0; i < set->partition_count; i++) {
        struct partition *partition = &set->partitions[i];
        partition->best[0] = partition->best[1] = partition->sent_to = SHARD_NOWHERE;
    }
    return set;
}

void shard_set_free(struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        shard_free(set->shards[i]);
    for (size_t i = 0; i < set->map_count; i++)
        free(set->maps[i].slots);
    evdns_base_free(set->dns, 0);
    free(set->partitions);
    free(set->prefix);
    free(set->control_channel);
    free(set->own_channel);
    free(set);
}

void shard_set_start(struct shard_set *set)
{
    set->is_started = true;
    for (size_t i = 0; i < set->count; i++) {
        link_start(set->shards[i]->subscribing);
        link_start(set->shards[i]->publishing);
    }
}

void shard_set_tick(struct shard_set *set, uint64_t now)
{
    shard_set_place(set);
    for (size_t i = 0; i < set->count; i++)
        watch(set->shards[i], standing_now());
    shard_unwant_lingering(set, now);
}

size_t shard_set_queued_bytes(const struct shard_set *set)
{
    size_t bytes = 0;
    for (size_t i = 0; i < set->count; i++)
        bytes += link_queued_bytes(set->shards[i]->publishing) +
                 link_queued_bytes(set->shards[i]->subscribing);
    return bytes;
}

void shard_set_flush(struct shard_set *set, size_t bytes)
{
    for (size_t i = 0; i < set->count; i++) {
        if (link_queued_bytes(set->shards[i]->publishing) >= bytes)
            link_flush(set->shards[i]->publishing);
        if (link_queued_bytes(set->shards[i]->subscribing) >= bytes)
            link_flush(set->shards[i]->subscribing);
    }
}

void shard_set_flush_hurried(struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        if (link_is_hurried(set->shards[i]->publishing))
            link_flush(set->shards[i]->publishing);
        if (link_is_hurried(set->shards[i]->subscribing))
            link_flush(set->shards[i]->subscribing);
    }
}

struct shard *shard_of_partition(const struct shard_set *set, unsigned partition)
{
    check(partition < set->partition_count);
    uint16_t shard = set->partitions[partition].sent_to;
    return shard == SHARD_NOWHERE ? NULL : set->slots[shard];
}

size_t shard_set_count(const struct shard_set *set)
{
    return set->count;
}

struct shard *shard_set_get(const struct shard_set *set, size_t place)
{
    check(place < set->count);
    return set->shards[place];
}

struct shard *shard_set_find(const struct shard_set *set, struct slice name)
{
    for (size_t i = 0; i < set->count; i++)
        if (!set->shards[i]->is_left && slice_equals(shard_name(set->shards[i]), name))
            return set->shards[i];
    return NULL;
}

struct shard *shard_set_find_at(const struct shard_set *set, struct slice name,
                                uint64_t place)
{
    for (size_t i = 0; i < set->count; i++)
        if (set->shards[i]->place == place &&
            slice_equals(shard_name(set->shards[i]), name))
            return set->shards[i];
    return NULL;
}

size_t shard_set_usable_count(const struct shard_set *set)
{
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++)
        count += set->shards[i]->is_usable;
    return count;
}

bool shard_set_is_idle(const struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        if (!outbox_is_idle(set->shards[i]->outbox))
            return false;
    return TAILQ_EMPTY(&set->homeless);
}

void shard_send_control(struct shard *shard, struct span command)
{
    outbox_put_control(shard->outbox, command);
}

bool shard_send_answer(struct shard *shard, uint64_t asker, uint16_t partition,
                       uint64_t sequence)
{
    bool is_queued = outbox_put_answer(shard->outbox, asker, partition, sequence);
    shard_pump(shard);
    return is_queued;
}

size_t shard_index(const struct shard *shard)
{
    return shard->index;
}

struct slice shard_name(const struct shard *shard)
{
    return slice_from_text(shard->config->name);
}

uint64_t shard_place(const struct shard *shard)
{
    return shard->place;
}

bool shard_is_left(const struct shard *shard)
{
    return shard->is_left;
}

bool shard_is_usable(const struct shard *shard)
{
    return shard->is_usable;
}

bool shard_is_up(const struct shard *shard)
{
    return link_is_up(shard->publishing);
}

bool shard_is_complete(const struct shard *shard)
{
    return shard->is_complete;
}

uint64_t shard_heard_at(const struct shard *shard)
{
    return shard->heard_at;
}

static bool is_full(const struct shard *shard, bool has_waited)
{
    return shard->is_usable && (outbox_waiting_bytes(shard->outbox) > SHARD_FULL_BYTES ||
                                (shard->was_full && !has_waited));
}

bool shard_set_is_full(const struct shard_set *set, unsigned partition, bool has_waited)
{
    const struct shard *shard = shard_of_partition(set, partition);
    return shard != NULL && is_full(shard, has_waited);
}

bool shard_set_is_full_everywhere(const struct shard_set *set, bool has_waited)
{
    for (size_t i = 0; i < set->count; i++)
        if (!is_full(set->shards[i], has_waited))
            return false;
    return set->count > 0;
}

bool shard_set_has_waiting(const struct shard_set *set, unsigned partition)
{
    const struct shard *shard = shard_of_partition(set, partition);
    return shard != NULL ? outbox_first(shard->outbox) != NULL
                         : !TAILQ_EMPTY(&set->homeless);
}

static const char *state_text(const struct shard *shard)
{
    if (shard->is_usable)
        return "up";
    if (shard->refuses)
        return "down";
    if (link_is_up(shard->publishing) && link_is_up(shard->subscribing)) {
        if (!shard->is_complete)
            return "subscribing";
        return shard->set->is_ready ? "unheard" : "starting";
    }
    return shard->has_been_down || shard->downs > 0 ? "down" : "connecting";
}

struct shard_status shard_status(const struct shard *shard)
{
    const struct link *failed =
        link_is_up(shard->publishing) ? shard->subscribing : shard->publishing;
    struct outbox_status outbox = outbox_status(shard->outbox);
    return (struct shard_status){
        .name = shard->label,
        .state = state_text(shard),
        .why = shard->is_usable      ? ""
               : !link_is_up(failed) ? link_last_text(failed)
               : shard->refuses      ? shard->refusal
                                     : "",
        .changed_at = shard->changed_at,
        .publishing = link_state_text(link_state(shard->publishing)),
        .subscribing = link_state_text(link_state(shard->subscribing)),
        .partitions = shard->partitions,
        .sent_here = shard->sent_here,
        .wanted = shard->wanted,
        .confirmed = shard->confirmed_count,
        .waiting = outbox.waiting,
        .waiting_bytes = outbox.waiting_bytes,
        .in_flight = link_in_flight_count(shard->publishing),
        .in_flight_bytes = link_in_flight_bytes(shard->publishing),
        .published = shard->published,
        .received = shard->received,
        .retransmitted = outbox.retransmitted,
        .downs = shard->downs,
        .round_trip = shard->round_trip,
    };
}
