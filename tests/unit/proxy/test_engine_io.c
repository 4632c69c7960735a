/* Engine.IO facts of paths and queries, decoded as Node and Python decode them. */
#include "tests/unit/unit.h"

#include "proxy/engine_io.h"

static struct engine_query facts;

static enum parse_result parse(const char *query)
{
    return engine_query_parse(slice_of(guarded_copy(query, strlen(query)), strlen(query)),
                              &facts);
}

static void assert_slice(struct slice slice, const char *text)
{
    if (slice.len != strlen(text) || memcmp(slice.data, text, slice.len) != 0)
        fail_msg("\"%.*s\" instead of \"%s\"", SLICE_ARGS(slice), text);
}

static void test_a_poll_is_understood(void **state)
{
    (void)state;
    assert_int_equal(parse("EIO=4&transport=polling&t=x1&sid=Ab-_.~9"), PARSE_DONE);
    assert_int_equal(facts.version, ENGINE_VERSION_4);
    assert_int_equal(facts.transport, ENGINE_TRANSPORT_POLLING);
    assert_slice(facts.sid, "Ab-_.~9");
    assert_slice(facts.sid_raw, "Ab-_.~9");
    assert_false(facts.is_jsonp);
    assert_int_equal(parse("transport=websocket&EIO=3&j=0&b64=1"), PARSE_DONE);
    assert_int_equal(facts.version, ENGINE_VERSION_3);
    assert_int_equal(facts.transport, ENGINE_TRANSPORT_WEBSOCKET);
    assert_true(facts.is_jsonp);
    assert_true(facts.is_base64);
    assert_int_equal(facts.sid.len, 0);
    assert_int_equal(parse("EIO=04&transport=Polling&eio=4"), PARSE_DONE);
    assert_int_equal(facts.version, ENGINE_VERSION_OTHER);
    assert_int_equal(facts.transport, ENGINE_TRANSPORT_OTHER);
}

static void test_nothing_is_nothing(void **state)
{
    (void)state;
    static const char *const queries[] = {"",    "&",    "&&",     "=",    "a",
                                          "sid", "sid=", "&sid=&", "x=sid"};
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        assert_int_equal(parse(queries[i]), PARSE_DONE);
        assert_int_equal(facts.sid.len, 0);
        assert_int_equal(facts.version, ENGINE_VERSION_ABSENT);
        assert_int_equal(facts.transport, ENGINE_TRANSPORT_ABSENT);
    }
    assert_int_equal(engine_query_parse(slice_of(NULL, 0), &facts), PARSE_DONE);
}

static void test_names_and_values_are_decoded(void **state)
{
    (void)state;
    assert_int_equal(parse("%45IO=%34&s%69d=%41b%2Ec%2d&trans%70ort=poll%69ng"),
                     PARSE_DONE);
    assert_int_equal(facts.version, ENGINE_VERSION_4);
    assert_int_equal(facts.transport, ENGINE_TRANSPORT_POLLING);
    assert_slice(facts.sid, "Ab.c-");
    assert_slice(facts.sid_raw, "%41b%2Ec%2d");
    assert_slice(engine_sid_tail(&facts, 2), "c%2d");
    assert_slice(engine_sid_tail(&facts, 3), "%2Ec%2d");
    assert_slice(engine_sid_tail(&facts, 9), "%41b%2Ec%2d");
    assert_slice(engine_sid_tail(&facts, 0), "");
}

static void test_a_parameter_twice_is_refused_also_when_hidden(void **state)
{
    (void)state;
    static const char *const queries[] = {
        "sid=a&sid=a",       "sid=a&s%69d=b",
        "EIO=4&EIO=4",       "transport=polling&transport=x",
        "sid=&sid=a",        "t=1;sid=a",
        "sid=a&t=1;%73id=b", "t=;transport=polling",
    };
    for (size_t i = 0; i < ARRAY_LEN(queries); i++)
        if (parse(queries[i]) != PARSE_BAD || facts.refusal.status != 400)
            fail_msg("accepted: %s", queries[i]);
    assert_int_equal(parse("t=1;2&t=1;x=sid"), PARSE_DONE);
}

static void test_a_sid_with_other_bytes_or_too_long_is_unknown(void **state)
{
    (void)state;
    static const char *const queries[] = {
        "sid=a+b", "sid=a%20b", "sid=%00", "sid=a%0d%0ab", "sid=a%",
        "sid=a%4", "sid=%zz",   "sid=a/b", "sid=a;b",      "sid=a=b"};
    for (size_t i = 0; i < ARRAY_LEN(queries); i++)
        if (parse(queries[i]) != PARSE_BAD)
            fail_msg("accepted: %s", queries[i]);
    char query[4 * ENGINE_SID_MAX] = "sid=";
    memset(query + 4, 'a', ENGINE_SID_MAX);
    assert_int_equal(parse(query), PARSE_DONE);
    assert_int_equal(facts.sid.len, ENGINE_SID_MAX);
    strcat(query, "a");
    assert_int_equal(parse(query), PARSE_BAD);
    assert_string_equal(facts.refusal.reason, "Session ID unknown");
}

static void test_paths_match_decoded_and_come_back_canonical(void **state)
{
    (void)state;
    static const struct slice paths[] = {SLICE_INIT("/socket.io/"),
                                         SLICE_INIT("/rt/v1/")};
    static const struct {
        const char *raw;
        const char *canonical;
        const char *rest;
    } rows[] = {
        {"/socket.io/", "/socket.io/", ""},
        {"/socket%2eio%2F", "/socket.io/", ""},
        {"/socket.io/socket.io.js", "/socket.io/", "socket.io.js"},
        {"/%73ocket.io/a%2fb", "/socket.io/", "a%2fb"},
        {"/rt/v1/x", "/rt/v1/", "x"},
        {"/socket.io", NULL, NULL},
        {"/socket.io%", NULL, NULL},
        {"/socket.io%2", NULL, NULL},
        {"/Socket.io/", NULL, NULL},
        {"//socket.io/", NULL, NULL},
        {"/%2573ocket.io/", NULL, NULL},
        {"/", NULL, NULL},
        {"*", NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct engine_path match;
        size_t len = strlen(rows[i].raw);
        bool matches = engine_path_match(slice_of(guarded_copy(rows[i].raw, len), len),
                                         paths, ARRAY_LEN(paths), &match);
        if (matches != (rows[i].canonical != NULL))
            fail_msg("%s: %d", rows[i].raw, matches);
        if (matches) {
            assert_slice(match.canonical, rows[i].canonical);
            assert_slice(match.rest, rows[i].rest);
        }
    }
}

static void test_values_of_the_query_are_decoded_within_their_bound(void **state)
{
    (void)state;
    static const struct {
        const char *raw, *text;
    } rows[] = {
        {"", ""},          {"room", "room"},     {"a%20b", "a b"},
        {"a+b", "a b"},    {"%41", "A"},         {"%4", "%4"},
        {"%zz", "%zz"},    {"a%2525", "a%25"},   {"12345678", "12345678"},
        {"123456789", ""}, {"%31%32%33", "123"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[8];
        size_t raw_len = strlen(rows[i].raw);
        struct slice raw = slice_of(guarded_copy(rows[i].raw, raw_len), raw_len);
        size_t len = engine_query_decode(raw, out, sizeof(out));
        assert_int_equal(len, strlen(rows[i].text));
        assert_memory_equal(out, rows[i].text, len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_of_the_query_are_decoded_within_their_bound),
        cmocka_unit_test(test_a_poll_is_understood),
        cmocka_unit_test(test_nothing_is_nothing),
        cmocka_unit_test(test_names_and_values_are_decoded),
        cmocka_unit_test(test_a_parameter_twice_is_refused_also_when_hidden),
        cmocka_unit_test(test_a_sid_with_other_bytes_or_too_long_is_unknown),
        cmocka_unit_test(test_paths_match_decoded_and_come_back_canonical),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
