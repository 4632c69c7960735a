/* Open packets as real servers send them: found, rewritten with nothing else changed,
 * or left alone with a reason. */
#include "tests/unit/unit.h"

#include "proxy/engine_io.h"
#include "proxy/engine_open.h"

static char scratch[ENGINE_HANDSHAKE_MAX];

static void assert_slice(struct slice slice, const char *text)
{
    if (slice.len != strlen(text) || memcmp(slice.data, text, slice.len) != 0)
        fail_msg("\"%.*s\" instead of \"%s\"", SLICE_ARGS(slice), text);
}

static struct slice guarded(const char *text)
{
    return slice_of(guarded_copy(text, strlen(text)), strlen(text));
}

static void assert_rewritten(const char *body, const char *wanted)
{
    struct engine_open open;
    struct slice guarded_body = guarded(body);
    assert_int_equal(engine_open_scan(guarded_body, &open), ENGINE_OPEN_OK);
    struct slice tag = SLICE("k12345678901");
    size_t size = guarded_body.len + tag.len + 1;
    char *out = guarded_copy(scratch, size);
    size_t len = engine_open_write(guarded_body, &open, tag, out, size);
    assert_slice(slice_of(out, len), wanted);
    for (size_t less = 0; less < len; less++)
        assert_int_equal(engine_open_write(guarded_body, &open, tag, out, less), 0);
}

static void test_real_handshakes_get_the_tag_and_nothing_else(void **state)
{
    (void)state;
    assert_rewritten(
        "0{\"sid\":\"XcG9ivnZONweiDvdAAAA\",\"upgrades\":[\"websocket\"],"
        "\"pingInterval\":"
        "25000,\"pingTimeout\":20000,\"maxPayload\":1000000}",
        "0{\"sid\":\"XcG9ivnZONweiDvdAAAA.k12345678901\",\"upgrades\":[\"websocket\"],"
        "\"pingInterval\":25000,\"pingTimeout\":20000,\"maxPayload\":1000000}");
    assert_rewritten("0{\"sid\":\"a\",\"upgrades\":[\"websocket\",\"webtransport\"]}\x1e"
                     "4hello\xff",
                     "0{\"sid\":\"a.k12345678901\",\"upgrades\":[\"websocket\"]}\x1e"
                     "4hello\xff");
    assert_rewritten("0{\"upgrades\":[\"webtransport\" , \"websocket\"],\"sid\":\"a\"}",
                     "0{\"upgrades\":[\"websocket\"],\"sid\":\"a.k12345678901\"}");
    assert_rewritten("0{ \"upgrades\" : [ \"webtransport\" ] , \"sid\" : \"a\" }",
                     "0{ \"upgrades\" : [  ] , \"sid\" : \"a.k12345678901\" }");
    assert_rewritten("0{\"upgrades\":[\"a\",\"webtransport\",\"b\"],\"sid\":\"a\"}",
                     "0{\"upgrades\":[\"a\",\"b\"],\"sid\":\"a.k12345678901\"}");
    assert_rewritten(
        "0{\"x\":{\"sid\":\"no\",\"upgrades\":[\"webtransport\"]},\"sid\":\"a\"}",
        "0{\"x\":{\"sid\":\"no\",\"upgrades\":[\"webtransport\"]},\"sid\":\"a."
        "k12345678901\"}");
    assert_rewritten("0{\"y\":\"\\\"sid\\\":\\\"b\\\"\",\"z\":[1,-0.5e+3,true,false,null,"
                     "{}],\"sid\":\"a\"}",
                     "0{\"y\":\"\\\"sid\\\":\\\"b\\\"\",\"z\":[1,-0.5e+3,true,false,null,"
                     "{}],\"sid\":\"a."
                     "k12345678901\"}");
}

static void test_intervals_are_learned(void **state)
{
    (void)state;
    struct engine_open open;
    assert_int_equal(
        engine_open_scan(guarded("0{\"sid\":\"a\",\"upgrades\":[],\"pingTimeout\":20000,"
                                 "\"pingInterval\":25000}"),
                         &open),
        ENGINE_OPEN_OK);
    assert_int_equal(open.ping_interval, 25000);
    assert_int_equal(open.ping_timeout, 20000);
    assert_int_equal(
        engine_open_scan(
            guarded("0{\"sid\":\"a\",\"pingTimeout\":2.5,\"pingInterval\":99999999999}"),
            &open),
        ENGINE_OPEN_OK);
    assert_int_equal(open.ping_interval, 0);
    assert_int_equal(open.ping_timeout, 0);
}

static void test_what_is_not_provably_right_is_left_alone(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum engine_open_verdict verdict;
    } rows[] = {
        {"", ENGINE_OPEN_NOT_OPEN},
        {"0", ENGINE_OPEN_NOT_OPEN},
        {"2probe", ENGINE_OPEN_NOT_OPEN},
        {"97:0{\"sid\":\"a\"}", ENGINE_OPEN_NOT_OPEN},
        {"\x1f\x8b\x08", ENGINE_OPEN_NOT_OPEN},
        {"___eio[0](\"0{\\\"sid\\\":\\\"a\\\"}\");", ENGINE_OPEN_NOT_OPEN},
        {"0{}", ENGINE_OPEN_NO_SID},
        {"0{\"SID\":\"a\"}", ENGINE_OPEN_NO_SID},
        {"0{\"sid\":7}", ENGINE_OPEN_NO_SID},
        {"0{\"sid\":\"a\",\"sid\":\"b\"}", ENGINE_OPEN_NO_SID},
        {"0{\"sid\":\"\"}", ENGINE_OPEN_SID_FORM},
        {"0{\"sid\":\"a b\"}", ENGINE_OPEN_SID_FORM},
        {"0{\"sid\":\"a/b\"}", ENGINE_OPEN_SID_FORM},
        {"0{\"sid\":\"a+b\"}", ENGINE_OPEN_SID_FORM},
        {"0{\"sid\":\"\\u0061\"}", ENGINE_OPEN_SID_FORM},
        {"0{\"s\\u0069d\":\"a\"}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\"", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\"}x", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\"}\n", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"x\":NaN}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"x\":01}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"x\":1.}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"x\":\"\n\"}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"x\":\"\\q\"}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"upgrades\":\"webtransport\"}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"upgrades\":[\"web\\u0074ransport\"]}", ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"upgrades\":[\"webtransport\",\"webtransport\"]}",
         ENGINE_OPEN_BAD_JSON},
        {"0{\"sid\":\"a\",\"x\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}",
         ENGINE_OPEN_BAD_JSON},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct engine_open open;
        enum engine_open_verdict verdict = engine_open_scan(guarded(rows[i].body), &open);
        if (verdict != rows[i].verdict)
            fail_msg("%s: %s", rows[i].body, engine_open_verdict_word(verdict));
    }
}

static void test_no_part_of_a_handshake_is_taken_for_the_whole(void **state)
{
    (void)state;
    static const char body[] =
        "0{\"sid\":\"XcG9\",\"upgrades\":[\"websocket\",\"webtransport\"],"
        "\"pingInterval\":25000,\"x\":{\"y\":[1.5e3,true]}}";
    for (size_t len = 0; len < sizeof(body) - 1; len++) {
        struct engine_open open;
        char *copy = guarded_copy(body, len);
        assert_int_not_equal(engine_open_scan(slice_of(copy, len), &open),
                             ENGINE_OPEN_OK);
        assert_int_not_equal(engine_open_learn(slice_of(copy, len), scratch, &open),
                             ENGINE_OPEN_OK);
        guarded_free(copy, len);
    }
}

static void test_the_length_limits_hold(void **state)
{
    (void)state;
    static char body[ENGINE_HANDSHAKE_MAX + 2];
    struct engine_open open;
    for (size_t sid = ENGINE_UPSTREAM_SID_MAX; sid <= ENGINE_UPSTREAM_SID_MAX + 1;
         sid++) {
        memcpy(body, "0{\"sid\":\"", 9);
        memset(body + 9, 'a', sid);
        memcpy(body + 9 + sid, "\"}", 3);
        assert_int_equal(engine_open_scan(guarded(body), &open),
                         sid == ENGINE_UPSTREAM_SID_MAX ? ENGINE_OPEN_OK
                                                        : ENGINE_OPEN_SID_FORM);
    }
    memset(body, ' ', sizeof(body));
    memcpy(body, "0{\"sid\":\"a\"", 11);
    body[ENGINE_HANDSHAKE_MAX - 1] = '}';
    assert_int_equal(engine_open_scan(slice_of(body, ENGINE_HANDSHAKE_MAX), &open),
                     ENGINE_OPEN_OK);
    body[ENGINE_HANDSHAKE_MAX] = '}';
    assert_int_equal(engine_open_scan(slice_of(body, ENGINE_HANDSHAKE_MAX + 1), &open),
                     ENGINE_OPEN_TOO_LONG);
}

static void assert_learned(struct slice body, const char *sid)
{
    struct engine_open open;
    char *copy = guarded_copy(body.data, body.len);
    enum engine_open_verdict verdict =
        engine_open_learn(slice_of(copy, body.len), scratch, &open);
    if (verdict != ENGINE_OPEN_OK)
        fail_msg("%.*s: %s", SLICE_ARGS(body), engine_open_verdict_word(verdict));
    assert_slice(open.sid, sid);
    assert_int_equal(open.ping_interval, 1000);
    assert_int_equal(open.ping_timeout, 800);
}

#define OPEN3                                                                            \
    "0{\"sid\":\"JE5r.dc_f~m-gy\",\"upgrades\":[\"websocket\"],\"pingInterval\":1000,"   \
    "\"pingTimeout\":800}"
#define JSONP3                                                                           \
    "0{\\\"sid\\\":\\\"JE5r.dc_f~m-gy\\\",\\\"upgrades\\\":[\\\"websocket\\\"],"         \
    "\\\"pingInterval\\\":1000,\\\"pingTimeout\\\":800}"

static void test_older_forms_are_read(void **state)
{
    (void)state;
    assert_learned(SLICE("97:" OPEN3 "2:40"), "JE5r.dc_f~m-gy");
    assert_learned(SLICE("\x00\x09\x07\xff" OPEN3 "\x00\x02\xff"
                         "40"),
                   "JE5r.dc_f~m-gy");
    assert_learned(SLICE(OPEN3), "JE5r.dc_f~m-gy");
    assert_learned(SLICE("___eio[0](\"97:" JSONP3 "2:40\");"), "JE5r.dc_f~m-gy");
    assert_learned(SLICE("___eio[12](\"" JSONP3 "\");"), "JE5r.dc_f~m-gy");
    assert_learned(SLICE("___eio[0](\"\\u0000\x09\x07\xff" JSONP3 "\");"),
                   "JE5r.dc_f~m-gy");
    assert_learned(SLICE("___eio[0](\"\x00\x09\x07\xff" JSONP3 "\");"), "JE5r.dc_f~m-gy");
}

static void test_nothing_is_learned_from_other_bodies(void **state)
{
    (void)state;
    static const char *const bodies[] = {"",
                                         "ok",
                                         "2:40",
                                         "97:",
                                         "97",
                                         ":0{}",
                                         "999999999:0{}",
                                         "___eio[0](\"",
                                         "___eio[",
                                         "___eio[0](\"97:0{\\\"sid\\\":\\\"a\\\"}",
                                         "\x1f\x8b"};
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct engine_open open;
        if (engine_open_learn(guarded(bodies[i]), scratch, &open) == ENGINE_OPEN_OK)
            fail_msg("learned: %s", bodies[i]);
    }
}

static void test_session_unknown_is_recognised_in_both_dialects(void **state)
{
    (void)state;
    assert_true(engine_is_session_unknown(
        SLICE("{\"code\":1,\"message\":\"Session ID unknown\"}")));
    assert_true(engine_is_session_unknown(SLICE("Session ID unknown")));
    assert_true(engine_is_session_unknown(SLICE("\"Invalid session\"")));
    assert_true(engine_is_session_unknown(SLICE("\"Invalid session AAAA\"")));
    assert_true(engine_is_session_unknown(SLICE(ENGINE_SESSION_UNKNOWN_BODY)));
    assert_false(engine_is_session_unknown(
        SLICE("{\"code\":0,\"message\":\"Transport unknown\"}")));
    assert_false(engine_is_session_unknown(SLICE("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_handshakes_get_the_tag_and_nothing_else),
        cmocka_unit_test(test_intervals_are_learned),
        cmocka_unit_test(test_what_is_not_provably_right_is_left_alone),
        cmocka_unit_test(test_no_part_of_a_handshake_is_taken_for_the_whole),
        cmocka_unit_test(test_the_length_limits_hold),
        cmocka_unit_test(test_older_forms_are_read),
        cmocka_unit_test(test_nothing_is_learned_from_other_bodies),
        cmocka_unit_test(test_session_unknown_is_recognised_in_both_dialects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
