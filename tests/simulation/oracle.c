#include "tests/simulation/oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* After an abrupt end what came in the last moment before may come again: its acknowledgement was under way. */
#define DOUBLE_WITHIN MILLISECONDS(500)
/* A pod notices a path that passes nothing, and returns, in this time; before it another cut may come. */
#define CUT_JOINS SECONDS(60)

struct publication {
    int client;
    unsigned connection, incarnation;
    int channel, room;
    uint64_t sent_at, answered_at;
    enum answer answer;
    bool is_lost_with_broker;
};

struct delivery {
    unsigned message;
    uint64_t at;
};

struct listener {
    bool is_used;
    unsigned channels; /* bits: of all that it ever subscribed */
    unsigned incarnation;
    bool is_subscribed;
    uint64_t since[CHANNEL_COUNT][ROOMS_MAX]; /* owed from here on; 0: nothing is */
    uint64_t ended_at;                        /* abruptly; 0: never */
    uint64_t cut_at, cut_until;               /* acknowledgements do not pass */
    uint8_t *counts;                          /* of each message */
    uint64_t *first_at;
    struct delivery *got;
    size_t got_count, got_capacity;
};

static struct promise promise;
static struct publication *messages;
static unsigned message_count, delivery_count;
static struct listener listeners[HOST_CLIENTS_MAX];
static unsigned refuser; /* an incarnation; 0: none */
static uint64_t refuses_from;
static char *violation;

void oracle_begin(const struct promise *given)
{
    promise = *given;
    messages = must_calloc(MESSAGES_MAX, sizeof(*messages));
    message_count = delivery_count = refuser = 0;
    memset(listeners, 0, sizeof(listeners));
    violation = NULL;
}

void oracle_end(void)
{
    for (unsigned i = 0; i < HOST_CLIENTS_MAX; i++) {
        free(listeners[i].counts);
        free(listeners[i].first_at);
        free(listeners[i].got);
    }
    free(messages);
    free(violation);
    violation = NULL;
}

void oracle_violated(const char *format, ...)
{
    if (violation != NULL)
        return;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    for (char *at = text; *at != '\0'; at++)
        if (*at < ' ')
            *at = ' ';
    violation = must_printf("%s (at %.6f s)", text, (double)world_now() / 1e6);
}

const char *oracle_violation(void)
{
    return violation;
}

unsigned oracle_messages(void)
{
    return message_count;
}

unsigned oracle_deliveries(void)
{
    return delivery_count;
}

/* ── publishers ── */

unsigned oracle_sent(int client, unsigned connection, unsigned incarnation, int channel,
                     int room)
{
    if (message_count == MESSAGES_MAX)
        return UINT32_MAX;
    messages[message_count] = (struct publication){.client = client,
                                                   .connection = connection,
                                                   .incarnation = incarnation,
                                                   .channel = channel,
                                                   .room = room,
                                                   .sent_at = world_now()};
    return message_count++;
}

void oracle_answered(unsigned message, enum answer answer)
{
    struct publication *sent = &messages[message];
    sent->answer = answer;
    sent->answered_at = world_now();
    if (answer == ANSWER_OK && sent->incarnation == refuser &&
        sent->sent_at > refuses_from)
        oracle_violated("accepted: message %u by broker %u, whose map is another one's",
                        message, sent->incarnation);
}

void oracle_must_refuse(unsigned incarnation, uint64_t from)
{
    refuser = incarnation;
    refuses_from = from;
}

/* ── subscribers ── */

static struct listener *listener_of(int client, unsigned incarnation)
{
    struct listener *listener = &listeners[client];
    if (!listener->is_used) {
        listener->is_used = true;
        listener->counts = must_calloc(MESSAGES_MAX, sizeof(*listener->counts));
        listener->first_at = must_calloc(MESSAGES_MAX, sizeof(*listener->first_at));
    }
    if (listener->incarnation != incarnation)
        memset(listener->since, 0, sizeof(listener->since));
    listener->incarnation = incarnation;
    return listener;
}

void oracle_subscribed(int client, unsigned channels, unsigned incarnation,
                       bool continues)
{
    struct listener *listener = listener_of(client, incarnation);
    listener->is_subscribed = true;
    listener->channels |= channels;
    for (int i = 0; i < CHANNEL_COUNT; i++)
        for (int room = 0; room < ROOMS_MAX && (channels >> i & 1) != 0; room++)
            if (!continues || listener->since[i][room] == 0)
                listener->since[i][room] = world_now();
}

void oracle_listens(int client, unsigned channels, unsigned incarnation)
{
    listener_of(client, incarnation)->channels |= channels;
}

void oracle_joined(int client, int room, unsigned incarnation)
{
    struct listener *listener = listener_of(client, incarnation);
    listener->is_subscribed = true;
    listener->channels |= 1U << CHANNEL_PODS;
    if (listener->since[CHANNEL_PODS][room] == 0)
        listener->since[CHANNEL_PODS][room] = world_now();
}

void oracle_left(int client, int channel, int room)
{
    for (int i = 0; i < ROOMS_MAX; i++)
        if (room < 0 || room == i)
            listeners[client].since[channel][i] = 0;
}

void oracle_unsubscribed(int client, bool abruptly, bool is_exact)
{
    struct listener *listener = &listeners[client];
    listener->is_subscribed = false;
    if (abruptly && !is_exact)
        listener->ended_at = world_now();
}

void oracle_cut(int client, uint64_t lasting)
{
    struct listener *listener = &listeners[client];
    if (listener->cut_until + CUT_JOINS < world_now())
        listener->cut_at = world_now();
    if (listener->cut_until < world_now() + lasting)
        listener->cut_until = world_now() + lasting;
}

void oracle_forgive(int client)

{
    memset(listeners[client].since, 0, sizeof(listeners[client].since));
}

static void note(struct listener *listener, unsigned message)
{
    if (listener->got_count == listener->got_capacity) {
        listener->got_capacity =
            listener->got_capacity > 0 ? listener->got_capacity * 2 : 64;
        listener->got =
            must_realloc(listener->got, listener->got_capacity * sizeof(*listener->got));
    }
    listener->got[listener->got_count++] = (struct delivery){message, world_now()};
}

void oracle_got(int client, int channel, unsigned message, size_t len UNUSED)
{
    struct listener *listener = &listeners[client];
    delivery_count++;
    if (message >= message_count) {
        oracle_violated("unknown: client %d got message %u, which nobody published",
                        client, message);
        return;
    }
    const struct publication *sent = &messages[message];
    if (!listener->is_used || sent->channel != channel)
        oracle_violated("stray: client %d got message %u of channel %s on %s", client,
                        message, channel_name(sent->channel),
                        channel < CHANNEL_COUNT ? channel_name(channel) : "another");
    if (!listener->is_used)
        return;
    if (sent->answer == ANSWER_ERROR && !promise.may_refuse)
        oracle_violated("refused: client %d got message %u, whose publisher got an error",
                        client, message);
    if (sent->answer == ANSWER_VOID)
        oracle_violated("void: client %d got message %u of a transaction that was not "
                        "executed",
                        client, message);
    if (listener->counts[message] < UINT8_MAX)
        listener->counts[message]++;
    if (listener->counts[message] > 1) {
        uint64_t first = listener->first_at[message];
        bool may = (listener->ended_at >= first && listener->ended_at != 0 &&
                    listener->ended_at - first <= DOUBLE_WITHIN) ||
                   (first + DOUBLE_WITHIN >= listener->cut_at &&
                    first <= listener->cut_until + DOUBLE_WITHIN);

        if (!may)
            oracle_violated("doubled: client %d got message %u of broker %u twice, first "
                            "at %.6f s",
                            client, message, sent->incarnation, (double)first / 1e6);
        return; /* its order was that of the first */
    }
    listener->first_at[message] = world_now();
    note(listener, message);
}

/* ── order ── */

static bool is_one_order(const struct publication *a, const struct publication *b)
{
    return a->room == b->room && a->channel == b->channel &&
           (promise.one_order || a->incarnation == b->incarnation);
}

/* Of what a subscriber got: what one connection published to one room comes as it was published. */
static void judge_program_order(int client)
{
    const struct listener *listener = &listeners[client];
    for (size_t i = 1; i < listener->got_count; i++) {
        unsigned later = listener->got[i].message;
        for (size_t j = i; j-- > 0 && j + 200 > i;) {
            unsigned earlier = listener->got[j].message;
            const struct publication *a = &messages[earlier];
            const struct publication *b = &messages[later];
            if (a->client == b->client && a->connection == b->connection &&
                a->room == b->room && a->channel == b->channel && earlier > later) {
                oracle_violated("order: client %d got message %u before %u, which "
                                "publisher %d had sent first to the same room",
                                client, earlier, later, a->client);
                return;
            }
        }
    }
}

/* Two subscribers get what both get of an (origin, room) in the same order. */
static void judge_common_order(int one, int other)
{
    const struct listener *a = &listeners[one];
    const struct listener *b = &listeners[other];
    static uint32_t place[MESSAGES_MAX];
    memset(place, 0, sizeof(place[0]) * message_count);
    for (size_t i = 0; i < a->got_count; i++)
        place[a->got[i].message] = (uint32_t)i + 1;
    /* the last one of each (origin, room) that both have */
    static unsigned last[256];
    unsigned count = 0;
    for (size_t i = 0; i < b->got_count; i++) {
        unsigned message = b->got[i].message;
        if (place[message] == 0)
            continue;
        unsigned k = 0;
        while (k < count && !is_one_order(&messages[last[k]], &messages[message]))
            k++;
        if (k == count) {
            check(count < ARRAY_LEN(last));
            last[count++] = message;
            continue;
        }
        if (place[last[k]] > place[message]) {
            oracle_violated("order: messages %u and %u of broker %u to one room come in "
                            "one order at client %d and in the other at client %d",
                            last[k], message, messages[message].incarnation, one, other);
            return;
        }
        last[k] = message;
    }
}

/* ── loss ── */

static bool is_owed(const struct listener *listener, const struct publication *message)
{
    uint64_t since = listener->since[message->channel][message->room];
    return message->answer == ANSWER_OK && listener->is_subscribed && since != 0 &&
           message->sent_at > since;
}

static bool runs(unsigned incarnation)
{
    for (unsigned i = 0; i < slots_count(); i++)
        if (slot_at(i)->broker != NULL && slot_at(i)->incarnation == incarnation)
            return true;
    return false;
}

static const struct slot *slot_of(unsigned incarnation)
{
    for (unsigned i = 0; i < slots_count(); i++)
        if (slot_at(i)->incarnation == incarnation)
            return slot_at(i);
    return NULL;
}

static void judge_losses(int client)
{
    const struct listener *listener = &listeners[client];
    int64_t missing = 0;
    unsigned first = 0;
    for (unsigned i = 0; i < message_count; i++) {
        if (!is_owed(listener, &messages[i]) || listener->counts[i] > 0)
            continue;
        if (promise.loses_accepted && !runs(messages[i].incarnation))
            continue;
        if (missing++ == 0)
            first = i;
    }
    const struct slot *slot = slot_of(listener->incarnation);
    int64_t counted = slot != NULL ? slot_lost(slot) + slot->dropped : 0;
    /* what an origin gives up it counts itself */
    for (unsigned i = 0; promise.loses_counted && i < slots_count(); i++)
        if (slot_at(i) != slot)
            counted += slot_at(i)->lost[LOSS_SPILL] + slot_at(i)->lost[LOSS_REFUSED];
    if (missing > 0 && (!promise.loses_counted || missing > counted))
        oracle_violated("lost: client %d did not get %lld messages, the first is %u of "
                        "broker %u (sent at %.6f s to room %d of %s); %lld are counted",
                        client, (long long)missing, first, messages[first].incarnation,
                        (double)messages[first].sent_at / 1e6, messages[first].room,
                        channel_name(messages[first].channel), (long long)counted);
}

static void judge_counts(void)
{
    for (unsigned i = 0; i < slots_count(); i++) {
        const struct slot *slot = slot_at(i);
        if (promise.loses_counted || promise.loses_accepted || slot->broker == NULL)
            continue;
        for (int reason = 0; reason < LOSS_REASON_COUNT; reason++)
            if (slot->lost[reason] > 0 && (reason != LOSS_RING || !promise.has_strangers))
                oracle_violated("counted: broker %u counts %lld messages as lost (%s)",
                                slot->incarnation, (long long)slot->lost[reason],
                                loss_reason_label(reason));
    }
}

void oracle_judge(void)
{
    for (int i = 0; i < HOST_CLIENTS_MAX; i++) {
        if (!listeners[i].is_used)
            continue;
        judge_losses(i);
        judge_program_order(i);
        for (int j = 0; j < i; j++)
            if (listeners[j].is_used)
                judge_common_order(j, i);
    }
    judge_counts();
}
