/*
 * Writing heads. One pass over the fields; each is kept, dropped, or noted for a line
 * that is generated:
 *
 *     field ─┬─ hop-by-hop, nominated ─────────────▶ dropped (RFC 9110 7.6.1)
 *            ├─ said by us (Host, X-Forwarded-*, …) ▶ dropped, ours stand in front
 *            ├─ Cookie ────────────────────────────▶ joined, without our own
 *            ├─ set or removed by the route ───────▶ dropped
 *            └─ everything else ───────────────────▶ copied: name ": " value
 *
 * The writer never runs over: a piece that does not fit makes the whole head not fit.
 */
#include "proxy/head_rewrite.h"

#include "proxy/http_chars.h"

enum {
    ADDRESS_WORD_MAX = 64,
};

struct writer {
    char *at;
    char *end;
    bool is_full;
};

static void put(struct writer *writer, struct slice text)
{
    if ((size_t)(writer->end - writer->at) < text.len) {
        writer->is_full = true;
        return;
    }
    if (text.len > 0)
        memcpy(writer->at, text.data, text.len);
    writer->at += text.len;
}

static void put_number(struct writer *writer, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put(writer, slice_of(digits + at, sizeof(digits) - at));
}

static void put_line(struct writer *writer, struct slice name, struct slice value)
{
    put(writer, name);
    put(writer, SLICE(": "));
    put(writer, value);
    put(writer, SLICE("\r\n"));
}

static size_t finish(struct writer *writer, const char *out)
{
    put(writer, SLICE("\r\n"));
    return writer->is_full ? 0 : (size_t)(writer->at - out);
}

/* True when the route sets or removes this field. */
static bool is_changed(const struct head_changes *changes, struct slice name)
{
    for (size_t i = 0; i < changes->set_count; i++)
        if (slice_equals_nocase(changes->set[i].name, name))
            return true;
    for (size_t i = 0; i < changes->remove_count; i++)
        if (slice_equals_nocase(changes->remove[i], name))
            return true;
    return false;
}

/* A line of our own, unless the route says it differently. */
static void put_own(struct writer *writer, const struct head_changes *changes,
                    struct slice name, struct slice value)
{
    if (value.len > 0 && !is_changed(changes, name))
        put_line(writer, name, value);
}

static void put_changes(struct writer *writer, const struct head_changes *changes)
{
    for (size_t i = 0; i < changes->set_count; i++)
        put_line(writer, changes->set[i].name, changes->set[i].value);
}

/* True for a field that no message takes along. */
static bool is_for_one_hop(const struct http_field *field)
{
    enum http_field_sort sort = http_field_sort((enum http_field_id)field->id);
    return field->is_nominated || sort == HTTP_FIELD_SORT_HOP ||
           sort == HTTP_FIELD_SORT_FRAMING || sort == HTTP_FIELD_SORT_DROPPED;
}

static void put_connection(struct writer *writer, enum head_connection connection)
{
    switch (connection) {
    case HEAD_CONNECTION_KEEP_ALIVE:
        put(writer, SLICE("Connection: keep-alive\r\n"));
        return;
    case HEAD_CONNECTION_CLOSE:
        put(writer, SLICE("Connection: close\r\n"));
        return;
    case HEAD_CONNECTION_UPGRADE:
        put(writer, SLICE("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
        return;
    }
    unreachable();
}

static void put_length(struct writer *writer, uint64_t length)
{
    put(writer, SLICE("Content-Length: "));
    put_number(writer, length);
    put(writer, SLICE("\r\n"));
}

static void put_framing(struct writer *writer, enum body_kind body, uint64_t length)
{
    switch (body) {
    case BODY_LENGTH:
        put_length(writer, length);
        return;
    case BODY_CHUNKED:
        put(writer, SLICE("Transfer-Encoding: chunked\r\n"));
        return;
    case BODY_NONE:
    case BODY_UNTIL_CLOSE:
        return;
    }
    unreachable();
}

/* The values of all fields with `id`, joined with `separator`, each cleared of
 * nothing. True when there was one. */
static bool put_joined(struct writer *writer, const struct http_fields *fields,
                       enum http_field_id id, struct slice separator)
{
    bool is_first = true;
    if (!http_field_is_present(fields, id))
        return false;
    for (size_t i = 0; i < fields->count; i++) {
        if (fields->list[i].id != id || fields->list[i].value.len == 0)
            continue;
        if (!is_first)
            put(writer, separator);
        put(writer, fields->list[i].value);
        is_first = false;
    }
    return !is_first;
}

/* Via: what came, and us (RFC 9110 7.6.3). */
static void put_via(struct writer *writer, const struct http_fields *fields,
                    uint8_t minor, struct slice via)
{
    if (via.len == 0 && !http_field_is_present(fields, HTTP_FIELD_VIA))
        return;
    put(writer, SLICE("Via: "));
    bool has_others = put_joined(writer, fields, HTTP_FIELD_VIA, SLICE(", "));
    if (via.len > 0) {
        put(writer, has_others ? SLICE(", 1.") : SLICE("1."));
        put(writer, minor == 0 ? SLICE("0 ") : SLICE("1 "));
        put(writer, via);
    }
    put(writer, SLICE("\r\n"));
}

static bool is_stripped_cookie(struct slice pair, const struct request_edits *edits)
{
    struct slice name = slice_trim(slice_to(pair, slice_find(pair, '=')));
    for (size_t i = 0; i < edits->strip_cookie_count; i++)
        if (slice_equals(name, edits->strip_cookies[i]))
            return true;
    return false;
}

/* All cookies in one line (RFC 9113 8.2.3), without ours. */
static void put_cookies(struct writer *writer, const struct http_request *request,
                        const struct request_edits *edits)
{
    const struct http_fields *fields = &request->fields;
    bool is_first = true;
    if (!http_field_is_present(fields, HTTP_FIELD_COOKIE) ||
        is_changed(&edits->changes, SLICE("cookie")))
        return;
    for (size_t i = 0; i < fields->count; i++) {
        if (fields->list[i].id != HTTP_FIELD_COOKIE)
            continue;
        struct slice rest = fields->list[i].value;
        struct slice part;
        while (slice_cut(&rest, ';', &part)) {
            struct slice pair = slice_trim(part);
            if (pair.len == 0 || is_stripped_cookie(pair, edits))
                continue;
            put(writer, is_first ? SLICE("Cookie: ") : SLICE("; "));
            put(writer, pair);
            is_first = false;
        }
    }
    if (!is_first)
        put(writer, SLICE("\r\n"));
}

/* Entry `from_end` (1 is the last) of the lists in all fields with `id`; data is NULL
 * when there are not so many. */
static struct slice list_entry(const struct http_fields *fields, enum http_field_id id,
                               unsigned from_end)
{
    struct slice empty = slice_of(NULL, 0);
    if (from_end == 0 || !http_field_is_present(fields, id))
        return empty;
    for (size_t i = fields->count; i-- > 0;) {
        if (fields->list[i].id != id)
            continue;
        struct slice rest = fields->list[i].value;
        for (;;) {
            size_t comma = slice_find_last(rest, ',');
            bool is_only = comma == rest.len;
            struct slice entry = slice_trim(is_only ? rest : slice_from(rest, comma + 1));
            if (entry.len > 0 && --from_end == 0)
                return entry;
            if (is_only)
                break;
            rest = slice_to(rest, comma);
        }
    }
    return empty;
}

/* Letters, digits and the marks of an address: nothing that a log or a field could
 * mistake. */
static bool is_plain_word(struct slice word)
{
    for (size_t i = 0; i < word.len; i++)
        if (!http_char_is(word.data[i], HTTP_CHAR_UNRESERVED) && word.data[i] != ':' &&
            word.data[i] != '[' && word.data[i] != ']')
            return false;
    return word.len > 0 && word.len <= ADDRESS_WORD_MAX;
}

struct slice head_client_address(const struct http_fields *fields,
                                 const struct head_identity *identity)
{
    struct slice entry =
        list_entry(fields, HTTP_FIELD_X_FORWARDED_FOR, identity->trusted_hops);
    return is_plain_word(entry) ? entry : identity->peer;
}

struct slice head_told(const struct http_fields *fields, enum http_field_id id,
                       unsigned trusted_hops)
{
    struct slice told = slice_of(NULL, 0);
    while (trusted_hops > 0 && told.data == NULL)
        told = list_entry(fields, id, trusted_hops--);
    return told;
}

/* What the outermost trusted proxy said, or what we see ourselves. */
static void put_forwarded(struct writer *writer, const struct http_request *request,
                          const struct request_edits *edits, enum http_field_id id,
                          struct slice name, struct slice own)
{
    struct slice told = head_told(&request->fields, id, edits->identity.trusted_hops);
    put_own(writer, &edits->changes, name, told.len > 0 ? told : own);
}

/* Who the client is (RFC 7239's older cousins). From others than trusted proxies
 * nothing is believed. */
static void put_identity(struct writer *writer, const struct http_request *request,
                         const struct request_edits *edits, struct slice host)
{
    const struct head_identity *identity = &edits->identity;
    bool is_told = identity->trusted_hops > 0 &&
                   http_field_is_present(&request->fields, HTTP_FIELD_X_FORWARDED_FOR);
    if ((identity->peer.len > 0 || is_told) &&
        !is_changed(&edits->changes, SLICE("X-Forwarded-For"))) {
        put(writer, SLICE("X-Forwarded-For: "));
        if (is_told &&
            put_joined(writer, &request->fields, HTTP_FIELD_X_FORWARDED_FOR,
                       SLICE(", ")) &&
            identity->peer.len > 0)
            put(writer, SLICE(", "));
        put(writer, identity->peer);
        put(writer, SLICE("\r\n"));
    }
    put_own(writer, &edits->changes, SLICE("X-Real-IP"),
            head_client_address(&request->fields, identity));
    put_forwarded(writer, request, edits, HTTP_FIELD_X_FORWARDED_PROTO,
                  SLICE("X-Forwarded-Proto"), identity->proto);
    put_forwarded(writer, request, edits, HTTP_FIELD_X_FORWARDED_HOST,
                  SLICE("X-Forwarded-Host"), host);
    put_forwarded(writer, request, edits, HTTP_FIELD_X_FORWARDED_PORT,
                  SLICE("X-Forwarded-Port"), identity->port);
}

/* "GET /path?query HTTP/1.1" and Host. */
static void put_request_start(struct writer *writer, const struct http_request *request,
                              const struct request_edits *edits, struct slice host)
{
    put(writer, request->method_text);
    put(writer, SLICE(" "));
    if (edits->path.data != NULL) {
        put(writer, edits->path);
        put(writer, edits->path_rest);
    } else {
        put(writer, request->path);
    }
    if (request->query.data != NULL) {
        struct slice query = request->query;
        size_t cut = edits->query_cut.len > 0
                         ? (size_t)(edits->query_cut.data - query.data)
                         : query.len;
        put(writer, SLICE("?"));
        put(writer, slice_to(query, cut));
        put(writer, slice_from(query, cut + edits->query_cut.len));
    }
    put(writer, SLICE(" HTTP/1.1\r\n"));
    put_own(writer, &edits->changes, SLICE("Host"), host);
}

/* True for a field that we write ourselves, elsewhere in the head. */
static bool is_written_by_us(enum http_field_id id, const struct request_edits *edits)
{
    return http_field_sort(id) == HTTP_FIELD_SORT_OURS || id == HTTP_FIELD_COOKIE ||
           (id == HTTP_FIELD_X_REQUEST_ID && edits->request_id.len > 0) ||
           (id == HTTP_FIELD_ACCEPT_ENCODING && edits->identity_encoding);
}

static void put_request_fields(struct writer *writer, const struct http_request *request,
                               const struct request_edits *edits)
{
    for (size_t i = 0; i < request->fields.count; i++) {
        const struct http_field *field = &request->fields.list[i];
        enum http_field_id id = (enum http_field_id)field->id;
        if (is_for_one_hop(field) || field->has_underscore ||
            (edits->identity.trusted_hops == 0 &&
             http_field_is_of_proxies(id, field->name)) ||
            is_written_by_us(id, edits) || is_changed(&edits->changes, field->name))
            continue;
        if (id == HTTP_FIELD_MAX_FORWARDS && request->max_forwards > 0) {
            put(writer, SLICE("Max-Forwards: "));
            put_number(writer, (uint64_t)request->max_forwards - 1);
            put(writer, SLICE("\r\n"));
            continue;
        }
        put_line(writer, field->name, field->value);
    }
}

/* A body, or a method that usually has one: then an endpoint must not wonder (RFC 9110
 * 8.6). */
static void put_request_framing(struct writer *writer, const struct http_request *request,
                                const struct request_edits *edits)
{
    bool usually_has_body = request->method == HTTP_POST || request->method == HTTP_PUT ||
                            request->method == HTTP_PATCH;
    uint64_t length = edits->body == BODY_LENGTH ? edits->body_length : 0;
    if (edits->body == BODY_CHUNKED)
        put_framing(writer, BODY_CHUNKED, 0);
    else if (length > 0 || usually_has_body)
        put_length(writer, length);
}

size_t head_rewrite_request(const struct http_request *request,
                            const struct request_edits *edits, char *out, size_t size)
{
    struct writer writer = {out, out + size, false};
    struct slice host =
        request->authority.len > 0 ? request->authority : edits->default_host;
    put_request_start(&writer, request, edits, host);
    put_identity(&writer, request, edits, host);
    put_request_fields(&writer, request, edits);
    put_cookies(&writer, request, edits);
    if (edits->identity_encoding)
        put_own(&writer, &edits->changes, SLICE("Accept-Encoding"), SLICE("identity"));
    put_own(&writer, &edits->changes, SLICE("X-Request-Id"), edits->request_id);
    put_via(&writer, &request->fields, request->minor, edits->via);
    put_changes(&writer, &edits->changes);
    put_request_framing(&writer, request, edits);
    put_connection(&writer, edits->connection);
    return finish(&writer, out);
}

/* True for a field that spoke of bytes which have been changed. */
static bool is_about_old_bytes(enum http_field_id id)
{
    return id == HTTP_FIELD_ETAG || id == HTTP_FIELD_CONTENT_MD5 ||
           id == HTTP_FIELD_DIGEST || id == HTTP_FIELD_CONTENT_DIGEST ||
           id == HTTP_FIELD_REPR_DIGEST;
}

static void put_response_fields(struct writer *writer,
                                const struct http_response *response,
                                const struct response_edits *edits)
{
    for (size_t i = 0; i < response->fields.count; i++) {
        const struct http_field *field = &response->fields.list[i];
        enum http_field_id id = (enum http_field_id)field->id;
        if (is_for_one_hop(field) || id == HTTP_FIELD_VIA ||
            (edits->body_changed && is_about_old_bytes(id)) ||
            (id == HTTP_FIELD_X_REQUEST_ID && edits->request_id.len > 0) ||
            is_changed(&edits->changes, field->name))
            continue;
        put_line(writer, field->name, field->value);
    }
}

size_t head_rewrite_response(const struct http_response *response,
                             const struct response_edits *edits, char *out, size_t size)
{
    struct writer writer = {out, out + size, false};
    put(&writer, SLICE("HTTP/1.1 "));
    put_number(&writer, response->status);
    put(&writer, SLICE(" "));
    put(&writer, response->reason);
    put(&writer, SLICE("\r\n"));
    put_response_fields(&writer, response, edits);
    for (size_t i = 0; i < edits->set_cookie_count; i++)
        put_line(&writer, SLICE("Set-Cookie"), edits->set_cookies[i]);
    if (!http_field_is_present(&response->fields, HTTP_FIELD_DATE))
        put_own(&writer, &edits->changes, SLICE("Date"), edits->date);
    put_own(&writer, &edits->changes, SLICE("X-Request-Id"), edits->request_id);
    put_via(&writer, &response->fields, response->minor, edits->via);
    put_changes(&writer, &edits->changes);
    /* no framing on 1xx and 204 (RFC 9112 6.1); HEAD and 304 tell the length of what
     * GET would give */
    if (response->describes_length && edits->body == BODY_NONE)
        put_length(&writer, response->described_length);
    else if (response->status >= 200 && response->status != 204 &&
             response->status != 304)
        put_framing(&writer, edits->body, edits->body_length);
    if (!response->is_interim)
        put_connection(&writer, edits->connection);
    return finish(&writer, out);
}

bool head_is_looping(const struct http_fields *fields, struct slice via)
{
    for (size_t i = 0; i < fields->count; i++) {
        if (fields->list[i].id != HTTP_FIELD_VIA)
            continue;
        struct slice rest = fields->list[i].value;
        struct slice part;
        while (slice_cut(&rest, ',', &part)) {
            /* "1.1 name (comment)" */
            part = slice_trim(part);
            struct slice name = slice_trim(slice_from(part, slice_find(part, ' ')));
            name = slice_to(name, slice_find(name, ' '));
            if (slice_equals_nocase(name, via))
                return true;
        }
    }
    return false;
}
