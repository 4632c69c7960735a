/* What a head says: the facts that later code relies on, and limits at their edges. */
#include "tests/unit/unit.h"

#include "proxy/http_head.h"

#include <stdio.h>

static struct http_request request;
static struct http_response response;

static enum parse_result parse_n(const char *text, size_t len, size_t max)
{
    char *copy = guarded_copy(text, len);
    return http_request_parse(slice_of(copy, len), 0, max, &request);
}

static enum parse_result parse(const char *text)
{
    return parse_n(text, strlen(text), HTTP_HEAD_BYTES_DEFAULT);
}

static enum parse_result parse_answer(const char *text, enum http_method method,
                                      bool asked)
{
    char *copy = guarded_copy(text, strlen(text));
    return http_response_parse(slice_of(copy, strlen(text)), 0, HTTP_HEAD_BYTES_DEFAULT,
                               method, asked, &response);
}

static void assert_slice(struct slice slice, const char *text)
{
    assert_int_equal(slice.len, strlen(text));
    assert_memory_equal(slice.data, text, slice.len);
}

static void assert_refused(const char *text, unsigned status)
{
    enum parse_result result = parse(text);
    if (result != PARSE_BAD || request.refusal.status != status)
        fail_msg("result %d, status %u instead of %u: %s", result, request.refusal.status,
                 status, text);
    assert_non_null(request.refusal.reason);
}

#define HEAD_HOST "Host: edge.test\r\n"

static void test_a_request_is_split_into_its_parts(void **state)
{
    (void)state;
    assert_int_equal(parse("GET /a/b?c=d&e HTTP/1.1\r\nHost: edge.test:8080\r\n"
                           "X-A: \t v w \t\r\nCookie: a=1; b=2\r\n\r\nrest"),
                     PARSE_DONE);
    assert_int_equal(request.method, HTTP_GET);
    assert_slice(request.path, "/a/b");
    assert_slice(request.query, "c=d&e");
    assert_slice(request.authority, "edge.test:8080");
    assert_slice(request.host, "edge.test");
    assert_int_equal(request.port, 8080);
    assert_int_equal(request.minor, 1);
    assert_true(request.is_persistent);
    assert_int_equal(request.body, BODY_NONE);
    assert_int_equal(request.fields.count, 3);
    assert_slice(request.fields.list[1].value, "v w");
    assert_slice(http_cookie_find(&request.fields, SLICE("b")), "2");
    assert_null(http_cookie_find(&request.fields, SLICE("c")).data);
    assert_int_equal(request.fields.list[2].id, HTTP_FIELD_COOKIE);
    assert_int_equal(request.head_len,
                     strlen("GET /a/b?c=d&e HTTP/1.1\r\nHost: edge.test:8080"
                            "\r\nX-A: \t v w \t\r\nCookie: a=1; b=2\r\n\r\n"));
}

static void test_the_absolute_form_replaces_host(void **state)
{
    (void)state;
    assert_int_equal(parse("GET HTTP://Real.test:81?x=/y HTTP/1.1\r\n" HEAD_HOST "\r\n"),
                     PARSE_DONE);
    assert_true(request.is_absolute);
    assert_slice(request.authority, "Real.test:81");
    assert_slice(request.path, "/");
    assert_slice(request.query, "x=/y");
    assert_refused("GET http://a@b/ HTTP/1.1\r\n" HEAD_HOST "\r\n", 400);
    assert_refused("GET http:///x HTTP/1.1\r\n" HEAD_HOST "\r\n", 400);
    assert_refused("GET http://real.test/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
}

static void test_methods_and_forms_that_an_edge_does_not_serve(void **state)
{
    (void)state;
    assert_refused("CONNECT a.test:443 HTTP/1.1\r\n" HEAD_HOST "\r\n", 501);
    assert_refused("TRACE / HTTP/1.1\r\n" HEAD_HOST "\r\n", 501);
    assert_refused("get / HTTP/1.1\r\n" HEAD_HOST "\r\n", 501);
    assert_refused("GET * HTTP/1.1\r\n" HEAD_HOST "\r\n", 400);
    assert_int_equal(parse("OPTIONS * HTTP/1.1\r\n" HEAD_HOST "Max-Forwards: 3\r\n\r\n"),
                     PARSE_DONE);
    assert_true(request.is_asterisk);
    assert_int_equal(request.max_forwards, 3);
    assert_refused("OPTIONS * HTTP/1.1\r\n" HEAD_HOST "Max-Forwards: x\r\n\r\n", 400);
    assert_refused("GET / HTTP/3.0\r\n" HEAD_HOST "\r\n", 505);
    assert_refused("GET /a\\b HTTP/1.1\r\n" HEAD_HOST "\r\n", 400);
    assert_int_equal(parse("GET /?a\\b={|}^` HTTP/1.1\r\n" HEAD_HOST "\r\n"), PARSE_DONE);
}

static void test_garbage_is_refused_without_a_newline(void **state)
{
    (void)state;
    assert_refused("\x16", 400);
    assert_refused("SSH/2.0", 400);
    assert_refused("{", 400);
    assert_refused("GET\t", 400);
    assert_int_equal(parse("GET"), PARSE_MORE);
    assert_int_equal(parse(""), PARSE_MORE);
    assert_int_equal(parse("\r"), PARSE_MORE);
}

static void test_hosts(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "A-b_c.d~", "1.2.3.4:1", "[::1]",
                                       "[fe80::1]:65535"};
    static const char *const bad[] = {
        "",    "a:",  "a:0", "a:65536", "a:b",    ":80",       "[::1", "[]",   "[::g]",
        "[1]", "a/b", "a,b", "a%41",    "[::1]x", "[::1%25e]", "a@b",  "a:+1", "a: 1"};
    struct slice host;
    uint16_t port;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(http_authority_parse(slice_from_text(good[i]), &host, &port));
    assert_slice(host, "fe80::1");
    assert_int_equal(port, 65535);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (http_authority_parse(slice_from_text(bad[i]), &host, &port))
            fail_msg("accepted: %s", bad[i]);
    assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n"), PARSE_DONE);
    assert_int_equal(request.authority.len, 0);
    assert_false(request.is_persistent);
}

static void test_connection_options_nominate_fields(void **state)
{
    (void)state;
    assert_int_equal(parse("GET / HTTP/1.1\r\n" HEAD_HOST
                           "X-Hop: 1\r\nx-hop: 2\r\nCookie: a=b\r\n"
                           "X-Forwarded-For: 1\r\nConnection: close,, x-HOP\r\n"
                           "Connection: cookie, X-Forwarded-For , keep-alive\r\n\r\n"),
                     PARSE_DONE);
    assert_true(request.connection.close);
    assert_true(request.connection.keep_alive);
    assert_false(request.is_persistent);
    assert_true(request.fields.list[1].is_nominated);
    assert_true(request.fields.list[2].is_nominated);
    assert_false(request.fields.list[3].is_nominated);
    assert_false(request.fields.list[4].is_nominated);
    assert_refused("GET / HTTP/1.1\r\n" HEAD_HOST "Connection: transfer-encoding\r\n\r\n",
                   400);
    char many[512] = "GET / HTTP/1.1\r\n" HEAD_HOST "Connection: a";
    for (size_t i = 0; i < HTTP_CONNECTION_OPTIONS; i++)
        strcat(many, ",a");
    strcat(many, "\r\n\r\n");
    assert_refused(many, 400);
}

static void test_websocket_handshakes(void **state)
{
    (void)state;
#define UPGRADE "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
#define KEY     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    assert_int_equal(parse("GET / HTTP/1.1\r\n" HEAD_HOST UPGRADE KEY
                           "Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"),
                     PARSE_DONE);
    assert_true(request.is_websocket);
    assert_slice(request.websocket_key, "dGhlIHNhbXBsZSBub25jZQ==");
    assert_refused("GET / HTTP/1.1\r\n" HEAD_HOST UPGRADE KEY
                   "Sec-WebSocket-Version: 12\r\n\r\n",
                   426);
    assert_refused("GET / HTTP/1.1\r\n" HEAD_HOST UPGRADE KEY "\r\n", 426);
    assert_refused("GET / HTTP/1.1\r\n" HEAD_HOST UPGRADE "Sec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25-ZQ==\r\n\r\n",
                   400);
    /* another protocol is no reason to refuse; it is not passed on */
    assert_int_equal(parse("GET / HTTP/1.1\r\n" HEAD_HOST
                           "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
                     PARSE_DONE);
    assert_false(request.is_websocket);
}

static void test_limits_hold_to_the_byte(void **state)
{
    (void)state;
    static char text[HTTP_HEAD_BYTES_DEFAULT + 64];
    /* the target */
    for (size_t target = HTTP_TARGET_MAX; target <= HTTP_TARGET_MAX + 1; target++) {
        memcpy(text, "GET ", 4);
        memset(text + 4, '/', target);
        strcpy(text + 4 + target, " HTTP/1.1\r\n" HEAD_HOST "\r\n");
        if (target == HTTP_TARGET_MAX)
            assert_int_equal(parse(text), PARSE_DONE);
        else
            assert_refused(text, 414);
    }
    /* one line */
    for (size_t line = HTTP_LINE_MAX; line <= HTTP_LINE_MAX + 1; line++) {
        size_t at = (size_t)sprintf(text, "GET / HTTP/1.1\r\n" HEAD_HOST "A:");
        memset(text + at, 'b', line - 4);
        strcpy(text + at + line - 4, "\r\n\r\n");
        if (line == HTTP_LINE_MAX)
            assert_int_equal(parse(text), PARSE_DONE);
        else
            assert_refused(text, 431);
    }
    /* the whole head */
    size_t len = (size_t)sprintf(text, "GET / HTTP/1.1\r\n" HEAD_HOST "A: b\r\n\r\n");
    assert_int_equal(parse_n(text, len, len), PARSE_DONE);
    for (size_t max = 0; max < len; max++) {
        assert_int_equal(parse_n(text, len, max), PARSE_BAD);
        assert_int_equal(request.refusal.status, 431);
        assert_int_equal(parse_n(text, max, max), PARSE_MORE);
    }
    /* the number of fields */
    for (size_t fields = HTTP_FIELDS_MAX; fields <= HTTP_FIELDS_MAX + 1; fields++) {
        size_t at = (size_t)sprintf(text, "GET / HTTP/1.1\r\n" HEAD_HOST);
        for (size_t i = 1; i < fields; i++)
            at += (size_t)sprintf(text + at, "A:\r\n");
        strcpy(text + at, "\r\n");
        if (fields == HTTP_FIELDS_MAX)
            assert_int_equal(parse(text), PARSE_DONE);
        else
            assert_refused(text, 431);
    }
}

static void test_content_length_has_digits_only_and_no_overflow(void **state)
{
    (void)state;
    assert_int_equal(parse("POST / HTTP/1.1\r\n" HEAD_HOST
                           "Content-Length: 0009223372036854775807\r\n\r\n"),
                     PARSE_DONE);
    assert_true(request.body_length == INT64_MAX);
    assert_refused("POST / HTTP/1.1\r\n" HEAD_HOST
                   "Content-Length: 9223372036854775808\r\n\r\n",
                   400);
    assert_refused("POST / HTTP/1.1\r\n" HEAD_HOST
                   "Content-Length: 18446744073709551618\r\n\r\n",
                   400);
    assert_refused("POST / HTTP/1.0\r\n" HEAD_HOST "Transfer-Encoding: chunked\r\n\r\n",
                   400);
    assert_refused(
        "POST / HTTP/1.1\r\n" HEAD_HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501);
}

static void test_every_known_field_is_recognised_in_any_case(void **state)
{
    (void)state;
#define FIELD(id, name, sort)                                                            \
    do {                                                                                 \
        char text[] = name;                                                              \
        assert_int_equal(http_field_id(slice_from_text(text)), id);                      \
        for (char *p = text; *p != '\0'; p++)                                            \
            if (*p >= 'a' && *p <= 'z')                                                  \
                *p = (char)(*p - 'a' + 'A');                                             \
        assert_int_equal(http_field_id(slice_from_text(text)), id);                      \
        text[0] = '!';                                                                   \
        assert_int_equal(http_field_id(slice_from_text(text)), HTTP_FIELD_OTHER);        \
    } while (0);
#include "proxy/http_field.def"
#undef FIELD
}

static void test_bodies_of_responses(void **state)
{
    (void)state;
    assert_int_equal(parse_answer("HTTP/1.1 200 OK\r\n\r\n", HTTP_GET, false),
                     PARSE_DONE);
    assert_int_equal(response.body, BODY_UNTIL_CLOSE);
    assert_false(response.is_persistent);
    assert_int_equal(
        parse_answer("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", HTTP_HEAD, false),
        PARSE_DONE);
    assert_int_equal(response.body, BODY_NONE);
    assert_true(response.describes_length);
    assert_int_equal(response.described_length, 5);
    assert_int_equal(
        parse_answer("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", HTTP_GET, false),
        PARSE_DONE);
    assert_int_equal(response.body, BODY_NONE);
    assert_false(response.is_persistent);
    assert_int_equal(
        parse_answer("HTTP/1.1 200 \r\nContent-Length: 5\r\nConnection: Close\r\n\r\n",
                     HTTP_GET, false),
        PARSE_DONE);
    assert_int_equal(response.body_length, 5);
    assert_int_equal(response.reason.len, 0);
    assert_false(response.is_persistent);
    assert_int_equal(parse_answer("HTTP/1.1 600 X\r\n\r\n", HTTP_GET, false), PARSE_BAD);
    assert_int_equal(response.refusal.status, 502);
}

static void test_a_101_with_an_empty_reason_opens_a_tunnel_only_when_asked(void **state)
{
    (void)state;
    static const char text[] =
        "HTTP/1.1 101 \r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; a=15\r\n\r\n";
    assert_int_equal(parse_answer(text, HTTP_GET, true), PARSE_DONE);
    assert_true(response.is_websocket);
    assert_true(response.has_deflate);
    assert_slice(response.websocket_accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_int_equal(parse_answer(text, HTTP_GET, false), PARSE_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_split_into_its_parts),
        cmocka_unit_test(test_the_absolute_form_replaces_host),
        cmocka_unit_test(test_methods_and_forms_that_an_edge_does_not_serve),
        cmocka_unit_test(test_garbage_is_refused_without_a_newline),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_connection_options_nominate_fields),
        cmocka_unit_test(test_websocket_handshakes),
        cmocka_unit_test(test_limits_hold_to_the_byte),
        cmocka_unit_test(test_content_length_has_digits_only_and_no_overflow),
        cmocka_unit_test(test_every_known_field_is_recognised_in_any_case),
        cmocka_unit_test(test_bodies_of_responses),
        cmocka_unit_test(test_a_101_with_an_empty_reason_opens_a_tunnel_only_when_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
