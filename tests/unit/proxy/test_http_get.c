/* Proves that one GET takes its answer in whatever pieces it comes, and that every wrong or endless one ends it once. */
#include "tests/unit/unit.h"

#include "tests/unit/proxy/answer_server.h"

#include "proxy/http_get.h"

#include <stdlib.h>

struct rig {
    struct event_base *base;
    struct answer_server server;
    struct http_get *get; /* NULL: ended */
    unsigned heads, status;
    char body[256]; /* its beginning */
    size_t body_len;
    unsigned ends;
    enum http_get_end end;
    char why[128];
    bool stops_at_head, stops_at_body;
};

static void on_head(void *argument, const struct http_response *response)
{
    struct rig *rig = argument;
    rig->heads++;
    rig->status = response->status;
    if (rig->stops_at_head) {
        http_get_stop(rig->get);
        rig->get = NULL;
    }
}

static void on_body(void *argument, struct slice bytes)
{
    struct rig *rig = argument;
    assert_true(bytes.len > 0);
    assert_int_equal(rig->heads, 1);
    size_t kept = min_size(rig->body_len, sizeof rig->body - 1);
    memcpy(rig->body + kept, bytes.data,
           min_size(bytes.len, sizeof rig->body - 1 - kept));
    rig->body_len += bytes.len;
    if (rig->stops_at_body) {
        http_get_stop(rig->get);
        rig->get = NULL;
    }
}

static void on_end(void *argument, enum http_get_end end, const char *why)
{
    struct rig *rig = argument;
    rig->ends++;
    rig->end = end;
    snprintf(rig->why, sizeof rig->why, "%s", why);
    rig->get = NULL;
}

static const struct http_get_callbacks callbacks = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

static void rig_start(struct rig *rig, const char *text, enum answer_end end)
{
    *rig = (struct rig){.base = event_base_new()};
    answer_server_start(&rig->server, rig->base);
    rig->server.text = slice_from_text(text);
    rig->server.end = end;
}

static void rig_stop(struct rig *rig)
{
    if (rig->get != NULL)
        http_get_stop(rig->get);
    answer_server_stop(&rig->server);
    event_base_free(rig->base);
}

static void ask(struct rig *rig, uint64_t patience, uint64_t whole)
{
    struct http_get_request request = {
        .address = rig->server.address,
        .host = SLICE("api.test:6443"),
        .target = SLICE("/apis?watch=1"),
        .bearer = SLICE("secret"),
        .patience = patience,
        .whole = whole,
    };
    rig->get = http_get_new(rig->base, &request, &callbacks, rig);
    assert_int_equal(rig->ends, 0); /* from the loop only */
}

/* Until it has ended or was stopped; it must, at last. */
static void turn(struct rig *rig)
{
    uint64_t began = timing_now();
    while (rig->get != NULL) {
        assert_true(timing_now() - began < SECONDS(60));
        event_base_loop(rig->base, EVLOOP_ONCE);
    }
    for (int i = 0; i < 3; i++) /* nothing comes behind the end */
        event_base_loop(rig->base, EVLOOP_NONBLOCK);
}

/* ---- answers ---- */

#define OK      "HTTP/1.1 200 OK\r\n"
#define CHUNKED OK "Transfer-Encoding: chunked\r\n\r\n"
#define CLOSED  "the server closed the connection"
#define NO_HTTP "the answer is not HTTP"

static const struct answer {
    const char *text;
    enum http_get_end end;
    unsigned status; /* 0: on_head is not called */
    const char *body;
    const char *why;
} answers[] = {
    {OK "Content-Length: 5\r\n\r\nhello", HTTP_GET_DONE, 200, "hello", ""},
    {OK "Content-Length: 5\r\n\r\nhello, and more", HTTP_GET_DONE, 200, "hello", ""},
    {OK "Content-Length: 0\r\n\r\n", HTTP_GET_DONE, 200, "", ""},
    {OK "\r\nuntil the end", HTTP_GET_DONE, 200, "until the end", ""},
    {OK "\r\n", HTTP_GET_DONE, 200, "", ""},
    {"HTTP/1.0 200 OK\r\n\r\nold", HTTP_GET_DONE, 200, "old", ""},
    {"HTTP/1.1 204 No Content\r\n\r\n", HTTP_GET_DONE, 204, "", ""},
    {"HTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\nno", HTTP_GET_DONE, 410, "no", ""},
    {CHUNKED "5\r\nhello\r\n1;a=b\r\n!\r\n0\r\nT: x\r\n\r\n", HTTP_GET_DONE, 200,
     "hello!", ""},
    {CHUNKED "0\r\n\r\n", HTTP_GET_DONE, 200, "", ""},
    {CHUNKED "00A\r\n0123456789\r\n0\r\n\r\n", HTTP_GET_DONE, 200, "0123456789", ""},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n" OK
     "Content-Length: 2\r\n\r\nok",
     HTTP_GET_DONE, 200, "ok", ""},

    {"", HTTP_GET_BROKEN, 0, "", CLOSED},
    {"HTTP/1.1 20", HTTP_GET_BROKEN, 0, "", CLOSED},
    {OK "Content-Len", HTTP_GET_BROKEN, 0, "", CLOSED},
    {"HTTP/1.1 100 Continue\r\n\r\n", HTTP_GET_BROKEN, 0, "", CLOSED},
    {OK "Content-Length: 5\r\n\r\nhell", HTTP_GET_BROKEN, 200, "hell", CLOSED},
    {CHUNKED "5\r\nhel", HTTP_GET_BROKEN, 200, "hel", CLOSED},
    {CHUNKED "5\r\nhello\r\n", HTTP_GET_BROKEN, 200, "hello", CLOSED},
    {CHUNKED "5\r\nhello\r\n0\r\n", HTTP_GET_BROKEN, 200, "hello", CLOSED},

    {"SSH-2.0-OpenSSH\r\n\r\n", HTTP_GET_BROKEN, 0, "", NO_HTTP},
    {"HTTP/2 200 OK\r\n\r\n", HTTP_GET_BROKEN, 0, "", NO_HTTP},
    {"HTTP/1.1 20x OK\r\n\r\n", HTTP_GET_BROKEN, 0, "", NO_HTTP},
    {OK "no colon\r\n\r\n", HTTP_GET_BROKEN, 0, "", NO_HTTP},
    {OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", HTTP_GET_BROKEN, 0, "",
     NO_HTTP},
    {OK "Content-Length: -5\r\n\r\nhello", HTTP_GET_BROKEN, 0, "", NO_HTTP},
    {OK "Content-Length: 99999999999999999999\r\n\r\nhello", HTTP_GET_BROKEN, 0, "",
     NO_HTTP},

    {CHUNKED "x\r\nhello\r\n", HTTP_GET_BROKEN, 200, "", "bad chunk size"},
    {CHUNKED "\r\nhello\r\n", HTTP_GET_BROKEN, 200, "", "bad chunk size"},
    {CHUNKED "-5\r\nhello\r\n", HTTP_GET_BROKEN, 200, "", "bad chunk size"},
    {CHUNKED "0x5\r\nhello\r\n", HTTP_GET_BROKEN, 200, "", "bad chunk size"},
    {CHUNKED "fffffffffffffffffffff\r\nhello\r\n", HTTP_GET_BROKEN, 200, "",
     "bad chunk size"},
    {CHUNKED "5\r\nhello5\r\nhello\r\n", HTTP_GET_BROKEN, 200, "hello",
     "chunk not ended by CRLF"},
    {CHUNKED "2\r\nok\r\n0\r\nno trailer \x01\r\n\r\n", HTTP_GET_BROKEN, 200, "ok",
     "bad or long trailers"},
};

static void check_answer(const struct answer *answer, size_t piece)
{
    struct rig rig;
    rig_start(&rig, answer->text, ANSWER_CLOSES);
    rig.server.piece = piece;
    ask(&rig, SECONDS(60), SECONDS(60));
    turn(&rig);
    assert_int_equal(rig.ends, 1);
    assert_int_equal(rig.heads, answer->status != 0);
    assert_int_equal(rig.status, answer->status);
    assert_string_equal(rig.body, answer->body);
    assert_string_equal(rig.why, answer->why);
    assert_int_equal(rig.end, answer->end);
    rig_stop(&rig);
}

static void test_answers_end_as_they_should_in_whatever_pieces(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 2, 7, SIZE_MAX};
    for (size_t i = 0; i < ARRAY_LEN(answers); i++)
        for (size_t j = 0; j < ARRAY_LEN(pieces); j++)
            check_answer(&answers[i], pieces[j]);
}

static void test_an_answer_that_is_whole_does_not_wait_for_the_close(void **state)
{
    (void)state;
    static const char *const texts[] = {OK "Content-Length: 2\r\n\r\nok",
                                        CHUNKED "2\r\nok\r\n0\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct rig rig;
        rig_start(&rig, texts[i], ANSWER_STAYS);
        ask(&rig, SECONDS(60), SECONDS(60));
        turn(&rig);
        assert_int_equal(rig.end, HTTP_GET_DONE);
        assert_string_equal(rig.body, "ok");
        rig_stop(&rig);
    }
}

static void test_the_question_is_what_was_given(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, OK "\r\n", ANSWER_CLOSES);
    ask(&rig, SECONDS(60), 0);
    turn(&rig);
    assert_int_equal(rig.end, HTTP_GET_DONE);
    assert_ptr_equal(strstr(rig.server.request,
                            "GET /apis?watch=1 HTTP/1.1\r\nHost: api.test:6443\r\n"),
                     rig.server.request);
    assert_non_null(strstr(rig.server.request, "\r\nAuthorization: Bearer secret\r\n"));
    rig_stop(&rig);
}

/* `text`, `times` over, behind `before`. */
static char *repeated(const char *before, const char *text, size_t times)
{
    size_t head = strlen(before), len = strlen(text);
    char *made = must_calloc(head + len * times + 1, 1);
    memcpy(made, before, head);
    for (size_t i = 0; i < times; i++)
        memcpy(made + head + i * len, text, len);
    return made;
}

static void check_refused(const char *text, enum answer_end end, const char *why)
{
    struct rig rig;
    rig_start(&rig, text, end);
    ask(&rig, SECONDS(60), SECONDS(60));
    turn(&rig);
    assert_int_equal(rig.end, HTTP_GET_BROKEN);
    assert_string_equal(rig.why, why);
    assert_int_equal(rig.heads, 0);
    rig_stop(&rig);
}

static void test_a_head_is_bounded_and_so_is_what_comes_before_it(void **state)
{
    (void)state;
    char *fields =
        repeated(OK, "X-Field: 0123456789012345678901234567890123456789\r\n", 4000);
    char *line = repeated(OK "X-Field: ", "0123456789", 10000);
    char *interim = repeated("", "HTTP/1.1 100 Continue\r\n\r\n", 4000);
    check_refused(fields, ANSWER_STAYS, NO_HTTP);
    check_refused(line, ANSWER_STAYS, NO_HTTP);
    check_refused(interim, ANSWER_STAYS, "too many interim answers");
    free(interim);
    free(line);
    free(fields);
}

static void test_a_large_body_comes_whole(void **state)
{
    (void)state;
    struct rig rig;
    char *text = repeated(OK "Content-Length: 3000000\r\n\r\n", "0123456789", 300000);
    rig_start(&rig, text, ANSWER_CLOSES);
    ask(&rig, SECONDS(60), SECONDS(60));
    turn(&rig);
    assert_int_equal(rig.end, HTTP_GET_DONE);
    assert_int_equal(rig.body_len, 3000000);
    rig_stop(&rig);
    free(text);
}

/* ---- ends without an answer ---- */

static void test_a_refused_connection_is_told_from_the_loop(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, "", ANSWER_CLOSES);
    event_del(&rig.server.accept);
    net_listen_close(rig.server.listener);
    ask(&rig, SECONDS(60), SECONDS(60));
    turn(&rig);
    assert_int_equal(rig.ends, 1);
    assert_int_equal(rig.end, HTTP_GET_BROKEN);
    assert_string_equal(rig.why, "Connection refused");
    event_base_free(rig.base);
}

static void test_one_that_is_stopped_says_nothing_more(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        for (size_t piece = 1; piece <= 1000; piece += 999) {
            struct rig rig;
            rig_start(&rig, CHUNKED "2\r\nok\r\n3\r\nfew\r\n0\r\n\r\n", ANSWER_CLOSES);
            rig.server.piece = piece;
            rig.stops_at_head = i == 0;
            rig.stops_at_body = i == 1;
            ask(&rig, SECONDS(60), SECONDS(60));
            turn(&rig);
            assert_int_equal(rig.ends, 0);
            assert_int_equal(rig.heads, 1);
            assert_true(rig.body_len <= (i == 0 ? 0 : 2));
            rig_stop(&rig);
        }
}

static void test_silence_ends_it(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "HTTP/1.1 2", CHUNKED, CHUNKED "5\r\nhel"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct rig rig;
        rig_start(&rig, texts[i], ANSWER_STAYS);
        ask(&rig, MILLISECONDS(50), SECONDS(60));
        turn(&rig);
        assert_int_equal(rig.end, HTTP_GET_BROKEN);
        assert_string_equal(rig.why, "timeout");
        rig_stop(&rig);
    }
}

static void test_a_trickle_that_never_ends_is_ended(void **state)
{
    (void)state;
    static const struct {
        const char *text, *repeat;
    } trickles[] = {
        {CHUNKED, "1\r\n\n\r\n"},    /* chunks without end */
        {CHUNKED "ffffff\r\n", "x"}, /* a chunk */
        {OK "\r\n", "x"},            /* until a close that never comes */
        {OK "X-Long: ", "x"},        /* in the head */
    };
    for (size_t i = 0; i < ARRAY_LEN(trickles); i++) {
        struct rig rig;
        rig_start(&rig, trickles[i].text, ANSWER_REPEATS);
        rig.server.repeat = slice_from_text(trickles[i].repeat);
        rig.server.pause = MILLISECONDS(5);
        uint64_t began = timing_now();
        ask(&rig, SECONDS(60), MILLISECONDS(200));
        turn(&rig);
        assert_true(timing_now() - began >=
                    MILLISECONDS(190)); /* the loop's clock is coarse */
        assert_int_equal(rig.end, HTTP_GET_BROKEN);
        assert_string_equal(rig.why, "timeout: the answer does not end");
        rig_stop(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_end_as_they_should_in_whatever_pieces),
        cmocka_unit_test(test_an_answer_that_is_whole_does_not_wait_for_the_close),
        cmocka_unit_test(test_the_question_is_what_was_given),
        cmocka_unit_test(test_a_head_is_bounded_and_so_is_what_comes_before_it),
        cmocka_unit_test(test_a_large_body_comes_whole),
        cmocka_unit_test(test_a_refused_connection_is_told_from_the_loop),
        cmocka_unit_test(test_one_that_is_stopped_says_nothing_more),
        cmocka_unit_test(test_silence_ends_it),
        cmocka_unit_test(test_a_trickle_that_never_ends_is_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
