/*
 * CLIENT: what a client says about its own connection, and what it may look at or do to others'.
 */
#include "broker/command_handlers.h"

#include "broker/broker_config.h"
#include "broker/command.h"
#include "broker/resp.h"
#include "broker/transaction.h"
#include "shared/timing.h"

#include <event2/buffer.h>
#include <stdlib.h>

/* ── its own ── */

static void set_text(char **text, struct slice value)
{
    free(*text);
    *text = slice_dup(value);
}

void command_client_getname(struct command_call *call)
{
    if (call->facts->name[0] == '\0')
        resp_write_null(call->reply, call->facts->protocol);
    else
        resp_write_bulk(call->reply, slice_from_text(call->facts->name));
}

void command_client_setname(struct command_call *call)
{
    const char *why = command_check_name(call->argv[2]);
    if (why != NULL) {
        command_refuse(call, "%s", why);
        return;
    }
    command_set_name(call, call->argv[2]);
    resp_write_simple(call->reply, "OK");
}

void command_client_setinfo(struct command_call *call)
{
    if (command_check_name(call->argv[3]) != NULL) {
        command_refuse(call,
                       "ERR %.*s cannot contain spaces, newlines or special characters.",
                       SLICE_ARGS(slice_to(call->argv[2], 64)));
        return;
    }
    client_forget_identity(call->client);
    if (slice_equals_nocase(call->argv[2], SLICE("LIB-NAME")))
        set_text(&call->facts->lib_name, slice_to(call->argv[3], 255));
    else if (slice_equals_nocase(call->argv[2], SLICE("LIB-VER")))
        set_text(&call->facts->lib_version, slice_to(call->argv[3], 255));
    else {
        command_refuse(call, "ERR Unrecognized option '%.*s'",
                       SLICE_ARGS(slice_to(call->argv[2], 64)));
        return;
    }
    resp_write_simple(call->reply, "OK");
}

void command_client_id(struct command_call *call)
{
    resp_write_integer(call->reply, (int64_t)call->facts->id);
}

/* NO-EVICT and NO-TOUCH: nothing is ever evicted or touched here. */
void command_client_switch(struct command_call *call)
{
    if (slice_equals_nocase(call->argv[2], SLICE("ON")) ||
        slice_equals_nocase(call->argv[2], SLICE("OFF")))
        resp_write_simple(call->reply, "OK");
    else
        command_refuse(call, "ERR syntax error");
}

/* Nothing is stored here that a client could keep a copy of. */
void command_client_tracking(struct command_call *call)
{
    if (call->argc == 3 && slice_equals_nocase(call->argv[2], SLICE("OFF")))
        resp_write_simple(call->reply, "OK");
    else if (slice_equals_nocase(call->argv[2], SLICE("ON")))
        command_refuse(call, "ERR nothing is stored here that could be tracked");
    else
        command_refuse(call, "ERR syntax error");
}

/* CLIENT REPLY ON|OFF|SKIP: see command_answers() */
void command_client_reply(struct command_call *call)
{
    struct client_facts *facts = call->facts;
    if (slice_equals_nocase(call->argv[2], SLICE("ON"))) {
        facts->answers = ANSWERS_ALL;
        resp_write_simple(call->heard, "OK");
    } else if (slice_equals_nocase(call->argv[2], SLICE("OFF"))) {
        facts->answers = ANSWERS_NONE;
    } else if (slice_equals_nocase(call->argv[2], SLICE("SKIP"))) {
        if (facts->answers != ANSWERS_NONE)
            facts->answers = ANSWERS_SKIP_NEXT;
    } else {
        command_refuse(call, "ERR syntax error");
    }
}

/* ── all of them ── */

/* As Redis: subscribed, within MULTI, neither. */
static const char *flags_of(const struct client_facts *facts, unsigned interests)
{
    if (interests > 0)
        return facts->transaction != NULL ? "Px" : "P";
    return facts->transaction != NULL ? "x" : "N";
}

/* One client as CLIENT LIST shows it, with Redis' field names. */
static void write_client(struct evbuffer *out, struct client *client)
{
    const struct client_facts *facts = client_facts(client);
    const struct subscriber *subscriber = client_subscriber(client);
    unsigned channels = subscriber->counts[INTEREST_CHANNEL];
    unsigned patterns = subscriber->counts[INTEREST_PATTERN];
    uint64_t now = timing_now();
    char peer[ADDRESS_TEXT_SIZE];
    char local[ADDRESS_TEXT_SIZE];
    evbuffer_add_printf(
        out,
        "id=%llu addr=%s laddr=%s name=%s age=%llu idle=%llu flags=%s db=%lld sub=%u "
        "psub=%u "
        "ssub=0 multi=%d qbuf=%zu qbuf-free=0 obl=0 oll=%u omem=%zu events=r cmd=%s "
        "user=%s lib-name=%s lib-ver=%s redir=-1 resp=%u\n",
        (unsigned long long)facts->id, address_text(&facts->peer, peer),
        address_text(&facts->local, local), facts->name,
        (unsigned long long)((now - facts->connected_at) / SECONDS(1)),
        (unsigned long long)((now - facts->active_at) / SECONDS(1)),
        flags_of(facts, channels + patterns), (long long)facts->database, channels,
        patterns, facts->transaction != NULL ? (int)facts->transaction->count : -1,
        client_input_bytes(client), client_output_bytes(client) > 0 ? 1U : 0U,
        client_output_bytes(client), facts->last_command,
        facts->user != NULL ? facts->user->name : "default", facts->lib_name,
        facts->lib_version, facts->protocol);
}

static void reply_text(struct command_call *call, struct evbuffer *text)
{
    size_t len = evbuffer_get_length(text);
    const char *bytes = (const char *)evbuffer_pullup(text, -1);
    resp_write_verbatim(call->reply, call->facts->protocol, slice_of(bytes, len));
    evbuffer_free(text);
}

void command_client_info(struct command_call *call)
{
    struct evbuffer *text = evbuffer_new();
    write_client(text, call->client);
    reply_text(call, text);
}

enum client_type { TYPE_ANY, TYPE_NORMAL, TYPE_PUBSUB, TYPE_NOBODY };

/* TYPE_ANY after an error. Replicas and masters are types that nobody is of. */
static enum client_type read_type(struct command_call *call, struct slice word)
{
    static const struct {
        struct slice word;
        enum client_type type;
    } types[] = {{SLICE_INIT("normal"), TYPE_NORMAL},
                 {SLICE_INIT("pubsub"), TYPE_PUBSUB},
                 {SLICE_INIT("master"), TYPE_NOBODY},
                 {SLICE_INIT("replica"), TYPE_NOBODY},
                 {SLICE_INIT("slave"), TYPE_NOBODY}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (slice_equals_nocase(word, types[i].word))
            return types[i].type;
    command_refuse(call, "ERR Unknown client type '%.*s'",
                   SLICE_ARGS(slice_to(word, 128)));
    return TYPE_ANY;
}

static bool is_of_type(struct client *client, enum client_type type)
{
    const struct subscriber *subscriber = client_subscriber(client);
    bool is_pubsub = subscriber->counts[0] + subscriber->counts[1] > 0;
    return type == TYPE_ANY || type == (is_pubsub ? TYPE_PUBSUB : TYPE_NORMAL);
}

static void list_of_type(struct command_call *call, enum client_type type)
{
    struct evbuffer *text = evbuffer_new();
    for (struct client *it = client_first(call->context->clients); it != NULL;
         it = client_next(it))
        if (is_of_type(it, type))
            write_client(text, it);
    reply_text(call, text);
}

/* The connections, in the order of their numbers, to be found by them. */
struct numbered {
    uint64_t id;
    struct client *client; /* NULL: has been written */
};

static int compare_numbered(const void *one, const void *other)
{
    uint64_t a = ((const struct numbered *)one)->id;
    uint64_t b = ((const struct numbered *)other)->id;
    return a < b ? -1 : a > b;
}

static void write_numbered(struct evbuffer *text, struct numbered *all, size_t count,
                           uint64_t id)
{
    const struct numbered key = {.id = id};
    struct numbered *found = bsearch(&key, all, count, sizeof(key), compare_numbered);
    if (found == NULL || found->client == NULL)
        return;
    write_client(text, found->client);
    found->client = NULL;
}

/* In the order asked for; one that is asked for twice comes once. */
static void list_of_ids(struct command_call *call)
{
    struct numbered *all =
        must_calloc(client_count(call->context->clients) + 1, sizeof(*all));
    size_t count = 0;
    for (struct client *it = client_first(call->context->clients); it != NULL;
         it = client_next(it))
        all[count++] = (struct numbered){client_id(it), it};
    qsort(all, count, sizeof(*all), compare_numbered);
    struct evbuffer *text = evbuffer_new();
    for (size_t i = 3; i < call->argc; i++) {
        uint64_t id;
        struct slice word = call->argv[i];
        bool is_negative = slice_starts_with(word, SLICE("-"));
        if (!slice_to_number(slice_from(word, is_negative), 0, INT64_MAX, &id)) {
            command_refuse(call, "ERR Invalid client ID");
            break;
        }
        if (!is_negative) /* else nobody's */
            write_numbered(text, all, count, id);
    }
    free(all);
    if (call->is_refused)
        evbuffer_free(text);
    else
        reply_text(call, text);
}

/* CLIENT LIST [TYPE normal|pubsub|master|replica] [ID id…] */
void command_client_list(struct command_call *call)
{
    enum client_type type = TYPE_ANY;
    if (call->argc > 3 && slice_equals_nocase(call->argv[2], SLICE("ID"))) {
        list_of_ids(call);
        return;
    }
    if (call->argc == 4 && slice_equals_nocase(call->argv[2], SLICE("TYPE"))) {
        type = read_type(call, call->argv[3]);
        if (type == TYPE_ANY)
            return;
    } else if (call->argc != 2) {
        command_refuse(call, "ERR syntax error");
        return;
    }
    list_of_type(call, type);
}

/* ── CLIENT KILL ── */

/* All that is given must hold. */
struct victims {
    uint64_t id;                 /* 0: any */
    struct slice address, local; /* no data: any */
    struct slice user;           /* no data: any */
    enum client_type type;
    uint64_t age; /* microseconds; 0: any */
    bool spares_me;
};

static bool has_user(const struct command_call *call, struct slice name)
{
    const struct broker_config *config = call->context->config;
    if (slice_equals(name, SLICE("default")))
        return true;
    for (size_t i = 0; i < config->listeners.count; i++) {
        const struct broker_listener_config *listener = broker_config_listener(config, i);
        for (size_t j = 0; j < listener->users.count; j++)
            if (slice_equals(
                    slice_from_text(
                        OPTION_ITEM(listener->users, broker_user_config, j)->name),
                    name))
                return true;
    }
    return false;
}

static bool read_number(struct command_call *call, struct slice text, const char *error,
                        uint64_t *number)
{
    if (slice_to_number(text, 1, INT64_MAX / SECONDS(1), number))
        return true;
    command_refuse(call, "%s", error);
    return false;
}

static bool read_yes(struct command_call *call, struct slice text, bool *is_yes)
{
    *is_yes = slice_equals_nocase(text, SLICE("yes"));
    if (*is_yes || slice_equals_nocase(text, SLICE("no")))
        return true;
    command_refuse(call, "ERR syntax error");
    return false;
}

/* One option and its value; false after an error. */
static bool read_victim(struct command_call *call, struct slice word, struct slice value,
                        struct victims *victims)
{
    if (slice_equals_nocase(word, SLICE("ID")))
        return read_number(call, value, "ERR client-id should be greater than 0",
                           &victims->id);
    if (slice_equals_nocase(word, SLICE("MAXAGE"))) {
        if (!read_number(call, value, "ERR maxage is not an integer or out of range",
                         &victims->age))
            return false;
        victims->age *= SECONDS(1);
        return true;
    }
    if (slice_equals_nocase(word, SLICE("SKIPME")))
        return read_yes(call, value, &victims->spares_me);
    if (slice_equals_nocase(word, SLICE("TYPE")))
        return (victims->type = read_type(call, value)) != TYPE_ANY;
    if (slice_equals_nocase(word, SLICE("ADDR"))) {
        victims->address = value;
    } else if (slice_equals_nocase(word, SLICE("LADDR"))) {
        victims->local = value;
    } else if (slice_equals_nocase(word, SLICE("USER"))) {
        victims->user = value;
        if (!has_user(call, value)) {
            command_refuse(call, "ERR No such user '%.*s'",
                           SLICE_ARGS(slice_to(value, 128)));
            return false;
        }
    } else {
        command_refuse(call, "ERR syntax error");
        return false;
    }
    return true;
}

static bool is_at(const struct address *address, struct slice wanted)
{
    char text[ADDRESS_TEXT_SIZE];
    return wanted.data == NULL ||
           slice_equals(slice_from_text(address_text(address, text)), wanted);
}

static bool is_victim(struct command_call *call, struct client *client,
                      const struct victims *victims, uint64_t now)
{
    const struct client_facts *facts = client_facts(client);
    const char *user = facts->user != NULL ? facts->user->name : "default";
    return !(victims->spares_me && client == call->client) &&
           (victims->id == 0 || facts->id == victims->id) &&
           (victims->user.data == NULL ||
            slice_equals(slice_from_text(user), victims->user)) &&
           now - facts->connected_at >= victims->age &&
           is_of_type(client, victims->type) && is_at(&facts->peer, victims->address) &&
           is_at(&facts->local, victims->local);
}

/* Itself it is ended with its answer, as at Redis. */
static int64_t kill_victims(struct command_call *call, const struct victims *victims)
{
    int64_t killed = 0;
    uint64_t now = timing_now();
    struct client *next;
    for (struct client *it = client_first(call->context->clients); it != NULL;
         it = next) {
        next = client_next(it);
        if (!is_victim(call, it, victims, now))
            continue;
        killed++;
        if (it == call->client)
            call->verdict = CLIENT_FINISH;
        else
            client_kill(it);
    }
    return killed;
}

/* CLIENT KILL addr, or CLIENT KILL with pairs of ID, ADDR, LADDR, USER, TYPE, MAXAGE, SKIPME and a value */
void command_client_kill(struct command_call *call)
{
    struct victims victims = {.spares_me = true};
    if (call->argc == 3) {
        victims = (struct victims){.address = call->argv[2]};
        if (kill_victims(call, &victims) > 0)
            resp_write_simple(call->reply, "OK");
        else
            command_refuse(call, "ERR No such client");
        return;
    }
    for (size_t i = 2; i < call->argc; i += 2) {
        if (i + 1 == call->argc) {
            command_refuse(call, "ERR syntax error");
            return;
        }
        if (!read_victim(call, call->argv[i], call->argv[i + 1], &victims))
            return;
    }
    resp_write_integer(call->reply, kill_victims(call, &victims));
}
