/* Who is behind, who has stopped reading, and who is neither, told from real sockets whose peer reads or does not. */
#include "tests/unit/unit.h"

#include "broker/backlog.h"

#include "shared/net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>

#define NOW SECONDS(1000)

struct pair {
    struct backlog backlog;
    int here, there;
};

static void over_tcp(struct pair *pair)
{
    *pair = (struct pair){.here = socket(AF_INET, SOCK_STREAM, 0)};
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(0, bind(listener, (struct sockaddr *)&address, len));
    assert_int_equal(0, listen(listener, 1));
    assert_int_equal(0, getsockname(listener, (struct sockaddr *)&address, &len));
    assert_int_equal(0, connect(pair->here, (struct sockaddr *)&address, len));
    pair->there = accept(listener, NULL, NULL);
    assert_true(pair->there >= 0);
    close(listener);
    fcntl(pair->here, F_SETFL, O_NONBLOCK);
    fcntl(pair->there, F_SETFL, O_NONBLOCK);
}

static void over_unix(struct pair *pair)
{
    int fds[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    *pair = (struct pair){.here = fds[0], .there = fds[1]};
}

static void end(const struct pair *pair)
{
    close(pair->here);
    close(pair->there);
}

/* As much as the kernels take, of `most`; returns how much. */
static size_t give(struct pair *pair, size_t most)
{
    static const char bytes[64 * 1024];
    size_t given = 0;
    while (given < most) {
        size_t len = most - given < sizeof(bytes) ? most - given : sizeof(bytes);
        ssize_t wrote = send(pair->here, bytes, len, MSG_NOSIGNAL);
        if (wrote <= 0)
            break;
        given += (size_t)wrote;
    }
    pair->backlog.written += given;
    return given;
}

/* Everything that is given, and a moment for the word of it to come back. */
static void take_all(const struct pair *pair)
{
    static char bytes[256 * 1024];
    for (unsigned i = 0; i < 1000 && net_unacknowledged(pair->here) > 0; i++) {
        while (recv(pair->there, bytes, sizeof(bytes), 0) > 0) {
        }
        usleep(1000);
    }
    assert_int_equal(0, net_unacknowledged(pair->here));
}

static enum pace look(struct pair *pair, size_t queued, uint64_t now)
{
    return backlog_look(&pair->backlog, pair->here, queued, SIZE_MAX, now);
}

static void
check_that_one_who_does_not_read_is_behind_and_then_stuck(void (*open)(struct pair *))
{
    struct pair pair;
    open(&pair);
    assert_int_equal(PACE_KEEPS_UP, look(&pair, 0, NOW));
    assert_true(give(&pair, 64 * 1024 * 1024) > BACKLOG_LEAST);
    assert_int_equal(PACE_BEHIND, look(&pair, 0, NOW));
    assert_int_equal(PACE_BEHIND, look(&pair, 0, NOW + BACKLOG_STUCK_AFTER / 2));
    assert_int_equal(PACE_STUCK, look(&pair, 0, NOW + BACKLOG_STUCK_AFTER + 1));
    take_all(&pair);
    assert_int_equal(PACE_KEEPS_UP, look(&pair, 0, NOW + 2 * BACKLOG_STUCK_AFTER));
    end(&pair);
}

static void test_what_kernels_hold_counts_over_tcp(void **state UNUSED)
{
    check_that_one_who_does_not_read_is_behind_and_then_stuck(over_tcp);
}

static void test_what_kernels_hold_counts_over_a_unix_socket(void **state UNUSED)
{
    check_that_one_who_does_not_read_is_behind_and_then_stuck(over_unix);
}

static void test_what_waits_to_be_written_counts_as_well(void **state UNUSED)
{
    struct pair pair;
    over_tcp(&pair);
    assert_int_equal(PACE_KEEPS_UP, look(&pair, BACKLOG_LEAST, NOW));
    assert_int_equal(PACE_BEHIND, look(&pair, BACKLOG_LEAST + 1, NOW));
    end(&pair);
}

static void test_who_was_behind_has_to_come_down_to_the_low_mark(void **state UNUSED)
{
    struct pair pair;
    over_tcp(&pair);
    assert_int_equal(PACE_BEHIND, look(&pair, BACKLOG_LEAST + 1, NOW));
    assert_int_equal(PACE_BEHIND, look(&pair, BACKLOG_LEAST / 2 + 1, NOW));
    assert_int_equal(PACE_KEEPS_UP, look(&pair, BACKLOG_LEAST / 2, NOW));
    assert_int_equal(PACE_KEEPS_UP, look(&pair, BACKLOG_LEAST, NOW));
    end(&pair);
}

/* It is behind all the time, and reads: publishers wait for it as long as it takes. */
static void test_a_slow_reader_is_not_stuck(void **state UNUSED)
{
    struct pair pair;
    over_tcp(&pair);
    uint64_t now = NOW;
    for (unsigned i = 0; i < 20; i++) {
        give(&pair, 256 * 1024);
        assert_int_equal(PACE_BEHIND, look(&pair, BACKLOG_LEAST + 1, now));
        take_all(&pair);
        now += BACKLOG_STUCK_AFTER / 2;
    }
    end(&pair);
}

/* A burst after a quiet hour: it has had no time to read yet. */
static void test_one_who_was_idle_is_not_stuck_at_once(void **state UNUSED)
{
    struct pair pair;
    over_tcp(&pair);
    give(&pair, 1000);
    take_all(&pair);
    assert_int_equal(PACE_KEEPS_UP, look(&pair, 0, NOW));
    give(&pair, 2 * BACKLOG_LEAST);
    assert_int_equal(PACE_BEHIND, look(&pair, 0, NOW + SECONDS(3600)));
    end(&pair);
}

/* Who takes more in a millisecond may have more ahead, so that it is never idle while publishers wait. */
static void test_a_fast_reader_may_have_more_ahead(void **state UNUSED)
{
    struct pair pair;
    over_tcp(&pair);
    uint64_t now = NOW;
    for (unsigned i = 0; i < 20; i++) {
        give(&pair, 2 * BACKLOG_LEAST);
        take_all(&pair);
        look(&pair, BACKLOG_MOST + 1, now += MILLISECONDS(1));
    }
    assert_int_equal(PACE_KEEPS_UP, look(&pair, BACKLOG_LEAST, now));
    assert_int_equal(PACE_KEEPS_UP, look(&pair, 2 * BACKLOG_LEAST, now));
    assert_int_equal(PACE_BEHIND, look(&pair, BACKLOG_MOST + 1, now));
    end(&pair);
}

/* Clocks of callers differ by a turn of the loop. */
static void test_an_earlier_time_than_the_last_is_no_harm(void **state UNUSED)
{
    struct pair pair;
    over_tcp(&pair);
    assert_int_equal(PACE_BEHIND, look(&pair, BACKLOG_LEAST + 1, NOW));
    assert_int_equal(PACE_BEHIND, look(&pair, BACKLOG_LEAST + 1, NOW - 1));
    end(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_kernels_hold_counts_over_tcp),
        cmocka_unit_test(test_what_kernels_hold_counts_over_a_unix_socket),
        cmocka_unit_test(test_what_waits_to_be_written_counts_as_well),
        cmocka_unit_test(test_who_was_behind_has_to_come_down_to_the_low_mark),
        cmocka_unit_test(test_a_slow_reader_is_not_stuck),
        cmocka_unit_test(test_one_who_was_idle_is_not_stuck_at_once),
        cmocka_unit_test(test_a_fast_reader_may_have_more_ahead),
        cmocka_unit_test(test_an_earlier_time_than_the_last_is_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
