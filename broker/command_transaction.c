/*
 * MULTI, EXEC and DISCARD, as Redis has them: see transaction.h.
 *
 *     MULTI ─▶ +OK   PUBLISH … ─▶ +QUEUED   EXEC ─▶ *2  :3  :0
 *
 * EXEC writes each answer as its request is done. One that waits (for its shard, for subscribers that are behind) makes
 * EXEC wait there; a long EXEC goes on in the next turns of the loop, so that other clients do not wait for it. So what
 * others publish may come between, unlike at Redis; each request of an accepted EXEC is run once, in order, as long as
 * the connection lives.
 */
#include "broker/command_handlers.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/command.h"
#include "broker/command_access.h"
#include "broker/resp.h"
#include "broker/transaction.h"
#include "shared/timing.h"

#include <event2/buffer.h>

/* limits.request is not less. */
#define REQUEST_MIN ((size_t)4096)

/* So much of an EXEC is done in one turn of the loop. */
#define REQUESTS_AT_ONCE 256
#define BYTES_AT_ONCE    ((size_t)256 * 1024)

/* It pauses when more than this of its answers is not taken: no less than what client.c reads no more requests at. */
#define ANSWERS_MAX ((size_t)1024 * 1024)

static struct transaction *transaction_of(const struct command_call *call)
{
    return call->facts->transaction;
}

static void discard(struct client_facts *facts)
{
    transaction_free(facts->transaction);
    facts->transaction = NULL;
}

void command_multi(struct command_call *call)
{
    if (transaction_of(call) != NULL) {
        command_refuse(call, "ERR MULTI calls can not be nested");
        return;
    }
    call->facts->transaction = transaction_new();
    resp_write_simple(call->reply, "OK");
}

void command_discard(struct command_call *call)
{
    if (transaction_of(call) == NULL) {
        command_refuse(call, "ERR DISCARD without MULTI");
        return;
    }
    discard(call->facts);
    resp_write_simple(call->reply, "OK");
}

/* Nothing is stored here that could change: what is watched never has. */
void command_watch(struct command_call *call)
{
    if (transaction_of(call) != NULL)
        command_refuse(call, "ERR WATCH inside MULTI is not allowed");
    else
        resp_write_simple(call->reply, "OK");
}

void command_unwatch(struct command_call *call)
{
    resp_write_simple(call->reply, "OK");
}

void command_queue(struct command_call *call)
{
    struct transaction *transaction = transaction_of(call);
    size_t bytes_max =
        max_size(broker_config_request_max(call->context->config), REQUEST_MIN) * 2;
    if (transaction->is_aborted) {
        resp_write_simple(call->reply, "QUEUED"); /* as Redis: EXEC reports it */
        return;
    }
    if (transaction_add(transaction, call->row, call->argc, call->argv, bytes_max)) {
        resp_write_simple(call->reply, "QUEUED");
        return;
    }
    transaction_abort(transaction);
    command_refuse(call,
                   "ERR transaction too large: it may take %zu bytes, twice "
                   "limits.request",
                   bytes_max);
}

/* A user that AUTH inside the transaction changed may not run what the one before could. */
static bool is_still_allowed(struct command_call *one)
{
    switch (command_access(one, one->row)) {
    case ACCESS_GIVEN:
        return true;
    case ACCESS_NO_COMMAND:
        command_refuse(one,
                       "NOPERM ACLs rules changed between the moment the transaction "
                       "was accumulated and the EXEC call. This command is no longer "
                       "allowed for the following reason: no permission to execute "
                       "the command or subcommand");
        return false;
    case ACCESS_NO_CHANNEL:
        command_refuse(one,
                       "NOPERM ACLs rules changed between the moment the transaction "
                       "was accumulated and the EXEC call. This command is no longer "
                       "allowed for the following reason: no permission to access "
                       "one of the channels used as arguments to the command");
        return false;
    }
    unreachable();
}

/* False: it waits. */
static bool run_next(struct command_call *call)
{
    struct transaction *transaction = transaction_of(call);
    const struct queued_request *request = &transaction->requests[transaction->next];
    struct command_call one = *call;
    one.row = request->row;
    one.argc = request->argc;
    one.argv = request->argv;
    one.waits_since = transaction->waits_since;
    /* It has had its turn among those that wait: what follows does not queue again while there is room. */
    if (one.waits_since == 0 && call->waits_since != 0)
        one.waits_since = timing_now();
    one.verdict = CLIENT_GO_ON;
    one.is_refused = false;
    command_begin_answer(&one);
    if (is_still_allowed(&one))
        command_handle(&one);
    command_end_answer(&one);
    if (one.verdict == CLIENT_WAIT) {
        if (transaction->waits_since == 0)
            transaction->waits_since = timing_now();
        return false;
    }
    transaction->finishes |= one.verdict == CLIENT_FINISH;
    /* Behind one that waited in vain the next does not wait as long again. */
    if (!one.is_refused)
        transaction->waits_since = 0;
    transaction_done(transaction);
    return true;
}

/* Is this enough for a turn of the loop? Then it goes on in the next one in which its answers are taken. */
static bool must_pause(const struct command_call *call, size_t requests, size_t bytes)
{
    return requests >= REQUESTS_AT_ONCE || bytes >= BYTES_AT_ONCE ||
           client_output_bytes(call->client) + evbuffer_get_length(call->heard) >
               ANSWERS_MAX;
}

void command_exec_go_on(struct command_call *call)
{
    struct transaction *transaction = transaction_of(call);
    size_t bytes = 0;
    for (size_t requests = 0; transaction->next < transaction->count; requests++) {
        const struct queued_request *request = &transaction->requests[transaction->next];
        if (must_pause(call, requests, bytes)) {
            call->verdict = CLIENT_YIELD;
            return;
        }
        bytes += request->argv[request->argc - 1].len;
        if (!run_next(call)) {
            call->verdict = CLIENT_WAIT;
            return;
        }
        client_reply_partly(call->client, call->heard);
        if (client_is_closed(call->client))
            break;
    }
    client_end_answer(call->client, call->heard);
    if (transaction->finishes)
        call->verdict = CLIENT_FINISH;
    discard(call->facts);
}

void command_exec(struct command_call *call)
{
    struct transaction *transaction = transaction_of(call);
    if (transaction == NULL) {
        command_refuse(call, "ERR EXEC without MULTI");
        return;
    }
    if (transaction->is_aborted) {
        discard(call->facts);
        command_refuse(call,
                       "EXECABORT Transaction discarded because of previous errors.");
        return;
    }
    transaction->is_running = true;
    client_begin_answer(call->client);
    resp_write_array(call->reply, transaction->count);
    command_exec_go_on(call);
}

void command_reject_transaction(struct command_call *call)
{
    if (transaction_of(call) == NULL)
        return;
    if (call->row != NULL && call->row->handle == command_exec)
        discard(call->facts);
    else
        transaction_abort(transaction_of(call));
}
