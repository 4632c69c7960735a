#include "broker/broker.h"

#include "broker/broker_admin.h"
#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/broker_tls.h"
#include "broker/deliver.h"
#include "broker/doors.h"
#include "broker/host_ids.h"
#include "broker/pods.h"
#include "broker/publish.h"
#include "broker/shard.h"
#include "broker/turn.h"
#include "shared/lifecycle.h"
#include "shared/log.h"
#include "shared/timing.h"
#include "shared/watched_files.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#define TICK       MILLISECONDS(100)
#define DRAIN_TICK MILLISECONDS(20)
#define SETTLE     MILLISECONDS(50) /* files that change one after the other */

/* What a message may grow to, in times the longest that is taken, when it is written in another dialect: texts in JSON's escapes take
 * up to three times as much (control characters six times), attachments a third more. */
#define REWRITTEN_FACTOR 4

/* As the transcoder needs it. */
#define REWRITTEN_DEPTH_MIN 4

struct broker {
    struct broker_config *config; /* held */
    const char *file;             /* borrowed; NULL: flags only */
    struct watched_files *files;  /* it and what it names; NULL: no file */
    struct event *settled;        /* of them */
    struct event_base *base;
    struct lifecycle *lifecycle;
    struct turn *turn;
    struct partition_map *map; /* NULL: embedded hub */
    struct interest_table *interest;
    struct pod_rooms *pod_rooms;
    struct pods *pods;
    struct host_ids *host_ids;
    struct deliverer *deliverer;
    struct publisher *publisher;
    struct client_set *clients;
    struct command_context context;
    struct doors *doors;
    struct broker_admin *admin;
    struct event *tick;
    struct event *drain_tick;
};

/* ── interests ask for partitions ── */

/* Where messages for this target can come from: one partition for a channel of its own, all of them for
 * python-socketio's channels (spread by room) and for patterns. */
static uint32_t partitions_of(const struct broker *broker,
                              const struct interest_target *target)
{
    if (target->kind == INTEREST_PATTERN ||
        publisher_knows_channel(broker->publisher, target->name))
        return SHARD_ALL_PARTITIONS;
    return partition_of_channel(broker->map, target->name);
}

static void on_first_interest(void *context, struct interest_target *target)
{
    struct broker *broker = context;
    struct shard_set *shards = publisher_shards(broker->publisher);
    if (shards != NULL)
        shard_set_want(shards, partitions_of(broker, target));
}

static void on_last_interest(void *context, struct interest_target *target)
{
    struct broker *broker = context;
    struct shard_set *shards = publisher_shards(broker->publisher);
    if (shards != NULL)
        shard_set_unwant(shards, partitions_of(broker, target));
}

/* So do the rooms of pods with a client manager. */
static uint32_t on_first_room(void *context, struct slice channel, struct slice namespace,
                              struct slice room)
{
    struct broker *broker = context;
    return publisher_want_room(broker->publisher, channel, namespace, room);
}

static void on_last_room(void *context, uint32_t partition)
{
    struct broker *broker = context;
    publisher_unwant_room(broker->publisher, partition);
}

static void on_relief(void *context)
{
    struct broker *broker = context;
    pods_look(broker->pods);
    client_set_resume(broker->clients);
}

static void on_entry(void *context, const struct envelope *envelope)
{
    struct broker *broker = context;
    pods_note_entry(broker->pods, envelope);
}

/* ── clients ── */

static enum client_verdict on_request(void *context, struct client *client, size_t argc,
                                      const struct slice *argv, struct evbuffer *reply)
{
    struct broker *broker = context;
    return command_run(&broker->context, client, argc, argv, reply);
}

static enum first_bytes look_first(void *context UNUSED, struct slice input)
{
    return first_bytes_look(command_table, input);
}

static void on_too_long(void *context, struct client *client,
                        const struct resp_request *request, struct evbuffer *reply)
{
    struct broker *broker = context;
    command_refuse_length(&broker->context, client, request, reply);
}

static void on_client_close(void *context, struct client *client,
                            enum close_reason reason UNUSED)
{
    struct broker *broker = context;
    struct subscriber *subscriber = client_subscriber(client);
    if (subscriber->counts[INTEREST_CHANNEL] + subscriber->counts[INTEREST_PATTERN] > 0)
        metrics_add(M_SUBSCRIBERS, -1);
    if (client_facts(client)->pod != NULL)
        pod_free(broker->pods, client_facts(client)->pod);
    interest_remove_all(broker->interest, subscriber);
    host_ids_forget(broker->host_ids, client);
}

/* Heartbeats go to pods, which listen to a channel of python-socketio messages, on that channel. */
static struct slice message_channel(void *context, struct client *client)
{
    const struct broker *broker = context;
    const struct text_list *channels = &broker->config->channels;
    const struct subscriber *subscriber = client_subscriber(client);
    /* by the few channels that there are: of its own it may have any number */
    for (size_t i = 0; subscriber->counts[INTEREST_CHANNEL] > 0 && i < channels->count;
         i++) {
        struct slice channel = slice_from_text(channels->items[i]);
        const struct interest *interest =
            interest_find(broker->interest, subscriber, INTEREST_CHANNEL, channel);
        if (interest != NULL && interest->active)
            return channel;
    }
    return slice_of(NULL, 0);
}

static bool wants_heartbeat(void *context, struct client *client)
{
    return message_channel(context, client).data != NULL;
}

static bool carries_messages(void *context, struct slice channel)
{
    const struct broker *broker = context;
    return publisher_knows_channel(broker->publisher, channel);
}

static void on_accept(void *context, int fd, const struct address *peer,
                      const struct broker_listener_config *config)
{
    struct broker *broker = context;
    client_open(broker->clients, fd, peer, config);
}

/* ── time ── */

static void on_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct broker *broker = argument;
    publisher_tick(broker->publisher);
    host_ids_tick(broker->host_ids, timing_now());
    pods_tick(broker->pods);
    /* Waiting has an end: handlers look at the time. */
    client_set_resume(broker->clients);
    turn_request(broker->turn);
}

static void end_turn(void *context)
{
    struct broker *broker = context;
    deliverer_rewind(broker->deliverer);
}

/* ── the end ── */

static void on_clients_gone(void *context)
{
    struct broker *broker = context;
    lifecycle_drained(broker->lifecycle);
}

static void on_drain_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct broker *broker = argument;
    if (!publisher_is_idle(broker->publisher))
        return;
    event_del(broker->drain_tick);
    client_set_finish(broker->clients, on_clients_gone, broker);
}

static void on_drain(void *argument)
{
    struct broker *broker = argument;
    broker->context.refuses_subscribers = true;
    doors_stop(broker->doors);
    struct timeval every = timing_to_timeval(DRAIN_TICK);
    check(event_add(broker->drain_tick, &every) == 0);
}

static void on_stop(void *argument, enum lifecycle_end end)
{
    struct broker *broker = argument;
    size_t left = client_count(broker->clients);
    if (end == LIFECYCLE_END_DEADLINE && left > 0)
        log_warn(LOG_SUBJECT("main"), "shutdown.deadline is over",
                 LOG_UNSIGNED("clients", left));
    size_t undelivered = client_set_undelivered(broker->clients);
    if (undelivered > 0)
        log_error(LOG_SUBJECT("main"), "messages were not delivered",
                  LOG_UNSIGNED("messages", undelivered));
    size_t lost = publisher_status(broker->publisher).spill_messages;
    if (lost > 0)
        log_error(LOG_SUBJECT("main"), "messages for shards that are down are lost",
                  LOG_UNSIGNED("messages", lost));
}

/* ── the beginning ── */

static void make_map(struct broker *broker)
{
    if (broker_config_shard_count(broker->config) == 0)
        return;
    struct partition_map_config config = broker_config_map(broker->config);
    broker->map = partition_map_new(&config);
    broker_config_map_cleanup(&config);
}

/* Towards pods. What comes from shards was gathered on its way there: with half of the window batches of that
 * pace pass at once; with the whole of it they would wait twice. */
static uint64_t flush_window(const struct broker_config *config)
{
    uint64_t window = config->flush_window == OPTION_AUTO ? 0 : config->flush_window;
    return broker_config_shard_count(config) > 0 ? window / 2 : window;
}

static size_t rewritten_max(const struct broker_config *config)
{
    return broker_config_foreign_payload_max(config) * REWRITTEN_FACTOR;
}

static unsigned rewritten_depth(const struct broker_config *config)
{
    return config->json_depth < REWRITTEN_DEPTH_MIN ? REWRITTEN_DEPTH_MIN
                                                    : (unsigned)config->json_depth;
}

static struct client_limits limits_of(const struct broker_config *config)
{
    return (struct client_limits){
        .clients = (unsigned)config->clients_max,
        .payload = (size_t)config->payload_max,
        .request = broker_config_request_max(config),
        .input = broker_config_input_max(config),
        .slow_bytes = (size_t)config->slow_bytes,
        .slow_age = config->slow_age,
        .slow_policy = (enum slow_policy)config->slow_policy,
        .flush_window = flush_window(config),
        .heartbeat = config->heartbeat,
        .replay_window = config->replay_window,
        .replay_bytes = (size_t)config->replay_bytes,
        .replay_overlaps = config->replay_tail == TAIL_OVERLAP,
        .depth_max = rewritten_depth(config),
        .rewritten_max =
            config->pickle_mode != PICKLE_MODE_PASS ? rewritten_max(config) : 0,
    };
}

static void make_clients(struct broker *broker)
{
    const struct client_limits limits = limits_of(broker->config);
    const struct client_callbacks callbacks = {
        .on_request = on_request,
        .on_too_long = on_too_long,
        .look_first = look_first,
        .on_close = on_client_close,
        .wants_heartbeat = wants_heartbeat,
        .message_channel = message_channel,
        .carries_messages = carries_messages,
        .context = broker,
    };
    broker->clients = client_set_new(broker->base, broker->turn, &limits, &callbacks);
}

/* ── reload ── */

/* What cannot change while the broker runs stays as it is, and is named. */
static void keep_what_needs_a_restart(const struct broker *broker,
                                      struct broker_config *config)
{
    char names[512];
    if (options_restart_changes(&broker_config_table, broker->config, config, names,
                                sizeof(names)) == 0)
        return;
    log_warn(LOG_SUBJECT("main"), "changed, and needs a restart",
             LOG_TEXT("options", names));
    broker_config_keep(config, broker->config);
}

static void watch_file(void *context, const char *path)
{
    struct broker *broker = context;
    watched_files_add(broker->files, path);
}

static void watch_files(struct broker *broker)
{
    watched_files_begin(broker->files);
    watched_files_add(broker->files, broker->file);
    watched_files_add(broker->files, broker->config->key_file);
    broker_tls_walk_files(broker->config, watch_file, broker);
    watched_files_end(broker->files);
}

static bool is_hub(const struct broker_config *config)
{
    return broker_config_shard_count(config) == 0;
}

static void warn_of_key_file(const struct broker_config *config)
{
    if (config->keys_are_readable_by_others)
        log_warn(LOG_SUBJECT("main"), "the key file can be read by others",
                 LOG_TEXT("path", config->key_file));
}

static void take_over(struct broker *broker, struct broker_config *config)
{
    const struct client_limits limits = limits_of(config);
    client_set_set_limits(broker->clients, &limits);
    lifecycle_set_deadline(broker->lifecycle, config->shutdown_deadline);
    log_init((enum log_level)config->log_level, (enum log_format)config->log_format);
    warn_of_key_file(config);
    broker_tls_warn_of_keys(config, broker->config);
    broker->context.config = config;
    doors_commit(broker->doors);
    broker_config_release(broker->config);
    broker->config = config;
    if (broker->files != NULL)
        watch_files(broker);
}

static bool reload(struct broker *broker, FILE *errors)
{
    if (broker->file == NULL) {
        fputs("started without --config: there is no file to read again\n", errors);
        return false;
    }
    struct broker_config *config = broker_config_load(broker->file, NULL, 0, errors);
    if (config == NULL)
        return false;
    bool ok = is_hub(config) == is_hub(broker->config);
    if (!ok)
        fputs("shards: from or to the embedded hub needs a restart\n", errors);
    if (ok)
        keep_what_needs_a_restart(broker, config);
    ok = ok && doors_prepare(broker->doors, config, errors);
    if (ok && !publisher_reload(broker->publisher, config)) {
        fputs("shards: too many changes wait for other brokers\n", errors);
        doors_cancel(broker->doors);
        ok = false;
    }
    if (ok)
        take_over(broker, config);
    else
        broker_config_release(config);
    return ok;
}

bool broker_reload(struct broker *broker, FILE *errors)
{
    bool ok = reload(broker, errors);
    metrics_add_by(M_RELOADS, !ok, 1);
    if (ok)
        log_info(LOG_SUBJECT("main"), "reloaded", LOG_TEXT("file", broker->file));
    return ok;
}

/* By a signal or by the file: the log gets what is wrong. */
static void on_reload(void *argument)
{
    struct broker *broker = argument;
    char *text = NULL;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);
    check(errors != NULL);
    bool ok = broker_reload(broker, errors);
    check(fclose(errors) == 0);
    struct slice rest = slice_of(text, len);
    while (!ok && rest.len > 0) {
        size_t end = slice_find(rest, '\n');
        log_error(LOG_SUBJECT("main"), "not reloaded, the old configuration stays",
                  LOG_SLICE("why", slice_to(rest, end)));
        rest = slice_from(rest, end + 1);
    }
    free(text);
}

static void reload_soon(struct broker *broker)
{
    struct timeval wait = timing_to_timeval(SETTLE);
    check(event_add(broker->settled, &wait) == 0);
}

static void on_settled(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct broker *broker = argument;
    if (lifecycle_phase(broker->lifecycle) != LIFECYCLE_READY)
        return;
    if (watched_files_are_busy(broker->files))
        reload_soon(broker);
    else
        on_reload(broker);
}

static void on_file_change(void *argument, const char *path UNUSED, bool more)
{
    if (!more)
        reload_soon(argument);
}

/* ── public ── */

struct broker *broker_new(struct broker_config *config, const char *file)
{
    struct broker *broker = must_calloc(1, sizeof(*broker));
    broker->config = broker_config_hold(config);
    broker->file = file;
    broker->base = event_base_new();
    check(broker->base != NULL);
    const struct lifecycle_callbacks lifecycle = {
        .on_reload = on_reload, .on_drain = on_drain, .on_stop = on_stop};
    broker->lifecycle = lifecycle_new(broker->base, &lifecycle, broker);
    lifecycle_set_deadline(broker->lifecycle, config->shutdown_deadline);
    broker->turn = turn_new(broker->base);
    make_map(broker);
    const struct interest_callbacks interest = {on_first_interest, on_last_interest,
                                                broker};
    broker->interest = interest_table_new(&interest);
    const struct pod_rooms_callbacks rooms = {on_first_room, on_last_room, broker};
    broker->pod_rooms = pod_rooms_new(&rooms);
    broker->deliverer = deliverer_new(broker->interest, broker->pod_rooms);
    if (config->pickle_mode != PICKLE_MODE_PASS)
        deliverer_transcode(broker->deliverer, rewritten_depth(config),
                            rewritten_max(config));
    make_clients(
        broker); /* its step comes first: then the shards, then memory is used again */
    broker->publisher = publisher_new(broker->base, broker->turn, config, broker->map,
                                      broker->interest, broker->deliverer);
    broker->pods =
        pods_new(broker->interest, broker->pod_rooms, broker->clients, broker->publisher);
    broker->host_ids = host_ids_new(broker->clients, wants_heartbeat, broker);
    publisher_watch_entries(broker->publisher, on_entry, broker);
    turn_add_step(broker->turn, end_turn, broker);
    broker->context = (struct command_context){
        .config = config,
        .clients = broker->clients,
        .interest = broker->interest,
        .publisher = broker->publisher,
        .pods = broker->pods,
        .host_ids = broker->host_ids,
        .started_at = timing_now(),
    };
    broker->tick = event_new(broker->base, -1, EV_PERSIST, on_tick, broker);
    broker->drain_tick = event_new(broker->base, -1, EV_PERSIST, on_drain_tick, broker);
    broker->settled = event_new(broker->base, -1, 0, on_settled, broker);
    check(broker->tick != NULL && broker->drain_tick != NULL && broker->settled != NULL);
    broker->doors = doors_new(broker->base, on_accept, broker);
    broker_tls_warn_of_keys(config, NULL);
    if (!doors_prepare(broker->doors, config, stderr)) {
        broker_free(broker);
        return NULL;
    }
    doors_commit(broker->doors);
    broker->admin = broker_admin_new(broker, broker->base);
    if (broker->admin == NULL) {
        broker_free(broker);
        return NULL;
    }
    return broker;
}

void broker_free(struct broker *broker)
{
    if (broker->admin != NULL)
        broker_admin_free(broker->admin);
    if (broker->files != NULL)
        watched_files_free(broker->files);
    event_free(broker->settled);
    doors_free(broker->doors);
    event_free(broker->tick);
    event_free(broker->drain_tick);
    client_set_free(broker->clients);
    host_ids_free(broker->host_ids);
    pods_free(broker->pods);
    pod_rooms_free(broker->pod_rooms);
    interest_table_free(broker->interest);
    publisher_free(broker->publisher);
    deliverer_free(broker->deliverer);
    if (broker->map != NULL)
        partition_map_free(broker->map);
    turn_free(broker->turn);
    lifecycle_free(broker->lifecycle);
    event_base_free(broker->base);
    broker_config_release(broker->config);
    free(broker);
}

void broker_start(struct broker *broker)
{
    publisher_start(broker->publisher, on_relief, broker);
    doors_start(broker->doors);
    if (broker->file != NULL) {
        broker->files = watched_files_new(broker->base, on_file_change, broker);
        watch_files(broker);
    }
    struct timeval every = timing_to_timeval(TICK);
    check(event_add(broker->tick, &every) == 0);
    log_info(LOG_SUBJECT("main"), "started", LOG_TEXT("version", SIDRAIL_VERSION),
             LOG_UNSIGNED("shards", broker_config_shard_count(broker->config)));
    warn_of_key_file(broker->config);
    broker_config_warn_of_payload(broker->config);
    lifecycle_ready(broker->lifecycle);
}

int broker_run(struct broker *broker)
{
    broker_start(broker);
    return lifecycle_run(broker->lifecycle);
}

struct event_base *broker_base(const struct broker *broker)
{
    return broker->base;
}

const struct broker_config *broker_config_of(const struct broker *broker)
{
    return broker->config;
}

struct command_context *broker_context(struct broker *broker)
{
    return &broker->context;
}

struct lifecycle *broker_lifecycle(struct broker *broker)
{
    return broker->lifecycle;
}
