/* Proves what passes a probe and what fails it, however its answer comes, and that only rows of results are told. */
#include "tests/unit/unit.h"

#include "tests/unit/proxy/answer_server.h"

#include "shared/log.h"

#include "proxy/discovery_static.h"
#include "proxy/endpoint_list.h"
#include "proxy/endpoint_set.h"
#include "proxy/health_check.h"
#include "proxy/proxy_config.h"
#include "proxy/upstream_set.h"

#include <stdlib.h>

static const struct file_keys keys = {.count = 1, .keys = {{'k', {1}}}};

struct rig {
    struct event_base *base;
    struct answer_server server;
    struct proxy_config *config;
    const struct upstream_config *upstream;
    struct endpoint_list *list;
    struct endpoint_set *set;
    struct health_checks *checks;
    unsigned verdicts, refusals;
    bool passes;
};

static void on_verdict(void *owner, struct slice identity, unsigned port, bool passes)
{
    struct rig *rig = owner;
    assert_true(slice_equals(identity, SLICE("a")));
    assert_int_equal(port, address_port(&rig->server.address));
    rig->verdicts++;
    rig->passes = passes;
}

static void on_refusing(void *owner, struct slice identity, unsigned port)
{
    struct rig *rig = owner;
    assert_true(slice_equals(identity, SLICE("a")));
    assert_int_equal(port, address_port(&rig->server.address));
    rig->refusals++;
}

static const struct health_callbacks callbacks = {.on_verdict = on_verdict,
                                                  .on_refusing = on_refusing};

/* Makes a set of the list, as discovery does after each change. */
static void apply_list(struct rig *rig)
{
    size_t len;
    const struct endpoint_spec *specs = endpoint_list_specs(rig->list, &len);
    struct endpoint_set *set =
        upstream_set_new(rig->upstream, &keys, specs, len, rig->set, timing_now());
    if (rig->set != NULL)
        endpoint_set_unref(rig->set);
    rig->set = set;
    health_checks_apply(rig->checks, rig->set, rig->list);
}

/* One endpoint, a, at the server; `check`: what stands between the braces of health_check. */
static void rig_start(struct rig *rig, const char *check)
{
    char text[ADDRESS_TEXT_SIZE], error[256];
    *rig = (struct rig){.base = event_base_new(), .passes = true};
    answer_server_start(&rig->server, rig->base);
    char *yaml = must_printf("listeners: [{address: \"127.0.0.1:1\"}]\n"
                             "routes: [{upstream: chat}]\n"
                             "upstreams: [{name: chat, health_check: {%s},"
                             " discovery: {static: [{address: \"%s\", id: a}]}}]\n",
                             check, address_text(&rig->server.address, text));
    rig->config = proxy_config_parse("test", slice_from_text(yaml), stderr);
    free(yaml);
    assert_non_null(rig->config);
    rig->upstream = proxy_config_upstream(rig->config, 0);
    struct endpoint_list_options options = {.vanished = SECONDS(60)};
    rig->list = endpoint_list_new("chat", &options);
    struct endpoint_spec spec;
    assert_true(discovery_static_list(rig->upstream, &spec, error, sizeof error));
    endpoint_list_apply(rig->list, &spec, 1, timing_now());
    rig->checks = health_checks_new(rig->base, rig->upstream, &callbacks, rig);
    apply_list(rig);
}

static void rig_stop(struct rig *rig)
{
    health_checks_free(rig->checks);
    endpoint_set_unref(rig->set);
    endpoint_list_free(rig->list);
    proxy_config_unref(rig->config);
    answer_server_stop(&rig->server);
    event_base_free(rig->base);
}

static void say(struct rig *rig, const char *text, enum answer_end end)
{
    rig->server.text = slice_from_text(text);
    rig->server.end = end;
}

/* Until *counter is `value`; it must, at last. */
static void turn_until(struct rig *rig, const unsigned *counter, unsigned value)
{
    uint64_t began = timing_now();
    while (*counter < value) {
        assert_true(timing_now() - began < SECONDS(60));
        event_base_loop(rig->base, EVLOOP_ONCE);
    }
    assert_int_equal(*counter, value);
}

#define PATIENT                                                                          \
    "type: http, path: /healthz, interval: 50ms, timeout: 60s, rise: 1, fall: 1"
#define HASTY                                                                            \
    "type: http, path: /healthz, interval: 50ms, timeout: 60ms, rise: 1, fall: 1"

/* ---- answers ---- */

static const struct answer {
    const char *text;
    bool passes;
} answers[] = {
    {"HTTP/1.1 200 OK\r\n\r\n", true},
    {"HTTP/1.1 200", true}, /* more than the status is not waited for */
    {"HTTP/1.0 204 No Content\r\n\r\n", true},
    {"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", true},
    {"HTTP/1.1 399 Odd\r\n\r\n", true},
    {"HTTP/1.1 199 Odd\r\n\r\n", false},
    {"HTTP/1.1 400 Bad Request\r\n\r\n", false},
    {"HTTP/1.1 503 Service Unavailable\r\n\r\n", false},
    {"HTTP/1.1 999 Odd\r\n\r\n", false},
    {"HTTP/1.1 20", false},
    {"HTTP/1.1 2 0 OK\r\n\r\n", false},
    {"HTTP/1.1  200 OK\r\n\r\n", false},
    {"HTTP/1.1 +20 OK\r\n\r\n", false},
    {"HTTP/1.1 2\0030 OK\r\n\r\n", false},
    {"HTTP/2 200 OK\r\n\r\n", false},
    {"http/1.1 200 OK\r\n\r\n", false},
    {"\r\nHTTP/1.1 200 OK\r\n\r\n", false},
    {"SSH-2.0-OpenSSH_9.2\r\n", false},
    {"", false},
};

/* What is to pass must take a failing verdict back, what is to fail a passing one. */
static void check_answer(const struct answer *answer, size_t piece)
{
    struct rig rig;
    unsigned told = 1;
    rig_start(&rig, PATIENT);
    rig.server.piece = piece;
    say(&rig, answer->passes ? "" : answer->text, ANSWER_CLOSES);
    turn_until(&rig, &rig.verdicts, told);
    assert_false(rig.passes);
    if (answer->passes) {
        say(&rig, answer->text, ANSWER_STAYS);
        turn_until(&rig, &rig.verdicts, ++told);
        assert_true(rig.passes);
    }
    assert_int_equal(rig.server.accepted, told); /* one probe, one result */
    rig_stop(&rig);
}

static void test_an_answer_passes_or_fails_in_whatever_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        check_answer(&answers[i], 1);
        check_answer(&answers[i], SIZE_MAX);
    }
}

static void test_the_question_names_path_and_host(void **state)
{
    (void)state;
    struct rig rig;
    char text[ADDRESS_TEXT_SIZE];
    rig_start(&rig, PATIENT);
    say(&rig, "HTTP/1.1 500 No\r\n\r\n", ANSWER_CLOSES);
    turn_until(&rig, &rig.verdicts, 1);
    char *wanted = must_printf("GET /healthz HTTP/1.1\r\nHost: %s\r\n",
                               address_text(&rig.server.address, text));
    assert_ptr_equal(strstr(rig.server.request, wanted), rig.server.request);
    free(wanted);
    rig_stop(&rig);
}

static void test_silence_and_a_trickle_fail_when_the_time_is_over(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct rig rig;
        rig_start(&rig, HASTY);
        say(&rig, texts[i], ANSWER_STAYS);
        if (i == 2) { /* a byte comes often enough, the twelfth never in time */
            rig.server.pause = MILLISECONDS(20);
            rig.server.piece = 1;
        }
        turn_until(&rig, &rig.verdicts, 1);
        assert_false(rig.passes);
        rig_stop(&rig);
    }
}

/* ---- rows ---- */

static void test_only_a_row_of_equal_results_is_told(void **state)
{
    (void)state;
    static const struct {
        bool passes;
        unsigned told; /* verdicts before this probe ends */
    } probes[] = {
        /* the first that passes is reported, too */
        {false, 0}, {false, 0}, {true, 0},  {false, 1}, {false, 1}, {false, 1},
        {true, 2},  {false, 2}, {false, 2}, {true, 2},  {true, 2},  {true, 3},
    };
    struct rig rig;
    rig_start(&rig, "type: http, interval: 50ms, timeout: 60s, rise: 2, fall: 3");
    for (unsigned i = 0; i < ARRAY_LEN(probes); i++) {
        turn_until(&rig, &rig.server.accepted, i + 1);
        assert_int_equal(rig.verdicts, probes[i].told);
        say(&rig,
            probes[i].passes ? "HTTP/1.1 200 OK\r\n\r\n" : "HTTP/1.1 500 No\r\n\r\n",
            ANSWER_CLOSES);
    }
    assert_true(rig.passes);
    rig_stop(&rig);
}

static void listen_again(struct rig *rig)
{
    char why[NET_WHY_SIZE];
    struct net_listen_options options = {0};
    rig->server.listener = net_listen(&rig->server.address, &options, why);
    assert_true(rig->server.listener >= 0);
    event_assign(&rig->server.accept, rig->base, rig->server.listener,
                 EV_READ | EV_PERSIST, answer_server_on_accept, &rig->server);
    event_add(&rig->server.accept, NULL);
}

static void stop_listening(struct rig *rig)
{
    event_del(&rig->server.accept);
    net_listen_close(rig->server.listener);
}

static void test_tcp_asks_only_whether_it_accepts(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, "type: tcp, interval: 50ms, timeout: 60s, rise: 1, fall: 1");
    stop_listening(&rig);
    turn_until(&rig, &rig.verdicts, 1);
    assert_false(rig.passes);
    listen_again(&rig);
    turn_until(&rig, &rig.verdicts, 2);
    assert_true(rig.passes);
    assert_int_equal(rig.server.request_len, 0);
    rig_stop(&rig);
}

static void test_a_vanished_endpoint_is_gone_after_two_refusals(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, "type: none");
    endpoint_list_apply(rig.list, NULL, 0, timing_now());
    endpoint_list_tick(rig.list, timing_now() + 1);
    apply_list(&rig);
    assert_true(endpoint_list_is_vanished(rig.list, 0));
    turn_until(&rig, &rig.server.accepted, 1); /* it accepts still */
    assert_int_equal(rig.refusals, 0);
    stop_listening(&rig);
    uint64_t began = timing_now();
    turn_until(&rig, &rig.refusals, 1);
    assert_true(timing_now() - began >= MILLISECONDS(800)); /* not after the first */
    assert_int_equal(rig.verdicts, 0);
    listen_again(&rig);
    rig_stop(&rig);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_passes_or_fails_in_whatever_pieces),
        cmocka_unit_test(test_the_question_names_path_and_host),
        cmocka_unit_test(test_silence_and_a_trickle_fail_when_the_time_is_over),
        cmocka_unit_test(test_only_a_row_of_equal_results_is_told),
        cmocka_unit_test(test_tcp_asks_only_whether_it_accepts),
        cmocka_unit_test(test_a_vanished_endpoint_is_gone_after_two_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
