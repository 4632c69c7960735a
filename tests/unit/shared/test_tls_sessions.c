/*
 * Proves that a TLS session is resumed only where a full handshake would verify the same: across listeners that share
 * ticket keys, across a changed CA file, after the client's certificate has expired; with TLS 1.2 and 1.3, and
 * behind a server name that switches the certificate.
 */
#include "tests/unit/unit.h"

#include "tests/unit/certificate.h"
#include "tests/unit/folder.h"

#include "shared/stream.h"
#include "shared/tls.h"

#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static time_t ahead; /* so far the clock of OpenSSL is ahead */

/* libcrypto's calls bind to this one. */
time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time_t seconds = now.tv_sec + ahead;
    if (out != NULL)
        *out = seconds;
    return seconds;
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    folder_begin();
    certificate_make(folder, "one", "DNS:one.test");
    certificate_make(folder, "two", "DNS:two.test");
    certificate_make(folder, "alice", "DNS:alice.test"); /* each is its own authority */
    certificate_make(folder, "bob", "DNS:bob.test");
    FILE *file = fopen(path_of("tickets"), "w");
    assert_non_null(file);
    for (int i = 0; i < 80; i++)
        fputs("a1", file);
    fclose(file);
    return 0;
}

static struct tls_context *server(const char *client_ca)
{
    struct tls_certificate certificates[] = {{path_of("one.crt"), path_of("one.key")},
                                             {path_of("two.crt"), path_of("two.key")}};
    struct tls_server_options options = {
        .certificates = certificates,
        .certificate_count = ARRAY_LEN(certificates),
        .client_ca = client_ca,
        .ticket_keys = path_of("tickets"),
    };
    char *error;
    struct tls_context *context = tls_server_new(&options, &error);
    if (context == NULL)
        fail_msg("%s", error);
    return context;
}

/* A client that shows `name`'s certificate; NULL: none. */
static struct tls_context *client(const char *name)
{
    char cert[64], key[64];
    snprintf(cert, sizeof(cert), "%s.crt", name != NULL ? name : "");
    snprintf(key, sizeof(key), "%s.key", name != NULL ? name : "");
    struct tls_client_options options = {.verify = false};
    if (name != NULL)
        options.cert = path_of(cert), options.key = path_of(key);
    char *error;
    struct tls_context *context = tls_client_new(&options, &error);
    if (context == NULL)
        fail_msg("%s", error);
    return context;
}

struct meeting {
    bool is_let_in;
    bool is_resumed;
    SSL_SESSION *session; /* the caller's */
};

/* With TLS 1.3 the client is ready before it is refused: only what comes back shows it. */
static bool gets_an_answer(struct stream *left, struct stream *right)
{
    char byte;
    for (int turn = 0; turn < 100; turn++) {
        enum stream_handshake ours = stream_handshake(right, NULL);
        enum stream_handshake theirs = stream_handshake(left, NULL);
        if (ours == STREAM_REFUSED || theirs == STREAM_REFUSED)
            return false;
        if (ours == STREAM_READY && theirs == STREAM_READY)
            break;
    }
    return stream_write(left, "x", 1) == 1 && stream_read(right, &byte, 1) == 1;
}

static struct meeting meet(const char *client_ca, const char *shows, const char *asks_for,
                           int version, SSL_SESSION *session)
{
    struct tls_context *ours = server(client_ca), *theirs = client(shows);
    struct stream left, right;
    int fds[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    stream_init(&left, fds[0]);
    stream_init(&right, fds[1]);
    tls_accept(ours, &left);
    tls_connect(theirs, &right, asks_for);
    SSL_set_max_proto_version(right.ssl, version);
    if (session != NULL)
        SSL_set_session(right.ssl, session);
    struct meeting met = {.is_let_in = gets_an_answer(&left, &right)};
    met.is_resumed = met.is_let_in && SSL_session_reused(left.ssl);
    met.session = SSL_get1_session(right.ssl);
    stream_close(&left);
    stream_close(&right);
    tls_unref(ours);
    tls_unref(theirs);
    return met;
}

/* Both versions, both certificates of the server. */
#define FOR_EACH_KIND(version, name)                                                     \
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)             \
        for (const char *name = "one.test"; name != NULL;                                \
             name = name[0] == 'o' ? "two.test" : NULL)

static void
test_a_session_without_a_certificate_opens_no_door_that_asks_for_one(void **state)
{
    (void)state;
    FOR_EACH_KIND(version, name)
    {
        struct meeting first = meet(NULL, NULL, name, version, NULL);
        assert_true(first.is_let_in);
        struct meeting same = meet(NULL, NULL, name, version, first.session);
        assert_true(same.is_let_in && same.is_resumed); /* the ticket is a good one */
        struct meeting other =
            meet(path_of("alice.crt"), NULL, name, version, first.session);
        assert_false(other.is_let_in);
        SSL_SESSION_free(first.session);
        SSL_SESSION_free(same.session);
        SSL_SESSION_free(other.session);
    }
}

static void test_a_session_does_not_outlive_its_authority(void **state)
{
    (void)state;
    FOR_EACH_KIND(version, name)
    {
        struct meeting first = meet(path_of("alice.crt"), "alice", name, version, NULL);
        assert_true(first.is_let_in);
        struct meeting same =
            meet(path_of("alice.crt"), "alice", name, version, first.session);
        assert_true(same.is_let_in && same.is_resumed);
        struct meeting changed =
            meet(path_of("bob.crt"), "alice", name, version, first.session);
        assert_false(changed.is_let_in);
        struct meeting open = meet(NULL, "alice", name, version, first.session);
        assert_true(open.is_let_in && !open.is_resumed);
        SSL_SESSION_free(first.session);
        SSL_SESSION_free(same.session);
        SSL_SESSION_free(changed.session);
        SSL_SESSION_free(open.session);
    }
}

static void test_a_session_does_not_outlive_the_certificate(void **state)
{
    (void)state;
    FOR_EACH_KIND(version, name)
    {
        struct meeting first = meet(path_of("alice.crt"), "alice", name, version, NULL);
        assert_true(first.is_let_in);
        ahead =
            3000; /* certificates of the tests are good for an hour, sessions for two */
        struct meeting soon =
            meet(path_of("alice.crt"), "alice", name, version, first.session);
        assert_true(soon.is_let_in && soon.is_resumed);
        ahead = 4000;
        struct meeting late =
            meet(path_of("alice.crt"), "alice", name, version, first.session);
        assert_false(late.is_let_in);
        ahead = 0;
        SSL_SESSION_free(first.session);
        SSL_SESSION_free(soon.session);
        SSL_SESSION_free(late.session);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_a_session_without_a_certificate_opens_no_door_that_asks_for_one),
        cmocka_unit_test(test_a_session_does_not_outlive_its_authority),
        cmocka_unit_test(test_a_session_does_not_outlive_the_certificate),
    };
    return cmocka_run_group_tests(tests, set_up, folder_end);
}
