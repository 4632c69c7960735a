/*
 * Proves that verbs reach their handlers with their words, that answers come back whole, now or later, and that
 * clients which misbehave or leave harm nobody. The daemon's side runs in a thread.
 */
#include "tests/unit/unit.h"

#include "shared/ctl.h"
#include "shared/lifecycle.h"
#include "shared/log.h"
#include "shared/timing.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>

static char folder[64], path[96];
static struct event_base *base;
static struct ctl *ctl;
static pthread_t thread;
static atomic_int finished_late;

static void do_echo(void *argument, struct ctl_call *call, int count, char **arguments)
{
    (void)argument;
    evbuffer_add_printf(ctl_call_out(call), "json=%d", ctl_call_wants_json(call));
    for (int i = 0; i < count; i++)
        evbuffer_add_printf(ctl_call_out(call), " [%s]", arguments[i]);
    evbuffer_add_printf(ctl_call_out(call), "\n");
    ctl_finish(call, true);
}

static void do_large(void *argument, struct ctl_call *call, int count, char **arguments)
{
    (void)argument;
    (void)count;
    (void)arguments;
    for (int i = 0; i < 100000; i++)
        evbuffer_add_printf(ctl_call_out(call), "line %06d\n", i);
    ctl_finish(call, true);
}

static void do_refuse(void *argument, struct ctl_call *call, int count, char **arguments)
{
    (void)argument;
    (void)count;
    ctl_refuse(call, "no endpoint %s", arguments[0]);
}

static void finish_late(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    evbuffer_add_printf(ctl_call_out(argument), "late\n");
    ctl_finish(argument, true);
    finished_late++;
}

static void do_late(void *argument, struct ctl_call *call, int count, char **arguments)
{
    (void)argument;
    (void)count;
    (void)arguments;
    struct timeval wait = timing_to_timeval(MILLISECONDS(100));
    event_base_once(base, -1, EV_TIMEOUT, finish_late, call, &wait);
}

static const struct ctl_verb verbs[] = {
    {"echo", "[WORD]...", "Says the words.", 0, 3, do_echo},
    {"large", "", "Says much.", 0, 0, do_large},
    {"refuse", "ENDPOINT", "Refuses.", 1, 1, do_refuse},
    {"late", "", "Answers later.", 0, 0, do_late},
};

static void *run(void *argument)
{
    (void)argument;
    event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static int begin(void **state)
{
    (void)state;
    char why[NET_WHY_SIZE];
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    strcpy(folder, "/tmp/sidrail-ctl-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/t.sock", folder);
    evthread_use_pthreads();
    base = event_base_new();
    ctl = ctl_new(base, verbs, ARRAY_LEN(verbs), NULL);
    assert_true(ctl_listen(ctl, path, why));
    pthread_create(&thread, NULL, run, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    event_base_loopexit(base, NULL); /* also when the loop has not begun yet */
    pthread_join(thread, NULL);
    ctl_free(ctl);
    event_base_free(base);
    return rmdir(folder);
}

/* Runs `ctl WORDS`; *said is what went to out or errors. */
static int tell(char **said, const char *first, const char *second, const char *third)
{
    char *words[3];
    int count = 0;
    const char *all[] = {first, second, third};
    for (int i = 0; i < 3; i++)
        if (all[i] != NULL)
            words[count++] = must_strdup(all[i]);
    size_t len;
    FILE *out = open_memstream(said, &len);
    int code = ctl_client(path, "proxy", verbs, ARRAY_LEN(verbs), count, words, out, out);
    fclose(out);
    for (int i = 0; i < count; i++)
        free(words[i]);
    return code;
}

static void expect(int code, const char *expected, const char *first, const char *second,
                   const char *third)
{
    char *said;
    assert_int_equal(code, tell(&said, first, second, third));
    assert_string_equal(expected, said);
    free(said);
}

static void test_words_reach_the_handler_and_answers_come_back(void **state)
{
    (void)state;
    expect(EXIT_CODE_WELL, "json=0\n", "echo", NULL, NULL);
    expect(EXIT_CODE_WELL, "json=1 [10.0.0.7:5000]\n", "echo", "10.0.0.7:5000", "--json");
    expect(EXIT_CODE_WELL, "json=1 [--upstream]\n", "--json", "echo", "--upstream");
    expect(EXIT_CODE_START, "no endpoint e1\n", "refuse", "e1", NULL);
    expect(EXIT_CODE_START, "usage: refuse ENDPOINT\n", "refuse", NULL, NULL);
    expect(EXIT_CODE_START, "usage: large \n", "large", "x", NULL);
    expect(EXIT_CODE_WELL, "late\n", "late", NULL, NULL);
}

static void test_large_answers_arrive_whole(void **state)
{
    (void)state;
    char *said;
    assert_int_equal(EXIT_CODE_WELL, tell(&said, "large", NULL, NULL));
    assert_int_equal(100000 * strlen("line 000000\n"), strlen(said));
    assert_string_equal("line 099999\n", said + strlen(said) - 12);
    free(said);
}

static void test_mistakes_of_usage_are_told_without_a_daemon(void **state)
{
    (void)state;
    char *said;
    expect(EXIT_CODE_USAGE, "unknown verb \"drian\"; try help\n", "drian", NULL, NULL);
    expect(EXIT_CODE_USAGE, "an argument is empty or holds a space\n", "echo", "a b",
           NULL);
    assert_int_equal(EXIT_CODE_WELL, tell(&said, "help", NULL, NULL));
    assert_non_null(strstr(said, "  refuse ENDPOINT                  Refuses.\n"));
    free(said);
    assert_int_equal(EXIT_CODE_USAGE, tell(&said, NULL, NULL, NULL));
    free(said);
    char keep[sizeof(path)];
    strcpy(keep, path);
    strcat(path, "x");
    assert_int_equal(EXIT_CODE_START, tell(&said, "echo", NULL, NULL));
    assert_non_null(strstr(said, "x: No such file or directory\n"));
    strcpy(path, keep);
    free(said);
}

static int dial(void)
{
    struct address address;
    const char *why;
    char *text = must_printf("unix:%s", path);
    assert_true(address_parse(slice_from_text(text), &address, &why));
    free(text);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(0, connect(fd, &address.socket.any, address.len));
    return fd;
}

static void expect_raw(const char *bytes, size_t len, const char *expected)
{
    char answer[256] = "";
    size_t got_all = 0;
    ssize_t got;
    int fd = dial();
    assert_int_equal(len, send(fd, bytes, len, MSG_NOSIGNAL));
    while ((got = read(fd, answer + got_all, sizeof(answer) - 1 - got_all)) > 0)
        got_all += (size_t)got;
    assert_string_equal(expected, answer);
    close(fd);
}

static void test_odd_lines_are_answered_or_dropped(void **state)
{
    (void)state;
    char *long_line = must_calloc(1, 10000);
    memset(long_line, 'x', 9999);
    expect_raw("\n", 1, "error\nunknown verb; try help\n");
    expect_raw("nothing\n", 8, "error\nunknown verb; try help\n");
    expect_raw("echo a b c d\n", 13, "error\nusage: echo [WORD]...\n");
    expect_raw("  echo   a\nrest\n", 16, "ok\njson=0 [a]\n");
    expect_raw("ec\0ho\n", 6, "");
    expect_raw(long_line, 9999, "");
    expect_raw("e e e e e e e e e e e e e e e e e e e e\n", 40,
               "error\nmore than 16 arguments\n");
    free(long_line);
}

static void test_a_client_that_leaves_takes_nothing_with_it(void **state)
{
    (void)state;
    finished_late = 0;
    for (int i = 0; i < 3; i++) {
        int fd = dial();
        assert_int_equal(5, write(fd, "late\n", 5));
        close(fd);
    }
    int silent[40];
    for (size_t i = 0; i < ARRAY_LEN(silent); i++)
        silent[i] = dial();
    for (size_t i = 0; i < ARRAY_LEN(silent); i++)
        close(silent[i]);
    for (int i = 0; i < 500 && finished_late < 3; i++)
        usleep(10000);
    assert_int_equal(3, finished_late);
    expect(EXIT_CODE_WELL, "json=0\n", "echo", NULL, NULL);
}

static void test_a_daemon_that_is_busy_is_reported(void **state)
{
    (void)state;
    int silent[40];
    for (size_t i = 0; i < ARRAY_LEN(silent); i++)
        silent[i] = dial();
    void (*before)(int) = signal(SIGPIPE, SIG_DFL); /* as in the program */
    for (int i = 0; i < 100; i++) {
        char *said;
        assert_int_equal(EXIT_CODE_START, tell(&said, "echo", NULL, NULL));
        assert_string_equal(said, "the daemon closed the connection without an answer\n");
        free(said);
    }
    signal(SIGPIPE, before);
    for (size_t i = 0; i < ARRAY_LEN(silent); i++)
        close(silent[i]);
}

static void test_the_socket_is_for_its_owner_only(void **state)
{
    (void)state;
    struct stat found;
    assert_int_equal(0, stat(path, &found));
    assert_int_equal(0600, found.st_mode & 0777);
    char why[NET_WHY_SIZE];
    struct ctl *second = ctl_new(base, verbs, ARRAY_LEN(verbs), NULL);
    assert_false(ctl_listen(second, path, why));
    assert_non_null(strstr(why, "t.sock: another process listens on it"));
    ctl_free(second);
}

static void test_the_default_path_lies_in_a_folder_that_can_be_written(void **state)
{
    (void)state;
    setenv("XDG_RUNTIME_DIR", folder, 1);
    char *found = ctl_default_path("proxy");
    assert_non_null(found);
    bool is_system = strcmp(found, "/run/sidrail/proxy.sock") == 0;
    char *own = must_printf("%s/sidrail/proxy.sock", folder);
    assert_true(is_system || strcmp(found, own) == 0);
    char *made = must_printf("%s/sidrail", folder);
    rmdir(made);
    free(made);
    free(own);
    free(found);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_words_reach_the_handler_and_answers_come_back),
        TEST(test_large_answers_arrive_whole),
        TEST(test_mistakes_of_usage_are_told_without_a_daemon),
        TEST(test_odd_lines_are_answered_or_dropped),
        TEST(test_a_client_that_leaves_takes_nothing_with_it),
        TEST(test_a_daemon_that_is_busy_is_reported),
        TEST(test_the_socket_is_for_its_owner_only),
        TEST(test_the_default_path_lies_in_a_folder_that_can_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
