#include "tests/unit/unit.h"

#include "proxy/edge_answer.h"
#include "proxy/http_head.h"

static const struct slice date = SLICE_INIT("Tue, 24 Nov 2026 07:00:00 GMT");

static void test_every_answer_is_a_good_response_with_its_body(void **state)
{
    (void)state;
    static struct http_response response;
    for (int i = 0; i < CLOSE_REASON_COUNT; i++)
        for (int form = 0; form < 8; form++) {
            struct edge_answer answer = {.reason = (enum close_reason)i,
                                         .is_engine_io = (form & 1) != 0,
                                         .is_head = (form & 2) != 0,
                                         .origin = SLICE("https://app.example"),
                                         .retry_after = 1};
            if (close_reason_get(answer.reason)->status == 0)
                answer.status = 200;
            char out[EDGE_ANSWER_MAX];
            size_t len = edge_answer_write(&answer, (form & 4) != 0, date, out);
            struct slice all = slice_of(guarded_copy(out, len), len);
            assert_int_equal(PARSE_DONE,
                             http_response_parse(all, 0, 32768,
                                                 answer.is_head ? HTTP_HEAD : HTTP_GET,
                                                 false, &response));
            size_t body = answer.is_head ? 0 : (size_t)response.body_length;
            assert_int_equal(len, response.head_len + body);
            assert_non_null(http_field_find(&response.fields, HTTP_FIELD_CACHE_CONTROL));
            bool has_cors =
                http_field_find_name(&response.fields,
                                     SLICE("access-control-allow-origin")) != NULL;
            assert_int_equal(answer.is_engine_io, has_cors);
        }
}

static void test_only_plain_origins_are_echoed(void **state)
{
    (void)state;
    static const char *const good[] = {"null", "http://a", "https://app.example:8443",
                                       "http://[::1]:3000", "app+x://host_1"};
    static const char *const bad[] = {"",           "a.b",
                                      "http://",    "://a",
                                      "http://a/b", "http://a\r\nX: y",
                                      "http://a b", "http://a\"",
                                      "ht<tp://a",  "javascript:alert(1)",
                                      "http:/a"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(edge_origin_is_valid(slice_from_text(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(edge_origin_is_valid(slice_from_text(bad[i])));
    char longest[EDGE_ORIGIN_MAX + 1];
    memset(longest, 'a', sizeof longest);
    memcpy(longest, "http://", 7);
    assert_true(edge_origin_is_valid(slice_of(longest, EDGE_ORIGIN_MAX)));
    assert_false(edge_origin_is_valid(slice_of(longest, EDGE_ORIGIN_MAX + 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_answer_is_a_good_response_with_its_body),
        cmocka_unit_test(test_only_plain_origins_are_echoed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
