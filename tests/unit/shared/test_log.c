/*
 * Proves that a line says what was said in both formats whatever bytes it holds, that it never exceeds its
 * size, that floods are cut and told, and that a closed, full or stuck descriptor neither kills nor blocks.
 */
#include "tests/unit/unit.h"

#include "shared/log.h"
#include "shared/timing.h"

#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static int ends[2];
static char text[256 * 1024];

static int open_pipe(void **state)
{
    (void)state;
    assert_int_equal(0, pipe(ends));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    log_init(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_set_output_for_test(ends[1]);
    timing_set_for_test(SECONDS(100));
    return 0;
}

static int close_pipe(void **state)
{
    (void)state;
    log_set_output_for_test(2);
    close(ends[0]);
    close(ends[1]);
    timing_unset_for_test();
    return 0;
}

/* All that was written since the last call, NUL-terminated. */
static char *written(void)
{
    size_t len = 0;
    ssize_t got;
    while ((got = read(ends[0], text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)got;
    text[len] = '\0';
    return text;
}

static size_t line_count(const char *lines)
{
    size_t count = 0;
    for (; *lines != '\0'; lines++)
        count += *lines == '\n';
    return count;
}

static void test_text_lines_have_subject_message_and_fields(void **state)
{
    (void)state;
    struct log_subject subject = {.kind = "client", .id = 12};
    log_info(&subject, "closed", LOG_TEXT("reason", "idle"), LOG_NUMBER("bytes", -5),
             LOG_UNSIGNED("big", UINT64_MAX), LOG_SECONDS("age", 1250000),
             LOG_BOOL("clean", true), LOG_ERRNO(111), LOG_TEXT("empty", NULL),
             LOG_SLICE("odd", SLICE("a b\"\\\n=\x1b\xff\xc3\xa4\xc2\x9b")));
    char *line = written();
    assert_int_equal('Z', line[23]);
    assert_string_equal(
        " info client#12 closed reason=idle bytes=-5 big=18446744073709551615"
        " age=1.250 clean=true error=\"Connection refused\" empty=\"\""
        " odd=\"a b\\\"\\\\\\n=\\u001b\\xff\xc3\xa4\\u009b\"\n",
        line + 24);
    subject = (struct log_subject){.kind = "upstream", .name = "chat"};
    log_error(&subject, "empty");
    assert_string_equal(" error upstream:chat empty\n", written() + 24);
}

static void test_json_lines_are_one_object(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    struct log_subject subject = {.kind = "client", .id = 12, .name = "x\"y"};
    log_warn(&subject, "closed", LOG_TEXT("reason", "a\tb"), LOG_NUMBER("bytes", 7),
             LOG_BOOL("clean", false), LOG_SLICE("bad", SLICE("\xff|\0|\"")));
    char *line = written();
    assert_memory_equal("{\"time\":\"", line, 9);
    assert_string_equal(
        "\",\"level\":\"warn\",\"subject\":\"client#12:x\\\"y\",\"message\":"
        "\"closed\",\"reason\":\"a\\u0009b\",\"bytes\":7,\"clean\":false,"
        "\"bad\":\"\\\\xff|\\u0000|\\\"\"}\n",
        line + 9 + 24);
}

static void test_auto_is_json_when_not_on_a_terminal(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_INFO, LOG_FORMAT_AUTO);
    log_info(LOG_SUBJECT("main"), "ready");
    assert_int_equal('{', written()[0]);
}

static int made;

static const char *expensive(void)
{
    made++;
    return "x";
}

static void describe(struct log_line *line, const void *object)
{
    made++;
    log_line_add(line, LOG_TEXT("endpoint", object));
}

static void test_nothing_is_made_for_a_level_that_is_off(void **state)
{
    (void)state;
    struct log_subject subject = {.kind = "client", .describe = describe, .object = "e1"};
    made = 0;
    log_debug(&subject, "not now", LOG_TEXT("x", expensive()));
    assert_int_equal(0, made);
    assert_string_equal("", written());
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug(&subject, "now", LOG_TEXT("x", expensive()));
    assert_int_equal(2, made);
    assert_string_equal(" debug client now endpoint=e1 x=x\n", written() + 24);
}

static void test_long_lines_are_cut_and_stay_well_formed(void **state)
{
    (void)state;
    char *value = must_calloc(1, 10001);
    const char fills[] = {'x', '"', '\x01', '\xff'};
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        log_init(LOG_LEVEL_INFO, (enum log_format)format);
        for (size_t i = 0; i < ARRAY_LEN(fills); i++) {
            for (size_t len = 3700; len < 4200; len += 7) {
                memset(value, fills[i], len);
                value[len] = '\0';
                log_each(LOG_LEVEL_INFO, LOG_SUBJECT("main"), "long",
                         LOG_TEXT("value", value), LOG_TEXT("after", "y"),
                         LOG_TEXT("last", "z"));
                char *line = written();
                size_t line_len = strlen(line);
                assert_in_range(line_len, 1, LOG_LINE_MAX);
                assert_int_equal(1, line_count(line));
                assert_int_equal('\n', line[line_len - 1]);
                if (format == LOG_FORMAT_JSON)
                    assert_int_equal('}', line[line_len - 2]);
                /* an even number of quotes that are not escaped: every string is closed */
                size_t quotes = 0;
                for (size_t at = 0; at < line_len; at++) {
                    if (line[at] == '\\')
                        at++;
                    else
                        quotes += line[at] == '"';
                }
                assert_int_equal(0, quotes % 2);
                bool is_whole =
                    strstr(line, format == LOG_FORMAT_JSON ? "\"last\":\"z\"}"
                                                           : "last=z\n") != NULL;
                bool is_cut =
                    strstr(line, format == LOG_FORMAT_JSON ? ",\"cut\":true}"
                                                           : " cut=true\n") != NULL;
                assert_true(is_whole != is_cut);
            }
        }
    }
    free(value);
}

static void flood(int count)
{
    for (int i = 0; i < count; i++)
        log_warn(LOG_SUBJECT("main"), "flood", LOG_NUMBER("i", i));
}

static void test_a_flood_of_one_site_is_cut_and_told(void **state)
{
    (void)state;
    flood(100);
    assert_int_equal(LOG_SITE_RATE, line_count(written()));
    log_warn(LOG_SUBJECT("main"), "another site speaks");
    assert_int_equal(1, line_count(written()));
    log_tick(); /* the same second: not yet */
    assert_string_equal("", written());
    timing_advance_for_test(SECONDS(1));
    log_tick();
    assert_string_equal(" warn log lines suppressed like=flood suppressed=90\n",
                        written() + 24);
    log_tick();
    assert_string_equal("", written());
    flood(12);
    timing_advance_for_test(SECONDS(1));
    written();
    flood(1); /* the site itself tells first */
    char *lines = written();
    assert_int_equal(2, line_count(lines));
    assert_non_null(strstr(lines, "suppressed=2\n"));
}

/* How often this thread has waited for something, however busy the machine is. */
static long waits(void)
{
    struct rusage usage;
    assert_int_equal(0, getrusage(RUSAGE_THREAD, &usage));
    return usage.ru_nvcsw;
}

static void test_a_stuck_reader_costs_lines_but_no_time_and_is_told(void **state)
{
    (void)state;
    uint64_t before = log_lines_dropped();
    timing_unset_for_test();
    long before_waits = waits();
    char value[1024];
    memset(value, 'v', sizeof(value));
    for (int i = 0; i < 2000; i++)
        log_each(LOG_LEVEL_INFO, LOG_SUBJECT("main"), "much",
                 LOG_SLICE("v", slice_of(value, sizeof(value))));
    uint64_t dropped = log_lines_dropped() - before;
    assert_in_range(waits() - before_waits, 0, 200);
    assert_in_range(dropped, 1000, 1999);
    size_t lines = line_count(written());
    assert_int_equal(2000, lines + dropped);
    log_info(LOG_SUBJECT("main"), "again");
    char *told =
        must_printf(" warn log lines dropped count=%llu\n", (unsigned long long)dropped);
    assert_non_null(strstr(written(), told));
    free(told);
}

static void test_a_closed_pipe_and_a_full_disk_do_not_kill(void **state)
{
    (void)state;
    close(ends[0]);
    uint64_t before = log_lines_dropped();
    log_info(LOG_SUBJECT("main"), "nobody hears");
    assert_int_equal(1, log_lines_dropped() - before);
    int full = open("/dev/full", O_WRONLY);
    assert_true(full >= 0);
    log_set_output_for_test(full);
    log_info(LOG_SUBJECT("main"), "no room");
    log_tick();
    assert_int_equal(2, log_lines_dropped() - before);
    log_set_output_for_test(-1);
    log_info(LOG_SUBJECT("main"), "no descriptor");
    assert_int_equal(3, log_lines_dropped() - before);
    close(full);
    close(ends[1]);
    assert_int_equal(0, pipe(ends));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    log_set_output_for_test(ends[1]);
    log_tick();
    assert_non_null(strstr(written(), "lines dropped count=3\n"));
}

static void *speak(void *argument)
{
    for (int i = 0; i < 200; i++)
        log_each(LOG_LEVEL_INFO, LOG_SUBJECT("thread"), "line",
                 LOG_TEXT("who", argument));
    return NULL;
}

static void test_lines_of_threads_never_mix(void **state)
{
    (void)state;
    static char a[] = "aaaaaaaaaaaaaaaa", b[] = "bbbbbbbbbbbbbbbb";
    pthread_t threads[2];
    pthread_create(&threads[0], NULL, speak, a);
    pthread_create(&threads[1], NULL, speak, b);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    char *rest = written(), *line;
    size_t count = 0;
    while ((line = strsep(&rest, "\n")) != NULL && line[0] != '\0') {
        count++;
        assert_true(strcmp(line + 24, " info thread line who=aaaaaaaaaaaaaaaa") == 0 ||
                    strcmp(line + 24, " info thread line who=bbbbbbbbbbbbbbbb") == 0);
    }
    assert_int_equal(400, count);
}

static void enter_again(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    event_base_loop(argument,
                    EVLOOP_NONBLOCK); /* libevent warns: only one loop at a time */
}

static void test_lines_of_libevent_are_ours(void **state)
{
    (void)state;
    struct event_base *base = event_base_new();
    struct timeval now = {0, 0};
    event_base_once(base, -1, EV_TIMEOUT, enter_again, base, &now);
    event_base_dispatch(base);
    event_base_free(base);
    assert_non_null(
        strstr(written(), " warn libevent says text=\"event_base_loop: reentrant"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_pipe, close_pipe)
    const struct CMUnitTest tests[] = {
        TEST(test_text_lines_have_subject_message_and_fields),
        TEST(test_json_lines_are_one_object),
        TEST(test_auto_is_json_when_not_on_a_terminal),
        TEST(test_nothing_is_made_for_a_level_that_is_off),
        TEST(test_long_lines_are_cut_and_stay_well_formed),
        TEST(test_a_flood_of_one_site_is_cut_and_told),
        TEST(test_a_stuck_reader_costs_lines_but_no_time_and_is_told),
        TEST(test_a_closed_pipe_and_a_full_disk_do_not_kill),
        TEST(test_lines_of_threads_never_mix),
        TEST(test_lines_of_libevent_are_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
