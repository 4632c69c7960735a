/*
 * What a request is, where it goes, and the head that the endpoint sees.
 *
 *      head ─▶ Engine.IO path? ─▶ method, query ─▶ rule ─▶ kind: handshake · session · other
 *                                                              │
 *      cookies, hash_by, random key ──────────────────────────▶ route_pick ─▶ found ─▶ head_rewrite ─▶ connect
 *                                                              ├─▶ refused ─▶ edge answer
 *                                                              └─▶ wait ────▶ again, at most a second
 *
 * A retry routes again from the raw head, which is kept until the response begins.
 */
#include "proxy/exchange_parts.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/admission.h"
#include "proxy/endpoint.h"
#include "proxy/endpoint_set.h"
#include "proxy/head_rewrite.h"
#include "proxy/http_chars.h"
#include "proxy/proxy_config.h"

#include <netinet/in.h>
#include <stdio.h>

#define REQUEST_ID_LEN    32  /* 32 hex digits and NUL */
#define REQUEST_ID_MAX    128 /* longer ones of clients are replaced */
#define EXPLICIT_KEY_SIZE 512 /* longer ones in the query count as they stand */
#define WAIT_STEP_MS      50u /* a request that waits for a newer snapshot looks so often */

/* ---- what the head alone decides ---- */

static struct address peer_of(const struct exchange *exchange)
{
    struct sockaddr_in6 peer = {.sin6_family = AF_INET6,
                                .sin6_addr = exchange->client->ip};
    return address_from_socket((const struct sockaddr *)&peer, sizeof peer);
}

static unsigned trusted_hops(const struct exchange *exchange)
{
    const struct proxy_config *config = exchange_config(exchange);
    if (!exchange->client
             ->has_ip) /* over a unix socket, which no PROXY header explains */
        return exchange->client->place->trusts_unix_peers ? (unsigned)config->trusted_hops
                                                          : 0;
    if (config->trusted_proxies.count == 0)
        return 0;
    struct address peer = peer_of(exchange);
    return cidr_list_contains(&config->trusted_proxies, &peer)
               ? (unsigned)config->trusted_hops
               : 0;
}

/* The scheme that the client speaks to the outermost hop that we trust. */
static bool speaks_tls(const struct exchange *exchange,
                       const struct http_request *request)
{
    if (exchange->client->place->is_tls)
        return true;
    return http_field_is_present(&request->fields, HTTP_FIELD_X_FORWARDED_PROTO) &&
           slice_equals_nocase(head_told(&request->fields, HTTP_FIELD_X_FORWARDED_PROTO,
                                         trusted_hops(exchange)),
                               SLICE("https"));
}

static struct slice value_of(const struct http_request *request, enum http_field_id id)
{
    const struct http_field *field = http_field_find(&request->fields, id);
    return field == NULL ? slice_of(NULL, 0) : field->value;
}

static bool origin_is_allowed(const struct proxy_config *config, struct slice origin)
{
    if (config->access.origins.count == 0 || origin.len == 0)
        return true;
    for (size_t i = 0; i < config->access.origins.count; i++)
        if (slice_equals_nocase(origin, slice_from_text(config->access.origins.items[i])))
            return true;
    return false;
}

/* An entry of X-Forwarded-For: an address, which some write with port or brackets. */
static bool parse_told(struct slice told, struct address *address)
{
    char text[96];
    const char *why;
    size_t colon = slice_find(told, ':');
    bool has_brackets = told.len > 0 && told.data[0] == '[';
    bool is_bare_v6 = !has_brackets && colon != slice_find_last(told, ':');
    bool has_port =
        has_brackets ? told.data[told.len - 1] != ']' : colon < told.len && !is_bare_v6;
    int len = snprintf(text, sizeof text, "%s%.*s%s%s", is_bare_v6 ? "[" : "",
                       SLICE_ARGS(told), is_bare_v6 ? "]" : "", has_port ? "" : ":0");
    return (size_t)len < sizeof text &&
           address_parse(slice_of(text, (size_t)len), address, &why);
}

/* Who cannot be told is in no network. */
static bool client_is_allowed(const struct exchange *exchange,
                              const struct http_request *request)
{
    const struct proxy_config *config = exchange_config(exchange);
    const struct cidr_list *allow = &config->access.allow, *deny = &config->access.deny;
    if (allow->count == 0 && deny->count == 0)
        return true;
    char ip[CLIENT_IP_SIZE];
    struct head_identity identity = {.peer = client_ip_text(exchange->client, ip),
                                     .trusted_hops = trusted_hops(exchange)};
    struct address address;
    if (!parse_told(head_client_address(&request->fields, &identity), &address))
        return allow->count == 0;
    return !cidr_list_contains(deny, &address) &&
           (allow->count == 0 || cidr_list_contains(allow, &address));
}

/* Behind a trusted proxy each request says whose it is. */
static void note_holder(const struct exchange *exchange,
                        const struct http_request *request)
{
    struct head_identity identity = {.trusted_hops = trusted_hops(exchange)};
    struct address address;
    struct in6_addr ip;
    if (identity.trusted_hops == 0)
        return;
    struct slice told = head_client_address(&request->fields, &identity);
    if (told.len == 0 || !parse_told(told, &address)) {
        client_set_holder(exchange->client, NULL);
        return;
    }
    client_ip_of(&address, &ip);
    client_set_holder(exchange->client, &ip);
}

static bool refuse(struct exchange *exchange, enum close_reason reason)
{
    exchange_answer(exchange, reason);
    return false;
}

/* One more handshake in this second? */
static bool takes_handshake(struct exchange *exchange)
{
    int64_t maximum = exchange_config(exchange)->limits.handshakes_per_second;
    if (maximum == 0 || exchange->method == HTTP_OPTIONS ||
        admission_take_handshake(exchange->worker->process->admission, (uint64_t)maximum,
                                 timing_now()))
        return true;
    metrics_add_by(M_HANDSHAKES, HANDSHAKE_FAILED, 1);
    exchange_answer_with(exchange, (struct edge_answer){.reason = CLOSE_HANDSHAKES_FULL,
                                                        .retry_after = 1});
    return false;
}

static bool has_body(const struct http_request *request)
{
    return request->body != BODY_NONE &&
           (request->body != BODY_LENGTH || request->body_length > 0);
}

static bool classify_engine_io(struct exchange *exchange, struct http_request *request)
{
    struct engine_query *query = &exchange->worker->query;
    if (request->method != HTTP_GET && request->method != HTTP_POST &&
        request->method != HTTP_OPTIONS)
        return refuse(exchange, CLOSE_METHOD_NOT_ALLOWED);
    if (engine_query_parse(request->query, query) == PARSE_BAD)
        return refuse(exchange, CLOSE_BAD_REQUEST);
    if (!origin_is_allowed(exchange_config(exchange),
                           value_of(request, HTTP_FIELD_ORIGIN)))
        return refuse(exchange, CLOSE_FORBIDDEN);
    if (request->method == HTTP_POST && query->sid.len == 0)
        return refuse(exchange, CLOSE_NO_SESSION);
    if (request->method != HTTP_POST && has_body(request))
        return refuse(exchange, CLOSE_UNEXPECTED_BODY);
    exchange->version = (uint8_t)query->version;
    exchange->is_jsonp = query->is_jsonp;
    bool is_bundle = query->sid.len == 0 && query->version == ENGINE_VERSION_ABSENT &&
                     query->transport == ENGINE_TRANSPORT_ABSENT &&
                     request->method == HTTP_GET && !request->is_websocket;
    if (query->sid.len > 0)
        exchange->kind = ROUTE_SESSION;
    else
        exchange->kind = is_bundle ? ROUTE_OTHER : ROUTE_HANDSHAKE;
    return exchange->kind != ROUTE_HANDSHAKE || takes_handshake(exchange);
}

/* 308 keeps method and body, as a 301 need not. The host is the request's own, without its port. */
static bool redirect(struct exchange *exchange, const struct http_request *request)
{
    bool is_possible = request->host.len > 0 && !request->is_asterisk;
    exchange_answer_with(exchange,
                         (struct edge_answer){
                             .reason = is_possible ? CLOSE_REDIRECTED : CLOSE_BAD_REQUEST,
                             .host = is_possible ? request->host : slice_of(NULL, 0),
                             .path = request->path,
                             .query = request->query,
                         });
    return false;
}

static void count_request(const struct exchange *exchange)
{
    enum request_kind kind = REQUEST_OTHER;
    if (exchange->is_upgrade)
        kind = REQUEST_UPGRADE;
    else if (exchange->kind == ROUTE_SESSION)
        kind = REQUEST_SESSION;
    else if (exchange->kind == ROUTE_HANDSHAKE)
        kind = REQUEST_HANDSHAKE;
    metrics_add_by(M_REQUESTS, kind, 1);
}

static enum engine_path_kind match_path(const struct exchange *exchange,
                                        struct engine_path *match)
{
    const struct http_request *request = &exchange->worker->request;
    return engine_path_match(request->path, request->query,
                             exchange->snapshot->engine_paths,
                             exchange->snapshot->engine_paths_len, match);
}

/* The rule for the worker's request. */
static const struct route_config *match_rule(const struct exchange *exchange)
{
    const struct http_request *request = &exchange->worker->request;
    struct engine_path match;
    return route_match(exchange_config(exchange), request->host,
                       match_path(exchange, &match) == ENGINE_PATH_MATCH ? match.routed_by
                                                                         : request->path);
}

bool exchange_classify(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    struct http_request *request = &worker->request;
    struct slice origin = value_of(request, HTTP_FIELD_ORIGIN);
    if (origin.len > 0 && origin.len <= EDGE_ORIGIN_MAX) {
        memcpy(exchange->origin, origin.data, origin.len);
        exchange->origin_len = (uint16_t)origin.len;
    }
    exchange->method = (uint8_t)request->method;
    exchange->minor = request->minor;
    exchange->is_persistent = request->is_persistent;
    exchange->is_upgrade = request->is_websocket;
    exchange->kind = ROUTE_OTHER;
    exchange->has_odd_body = has_body(request) && (request->method == HTTP_GET ||
                                                   request->method == HTTP_HEAD ||
                                                   request->method == HTTP_OPTIONS);
    if (request->is_websocket)
        memcpy(exchange->websocket_key, request->websocket_key.data, WS_KEY_LEN);

    struct engine_path match;
    enum engine_path_kind kind = match_path(exchange, &match);
    exchange->is_engine_io = kind != ENGINE_PATH_OTHER;
    note_holder(exchange, request);
    if (!client_is_allowed(exchange, request))
        return refuse(exchange, CLOSE_FORBIDDEN);
    exchange->is_tls_client = speaks_tls(exchange, request);
    if (exchange->client->place->redirects_https && !exchange->is_tls_client)
        return redirect(exchange, request);
    if (request->is_asterisk ||
        (request->method == HTTP_OPTIONS && request->max_forwards == 0)) {
        exchange_answer_with(exchange,
                             (struct edge_answer){.reason = CLOSE_DONE, .status = 200});
        return false;
    }
    if (head_is_looping(&request->fields, slice_from_text(worker->via)))
        return refuse(exchange, CLOSE_LOOP);
    if (kind == ENGINE_PATH_UNCLEAR)
        return refuse(exchange, CLOSE_BAD_REQUEST);
    if (exchange->is_engine_io && !classify_engine_io(exchange, request))
        return false;
    exchange->rule = match_rule(exchange);
    if (exchange->rule == NULL)
        return refuse(exchange, CLOSE_NO_ROUTE);
    exchange->is_cross_site = affinity_cookie_is_cross_site(origin, request->host);
    count_request(exchange);
    return true;
}

/* ---- the route ---- */

/* The raw value of a query parameter; data NULL: not there. */
static struct slice query_find(struct slice query, struct slice name)
{
    struct slice part;
    while (slice_cut(&query, '&', &part)) {
        size_t equals = slice_find(part, '=');
        if (slice_equals(slice_to(part, equals), name))
            return slice_from(part, equals + 1);
    }
    return slice_of(NULL, 0);
}

/* `space`: for a key that has to be written down. */
static struct slice explicit_key(const struct exchange *exchange,
                                 const struct http_request *request,
                                 char space[EXPLICIT_KEY_SIZE])
{
    const struct affinity_config *affinity =
        &proxy_config_upstream(exchange_config(exchange), exchange->upstream)->affinity;
    struct slice name = affinity->hash_by_name;
    switch (affinity->hash_by) {
    case HASH_BY_AUTO:
        return slice_of(NULL, 0);
    case HASH_BY_CLIENT_IP: {
        struct head_identity identity = {.peer = client_ip_text(exchange->client, space),
                                         .trusted_hops = trusted_hops(exchange)};
        return head_client_address(&request->fields, &identity);
    }
    case HASH_BY_HEADER: {
        const struct http_field *field = http_field_find_name(&request->fields, name);
        return field == NULL ? slice_of(NULL, 0) : field->value;
    }
    case HASH_BY_QUERY: {
        /* clients encode differently what is the same room */
        struct slice value = query_find(request->query, name);
        size_t len = engine_query_decode(value, space, EXPLICIT_KEY_SIZE);
        return len > 0 ? slice_of(space, len) : value;
    }
    case HASH_BY_COOKIE:
        return http_cookie_find(&request->fields, name);
    }
    unreachable();
}

static void pick(struct exchange *exchange, struct route *route)
{
    struct worker *worker = exchange->worker;
    const struct http_request *request = &worker->request;
    struct slice cookies[ROUTE_COOKIES_MAX];
    size_t cookies_len = 0;
    if (http_field_is_present(&request->fields, HTTP_FIELD_COOKIE))
        for (size_t i = 0; i < request->fields.count && cookies_len < ROUTE_COOKIES_MAX;
             i++)
            if (request->fields.list[i].id == HTTP_FIELD_COOKIE)
                cookies[cookies_len++] = request->fields.list[i].value;
    struct route_facts facts = {
        .kind = (enum route_kind)exchange->kind,
        .is_options = request->method == HTTP_OPTIONS,
        .sid = exchange->kind == ROUTE_SESSION ? worker->query.sid : slice_of(NULL, 0),
        .cookies = cookies,
        .cookies_len = cookies_len,
        .random_key = exchange->random_key,
        .now = timing_now(),
        .waited = MILLISECONDS(exchange->waited_ms),
        .tried_len = exchange->tried_len,
    };
    for (size_t i = 0; i < exchange->tried_len; i++)
        facts.tried[i] = exchange->tried[i];
    struct snapshot *snapshot = exchange->snapshot->snapshot;
    char space[EXPLICIT_KEY_SIZE];
    exchange->upstream = route_pick_upstream(snapshot, exchange->rule, &facts);
    facts.explicit_key = explicit_key(exchange, request, space);
    route_pick(snapshot, exchange->rule, exchange->upstream, &facts, route);
}

static enum close_reason refusal_reason(const struct exchange *exchange,
                                        enum route_refusal refusal)
{
    switch (refusal) {
    case ROUTE_LOST_GONE:
    case ROUTE_LOST_UNKNOWN_TAG:
    case ROUTE_LOST_NO_ROUTE:
        return CLOSE_SESSION_UNKNOWN;
    case ROUTE_NO_ENDPOINT:
    case ROUTE_ALL_FULL:
    case ROUTE_TOO_FAST:
        return CLOSE_NO_ENDPOINT;
    case ROUTE_ALL_TRIED:
        return (enum close_reason)exchange->tried_reason;
    }
    unreachable();
}

static void on_refused(struct exchange *exchange, const struct route *route)
{
    enum close_reason reason = refusal_reason(exchange, route->refusal);
    bool all_tried = route->refusal == ROUTE_ALL_TRIED;
    metrics_add_by(M_ROUTES_REFUSED, (int)route->refusal, 1);
    exchange_count_handshake(exchange, HANDSHAKE_FAILED);
    exchange_answer_with(exchange, (struct edge_answer){
                                       .reason = reason,
                                       .status = all_tried ? 0 : route->status,
                                       .retry_after = reason == CLOSE_NO_ENDPOINT ? 1 : 0,
                                   });
}

/* ---- the head for the endpoint ---- */

/* The client's X-Request-Id is kept when there is one that logs can hold; else `text` gets a new one. Empty: the
 * client's own stays. */
static struct slice request_id(const struct http_request *request,
                               char text[REQUEST_ID_LEN])
{
    struct slice own;
    if (http_field_count(&request->fields, HTTP_FIELD_X_REQUEST_ID, &own) == 1 &&
        own.len > 0 && own.len <= REQUEST_ID_MAX &&
        http_chars_only(own, HTTP_CHAR_UNRESERVED))
        return slice_of(NULL, 0);
    uint64_t bits = 0;
    for (size_t i = 0; i < REQUEST_ID_LEN; i++, bits >>= 4) {
        if (i % 16 == 0)
            bits = timing_random();
        text[i] = "0123456789abcdef"[bits & 15];
    }
    return slice_of(text, REQUEST_ID_LEN);
}

/* False when the head does not fit. */
static bool write_request(struct exchange *exchange, const struct route *route,
                          struct slice body)
{
    struct worker *worker = exchange->worker;
    const struct http_request *request = &worker->request;
    const struct proxy_config *config = exchange_config(exchange);
    struct engine_path match = {0};
    if (exchange->is_engine_io && match_path(exchange, &match) != ENGINE_PATH_MATCH)
        match = (struct engine_path){0};
    struct slice own_cookie =
        slice_from_text(route_cookie_options(config, exchange->rule)->name);
    char ip[CLIENT_IP_SIZE], id[REQUEST_ID_LEN];
    bool shows_body =
        request->body != BODY_NONE &&
        (body.len > 0 || exchange->body_left > 0 || request->method != HTTP_GET);
    struct request_edits edits = {
        .path = match.canonical,
        .path_rest = match.rest,
        .default_host = slice_from_text(exchange->endpoint->address_text),
        .identity = {.peer = client_ip_text(exchange->client, ip),
                     .proto =
                         exchange->client->place->is_tls ? SLICE("https") : SLICE("http"),
                     .port = slice_from_text(exchange->client->place->port),
                     .trusted_hops = trusted_hops(exchange)},
        .via = slice_from_text(worker->via),
        .request_id = request_id(request, id),
        .strip_cookies = &own_cookie,
        .strip_cookie_count = 1,
        .identity_encoding = exchange->kind == ROUTE_HANDSHAKE && !exchange->is_upgrade,
        .body = shows_body ? BODY_LENGTH : BODY_NONE,
        .body_length = exchange->body_left > 0 ? request->body_length : body.len,
        .connection = exchange->is_upgrade           ? HEAD_CONNECTION_UPGRADE
                      : request->method == HTTP_HEAD ? HEAD_CONNECTION_CLOSE
                                                     : HEAD_CONNECTION_KEEP_ALIVE,
        .changes = exchange->rule->request_changes,
    };
    if (route->is_tagged)
        edits.query_cut =
            engine_sid_tail(&worker->query, worker->query.sid.len - route->bare_sid_len);
    size_t len = head_rewrite_request(request, &edits, worker->out, WORKER_OUT_SIZE);
    if (len == 0)
        return false;
    buffer_drop(&worker->buffers, &exchange->request);
    memcpy(buffer_reserve(&worker->buffers, &exchange->request, len + body.len),
           worker->out, len);
    buffer_fill(exchange->request, len);
    buffer_append(&worker->buffers, &exchange->request, body);
    return true;
}

static void on_found(struct exchange *exchange, const struct route *route,
                     struct slice body)
{
    struct endpoint *endpoint = route->entry->endpoint;
    metrics_add_by(M_ROUTES, (int)route->why, 1);
    if (exchange->tried_len > 0)
        metrics_add_by(M_CONNECT_RETRIES,
                       endpoint == exchange->tried[exchange->tried_len - 1] ? RETRY_SAME
                                                                            : RETRY_OTHER,
                       1);
    exchange->endpoint = endpoint_ref(endpoint);
    exchange->key_id = route->key_id;
    exchange->tag = route->tag;
    exchange->sets_cookie = route->set_cookie;
    exchange->cookie = route->cookie;
    buffer_drop(&exchange->worker->buffers, &exchange->sid);
    if (exchange->kind == ROUTE_SESSION && !route->is_tagged &&
        route->why != ROUTE_WHY_LEARNED)
        buffer_append(&exchange->worker->buffers, &exchange->sid,
                      exchange->worker->query.sid);
    if (exchange->kind == ROUTE_HANDSHAKE && exchange->method != HTTP_OPTIONS)
        endpoint_count_placed(endpoint, timing_now());
    if (exchange->tried_len == 0 && !write_request(exchange, route, body)) {
        exchange_answer(exchange, CLOSE_HEAD_TOO_LARGE);
        return;
    }
    exchange->attempts = 0;
    exchange_connect(exchange, endpoint);
}

/* Whatever the limits are by now: it was within them when it came. */
static bool parse_again(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    return http_request_parse(buffer_bytes(exchange->head), 0, buffer_len(exchange->head),
                              &worker->request) == PARSE_DONE &&
           (!exchange->is_engine_io ||
            engine_query_parse(worker->request.query, &worker->query) == PARSE_DONE);
}

/* A newer snapshot has other rules. False: answered. */
static bool find_rule(struct exchange *exchange)
{
    if (exchange->rule == NULL)
        exchange->rule = match_rule(exchange);
    if (exchange->rule != NULL)
        return true;
    exchange_answer(exchange, CLOSE_NO_ROUTE);
    return false;
}

bool exchange_prepare_again(struct exchange *exchange)
{
    check(parse_again(exchange)); /* it was good before */
    return find_rule(exchange);
}

static void wait_for_route(struct exchange *exchange, const struct route *route)
{
    exchange->state = EXCHANGE_WAITING;
    client_settle(exchange->client);
    exchange_set_deadline(exchange,
                          (uint32_t)min_size(WAIT_STEP_MS, deadline_limit(route->wait)));
    exchange->moved_at = deadline_now(&exchange->worker->wheel);
}

bool exchange_has_way(struct exchange *exchange)
{
    struct route route;
    pick(exchange, &route);
    switch (route.outcome) {
    case ROUTE_FOUND:
        return true;
    case ROUTE_REFUSED:
        on_refused(exchange, &route);
        return false;
    case ROUTE_WAIT:
        exchange->is_body_unread = true;
        wait_for_route(exchange, &route);
        return false;
    }
    unreachable();
}

void exchange_route(struct exchange *exchange, bool parses, struct slice body)
{
    check(!parses || parse_again(exchange)); /* it was good before */
    if (!find_rule(exchange))
        return;
    if (exchange->endpoint != NULL) {
        endpoint_unref(exchange->endpoint);
        exchange->endpoint = NULL;
    }
    struct route route;
    pick(exchange, &route);
    switch (route.outcome) {
    case ROUTE_FOUND:
        on_found(exchange, &route, body);
        return;
    case ROUTE_REFUSED:
        on_refused(exchange, &route);
        return;
    case ROUTE_WAIT:
        if (exchange->body == NULL && body.len > 0 &&
            !exchange_has_room(exchange, body.len))
            return;
        if (exchange->body == NULL)
            buffer_append(&exchange->worker->buffers, &exchange->body, body);
        if (exchange->head == NULL)
            buffer_append(&exchange->worker->buffers, &exchange->head,
                          exchange->worker->request_head);
        wait_for_route(exchange, &route);
        return;
    }
    unreachable();
}
