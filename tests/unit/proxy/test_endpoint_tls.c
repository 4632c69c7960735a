/*
 * Proves which name an endpoint is asked for, and that files which change, or are bad, do what the header says.
 */
#include "tests/unit/unit.h"

#include "tests/unit/certificate.h"
#include "tests/unit/folder.h"

#include "shared/stream.h"

#include "proxy/endpoint.h"
#include "proxy/endpoint_tls.h"
#include "proxy/proxy_config.h"

#include <event2/event.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static char ca[300], cert[300], key[300], none[1] = "";

static int set_up(void **state)
{
    (void)state;
    folder_begin();
    certificate_make(folder, "one", "DNS:one.test");
    snprintf(ca, sizeof ca, "%s/ca.crt", folder);
    snprintf(cert, sizeof cert, "%s/one.crt", folder);
    snprintf(key, sizeof key, "%s/one.key", folder);
    return 0;
}

static void copy(const char *from, const char *to)
{
    char command[1300];
    snprintf(command, sizeof command, "cp %s %s.next && mv %s.next %s", from, to, to, to);
    assert_int_equal(0, system(command));
}

static struct upstream_config config_of(char *server_name)
{
    static char name[] = "chat";
    return (struct upstream_config){.name = name,
                                    .has_tls = true,
                                    .tls = {.ca = ca,
                                            .cert = cert,
                                            .key = key,
                                            .server_name = server_name,
                                            .verify = true}};
}

static void count(void *argument)
{
    ++*(int *)argument;
}

/* The name that a handshake with the endpoint would send; NULL: none. */
static const char *name_sent(char *server_name, char *address)
{
    static char name[300];
    struct upstream_config config = config_of(server_name);
    char *error;
    struct endpoint_tls *tls = endpoint_tls_read(&config, &error);
    assert_non_null(tls);
    struct endpoint endpoint = {.address_text = address};
    int fds[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    struct stream stream;
    stream_init(&stream, fds[0]);
    endpoint_tls_start(tls, &endpoint, &stream);
    endpoint_tls_unref(tls); /* the stream keeps what it needs */
    const char *sent = SSL_get_servername(stream.ssl, TLSEXT_NAMETYPE_host_name);
    if (sent != NULL)
        snprintf(name, sizeof name, "%s", sent);
    assert_int_equal(STREAM_WANTS_READ, stream_handshake(&stream, NULL));
    stream_close(&stream);
    close(fds[1]);
    return sent != NULL ? name : NULL;
}

static void test_the_name_is_the_given_one_else_the_host_of_the_address(void **state)
{
    (void)state;
    copy(cert, ca);
    char given[] = "given.test", host[] = "pod.test:8443", v4[] = "10.0.0.1:443",
         v6[] = "[fd00::1]:443", unix_path[] = "unix:/run/sio/w0.sock";
    assert_string_equal("given.test", name_sent(given, v4));
    assert_string_equal("pod.test", name_sent(none, host));
    assert_string_equal("localhost", name_sent(none, unix_path));
    assert_null(name_sent(none, v4));
    assert_null(name_sent(none, v6));
}

static void turn(struct event_base *base, const int *calls, int wanted)
{
    for (int i = 0; i < 100 && *calls < wanted; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        usleep(20000);
    }
}

static void test_files_that_change_make_a_new_one_and_bad_ones_none(void **state)
{
    (void)state;
    copy(cert, ca);
    struct event_base *base = event_base_new();
    struct upstream_config config = config_of(none);
    int calls = 0;
    char *error;
    struct endpoint_tls *first = endpoint_tls_read(&config, &error);
    assert_non_null(first);
    struct endpoint_tls_files *files =
        endpoint_tls_files_new(base, &config, endpoint_tls_ref(first), count, &calls);
    assert_ptr_equal(first, endpoint_tls_newest(files));
    assert_int_equal(2, atomic_load(&first->holders));

    copy("/etc/hostname", ca);
    turn(base, &calls, 1);
    assert_int_equal(0, calls);
    assert_ptr_equal(first, endpoint_tls_newest(files));

    copy(cert, ca);
    turn(base, &calls, 1);
    assert_int_equal(1, calls);
    assert_ptr_not_equal(first, endpoint_tls_newest(files));
    assert_int_equal(1, atomic_load(&first->holders));
    endpoint_tls_unref(first);
    endpoint_tls_files_free(files);
    event_base_free(base);
}

static void test_files_that_are_bad_at_the_start_are_named(void **state)
{
    (void)state;
    struct upstream_config config = config_of(none);
    char missing[] = "/nowhere/ca.crt";
    config.tls.ca = missing;
    char *error = NULL;
    assert_null(endpoint_tls_read(&config, &error));
    assert_non_null(strstr(error, missing));
    free(error);
    endpoint_tls_files_free(NULL);
    assert_null(endpoint_tls_newest(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_name_is_the_given_one_else_the_host_of_the_address),
        cmocka_unit_test(test_files_that_change_make_a_new_one_and_bad_ones_none),
        cmocka_unit_test(test_files_that_are_bad_at_the_start_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, folder_end);
}
