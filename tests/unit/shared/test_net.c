/* Proves that sockets listen, refuse, connect and clean up as promised; ports are the kernel's choice. */
#include "tests/unit/unit.h"

#include "shared/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/sidrail-net-XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder); /* fails when a socket file was left behind */
}

static struct address parsed(const char *text)
{
    struct address address;
    const char *why;
    assert_true(address_parse(slice_from_text(text), &address, &why));
    return address;
}

static struct address in_folder(const char *name, char path[128])
{
    char text[160];
    snprintf(path, 128, "%s/%s", folder, name);
    snprintf(text, sizeof(text), "unix:%s", path);
    return parsed(text);
}

static int must_listen(const struct address *address, struct net_listen_options options)
{
    char why[NET_WHY_SIZE];
    int fd = net_listen(address, &options, why);
    if (fd < 0)
        fail_msg("%s", why);
    return fd;
}

static int must_connect(const struct address *address)
{
    bool in_progress;
    int fd = net_connect(address, &in_progress);
    assert_true(fd >= 0);
    struct pollfd wish = {.fd = fd, .events = POLLOUT};
    if (in_progress)
        assert_int_equal(1, poll(&wish, 1, 5000));
    assert_int_equal(0, net_connect_result(fd));
    return fd;
}

static int option_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);
    getsockopt(fd, level, name, &value, &len);
    return value;
}

static void test_tcp_sockets_listen_and_connect(void **state)
{
    (void)state;
    const char *texts[] = {"127.0.0.1:0", "[::1]:0"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct address address = parsed(texts[i]);
        int server = must_listen(&address, (struct net_listen_options){0});
        address = net_local_address(server);
        assert_true(address_port(&address) > 0);
        assert_true(fcntl(server, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(server, F_GETFD) & FD_CLOEXEC);
        int client = must_connect(&address);
        net_set_no_delay(client);
        net_set_keep_alive(client, 60000000);
        net_set_user_timeout(client, 30000000);
        assert_int_equal(1, option_of(client, IPPROTO_TCP, TCP_NODELAY));
        assert_int_equal(1, option_of(client, SOL_SOCKET, SO_KEEPALIVE));
        assert_int_equal(60, option_of(client, IPPROTO_TCP, TCP_KEEPIDLE));
        assert_int_equal(20, option_of(client, IPPROTO_TCP, TCP_KEEPINTVL));
        assert_int_equal(30000, option_of(client, IPPROTO_TCP, TCP_USER_TIMEOUT));
        net_set_keep_alive(client, 0);
        assert_int_equal(0, option_of(client, SOL_SOCKET, SO_KEEPALIVE));
        close(client);
        net_listen_close(server);
    }
}

static void test_a_port_in_use_is_an_error_unless_shared(void **state)
{
    (void)state;
    char why[NET_WHY_SIZE];
    struct address address = parsed("127.0.0.1:0");
    struct net_listen_options alone = {0}, shared = {.reuse_port = true};
    int first = must_listen(&address, shared);
    address = net_local_address(first);
    int second = must_listen(&address, shared);
    assert_int_equal(-1, net_listen(&address, &alone, why));
    assert_string_equal("Address already in use", why);
    net_listen_close(first);
    net_listen_close(second);
    address = parsed("192.0.2.1:0");
    assert_int_equal(-1, net_listen(&address, &alone, why));
    assert_string_equal("Cannot assign requested address", why);
}

static void test_any_v6_takes_v4_too(void **state)
{
    (void)state;
    struct address any = parsed("[::]:0");
    int server = must_listen(&any, (struct net_listen_options){0});
    struct address bound = net_local_address(server);
    char text[64];
    snprintf(text, sizeof(text), "127.0.0.1:%u", address_port(&bound));
    struct address v4 = parsed(text);
    close(must_connect(&v4));
    net_listen_close(server);
}

static void test_unix_sockets_have_their_mode_and_go_with_their_owner(void **state)
{
    (void)state;
    char path[128], why[NET_WHY_SIZE];
    struct stat found;
    struct address address = in_folder("a.sock", path);
    int server = must_listen(&address, (struct net_listen_options){.mode = 0600});
    assert_int_equal(0, stat(path, &found));
    assert_int_equal(0600, found.st_mode & 0777);
    close(must_connect(&address));

    assert_int_equal(-1, net_listen(&address, &(struct net_listen_options){0}, why));
    assert_string_equal("another process listens on it", why);
    net_set_no_delay(server); /* nothing, silently */
    net_listen_close(server);
    assert_int_equal(-1, stat(path, &found));
}

static void test_a_stale_socket_file_is_replaced_and_other_files_are_not(void **state)
{
    (void)state;
    char path[128], why[NET_WHY_SIZE];
    struct stat found;
    struct address address = in_folder("b.sock", path);
    net_listen_release(must_listen(&address, (struct net_listen_options){0}));
    assert_int_equal(0, stat(path, &found)); /* left, like by a killed process */
    bool in_progress;
    assert_int_equal(-1, net_connect(&address, &in_progress));
    assert_int_equal(ECONNREFUSED, errno);
    int server = must_listen(&address, (struct net_listen_options){0});
    close(must_connect(&address));
    net_listen_close(server);

    FILE *file = fopen(path, "w");
    fclose(file);
    assert_int_equal(-1, net_listen(&address, &(struct net_listen_options){0}, why));
    assert_string_equal("the path exists and is not a socket", why);
    unlink(path);
    struct address nowhere = parsed("unix:/nonexistent/x.sock");
    assert_int_equal(-1, net_listen(&nowhere, &(struct net_listen_options){0}, why));
    assert_string_equal("No such file or directory", why);
}

static void test_closing_leaves_the_file_of_a_successor(void **state)
{
    (void)state;
    char path[128];
    struct stat found;
    struct address address = in_folder("c.sock", path);
    int old = must_listen(&address, (struct net_listen_options){0});
    unlink(path);
    int successor = must_listen(&address, (struct net_listen_options){0});
    net_listen_close(old);
    assert_int_equal(0, stat(path, &found));
    net_listen_close(successor);
    assert_int_equal(-1, stat(path, &found));
}

static void test_a_refused_connect_says_so(void **state)
{
    (void)state;
    struct address address = parsed("127.0.0.1:0");
    int server = must_listen(&address, (struct net_listen_options){0});
    address = net_local_address(server);
    net_listen_close(server);
    bool in_progress;
    int fd = net_connect(&address, &in_progress);
    if (fd >= 0) {
        struct pollfd wish = {.fd = fd, .events = POLLOUT};
        poll(&wish, 1, 5000);
        assert_int_equal(ECONNREFUSED, net_connect_result(fd));
        close(fd);
    } else {
        assert_int_equal(ECONNREFUSED, errno);
    }
}

static void test_the_descriptor_limit_is_raised(void **state)
{
    (void)state;
    struct rlimit limit;
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &limit));
    struct rlimit low = {256, limit.rlim_max};
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &low));
    assert_int_equal(limit.rlim_max, net_raise_descriptor_limit());
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &limit));
    assert_int_equal(limit.rlim_max, limit.rlim_cur);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp_sockets_listen_and_connect),
        cmocka_unit_test(test_a_port_in_use_is_an_error_unless_shared),
        cmocka_unit_test(test_any_v6_takes_v4_too),
        cmocka_unit_test(test_unix_sockets_have_their_mode_and_go_with_their_owner),
        cmocka_unit_test(test_a_stale_socket_file_is_replaced_and_other_files_are_not),
        cmocka_unit_test(test_closing_leaves_the_file_of_a_successor),
        cmocka_unit_test(test_a_refused_connect_says_so),
        cmocka_unit_test(test_the_descriptor_limit_is_raised),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
