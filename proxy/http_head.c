/*
 * Request and response heads. Start line and fields are scanned from the left, one byte
 * after the other; only a complete head is judged as a whole:
 *
 *     empty lines ─▶ start line ─▶ fields ─▶ Connection, framing ─▶ Host, Expect, Upgrade
 *         │              │            │             │                      │      │
 *         └──────────────┴────────────┴─────────────┴──────────────────────┘      ▼
 *                                     ▼                                       PARSE_DONE
 *                             PARSE_BAD, refusal
 *
 * A head that arrives in many pieces is parsed again only when a line has ended, so that
 * a byte at a time costs no more than 128 passes.
 */
#include "proxy/http_head.h"

#include "proxy/http_chars.h"

enum {
    METHOD_MAX = 32,
    HOST_MAX = 255,
    IPV6_MAX = 45,
};

static const struct slice method_names[] = {
    [HTTP_GET] = SLICE_INIT("GET"),         [HTTP_HEAD] = SLICE_INIT("HEAD"),
    [HTTP_POST] = SLICE_INIT("POST"),       [HTTP_PUT] = SLICE_INIT("PUT"),
    [HTTP_PATCH] = SLICE_INIT("PATCH"),     [HTTP_DELETE] = SLICE_INIT("DELETE"),
    [HTTP_OPTIONS] = SLICE_INIT("OPTIONS"),
};

/* Where a scan stands. */
struct cursor {
    const char *at;
    const char *end;      /* of the bytes that may be used */
    const char *data_end; /* of the bytes that have come */
};

static enum parse_result refuse(struct http_refusal *refusal, unsigned status,
                                const char *reason)
{
    refusal->status = status;
    refusal->reason = reason;
    return PARSE_BAD;
}

static enum parse_result out_of_bytes(const struct cursor *cursor,
                                      struct http_refusal *refusal)
{
    if (cursor->end == cursor->data_end)
        return PARSE_MORE;
    return refuse(refusal, 431, "head too long");
}

static struct cursor cursor_over(struct slice data, size_t max_head_bytes)
{
    return (struct cursor){
        .at = data.data,
        .end = data.data + min_size(data.len, max_head_bytes),
        .data_end = data.data + data.len,
    };
}

/* True when the bytes behind `last_len` only lengthen an unfinished field line, so
 * that another pass over everything could say nothing but PARSE_MORE (or what it will
 * say at the end of the line). */
static bool only_lengthens_a_line(struct slice data, size_t last_len,
                                  size_t max_head_bytes)
{
    if (last_len == 0 || last_len > data.len || data.len > max_head_bytes)
        return false;
    if (memchr(data.data + last_len, '\n', data.len - last_len) != NULL)
        return false;
    size_t line = slice_find_last(slice_to(data, last_len), '\n');
    /* the start line has ended only when the newline is not one of the empty lines
     * before it */
    if (line == last_len || line <= (size_t)2 * HTTP_EMPTY_LINES_MAX)
        return false;
    return data.len - (line + 1) < HTTP_LINE_MAX;
}

/* Takes exactly `text`, as far as bytes have come. */
static enum parse_result take_text(struct cursor *cursor, struct slice text,
                                   struct http_refusal *refusal, const char *reason)
{
    for (size_t i = 0; i < text.len; i++) {
        if (cursor->at == cursor->end)
            return out_of_bytes(cursor, refusal);
        if (*cursor->at != text.data[i])
            return refuse(refusal, 400, reason);
        cursor->at++;
    }
    return PARSE_DONE;
}

static enum parse_result skip_empty_lines(struct cursor *cursor,
                                          struct http_refusal *refusal)
{
    for (size_t lines = 0; cursor->at < cursor->end && *cursor->at == '\r'; lines++) {
        if (lines == HTTP_EMPTY_LINES_MAX)
            return refuse(refusal, 400, "too many empty lines before the request");
        enum parse_result result =
            take_text(cursor, SLICE("\r\n"), refusal, "bare CR before the request");
        if (result != PARSE_DONE)
            return result;
    }
    return PARSE_DONE;
}

static enum parse_result parse_method(struct cursor *cursor, struct http_request *request)
{
    const char *begin = cursor->at;
    while (cursor->at < cursor->end && http_char_is(*cursor->at, HTTP_CHAR_TOKEN) &&
           cursor->at - begin <= METHOD_MAX)
        cursor->at++;
    size_t len = (size_t)(cursor->at - begin);
    if (len > METHOD_MAX)
        return refuse(&request->refusal, 501, "method not known");
    if (cursor->at == cursor->end)
        return out_of_bytes(cursor, &request->refusal);
    if (*cursor->at != ' ' || len == 0)
        return refuse(&request->refusal, 400, "not an HTTP request");
    request->method_text = slice_of(begin, len);
    cursor->at++;
    for (size_t i = 0; i < ARRAY_LEN(method_names); i++) {
        if (slice_equals(request->method_text, method_names[i])) {
            request->method = (enum http_method)i;
            return PARSE_DONE;
        }
    }
    return refuse(&request->refusal, 501, "method not known");
}

/* "HTTP/1.x": *minor is 0 or 1; a higher one means no more than 1.1 (RFC 9110 2.5). */
static enum parse_result parse_version(struct cursor *cursor, uint8_t *minor,
                                       struct http_refusal *refusal)
{
    enum parse_result result =
        take_text(cursor, SLICE("HTTP/"), refusal, "bad HTTP version");
    if (result != PARSE_DONE)
        return result;
    char digits[3];
    for (size_t i = 0; i < sizeof(digits); i++) {
        if (cursor->at == cursor->end)
            return out_of_bytes(cursor, refusal);
        digits[i] = *cursor->at++;
        if (i == 1 ? digits[i] != '.' : !http_char_is(digits[i], HTTP_CHAR_DIGIT))
            return refuse(refusal, 400, "bad HTTP version");
    }
    if (digits[0] != '1')
        return refuse(refusal, 505, "HTTP version not supported");
    *minor = digits[2] == '0' ? 0 : 1;
    return PARSE_DONE;
}

bool http_authority_parse(struct slice authority, struct slice *host, uint16_t *port)
{
    struct slice name;
    struct slice rest;
    if (authority.len > 0 && authority.data[0] == '[') {
        size_t end = slice_find(authority, ']');
        if (end == authority.len)
            return false;
        name = slice_from(slice_to(authority, end), 1);
        rest = slice_from(authority, end + 1);
        if (name.len < 2 || name.len > IPV6_MAX || slice_find(name, ':') == name.len)
            return false;
        for (size_t i = 0; i < name.len; i++)
            if (!http_char_is(name.data[i], HTTP_CHAR_HEX) && name.data[i] != ':' &&
                name.data[i] != '.')
                return false;
    } else {
        name = slice_to(authority, slice_find(authority, ':'));
        rest = slice_from(authority, name.len);
        if (name.len == 0 || name.len > HOST_MAX ||
            !http_chars_only(name, HTTP_CHAR_UNRESERVED))
            return false;
    }
    uint64_t number = 0;
    if (rest.len > 0 &&
        (rest.data[0] != ':' || !slice_to_number(slice_from(rest, 1), 1, 65535, &number)))
        return false;
    *host = name;
    *port = (uint16_t)number;
    return true;
}

/* Cuts "scheme://authority" from the front of an absolute target; *rest begins with
 * '/', '?' or is empty. */
static bool cut_absolute(struct http_request *request, struct slice *rest)
{
    struct slice target = request->target;
    size_t scheme = 0;
    if (slice_equals_nocase(slice_to(target, 7), SLICE("http://")))
        scheme = 7;
    else if (slice_equals_nocase(slice_to(target, 8), SLICE("https://")))
        scheme = 8;
    else
        return false;
    *rest = slice_from(target, scheme);
    size_t end = min_size(slice_find(*rest, '/'), slice_find(*rest, '?'));
    request->authority = slice_to(*rest, end);
    *rest = slice_from(*rest, end);
    request->is_absolute = true;
    /* user information has '@', which no host has */
    return http_authority_parse(request->authority, &request->host, &request->port);
}

/* The forms of RFC 9112 3.2 that a request to an edge may have. */
static enum parse_result split_target(struct http_request *request)
{
    struct slice rest = request->target;
    if (slice_equals(rest, SLICE("*")) && request->method == HTTP_OPTIONS) {
        request->path = rest;
        request->is_asterisk = true;
        return PARSE_DONE;
    }
    if (rest.data[0] != '/' && !cut_absolute(request, &rest))
        return refuse(&request->refusal, 400, "bad request target");
    size_t mark = slice_find(rest, '?');
    request->path = mark == 0 ? SLICE("/") : slice_to(rest, mark);
    if (mark < rest.len)
        request->query = slice_from(rest, mark + 1);
    if (request->path.len == 0)
        request->path = SLICE("/");
    if (!http_chars_only(request->path, HTTP_CHAR_PATH))
        return refuse(&request->refusal, 400, "bad byte in path");
    return PARSE_DONE;
}

static enum parse_result parse_target(struct cursor *cursor, struct http_request *request)
{
    const char *begin = cursor->at;
    const char *stop =
        begin + min_size((size_t)(cursor->end - begin), (size_t)HTTP_TARGET_MAX + 1);
    while (cursor->at < stop && http_char_is(*cursor->at, HTTP_CHAR_QUERY))
        cursor->at++;
    size_t len = (size_t)(cursor->at - begin);
    if (len > HTTP_TARGET_MAX)
        return refuse(&request->refusal, 414, "request target too long");
    if (cursor->at == cursor->end)
        return out_of_bytes(cursor, &request->refusal);
    if (*cursor->at != ' ' || len == 0)
        return refuse(&request->refusal, 400, "bad byte in request target");
    request->target = slice_of(begin, len);
    cursor->at++;
    return split_target(request);
}

static enum parse_result parse_request_line(struct cursor *cursor,
                                            struct http_request *request)
{
    enum parse_result result = skip_empty_lines(cursor, &request->refusal);
    if (result != PARSE_DONE)
        return result;
    result = parse_method(cursor, request);
    if (result != PARSE_DONE)
        return result;
    result = parse_target(cursor, request);
    if (result != PARSE_DONE)
        return result;
    result = parse_version(cursor, &request->minor, &request->refusal);
    if (result != PARSE_DONE)
        return result;
    return take_text(cursor, SLICE("\r\n"), &request->refusal,
                     "bytes behind the version");
}

static enum parse_result judge_host(struct http_request *request)
{
    struct slice value;
    size_t hosts = http_field_count(&request->fields, HTTP_FIELD_HOST, &value);
    if (hosts > 1)
        return refuse(&request->refusal, 400, "more than one Host");
    if (hosts == 0)
        return request->minor == 0 ? PARSE_DONE
                                   : refuse(&request->refusal, 400, "no Host");
    struct slice host;
    uint16_t port;
    if (!http_authority_parse(value, &host, &port))
        return refuse(&request->refusal, 400, "bad Host");
    if (request->is_absolute)
        return PARSE_DONE; /* the target's authority counts (RFC 9112 3.2.2) */
    request->authority = value;
    request->host = host;
    request->port = port;
    return PARSE_DONE;
}

static enum parse_result judge_expect(struct http_request *request)
{
    struct slice value;
    size_t count = http_field_count(&request->fields, HTTP_FIELD_EXPECT, &value);
    if (count == 0 || request->minor == 0)
        return PARSE_DONE;
    if (count > 1 || !slice_equals_nocase(value, SLICE("100-continue")))
        return refuse(&request->refusal, 417, "expectation not known");
    request->expects_continue = true;
    return PARSE_DONE;
}

/* 16 bytes in base64: 22 characters and "==", the last of them with four spare bits. */
static bool is_websocket_key(struct slice key)
{
    if (key.len != 24 || !slice_ends_with(key, SLICE("==")))
        return false;
    for (size_t i = 0; i < 22; i++)
        if (!http_char_is(key.data[i], HTTP_CHAR_HEX) && key.data[i] != '+' &&
            key.data[i] != '/' &&
            (!http_char_is(key.data[i], HTTP_CHAR_BASE64URL) || key.data[i] == '-' ||
             key.data[i] == '_'))
            return false;
    return true;
}

/* RFC 9110 7.8 and RFC 6455 4.2.1. Any other protocol than websocket is ignored, and
 * taken off by head_rewrite. */
static enum parse_result judge_upgrade(struct http_request *request)
{
    struct http_fields *fields = &request->fields;
    struct http_refusal *refusal = &request->refusal;
    size_t protocols;
    if (request->minor == 0 || !request->connection.upgrade ||
        !http_list_has(fields, HTTP_FIELD_UPGRADE, SLICE("websocket"), &protocols))
        return PARSE_DONE;
    if (protocols != 1)
        return refuse(refusal, 400, "more than one protocol in Upgrade");
    if (request->method != HTTP_GET)
        return refuse(refusal, 400, "WebSocket handshake is not a GET");
    if (request->body != BODY_NONE && request->body_length != 0)
        return refuse(refusal, 400, "WebSocket handshake with a body");
    if (request->body == BODY_CHUNKED)
        return refuse(refusal, 400, "WebSocket handshake with a body");
    struct slice version;
    struct slice key;
    if (http_field_count(fields, HTTP_FIELD_SEC_WEBSOCKET_KEY, &key) != 1 ||
        !is_websocket_key(key))
        return refuse(refusal, 400, "bad Sec-WebSocket-Key");
    size_t versions =
        http_field_count(fields, HTTP_FIELD_SEC_WEBSOCKET_VERSION, &version);
    if (versions > 1)
        return refuse(refusal, 400, "more than one Sec-WebSocket-Version");
    if (!slice_equals(version, SLICE("13")))
        return refuse(refusal, 426, "Sec-WebSocket-Version is not 13");
    request->is_websocket = true;
    request->websocket_key = key;
    return PARSE_DONE;
}

static enum parse_result judge_max_forwards(struct http_request *request)
{
    struct slice value;
    uint64_t number;
    size_t count = http_field_count(&request->fields, HTTP_FIELD_MAX_FORWARDS, &value);
    if (count == 0 || request->method != HTTP_OPTIONS)
        return PARSE_DONE;
    if (count > 1 || !slice_to_number(value, 0, INT64_MAX, &number))
        return refuse(&request->refusal, 400, "bad Max-Forwards");
    request->max_forwards = (int64_t)number;
    return PARSE_DONE;
}

/* A complete request head: everything that two fields, or a field and the start line,
 * say together. */
static enum parse_result judge_request(struct http_request *request)
{
    static enum parse_result (*const rules[])(struct http_request *) = {
        judge_host,
        judge_expect,
        judge_upgrade,
        judge_max_forwards,
    };
    if (!http_connection_apply(&request->fields, &request->connection, &request->refusal))
        return PARSE_BAD;
    enum parse_result result =
        http_framing_read(&request->fields, request->minor, &request->body,
                          &request->body_length, &request->refusal);
    for (size_t i = 0; i < ARRAY_LEN(rules) && result == PARSE_DONE; i++)
        result = rules[i](request);
    /* a proxy keeps no HTTP/1.0 connection: it cannot know that nobody before it was
     * fooled by the keep-alive (RFC 9112 C.2.2) */
    request->is_persistent = request->minor == 1 && !request->connection.close;
    return result;
}

static void request_init(struct http_request *request)
{
    /* not the list of fields: it is long, and `fields.count` says how much of it
     * counts */
    request->method = HTTP_GET;
    request->method_text = request->target = request->path = slice_of(NULL, 0);
    request->query = request->authority = request->host = slice_of(NULL, 0);
    request->websocket_key = slice_of(NULL, 0);
    request->port = 0;
    request->minor = 0;
    request->is_absolute = request->is_asterisk = false;
    request->expects_continue = request->is_persistent = request->is_websocket = false;
    request->body = BODY_NONE;
    request->body_length = 0;
    request->max_forwards = -1;
    request->connection = (struct http_connection_options){0};
    request->fields.count = 0;
    request->fields.present = 0;
    request->head_len = 0;
    request->refusal = (struct http_refusal){0};
}

enum parse_result http_request_parse(struct slice data, size_t last_len,
                                     size_t max_head_bytes, struct http_request *request)
{
    request_init(request);
    if (only_lengthens_a_line(data, last_len, max_head_bytes))
        return PARSE_MORE;
    struct cursor cursor = cursor_over(data, max_head_bytes);
    enum parse_result result = parse_request_line(&cursor, request);
    size_t used = (size_t)(cursor.at - data.data);
    if (result == PARSE_DONE)
        result = http_fields_parse(&cursor.at, cursor.data_end, max_head_bytes - used,
                                   &request->fields, &request->refusal);
    if (result == PARSE_DONE)
        result = judge_request(request);
    if (result == PARSE_DONE)
        request->head_len = (size_t)(cursor.at - data.data);
    return result;
}

/* "HTTP/1.1 200 OK"; the space may be missing when there is no reason (seen in the
 * wild). */
static enum parse_result parse_status_line(struct cursor *cursor,
                                           struct http_response *response)
{
    struct http_refusal *refusal = &response->refusal;
    enum parse_result result = parse_version(cursor, &response->minor, refusal);
    if (result == PARSE_DONE)
        result = take_text(cursor, SLICE(" "), refusal, "bad status line");
    if (result != PARSE_DONE)
        return result;
    for (size_t i = 0; i < 3; i++) {
        if (cursor->at == cursor->end)
            return out_of_bytes(cursor, refusal);
        if (!http_char_is(*cursor->at, HTTP_CHAR_DIGIT))
            return refuse(refusal, 502, "bad status line");
        response->status = response->status * 10 + (unsigned)(*cursor->at++ - '0');
    }
    if (response->status < 100 || response->status > 599)
        return refuse(refusal, 502, "status out of range");
    if (cursor->at == cursor->end)
        return out_of_bytes(cursor, refusal);
    if (*cursor->at == ' ') {
        cursor->at++;
        const char *begin = cursor->at;
        while (cursor->at < cursor->end && http_char_is(*cursor->at, HTTP_CHAR_VALUE))
            cursor->at++;
        response->reason = slice_of(begin, (size_t)(cursor->at - begin));
    }
    return take_text(cursor, SLICE("\r\n"), refusal, "bad status line");
}

/* A 101 opens a tunnel, so everything about it must be right (RFC 6455 4.1). */
static enum parse_result judge_switch(struct http_response *response,
                                      bool asked_websocket)
{
    struct http_fields *fields = &response->fields;
    size_t protocols;
    size_t extensions;
    if (!asked_websocket)
        return refuse(&response->refusal, 502, "101 without a request for it");
    if (response->minor == 0 || !response->connection.upgrade ||
        !http_list_has(fields, HTTP_FIELD_UPGRADE, SLICE("websocket"), &protocols) ||
        protocols != 1)
        return refuse(&response->refusal, 502, "101 without Upgrade: websocket");
    if (http_field_count(fields, HTTP_FIELD_SEC_WEBSOCKET_ACCEPT,
                         &response->websocket_accept) != 1)
        return refuse(&response->refusal, 502, "101 without one Sec-WebSocket-Accept");
    response->has_deflate = http_list_has(fields, HTTP_FIELD_SEC_WEBSOCKET_EXTENSIONS,
                                          SLICE("permessage-deflate"), &extensions);
    response->is_websocket = true;
    return PARSE_DONE;
}

/* RFC 9112 6.3, rules 1 and 2: no body whatever the fields say. What they do say
 * decides whether the connection can be trusted afterwards. */
static void judge_bodyless(struct http_response *response, enum http_method method)
{
    struct http_refusal ignored;
    enum body_kind kind;
    uint64_t length;
    bool is_sound = http_framing_read(&response->fields, response->minor, &kind, &length,
                                      &ignored) == PARSE_DONE;
    bool describes = method == HTTP_HEAD || response->status == 304;
    if (is_sound && describes && kind == BODY_LENGTH) {
        response->describes_length = true;
        response->described_length = length;
    }
    if (!is_sound || (!describes && (kind == BODY_CHUNKED || length > 0)))
        response->is_persistent = false;
}

static enum parse_result judge_response(struct http_response *response,
                                        enum http_method method, bool asked_websocket)
{
    if (!http_connection_apply(&response->fields, &response->connection,
                               &response->refusal))
        return PARSE_BAD;
    response->is_persistent = response->minor == 1 && !response->connection.close;
    if (response->status == 101)
        return judge_switch(response, asked_websocket);
    response->is_interim = response->status < 200;
    if (method == HTTP_HEAD || response->status < 200 || response->status == 204 ||
        response->status == 304) {
        judge_bodyless(response, method);
        return PARSE_DONE;
    }
    enum parse_result result =
        http_framing_read(&response->fields, response->minor, &response->body,
                          &response->body_length, &response->refusal);
    if (result == PARSE_DONE && response->body == BODY_NONE) {
        response->body = BODY_UNTIL_CLOSE;
        response->is_persistent = false;
    }
    return result;
}

static void response_init(struct http_response *response)
{
    response->status = 0;
    response->reason = response->websocket_accept = slice_of(NULL, 0);
    response->minor = 0;
    response->is_interim = response->is_websocket = response->is_persistent = false;
    response->has_deflate = response->describes_length = false;
    response->body = BODY_NONE;
    response->body_length = response->described_length = 0;
    response->connection = (struct http_connection_options){0};
    response->fields.count = 0;
    response->fields.present = 0;
    response->head_len = 0;
    response->refusal = (struct http_refusal){0};
}

enum parse_result http_response_parse(struct slice data, size_t last_len,
                                      size_t max_head_bytes, enum http_method method,
                                      bool asked_websocket,
                                      struct http_response *response)
{
    response_init(response);
    if (only_lengthens_a_line(data, last_len, max_head_bytes))
        return PARSE_MORE;
    struct cursor cursor = cursor_over(data, max_head_bytes);
    enum parse_result result = parse_status_line(&cursor, response);
    size_t used = (size_t)(cursor.at - data.data);
    if (result == PARSE_DONE)
        result = http_fields_parse(&cursor.at, cursor.data_end, max_head_bytes - used,
                                   &response->fields, &response->refusal);
    if (result == PARSE_DONE)
        result = judge_response(response, method, asked_websocket);
    if (result == PARSE_DONE)
        response->head_len = (size_t)(cursor.at - data.data);
    if (result == PARSE_BAD)
        response->refusal.status = 502; /* whatever it is, the client could not help it */
    return result;
}
