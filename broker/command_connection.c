/*
 * Commands about the own connection: who it is (AUTH, HELLO), PING, ECHO, SELECT, RESET, QUIT.
 */
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

/* They are compared, and kept after their connections. */
#define NAME_MAX_LEN 1024

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

const char *command_check_name(struct slice name)
{
    if (name.len > NAME_MAX_LEN)
        return "ERR Client names cannot be longer than 1024 bytes.";
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] < '!' || name.data[i] > '~')
            return "ERR Client names cannot contain spaces, newlines or special "
                   "characters.";
    return NULL;
}

void command_set_name(struct command_call *call, struct slice name)
{
    free(call->facts->name);
    call->facts->name = slice_dup(name);
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
            const char *why = command_check_name(name);
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
        command_set_name(call, name);
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
    command_set_name(call, slice_of("", 0));
    facts->user = NULL;
    bool is_skipped = facts->answers == ANSWERS_SKIP;
    facts->answers = ANSWERS_ALL;
    facts->is_authenticated = facts->listener->users.count == 0;
    resp_write_simple(is_skipped ? call->reply : call->heard, "RESET");
}

void command_select(struct command_call *call)
{
    uint64_t database;
    struct slice text = call->argv[1];
    bool is_negative = text.len > 1 && text.data[0] == '-';
    if (!slice_to_number(is_negative ? slice_from(text, 1) : text, 0, INT32_MAX,
                         &database)) {
        command_refuse(call, "ERR value is not an integer or out of range");
        return;
    }
    if (is_negative) {
        command_refuse(call, "ERR DB index is out of range");
        return;
    }
    call->facts->database = (int64_t)database; /* pub/sub knows none */
    resp_write_simple(call->reply, "OK");
}
