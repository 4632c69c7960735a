/*
 * What comes from a client's socket:
 *
 *      WAITING, HEAD ─▶ into the scratch, or behind what client->in holds ─▶ http_request_parse ─▶ exchange_begin
 *      EXCHANGING ────▶ the body for the exchange; what is pipelined waits in client->in, up to a bound
 *      LINGERING ─────▶ thrown away
 */
#include "proxy/client_parts.h"

#include "proxy/edge_answer.h"
#include "proxy/exchange.h"

#include <errno.h>
#include <event2/event.h>

#define PIPELINED_MAX   16384u /* bytes held while an exchange runs */
#define LINGER_BYTES    65536u
#define HEAD_FIRST_READ 4096u /* room to begin with when a head comes in pieces */

static void refuse_head(struct client *client, const struct http_refusal *refusal)
{
    enum close_reason reason = CLOSE_BAD_REQUEST;
    switch (refusal->status) {
    case 414:
        reason = CLOSE_TARGET_TOO_LONG;
        break;
    case 417:
        reason = CLOSE_BAD_EXPECTATION;
        break;
    case 426:
        reason = CLOSE_BAD_UPGRADE;
        break;
    case 431:
        reason = CLOSE_HEAD_TOO_LARGE;
        break;
    case 501:
        reason = CLOSE_UNKNOWN_METHOD;
        break;
    case 505:
        reason = CLOSE_BAD_VERSION;
        break;
    default:
        break;
    }
    struct log_subject subject = client_subject(client);
    log_debug(&subject, "refused", LOG_TEXT("why", refusal->reason));
    client_answer(client, &(struct edge_answer){.reason = reason}, false);
}

/* Bytes of a head, all that came so far. What is not used stays in, or goes to, client->in. */
static void take_head(struct client *client, struct slice data, bool is_in_buffer)
{
    struct worker *worker = client->worker;
    size_t used = 0;
    enum close_reason reason;
    client_leave_idle(client);
    enum parse_result result = http_request_parse(
        data, client->parsed_len, (size_t)client_config(client)->limits.head_bytes,
        &worker->request);
    switch (result) {
    case PARSE_BAD:
        refuse_head(client, &worker->request.refusal);
        return;
    case PARSE_MORE:
        if (client->has_ended) {
            client_close(client, CLOSE_CLIENT_ABORTED);
            return;
        }
        if (!client_has_room(client, CLIENT_USE_HEAD, is_in_buffer ? 0 : data.len,
                             &reason)) {
            client_answer(
                client, &(struct edge_answer){.reason = reason, .retry_after = 1}, false);
            return;
        }
        client->parsed_len = (uint32_t)data.len;
        if (client->state != CLIENT_HEAD) {
            client->state = CLIENT_HEAD;
            client_set_deadline(
                client, deadline_limit(client_config(client)->timeouts.request_head));
        }
        client_watch(client, EV_READ);
        break;
    case PARSE_DONE:
        client->state = CLIENT_EXCHANGING;
        client->requests++;
        client->parsed_len = 0;
        deadline_clear(&worker->wheel, &client->deadline);
        if (client_config(client)->timeouts.keep_alive == 0)
            worker->request.is_persistent = false;
        client->is_taking = true;
        used = exchange_begin(client, data);
        client->is_taking = false;
        if (client->state == CLIENT_CLOSED || client->state == CLIENT_LINGERING)
            return;
        break;
    }
    if (is_in_buffer)
        buffer_take(&worker->buffers, &client->in, used);
    else
        buffer_append(&worker->buffers, &client->in, slice_from(data, used));
    client_settle(client);
    if (client->state == CLIENT_WAITING)
        client_begin_waiting(client); /* answered at once: does anything wait? */
}

void client_resume(struct client *client)
{
    TAILQ_REMOVE(&client->worker->resuming, client, entry);
    TAILQ_INSERT_TAIL(&client->worker->clients, client, entry);
    client->is_resuming = false;
    client_watch(client, EV_READ);
    take_head(client, buffer_bytes(client->in), true);
}

static void on_client_end(struct client *client)
{
    client->has_ended = true;
    switch ((enum client_state)client->state) {
    case CLIENT_WAITING:
        client_close(client,
                     client->out != NULL ? CLOSE_CLIENT_ABORTED : CLOSE_CLIENT_LEFT);
        return;
    case CLIENT_EXCHANGING:
        if (exchange_outlives_client_end(client->exchange))
            client_watch(client, client->out != NULL ? EV_WRITE : 0);
        else if (exchange_wants_body(client->exchange))
            client_answer(client, &(struct edge_answer){.reason = CLOSE_BAD_BODY}, false);
        else
            client_close(client, CLOSE_CLIENT_ABORTED);
        return;
    case CLIENT_HEAD:
        client_answer(client, &(struct edge_answer){.reason = CLOSE_BAD_REQUEST}, false);
        return;
    case CLIENT_LINGERING:
        client_close(client, (enum close_reason)client->linger_reason);
        return;
    case CLIENT_INTRODUCED:
    case CLIENT_GREETING:
    case CLIENT_TUNNELING:
    case CLIENT_CLOSED:
        client_close(client, CLOSE_CLIENT_ABORTED);
        return;
    }
    unreachable();
}

/* Into client->in behind what is there, or to the scratch when nothing is; -1: the client has ended or
 * there was nothing. */
static ssize_t read_some(struct client *client, char *space, size_t room)
{
    ssize_t got = stream_read(&client->stream, space, room);
    if (got > 0) {
        client->active_at = client_now(client);
        return got;
    }
    if (got == 0)
        on_client_end(client);
    else if (errno != EAGAIN)
        client_close(client, CLOSE_CLIENT_RESET);
    return -1;
}

static void read_head(struct client *client)
{
    struct worker *worker = client->worker;
    if (client->in == NULL) {
        char *space = worker_read_space(worker);
        ssize_t got = read_some(client, space, WORKER_READ_MAX);
        if (got > 0)
            take_head(client, slice_of(space, (size_t)got), false);
        return;
    }
    char *space = buffer_reserve(&worker->buffers, &client->in, HEAD_FIRST_READ);
    ssize_t got = read_some(client, space, HEAD_FIRST_READ);
    if (got < 0)
        return;
    buffer_fill(client->in, (size_t)got);
    take_head(client, buffer_bytes(client->in), true);
}

/* While an exchange runs: its body, then what was sent too early. */
static void read_exchanging(struct client *client)
{
    struct worker *worker = client->worker;
    bool wants_body = exchange_wants_body(client->exchange);
    size_t room = wants_body
                      ? min_size(exchange_body_room(client->exchange), WORKER_READ_MAX)
                      : PIPELINED_MAX - min_size(PIPELINED_MAX, buffer_len(client->in));
    if (room == 0) {
        client_watch(client, (short)(client->watched & ~EV_READ));
        return;
    }
    char *space = worker_read_space(worker);
    ssize_t got = read_some(client, space, room);
    if (got < 0)
        return;
    struct slice data = slice_of(space, (size_t)got);
    client->is_taking = true;
    size_t used = wants_body ? exchange_take_body(client->exchange, data) : 0;
    client->is_taking = false;
    if (client->state == CLIENT_CLOSED || client->state == CLIENT_LINGERING)
        return;
    buffer_append(&worker->buffers, &client->in, slice_from(data, used));
    client_settle(client);
    if (client->state == CLIENT_WAITING)
        client_begin_waiting(client);
}

void client_offer_body(struct client *client)
{
    struct worker *worker = client->worker;
    if (client->in != NULL) {
        client->is_taking = true;
        size_t used = exchange_take_body(client->exchange, buffer_bytes(client->in));
        client->is_taking = false;
        if (client->state == CLIENT_CLOSED || client->state == CLIENT_LINGERING)
            return;
        buffer_take(&worker->buffers, &client->in, used);
    }
    if (client->state == CLIENT_WAITING)
        client_begin_waiting(client);
    else
        client_watch(client, (short)(client->watched | EV_READ));
}

static void read_lingering(struct client *client)
{
    char *space = worker_read_space(client->worker);
    ssize_t got = stream_read(&client->stream, space, WORKER_READ_MAX);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got > 0) {
        client->active_at += (uint32_t)got;
        if (client->active_at >= LINGER_BYTES)
            client_watch(client, 0); /* enough: it has until the deadline to read */
        return;
    }
    client_close(client, (enum close_reason)client->linger_reason);
}

void client_read(struct client *client)
{
    switch ((enum client_state)client->state) {
    case CLIENT_WAITING:
    case CLIENT_HEAD:
        read_head(client);
        return;
    case CLIENT_EXCHANGING:
        read_exchanging(client);
        return;
    case CLIENT_LINGERING:
        read_lingering(client);
        return;
    case CLIENT_INTRODUCED:
    case CLIENT_GREETING:
    case CLIENT_TUNNELING:
    case CLIENT_CLOSED:
        return;
    }
    unreachable();
}
