/*
 * The promise of head_rewrite, as a function that aborts when it is broken: what is
 * written parses with http_head to the same meaning. Used by the unit program with
 * generated heads and by the fuzz target with any.
 */
#pragma once

#include "proxy/head_rewrite.h"
#include "proxy/http_head.h"
#include "shared/base.h"
#include "shared/slice.h"

#include <stdio.h>

enum { REWRITE_SCRATCH = 65536 };

static const struct slice rewrite_own_cookie[] = {SLICE_INIT("sidrail")};

static inline struct request_edits rewrite_some_edits(const struct http_request *request)
{
    return (struct request_edits){
        .default_host = SLICE("default.test"),
        .identity = {.peer = SLICE("192.0.2.1"),
                     .proto = SLICE("http"),
                     .port = SLICE("8080"),
                     .trusted_hops = (unsigned)request->fields.count % 3},
        .via = SLICE("sidrail"),
        .request_id = SLICE("r-1"),
        .strip_cookies = rewrite_own_cookie,
        .strip_cookie_count = 1,
        .identity_encoding = request->fields.count % 2 == 0,
        .body = request->body == BODY_NONE ? BODY_NONE : BODY_LENGTH,
        .body_length = request->body_length,
        .connection =
            request->is_websocket ? HEAD_CONNECTION_UPGRADE : HEAD_CONNECTION_CLOSE,
    };
}

/* True for a field that must arrive as it came. */
static inline bool rewrite_is_end_to_end(const struct http_field *field, bool is_request)
{
    enum http_field_sort sort = http_field_sort((enum http_field_id)field->id);
    if (field->is_nominated || (is_request && field->has_underscore))
        return false;
    if (sort != HTTP_FIELD_SORT_PLAIN && sort != HTTP_FIELD_SORT_PROTECTED)
        return !is_request && sort == HTTP_FIELD_SORT_OURS && field->id != HTTP_FIELD_VIA;
    return field->id != HTTP_FIELD_COOKIE && field->id != HTTP_FIELD_X_REQUEST_ID &&
           field->id != HTTP_FIELD_ACCEPT_ENCODING &&
           field->id != HTTP_FIELD_MAX_FORWARDS && field->id != HTTP_FIELD_DATE;
}

/* The end-to-end fields of `before` are those of `after`, in order, between what we
 * wrote. */
static inline void rewrite_check_fields(const struct http_fields *before,
                                        const struct http_fields *after, bool is_request)
{
    size_t at = 0;
    for (size_t i = 0; i < before->count; i++) {
        const struct http_field *field = &before->list[i];
        if (!rewrite_is_end_to_end(field, is_request))
            continue;
        while (at < after->count && !(slice_equals(after->list[at].name, field->name) &&
                                      slice_equals(after->list[at].value, field->value)))
            at++;
        check(at < after->count);
        at++;
    }
    for (size_t i = 0; i < after->count; i++) {
        enum http_field_id id = (enum http_field_id)after->list[i].id;
        check(!after->list[i].is_nominated || id == HTTP_FIELD_UPGRADE);
        check(!is_request || !after->list[i].has_underscore);
        check(http_field_sort(id) != HTTP_FIELD_SORT_DROPPED);
        check(http_field_sort(id) != HTTP_FIELD_SORT_HOP || id == HTTP_FIELD_CONNECTION ||
              id == HTTP_FIELD_UPGRADE);
    }
}

/* Rewrites a parsed request with some edits and checks what comes out. Not one for
 * "OPTIONS *". */
static inline void rewrite_check_request(const struct http_request *request)
{
    static char out[REWRITE_SCRATCH];
    static struct http_request after;
    struct request_edits edits = rewrite_some_edits(request);
    size_t len = head_rewrite_request(request, &edits, out, sizeof(out));
    check(len > 0);
    /* what is added may make one field too many, or a joined line too long; nothing
     * else may be refused */
    if (http_request_parse(slice_of(out, len), 0, sizeof(out), &after) != PARSE_DONE) {
        check(after.refusal.status == 431);
        return;
    }
    check(after.head_len == len);
    check(after.minor == 1 && !after.is_absolute);
    check(after.method == request->method);
    check(slice_equals(after.path, request->path));
    check(slice_equals(after.query, request->query));
    check((after.query.data == NULL) == (request->query.data == NULL));
    check(slice_equals(after.authority, request->authority.len > 0 ? request->authority
                                                                   : edits.default_host));
    check(after.is_websocket == request->is_websocket);
    check(slice_equals(after.websocket_key, request->websocket_key));
    check(!after.expects_continue);
    check(after.body != BODY_CHUNKED);
    check((after.body == BODY_LENGTH ? after.body_length : 0) == request->body_length);
    check(http_cookie_find(&after.fields, rewrite_own_cookie[0]).data == NULL);
    check(head_is_looping(&after.fields, edits.via));
    rewrite_check_fields(&request->fields, &after.fields, true);
    struct slice value;
    check(http_field_count(&after.fields, HTTP_FIELD_COOKIE, &value) <= 1);
    check(http_field_count(&after.fields, HTTP_FIELD_X_FORWARDED_FOR, &value) == 1);
    check(slice_ends_with(value, edits.identity.peer));
    check(http_field_count(&after.fields, HTTP_FIELD_X_REAL_IP, &value) == 1);
}

/* The same for a response to a GET. */
static inline void rewrite_check_response(const struct http_response *response,
                                          bool asked_websocket)
{
    static char out[REWRITE_SCRATCH];
    static struct http_response after;
    static const struct slice cookies[] = {SLICE_INIT("sidrail=x; Path=/")};
    struct response_edits edits = {
        .body = response->body == BODY_UNTIL_CLOSE ? BODY_CHUNKED : response->body,
        .body_length = response->body_length,
        .connection =
            response->is_websocket ? HEAD_CONNECTION_UPGRADE : HEAD_CONNECTION_KEEP_ALIVE,
        .set_cookies = cookies,
        .set_cookie_count = 1,
        .date = SLICE("Sun, 06 Nov 1994 08:49:37 GMT"),
    };
    size_t len = head_rewrite_response(response, &edits, out, sizeof(out));
    check(len > 0);
    if (http_response_parse(slice_of(out, len), 0, sizeof(out), HTTP_GET, asked_websocket,
                            &after) != PARSE_DONE) {
        check(after.fields.count == HTTP_FIELDS_MAX ||
              response->fields.count + 6 > HTTP_FIELDS_MAX || len > HTTP_LINE_MAX);
        return;
    }
    check(after.head_len == len);
    check(after.status == response->status);
    check(slice_equals(after.reason, response->reason));
    check(after.body == edits.body || response->status == 204 || response->status < 200);
    check(after.body_length == (edits.body == BODY_LENGTH ? edits.body_length : 0));
    check(after.is_websocket == response->is_websocket);
    check(after.has_deflate == response->has_deflate);
    check(after.describes_length == response->describes_length);
    check(after.described_length == response->described_length);
    check(http_field_is_present(&after.fields, HTTP_FIELD_DATE));
    check(http_field_is_present(&after.fields, HTTP_FIELD_SET_COOKIE));
    rewrite_check_fields(&response->fields, &after.fields, false);
}
