#include "proxy/exchange_parts.h"

#include "shared/net.h"
#include "shared/timing.h"

#include "proxy/endpoint.h"
#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>

#define SAME_TRIES 4 /* connects to a session's endpoint */

static void on_exchange_due(struct deadline *deadline);

void exchange_set_deadline(struct exchange *exchange, uint32_t limit_ms)
{
    deadline_set(&exchange->worker->wheel, &exchange->client->deadline, limit_ms,
                 on_exchange_due);
}

uint32_t exchange_poll_limit(const struct exchange *exchange)
{
    uint64_t limit = exchange_config(exchange)->timeouts.poll;
    if (limit == OPTION_AUTO)
        limit = upstream_idle_limit(exchange->endpoint->upstream);
    return deadline_limit(limit);
}

void exchange_count_handshake(struct exchange *exchange, enum handshake_result result)
{
    if (exchange->kind != ROUTE_HANDSHAKE || exchange->method == HTTP_OPTIONS ||
        exchange->is_counted)
        return;
    exchange->is_counted = true;
    metrics_add_by(M_HANDSHAKES, result, 1);
    if (result == HANDSHAKE_OPENED)
        metrics_observe(M_HANDSHAKE_SECONDS, timing_now() - exchange->began);
}

/* ---- answers of the edge ---- */

static void drop_endpoint(struct exchange *exchange)
{
    if (exchange->connection != NULL)
        endpoint_connection_close(exchange->connection);
    exchange->connection = NULL;
    if (exchange->is_begun)
        endpoint_end_poll(exchange->endpoint);
    exchange->is_begun = false;
}

void exchange_answer_with(struct exchange *exchange, struct edge_answer answer)
{
    char origin[EDGE_ORIGIN_MAX];
    memcpy(origin, exchange->origin, exchange->origin_len);
    drop_endpoint(exchange);
    answer.is_engine_io = exchange->is_engine_io;
    answer.is_head = exchange->method == HTTP_HEAD;
    answer.origin = slice_of(origin, exchange->origin_len);
    bool is_read =
        exchange->body_left == 0 && body_framing_is_complete(&exchange->request_body);
    client_answer(exchange->client, &answer,
                  exchange->is_persistent && !exchange->is_upgrade && is_read);
}

void exchange_answer(struct exchange *exchange, enum close_reason reason)
{
    exchange_answer_with(exchange, (struct edge_answer){.reason = reason});
}

/* Length and chunks show that something is missing; where the end of the connection is the end of the
 * body only a reset does. */
void exchange_cut_answer(struct exchange *exchange)
{
    if (exchange->out_framing == BODY_UNTIL_CLOSE)
        net_set_reset_on_close(exchange->client->stream.fd);
    client_close(exchange->client, CLOSE_ANSWER_CUT);
}

/* ---- the endpoint ---- */

static void on_endpoint_ready(struct endpoint_connection *connection, short what);

/* May the request go out once more after a reused connection ended without a byte? */
static bool may_resend(const struct exchange *exchange)
{
    return !exchange->was_resent && exchange->body_bytes == 0 &&
           exchange->body_left == 0 &&
           (exchange->method == HTTP_GET || exchange->method == HTTP_OPTIONS);
}

/* Keeps the request, now that it is sent, only while it could be sent again. */
static bool keeps_request(const struct exchange *exchange)
{
    return exchange->connection->is_reused && may_resend(exchange);
}

static void begin_awaiting(struct exchange *exchange)
{
    struct buffer_pool *buffers = &exchange->worker->buffers;
    exchange->state = EXCHANGE_AWAITING;
    if (!keeps_request(exchange)) {
        buffer_drop(buffers, &exchange->request);
        exchange->request_sent = 0;
        buffer_drop(buffers, &exchange->head);
    }
    buffer_drop(buffers, &exchange->body);
    exchange_set_deadline(exchange, exchange_poll_limit(exchange));
    client_settle(exchange->client);
}

/* Writes what waits; a streamed body is pulled from the client as room appears. */
void exchange_send_request(struct exchange *exchange)
{
    struct client *client = exchange->client;
    struct endpoint_connection *connection = exchange->connection;
    struct slice waiting =
        slice_from(buffer_bytes(exchange->request), exchange->request_sent);
    if (waiting.len > 0) {
        ssize_t sent = stream_write(&connection->stream, waiting.data, waiting.len);
        if (sent < 0 && errno != EAGAIN) {
            /* An early answer may lie in the socket still: reading shows it. */
            exchange->is_body_cut = exchange->body_left > 0;
            exchange->body_left = 0;
            exchange->is_persistent = false;
            exchange->keeps_endpoint = false;
            exchange->state = EXCHANGE_AWAITING;
            endpoint_connection_watch(connection, EV_READ);
            return;
        }
        if (sent > 0) {
            exchange->request_sent += (uint32_t)sent;
            exchange->moved_at = deadline_now(&exchange->worker->wheel);
        }
        waiting = slice_from(waiting, sent > 0 ? (size_t)sent : 0);
    }
    if (waiting.len == 0 && exchange->body_left == 0) {
        endpoint_connection_watch(connection, EV_READ);
        begin_awaiting(exchange);
        return;
    }
    if (exchange->body_left > 0 && exchange->request_sent > 0) {
        /* What was sent of a streamed request is never sent again. */
        buffer_take(&exchange->worker->buffers, &exchange->request,
                    exchange->request_sent);
        exchange->request_sent = 0;
    }
    endpoint_connection_watch(connection, waiting.len > 0 ? EV_READ | EV_WRITE : EV_READ);
    if (exchange->body_left > 0 && exchange_body_room(exchange) > 0)
        client_watch(client, (short)(client->watched | EV_READ));
}

/* `sent` bytes have gone out already. */
static void begin_sending(struct exchange *exchange, size_t sent)
{
    exchange->state = EXCHANGE_SENDING;
    exchange->moved_at = deadline_now(&exchange->worker->wheel);
    exchange->request_sent = (uint32_t)sent;
    exchange->keeps_endpoint =
        exchange->method != HTTP_HEAD && !exchange->is_upgrade && !exchange->has_odd_body;
    uint32_t limit = deadline_limit(exchange_config(exchange)->timeouts.write_stall);
    if (exchange->body_left > 0)
        limit = (uint32_t)min_size(limit, EXCHANGE_BODY_LOOK_MS);
    exchange_set_deadline(exchange, limit);
    exchange_send_request(exchange);
}

/* The same endpoint again after 50, 100 and 200 ms; false: that has been done. */
static bool pauses(struct exchange *exchange)
{
    if (++exchange->attempts >= SAME_TRIES)
        return false;
    metrics_add_by(M_CONNECT_RETRIES, RETRY_SAME, 1);
    exchange->state = EXCHANGE_PAUSING;
    exchange_set_deadline(exchange, 25u << exchange->attempts);
    return true;
}

void exchange_connect(struct exchange *exchange, struct endpoint *endpoint)
{
    if (!exchange->is_begun)
        endpoint_begin_poll(endpoint);
    exchange->is_begun = true;
    client_watch(exchange->client,
                 (short)(EV_READ | (exchange->client->watched & EV_WRITE)));
    enum endpoint_reuse reuse = ENDPOINT_REUSE_YOUNG;
    if (exchange->is_upgrade || exchange->was_resent)
        reuse = ENDPOINT_REUSE_NONE;
    else if (may_resend(exchange))
        reuse = ENDPOINT_REUSE_ANY;
    struct endpoint_tls *tls =
        exchange->snapshot->snapshot->sets[exchange->upstream]->tls;
    exchange->connection = endpoint_connection_open(exchange->worker, endpoint, tls,
                                                    reuse, exchange, on_endpoint_ready);
    if (exchange->connection == NULL && (errno == EMFILE || errno == ENFILE) &&
        pauses(exchange))
        return; /* other workers make room */
    if (exchange->connection == NULL) {
        exchange_endpoint_failed(exchange, CLOSE_CONNECT_FAILED);
        return;
    }
    if (exchange->connection->is_connected) {
        begin_sending(exchange, 0);
        return;
    }
    ssize_t sent = endpoint_connection_write_early(exchange->connection,
                                                   buffer_bytes(exchange->request));
    if (sent >= 0) {
        begin_sending(exchange, (size_t)sent);
        return;
    }
    if (errno != EAGAIN) {
        exchange_endpoint_failed(exchange, CLOSE_CONNECT_FAILED);
        return;
    }
    exchange->state = EXCHANGE_CONNECTING;
    exchange_set_deadline(exchange,
                          deadline_limit(exchange_config(exchange)->timeouts.connect));
}

static void on_connecting(struct exchange *exchange, enum endpoint_connecting result)
{
    switch (result) {
    case ENDPOINT_CONNECTED:
        begin_sending(exchange, 0);
        return;
    case ENDPOINT_CONNECTING:
        return;
    case ENDPOINT_NOT_REACHED:
        exchange_endpoint_failed(exchange, CLOSE_CONNECT_FAILED);
        return;
    case ENDPOINT_TLS_REFUSED:
        exchange_endpoint_failed(exchange, CLOSE_ENDPOINT_TLS);
        return;
    }
    unreachable();
}

static void on_endpoint_ready(struct endpoint_connection *connection, short what)
{
    struct exchange *exchange = connection->owner;
    if (exchange->state == EXCHANGE_CONNECTING) {
        on_connecting(exchange, endpoint_connection_finish(connection));
        return;
    }
    if ((what & EV_READ) != 0)
        exchange_read(exchange);
    else if ((what & EV_WRITE) != 0 && exchange->state == EXCHANGE_SENDING)
        exchange_send_request(exchange);
}

/* ---- failures ---- */

/* One that is on its way out and does not accept any more has ended, whatever discovery still says. */
static bool endpoint_is_lost(const struct exchange *exchange, enum close_reason reason)
{
    const struct snapshot *snapshot = exchange->worker->current->snapshot;
    struct upstream *upstream = exchange->endpoint->upstream;
    for (size_t i = 0; i < snapshot->sets_len; i++) {
        if (snapshot->sets[i]->upstream != upstream)
            continue;
        const struct endpoint_entry *entry =
            endpoint_set_find(snapshot->sets[i], exchange->endpoint);
        return entry == NULL || entry->state == ENDPOINT_CLOSING ||
               (entry->state == ENDPOINT_DRAINING && reason == CLOSE_CONNECT_FAILED);
    }
    return true;
}

/* The endpoint of a session cannot be replaced. */
static void try_same(struct exchange *exchange, enum close_reason reason)
{
    if (reason == CLOSE_CONNECT_FAILED && pauses(exchange))
        return;
    bool is_lost = endpoint_is_lost(exchange, reason);
    if (is_lost)
        metrics_add_by(M_ROUTES_REFUSED, ROUTE_LOST_GONE, 1);
    exchange_answer(exchange, is_lost ? CLOSE_SESSION_UNKNOWN : reason);
}

/* No session exists yet: another endpoint is as good. */
static void try_other(struct exchange *exchange, enum close_reason reason)
{
    if (exchange->tried_len + 1u >= ROUTE_TRIES_MAX || exchange->head == NULL ||
        exchange->request == NULL) {
        exchange_count_handshake(exchange, HANDSHAKE_FAILED);
        exchange_answer(exchange, reason);
        return;
    }
    if (exchange->is_begun)
        endpoint_end_poll(exchange->endpoint);
    exchange->is_begun = false;
    exchange->tried[exchange->tried_len++] = endpoint_ref(exchange->endpoint);
    exchange->tried_reason = (uint8_t)reason;
    exchange->request_sent = 0;
    exchange_route(exchange, true, slice_of(NULL, 0));
}

void exchange_endpoint_failed(struct exchange *exchange, enum close_reason reason)
{
    bool was_reused = false;
    bool is_unsent = exchange->request != NULL && exchange->request_sent == 0;
    if (exchange->connection != NULL) {
        was_reused = exchange->connection->is_reused;
        endpoint_connection_close(exchange->connection);
        exchange->connection = NULL;
    }
    buffer_drop(&exchange->worker->buffers, &exchange->response);
    exchange->parsed_len = 0;
    if (reason == CLOSE_NO_ANSWER && was_reused && may_resend(exchange) &&
        exchange->request != NULL) {
        metrics_add_by(M_CONNECT_RETRIES, RETRY_SAME, 1);
        exchange->was_resent = true;
        exchange_connect(exchange, exchange->endpoint);
        return;
    }
    bool may_move = reason == CLOSE_CONNECT_FAILED || reason == CLOSE_CONNECT_TIMEOUT ||
                    reason == CLOSE_ENDPOINT_TLS ||
                    (reason == CLOSE_NO_ANSWER && is_unsent);
    if (exchange->kind != ROUTE_SESSION && may_move)
        try_other(exchange, reason);
    else if (exchange->kind == ROUTE_SESSION)
        try_same(exchange, reason);
    else {
        exchange_count_handshake(exchange, HANDSHAKE_FAILED);
        exchange_answer(exchange, reason);
    }
}

/* ---- deadlines ---- */

static void route_again(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    exchange->waited_ms += deadline_now(&worker->wheel) - exchange->moved_at;
    if (exchange->snapshot != worker->current) {
        worker_snapshot_unref(exchange->snapshot);
        exchange->snapshot = worker_snapshot_ref(worker->current);
        exchange->rule = NULL;
    }
    if (exchange->is_body_unread)
        exchange_route_unread(exchange);
    else
        exchange_route(exchange, true, buffer_bytes(exchange->body));
}

/* Bytes flow, or should: which side is it that does not move? */
static void look_at_flow(struct exchange *exchange)
{
    uint32_t passed = deadline_now(&exchange->worker->wheel) - exchange->moved_at;
    bool is_sending = exchange->state == EXCHANGE_SENDING;
    bool awaits_body = is_sending && exchange->body_left > 0;
    bool is_client = client_is_blocked(exchange->client) ||
                     (is_sending && exchange_body_room(exchange) > 0);
    if (awaits_body && buffer_len(exchange->request) == exchange->request_sent) {
        if (exchange_body_is_late(exchange, EXCHANGE_BODY_LOOK_MS)) {
            exchange_answer(exchange, CLOSE_BODY_TIMEOUT);
            return;
        }
    }
    uint32_t limit = is_client || is_sending
                         ? deadline_limit(exchange_config(exchange)->timeouts.write_stall)
                         : exchange_poll_limit(exchange);
    if (passed >= limit && client_is_blocked(exchange->client) &&
        client_has_taken(exchange->client)) {
        exchange->moved_at += passed;
        passed = 0;
    }
    if (passed < limit) {
        uint32_t left = limit - passed;
        exchange_set_deadline(
            exchange,
            awaits_body ? (uint32_t)min_size(left, EXCHANGE_BODY_LOOK_MS) : left);
        return;
    }
    if (is_sending && is_client)
        exchange_answer(exchange, CLOSE_BODY_TIMEOUT);
    else if (is_sending)
        exchange_answer(exchange, CLOSE_ANSWER_TIMEOUT);
    else if (is_client)
        client_close(exchange->client, CLOSE_WRITE_STALL);
    else
        exchange_cut_answer(exchange);
}

static void on_exchange_due(struct deadline *deadline)
{
    struct client *client = CONTAINER_OF(deadline, struct client, deadline);
    struct exchange *exchange = client->exchange;
    switch ((enum exchange_state)exchange->state) {
    case EXCHANGE_BODY:
        exchange_look_at_body(exchange);
        return;
    case EXCHANGE_WAITING:
        route_again(exchange);
        return;
    case EXCHANGE_PAUSING:
        exchange_connect(exchange, exchange->endpoint);
        return;
    case EXCHANGE_CONNECTING:
        endpoint_connection_give_up(exchange->connection);
        exchange_endpoint_failed(exchange, CLOSE_CONNECT_TIMEOUT);
        return;
    case EXCHANGE_AWAITING:
    case EXCHANGE_HOLDING:
        exchange_answer(exchange, CLOSE_ANSWER_TIMEOUT);
        return;
    case EXCHANGE_SENDING:
    case EXCHANGE_STREAMING:
        look_at_flow(exchange);
        return;
    }
    unreachable();
}

/* ---- life ---- */

size_t exchange_size(void)
{
    return sizeof(struct exchange);
}

size_t exchange_begin(struct client *client, struct slice data)
{
    struct worker *worker = client->worker;
    const struct http_request *request = &worker->request;
    size_t head_len = request->head_len;
    struct exchange *exchange = slab_get(&worker->exchange_slab);
    client->exchange = exchange;
    exchange->client = client;
    exchange->worker = worker;
    exchange->snapshot = worker_snapshot_ref(worker->current);
    exchange->random_key = timing_random();
    exchange->body_left = 0;
    bool has_body = request->body != BODY_NONE &&
                    (request->body != BODY_LENGTH || request->body_length > 0);
    /* Until it is known to be read, a body is in the way of a connection that stays. */
    enum parse_result started =
        body_framing_start(&exchange->request_body, has_body ? request->body : BODY_NONE,
                           request->body_length, 0, 0);
    (void)started;
    if (!exchange_classify(exchange))
        return head_len;
    if (exchange->kind == ROUTE_HANDSHAKE)
        exchange->began = timing_now();
    struct slice rest = slice_from(data, head_len);
    worker->request_head = slice_to(data, head_len);
    /* The head is needed again when another endpoint has to be found, or when the body is whole. */
    if (exchange->kind != ROUTE_SESSION || has_body)
        buffer_append(&worker->buffers, &exchange->head, slice_to(data, head_len));
    if (!has_body) {
        exchange_route(exchange, false, slice_of(NULL, 0));
        return head_len;
    }
    if (exchange->kind == ROUTE_OTHER && !exchange->is_engine_io &&
        request->body == BODY_LENGTH)
        return head_len + exchange_begin_streamed(exchange, rest);
    return head_len + exchange_begin_whole(exchange, rest);
}

void exchange_on_client_drained(struct exchange *exchange)
{
    exchange->moved_at = deadline_now(&exchange->worker->wheel);
    exchange_resume_reading(exchange);
}

void exchange_on_client_took(struct exchange *exchange)
{
    exchange->moved_at = deadline_now(&exchange->worker->wheel);
}

bool exchange_outlives_client_end(const struct exchange *exchange)
{
    return exchange->has_answer_begun;
}

size_t exchange_holds(const struct exchange *exchange)
{
    return buffer_size(exchange->head) + buffer_size(exchange->body) +
           buffer_size(exchange->request) + buffer_size(exchange->response) +
           buffer_size(exchange->response_head);
}

const char *exchange_state_word(const struct exchange *exchange)
{
    switch ((enum exchange_state)exchange->state) {
    case EXCHANGE_BODY:
        return "reading the body";
    case EXCHANGE_WAITING:
        return "waiting for a route";
    case EXCHANGE_PAUSING:
    case EXCHANGE_CONNECTING:
        return "connecting";
    case EXCHANGE_SENDING:
        return "sending";
    case EXCHANGE_AWAITING:
        return "awaiting the answer";
    case EXCHANGE_HOLDING:
    case EXCHANGE_STREAMING:
        return "answering";
    }
    unreachable();
}

void exchange_free(struct exchange *exchange)
{
    struct buffer_pool *buffers = &exchange->worker->buffers;
    if (exchange->began !=
        0) /* nothing else counted it: the client left, or it took too long */
        exchange_count_handshake(exchange, HANDSHAKE_ABORTED);
    drop_endpoint(exchange);
    if (exchange->endpoint != NULL)
        endpoint_unref(exchange->endpoint);
    for (size_t i = 0; i < exchange->tried_len; i++)
        endpoint_unref(exchange->tried[i]);
    buffer_drop(buffers, &exchange->head);
    buffer_drop(buffers, &exchange->body);
    buffer_drop(buffers, &exchange->request);
    buffer_drop(buffers, &exchange->response);
    buffer_drop(buffers, &exchange->response_head);
    buffer_drop(buffers, &exchange->sid);
    worker_snapshot_unref(exchange->snapshot);
    slab_put(&exchange->worker->exchange_slab, exchange);
}
