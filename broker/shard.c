#include "broker/shard_parts.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/partition_map.h"
#include "broker/standing_clock.h"
#include "shared/log.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* What Redis puts around a message of ours, and the envelope: more than that is not ours. */
#define MESSAGE_EXTRA ((size_t)1024 * 1024)

_Static_assert(CLOSE_REASON_COUNT <= 64, "told_reasons has a bit for each");

static struct log_subject subject_of(const struct shard *shard)
{
    return (struct log_subject){.kind = "shard", .name = shard->config->name};
}

/* ── names ── */

#define CHANNEL_MAX 128

static struct slice channel_of(const struct shard_set *set, unsigned partition,
                               char text[CHANNEL_MAX])
{
    int len = snprintf(text, CHANNEL_MAX, "%s%04x", set->prefix, partition);
    check(len > 0 && len < CHANNEL_MAX);
    return slice_of(text, (size_t)len);
}

/* The partition of a channel's name; false when it is none of ours. */
static bool partition_of(const struct shard_set *set, struct slice channel,
                         unsigned *partition)
{
    if (channel.len != set->prefix_len + 4 ||
        memcmp(channel.data, set->prefix, set->prefix_len) != 0)
        return false;
    unsigned number = 0;
    for (size_t i = set->prefix_len; i < channel.len; i++) {
        char c = channel.data[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0)
            return false;
        number = number * 16 + (unsigned)digit;
    }
    *partition = number;
    return number < set->partition_count;
}

/* ── subscriptions ── */

static bool link_is_up(const struct link *link)
{
    return link_state(link) == LINK_UP;
}

static void ask(struct shard *shard, unsigned number, struct shard_seat *seat)
{
    if (seat->is_asked || !link_is_up(shard->subscribing))
        return;
    char text[CHANNEL_MAX];
    seat->is_asked = true;
    shard->due++;
    link_subscribe(shard->subscribing, channel_of(shard->set, number, text));
}

static void unask(struct shard *shard, unsigned number, struct shard_seat *seat)
{
    if (!seat->is_asked)
        return;
    char text[CHANNEL_MAX];
    shard->confirmed_count -= seat->is_confirmed;
    seat->is_asked = seat->is_confirmed = false;
    link_unsubscribe(shard->subscribing, channel_of(shard->set, number, text));
}

/* The seat of this shard, NULL if the partition has none there. */
static struct shard_seat *seat_of(const struct shard *shard, unsigned number)
{
    struct partition *partition = &shard->set->partitions[number];
    for (unsigned rank = 0; rank < SHARD_RANKS; rank++)
        if (partition->seats[rank].shard == shard->index)
            return &partition->seats[rank];
    return NULL;
}

/* The link is new: all that is wanted now makes it complete. */
static void ask_all(struct shard *shard)
{
    struct shard_set *set = shard->set;
    link_subscribe(shard->subscribing, slice_from_text(set->control_channel));
    link_subscribe(shard->subscribing, slice_from_text(set->own_channel));
    shard->due += 2;
    for (unsigned i = 0; i < set->partition_count; i++) {
        struct shard_seat *seat = set->partitions[i].is_wanted ? seat_of(shard, i) : NULL;
        if (seat != NULL)
            ask(shard, i, seat);
    }
    shard->complete_due = shard->due;
}

static void forget_asked(struct shard *shard)
{
    struct shard_set *set = shard->set;
    for (unsigned i = 0; i < set->partition_count; i++) {
        struct shard_seat *seat = seat_of(shard, i);
        if (seat != NULL)
            seat->is_asked = seat->is_confirmed = false;
    }
    shard->due = shard->complete_due = shard->confirmed_count = 0;
    if (!shard->is_complete)
        return;
    shard->is_complete = false;
    set->callbacks.on_complete(set->callbacks.context, shard, false);
}

static void set_wanted(struct shard_set *set, unsigned number, bool is_wanted)
{
    struct partition *partition = &set->partitions[number];
    partition->is_wanted = is_wanted;
    set->callbacks.on_wanted(set->callbacks.context, number, is_wanted);
    for (unsigned rank = 0; rank < SHARD_RANKS; rank++) {
        struct shard_seat *seat = &partition->seats[rank];
        if (seat->shard == SHARD_NOWHERE)
            continue;
        struct shard *shard = &set->shards[seat->shard];
        shard->wanted += is_wanted ? 1 : UINT_MAX;
        if (is_wanted)
            ask(shard, number, seat);
        else
            unask(shard, number, seat);
    }
}

static void want(struct shard_set *set, unsigned number)
{
    struct partition *partition = &set->partitions[number];
    if (partition->wants++ > 0)
        return;
    if (partition->is_wanted)
        set->lingering--;
    else
        set_wanted(set, number, true);
}

static void unwant(struct shard_set *set, unsigned number)
{
    struct partition *partition = &set->partitions[number];
    check(partition->wants > 0);
    if (--partition->wants > 0)
        return;
    partition->unwanted_at = timing_now();
    set->lingering++;
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
    if (link_is_up(link)) {
        if (shard->is_complete)
            log_warn(&subject, "not heard by every broker");
        return;
    }
    enum close_reason reason = link_last_reason(link);
    if (reason == CLOSE_SHUTDOWN ||
        (shard->has_been_down && (shard->told_reasons & (UINT64_C(1) << reason)) != 0))
        return;
    shard->has_been_down = true;
    shard->told_reasons |= UINT64_C(1) << reason;
    log_error(&subject, "down", LOG_TEXT("reason", close_reason_label((int)reason)),
              LOG_TEXT("why", link_last_text(link)));
}

void shard_pump(struct shard *shard)
{
    outbox_pump(shard->outbox);
    if (shard->was_full && outbox_waiting_bytes(shard->outbox) < SHARD_FULL_BYTES / 2) {
        shard->was_full = false;
        shard->set->callbacks.on_relief(shard->set->callbacks.context);
    }
}

static void settle(struct shard_set *set)
{
    if (shard_set_is_settled(set))
        set->callbacks.on_relief(set->callbacks.context);
}

static void on_link_change(void *context, struct link *link)
{
    struct shard *shard = context;
    struct shard_set *set = shard->set;
    bool is_up = link_is_up(link);
    bool was_usable = shard->is_usable;
    if (link == shard->publishing && is_up)
        set->callbacks.on_up(set->callbacks.context, shard);
    if (link == shard->publishing && link_state(link) == LINK_DOWN)
        outbox_take_back(shard->outbox);
    if (link == shard->subscribing && is_up)
        ask_all(shard);
    if (link == shard->subscribing && link_state(link) == LINK_DOWN)
        forget_asked(shard);
    shard_set_place(set);
    if (!was_usable && !shard->is_usable && link_state(link) == LINK_DOWN)
        shard_tell(shard);
    if (is_up)
        shard_pump(shard);
    settle(set);
}

static void on_link_subscribed(void *context, struct link *link UNUSED,
                               struct slice channel, bool is_subscribed)
{
    struct shard *shard = context;
    struct shard_set *set = shard->set;
    if (!is_subscribed || shard->due == 0)
        return;
    unsigned number;
    if (partition_of(set, channel, &number)) {
        struct shard_seat *seat = seat_of(shard, number);
        if (seat != NULL && seat->is_asked && !seat->is_confirmed) {
            seat->is_confirmed = true;
            shard->confirmed_count++;
        }
    }
    /* Confirmations come in the order of SUBSCRIBE: the first ones are of the connect. */
    shard->due--;
    if (shard->complete_due > 0 && --shard->complete_due == 0) {
        shard->is_complete = true;
        set->callbacks.on_complete(set->callbacks.context, shard, true);
        shard_set_place(set);
    }
    if (shard->due == 0)
        settle(set);
}

static void on_link_message(void *context, struct link *link UNUSED, struct slice channel,
                            struct slice payload)
{
    struct shard *shard = context;
    struct shard_set *set = shard->set;
    unsigned partition;
    shard->heard_at = standing_now();
    if (partition_of(set, channel, &partition)) {
        shard->received++;
        set->callbacks.on_message(set->callbacks.context, shard, payload);
    } else if (slice_equals(channel, slice_from_text(set->own_channel)) &&
               slice_starts_with(payload, SLICE("S1"))) {
        set->callbacks.on_message(set->callbacks.context, shard, payload);
    } else {
        set->callbacks.on_control(set->callbacks.context, shard, payload);
    }
}

static void on_link_reply(void *context, struct link *link UNUSED, bool ok,
                          struct slice text)
{
    struct shard *shard = context;
    struct sent *sent = outbox_replied(shard->outbox);
    if (sent != NULL) {
        uint64_t took = timing_now() - sent->accepted_at;
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

static void shard_init(struct shard_set *set, struct event_base *base, struct turn *turn,
                       size_t index, const char *client_name)
{
    struct shard *shard = &set->shards[index];
    shard->set = set;
    shard->index = index;
    shard->config = broker_config_shard(set->config, index);
    shard->changed_at = timing_now();
    const struct link_callbacks callbacks = {on_link_change, on_link_reply,
                                             on_link_subscribed, on_link_message, shard};
    struct link_config config = {
        .kind = LINK_PUBLISHING,
        .shard = shard->config,
        .client_name = client_name,
        .message_max = set->config->payload_max + MESSAGE_EXTRA,
    };
    shard->publishing = link_new(base, turn, set->dns, &config, &callbacks);
    const struct outbox_callbacks outbox = {on_outbox_sending, on_outbox_answer, shard};
    shard->outbox = outbox_new(set->ring, shard->publishing, &outbox);
    config.kind = LINK_SUBSCRIBING;
    shard->subscribing = link_new(base, turn, set->dns, &config, &callbacks);
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
                                const struct broker_config *config,
                                const struct partition_map *map, struct sent_ring *ring,
                                uint64_t origin, const struct shard_callbacks *callbacks)
{
    struct shard_set *set = must_calloc(1, sizeof(*set));
    set->config = config;
    set->ring = ring;
    set->callbacks = *callbacks;
    set->count = broker_config_shard_count(config);
    check(set->count > 0);
    set->prefix = must_printf("sidrail1:%s:p:", config->cluster_name);
    set->prefix_len = strlen(set->prefix);
    set->control_channel = must_printf("sidrail1:%s:c", config->cluster_name);
    set->own_channel = must_printf("sidrail1:%s:o:%016llx", config->cluster_name,
                                   (unsigned long long)origin);
    TAILQ_INIT(&set->homeless);
    set->dns = dns_new(base);
    char client_name[64];
    snprintf(client_name, sizeof(client_name), "sidrail-broker-%016llx",
             (unsigned long long)origin);
    set->partition_count = partition_map_partitions(map);
    set->partitions = must_calloc(set->partition_count, sizeof(struct partition));
    set->shards = must_calloc(set->count, sizeof(struct shard));
    for (size_t i = 0; i < set->count; i++)
        shard_init(set, base, turn, i, client_name);
    for (unsigned i = 0; i < set->partition_count; i++) {
        struct partition *partition = &set->partitions[i];
        uint16_t home = partition_map_shard(map, i);
        uint16_t standby = partition_map_standby(map, i);
        check(home < set->count);
        partition->seats[0].shard = home;
        partition->seats[1].shard =
            standby == PARTITION_NO_SHARD ? SHARD_NOWHERE : standby;
        partition->sent_to = SHARD_NOWHERE;
        set->shards[home].partitions++;
    }
    return set;
}

void shard_set_free(struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        outbox_free(set->shards[i].outbox); /* what waits belongs to the ring */
        link_free(set->shards[i].publishing);
        link_free(set->shards[i].subscribing);
    }
    evdns_base_free(set->dns, 0);
    free(set->shards);
    free(set->partitions);
    free(set->prefix);
    free(set->control_channel);
    free(set->own_channel);
    free(set);
}

void shard_set_start(struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        link_start(set->shards[i].subscribing);
        link_start(set->shards[i].publishing);
    }
}

void shard_set_want(struct shard_set *set, uint32_t partition)
{
    if (partition != SHARD_ALL_PARTITIONS) {
        want(set, partition);
        return;
    }
    if (set->wants_all++ == 0)
        for (unsigned i = 0; i < set->partition_count; i++)
            want(set, i);
}

void shard_set_unwant(struct shard_set *set, uint32_t partition)
{
    if (partition != SHARD_ALL_PARTITIONS) {
        unwant(set, partition);
        return;
    }
    check(set->wants_all > 0);
    if (--set->wants_all == 0)
        for (unsigned i = 0; i < set->partition_count; i++)
            unwant(set, i);
}

bool shard_set_is_wanted(const struct shard_set *set, unsigned partition)
{
    return set->partitions[partition].is_wanted;
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
        const struct shard_seat *seat = &set->partitions[partition].seats[rank];
        if (seat->shard == SHARD_NOWHERE)
            continue;
        const struct shard *shard = &set->shards[seat->shard];
        if (is_on_its_way(shard) ||
            (link_is_up(shard->subscribing) && !seat->is_confirmed))
            return false;
    }
    return true;
}

bool shard_set_is_settled(const struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        if (!is_settled(&set->shards[i]))
            return false;
    return true;
}

void shard_set_tick(struct shard_set *set, uint64_t now)
{
    shard_set_place(set);
    if (set->lingering == 0)
        return;
    for (unsigned i = 0; i < set->partition_count; i++) {
        struct partition *partition = &set->partitions[i];
        if (partition->is_wanted && partition->wants == 0 &&
            now - partition->unwanted_at > SHARD_LINGER) {
            set->lingering--;
            set_wanted(set, i, false);
        }
    }
}

size_t shard_set_queued_bytes(const struct shard_set *set)
{
    size_t bytes = 0;
    for (size_t i = 0; i < set->count; i++)
        bytes += link_queued_bytes(set->shards[i].publishing) +
                 link_queued_bytes(set->shards[i].subscribing);
    return bytes;
}

void shard_set_flush(struct shard_set *set, size_t bytes)
{
    for (size_t i = 0; i < set->count; i++) {
        if (link_queued_bytes(set->shards[i].publishing) >= bytes)
            link_flush(set->shards[i].publishing);
        if (link_queued_bytes(set->shards[i].subscribing) >= bytes)
            link_flush(set->shards[i].subscribing);
    }
}

struct shard *shard_of_partition(const struct shard_set *set, unsigned partition)
{
    check(partition < set->partition_count);
    uint16_t shard = set->partitions[partition].sent_to;
    return shard == SHARD_NOWHERE ? NULL : &set->shards[shard];
}

size_t shard_set_count(const struct shard_set *set)
{
    return set->count;
}

struct shard *shard_set_get(const struct shard_set *set, size_t index)
{
    check(index < set->count);
    return &set->shards[index];
}

size_t shard_set_usable_count(const struct shard_set *set)
{
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++)
        count += set->shards[i].is_usable;
    return count;
}

bool shard_set_is_idle(const struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        if (!outbox_is_idle(set->shards[i].outbox))
            return false;
    return TAILQ_EMPTY(&set->homeless);
}

void shard_send_control(struct shard *shard, struct span command)
{
    outbox_put_control(shard->outbox, command);
}

void shard_send_answer(struct shard *shard, uint64_t asker, uint16_t partition,
                       uint64_t sequence)
{
    outbox_put_answer(shard->outbox, asker, partition, sequence);
    shard_pump(shard);
}

size_t shard_index(const struct shard *shard)
{
    return shard->index;
}

struct slice shard_name(const struct shard *shard)
{
    return slice_from_text(shard->config->name);
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

bool shard_set_is_full(const struct shard_set *set, unsigned partition)
{
    const struct shard *shard = shard_of_partition(set, partition);
    return shard != NULL && shard->is_usable &&
           outbox_waiting_bytes(shard->outbox) > SHARD_FULL_BYTES;
}

const struct sent *shard_set_first_waiting(const struct shard_set *set,
                                           unsigned partition)
{
    const struct shard *shard = shard_of_partition(set, partition);
    return shard != NULL ? outbox_first(shard->outbox) : TAILQ_FIRST(&set->homeless);
}

static const char *state_text(const struct shard *shard)
{
    if (shard->is_usable)
        return "up";
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
        .name = shard->config->name,
        .state = state_text(shard),
        .why = shard->is_usable || link_is_up(failed) ? "" : link_last_text(failed),
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
