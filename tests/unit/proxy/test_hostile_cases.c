/*
 * Every case of tests/cases/ through the parsers in the order in which the proxy uses
 * them: head, Engine.IO facts, body. Each case whole, split at every byte, one byte at a
 * time, always ending against a guard page; the outcome must be the same each time.
 */
#include "tests/unit/proxy/cases.h"

#include "proxy/body_framing.h"
#include "proxy/engine_io.h"
#include "proxy/http_head.h"
#include "proxy/ws_handshake.h"

enum {
    CASES_MAX = 256,
    GUARD_SIZE = 1 << 18,
    BODY_MAX = 1000000,
    EVERY_SPLIT_UP_TO = 2048, /* longer cases are split at 128 places */
};

enum outcome { FORWARDED, REFUSED, INCOMPLETE };

struct verdict {
    enum outcome outcome;
    unsigned status;
    size_t used;      /* bytes of the message */
    uint64_t payload; /* bytes of its body */
};

static struct guard head_guard;
static struct guard body_guard;
static struct http_request request;
static struct http_response response;
static struct test_case cases[CASES_MAX];

static unsigned engine_status(void)
{
    static const struct slice paths[] = {SLICE_INIT("/socket.io/")};
    struct engine_path path;
    struct engine_query facts;
    enum engine_path_kind kind =
        engine_path_match(request.path, request.query, paths, 1, &path);
    if (kind != ENGINE_PATH_MATCH)
        return kind == ENGINE_PATH_UNCLEAR ? 400 : 0;
    if (request.method != HTTP_GET && request.method != HTTP_POST &&
        request.method != HTTP_OPTIONS)
        return 405;
    return engine_query_parse(request.query, &facts) == PARSE_BAD ? facts.refusal.status
                                                                  : 0;
}

/* Feeds bytes to a body; true when it is done or bad, *used grows by what it took. */
static bool feed_body(struct body_framing *framing, const char *bytes, size_t len,
                      size_t *used, uint64_t *payload_len)
{
    struct slice rest = guard_put(&body_guard, bytes, len);
    for (;;) {
        size_t consumed;
        struct slice payload;
        enum parse_result result = body_framing_next(framing, rest, &consumed, &payload);
        assert_true(consumed <= rest.len);
        assert_true(payload.len == 0 ||
                    (payload.data >= rest.data &&
                     payload.data + payload.len <= rest.data + consumed));
        *used += consumed;
        *payload_len += payload.len;
        rest = slice_from(rest, consumed);
        if (result != PARSE_MORE)
            return true;
        if (rest.len == 0)
            return false;
        assert_true(consumed > 0);
    }
}

static struct verdict end_of_body(struct body_framing *framing, struct verdict verdict)
{
    enum body_fault fault = body_framing_fault(framing);
    if (fault == BODY_FAULT_NONE)
        return verdict;
    return (struct verdict){.outcome = REFUSED, .status = body_fault_status(fault)};
}

static struct verdict judge_request(const char *raw, size_t len, struct arrival arrival)
{
    size_t have = 0;
    size_t last = 0;
    enum parse_result result = PARSE_MORE;
    while (have < len && result == PARSE_MORE) {
        have = arrival_next(&arrival, have, len);
        result = http_request_parse(guard_put(&head_guard, raw, have), last,
                                    HTTP_HEAD_BYTES_DEFAULT, &request);
        last = have;
    }
    if (result == PARSE_MORE)
        return (struct verdict){.outcome = INCOMPLETE};
    if (result == PARSE_BAD)
        return (struct verdict){.outcome = REFUSED, .status = request.refusal.status};
    assert_true(request.head_len <= have);
    unsigned status = engine_status();
    if (status != 0)
        return (struct verdict){.outcome = REFUSED, .status = status};

    struct verdict verdict = {.outcome = FORWARDED, .used = request.head_len};
    struct body_framing framing;
    if (body_framing_start(&framing, request.body, request.body_length, BODY_MAX,
                           BODY_FRAMING_MAX) != PARSE_MORE)
        return end_of_body(&framing, verdict);
    size_t fed = request.head_len;
    for (;;) {
        if (fed < have &&
            feed_body(&framing, raw + fed, have - fed, &verdict.used, &verdict.payload))
            return end_of_body(&framing, verdict);
        fed = have;
        if (have == len)
            return (struct verdict){.outcome = INCOMPLETE};
        have = arrival_next(&arrival, have, len);
    }
}

/* 400 is right for everything; another status only when the case names it. */
static bool is_status_of(const struct test_case *one, unsigned status)
{
    char digits[8];
    snprintf(digits, sizeof(digits), "%u", status);
    return status == 400 || strstr(one->why, digits) != NULL ||
           (status == 413 && strstr(one->why, "body limit") != NULL);
}

static void assert_request_case(const struct test_case *one, struct arrival arrival)
{
    struct verdict verdict = judge_request(one->raw, one->raw_len, arrival);
    bool is_forward = strcmp(one->expect, "forward") == 0;
    bool is_right =
        is_forward ? verdict.outcome == FORWARDED
                   : verdict.outcome == INCOMPLETE || is_status_of(one, verdict.status);
    if (!is_right || (!is_forward && verdict.outcome == FORWARDED) ||
        (verdict.outcome == INCOMPLETE && strstr(one->name, "truncated") == NULL))
        fail_msg("%s (first %zu, then %zu): outcome %d, status %u", one->name,
                 arrival.first, arrival.step, verdict.outcome, verdict.status);
}

static bool verdicts_equal(struct verdict a, struct verdict b)
{
    return a.outcome == b.outcome && a.status == b.status && a.used == b.used &&
           a.payload == b.payload;
}

static void test_every_request_case_has_its_verdict(void **state)
{
    (void)state;
    size_t count = cases_load(TEST_DATA "/cases/smuggling-cases.jsonl", cases, CASES_MAX);
    assert_true(count > 100);
    for (size_t i = 0; i < count; i++)
        assert_request_case(&cases[i], (struct arrival){0, 0});
}

static void test_no_split_changes_the_verdict_of_a_request(void **state)
{
    (void)state;
    size_t count = cases_load(TEST_DATA "/cases/smuggling-cases.jsonl", cases, CASES_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct test_case *one = &cases[i];
        struct verdict whole = judge_request(one->raw, one->raw_len, (struct arrival){0});
        size_t stride = one->raw_len > EVERY_SPLIT_UP_TO ? one->raw_len / 128 : 1;
        for (size_t at = 1; at < one->raw_len; at += stride) {
            struct verdict split =
                judge_request(one->raw, one->raw_len, (struct arrival){at, 0});
            if (!verdicts_equal(whole, split))
                fail_msg("%s split at %zu: outcome %d/%d status %u/%u", one->name, at,
                         whole.outcome, split.outcome, whole.status, split.status);
        }
        for (size_t step = 1; step <= 3; step++) {
            struct verdict drip =
                judge_request(one->raw, one->raw_len, (struct arrival){step, step});
            if (!verdicts_equal(whole, drip))
                fail_msg("%s by %zu: outcome %d/%d status %u/%u", one->name, step,
                         whole.outcome, drip.outcome, whole.status, drip.status);
        }
    }
}

static void test_garbage_behind_a_pipelined_request_is_refused_on_its_own(void **state)
{
    (void)state;
    size_t count = cases_load(TEST_DATA "/cases/smuggling-cases.jsonl", cases, CASES_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct test_case *one = &cases[i];
        bool is_garbage = strcmp(one->name, "cn-pipelined-garbage") == 0;
        if (!is_garbage && strcmp(one->name, "base-pipelined-two") != 0)
            continue;
        struct verdict first = judge_request(one->raw, one->raw_len, (struct arrival){0});
        struct verdict second = judge_request(
            one->raw + first.used, one->raw_len - first.used, (struct arrival){0});
        assert_int_equal(second.outcome, is_garbage ? REFUSED : FORWARDED);
    }
}

enum answer { ANSWER_FORWARD, ANSWER_BAD_GATEWAY, ANSWER_ABORT };

static enum http_method case_method(const struct test_case *one)
{
    return strcmp(one->request, "HEAD") == 0   ? HTTP_HEAD
           : strcmp(one->request, "POST") == 0 ? HTTP_POST
                                               : HTTP_GET;
}

/* The body behind a final head, up to the end of what the endpoint sends. */
static enum answer judge_response_body(const char *raw, size_t len, size_t have,
                                       size_t begin, struct arrival arrival)
{
    struct body_framing framing;
    size_t used = 0;
    uint64_t payload = 0;
    if (body_framing_start(&framing, response.body, response.body_length, 0, 0) ==
        PARSE_DONE)
        return ANSWER_FORWARD;
    for (size_t fed = begin;; fed = have, have = arrival_next(&arrival, have, len)) {
        if (fed < have && feed_body(&framing, raw + fed, have - fed, &used, &payload))
            return body_framing_is_complete(&framing) ? ANSWER_FORWARD : ANSWER_ABORT;
        if (have == len)
            break;
    }
    return body_framing_end(&framing) == PARSE_DONE ? ANSWER_FORWARD : ANSWER_ABORT;
}

static enum answer judge_response(const struct test_case *one, struct arrival arrival)
{
    bool asked = strcmp(one->request, "UPGRADE") == 0;
    size_t have = 0;
    size_t last = 0;
    size_t begin = 0;
    size_t interim = 0;
    for (;;) {
        if (have == one->raw_len && last == have - begin)
            return ANSWER_BAD_GATEWAY; /* the end of the stream inside a head */
        if (last == have - begin)
            have = arrival_next(&arrival, have, one->raw_len);
        struct slice data = guard_put(&head_guard, one->raw + begin, have - begin);
        enum parse_result result = http_response_parse(
            data, last, HTTP_HEAD_BYTES_DEFAULT, case_method(one), asked, &response);
        last = data.len;
        if (result == PARSE_MORE)
            continue;
        if (result == PARSE_BAD) {
            assert_int_equal(response.refusal.status, 502);
            return ANSWER_BAD_GATEWAY;
        }
        begin += response.head_len;
        if (!response.is_interim)
            break;
        if (++interim > HTTP_INTERIM_MAX)
            return ANSWER_BAD_GATEWAY;
        last = 0;
        if (begin == have && have == one->raw_len)
            return ANSWER_BAD_GATEWAY;
        if (begin == have)
            have = arrival_next(&arrival, have, one->raw_len);
    }
    if (response.is_websocket)
        return ws_accept_matches(SLICE("dGhlIHNhbXBsZSBub25jZQ=="),
                                 response.websocket_accept)
                   ? ANSWER_FORWARD
                   : ANSWER_BAD_GATEWAY;
    return judge_response_body(one->raw, one->raw_len, have, begin, arrival);
}

static void assert_response_case(const struct test_case *one, struct arrival arrival)
{
    enum answer answer = judge_response(one, arrival);
    enum answer wanted = strcmp(one->expect, "forward") == 0       ? ANSWER_FORWARD
                         : strcmp(one->expect, "bad-gateway") == 0 ? ANSWER_BAD_GATEWAY
                                                                   : ANSWER_ABORT;
    if (answer != wanted)
        fail_msg("%s (first %zu, then %zu): answer %d, wanted %d", one->name,
                 arrival.first, arrival.step, answer, wanted);
}

static void test_every_response_case_has_its_verdict_however_it_comes(void **state)
{
    (void)state;
    size_t count = cases_load(TEST_DATA "/cases/response-cases.jsonl", cases, CASES_MAX);
    assert_true(count > 30);
    for (size_t i = 0; i < count; i++) {
        const struct test_case *one = &cases[i];
        size_t stride = one->raw_len > EVERY_SPLIT_UP_TO ? one->raw_len / 128 : 1;
        assert_response_case(one, (struct arrival){0, 0});
        assert_response_case(one, (struct arrival){1, 1});
        for (size_t at = 1; at < one->raw_len; at += stride)
            assert_response_case(one, (struct arrival){at, 0});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_request_case_has_its_verdict),
        cmocka_unit_test(test_no_split_changes_the_verdict_of_a_request),
        cmocka_unit_test(test_garbage_behind_a_pipelined_request_is_refused_on_its_own),
        cmocka_unit_test(test_every_response_case_has_its_verdict_however_it_comes),
    };
    head_guard = guard_new(GUARD_SIZE);
    body_guard = guard_new(GUARD_SIZE);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
