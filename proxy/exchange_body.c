/*
 * The request's body, on its way in:
 *
 *      Engine.IO, or chunked ─▶ all here? ─▶ route
 *                                 │ no
 *                                 ▼
 *                              could it go anywhere? ─ no ─▶ edge answer, nothing is read
 *                                 │ yes       └ not yet ─▶ WAITING, unread
 *                                 ▼
 *                              BODY: read whole ─▶ route
 *      of a known length ─────▶ route, then it streams
 *
 * The client owes BODY_RATE bytes for every second in which it could have sent some. What it sends pays, nothing is
 * paid in advance, and with more debt than timeouts.request_head allows it is too slow: so a body that stands
 * still ends as soon as one that dribbles, whatever came before.
 */
#include "proxy/exchange_parts.h"

#include "proxy/proxy_config.h"

#include <event2/event.h>

#define BODY_RATE      1024u               /* bytes a second */
#define BODY_WHOLE_MAX ((uint64_t)1 << 30) /* a buffer takes no more */

static void answer_body_fault(struct exchange *exchange)
{
    enum body_fault fault = body_framing_fault(&exchange->request_body);
    exchange_answer(exchange, body_fault_status(fault) == 413 ? CLOSE_BODY_TOO_LARGE
                                                              : CLOSE_BAD_BODY);
}

/* Decodes what belongs to the body into exchange->body: PARSE_DONE when it is whole. */
static enum parse_result take_whole(struct exchange *exchange, struct slice data,
                                    size_t *used)
{
    enum parse_result result = PARSE_MORE;
    *used = 0;
    while (result == PARSE_MORE && *used < data.len) {
        size_t consumed;
        struct slice payload;
        result = body_framing_next(&exchange->request_body, slice_from(data, *used),
                                   &consumed, &payload);
        *used += consumed;
        exchange->body_bytes += consumed;
        buffer_append(&exchange->worker->buffers, &exchange->body, payload);
    }
    return result;
}

/* A streamed body: straight into what waits for the endpoint. */
static size_t take_streamed(struct exchange *exchange, struct slice data)
{
    size_t used = min_size(data.len, (size_t)exchange->body_left);
    exchange->body_left -= used;
    exchange->body_bytes += used;
    exchange->moved_at = deadline_now(&exchange->worker->wheel);
    buffer_append(&exchange->worker->buffers, &exchange->request, slice_to(data, used));
    if (exchange->state == EXCHANGE_SENDING)
        exchange_send_request(exchange);
    return used;
}

bool exchange_has_room(struct exchange *exchange, size_t more)
{
    enum close_reason reason;
    if (client_has_room(exchange->client, CLIENT_USE_BODY, more, &reason))
        return true;
    exchange_answer_with(exchange,
                         (struct edge_answer){.reason = reason, .retry_after = 1});
    return false;
}

size_t exchange_take_body(struct exchange *exchange, struct slice data)
{
    if (exchange->state != EXCHANGE_BODY)
        return take_streamed(exchange, data);
    size_t used;
    if (!exchange_has_room(exchange, data.len))
        return 0;
    switch (take_whole(exchange, data, &used)) {
    case PARSE_BAD:
        answer_body_fault(exchange);
        return used;
    case PARSE_MORE:
        return used;
    case PARSE_DONE:
        exchange_route(exchange, true, buffer_bytes(exchange->body));
        return used;
    }
    unreachable();
}

bool exchange_wants_body(const struct exchange *exchange)
{
    return exchange->state == EXCHANGE_BODY || exchange->body_left > 0;
}

size_t exchange_body_room(const struct exchange *exchange)
{
    if (exchange->state == EXCHANGE_BODY)
        return EXCHANGE_STREAM_MAX;
    size_t waiting = buffer_len(exchange->request) - exchange->request_sent;
    size_t most = min_size(EXCHANGE_STREAM_MAX, client_portion(exchange->client));
    return min_size(most - min_size(most, waiting), (size_t)exchange->body_left);
}

static uint64_t body_limit(const struct exchange *exchange)
{
    return exchange->rule->body_bytes;
}

/* A body of a known length on other paths streams; `rest` begins with it. */
size_t exchange_begin_streamed(struct exchange *exchange, struct slice rest)
{
    const struct http_request *request = &exchange->worker->request;
    if (body_limit(exchange) != 0 && request->body_length > body_limit(exchange)) {
        exchange_answer(exchange, CLOSE_BODY_TOO_LARGE);
        return 0;
    }
    size_t used = min_size(rest.len, (size_t)min_size(request->body_length, SIZE_MAX));
    exchange->body_left =
        request->body_length; /* alone shows whether the body was read */
    (void)!body_framing_start(&exchange->request_body, BODY_NONE, 0, 0, 0);
    exchange->body_bytes = used;
    if (request->expects_continue && used < request->body_length &&
        !client_write(exchange->client, SLICE("HTTP/1.1 100 Continue\r\n\r\n")))
        return used;
    exchange->body_left -= used;
    exchange_route(exchange, false, slice_to(rest, used));
    return used;
}

/* More of the body has to come. */
static size_t begin_reading(struct exchange *exchange, struct slice rest)
{
    const struct http_request *request = &exchange->worker->request;
    size_t used = 0;
    if (!exchange_has_room(exchange, rest.len))
        return 0;
    switch (take_whole(exchange, rest, &used)) {
    case PARSE_BAD:
        answer_body_fault(exchange);
        return used;
    case PARSE_DONE:
        exchange_route(exchange, false, buffer_bytes(exchange->body));
        return used;
    case PARSE_MORE:
        exchange->state = EXCHANGE_BODY;
        client_watch(exchange->client, EV_READ);
        exchange->looked_at = deadline_now(&exchange->worker->wheel);
        exchange_set_deadline(exchange, EXCHANGE_BODY_LOOK_MS);
        if (request->expects_continue)
            (void)!client_write(exchange->client, SLICE("HTTP/1.1 100 Continue\r\n\r\n"));
        return used;
    }
    unreachable();
}

size_t exchange_begin_whole(struct exchange *exchange, struct slice rest)
{
    struct http_request *request = &exchange->worker->request;
    uint64_t limit = body_limit(exchange);
    if (limit == 0 || limit > BODY_WHOLE_MAX)
        limit = BODY_WHOLE_MAX;
    enum parse_result result =
        body_framing_start(&exchange->request_body, request->body, request->body_length,
                           limit, BODY_FRAMING_MAX);
    if (result == PARSE_BAD) {
        answer_body_fault(exchange);
        return 0;
    }
    if (request->body == BODY_LENGTH && rest.len >= request->body_length) {
        /* The common case, in place. */
        size_t consumed;
        struct slice payload;
        result = body_framing_next(&exchange->request_body, rest, &consumed, &payload);
        check(result == PARSE_DONE && consumed == request->body_length);
        exchange_route(exchange, false, payload);
        return consumed;
    }
    return exchange_has_way(exchange) ? begin_reading(exchange, rest) : 0;
}

void exchange_route_unread(struct exchange *exchange)
{
    if (!exchange_prepare_again(exchange) || !exchange_has_way(exchange))
        return;
    struct client *client = exchange->client;
    exchange->is_body_unread = false;
    (void)begin_reading(exchange, slice_of(NULL, 0));
    if (client->exchange == exchange) /* else answered */
        client_offer_body(client);
}

/* ---- the rate ---- */

bool exchange_body_is_late(struct exchange *exchange, uint32_t passed)
{
    uint64_t grace = deadline_limit(exchange_config(exchange)->timeouts.request_head);
    uint64_t paid = exchange->body_bytes - exchange->body_bytes_seen;
    uint64_t owed = exchange->body_owed + (uint64_t)passed * BODY_RATE / 1000;
    exchange->body_bytes_seen = exchange->body_bytes;
    exchange->body_owed = owed > paid ? owed - paid : 0;
    return exchange->body_owed > grace * BODY_RATE / 1000;
}

void exchange_look_at_body(struct exchange *exchange)
{
    uint32_t now = deadline_now(&exchange->worker->wheel);
    uint32_t passed = now - exchange->looked_at;
    exchange->looked_at = now;
    if (exchange_body_is_late(exchange, passed))
        exchange_answer(exchange, CLOSE_BODY_TIMEOUT);
    else
        exchange_set_deadline(exchange, EXCHANGE_BODY_LOOK_MS);
}
