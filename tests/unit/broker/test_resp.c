/*
 * Proves that requests are read as Redis reads them, however their bytes are split, that what Redis refuses
 * is refused with its text, and that a large bulk in pieces is not read again and again.
 */
#include "tests/unit/unit.h"

#include "broker/resp.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>

#define BULK_MAX    1000
#define REQUEST_MAX 1500
#define REDIS       "ERR Protocol error: "

/* argv joined with '|', requests ended with ';', an error as its text. */
struct row {
    struct slice input;
    const char *expected;
};

#define ROW(input, expected)                                                             \
    {                                                                                    \
        SLICE_INIT(input), expected                                                      \
    }

static const struct row rows[] = {
    ROW("*1\r\n$4\r\nPING\r\n", "PING;"),
    ROW("*2\r\n$9\r\nSUBSCRIBE\r\n$14\r\nflask-socketio\r\n",
        "SUBSCRIBE|flask-socketio;"),
    ROW("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$4\r\na\r\nb\r\n*1\r\n$4\r\nQUIT\r\n",
        "PUBLISH|c|a\r\nb;QUIT;"),
    ROW("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "ECHO|;"),
    ROW("*0\r\n*-1\r\n*1\r\n$1\r\nx\r\n", ";;x;"),
    ROW("PING\r\n", "PING;"),
    ROW("PING\n", "PING;"),
    ROW("\r\n  PING   a\t b \r\n", ";PING|a|b;"),
    ROW("SET \"a \\x41\\n\\\"\" 'b \\'c\\' \\n' d'e f'\r\n",
        "SET|a A\n\"|b 'c' \\n|de f;"),
    ROW("ECHO \"\" ''\r\n", "ECHO||;"),
    ROW("ECHO \"\\xzz\"\r\n", "ECHO|xzz;"),
    ROW("ECHO \"a\"b\r\n", REDIS "unbalanced quotes in request"),
    ROW("ECHO \"a\r\n", REDIS "unbalanced quotes in request"),
    ROW("ECHO 'a\r\n", REDIS "unbalanced quotes in request"),
    ROW("*x\r\n", REDIS "invalid multibulk length"),
    ROW("*\r\n", REDIS "invalid multibulk length"),
    ROW("*01\r\n", REDIS "invalid multibulk length"),
    ROW("*+1\r\n", REDIS "invalid multibulk length"),
    ROW("*1048577\r\n", REDIS "invalid multibulk length"),
    ROW("*99999999999999999999\r\n", REDIS "invalid multibulk length"),
    ROW("*1\r\nPING\r\n", REDIS "expected '$', got 'P'"),
    ROW("*1\r\n$-1\r\n", REDIS "invalid bulk length"),
    ROW("*1\r\n$1001\r\n", ""),
    ROW("*1\r\n$536870913\r\n", REDIS "invalid bulk length"),
    ROW("*1\r\n$4294967296\r\n", REDIS "invalid bulk length"),
    ROW("*1\r\n$x\r\n", REDIS "invalid bulk length"),
    ROW("*2\r\n$1\r\na\r\n$", ""),
    ROW("*1048576\r\n$1\r\na\r\n", ""),
};

static void append(char *text, struct slice more)
{
    size_t len = strlen(text);
    memcpy(text + len, more.data, more.len);
    text[len + more.len] = '\0';
}

/* Feeds `input` in pieces of `step` bytes, each against the guard page, and writes down what came. */
static void run(struct slice input, size_t step, bool is_unauthenticated, char *text)
{
    struct resp_parser parser;
    resp_parser_init(&parser, BULK_MAX, REQUEST_MAX);
    parser.is_unauthenticated = is_unauthenticated;
    size_t start = 0;
    text[0] = '\0';
    for (size_t end = min_size(step, input.len);;) {
        char *guarded = guarded_copy(input.data + start, end - start);
        struct resp_request request;
        enum parse_result result =
            resp_parse(&parser, slice_of(guarded, end - start), &request);
        if (result == PARSE_DONE) {
            for (size_t i = 0; i < request.argc; i++) {
                append(text, slice_of("|", i > 0));
                append(text, request.argv[i]);
            }
            char over[64] = "";
            if (request.over == RESP_OVER_BULK)
                snprintf(over, sizeof(over), "<bulk %zu>", request.over_len);
            if (request.over == RESP_OVER_REQUEST)
                snprintf(over, sizeof(over), "<request %zu>", request.over_len);
            append(text, slice_from_text(over));
            append(text, SLICE(";"));
            assert_true(request.consumed > 0 && request.consumed <= end - start);
        } else if (result == PARSE_BAD) {
            append(text, slice_from_text(resp_error(&parser)));
        } else {
            assert_true(resp_wanted(&parser) > end - start - request.consumed);
        }
        guarded_free(guarded, end - start);
        start += request.consumed;
        if (result == PARSE_BAD || (result == PARSE_MORE && end == input.len))
            break;
        if (result == PARSE_MORE)
            end = min_size(end + step, input.len);
    }
    resp_parser_cleanup(&parser);
}

static void test_requests_are_read_alike_however_they_are_split(void **state)
{
    (void)state;
    char text[512];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step <= rows[i].input.len; step++) {
            run(rows[i].input, step, false, text);
            assert_string_equal(rows[i].expected, text);
        }
}

static char *put(char *at, const char *text)
{
    size_t len = strlen(text);
    memcpy(at, text, len);
    return at + len;
}

static char *put_bulk(char *at, size_t len)
{
    at += sprintf(at, "$%zu\r\n", len);
    memset(at, 'x', len);
    at[len] = '\r';
    at[len + 1] = '\n';
    return at + len + 2;
}

/* Another request comes behind each: it is read as if nothing had been. */
static void test_what_is_over_a_limit_is_skipped_and_measured(void **state UNUSED)
{
    static const struct {
        size_t count, lens[3];
        const char *expected;
    } cases[] = {
        {1, {1001}, "<bulk 1001>;PING;"},
        {3, {7, 6, 5000}, "<bulk 5000>;PING;"},
        {3, {1001, 6, 5000}, "<bulk 1001>;PING;"},
        {3, {2000, 0, 0}, "<bulk 2000>;PING;"},
        {2, {1000, 437}, "<request 1501>;PING;"},
        {3, {1000, 1000, 1000}, "<request 3096>;PING;"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        static char input[16384];
        char text[512];
        char *at = input + sprintf(input, "*%zu\r\n", cases[i].count);
        for (size_t j = 0; j < cases[i].count; j++)
            at = put_bulk(at, cases[i].lens[j]);
        at = put(at, "*1\r\n$4\r\nPING\r\n");
        struct slice bytes = slice_of(input, (size_t)(at - input));
        for (size_t step = 1; step <= bytes.len; step += step < 20 ? 1 : 97) {
            run(bytes, step, false, text);
            assert_string_equal(cases[i].expected, text);
        }
    }
}

static void test_a_request_of_many_arguments_is_over_by_their_number(void **state UNUSED)
{
    static char input[1024];
    char text[512];
    char *at = input + sprintf(input, "*47\r\n");
    for (size_t j = 0; j < 47; j++)
        at = put_bulk(at, 0);
    at = put(at, "PING\r\n");
    run(slice_of(input, (size_t)(at - input)), 50, false, text);
    assert_string_equal("<request 1504>;PING;", text);
}

/* However much is skipped, nothing of it is asked to be kept. */
static void test_what_is_skipped_is_not_kept(void **state UNUSED)
{
    struct resp_parser parser;
    struct resp_request request;
    static char block[4096];
    resp_parser_init(&parser, BULK_MAX, REQUEST_MAX);
    struct slice head = SLICE("*1000000\r\n$100000000\r\n");
    assert_int_equal(PARSE_MORE, resp_parse(&parser, head, &request));
    assert_int_equal(head.len, request.consumed);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(PARSE_MORE,
                         resp_parse(&parser, slice_of(block, sizeof(block)), &request));
        assert_int_equal(sizeof(block), request.consumed);
        assert_int_equal(1, resp_wanted(&parser));
        assert_int_equal(0, parser.capacity);
    }
    resp_parser_cleanup(&parser);
}

static void test_clients_that_did_not_log_in_are_held_short(void **state)
{
    (void)state;
    char text[512];
    run(SLICE("*11\r\n$4\r\nPING\r\n"), 99, true, text);
    assert_string_equal(REDIS "unauthenticated multibulk length", text);
    run(SLICE("*10\r\n$4\r\nPING\r\n"), 99, true, text);
    assert_string_equal("", text);
    struct resp_parser parser;
    struct resp_request request;
    resp_parser_init(&parser, 1 << 20, SIZE_MAX);
    parser.is_unauthenticated = true;
    assert_int_equal(PARSE_BAD, resp_parse(&parser, SLICE("*1\r\n$16385\r\n"), &request));
    assert_string_equal(REDIS "unauthenticated bulk length", resp_error(&parser));
    resp_parser_cleanup(&parser);
}

static void test_endless_lines_are_refused_at_64_kib(void **state)
{
    (void)state;
    static const struct {
        const char *start;
        char filler;
        const char *error;
    } lines[] = {
        {"", 'a', REDIS "too big inline request"},
        {"*", '1', REDIS "too big mbulk count string"},
        {"*1\r\n$", '1', REDIS "too big bulk count string"},
    };
    char *text = must_calloc(1, 2 * RESP_INLINE_MAX);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        for (size_t step = 4096; step <= 2 * RESP_INLINE_MAX; step *= 2) {
            memset(text, lines[i].filler, 2 * RESP_INLINE_MAX);
            memcpy(text, lines[i].start, strlen(lines[i].start));
            char result[512];
            run(slice_of(text, 2 * RESP_INLINE_MAX), step, false, result);
            assert_string_equal(lines[i].error, result);
        }
    }
    free(text);
}

static void test_large_bulk_in_pieces_says_what_it_waits_for(void **state)
{
    (void)state;
    const size_t size = 16 << 20;
    char *text = must_calloc(1, size + 100);
    size_t head =
        (size_t)sprintf(text, "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$%zu\r\n", size);
    memset(text + head, '\r', size); /* a scan for line ends would stop at each */
    memcpy(text + head + size, "\r\n", 2);
    struct resp_parser parser;
    struct resp_request request;
    resp_parser_init(&parser, size, SIZE_MAX);
    size_t calls = 0;
    for (size_t end = 4096; end < head + size + 2; end += 4096, calls++) {
        assert_int_equal(PARSE_MORE, resp_parse(&parser, slice_of(text, end), &request));
        assert_int_equal(head + size + 2, resp_wanted(&parser));
        assert_int_equal(head, parser.understood);
    }
    assert_int_equal(PARSE_DONE,
                     resp_parse(&parser, slice_of(text, head + size + 2), &request));
    assert_int_equal(3, request.argc);
    assert_int_equal(size, request.argv[2].len);
    resp_parser_cleanup(&parser);
    free(text);
}

static void test_claimed_arguments_cost_no_memory_before_they_come(void **state)
{
    (void)state;
    struct resp_parser parser;
    struct resp_request request;
    resp_parser_init(&parser, BULK_MAX, SIZE_MAX);
    assert_int_equal(PARSE_MORE, resp_parse(&parser, SLICE("*1048576\r\n"), &request));
    assert_int_equal(0, parser.capacity);
    resp_parser_cleanup(&parser);
}

static void assert_written(struct evbuffer *out, const char *expected)
{
    size_t len = evbuffer_get_length(out);
    assert_int_equal(strlen(expected), len);
    assert_memory_equal(expected, evbuffer_pullup(out, -1), len);
    evbuffer_drain(out, len);
}

static void test_replies_are_written_in_both_protocols(void **state)
{
    (void)state;
    struct evbuffer *out = evbuffer_new();
    resp_write_simple(out, "OK");
    resp_write_error(out, "ERR a\r\nb");
    resp_write_error_format(out, "ERR unknown command '%s'", "x\n");
    assert_written(out, "+OK\r\n-ERR a  b\r\n-ERR unknown command 'x '\r\n");
    resp_write_integer(out, 0);
    resp_write_integer(out, INT64_MIN);
    resp_write_integer(out, INT64_MAX);
    assert_written(out, ":0\r\n:-9223372036854775808\r\n:9223372036854775807\r\n");
    resp_write_bulk(out, SLICE(""));
    resp_write_bulk(out, SLICE("a\0b"));
    evbuffer_drain(out, 6 + 4);
    assert_int_equal(5, evbuffer_get_length(out));
    evbuffer_drain(out, 5);
    for (unsigned protocol = 2; protocol <= 3; protocol++) {
        resp_write_null(out, protocol);
        resp_write_bool(out, protocol, true);
        resp_write_map(out, protocol, 7);
        resp_write_set(out, protocol, 2);
        resp_write_push(out, protocol, 3);
        resp_write_array(out, 4);
        resp_write_verbatim(out, protocol, SLICE("a"));
        assert_written(out, protocol == 2
                                ? "$-1\r\n:1\r\n*14\r\n*2\r\n*3\r\n*4\r\n$1\r\na\r\n"
                                : "_\r\n#t\r\n%7\r\n~2\r\n>3\r\n*4\r\n=5\r\ntxt:a\r\n");
        resp_write_subscribed(out, protocol, "unsubscribe", slice_of(NULL, 0), 0);
        assert_written(out, protocol == 2 ? "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
                                          : ">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n");
        char head[RESP_HEAD_ROOM + 4];
        evbuffer_add(out, head, resp_put_message_head(head, protocol, SLICE("ch"), 2));
        evbuffer_add(out, "hi", 2);
        resp_write_line_end(out);
        assert_written(out, protocol == 2
                                ? "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n"
                                : ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n");
        evbuffer_add(out, head,
                     resp_put_pmessage_head(head, protocol, SLICE("c*"), SLICE("ch"), 2));
        assert_written(out,
                       protocol == 2
                           ? "*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\nch\r\n$2\r\n"
                           : ">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\nch\r\n$2\r\n");
    }
    evbuffer_free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_are_read_alike_however_they_are_split),
        cmocka_unit_test(test_what_is_over_a_limit_is_skipped_and_measured),
        cmocka_unit_test(test_a_request_of_many_arguments_is_over_by_their_number),
        cmocka_unit_test(test_what_is_skipped_is_not_kept),
        cmocka_unit_test(test_clients_that_did_not_log_in_are_held_short),
        cmocka_unit_test(test_endless_lines_are_refused_at_64_kib),
        cmocka_unit_test(test_large_bulk_in_pieces_says_what_it_waits_for),
        cmocka_unit_test(test_claimed_arguments_cost_no_memory_before_they_come),
        cmocka_unit_test(test_replies_are_written_in_both_protocols),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
