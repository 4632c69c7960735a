#include "broker/broker_status.h"

#include "broker/agreement.h"
#include "broker/broker.h"
#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/gate.h"
#include "broker/host_ids.h"
#include "broker/hot_rooms.h"
#include "broker/interest.h"
#include "broker/map_change.h"
#include "broker/peers.h"
#include "broker/pods.h"
#include "broker/publish.h"
#include "broker/receive.h"
#include "broker/shard.h"
#include "broker/standing_clock.h"
#include "shared/json_write.h"
#include "shared/lifecycle.h"
#include "shared/timing.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <unistd.h>

/* A status of thousands of clients is of no use to a page; ctl gives them all. */
#define CLIENTS_SHOWN 200
#define ROOMS_SHOWN   20

static double seconds_since(uint64_t then)
{
    return (double)(timing_now() - then) / 1e6;
}

/* ── parts, as JSON ── */

static void write_client(struct json_writer *json, struct client *client)
{
    const struct client_facts *facts = client_facts(client);
    const struct subscriber *subscriber = client_subscriber(client);
    char peer[ADDRESS_TEXT_SIZE];
    json_object_begin(json, NULL);
    json_unsigned(json, "id", facts->id);
    json_text(json, "peer", slice_from_text(address_text(&facts->peer, peer)));
    json_text(json, "name", slice_from_text(facts->name));
    json_text(json, "pod", slice_from_text(facts->identity));
    json_text(json, "library", slice_from_text(facts->lib_name));
    json_text(json, "user",
              slice_from_text(facts->user != NULL ? facts->user->name : ""));
    json_unsigned(json, "protocol", facts->protocol);
    json_decimal(json, "age_seconds", seconds_since(facts->connected_at));
    json_unsigned(json, "channels", subscriber->counts[INTEREST_CHANNEL]);
    json_unsigned(json, "patterns", subscriber->counts[INTEREST_PATTERN]);
    json_unsigned(json, "published", facts->published);
    json_unsigned(json, "delivered", facts->delivered);
    json_unsigned(json, "dropped", facts->dropped);
    struct dialect_guess dialect = dialect_view_given(&facts->dialect);
    json_text(json, "dialect", slice_from_text(message_dialect_name(dialect.dialect)));
    json_text(json, "dialect_basis", slice_from_text(dialect_basis_name(dialect.basis)));
    json_unsigned(json, "missed", facts->missed);
    json_unsigned(json, "queued_bytes", client_output_bytes(client));
    json_decimal(json, "queued_seconds", (double)client_output_age(client) / 1e6);
    json_object_end(json);
}

static void write_clients(struct json_writer *json, struct broker *broker, size_t limit)
{
    json_array_begin(json, "clients");
    /* Subscribers first: they are the pods. */
    for (int pass = 0; pass < 2; pass++)
        for (struct client *it = client_first(broker_context(broker)->clients);
             it != NULL && limit > 0; it = client_next(it)) {
            const struct subscriber *subscriber = client_subscriber(it);
            bool is_subscriber = subscriber->counts[0] + subscriber->counts[1] > 0;
            if (is_subscriber != (pass == 0))
                continue;
            write_client(json, it);
            limit--;
        }
    json_array_end(json);
}

static void write_shards(struct json_writer *json, struct broker *broker)
{
    const struct shard_set *set = publisher_shards(broker_context(broker)->publisher);
    json_array_begin(json, "shards");
    for (size_t i = 0; set != NULL && i < shard_set_count(set); i++) {
        struct shard_status status = shard_status(shard_set_get(set, i));
        json_object_begin(json, NULL);
        json_text(json, "name", slice_from_text(status.name));
        json_text(json, "state", slice_from_text(status.state));
        json_text(json, "why", slice_from_text(status.why));
        json_decimal(json, "state_seconds", seconds_since(status.changed_at));
        json_text(json, "publishing", slice_from_text(status.publishing));
        json_text(json, "subscribing", slice_from_text(status.subscribing));
        json_unsigned(json, "partitions", status.partitions);
        json_unsigned(json, "partitions_sent_here", status.sent_here);
        json_unsigned(json, "partitions_wanted", status.wanted);
        json_unsigned(json, "partitions_subscribed", status.confirmed);
        json_unsigned(json, "waiting", status.waiting);
        json_unsigned(json, "waiting_bytes", status.waiting_bytes);
        json_unsigned(json, "in_flight", status.in_flight);
        json_unsigned(json, "in_flight_bytes", status.in_flight_bytes);
        json_unsigned(json, "published", status.published);
        json_unsigned(json, "received", status.received);
        json_unsigned(json, "retransmitted", status.retransmitted);
        json_unsigned(json, "downs", status.downs);
        json_decimal(json, "lag_ms", (double)status.round_trip / 1e3);
        json_object_end(json);
    }
    json_array_end(json);
}

static void write_interest(struct json_writer *json, struct broker *broker)
{
    static const char *const names[INTEREST_KINDS] = {"channels", "patterns"};
    const struct interest_table *table = broker_context(broker)->interest;
    for (int kind = 0; kind < INTEREST_KINDS; kind++) {
        json_array_begin(json, names[kind]);
        unsigned left = CLIENTS_SHOWN;
        for (const struct interest_target *it =
                 interest_first(table, (enum interest_kind)kind);
             it != NULL && left > 0; it = TAILQ_NEXT(it, of_kind), left--) {
            json_object_begin(json, NULL);
            json_text(json, "name", it->name);
            json_unsigned(json, "subscribers", it->active);
            json_object_end(json);
        }
        json_array_end(json);
    }
    json_array_begin(json, "pods");
    unsigned left = CLIENTS_SHOWN;
    const struct pod *pod = pods_first(broker_context(broker)->pods);
    for (; pod != NULL && left > 0; pod = TAILQ_NEXT(pod, of_pods), left--) {
        json_object_begin(json, NULL);
        json_unsigned(json, "client", client_id(pod->client));
        json_text(json, "channel", pod->filter.channel);
        json_text(json, "state", slice_from_text(pod_state_text(pod)));
        json_unsigned(json, "rooms", pod->filter.count);
        json_object_end(json);
    }
    json_array_end(json);
}

static void write_rooms(struct json_writer *json, struct broker *broker)
{
    const struct hot_room *ranked[HOT_ROOMS_MAX];
    size_t count =
        hot_rooms_rank(publisher_hot_rooms(broker_context(broker)->publisher), ranked);
    json_array_begin(json, "rooms");
    for (size_t i = 0; i < count && i < ROOMS_SHOWN; i++) {
        json_object_begin(json, NULL);
        json_text(json, "room", slice_of(ranked[i]->name, ranked[i]->len));
        json_unsigned(json, "messages", ranked[i]->count);
        json_unsigned(json, "at_most_too_high", ranked[i]->error);
        json_object_end(json);
    }
    json_array_end(json);
}

static const struct {
    const char *name;
    enum broker_metric metric;
} counters[] = {
    {"published_bytes", M_PUBLISHED_BYTES},
    {"deliveries", M_DELIVERIES},
    {"delivered_bytes", M_DELIVERED_BYTES},
    {"dropped", M_DELIVERIES_DROPPED},
    {"received", M_RECEIVED},
    {"duplicates", M_DUPLICATES},
    {"gaps", M_GAPS},
    {"asks", M_ASKS},
    {"answered", M_ANSWERED},
    {"moves", M_MOVES},
    {"filled", M_FILLED},
    {"at_once", M_DELIVERED_AT_ONCE},
    {"retransmitted", M_RETRANSMITTED},
    {"heartbeats", M_HEARTBEATS},
    {"replayed", M_REPLAYED},
    {"commands", M_COMMANDS},
};

static int64_t sum_of(enum broker_metric metric, int values)
{
    int64_t sum = 0;
    for (int i = 0; i < values; i++)
        sum += metrics_sum_by((int)metric, i);
    return sum;
}

static void write_counters(struct json_writer *json)
{
    json_object_begin(json, "counters");
    json_number(json, "published", sum_of(M_PUBLISHED, METHOD_COUNT));
    json_number(json, "refused", sum_of(M_REFUSED, PUBLISH_REFUSAL_COUNT));
    json_number(json, "lost", sum_of(M_LOST, LOSS_REASON_COUNT));
    json_number(json, "transcoded", sum_of(M_TRANSCODED, DIALECT_RAW + 1));
    json_number(json, "missed", sum_of(M_MISSED, DIALECT_RAW + 1));
    for (size_t i = 0; i < ARRAY_LEN(counters); i++)
        json_number(json, counters[i].name, metrics_sum((int)counters[i].metric));
    json_object_end(json);
}

/* Where a change of shards stands, and who is waited for. */
static void write_authentication(struct json_writer *json,
                                 const struct publisher *publisher)
{
    const struct gate *gate = publisher_gate(publisher);
    if (gate == NULL)
        return;
    json_text(json, "authentication", slice_from_text(gate_mode_text(gate)));
    json_text(json, "authentication_state",
              slice_from_text(gate_state_text(gate_state(gate, standing_now()))));
    json_number(json, "unauthenticated", sum_of(M_UNAUTHENTICATED, SEAL_REFUSAL_COUNT));
}

static void write_map(struct json_writer *json, const struct publisher *publisher)
{
    const struct map_change *map = publisher_map(publisher);
    if (map == NULL)
        return;
    struct map_change_status status = map_change_status(map);
    json_text(json, "map_state", slice_from_text(status.state));
    json_unsigned(json, "maps_kept", status.kept);
    json_array_begin(json, "brokers_behind");
    const struct peer *peer;
    for (peer = peer_first(publisher_peers(publisher)); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (map_change_is_behind(map, peer)) {
            char origin[20];
            snprintf(origin, sizeof(origin), "%016llx", (unsigned long long)peer->origin);
            json_text(json, NULL, slice_from_text(origin));
        }
    json_array_end(json);
}

/* The first who differs behind `from` (NULL: of all). */
static const struct peer *next_differing(const struct agreement *agreement,
                                         const struct peer *from)
{
    const struct peer *peer =
        from != NULL ? TAILQ_NEXT(from, of_table) : peer_first(agreement->peers);
    while (peer != NULL && !agreement_differs(agreement, peer))
        peer = TAILQ_NEXT(peer, of_table);
    return peer;
}

unsigned broker_status_differing(struct broker *broker)
{
    const struct publisher *publisher = broker_context(broker)->publisher;
    if (publisher_map(publisher) == NULL)
        return 0;
    struct agreement agreement = publisher_agreement(publisher);
    unsigned count = 0;
    const struct peer *peer = NULL;
    while ((peer = next_differing(&agreement, peer)) != NULL)
        count++;
    return count;
}

/* The brokers with another map, and what differs in it. */
static void write_differing(struct json_writer *json, const struct publisher *publisher)
{
    if (publisher_map(publisher) == NULL)
        return;
    const char *outvoted = publisher_outvoted(publisher);
    struct agreement agreement = publisher_agreement(publisher);
    json_bool(json, "outvoted", outvoted != NULL);
    json_array_begin(json, "brokers_differing");
    const struct peer *peer = NULL;
    while ((peer = next_differing(&agreement, peer)) != NULL) {
        char text[AGREEMENT_TEXT_SIZE];
        json_object_begin(json, NULL);
        snprintf(text, sizeof(text), "%016llx", (unsigned long long)peer->origin);
        json_text(json, "origin", slice_from_text(text));
        agreement_write(&agreement, peer, text);
        json_text(json, "differs", slice_from_text(text));
        json_object_end(json);
    }
    json_array_end(json);
}

static void write_differing_text(struct evbuffer *out, const struct publisher *publisher)
{
    struct agreement agreement = publisher_agreement(publisher);
    const struct peer *peer = NULL;
    while ((peer = next_differing(&agreement, peer)) != NULL) {
        char text[AGREEMENT_TEXT_SIZE];
        agreement_write(&agreement, peer, text);
        evbuffer_add_printf(out, "differs      broker %016llx: %s\n",
                            (unsigned long long)peer->origin, text);
    }
    const char *outvoted = publisher_outvoted(publisher);
    if (outvoted != NULL)
        evbuffer_add_printf(out, "not ready    %s; publishes are refused\n", outvoted);
}

static void write_main(struct json_writer *json, struct broker *broker)
{
    const struct command_context *context = broker_context(broker);
    const struct shard_set *set = publisher_shards(context->publisher);
    struct publisher_status status = publisher_status(context->publisher);
    char text[32];
    json_text(json, "version", SLICE(SIDRAIL_VERSION));
    json_unsigned(json, "pid", (uint64_t)getpid());
    json_text(
        json, "phase",
        slice_from_text(lifecycle_phase_text(lifecycle_phase(broker_lifecycle(broker)))));
    json_decimal(json, "uptime_seconds", seconds_since(context->started_at));
    json_text(json, "mode", set == NULL ? SLICE("hub") : SLICE("shards"));
    json_text(json, "cluster", slice_from_text(context->config->cluster_name));
    snprintf(text, sizeof(text), "%016llx", (unsigned long long)status.origin);
    json_text(json, "origin", slice_from_text(text));
    snprintf(text, sizeof(text), "%016llx", (unsigned long long)status.map_hash);
    json_text(json, "map", slice_from_text(text));
    write_map(json, context->publisher);
    write_authentication(json, context->publisher);
    write_differing(json, context->publisher);
    json_number(json, "clients_open", metrics_sum(M_CLIENTS));
    json_number(json, "subscribers", metrics_sum(M_SUBSCRIBERS));
    json_unsigned(json, "spill_bytes", status.spill_bytes);
    json_unsigned(json, "sent_ring_bytes", status.sent_ring_bytes);
    json_unsigned(json, "sent_ring_messages", status.sent_ring_messages);
    json_unsigned(json, "origins", status.origins);
    json_unsigned(json, "live_brokers", status.live_brokers);
    json_unsigned(json, "gaps_open", status.gaps);
    json_unsigned(json, "held_bytes", status.held_bytes);
    json_unsigned(json, "shards_up", set != NULL ? shard_set_usable_count(set) : 0);
    write_counters(json);
}

static void write_host_ids(struct json_writer *json, struct broker *broker)
{
    struct host_id_report report;
    json_array_begin(json, "shared_host_ids");
    for (size_t i = 0; host_ids_reported(broker_context(broker)->host_ids, i, &report);
         i++) {
        json_object_begin(json, NULL);
        json_text(json, "host_id", slice_of(report.host_id, sizeof(report.host_id)));
        json_unsigned(json, "connections", report.connections);
        json_unsigned(json, "subscribers", report.subscribers);
        json_bool(json, "certain", report.is_certain);
        json_text(json, "remedy", slice_from_text(host_ids_remedy));
        json_object_end(json);
    }
    json_array_end(json);
}

void broker_status_write_json(struct broker *broker, struct evbuffer *out)
{
    struct json_writer json;
    json_init(&json, out);
    json_object_begin(&json, NULL);
    write_main(&json, broker);
    write_shards(&json, broker);
    write_host_ids(&json, broker);
    write_interest(&json, broker);
    write_rooms(&json, broker);
    write_clients(&json, broker, CLIENTS_SHOWN);
    json_object_end(&json);
    evbuffer_add(out, "\n", 1);
}

/* ── as text ── */

static void add_authentication(const struct publisher *publisher, struct evbuffer *out)
{
    const struct gate *gate = publisher_gate(publisher);
    enum gate_state state = gate_state(gate, standing_now());
    evbuffer_add_printf(out, "authentic    %s, %lld messages dropped%s%s\n",
                        gate_mode_text(gate),
                        (long long)sum_of(M_UNAUTHENTICATED, SEAL_REFUSAL_COUNT),
                        state == GATE_AGREES ? "" : ": ", gate_state_text(state));
}

void broker_status_write(struct broker *broker, struct evbuffer *out)
{
    const struct command_context *context = broker_context(broker);
    const struct shard_set *set = publisher_shards(context->publisher);
    struct publisher_status status = publisher_status(context->publisher);
    evbuffer_add_printf(
        out,
        "version      %s\nphase        %s\nuptime       %.0f s\nmode         %s\n"
        "clients      %lld, %lld of them subscribers\n",
        SIDRAIL_VERSION, lifecycle_phase_text(lifecycle_phase(broker_lifecycle(broker))),
        seconds_since(context->started_at), set == NULL ? "hub" : "shards",
        (long long)metrics_sum(M_CLIENTS), (long long)metrics_sum(M_SUBSCRIBERS));
    evbuffer_add_printf(out, "published    %lld\ndeliveries   %lld\nrefused      %lld\n",
                        (long long)sum_of(M_PUBLISHED, METHOD_COUNT),
                        (long long)metrics_sum(M_DELIVERIES),
                        (long long)sum_of(M_REFUSED, PUBLISH_REFUSAL_COUNT));
    evbuffer_add_printf(out, "transcoded   %lld\nmissed       %lld\n",
                        (long long)sum_of(M_TRANSCODED, DIALECT_RAW + 1),
                        (long long)sum_of(M_MISSED, DIALECT_RAW + 1));
    struct host_id_report report;
    for (size_t i = 0; host_ids_reported(context->host_ids, i, &report); i++)
        evbuffer_add_printf(
            out, "shared       host_id %.32s by %u connections of %u subscribers: %s\n",
            report.host_id, report.connections, report.subscribers, host_ids_remedy);
    if (set == NULL)
        return;
    add_authentication(context->publisher, out);
    struct map_change_status map = map_change_status(publisher_map(context->publisher));
    evbuffer_add_printf(out, "map          %016llx, %s\n",
                        (unsigned long long)status.map_hash, map.state);
    if (map.behind > 0)
        evbuffer_add_printf(out, "behind       %u brokers have not loaded the shards\n",
                            map.behind);
    write_differing_text(out, context->publisher);
    evbuffer_add_printf(out,
                        "origin       %016llx\nbrokers      %u others are live\n"
                        "shards up    %zu of %zu\n"
                        "waiting      %zu bytes\nlost         %lld\nduplicates   %lld\n",
                        (unsigned long long)status.origin, status.live_brokers,
                        shard_set_usable_count(set), shard_set_count(set),
                        status.spill_bytes, (long long)sum_of(M_LOST, LOSS_REASON_COUNT),
                        (long long)metrics_sum(M_DUPLICATES));
}

static void write_document(struct broker *broker, struct evbuffer *out,
                           void (*write)(struct json_writer *json, struct broker *broker))
{
    struct json_writer json;
    json_init(&json, out);
    json_object_begin(&json, NULL);
    write(&json, broker);
    json_object_end(&json);
    evbuffer_add(out, "\n", 1);
}

static void write_all_clients(struct json_writer *json, struct broker *broker)
{
    write_clients(json, broker, SIZE_MAX);
}

void broker_status_write_clients(struct broker *broker, struct evbuffer *out, bool json)
{
    if (json) {
        write_document(broker, out, write_all_clients);
        return;
    }
    evbuffer_add_printf(out, "%8s %-24s %-20s %-16s %5s %5s %10s %10s %10s\n", "ID",
                        "PEER", "NAME", "DIALECT", "CHAN", "PATT", "PUBLISHED",
                        "DELIVERED", "QUEUED");
    for (struct client *it = client_first(broker_context(broker)->clients); it != NULL;
         it = client_next(it)) {
        const struct client_facts *facts = client_facts(it);
        const struct subscriber *subscriber = client_subscriber(it);
        char peer[ADDRESS_TEXT_SIZE];
        char dialect[32];
        struct dialect_guess given = dialect_view_given(&facts->dialect);
        snprintf(dialect, sizeof(dialect), "%s %s", message_dialect_name(given.dialect),
                 dialect_basis_name(given.basis));
        evbuffer_add_printf(
            out, "%8llu %-24s %-20s %-16s %5u %5u %10llu %10llu %10zu\n",
            (unsigned long long)facts->id, address_text(&facts->peer, peer), facts->name,
            dialect, subscriber->counts[INTEREST_CHANNEL],
            subscriber->counts[INTEREST_PATTERN], (unsigned long long)facts->published,
            (unsigned long long)facts->delivered, client_output_bytes(it));
    }
}

void broker_status_write_shards(struct broker *broker, struct evbuffer *out, bool json)
{
    const struct shard_set *set = publisher_shards(broker_context(broker)->publisher);
    if (json) {
        write_document(broker, out, write_shards);
        return;
    }
    if (set == NULL) {
        evbuffer_add_printf(out, "no shards: embedded hub\n");
        return;
    }
    evbuffer_add_printf(out, "%-24s %-12s %10s %10s %10s %8s %9s %8s  %s\n", "SHARD",
                        "STATE", "PARTITIONS", "PUBLISHED", "RECEIVED", "WAITING",
                        "IN FLIGHT", "LAG ms", "WHY");
    for (size_t i = 0; i < shard_set_count(set); i++) {
        struct shard_status status = shard_status(shard_set_get(set, i));
        evbuffer_add_printf(
            out, "%-24s %-12s %10u %10llu %10llu %8zu %9zu %8.2f  %s\n", status.name,
            status.state, status.partitions, (unsigned long long)status.published,
            (unsigned long long)status.received, status.waiting, status.in_flight,
            (double)status.round_trip / 1e3, status.why);
    }
}

void broker_status_write_interest(struct broker *broker, struct evbuffer *out, bool json)
{
    if (json) {
        write_document(broker, out, write_interest);
        return;
    }
    static const char *const words[INTEREST_KINDS] = {"channel", "pattern"};
    const struct interest_table *table = broker_context(broker)->interest;
    for (int kind = 0; kind < INTEREST_KINDS; kind++)
        for (const struct interest_target *it =
                 interest_first(table, (enum interest_kind)kind);
             it != NULL; it = TAILQ_NEXT(it, of_kind))
            evbuffer_add_printf(out, "%-8s %6u  %.*s\n", words[kind], it->active,
                                SLICE_ARGS(it->name));
    const struct pod *pod = pods_first(broker_context(broker)->pods);
    for (; pod != NULL; pod = TAILQ_NEXT(pod, of_pods))
        evbuffer_add_printf(out, "pod      %6u  client#%llu %.*s %s\n", pod->filter.count,
                            (unsigned long long)client_id(pod->client),
                            SLICE_ARGS(pod->filter.channel), pod_state_text(pod));
}

void broker_status_write_rooms(struct broker *broker, struct evbuffer *out, bool json)
{
    if (json) {
        write_document(broker, out, write_rooms);
        return;
    }
    const struct hot_room *ranked[HOT_ROOMS_MAX];
    size_t count =
        hot_rooms_rank(publisher_hot_rooms(broker_context(broker)->publisher), ranked);
    for (size_t i = 0; i < count && i < ROOMS_SHOWN; i++)
        evbuffer_add_printf(out, "%10llu  %.*s\n", (unsigned long long)ranked[i]->count,
                            (int)ranked[i]->len, ranked[i]->name);
}
