/* What leaves the proxy: each edit once, and generated heads that must keep their
 * meaning. */
#include "tests/unit/proxy/rewrite_property.h"

#include "tests/unit/unit.h"

#include <stdlib.h>

static struct http_request request;
static struct http_response response;
static char out[8192];
static char whole[8192]; /* the last result, as text */

static const char *rewritten(const char *text, const struct request_edits *edits)
{
    assert_int_equal(
        http_request_parse(slice_from_text(text), 0, HTTP_HEAD_BYTES_DEFAULT, &request),
        PARSE_DONE);
    size_t len = head_rewrite_request(&request, edits, out, sizeof(out));
    assert_true(len > 0);
    memcpy(whole, out, len);
    whole[len] = '\0';
    /* against the end of memory, and with one byte less than it takes */
    char *guarded = guarded_copy(out, len);
    assert_int_equal(head_rewrite_request(&request, edits, guarded, len), len);
    for (size_t size = 0; size < len; size++)
        assert_int_equal(head_rewrite_request(&request, edits, guarded, size), 0);
    guarded_free(guarded, len);
    return whole;
}

static const char *rewritten_answer(const char *text, enum http_method method, bool asked,
                                    const struct response_edits *edits)
{
    assert_int_equal(http_response_parse(slice_from_text(text), 0,
                                         HTTP_HEAD_BYTES_DEFAULT, method, asked,
                                         &response),
                     PARSE_DONE);
    size_t len = head_rewrite_response(&response, edits, out, sizeof(out));
    assert_true(len > 0);
    memcpy(whole, out, len);
    whole[len] = '\0';
    char *guarded = guarded_copy(out, len);
    assert_int_equal(head_rewrite_response(&response, edits, guarded, len), len);
    for (size_t size = 0; size < len; size++)
        assert_int_equal(head_rewrite_response(&response, edits, guarded, size), 0);
    guarded_free(guarded, len);
    return whole;
}

static void test_nothing_of_one_connection_is_passed_on(void **state)
{
    (void)state;
    struct request_edits edits = {0};
    assert_string_equal(
        rewritten("POST http://real.test/p?q HTTP/1.0\r\nHost: other\r\n"
                  "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n"
                  "TE: trailers\r\nTrailer: X\r\nProxy-Authorization: Basic x\r\n"
                  "Upgrade: h2c\r\nHTTP2-Settings: x\r\nX-Hop: 1\r\nX-Keep: 1\r\n"
                  "Connection: close, X-Hop\r\nProxy: http://evil\r\n"
                  "X_Keep: 2\r\nContent_Length: 7\r\nForwarded: for=1\r\n"
                  "Expect: 100-continue\r\nContent-Length: 0002\r\n\r\n",
                  &(struct request_edits){.body = BODY_LENGTH, .body_length = 2}),
        "POST /p?q HTTP/1.1\r\nHost: real.test\r\nX-Forwarded-Host: real.test\r\nX-Keep: "
        "1\r\n"
        "Content-Length: 2\r\nConnection: keep-alive\r\n\r\n");
    edits.connection = HEAD_CONNECTION_CLOSE;
    edits.default_host = SLICE("default");
    assert_string_equal(rewritten("GET / HTTP/1.0\r\nContent-Length: 0\r\n\r\n", &edits),
                        "GET / HTTP/1.1\r\nHost: default\r\nX-Forwarded-Host: "
                        "default\r\nConnection: close\r\n\r\n");
    assert_string_equal(
        rewritten("POST / HTTP/1.1\r\nHost: a\r\n\r\n", &edits),
        "POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: a\r\nContent-Length: 0\r\n"
        "Connection: close\r\n\r\n");
}

static void test_the_sid_is_cut_back_and_the_path_made_canonical(void **state)
{
    (void)state;
    static const char text[] =
        "GET /socket%2eio/?a=%0d%0a&sid=AAAA.tag&t=1 HTTP/1.1\r\nHost: a\r\n\r\n";
    struct request_edits edits = {.path = SLICE("/socket.io/"), .path_rest = SLICE("")};
    edits.query_cut = slice_of(strstr(text, ".tag"), 4);
    assert_non_null(strstr(rewritten(text, &edits),
                           "GET /socket.io/?a=%0d%0a&sid=AAAA&t=1 HTTP/1.1\r\n"));
    edits.path_rest = SLICE("x%20y");
    assert_non_null(strstr(rewritten(text, &edits), "GET /socket.io/x%20y?"));
}

static void test_cookies_are_joined_without_ours(void **state)
{
    (void)state;
    static const struct slice own[] = {SLICE_INIT("sidrail_chat"), SLICE_INIT("other")};
    struct request_edits edits = {.strip_cookies = own, .strip_cookie_count = 2};
    assert_non_null(strstr(
        rewritten("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; sidrail_chat=x;b=\"2\"\r\n"
                  "X: y\r\nCookie: ; other=; c=3=4 ;d\r\n\r\n",
                  &edits),
        "X: y\r\nCookie: a=1; b=\"2\"; c=3=4; d\r\n"));
    assert_null(strstr(
        rewritten("GET / HTTP/1.1\r\nHost: a\r\nCookie: sidrail_chat=x; other=1\r\n\r\n",
                  &edits),
        "Cookie"));
}

#define FORWARDED_LINES                                                                  \
    "X-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-For: 2.2.2.2, "       \
    "3.3.3.3\r\n"                                                                        \
    "X-Forwarded-Proto: https\r\nX-Forwarded-Host: pub.test\r\nX-Forwarded-Port: "       \
    "443\r\n"

static void test_only_trusted_proxies_say_who_the_client_is(void **state)
{
    (void)state;
    struct request_edits edits = {.identity = {.peer = SLICE("192.0.2.7"),
                                               .proto = SLICE("http"),
                                               .port = SLICE("8080")}};
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n" FORWARDED_LINES "\r\n";
    assert_string_equal(rewritten(text, &edits),
                        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n"
                        "X-Real-IP: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
                        "X-Forwarded-Host: a\r\nX-Forwarded-Port: 8080\r\n"
                        "Connection: keep-alive\r\n\r\n");
    edits.identity.trusted_hops = 1;
    assert_string_equal(rewritten(text, &edits),
                        "GET / HTTP/1.1\r\nHost: a\r\n"
                        "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7\r\n"
                        "X-Real-IP: 3.3.3.3\r\nX-Forwarded-Proto: https\r\n"
                        "X-Forwarded-Host: pub.test\r\nX-Forwarded-Port: 443\r\n"
                        "Connection: keep-alive\r\n\r\n");
    edits.identity.trusted_hops = 3;
    assert_non_null(strstr(rewritten(text, &edits),
                           "X-Real-IP: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n"));
    edits.identity.trusted_hops = 4;
    assert_non_null(strstr(rewritten(text, &edits), "X-Real-IP: 192.0.2.7\r\n"));

    /* a trusted peer without an address of its own */
    edits.identity.peer = SLICE("");
    edits.identity.trusted_hops = 1;
    assert_non_null(strstr(rewritten(text, &edits),
                           "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3\r\n"
                           "X-Real-IP: 3.3.3.3\r\n"));
    edits.identity.trusted_hops = 0;
    assert_null(strstr(rewritten(text, &edits), "X-Forwarded-For"));
}

static void test_other_words_of_proxies_pass_from_trusted_ones_only(void **state)
{
    (void)state;
    static const char text[] =
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /x\r\nx-rewrite-url: /y\r\n"
        "X-Script-Name: /z\r\nX-SCHEME: https\r\nX-Forward: 1\r\nX-Schemes: 2\r\n\r\n";
    struct request_edits edits = {.identity = {.peer = SLICE("192.0.2.7")}};
    const char *plain = rewritten(text, &edits);
    assert_null(strstr(plain, "X-Forwarded-Prefix"));
    assert_null(strstr(plain, "x-rewrite-url"));
    assert_null(strstr(plain, "X-Script-Name"));
    assert_null(strstr(plain, "X-SCHEME"));
    assert_non_null(strstr(plain, "X-Forward: 1\r\nX-Schemes: 2\r\n"));
    edits.identity.trusted_hops = 1;
    assert_non_null(strstr(rewritten(text, &edits),
                           "X-Forwarded-Prefix: /x\r\nx-rewrite-url: /y\r\n"
                           "X-Script-Name: /z\r\nX-SCHEME: https\r\nX-Forward: 1\r\n"));
}

static void test_routes_set_and_remove_fields(void **state)
{
    (void)state;
    static const struct head_line set[] = {
        {SLICE_INIT("X-Env"), SLICE_INIT("prod")},
        {SLICE_INIT("x-forwarded-proto"), SLICE_INIT("https")}};
    static const struct slice removed[] = {SLICE_INIT("authorization"),
                                           SLICE_INIT("cookie")};
    struct request_edits edits = {.identity = {.proto = SLICE("http")},
                                  .changes = {set, 2, removed, 2}};
    assert_string_equal(
        rewritten("GET / HTTP/1.1\r\nHost: a\r\nX-ENV: dev\r\nX-Env: test\r\n"
                  "Authorization: x\r\nCookie: a=b\r\n\r\n",
                  &edits),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: a\r\nX-Env: "
        "prod\r\nx-forwarded-proto: https\r\n"
        "Connection: keep-alive\r\n\r\n");
}

static void test_via_grows_and_shows_a_circle(void **state)
{
    (void)state;
    struct request_edits edits = {.via = SLICE("edge-1")};
    const char *text = rewritten(
        "GET / HTTP/1.0\r\nVia: 1.1 a\r\nVia: HTTP/1.1 b:80 (c)\r\n\r\n",
        &(struct request_edits){.via = SLICE("edge-1"), .default_host = SLICE("d")});
    assert_non_null(strstr(text, "\r\nVia: 1.1 a, HTTP/1.1 b:80 (c), 1.0 edge-1\r\n"));
    assert_true(head_is_looping(&request.fields, SLICE("A")));
    assert_true(head_is_looping(&request.fields, SLICE("b:80")));
    assert_false(head_is_looping(&request.fields, edits.via));
    assert_false(head_is_looping(&request.fields, SLICE("(c)")));
    assert_false(head_is_looping(&request.fields, SLICE("1.1")));
}

static void test_handshakes_ask_for_plain_answers(void **state)
{
    (void)state;
    struct request_edits edits = {.identity_encoding = true,
                                  .request_id = SLICE("id-1"),
                                  .connection = HEAD_CONNECTION_UPGRADE};
    assert_string_equal(
        rewritten("OPTIONS / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, br\r\n"
                  "X-Request-ID: theirs\r\nMax-Forwards: 5\r\n\r\n",
                  &edits),
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: a\r\nMax-Forwards: 4\r\n"
        "Accept-Encoding: identity\r\nX-Request-Id: id-1\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
}

static void test_responses_are_framed_anew(void **state)
{
    (void)state;
    static const struct slice cookies[] = {SLICE_INIT("c=3; Path=/")};
    struct response_edits edits = {.body = BODY_CHUNKED,
                                   .body_changed = true,
                                   .set_cookies = cookies,
                                   .set_cookie_count = 1,
                                   .date = SLICE("now")};
    assert_string_equal(
        rewritten_answer(
            "HTTP/1.0 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
            "Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nETag: \"a\"\r\n"
            "Set-Cookie: a=1\r\nSet-Cookie: b=2; Expires=Wed, 21 Oct\r\nx_y: z\r\n"
            "Content-MD5: x\r\nContent-Length: 2\r\n\r\n",
            HTTP_GET, false, &edits),
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Expires=Wed, 21 "
        "Oct\r\nx_y: z\r\n"
        "Set-Cookie: c=3; Path=/\r\nDate: now\r\nTransfer-Encoding: chunked\r\n"
        "Connection: keep-alive\r\n\r\n");
    edits = (struct response_edits){.body = BODY_LENGTH,
                                    .body_length = 18446744073709551615u,
                                    .date = SLICE("now"),
                                    .connection = HEAD_CONNECTION_CLOSE};
    assert_string_equal(
        rewritten_answer("HTTP/1.1 200\r\nDate: then\r\n\r\n", HTTP_GET, false, &edits),
        "HTTP/1.1 200 \r\nDate: then\r\nContent-Length: 18446744073709551615\r\n"
        "Connection: close\r\n\r\n");
}

static void test_bodyless_responses_have_no_framing(void **state)
{
    (void)state;
    struct response_edits edits = {.body = BODY_NONE};
    assert_string_equal(rewritten_answer("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
                                         HTTP_GET, false, &edits),
                        "HTTP/1.1 204 No\r\nConnection: keep-alive\r\n\r\n");
    assert_string_equal(
        rewritten_answer("HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n", HTTP_GET, false,
                         &edits),
        "HTTP/1.1 304 N\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n");
    assert_string_equal(
        rewritten_answer("HTTP/1.1 200 O\r\nContent-Length: 5\r\n\r\n", HTTP_HEAD, false,
                         &edits),
        "HTTP/1.1 200 O\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n");
    assert_string_equal(
        rewritten_answer("HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n", HTTP_GET, false, &edits),
        "HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n");
    edits.connection = HEAD_CONNECTION_UPGRADE;
    assert_string_equal(
        rewritten_answer("HTTP/1.1 101 \r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
                         "Sec-WebSocket-Accept: x\r\n\r\n",
                         HTTP_GET, true, &edits),
        "HTTP/1.1 101 \r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: "
        "websocket\r\n\r\n");
}

/* One of a few, so that combinations that matter are frequent. */
static const char *any(const char *const *texts, size_t count)
{
    return texts[(size_t)random() % count];
}
#define ANY(...)                                                                         \
    any((const char *const[]){__VA_ARGS__},                                              \
        sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static size_t write_any_fields(char *text, size_t at, size_t size)
{
    for (size_t i = (size_t)random() % 12; i > 0; i--)
        at += (size_t)snprintf(
            text + at, size - at, "%s:%s%s\r\n",
            ANY("X-A", "x-a", "Cookie", "Connection", "Via", "Upgrade", "X-Forwarded-For",
                "Origin", "X_U", "TE", "Keep-Alive", "X-Request-Id", "Accept-Encoding",
                "Set-Cookie", "Date", "Proxy", "Sec-WebSocket-Key",
                "Sec-WebSocket-Version", "ETag", "Max-Forwards"),
            ANY("", " ", "\t "),
            ANY("", "a", "close", "X-A", "x-a, keep-alive", "upgrade", "websocket", "h2c",
                "a=b; sidrail=c", "1.2.3.4", "1.1 sidrail", "13",
                "dGhlIHNhbXBsZSBub25jZQ==", "\xe9t\xe9", "a, b,,c", "7"));
    return at;
}

static void test_generated_heads_keep_their_meaning(void **state)
{
    (void)state;
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    srandom(seed);
    size_t requests = 0;
    size_t responses = 0;
    for (size_t round = 0; round < 20000; round++) {
        char text[4096];
        size_t at = (size_t)snprintf(
            text, sizeof(text), "%s %s HTTP/1.%s\r\nHost: %s\r\n",
            ANY("GET", "POST", "HEAD", "OPTIONS", "DELETE"),
            ANY("/", "/a?b", "/?", "http://h.test", "http://h.test/x?y",
                "/socket.io/?sid=a.b"),
            ANY("1", "1", "1", "0"), ANY("a.test", "a.test:1", "[::1]:2"));
        at = write_any_fields(text, at, sizeof(text));
        at += (size_t)snprintf(
            text + at, sizeof(text) - at, "%s\r\n",
            ANY("", "", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"));
        if (http_request_parse(slice_of(text, at), 0, sizeof(text), &request) ==
            PARSE_DONE) {
            rewrite_check_request(&request);
            requests++;
        }
        bool asked = random() % 2 == 0;
        at = (size_t)snprintf(
            text, sizeof(text), "HTTP/1.%s %s%s\r\n", ANY("1", "1", "0"),
            ANY("200", "204", "304", "101", "103", "500"), ANY("", " ", " A b"));
        at = write_any_fields(text, at, sizeof(text));
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s\r\n",
                               ANY("", "Content-Length: 3\r\n",
                                   "Transfer-Encoding: chunked\r\n",
                                   "Upgrade: websocket\r\nConnection: upgrade\r\n"
                                   "Sec-WebSocket-Accept: x\r\n"));
        if (http_response_parse(slice_of(text, at), 0, sizeof(text), HTTP_GET, asked,
                                &response) == PARSE_DONE) {
            rewrite_check_response(&response, asked);
            responses++;
        }
    }
    print_message("%zu requests and %zu responses rewritten\n", requests, responses);
    assert_true(requests > 5000 && responses > 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_of_one_connection_is_passed_on),
        cmocka_unit_test(test_the_sid_is_cut_back_and_the_path_made_canonical),
        cmocka_unit_test(test_cookies_are_joined_without_ours),
        cmocka_unit_test(test_only_trusted_proxies_say_who_the_client_is),
        cmocka_unit_test(test_other_words_of_proxies_pass_from_trusted_ones_only),
        cmocka_unit_test(test_routes_set_and_remove_fields),
        cmocka_unit_test(test_via_grows_and_shows_a_circle),
        cmocka_unit_test(test_handshakes_ask_for_plain_answers),
        cmocka_unit_test(test_responses_are_framed_anew),
        cmocka_unit_test(test_bodyless_responses_have_no_framing),
        cmocka_unit_test(test_generated_heads_keep_their_meaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
