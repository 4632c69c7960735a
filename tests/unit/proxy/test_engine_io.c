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

#define MATCH   ENGINE_PATH_MATCH
#define OTHER   ENGINE_PATH_OTHER
#define UNCLEAR ENGINE_PATH_UNCLEAR

static void test_paths_match_however_a_server_may_read_them(void **state)
{
    (void)state;
    static const struct slice paths[] = {SLICE_INIT("/socket.io/"),
                                         SLICE_INIT("/rt/v1/")};
    static const struct {
        const char *raw, *query;
        enum engine_path_kind kind;
        const char *canonical, *rest; /* canonical NULL: as it came */
    } rows[] = {
        {"/socket.io/", "", MATCH, "/socket.io/", ""},
        {"/socket%2eio%2F", "", MATCH, "/socket.io/", ""},
        {"/socket.io/socket.io.js", "", MATCH, "/socket.io/", "socket.io.js"},
        {"/%73ocket.io/a%2fb", "", MATCH, "/socket.io/", "a%2fb"},
        {"/rt/v1/x", "", MATCH, "/rt/v1/", "x"},
        {"/socket.io/a/../b;c", "", MATCH, "/socket.io/", "a/../b;c"},
        /* without the last slash */
        {"/socket.io", "", MATCH, "/socket.io", ""},
        {"/socket%2Eio", "EIO=4", MATCH, "/socket.io", ""},
        {"/rt/v1", "", MATCH, "/rt/v1", ""},
        /* Node with addTrailingSlash: false compares the beginning only */
        {"/socket.iox", "EIO=4&transport=polling", MATCH, NULL, NULL},
        {"/socket.io-admin/x", "a&%74ransport=websocket", MATCH, NULL, NULL},
        {"/socket.io%", "transport=polling", MATCH, NULL, NULL},
        {"/socket.io;a/../x", "transport=", MATCH, NULL, NULL},
        {"/socket.iox", "EIO=4&sid=x", OTHER, NULL, NULL},
        {"/socket.io-admin/", "xtransport=polling", OTHER, NULL, NULL},
        /* slashes in front */
        {"//socket.io/x", "", MATCH, "/socket.io/", "x"},
        {"////socket.io", "", MATCH, "/socket.io", ""},
        /* read differently by different servers */
        {"/%2Fsocket.io/", "", UNCLEAR, NULL, NULL},
        {"/./socket.io/", "", UNCLEAR, NULL, NULL},
        {"/%2e/socket.io/", "", UNCLEAR, NULL, NULL},
        {"/x/../socket.io/", "", UNCLEAR, NULL, NULL},
        {"/x/y/.%2E/..//socket.io", "", UNCLEAR, NULL, NULL},
        {"/..;/socket.io/", "", UNCLEAR, NULL, NULL},
        {"/%5Csocket.io%5C", "", UNCLEAR, NULL, NULL},
        {"/socket.io;v=1/", "", UNCLEAR, NULL, NULL},
        {"/socket.io;v=1", "", UNCLEAR, NULL, NULL},
        {"/rt//v1/", "", UNCLEAR, NULL, NULL},
        {"/socket.io/../admin", "", UNCLEAR, NULL, NULL},
        {"/socket.io/%2e%2e%2fadmin", "", UNCLEAR, NULL, NULL},
        {"/socket.io/..", "", UNCLEAR, NULL, NULL},
        {"/socket.io%2f..", "", UNCLEAR, NULL, NULL},
        {"/../../x/..", "", OTHER, NULL, NULL},
        {"/socket.io%", "", OTHER, NULL, NULL},
        {"/socket.io%2", "", OTHER, NULL, NULL},
        {"/Socket.io/", "", OTHER, NULL, NULL},
        {"/x//socket.io/", "", OTHER, NULL, NULL},
        {"/%2573ocket.io/", "", OTHER, NULL, NULL},
        {"/", "", OTHER, NULL, NULL},
        {"//", "", OTHER, NULL, NULL},
        {"*", "", OTHER, NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct engine_path match;
        size_t len = strlen(rows[i].raw);
        enum engine_path_kind kind = engine_path_match(
            slice_of(guarded_copy(rows[i].raw, len), len), slice_from_text(rows[i].query),
            paths, ARRAY_LEN(paths), &match);
        if (kind != rows[i].kind)
            fail_msg("%s: %d", rows[i].raw, (int)kind);
        if (kind != MATCH)
            continue;
        assert_true((match.canonical.data == NULL) == (rows[i].canonical == NULL));
        if (rows[i].canonical == NULL)
            continue;
        assert_slice(match.canonical, rows[i].canonical);
        assert_slice(match.rest, rows[i].rest);
        assert_true(slice_starts_with(match.routed_by, match.canonical));
        assert_int_equal(match.routed_by.data[match.routed_by.len - 1], '/');
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
        cmocka_unit_test(test_paths_match_however_a_server_may_read_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
