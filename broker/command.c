#include "broker/command.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/command_access.h"
#include "broker/command_handlers.h"
#include "broker/publish.h"
#include "broker/resp.h"
#include "broker/transaction.h"
#include "shared/log.h"

#include <ctype.h>
#include <event2/buffer.h>
#include <stdarg.h>
#include <stdio.h>

/* How much of unknown words an error repeats, as Redis. */
#define ERROR_ARGUMENTS_MAX 128

#define AT_ONCE    COMMAND_AT_ONCE
#define NO_AUTH    COMMAND_NO_AUTH
#define NO_MULTI   COMMAND_NO_MULTI
#define SUBSCRIBED COMMAND_SUBSCRIBED

static const struct command client_commands[] = {
    {"client|getname", 2, 0, CLASS_CONNECTION, command_client_getname, NULL},
    {"client|help", 2, 0, CLASS_CONNECTION, command_help, NULL},
    {"client|id", 2, 0, CLASS_CONNECTION, command_client_id, NULL},
    {"client|info", 2, 0, CLASS_CONNECTION, command_client_info, NULL},
    {"client|kill", -3, 0, CLASS_CLIENTS, command_client_kill, NULL},
    {"client|list", -2, 0, CLASS_CLIENTS, command_client_list, NULL},
    {"client|no-evict", 3, 0, CLASS_CONNECTION, command_client_switch, NULL},
    {"client|no-touch", 3, 0, CLASS_CONNECTION, command_client_switch, NULL},
    {"client|reply", 3, 0, CLASS_CONNECTION, command_client_reply, NULL},
    {"client|setinfo", 4, 0, CLASS_CONNECTION, command_client_setinfo, NULL},
    {"client|setname", 3, 0, CLASS_CONNECTION, command_client_setname, NULL},
    {"client|tracking", -3, 0, CLASS_CONNECTION, command_client_tracking, NULL},
    {0},
};

static const struct command command_commands[] = {
    {"command|count", 2, 0, CLASS_CONNECTION, command_command_count, NULL},
    {"command|docs", -2, 0, CLASS_CONNECTION, command_command_docs, NULL},
    {"command|help", 2, 0, CLASS_CONNECTION, command_help, NULL},
    {0},
};

static const struct command config_commands[] = {
    {"config|get", -3, 0, CLASS_CONNECTION, command_config_get, NULL},
    {"config|help", 2, 0, CLASS_CONNECTION, command_help, NULL},
    {0},
};

static const struct command pubsub_commands[] = {
    {"pubsub|channels", -2, 0, CLASS_PUBSUB, command_pubsub_channels, NULL},
    {"pubsub|help", 2, 0, CLASS_PUBSUB, command_help, NULL},
    {"pubsub|numpat", 2, 0, CLASS_PUBSUB, command_pubsub_numpat, NULL},
    {"pubsub|numsub", -2, COMMAND_CHANNELS, CLASS_PUBSUB, command_pubsub_numsub, NULL},
    {"pubsub|shardchannels", -2, 0, CLASS_PUBSUB, command_pubsub_shardchannels, NULL},
    {"pubsub|shardnumsub", -2, COMMAND_CHANNELS, CLASS_PUBSUB, command_pubsub_shardnumsub,
     NULL},
    {0},
};

static const struct command sentinel_commands[] = {
    {"sentinel|help", 2, 0, CLASS_CONNECTION, command_help, NULL},
    {"sentinel|masters", 2, 0, CLASS_CONNECTION, command_sentinel_masters, NULL},
    {0},
};

static const struct command sidrail_commands[] = {
    {"sidrail|all", 2, SUBSCRIBED | NO_MULTI, CLASS_SUBSCRIBE, command_sidrail_all, NULL},
    {"sidrail|hello", -5, SUBSCRIBED | NO_MULTI, CLASS_SUBSCRIBE, command_sidrail_hello,
     NULL},
    {"sidrail|join", -4, SUBSCRIBED | NO_MULTI, CLASS_SUBSCRIBE, command_sidrail_join,
     NULL},
    {"sidrail|leave", -4, SUBSCRIBED | NO_MULTI, CLASS_SUBSCRIBE, command_sidrail_leave,
     NULL},
    {"sidrail|rooms", -4, SUBSCRIBED | NO_MULTI, CLASS_SUBSCRIBE, command_sidrail_rooms,
     NULL},
    {"sidrail|seen", 3, SUBSCRIBED | NO_MULTI, CLASS_SUBSCRIBE, command_sidrail_seen,
     NULL},
    {0},
};

const struct command command_table[] = {
    {"auth", -2, NO_AUTH, CLASS_CONNECTION, command_auth, NULL},
    {"client", -2, 0, CLASS_CONNECTION, NULL, client_commands},
    {"command", -1, 0, CLASS_CONNECTION, command_command, command_commands},
    {"config", -2, 0, CLASS_CONNECTION, NULL, config_commands},
    {"discard", 1, AT_ONCE, CLASS_CONNECTION, command_discard, NULL},
    {"echo", 2, 0, CLASS_CONNECTION, command_echo, NULL},
    {"exec", 1, AT_ONCE, CLASS_CONNECTION, command_exec, NULL},
    {"hello", -1, NO_AUTH, CLASS_CONNECTION, command_hello, NULL},
    {"info", -1, 0, CLASS_CONNECTION, command_info, NULL},
    {"multi", 1, AT_ONCE, CLASS_CONNECTION, command_multi, NULL},
    {"ping", -1, SUBSCRIBED, CLASS_CONNECTION, command_ping, NULL},
    {"psubscribe", -2, SUBSCRIBED | COMMAND_CHANNELS, CLASS_SUBSCRIBE, command_psubscribe,
     NULL},
    {"publish", 3, COMMAND_CHANNEL, CLASS_PUBLISH, command_publish, NULL},
    {"pubsub", -2, 0, CLASS_CONNECTION, NULL, pubsub_commands},
    {"punsubscribe", -1, SUBSCRIBED, CLASS_SUBSCRIBE, command_punsubscribe, NULL},
    {"quit", -1, NO_AUTH | SUBSCRIBED | AT_ONCE, CLASS_CONNECTION, command_quit, NULL},
    {"reset", 1, NO_AUTH | SUBSCRIBED | AT_ONCE, CLASS_CONNECTION, command_reset, NULL},
    {"role", 1, 0, CLASS_CONNECTION, command_role, NULL},
    {"select", 2, 0, CLASS_CONNECTION, command_select, NULL},
    {"sentinel", -2, 0, CLASS_CONNECTION, NULL, sentinel_commands},
    {"sidrail", -2, SUBSCRIBED, CLASS_CONNECTION, NULL, sidrail_commands},
    {"subscribe", -2, SUBSCRIBED | COMMAND_CHANNELS, CLASS_SUBSCRIBE, command_subscribe,
     NULL},
    {"time", 1, 0, CLASS_CONNECTION, command_time, NULL},
    {"unsubscribe", -1, SUBSCRIBED, CLASS_SUBSCRIBE, command_unsubscribe, NULL},
    {"unwatch", 1, 0, CLASS_CONNECTION, command_unwatch, NULL},
    {"watch", -2, AT_ONCE, CLASS_CONNECTION, command_watch, NULL},
    {0},
};

size_t command_count(void)
{
    return ARRAY_LEN(command_table) - 1;
}

/* This is done for each request: most rows begin with another letter. */
const struct command *command_find(const struct command *table, struct slice name)
{
    if (name.len == 0)
        return NULL;
    const char *bar = strchr(table->name, '|');
    size_t skipped = bar != NULL ? (size_t)(bar + 1 - table->name) : 0;
    char first = (char)(name.data[0] | 0x20);
    for (const struct command *row = table; row->name != NULL; row++)
        if (row->name[skipped] == first &&
            slice_equals_nocase(slice_from_text(row->name + skipped), name))
            return row;
    return NULL;
}

/* Redis' text for an EXEC that it does not run. */
static const char exec_abort[] = "EXECABORT Transaction discarded because of: ";

void command_refuse(struct command_call *call, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char text[512];
    size_t head = 0;
    if (!call->is_judged && call->row != NULL && call->row->handle == command_exec)
        head = (size_t)snprintf(text, sizeof(text), "%s", exec_abort);
    vsnprintf(text + head, sizeof(text) - head, format, arguments);
    va_end(arguments);
    if (head > 0 && strncmp(text + head, "ERR ", 4) == 0)
        memmove(text + head, text + head + 4, strlen(text + head + 4) + 1);
    if (!call->is_judged)
        command_reject_transaction(call);
    resp_write_error(call->reply, text);
    call->is_refused = true;
}

static bool fits_arity(const struct command *row, size_t argc)
{
    return row->arity >= 0 ? argc == (size_t)row->arity : argc >= (size_t)-row->arity;
}

/* Redis' text: unknown command 'foo', with args beginning with: 'a' 'b' */
static void refuse_unknown(struct command_call *call)
{
    char arguments[ERROR_ARGUMENTS_MAX + sizeof("'' ")] = "";
    size_t len = 0;
    for (size_t i = 1; i < call->argc && len < ERROR_ARGUMENTS_MAX; i++) {
        struct slice shown = slice_to(call->argv[i], ERROR_ARGUMENTS_MAX - len);
        len += (size_t)snprintf(arguments + len, sizeof(arguments) - len, "'%.*s' ",
                                SLICE_ARGS(shown));
    }
    struct slice name = slice_to(call->argv[0], ERROR_ARGUMENTS_MAX);
    command_refuse(call, "ERR unknown command '%.*s', with args beginning with: %s",
                   SLICE_ARGS(name), arguments);
}

/* Redis' text: unknown subcommand 'foo'. Try CLIENT HELP. */
static void refuse_unknown_subcommand(struct command_call *call,
                                      const struct command *row)
{
    char name[32];
    for (size_t i = 0; i <= strlen(row->name); i++)
        name[i] = (char)toupper((unsigned char)row->name[i]);
    command_refuse(call, "ERR unknown subcommand '%.*s'. Try %s HELP.",
                   SLICE_ARGS(slice_to(call->argv[1], ERROR_ARGUMENTS_MAX)), name);
}

/* Fails with a reply when the client may not say this now. */
static bool is_allowed(struct command_call *call)
{
    const struct client_facts *facts = call->facts;
    const struct command *row = call->row;
    if (facts->transaction != NULL && (row->flags & COMMAND_NO_MULTI) != 0) {
        command_refuse(call, "ERR Command not allowed inside a transaction");
        return false;
    }
    if (!facts->is_authenticated && (row->flags & COMMAND_NO_AUTH) == 0) {
        command_refuse(call, "NOAUTH Authentication required.");
        return false;
    }
    if (!command_check_access(call, row))
        return false;
    const struct subscriber *subscriber = client_subscriber(call->client);
    bool is_subscribed =
        subscriber->counts[INTEREST_CHANNEL] + subscriber->counts[INTEREST_PATTERN] > 0;
    if (is_subscribed && facts->protocol == 2 && (row->flags & COMMAND_SUBSCRIBED) == 0) {
        command_refuse(call,
                       "ERR Can't execute '%s': only (P|S)SUBSCRIBE / "
                       "(P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
                       "context",
                       row->name);
        return false;
    }
    return true;
}

/* The row that the words name, of a container its subcommand's; false after an error. */
static bool find_row(struct command_call *call)
{
    call->row = command_find(command_table, call->argv[0]);
    if (call->row == NULL) {
        refuse_unknown(call);
        return false;
    }
    if (call->row->subcommands != NULL && call->argc > 1) {
        const struct command *sub = command_find(call->row->subcommands, call->argv[1]);
        if (sub == NULL) {
            refuse_unknown_subcommand(call, call->row);
            return false;
        }
        call->row = sub;
    }
    if (!fits_arity(call->row, call->argc)) {
        command_refuse(call, "ERR wrong number of arguments for '%s' command",
                       call->row->name);
        return false;
    }
    return true;
}

static void count(struct command_call *call)
{
    call->facts->commands++;
    metrics_add(M_COMMANDS, 1);
    if (call->is_refused)
        metrics_add(M_COMMANDS_REFUSED, 1);
}

static bool is_unfinished(const struct command_call *call)
{
    return call->verdict == CLIENT_WAIT || call->verdict == CLIENT_YIELD;
}

void command_handle(struct command_call *call)
{
    call->facts->last_command = call->row->name;
    call->row->handle(call);
    if (!is_unfinished(call))
        count(call);
}

/* As Redis: a web page can send a request whose body is commands, but not without these before it. */
static bool is_cross_protocol(struct slice name)
{
    return slice_equals_nocase(name, SLICE("POST")) ||
           slice_equals_nocase(name, SLICE("Host:"));
}

void command_begin_answer(struct command_call *call)
{
    enum client_answers answers = call->facts->answers;
    call->reply =
        answers == ANSWERS_NONE || answers == ANSWERS_SKIP ? evbuffer_new() : call->heard;
}

void command_end_answer(struct command_call *call)
{
    if (call->reply != call->heard)
        evbuffer_free(call->reply);
    call->reply = call->heard;
}

static void run(struct command_call *call)
{
    struct client_facts *facts = call->facts;
    if (facts->transaction != NULL && facts->transaction->is_running) {
        call->is_judged = true;
        command_exec_go_on(call);
        if (!is_unfinished(call))
            count(call);
        return;
    }
    if (!find_row(call) || !is_allowed(call)) {
        count(call);
        return;
    }
    call->is_judged = true;
    if (facts->transaction == NULL || (call->row->flags & COMMAND_AT_ONCE) != 0) {
        command_handle(call);
        return;
    }
    command_queue(call); /* counted when it is run */
    if (call->is_refused)
        count(call);
}

enum client_verdict command_run(struct command_context *context, struct client *client,
                                size_t argc, const struct slice *argv,
                                struct evbuffer *reply)
{
    if (is_cross_protocol(argv[0]))
        return CLIENT_DISTRUST;
    struct client_facts *facts = client_facts(client);
    struct command_call call = {
        .context = context,
        .client = client,
        .facts = facts,
        .waits_since = facts->waits_since,
        .argc = argc,
        .argv = argv,
        .heard = reply,
        .verdict = CLIENT_GO_ON,
    };
    command_begin_answer(&call);
    run(&call);
    command_end_answer(&call);
    if (is_unfinished(&call))
        return call.verdict;
    if (facts->answers == ANSWERS_SKIP)
        facts->answers = ANSWERS_ALL;
    else if (facts->answers == ANSWERS_SKIP_NEXT)
        facts->answers = ANSWERS_SKIP;
    return call.verdict;
}

static void log_too_long(struct client_facts *facts, const char *limit, size_t len,
                         size_t max)
{
    if (facts->has_logged_too_long)
        return;
    facts->has_logged_too_long = true;
    char peer[ADDRESS_TEXT_SIZE];
    struct log_subject subject = {.kind = "client", .id = facts->id};
    log_warn(&subject, "request refused: longer than a limit", LOG_TEXT("limit", limit),
             LOG_UNSIGNED("bytes", len), LOG_UNSIGNED("max", max),
             LOG_TEXT("name", facts->name),
             LOG_TEXT("peer", address_text(&facts->peer, peer)));
}

void command_refuse_length(struct command_context *context, struct client *client,
                           const struct resp_request *request, struct evbuffer *reply)
{
    struct command_call call = {
        .context = context,
        .client = client,
        .facts = client_facts(client),
        .reply = reply,
        .verdict = CLIENT_GO_ON,
    };
    bool is_bulk = request->over == RESP_OVER_BULK;
    const char *limit = is_bulk ? "limits.payload" : "limits.request";
    size_t max = is_bulk ? (size_t)context->config->payload_max
                         : broker_config_request_max(context->config);
    command_refuse(&call, "ERR the %s takes %zu bytes, and %s is %zu",
                   is_bulk ? "payload or argument" : "request", request->over_len, limit,
                   max);
    metrics_add_by(M_REFUSED, PUBLISH_TOO_LONG, 1);
    count(&call);
    log_too_long(call.facts, limit, request->over_len, max);
}
