/*
 * What comes back from the endpoint, and how the client gets it.
 *
 *      bytes ─▶ head ─┬─ 1xx ───────────▶ passed on (100 never: the edge answers Expect itself), next head
 *                     ├─ 101 ───────────▶ accept value right? ─▶ head with cookie ─▶ tunnel_start
 *                     ├─ handshake 200, 400 to a sid ─▶ body held, at most 16 KiB ─▶ looked at ─▶ sent whole
 *                     └─ any other ─────▶ head, then the body as it comes:
 *
 *      from endpoint          to HTTP/1.1          to HTTP/1.0
 *      Content-Length         Content-Length       Content-Length
 *      chunked                chunked anew         until close
 *      until close            chunked              until close
 *
 * The payload of one read leaves as one write: it is moved together in the scratch, a chunk line fits before
 * it and a chunk end behind it. While the client is slow the endpoint is not read. Bytes behind the end make
 * the endpoint's connection useless and are dropped.
 */
#include "proxy/exchange_parts.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/endpoint.h"
#include "proxy/endpoint_set.h"
#include "proxy/engine_open.h"
#include "proxy/head_rewrite.h"
#include "proxy/learned_sids.h"
#include "proxy/proxy_config.h"
#include "proxy/tunnel.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <event2/event.h>

/* worker->out: a head, then what was read or rewritten; scratch for JSONP; a rewritten handshake. */
#define OUT_LEARN   WORKER_READ_MAX
#define OUT_REWRITE (2u * WORKER_READ_MAX)

/* ---- the head for the client ---- */

/* Writes the worker's response head to worker->out; 0: does not fit. */
static size_t write_head(struct exchange *exchange, enum body_kind body, uint64_t length,
                         bool body_changed, enum head_connection connection)
{
    struct worker *worker = exchange->worker;
    char cookie[AFFINITY_COOKIE_FIELD_MAX];
    struct slice set_cookie = {cookie, 0};
    bool is_open = worker->response.status == 200 || worker->response.status == 101;
    bool is_other = exchange->kind == ROUTE_OTHER && !worker->response.is_interim;
    if (exchange->sets_cookie && (is_open || is_other))
        set_cookie.len = affinity_cookie_write_field(
            route_cookie_options(exchange_config(exchange), exchange->rule),
            &exchange->cookie, exchange->is_tls_client, exchange->is_cross_site, cookie);
    struct response_edits edits = {
        .body = body,
        .body_length = length,
        .body_changed = body_changed,
        .connection = connection,
        .set_cookies = &set_cookie,
        .set_cookie_count = set_cookie.len > 0 ? 1 : 0,
        .date = worker_date(worker),
        .changes = exchange->rule->response_changes,
    };
    return head_rewrite_response(&worker->response, &edits, worker->out, WORKER_READ_MAX);
}

static enum head_connection client_connection(const struct exchange *exchange)
{
    bool stays = exchange->is_persistent && client_stays(exchange->client);
    return stays ? HEAD_CONNECTION_KEEP_ALIVE : HEAD_CONNECTION_CLOSE;
}

/* ---- the end ---- */

static void finish(struct exchange *exchange)
{
    if (exchange->keeps_endpoint)
        endpoint_connection_keep(exchange->connection);
    else
        endpoint_connection_close(exchange->connection);
    exchange->connection = NULL;
    if (exchange->is_body_cut) /* it may be sending still, and must be able to read */
        client_linger(exchange->client, CLOSE_DONE);
    else
        client_end_exchange(exchange->client, exchange->is_persistent);
}

static void bad_answer(struct exchange *exchange, const char *why)
{
    struct log_subject subject = {.kind = "endpoint",
                                  .name = exchange->endpoint->address_text};
    log_warn(&subject, "bad response", LOG_TEXT("why", why));
    exchange_count_handshake(exchange, HANDSHAKE_FAILED);
    exchange_answer(exchange, CLOSE_BAD_ANSWER);
}

/* ---- the body as it comes ---- */

struct piece {
    size_t len;               /* of payload */
    enum parse_result result; /* DONE: the body is whole */
    bool has_surplus;
};

/* Moves the payload in `data` together at `at`, which may lie in front of or at `data`. */
static struct piece gather(struct exchange *exchange, struct slice data, char *at)
{
    struct piece piece = {0, PARSE_MORE, false};
    if (body_framing_is_complete(&exchange->response_body))
        piece.result = PARSE_DONE;
    while (piece.result == PARSE_MORE && data.len > 0) {
        size_t consumed;
        struct slice payload;
        piece.result =
            body_framing_next(&exchange->response_body, data, &consumed, &payload);
        if (payload.len > 0 && at + piece.len != payload.data)
            memmove(at + piece.len, payload.data, payload.len);
        piece.len += payload.len;
        data = slice_from(data, consumed);
    }
    piece.has_surplus = data.len > 0;
    return piece;
}

/* Puts the framing for the client around `len` payload bytes at `at`. There is room for it. */
static struct slice frame(const struct exchange *exchange, char *at, size_t len,
                          bool is_last)
{
    if (exchange->out_framing != BODY_CHUNKED)
        return slice_of(at, len);
    char *start = at;
    char *end = at + len;
    if (len > 0) {
        char line[BODY_CHUNK_LINE_MAX];
        size_t line_len = chunk_line_write(line, len);
        start -= line_len;
        memcpy(start, line, line_len);
        memcpy(end, CHUNK_END, sizeof CHUNK_END - 1);
        end += sizeof CHUNK_END - 1;
    }
    if (is_last) {
        memcpy(end, CHUNK_LAST, sizeof CHUNK_LAST - 1);
        end += sizeof CHUNK_LAST - 1;
    }
    return slice_of(start, (size_t)(end - start));
}

/* After bytes went to the client: the end, or more. */
static void after_piece(struct exchange *exchange, const struct piece *piece)
{
    switch (piece->result) {
    case PARSE_DONE:
        if (piece->has_surplus)
            exchange->keeps_endpoint = false;
        finish(exchange);
        return;
    case PARSE_BAD:
        exchange_cut_answer(exchange);
        return;
    case PARSE_MORE:
        if (client_is_blocked(exchange->client))
            endpoint_connection_watch(exchange->connection, 0);
        return;
    }
    unreachable();
}

/* `data` lies in the scratch, at worker_read_space(). */
static void stream_on(struct exchange *exchange, struct slice data)
{
    char *at = worker_read_space(exchange->worker);
    struct piece piece = gather(exchange, data, at);
    struct slice bytes = frame(exchange, at, piece.len, piece.result == PARSE_DONE);
    if (bytes.len > 0 && !client_write(exchange->client, bytes))
        return;
    after_piece(exchange, &piece);
}

/* Sends the worker's response head; `held` is payload already decoded, `data` what follows it on the wire. */
static void begin_streaming(struct exchange *exchange, struct slice held,
                            struct slice data)
{
    struct worker *worker = exchange->worker;
    const struct http_response *response = &worker->response;
    enum body_kind framing = response->body;
    if (framing == BODY_CHUNKED || framing == BODY_UNTIL_CLOSE)
        framing = exchange->minor > 0 ? BODY_CHUNKED : BODY_UNTIL_CLOSE;
    exchange->out_framing = (uint8_t)framing;
    if (framing == BODY_UNTIL_CLOSE)
        exchange->is_persistent = false;
    size_t head_len = write_head(exchange, framing, response->body_length, false,
                                 client_connection(exchange));
    if (head_len == 0) {
        bad_answer(exchange, "the head is too large");
        return;
    }
    exchange->state = EXCHANGE_STREAMING;
    exchange->has_answer_begun = true;
    exchange_set_deadline(exchange, exchange_poll_limit(exchange));

    /* The payload is gathered behind the head with room for a chunk line, then moved next to it. */
    char *at = worker->out + head_len + BODY_CHUNK_LINE_MAX;
    if (held.len > 0)
        memmove(at, held.data, held.len);
    struct piece piece = gather(exchange, data, at + held.len);
    piece.len += held.len;
    struct slice body = frame(exchange, at, piece.len, piece.result == PARSE_DONE);
    if (body.len > 0)
        memmove(worker->out + head_len, body.data, body.len);
    if (client_write(exchange->client, slice_of(worker->out, head_len + body.len)))
        after_piece(exchange, &piece);
}

/* ---- bodies that are looked at ---- */

static bool must_hold(const struct exchange *exchange,
                      const struct http_response *response)
{
    if (!exchange->is_engine_io || exchange->method == HTTP_OPTIONS)
        return false;
    if (response->body == BODY_LENGTH && response->body_length > ENGINE_HANDSHAKE_MAX)
        return false;
    if (exchange->kind == ROUTE_HANDSHAKE)
        return response->status == 200 && !exchange->is_upgrade;
    return exchange->kind == ROUTE_SESSION && response->status == 400;
}

static void learn_heartbeat(struct upstream *upstream, const struct engine_open *open)
{
    upstream_learn_heartbeat(upstream, MILLISECONDS(open->ping_interval),
                             MILLISECONDS(open->ping_timeout));
}

/* Puts the session into the learned table: its sid carries no tag. */
static void remember(struct exchange *exchange, struct slice sid)
{
    learned_sids_add(exchange->snapshot->snapshot->sets[exchange->upstream]->learned, sid,
                     exchange->endpoint,
                     upstream_learned_lifetime(exchange->endpoint->upstream),
                     timing_now());
}

static void learn(struct exchange *exchange, struct slice body)
{
    struct engine_open open;
    if (engine_open_learn(body, exchange->worker->out + OUT_LEARN, &open) !=
        ENGINE_OPEN_OK) {
        metrics_add_by(M_SID_REWRITES, REWRITE_SKIPPED_FORM, 1);
        return;
    }
    learn_heartbeat(exchange->endpoint->upstream, &open);
    remember(exchange, open.sid);
    metrics_add_by(M_SID_REWRITES, REWRITE_LEARNED, 1);
}

/* The handshake's body with our tag in its sid; the same slice when it is left alone. */
static struct slice rewrite_handshake(struct exchange *exchange, struct slice body)
{
    struct worker *worker = exchange->worker;
    const struct affinity_config *affinity =
        &proxy_config_upstream(exchange_config(exchange), exchange->upstream)->affinity;
    const struct http_field *coding =
        http_field_find(&worker->response.fields, HTTP_FIELD_CONTENT_ENCODING);
    if (coding != NULL && !slice_equals_nocase(coding->value, SLICE("identity"))) {
        metrics_add_by(M_SID_REWRITES, REWRITE_SKIPPED_FORM, 1);
        return body;
    }
    struct engine_open open;
    if (exchange->version != ENGINE_VERSION_4 || exchange->is_jsonp ||
        engine_open_scan(body, &open) != ENGINE_OPEN_OK) {
        learn(exchange, body);
        return body;
    }
    learn_heartbeat(exchange->endpoint->upstream, &open);
    struct slice tag = {NULL, 0}; /* without one only webtransport goes */
    char suffix[ROUTE_TAG_SUFFIX_LEN];
    if (affinity->sid_tag) {
        route_tag_suffix(exchange->key_id, exchange->tag, suffix);
        tag = slice_of(suffix + 1, ROUTE_TAG_SUFFIX_LEN - 1);
    } else {
        remember(exchange, open.sid);
    }
    metrics_add_by(M_SID_REWRITES, affinity->sid_tag ? REWRITE_TAGGED : REWRITE_OFF, 1);
    char *out = worker->out + OUT_REWRITE;
    size_t len = engine_open_write(body, &open, tag, out, WORKER_OUT_SIZE - OUT_REWRITE);
    check(len > 0);
    return slice_of(out, len);
}

/* The held body is whole, its head is the worker's response. */
static void finish_held(struct exchange *exchange, struct slice body)
{
    struct worker *worker = exchange->worker;
    struct slice rewritten = body;
    if (exchange->kind == ROUTE_HANDSHAKE) {
        exchange_count_handshake(exchange, HANDSHAKE_OPENED);
        if (exchange->method == HTTP_GET)
            rewritten = rewrite_handshake(exchange, body);
    } else if (engine_is_session_unknown(body)) {
        metrics_add(M_SESSION_UNKNOWN, 1);
        atomic_fetch_add_explicit(&exchange->endpoint->upstream->session_unknown, 1,
                                  memory_order_relaxed);
    }
    size_t head_len =
        write_head(exchange, BODY_LENGTH, rewritten.len, rewritten.data != body.data,
                   client_connection(exchange));
    if (head_len == 0) {
        bad_answer(exchange, "the head is too large");
        return;
    }
    if (rewritten.len > 0)
        memcpy(worker->out + head_len, rewritten.data, rewritten.len);
    exchange->has_answer_begun = true;
    if (client_write(exchange->client, slice_of(worker->out, head_len + rewritten.len)))
        finish(exchange);
}

static bool parse_head_again(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    return http_response_parse(buffer_bytes(exchange->response_head), 0,
                               (size_t)exchange_config(exchange)->limits.head_bytes,
                               (enum http_method)exchange->method, exchange->is_upgrade,
                               &worker->response) == PARSE_DONE;
}

/* Adds `data` to the held body: sends it when it is whole, streams when it is too long. The worker's response
 * is its head when `is_fresh`, else that is parsed again from response_head. */
static void hold(struct exchange *exchange, struct slice data, bool is_fresh)
{
    struct buffer_pool *buffers = &exchange->worker->buffers;
    char *space = worker_read_space(exchange->worker);
    struct piece piece = gather(exchange, data, space);
    struct slice payload = slice_of(space, piece.len);
    if (exchange->response != NULL) {
        buffer_append(buffers, &exchange->response, payload);
        payload = buffer_bytes(exchange->response);
    }
    if (piece.has_surplus)
        exchange->keeps_endpoint = false;
    if (piece.result == PARSE_BAD) {
        bad_answer(exchange, "the body is malformed");
        return;
    }
    bool is_too_long = payload.len > ENGINE_HANDSHAKE_MAX;
    if (piece.result == PARSE_MORE && !is_too_long) {
        if (exchange->response == NULL)
            buffer_append(buffers, &exchange->response, payload);
        client_settle(exchange->client);
        return;
    }
    check(is_fresh || parse_head_again(exchange)); /* it was good before */
    if (!is_too_long) {
        finish_held(exchange, payload);
        return;
    }
    if (exchange->kind == ROUTE_HANDSHAKE) {
        exchange_count_handshake(exchange, HANDSHAKE_OPENED);
        metrics_add_by(M_SID_REWRITES, REWRITE_SKIPPED_SIZE, 1);
    }
    begin_streaming(exchange, payload, slice_of(NULL, 0));
}

static void begin_holding(struct exchange *exchange, struct slice head, struct slice data)
{
    struct buffer_pool *buffers = &exchange->worker->buffers;
    exchange->state = EXCHANGE_HOLDING;
    exchange_set_deadline(exchange, exchange_poll_limit(exchange));
    struct buffer *raw = exchange->response; /* `head` and `data` may point into it */
    exchange->response = NULL;
    buffer_append(buffers, &exchange->response_head, head);
    struct client *client = exchange->client;
    /* The body may lie behind the head in the scratch: gather() moves it to the front. */
    if (raw == NULL) {
        char *space = worker_read_space(exchange->worker);
        if (data.len > 0)
            memmove(space, data.data, data.len);
        data = slice_of(space, data.len);
        check(parse_head_again(exchange));
    }
    hold(exchange, data, raw != NULL);
    buffer_drop(&client->worker->buffers, &raw);
}

/* ---- 101 ---- */

static void on_switch(struct exchange *exchange, struct slice behind)
{
    struct worker *worker = exchange->worker;
    struct client *client = exchange->client;
    const struct http_response *response = &worker->response;
    if (!response->is_websocket ||
        !ws_accept_matches(slice_of(exchange->websocket_key, WS_KEY_LEN),
                           response->websocket_accept)) {
        exchange_count_handshake(exchange, HANDSHAKE_FAILED);
        exchange_answer(exchange, CLOSE_BAD_SWITCH);
        return;
    }
    exchange_count_handshake(exchange, HANDSHAKE_OPENED);
    metrics_add_by(M_EXCHANGES, STATUS_1XX, 1);
    bool has_deflate = response->has_deflate;
    bool is_engine_io = exchange->is_engine_io;
    size_t len = write_head(exchange, BODY_NONE, 0, false, HEAD_CONNECTION_UPGRADE);
    if (len == 0) {
        bad_answer(exchange, "the head is too large");
        return;
    }
    if (!client_write(client, slice_of(worker->out, len)))
        return;
    struct endpoint_connection *connection = exchange->connection;
    struct buffer *raw = exchange->response; /* `behind` may point into it */
    exchange->connection = NULL;
    exchange->response = NULL;
    tunnel_start(client, connection, has_deflate, is_engine_io, behind);
    buffer_drop(&worker->buffers, &raw);
}

/* ---- heads ---- */

/* Passes a 1xx on where that helps: never 100, never to HTTP/1.0. False: the client is gone. */
static bool pass_interim(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    if (worker->response.status == 100 || exchange->minor == 0)
        return true;
    size_t len = write_head(exchange, BODY_NONE, 0, false, HEAD_CONNECTION_KEEP_ALIVE);
    return len == 0 || client_write(exchange->client, slice_of(worker->out, len));
}

/* Keep-Alive: timeout=5, max=100 (RFC 2068 section 19.7.1.1). An endpoint that announces 0 keeps nothing. */
static void note_keep_alive(struct exchange *exchange)
{
    const struct http_field *field =
        http_field_find(&exchange->worker->response.fields, HTTP_FIELD_KEEP_ALIVE);
    if (field == NULL)
        return;
    struct slice rest = field->value, part, name = SLICE("timeout=");
    while (slice_cut(&rest, ',', &part)) {
        part = slice_trim(part);
        uint64_t seconds;
        if (part.len <= name.len ||
            !slice_equals_nocase(slice_to(part, name.len), name) ||
            !slice_to_number(slice_from(part, name.len), 0, 86400, &seconds))
            continue;
        if (seconds == 0)
            exchange->keeps_endpoint = false;
        else
            endpoint_note_idle_announced(exchange->endpoint, (unsigned)seconds * 1000);
    }
}

static void on_final(struct exchange *exchange, struct slice head, struct slice data)
{
    struct worker *worker = exchange->worker;
    const struct http_response *response = &worker->response;
    bool is_good = response->status == 200 || response->status == 101;
    if (is_good && exchange->sid != NULL && exchange->method != HTTP_OPTIONS)
        remember(exchange,
                 buffer_bytes(exchange->sid)); /* whatever led here may change */
    if (response->status == 101) {
        on_switch(exchange, data);
        return;
    }
    metrics_add_by(M_EXCHANGES, (int)status_class_of(response->status), 1);
    if (exchange->state == EXCHANGE_SENDING) {
        /* An answer before the request was whole: nothing more of it is sent. */
        exchange->keeps_endpoint = false;
        exchange->is_body_cut = exchange->body_left > 0;
        exchange->is_persistent = exchange->is_persistent && !exchange->is_body_cut;
        exchange->body_left = 0;
    }
    /* What was sent for a tunnel that did not come about is no request. */
    if (exchange->is_upgrade && exchange->client->in != NULL)
        exchange->is_persistent = false;
    exchange->keeps_endpoint = exchange->keeps_endpoint && response->is_persistent;
    note_keep_alive(exchange);
    buffer_drop(&worker->buffers, &exchange->request);
    buffer_drop(&worker->buffers, &exchange->head);
    exchange->parsed_len = 0;
    if (body_framing_start(&exchange->response_body, response->body,
                           response->body_length, 0, 0) == PARSE_BAD) {
        bad_answer(exchange, "the body is malformed");
        return;
    }
    if (must_hold(exchange, response)) {
        begin_holding(exchange, head, data);
        return;
    }
    if (exchange->kind == ROUTE_HANDSHAKE)
        exchange_count_handshake(exchange, response->status == 200 ? HANDSHAKE_OPENED
                                                                   : HANDSHAKE_REFUSED);
    struct buffer *raw = exchange->response; /* `data` may point into it */
    exchange->response = NULL;
    begin_streaming(exchange, slice_of(NULL, 0), data);
    buffer_drop(&worker->buffers, &raw);
}

static void take_head(struct exchange *exchange, struct slice data)
{
    struct worker *worker = exchange->worker;
    struct http_response *response = &worker->response;
    if (exchange->response != NULL) {
        buffer_append(&worker->buffers, &exchange->response, data);
        data = buffer_bytes(exchange->response);
    }
    size_t limit = (size_t)exchange_config(exchange)->limits.head_bytes;
    for (;;) {
        switch (http_response_parse(data, exchange->parsed_len, limit,
                                    (enum http_method)exchange->method,
                                    exchange->is_upgrade, response)) {
        case PARSE_BAD:
            bad_answer(exchange, response->refusal.reason);
            return;
        case PARSE_MORE:
            exchange->parsed_len = (uint32_t)data.len;
            if (exchange->response == NULL)
                buffer_append(&worker->buffers, &exchange->response, data);
            else
                buffer_take(&worker->buffers, &exchange->response,
                            buffer_len(exchange->response) - data.len);
            return;
        case PARSE_DONE:
            break;
        }
        struct slice rest = slice_from(data, response->head_len);
        if (!response->is_interim) {
            on_final(exchange, slice_to(data, response->head_len), rest);
            return;
        }
        if (++exchange->interims > HTTP_INTERIM_MAX) {
            bad_answer(exchange, "too many interim responses");
            return;
        }
        if (!pass_interim(exchange))
            return;
        exchange->parsed_len = 0;
        data = rest;
        if (data.len == 0) {
            buffer_drop(&worker->buffers, &exchange->response);
            return;
        }
    }
}

/* ---- the socket ---- */

static void on_endpoint_end(struct exchange *exchange)
{
    exchange->keeps_endpoint = false;
    switch ((enum exchange_state)exchange->state) {
    case EXCHANGE_SENDING:
    case EXCHANGE_AWAITING:
        if (exchange->response == NULL && exchange->interims == 0) {
            exchange_endpoint_failed(exchange, CLOSE_NO_ANSWER);
        } else {
            exchange_count_handshake(exchange, HANDSHAKE_FAILED);
            exchange_answer(exchange, CLOSE_NO_ANSWER);
        }
        return;
    case EXCHANGE_HOLDING:
        if (body_framing_end(&exchange->response_body) == PARSE_DONE)
            hold(exchange, slice_of(NULL, 0), false);
        else
            bad_answer(exchange, "the body was cut off");
        return;
    case EXCHANGE_STREAMING:
        if (body_framing_end(&exchange->response_body) == PARSE_DONE)
            stream_on(exchange, slice_of(NULL, 0));
        else
            exchange_cut_answer(exchange);
        return;
    case EXCHANGE_BODY:
    case EXCHANGE_WAITING:
    case EXCHANGE_PAUSING:
    case EXCHANGE_CONNECTING:
        break; /* no connection is read in these */
    }
    unreachable();
}

void exchange_read(struct exchange *exchange)
{
    struct endpoint_connection *connection = exchange->connection;
    struct client *client = exchange->client;
    char *space = worker_read_space(exchange->worker);
    do {
        ssize_t got = stream_read(&connection->stream, space, client_portion(client));
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            on_endpoint_end(exchange);
            return;
        }
        exchange->moved_at = deadline_now(&exchange->worker->wheel);
        struct slice data = slice_of(space, (size_t)got);
        if (exchange->state == EXCHANGE_STREAMING)
            stream_on(exchange, data);
        else if (exchange->state == EXCHANGE_HOLDING)
            hold(exchange, data, false);
        else
            take_head(exchange, data);
    } while (client->exchange == exchange && exchange->connection == connection &&
             (connection->watched & EV_READ) != 0 &&
             stream_has_pending(&connection->stream));
}

void exchange_resume_reading(struct exchange *exchange)
{
    if (exchange->state == EXCHANGE_STREAMING && exchange->connection != NULL)
        endpoint_connection_watch(exchange->connection, EV_READ);
}
