/*
 * SUBSCRIBE waits for the shards, since a pod may publish as soon as it is confirmed:
 *
 *     SUBSCRIBE a b ─▶ silent interests ─▶ all partitions confirmed? ─yes─▶ activate, reply
 *                                             └ no: WAIT; run again when they are, or after SUBSCRIBE_WAIT_MAX
 */
#include "broker/command_handlers.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/command.h"
#include "broker/command_access.h"
#include "broker/host_ids.h"
#include "broker/pods.h"
#include "broker/publish.h"
#include "broker/resp.h"
#include "broker/standing_clock.h"
#include "broker/subscriber_counts.h"
#include "shared/log.h"

#include <event2/buffer.h>
#include <stdlib.h>

#define SUBSCRIBE_WAIT_MAX SECONDS(1)

/* For how long the request has waited, microseconds; 0 only when it comes for the first time. */
static uint64_t waited(const struct command_call *call)
{
    uint64_t since = call->waits_since;
    if (since == 0)
        return 0; /* nearly always: no look at the clock for each message */
    uint64_t now = timing_now();
    return now > since ? now - since : 1;
}

/* ── interests ── */

static const char *const subscribe_words[INTEREST_KINDS] = {"subscribe", "psubscribe"};
static const char *const unsubscribe_words[INTEREST_KINDS] = {"unsubscribe",
                                                              "punsubscribe"};

/* As Redis counts in its replies: channels and patterns together. */
static size_t interest_count(const struct command_call *call)
{
    const struct subscriber *subscriber = client_subscriber(call->client);
    return (size_t)subscriber->counts[INTEREST_CHANNEL] +
           subscriber->counts[INTEREST_PATTERN];
}

static bool must_wait(const struct command_call *call)
{
    return !publisher_is_settled(call->context->publisher) &&
           waited(call) < SUBSCRIBE_WAIT_MAX;
}

static bool is_named(const struct command_call *call, struct slice channel)
{
    for (size_t i = 1; i < call->argc; i++)
        if (slice_equals(call->argv[i], channel))
            return true;
    return false;
}

/* A client manager subscribes its greeting and its channel, in one command, before anything else. False: this is none. */
static bool greet(struct command_call *call)
{
    struct pods *pods = call->context->pods;
    struct slice channel;
    size_t greeting = 0;
    if (call->argc != 3 || call->facts->pod != NULL)
        return false;
    for (size_t i = 1; i < call->argc && greeting == 0; i++)
        if (pods_is_greeting(call->argv[i], &channel) && is_named(call, channel) &&
            publisher_knows_channel(call->context->publisher, channel))
            greeting = i;
    if (greeting == 0 ||
        !TAILQ_EMPTY(&client_subscriber(call->client)->interests[INTEREST_CHANNEL]))
        return false;
    client_identify(call->client);
    uint8_t host_id[ENVELOPE_HOST_ID_LEN];
    struct slice name = call->argv[greeting];
    if (envelope_host_id_parse(slice_from(name, name.len - 32), host_id))
        host_ids_note(call->context->host_ids, call->client, host_id);
    pods_greet(pods, call->client, channel, call->argv[greeting]);
    for (size_t i = 1; i < call->argc; i++) {
        resp_write_subscribed(call->heard, call->facts->protocol,
                              subscribe_words[INTEREST_CHANNEL], call->argv[i], i);
        if (i == greeting)
            pods_write_greeting(pods, call->facts->pod, call->heard);
    }
    return true;
}

/* How many names it has no interest in yet. */
static size_t count_new(const struct command_call *call, enum interest_kind kind)
{
    size_t count = 0;
    for (size_t i = 1; i < call->argc; i++)
        count += interest_find(call->context->interest, client_subscriber(call->client),
                               kind, call->argv[i]) == NULL;
    return count;
}

/* Has the client room for more? An error says why not. */
static bool has_room(struct command_call *call, enum interest_kind kind)
{
    size_t has = client_subscriber(call->client)->total;
    size_t max = (size_t)call->context->config->channels_max;
    if (has + call->argc - 1 > max && has + count_new(call, kind) > max) {
        command_refuse(call, "ERR more channels than one client may have: %s is %zu",
                       "limits.channels", max);
        return false;
    }
    for (size_t i = 1; i < call->argc && kind == INTEREST_PATTERN; i++)
        if (call->argv[i].len > INTEREST_PATTERN_MAX) {
            command_refuse(call, "ERR pattern is longer than %d bytes",
                           INTEREST_PATTERN_MAX);
            return false;
        }
    return true;
}

static void subscribe(struct command_call *call, enum interest_kind kind)
{
    if (call->context->refuses_subscribers) {
        call->facts->has_begun = false;
        command_refuse(call, "ERR the broker is shutting down");
        return;
    }
    if (kind == INTEREST_CHANNEL && greet(call))
        return;
    if (!call->facts->has_begun && !has_room(call, kind))
        return;
    struct interest_table *table = call->context->interest;
    struct subscriber *subscriber = client_subscriber(call->client);
    bool added;
    for (size_t i = 1; i < call->argc && !call->facts->has_begun; i++)
        interest_add(table, subscriber, kind, call->argv[i], &added);
    bool was_subscriber = interest_count(call) > 0;
    client_identify(call->client);
    bool is_early = must_wait(call);
    if (is_early)
        client_wait_for(call->client, CLIENT_WAITS_FOR_SUBSCRIPTIONS, 0);
    call->facts->has_begun =
        is_early || (!was_subscriber && !client_inherit(call->client));
    if (call->facts->has_begun) {
        call->verdict = CLIENT_WAIT;
        return;
    }
    for (size_t i = 1; i < call->argc; i++) {
        interest_activate(interest_add(table, subscriber, kind, call->argv[i], &added));
        resp_write_subscribed(call->heard, call->facts->protocol, subscribe_words[kind],
                              call->argv[i], interest_count(call));
    }
    if (!was_subscriber) {
        metrics_add(M_SUBSCRIBERS, 1);
        echo_view_subscribe(&call->facts->echo);
    }
}

static void unsubscribe_one(struct command_call *call, enum interest_kind kind,
                            struct slice name)
{
    struct pod *pod = call->facts->pod;
    if (pod != NULL && kind == INTEREST_CHANNEL &&
        slice_equals(pod->filter.channel, name))
        pod_free(call->context->pods, pod);
    interest_remove(call->context->interest, client_subscriber(call->client), kind, name);
    resp_write_subscribed(call->heard, call->facts->protocol, unsubscribe_words[kind],
                          name, interest_count(call));
}

static void unsubscribe(struct command_call *call, enum interest_kind kind)
{
    struct subscriber *subscriber = client_subscriber(call->client);
    bool was_subscriber = interest_count(call) > 0;
    for (size_t i = 1; i < call->argc; i++)
        unsubscribe_one(call, kind, call->argv[i]);
    if (call->argc == 1 && TAILQ_EMPTY(&subscriber->interests[kind]))
        resp_write_subscribed(call->heard, call->facts->protocol, unsubscribe_words[kind],
                              slice_of(NULL, 0), interest_count(call));
    while (call->argc == 1 && !TAILQ_EMPTY(&subscriber->interests[kind])) {
        struct slice name = TAILQ_FIRST(&subscriber->interests[kind])->target->name;
        char *copy = slice_dup(name); /* the name may go with its last interest */
        unsubscribe_one(call, kind, slice_of(copy, name.len));
        free(copy);
    }
    if (was_subscriber && interest_count(call) == 0)
        metrics_add(M_SUBSCRIBERS, -1);
}

void command_subscribe(struct command_call *call)
{
    subscribe(call, INTEREST_CHANNEL);
}

void command_psubscribe(struct command_call *call)
{
    subscribe(call, INTEREST_PATTERN);
}

void command_unsubscribe(struct command_call *call)
{
    unsubscribe(call, INTEREST_CHANNEL);
}

void command_punsubscribe(struct command_call *call)
{
    unsubscribe(call, INTEREST_PATTERN);
}

/* ── messages ── */

/* The request has been accepted before, and waits for the answer of its shard. */
static void await_answer(struct command_call *call)
{
    struct client_facts *facts = call->facts;
    switch (publish_answer(call->context->publisher, &facts->ticket)) {
    case ANSWER_DUE:
        if (waited(call) < PUBLISH_ANSWER_WITHIN) {
            call->verdict = CLIENT_WAIT;
            if (facts->ticket.count == 1) /* of a partition they come in order */
                client_wait_for(call->client, CLIENT_WAITS_FOR_ANSWER,
                                facts->ticket.places[0].partition);
            return;
        }
        command_refuse(call, "ERR accepted, and not confirmed by its shard in time");
        break;
    case ANSWER_REFUSED:
        command_refuse(call, "ERR refused by its shard");
        break;
    case ANSWER_CONFIRMED:
        resp_write_integer(call->reply, facts->ticket_receivers);
        break;
    }
    facts->ticket.count = 0;
}

static void wait_to_publish(struct command_call *call, const struct publish_wait *wait)
{
    call->facts->wait = *wait;
    call->verdict = CLIENT_WAIT;
    switch (wait->what) {
    case PUBLISH_WAITS_FOR_READERS:
        client_wait_for(call->client, CLIENT_WAITS_FOR_READERS, wait->which);
        return;
    case PUBLISH_WAITS_FOR_ANY_SHARD:
        client_wait_for(call->client, CLIENT_WAITS_FOR_ANY_SHARD, 0);
        return;
    case PUBLISH_WAITS_FOR_SHARD:
        client_wait_for(call->client, CLIENT_WAITS_FOR_SHARD, wait->which);
        return;
    case PUBLISH_WAITS_FOR_NOTHING:
    case PUBLISH_WAITS_FOR_ENTRY:
        return;
    }
}

void command_publish(struct command_call *call)
{
    if (call->facts->ticket.count > 0) {
        await_answer(call);
        return;
    }
    struct publish_result result;
    struct publish_wait wait = call->facts->wait;
    uint64_t before = waited(call);
    call->facts->wait = (struct publish_wait){0};
    client_identify(call->client);
    if (publish_must_wait(call->context->publisher, call->argv[1], before,
                          call->facts->active_at, &wait)) {
        wait_to_publish(call, &wait);
        return;
    }
    publish_message(call->context->publisher, &call->facts->dialect, &call->facts->echo,
                    call->argv[1], call->argv[2], before, call->facts->active_at,
                    &result);
    if (result.must_wait) {
        wait_to_publish(call, &result.wait);
        return;
    }
    if (result.is_accepted) {
        call->facts->published++;
        if (result.host_id != NULL)
            host_ids_note(call->context->host_ids, call->client, result.host_id);
        if (result.ticket.count > 0) {
            call->facts->ticket = result.ticket;
            call->facts->ticket_receivers = result.receivers;
            await_answer(call);
            return;
        }
        resp_write_integer(call->reply, result.receivers);
        return;
    }
    command_refuse(call, "%s", result.text);
    /* Once a client, or a broken publisher fills the log. */
    if (result.refusal == PUBLISH_UNSAFE && !call->facts->has_logged_refusal) {
        call->facts->has_logged_refusal = true;
        char peer[ADDRESS_TEXT_SIZE];
        struct log_subject subject = {.kind = "client", .id = call->facts->id};
        log_warn(&subject, "message refused", LOG_TEXT("why", result.text),
                 LOG_TEXT("name", call->facts->name),
                 LOG_TEXT("peer", address_text(&call->facts->peer, peer)));
    }
}

/* ── PUBSUB ── */

/* Channels of the answer, counted before they are written. */
struct channel_walk {
    struct command_call *call;
    struct evbuffer *names;
    size_t count;
};

static void add_channel(struct channel_walk *walk, struct slice name)
{
    const struct command_call *call = walk->call;
    if ((call->argc == 3 && !interest_pattern_matches(call->argv[2], name)) ||
        !command_may_use_channel(call->facts, name))
        return;
    resp_write_bulk(walk->names, name);
    walk->count++;
}

/* One that other brokers have subscribers of, and this one has none. */
static void on_other_channel(void *context, struct slice name)
{
    struct channel_walk *walk = context;
    const struct interest_target *own =
        interest_target_find(walk->call->context->interest, INTEREST_CHANNEL, name);
    if (own == NULL || own->active == 0)
        add_channel(walk, name);
}

void command_pubsub_channels(struct command_call *call)
{
    if (call->argc > 3) {
        command_refuse(call,
                       "ERR unknown subcommand or wrong number of arguments for '%.*s'. "
                       "Try PUBSUB HELP.",
                       SLICE_ARGS(slice_to(call->argv[1], 128)));
        return;
    }
    struct channel_walk walk = {call, evbuffer_new(), 0};
    const struct interest_target *target;
    for (target = interest_first(call->context->interest, INTEREST_CHANNEL);
         target != NULL; target = TAILQ_NEXT(target, of_kind))
        if (target->active > 0)
            add_channel(&walk, target->name);
    const struct subscriber_counts *others = publisher_counts(call->context->publisher);
    if (others != NULL)
        subscriber_counts_walk(others, standing_now(), on_other_channel, &walk);
    resp_write_array(call->reply, walk.count);
    evbuffer_add_buffer(call->reply, walk.names);
    evbuffer_free(walk.names);
}

void command_pubsub_numpat(struct command_call *call)
{
    int64_t count = 0;
    const struct interest_target *target;
    for (target = interest_first(call->context->interest, INTEREST_PATTERN);
         target != NULL; target = TAILQ_NEXT(target, of_kind))
        count += command_may_use_channel(call->facts, target->name);
    resp_write_integer(call->reply, count);
}

void command_pubsub_numsub(struct command_call *call)
{
    const struct subscriber_counts *others = publisher_counts(call->context->publisher);
    resp_write_array(call->reply, (call->argc - 2) * 2);
    for (size_t i = 2; i < call->argc; i++) {
        const struct interest_target *target = interest_target_find(
            call->context->interest, INTEREST_CHANNEL, call->argv[i]);
        resp_write_bulk(call->reply, call->argv[i]);
        uint64_t count = target != NULL ? target->active : 0;
        if (others != NULL)
            count += subscriber_counts_of(others, call->argv[i], standing_now());
        resp_write_integer(call->reply, (int64_t)count);
    }
}

/* Sharded channels are not served: nobody has any. */
void command_pubsub_shardchannels(struct command_call *call)
{
    if (call->argc > 3)
        command_refuse(call,
                       "ERR unknown subcommand or wrong number of arguments for '%.*s'. "
                       "Try PUBSUB HELP.",
                       SLICE_ARGS(slice_to(call->argv[1], 128)));
    else
        resp_write_array(call->reply, 0);
}

void command_pubsub_shardnumsub(struct command_call *call)
{
    resp_write_array(call->reply, (call->argc - 2) * 2);
    for (size_t i = 2; i < call->argc; i++) {
        resp_write_bulk(call->reply, call->argv[i]);
        resp_write_integer(call->reply, 0);
    }
}
