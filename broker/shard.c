#include "broker/shard.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/partition_map.h"
#include "shared/log.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

/* What Redis puts around a message of ours, and the envelope: more than that is not ours. */
#define MESSAGE_EXTRA ((size_t)1024 * 1024)

_Static_assert(CLOSE_REASON_COUNT <= 64, "told_reasons has a bit for each");

struct shard {
    struct shard_set *set;
    size_t index;
    const struct broker_shard_config *config; /* borrowed */
    struct link *publishing;
    struct link *subscribing;
    bool is_usable;
    bool was_full; /* somebody may wait for room */
    uint64_t changed_at;
    struct sent_queue waiting;
    struct sent_queue in_flight;
    size_t waiting_count, waiting_bytes;
    unsigned partitions;
    unsigned due; /* SUBSCRIBE without confirmation */
    unsigned confirmed_count;
    bool has_been_down;    /* the first failure is told already */
    uint64_t told_reasons; /* those that were logged since it was up, a bit each */
    uint64_t published, received, retransmitted, downs;
    uint64_t round_trip;
};

/* A partition as this broker sees it. */
struct partition {
    uint32_t wants;
    bool is_wanted;    /* wants > 0, or lingering */
    bool is_asked;     /* SUBSCRIBE was sent on the present link */
    bool is_confirmed; /* and answered */
    uint64_t unwanted_at;
    uint16_t shard;
};

struct shard_set {
    const struct broker_config *config; /* borrowed */
    struct sent_ring *ring;             /* borrowed */
    struct shard_callbacks callbacks;
    struct evdns_base *dns;
    struct shard *shards;
    size_t count;
    struct partition *partitions;
    unsigned partition_count;
    uint32_t wants_all;
    unsigned lingering; /* partitions wanted by nobody and still subscribed */
    char *prefix;       /* "sidrail1:<cluster>:p:" */
    size_t prefix_len;
};

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

static bool link_is_open(const struct link *link)
{
    return link_state(link) >= LINK_UP;
}

static void ask(struct shard *shard, unsigned number)
{
    struct partition *partition = &shard->set->partitions[number];
    if (partition->is_asked || !link_is_open(shard->subscribing))
        return;
    char text[CHANNEL_MAX];
    partition->is_asked = true;
    shard->due++;
    link_subscribe(shard->subscribing, channel_of(shard->set, number, text));
}

static void unask(struct shard *shard, unsigned number)
{
    struct partition *partition = &shard->set->partitions[number];
    if (!partition->is_asked)
        return;
    char text[CHANNEL_MAX];
    if (partition->is_confirmed)
        shard->confirmed_count--;
    else
        shard->due--;
    partition->is_asked = partition->is_confirmed = false;
    link_unsubscribe(shard->subscribing, channel_of(shard->set, number, text));
}

static void ask_all(struct shard *shard)
{
    struct shard_set *set = shard->set;
    for (unsigned i = 0; i < set->partition_count; i++)
        if (set->partitions[i].shard == shard->index && set->partitions[i].is_wanted)
            ask(shard, i);
}

static void forget_asked(struct shard *shard)
{
    struct shard_set *set = shard->set;
    for (unsigned i = 0; i < set->partition_count; i++)
        if (set->partitions[i].shard == shard->index)
            set->partitions[i].is_asked = set->partitions[i].is_confirmed = false;
    shard->due = shard->confirmed_count = 0;
}

static void set_wanted(struct shard_set *set, unsigned number, bool is_wanted)
{
    struct partition *partition = &set->partitions[number];
    struct shard *shard = &set->shards[partition->shard];
    partition->is_wanted = is_wanted;
    set->callbacks.on_wanted(set->callbacks.context, number, is_wanted);
    if (is_wanted)
        ask(shard, number);
    else
        unask(shard, number);
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

/* One line for a change of state; the same failure again is none. */
static void tell(struct shard *shard)
{
    struct log_subject subject = subject_of(shard);
    if (shard->is_usable) {
        log_info(&subject, "up", LOG_UNSIGNED("partitions", shard->partitions),
                 LOG_UNSIGNED("waiting", shard->waiting_count));
        shard->has_been_down = false;
        shard->told_reasons = 0;
        return;
    }
    const struct link *link =
        link_is_open(shard->publishing) ? shard->subscribing : shard->publishing;
    if (link_state(link) == LINK_SUSPECT || link_is_open(link)) {
        log_warn(&subject, "suspect",
                 LOG_TEXT("reason", "no answer for a second; messages wait"));
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

static bool should_be_usable(const struct shard *shard)
{
    return link_is_up(shard->publishing) && link_is_up(shard->subscribing) &&
           shard->due == 0;
}

static void send_waiting(struct shard *shard)
{
    struct sent *sent;
    while (shard->is_usable && (sent = TAILQ_FIRST(&shard->waiting)) != NULL &&
           link_has_room(shard->publishing, sent->command.len)) {
        TAILQ_REMOVE(&shard->waiting, sent, of_queue);
        shard->waiting_count--;
        shard->waiting_bytes -= sent->command.len;
        sent_ring_send(shard->set->ring, sent);
        TAILQ_INSERT_TAIL(&shard->in_flight, sent, of_queue);
        if (sent->retransmitted) {
            shard->retransmitted++;
            metrics_add(M_RETRANSMITTED, 1);
        }
        link_send(shard->publishing, sent->command);
    }
    if (shard->was_full && shard->waiting_bytes < SHARD_FULL_BYTES / 2) {
        shard->was_full = false;
        shard->set->callbacks.on_relief(shard->set->callbacks.context);
    }
}

/* The publishing link is gone: what was in flight waits again, before everything else, in its order. */
static void take_back(struct shard *shard)
{
    struct sent *sent;
    while ((sent = TAILQ_LAST(&shard->in_flight, sent_queue)) != NULL) {
        TAILQ_REMOVE(&shard->in_flight, sent, of_queue);
        sent_ring_return(shard->set->ring, sent);
        TAILQ_INSERT_HEAD(&shard->waiting, sent, of_queue);
        shard->waiting_count++;
        shard->waiting_bytes += sent->command.len;
    }
}

static void settle(struct shard_set *set)
{
    if (shard_set_is_settled(set))
        set->callbacks.on_relief(set->callbacks.context);
}

/* The first confirmed subscriptions make a shard usable, but later ones must not take that away: a new
 * interest is no reason to hold messages. */
static void judge(struct shard *shard)
{
    bool is_usable = shard->is_usable
                         ? link_is_up(shard->publishing) && link_is_up(shard->subscribing)
                         : should_be_usable(shard);
    if (is_usable == shard->is_usable)
        return;
    shard->is_usable = is_usable;
    shard->changed_at = timing_now();
    shard->downs += !is_usable;
    tell(shard);
    shard->set->callbacks.on_change(shard->set->callbacks.context, shard);
    send_waiting(shard);
}

static void on_link_change(void *context, struct link *link)
{
    struct shard *shard = context;
    if (link == shard->publishing && link_state(link) == LINK_DOWN)
        take_back(shard);
    if (link == shard->subscribing && link_state(link) == LINK_DOWN)
        forget_asked(shard);
    if (link == shard->subscribing && link_state(link) == LINK_UP)
        ask_all(shard);
    bool was_usable = shard->is_usable;
    judge(shard);
    if (!was_usable && !shard->is_usable && link_state(link) == LINK_DOWN)
        tell(shard);
    settle(shard->set);
}

static void on_link_subscribed(void *context, struct link *link UNUSED,
                               struct slice channel, bool is_subscribed)
{
    struct shard *shard = context;
    unsigned number;
    if (!is_subscribed || !partition_of(shard->set, channel, &number))
        return;
    struct partition *partition = &shard->set->partitions[number];
    if (!partition->is_asked || partition->is_confirmed)
        return;
    partition->is_confirmed = true;
    shard->confirmed_count++;
    check(shard->due > 0);
    if (--shard->due > 0)
        return;
    judge(shard);
    settle(shard->set);
}

static void on_link_message(void *context, struct link *link UNUSED, struct slice channel,
                            struct slice payload)
{
    struct shard *shard = context;
    unsigned partition;
    if (!partition_of(shard->set, channel, &partition))
        return;
    shard->received++;
    shard->set->callbacks.on_message(shard->set->callbacks.context, shard, partition,
                                     payload);
}

static void on_link_reply(void *context, struct link *link UNUSED, bool ok,
                          struct slice text)
{
    struct shard *shard = context;
    struct sent *sent = TAILQ_FIRST(&shard->in_flight);
    check(sent != NULL);
    TAILQ_REMOVE(&shard->in_flight, sent, of_queue);
    uint64_t took = timing_now() - sent->accepted_at;
    shard->round_trip =
        shard->round_trip == 0 ? took : (shard->round_trip * 7 + took) / 8;
    metrics_observe(M_PUBLISH_SECONDS, took);
    shard->published += ok;
    shard->set->callbacks.on_answer(shard->set->callbacks.context, shard, sent, ok, text);
    send_waiting(shard);
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
    TAILQ_INIT(&shard->waiting);
    TAILQ_INIT(&shard->in_flight);
    const struct link_callbacks callbacks = {on_link_change, on_link_reply,
                                             on_link_subscribed, on_link_message, shard};
    struct link_config config = {
        .kind = LINK_PUBLISHING,
        .shard = shard->config,
        .client_name = client_name,
        .message_max = set->config->payload_max + MESSAGE_EXTRA,
    };
    shard->publishing = link_new(base, turn, set->dns, &config, &callbacks);
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
                                const char *client_name,
                                const struct shard_callbacks *callbacks)
{
    struct shard_set *set = must_calloc(1, sizeof(*set));
    set->config = config;
    set->ring = ring;
    set->callbacks = *callbacks;
    set->count = broker_config_shard_count(config);
    check(set->count > 0);
    set->prefix = must_printf("sidrail1:%s:p:", config->cluster_name);
    set->prefix_len = strlen(set->prefix);
    set->dns = dns_new(base);
    set->partition_count = partition_map_partitions(map);
    set->partitions = must_calloc(set->partition_count, sizeof(struct partition));
    set->shards = must_calloc(set->count, sizeof(struct shard));
    for (size_t i = 0; i < set->count; i++)
        shard_init(set, base, turn, i, client_name);
    for (unsigned i = 0; i < set->partition_count; i++) {
        uint16_t shard = partition_map_shard(map, i);
        check(shard < set->count);
        set->partitions[i].shard = shard;
        set->shards[shard].partitions++;
    }
    return set;
}

void shard_set_free(struct shard_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        /* What waits belongs to the ring. */
        TAILQ_INIT(&set->shards[i].waiting);
        TAILQ_INIT(&set->shards[i].in_flight);
        link_free(set->shards[i].publishing);
        link_free(set->shards[i].subscribing);
    }
    evdns_base_free(set->dns, 0);
    free(set->shards);
    free(set->partitions);
    free(set->prefix);
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

static bool is_settled(const struct shard *shard)
{
    enum link_state state = link_state(shard->subscribing);
    bool is_on_its_way =
        state == LINK_RESOLVING || state == LINK_CONNECTING || state == LINK_CHECKING;
    return shard->due == 0 && (!is_on_its_way || shard->has_been_down);
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
    return &set->shards[set->partitions[partition].shard];
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
        if (!TAILQ_EMPTY(&set->shards[i].waiting) ||
            !TAILQ_EMPTY(&set->shards[i].in_flight))
            return false;
    return true;
}

void shard_enqueue(struct shard *shard, struct sent *sent)
{
    check(sent->state == SENT_WAITING);
    TAILQ_INSERT_TAIL(&shard->waiting, sent, of_queue);
    shard->waiting_count++;
    shard->waiting_bytes += sent->command.len;
    shard->was_full |= shard->waiting_bytes > SHARD_FULL_BYTES;
    send_waiting(shard);
}

bool shard_is_usable(const struct shard *shard)
{
    return shard->is_usable;
}

bool shard_is_full(const struct shard *shard)
{
    return shard->is_usable && shard->waiting_bytes > SHARD_FULL_BYTES;
}

const struct sent *shard_first_waiting(const struct shard *shard)
{
    return TAILQ_FIRST(&shard->waiting);
}

static const char *state_text(const struct shard *shard)
{
    if (shard->is_usable)
        return "up";
    if (link_is_open(shard->publishing) && link_is_open(shard->subscribing))
        return shard->due > 0 ? "subscribing" : "suspect";
    return shard->has_been_down || shard->downs > 0 ? "down" : "connecting";
}

struct shard_status shard_status(const struct shard *shard)
{
    unsigned wanted = 0;
    const struct shard_set *set = shard->set;
    for (unsigned i = 0; i < set->partition_count; i++)
        wanted +=
            set->partitions[i].shard == shard->index && set->partitions[i].is_wanted;
    const struct link *failed =
        link_is_open(shard->publishing) ? shard->subscribing : shard->publishing;
    return (struct shard_status){
        .name = shard->config->name,
        .state = state_text(shard),
        .why = shard->is_usable || link_is_open(failed) ? "" : link_last_text(failed),
        .changed_at = shard->changed_at,
        .publishing = link_state_text(link_state(shard->publishing)),
        .subscribing = link_state_text(link_state(shard->subscribing)),
        .partitions = shard->partitions,
        .wanted = wanted,
        .confirmed = shard->confirmed_count,
        .waiting = shard->waiting_count,
        .waiting_bytes = shard->waiting_bytes,
        .in_flight = link_in_flight_count(shard->publishing),
        .in_flight_bytes = link_in_flight_bytes(shard->publishing),
        .published = shard->published,
        .received = shard->received,
        .retransmitted = shard->retransmitted,
        .downs = shard->downs,
        .round_trip = shard->round_trip,
    };
}
