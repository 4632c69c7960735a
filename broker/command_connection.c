#include "broker/command_handlers.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/command.h"
#include "broker/pods.h"
#include "broker/resp.h"
#include "broker/transaction.h"
#include "shared/timing.h"

#include <event2/buffer.h>
#include <openssl/crypto.h>
#include <stdlib.h>

/* Redis 7.0 is what we answer as: new enough for every client, old enough to promise nothing. */
#define REDIS_VERSION "7.0.15"

/* ── who is it ── */

static bool password_matches(const struct broker_user_config *user, struct slice password)
{
    bool matches = false;
    for (size_t i = 0; i < user->passwords.count; i++) {
        const char *accepted = user->passwords.items[i];
        /* every line is compared, in constant time for one length */
        if (strlen(accepted) == password.len &&
            CRYPTO_memcmp(accepted, password.data, password.len) == 0)
            matches = true;
    }
    return matches;
}

static bool log_in(struct command_call *call, struct slice name, struct slice password)
{
    const struct option_list *users = &call->facts->listener->users;
    for (size_t i = 0; i < users->count; i++) {
        const struct broker_user_config *user =
            OPTION_ITEM(*users, broker_user_config, i);
        /* A listener with one user takes its password without the name. */
        bool is_named = slice_equals(slice_from_text(user->name), name) ||
                        (users->count == 1 && slice_equals(name, SLICE("default")));
        if (!is_named || !password_matches(user, password))
            continue;
        call->facts->user = user;
        call->facts->is_authenticated = true;
        return true;
    }
    metrics_add(M_AUTH_FAILURES, 1);
    command_refuse(call, "WRONGPASS invalid username-password pair or user is disabled.");
    return false;
}

/* A listener without users takes any name and password, so that URLs with them go on working. */
static bool authenticate(struct command_call *call, struct slice name,
                         struct slice password)
{
    return call->facts->listener->users.count == 0 || log_in(call, name, password);
}

void command_auth(struct command_call *call)
{
    if (call->argc > 3) {
        command_refuse(call, "ERR syntax error");
        return;
    }
    bool has_name = call->argc == 3;
    if (authenticate(call, has_name ? call->argv[1] : SLICE("default"),
                     call->argv[call->argc - 1]))
        resp_write_simple(call->reply, "OK");
}

static const char *check_name(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] < '!' || name.data[i] > '~')
            return "ERR Client names cannot contain spaces, newlines or special "
                   "characters.";
    return NULL;
}

static void set_text(char **text, struct slice value)
{
    free(*text);
    *text = slice_dup(value);
}

static void set_name(struct command_call *call, struct slice name)
{
    set_text(&call->facts->name, name);
    client_forget_identity(call->client);
}

static void write_hello(struct command_call *call)
{
    unsigned protocol = call->facts->protocol;
    resp_write_map(call->reply, protocol, 7);
    resp_write_bulk(call->reply, SLICE("server"));
    resp_write_bulk(call->reply, SLICE("redis"));
    resp_write_bulk(call->reply, SLICE("version"));
    resp_write_bulk(call->reply, SLICE(REDIS_VERSION));
    resp_write_bulk(call->reply, SLICE("proto"));
    resp_write_integer(call->reply, protocol);
    resp_write_bulk(call->reply, SLICE("id"));
    resp_write_integer(call->reply, (int64_t)call->facts->id);
    resp_write_bulk(call->reply, SLICE("mode"));
    resp_write_bulk(call->reply, SLICE("standalone"));
    resp_write_bulk(call->reply, SLICE("role"));
    resp_write_bulk(call->reply, SLICE("master"));
    resp_write_bulk(call->reply, SLICE("modules"));
    resp_write_array(call->reply, 0);
}

void command_hello(struct command_call *call)
{
    uint64_t protocol = call->facts->protocol;
    if (call->argc > 1 && !slice_to_number(call->argv[1], 0, UINT32_MAX, &protocol)) {
        command_refuse(call, "ERR Protocol version is not an integer or out of range");
        return;
    }
    if (protocol < 2 || protocol > 3) {
        command_refuse(call, "NOPROTO unsupported protocol version");
        return;
    }
    struct slice name = {0};
    bool has_name = false;
    for (size_t i = 2; i < call->argc;) {
        struct slice word = call->argv[i];
        if (slice_equals_nocase(word, SLICE("AUTH")) && i + 2 < call->argc) {
            if (!authenticate(call, call->argv[i + 1], call->argv[i + 2]))
                return;
            i += 3;
        } else if (slice_equals_nocase(word, SLICE("SETNAME")) && i + 1 < call->argc) {
            name = call->argv[i + 1];
            has_name = true;
            const char *why = check_name(name);
            if (why != NULL) {
                command_refuse(call, "%s", why);
                return;
            }
            i += 2;
        } else {
            command_refuse(call, "ERR Syntax error in HELLO option '%.*s'",
                           SLICE_ARGS(slice_to(word, 64)));
            return;
        }
    }
    if (!call->facts->is_authenticated) {
        command_refuse(call,
                       "NOAUTH HELLO must be called with the client already "
                       "authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
                       "option can be used to authenticate the client and select the "
                       "RESP protocol version at the same time");
        return;
    }
    if (has_name)
        set_name(call, name);
    call->facts->protocol = (unsigned)protocol;
    write_hello(call);
}

/* ── connection ── */

void command_ping(struct command_call *call)
{
    if (call->argc > 2) {
        command_refuse(call, "ERR wrong number of arguments for 'ping' command");
        return;
    }
    const struct subscriber *subscriber = client_subscriber(call->client);
    bool is_subscribed = subscriber->counts[0] + subscriber->counts[1] > 0;
    struct slice text = call->argc == 2 ? call->argv[1] : slice_of("", 0);
    if (is_subscribed && call->facts->protocol == 2) {
        resp_write_array(call->reply, 2);
        resp_write_bulk(call->reply, SLICE("pong"));
        resp_write_bulk(call->reply, text);
    } else if (call->argc == 2) {
        resp_write_bulk(call->reply, text);
    } else {
        resp_write_simple(call->reply, "PONG");
    }
}

void command_echo(struct command_call *call)
{
    resp_write_bulk(call->reply, call->argv[1]);
}

void command_quit(struct command_call *call)
{
    resp_write_simple(call->reply, "OK");
    call->verdict = CLIENT_FINISH;
}

void command_reset(struct command_call *call)
{
    struct client_facts *facts = call->facts;
    const struct subscriber *subscriber = client_subscriber(call->client);
    if (subscriber->counts[0] + subscriber->counts[1] > 0)
        metrics_add(M_SUBSCRIBERS, -1);
    if (facts->pod != NULL)
        pod_free(call->context->pods, facts->pod);
    interest_remove_all(call->context->interest, client_subscriber(call->client));
    transaction_free(facts->transaction);
    facts->transaction = NULL;
    facts->protocol = 2;
    facts->database = 0;
    set_name(call, slice_of("", 0));
    facts->user = NULL;
    facts->is_authenticated = facts->listener->users.count == 0;
    resp_write_simple(call->reply, "RESET");
}

void command_select(struct command_call *call)
{
    uint64_t database;
    if (!slice_to_number(call->argv[1], 0, INT32_MAX, &database)) {
        command_refuse(call, "ERR value is not an integer or out of range");
        return;
    }
    call->facts->database = (int64_t)database; /* pub/sub knows none */
    resp_write_simple(call->reply, "OK");
}

/* ── CLIENT ── */

void command_client_getname(struct command_call *call)
{
    if (call->facts->name[0] == '\0')
        resp_write_null(call->reply, call->facts->protocol);
    else
        resp_write_bulk(call->reply, slice_from_text(call->facts->name));
}

void command_client_setname(struct command_call *call)
{
    const char *why = check_name(call->argv[2]);
    if (why != NULL) {
        command_refuse(call, "%s", why);
        return;
    }
    set_name(call, call->argv[2]);
    resp_write_simple(call->reply, "OK");
}

void command_client_setinfo(struct command_call *call)
{
    if (check_name(call->argv[3]) != NULL) {
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

/* One client as CLIENT LIST tells it, with Redis' field names. */
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
        "ssub=0 multi=-1 qbuf=%zu qbuf-free=0 obl=0 oll=%u omem=%zu events=r cmd=%s "
        "user=%s lib-name=%s lib-ver=%s redir=-1 resp=%u\n",
        (unsigned long long)facts->id, address_text(&facts->peer, peer),
        address_text(&facts->local, local), facts->name,
        (unsigned long long)((now - facts->connected_at) / SECONDS(1)),
        (unsigned long long)((now - facts->active_at) / SECONDS(1)),
        channels + patterns > 0 ? "P" : "N", (long long)facts->database, channels,
        patterns, client_input_bytes(client), client_output_bytes(client) > 0 ? 1U : 0U,
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

/* CLIENT LIST [TYPE normal|pubsub|master|replica] [ID id…] */
void command_client_list(struct command_call *call)
{
    bool has_type = call->argc == 4 && slice_equals_nocase(call->argv[2], SLICE("TYPE"));
    bool has_ids = call->argc >= 4 && slice_equals_nocase(call->argv[2], SLICE("ID"));
    if (call->argc > 2 && !has_type && !has_ids) {
        command_refuse(call, "ERR syntax error");
        return;
    }
    struct evbuffer *text = evbuffer_new();
    for (struct client *it = client_first(call->context->clients); it != NULL;
         it = client_next(it)) {
        const struct subscriber *subscriber = client_subscriber(it);
        bool is_pubsub = subscriber->counts[0] + subscriber->counts[1] > 0;
        bool is_shown = call->argc == 2;
        if (has_type)
            is_shown = slice_equals_nocase(call->argv[3],
                                           is_pubsub ? SLICE("pubsub") : SLICE("normal"));
        for (size_t i = 3; has_ids && i < call->argc; i++) {
            uint64_t id;
            is_shown |= slice_to_number(call->argv[i], 1, UINT64_MAX, &id) &&
                        id == client_facts(it)->id;
        }
        if (is_shown)
            write_client(text, it);
    }
    reply_text(call, text);
}

/* CLIENT KILL addr, or CLIENT KILL ID id | ADDR addr */
void command_client_kill(struct command_call *call)
{
    bool is_old = call->argc == 3;
    bool by_id = call->argc == 4 && slice_equals_nocase(call->argv[2], SLICE("ID"));
    bool by_address =
        call->argc == 4 && slice_equals_nocase(call->argv[2], SLICE("ADDR"));
    if (!is_old && !by_id && !by_address) {
        command_refuse(call, "ERR syntax error");
        return;
    }
    struct slice wanted = call->argv[call->argc - 1];
    uint64_t id = 0;
    if (by_id && !slice_to_number(wanted, 1, UINT64_MAX, &id)) {
        command_refuse(call, "ERR client-id should be greater than 0");
        return;
    }
    int64_t killed = 0;
    struct client *next;
    for (struct client *it = client_first(call->context->clients); it != NULL;
         it = next) {
        next = client_next(it);
        char peer[ADDRESS_TEXT_SIZE];
        const struct client_facts *facts = client_facts(it);
        bool matches =
            by_id
                ? facts->id == id
                : slice_equals(slice_from_text(address_text(&facts->peer, peer)), wanted);
        if (!matches)
            continue;
        killed++;
        if (it == call->client)
            call->verdict = CLIENT_FINISH; /* it gets its answer first, as with Redis */
        else
            client_kill(it);
    }
    if (!is_old)
        resp_write_integer(call->reply, killed);
    else if (killed > 0)
        resp_write_simple(call->reply, "OK");
    else
        command_refuse(call, "ERR No such client");
}
