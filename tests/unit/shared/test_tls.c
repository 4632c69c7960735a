/*
 * Proves that a stream carries the same bytes plain and through TLS, over sockets that take little at a
 * time, and that bad certificates, keys and tickets are refused with the file's name.
 */
#include "tests/unit/unit.h"

#include "tests/unit/certificate.h"
#include "tests/unit/folder.h"

#include "shared/slice.h"
#include "shared/stream.h"
#include "shared/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void make_certificate(const char *name, const char *names)
{
    certificate_make(folder, name, names);
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    folder_begin();
    make_certificate("one", "DNS:one.test,IP:127.0.0.1");
    make_certificate("wild", "DNS:*.wild.test");
    make_certificate("exact", "DNS:a.wild.test");
    return 0;
}

static void make_pair(struct stream *left, struct stream *right)
{
    int fds[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    int small = 4096;
    for (int i = 0; i < 2; i++)
        setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    stream_init(left, fds[0]);
    stream_init(right, fds[1]);
}

/* Runs both handshakes until both are ready or one refuses; the client's verdict comes back. */
static enum stream_handshake shake(struct stream *client, struct stream *server,
                                   const char **why)
{
    for (int turn = 0; turn < 100; turn++) {
        enum stream_handshake ours = stream_handshake(client, why);
        enum stream_handshake theirs = stream_handshake(server, NULL);
        if (ours == STREAM_REFUSED || theirs == STREAM_REFUSED)
            return STREAM_REFUSED;
        if (ours == STREAM_READY && theirs == STREAM_READY)
            return STREAM_READY;
    }
    return STREAM_REFUSED;
}

/* Sends 300 KB in pieces through `from` and reads them at `to`; the bytes must be the same. */
static void carry(struct stream *from, struct stream *to)
{
    enum { TOTAL = 300000 };
    unsigned char *sent = must_calloc(1, TOTAL), *got = must_calloc(1, TOTAL);
    for (size_t i = 0; i < TOTAL; i++)
        sent[i] = (unsigned char)(i * 31 >> 3);
    size_t out = 0, in = 0;
    while (in < TOTAL) {
        size_t first = min_size(100, TOTAL - out),
               second = min_size(40000, TOTAL - out - first);
        struct iovec pieces[] = {
            {sent + out, first}, {sent + out + first, second}, {sent, 0}};
        ssize_t taken = out < TOTAL ? stream_writev(from, pieces, 3) : 0;
        if (taken < 0)
            assert_int_equal(EAGAIN, errno);
        else
            out += (size_t)taken;
        ssize_t len = stream_read(to, got + in, TOTAL - in);
        if (len < 0) {
            assert_int_equal(EAGAIN, errno);
            assert_false(stream_has_pending(to));
        } else {
            assert_true(len > 0);
            in += (size_t)len;
        }
    }
    assert_memory_equal(sent, got, TOTAL);
    free(sent);
    free(got);
}

static void ends_are_seen(struct stream *left, struct stream *right)
{
    char byte;
    stream_finish_writing(left);
    assert_int_equal(0, stream_read(right, &byte, 1));
    assert_int_equal(1,
                     stream_write(right, "x", 1)); /* the other direction still works */
    assert_int_equal(1, stream_read(left, &byte, 1));
    stream_close(right);
    assert_true(stream_read(left, &byte, 1) <= 0);
    stream_close(left);
    stream_close(left);
}

static struct tls_context *server(const char *min_version, const char *ticket_keys)
{
    struct tls_certificate certificates[] = {
        {path_of("one.crt"), path_of("one.key")},
        {path_of("wild.crt"), path_of("wild.key")},
        {path_of("exact.crt"), path_of("exact.key")},
    };
    struct tls_server_options options = {
        .certificates = certificates,
        .certificate_count = ARRAY_LEN(certificates),
        .min_version = min_version,
        .ticket_keys = ticket_keys,
        .alpn = "http/1.1",
    };
    char *error;
    struct tls_context *context = tls_server_new(&options, &error);
    if (context == NULL)
        fail_msg("%s", error);
    return context;
}

static struct tls_context *client_of(const char *ca)
{
    struct tls_client_options options = {.ca = ca, .verify = true, .alpn = "http/1.1"};
    char *error;
    struct tls_context *context = tls_client_new(&options, &error);
    if (context == NULL)
        fail_msg("%s", error);
    return context;
}

static void test_a_plain_stream_carries_bytes_and_ends(void **state)
{
    (void)state;
    struct stream left, right;
    make_pair(&left, &right);
    assert_int_equal(STREAM_READY, stream_handshake(&left, NULL));
    carry(&left, &right);
    carry(&right, &left);
    ends_are_seen(&left, &right);
}

static void test_a_tls_stream_carries_the_same_bytes(void **state)
{
    (void)state;
    const char *versions[] = {"1.2", "1.3"};
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct tls_context *ours = server(versions[i], NULL);
        struct tls_context *theirs = client_of(path_of("one.crt"));
        struct stream left, right;
        make_pair(&left, &right);
        tls_accept(ours, &left);
        tls_connect(theirs, &right, "one.test");
        tls_unref(ours); /* open streams keep what they need */
        tls_unref(theirs);
        const char *why = NULL;
        assert_int_equal(STREAM_READY, shake(&right, &left, &why));
        carry(&left, &right);
        carry(&right, &left);
        ends_are_seen(&left, &right);
    }
}

/* What the client sees when it trusts `ca` and asks for `name`. */
static enum stream_handshake meet(const char *ca, const char *name)
{
    struct tls_context *ours = server("1.2", NULL), *theirs = client_of(ca);
    struct stream left, right;
    make_pair(&left, &right);
    tls_accept(ours, &left);
    tls_connect(theirs, &right, name);
    const char *why = NULL;
    enum stream_handshake verdict = shake(&right, &left, &why);
    if (verdict == STREAM_REFUSED)
        assert_non_null(why);
    stream_close(&left);
    stream_reset(&right);
    tls_unref(ours);
    tls_unref(theirs);
    return verdict;
}

static void test_the_certificate_follows_the_name(void **state)
{
    (void)state;
    assert_int_equal(STREAM_READY, meet(path_of("one.crt"), "one.test"));
    assert_int_equal(STREAM_READY, meet(path_of("one.crt"), "127.0.0.1"));
    assert_int_equal(STREAM_READY, meet(path_of("wild.crt"), "b.wild.test"));
    assert_int_equal(STREAM_READY, meet(path_of("exact.crt"), "a.wild.test"));
    assert_int_equal(STREAM_REFUSED, meet(path_of("wild.crt"), "a.wild.test"));
    assert_int_equal(STREAM_REFUSED, meet(path_of("one.crt"), "other.test"));
    assert_int_equal(STREAM_REFUSED, meet(path_of("wild.crt"), "127.0.0.1"));
}

static bool resumes(SSL_SESSION *session, const char *keys)
{
    struct tls_context *ours = server("1.2", keys);
    struct stream left, right;
    make_pair(&left, &right);
    tls_accept(ours, &left);
    struct tls_context *theirs = client_of(path_of("one.crt"));
    tls_connect(theirs, &right, "one.test");
    SSL_set_session(right.ssl, session);
    const char *why = NULL;
    assert_int_equal(STREAM_READY, shake(&right, &left, &why));
    bool was_resumed = SSL_session_reused(right.ssl);
    stream_close(&left);
    stream_close(&right);
    tls_unref(ours);
    tls_unref(theirs);
    return was_resumed;
}

static SSL_SESSION *session_of(const char *keys)
{
    struct tls_context *ours = server("1.2", keys),
                       *theirs = client_of(path_of("one.crt"));
    struct stream left, right;
    make_pair(&left, &right);
    tls_accept(ours, &left);
    tls_connect(theirs, &right, "one.test");
    const char *why = NULL;
    assert_int_equal(STREAM_READY, shake(&right, &left, &why));
    carry(&left, &right); /* the ticket comes with the first bytes */
    SSL_SESSION *session = SSL_get1_session(right.ssl);
    stream_close(&left);
    stream_close(&right);
    tls_unref(ours);
    tls_unref(theirs);
    return session;
}

static void write_key_file(const char *name, const char *first, const char *second)
{
    char text[512] = "# tickets\n";
    for (int i = 0; i < 80; i++)
        strcat(text, first);
    strcat(text, "\n");
    for (int i = 0; second != NULL && i < 80; i++)
        strcat(text, second);
    strcat(text, "\n");
    write_text(path_of(name), text);
}

static void test_tickets_resume_at_a_replica_that_shares_the_keys(void **state)
{
    (void)state;
    write_key_file("k1", "a1", NULL);
    write_key_file("k21", "B2", "a1");
    write_key_file("k2", "b2", NULL);
    SSL_SESSION *session = session_of(path_of("k1"));
    assert_true(resumes(session, path_of("k1")));
    assert_true(resumes(session, path_of("k21"))); /* an old key still reads */
    assert_false(resumes(session, path_of("k2")));
    SSL_SESSION_free(session);
}

static void refused(const char *cert, const char *key, const char *tickets,
                    const char *expected)
{
    struct tls_certificate certificate = {cert, key};
    struct tls_server_options options = {
        .certificates = &certificate, .certificate_count = 1, .ticket_keys = tickets};
    char *error = NULL;
    assert_null(tls_server_new(&options, &error));
    assert_non_null(error);
    if (strstr(error, expected) == NULL)
        fail_msg("'%s' does not say '%s'", error, expected);
    free(error);
}

static void test_bad_files_are_named(void **state)
{
    (void)state;
    const char *cert = path_of("one.crt"), *key = path_of("one.key");
    refused(path_of("none.crt"), key, NULL, "none.crt: No such file or directory");
    refused(folder, key, NULL, "Is a directory");
    refused(cert, path_of("none.key"), NULL, "cannot open key");
    refused(cert, path_of("wild.key"), NULL, "one.crt");
    write_text(path_of("junk"), "not a certificate\n");
    refused(path_of("junk"), key, NULL, "junk");
    refused(cert, path_of("junk"), NULL, "junk");
    refused(cert, key, path_of("junk"), "junk:1: a ticket key is 160 hex digits");
    write_text(path_of("empty"), "# nothing\n");
    refused(cert, key, path_of("empty"), "no ticket key");
}

/* A connection over TCP whose receiver takes little. */
static void make_tcp_pair(struct stream *left, struct stream *right)
{
    int door = socket(AF_INET, SOCK_STREAM, 0), small = 4096;
    struct sockaddr_in place = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(place);
    setsockopt(door, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_int_equal(0, bind(door, (struct sockaddr *)&place, len));
    assert_int_equal(0, listen(door, 1));
    assert_int_equal(0, getsockname(door, (struct sockaddr *)&place, &len));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(0, connect(fd, (struct sockaddr *)&place, len));
    int other = accept(door, NULL, NULL);
    close(door);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(other, F_SETFL, O_NONBLOCK);
    stream_init(left, fd);
    stream_init(right, other);
}

static size_t read_all(struct stream *stream)
{
    static char bytes[65536];
    size_t total = 0;
    ssize_t len;
    while ((len = stream_read(stream, bytes, sizeof(bytes))) > 0)
        total += (size_t)len;
    return total;
}

/* What is acknowledged has been received, so it is found among what the peer reads. */
static void check_acknowledged(bool is_tls)
{
    struct stream left, right;
    make_tcp_pair(&left, &right);
    if (is_tls) {
        struct tls_context *ours = server("1.2", NULL);
        struct tls_context *theirs = client_of(path_of("one.crt"));
        tls_accept(ours, &left);
        tls_connect(theirs, &right, "one.test");
        tls_unref(ours);
        tls_unref(theirs);
        const char *why = NULL;
        enum stream_handshake done = STREAM_REFUSED;
        for (int i = 0; i < 100 && done != STREAM_READY; i++) {
            usleep(1000);
            done = shake(&right, &left, &why);
        }
        assert_int_equal(STREAM_READY, done);
    }
    stream_track(&left);
    static char bytes[50000];
    size_t written = 0, read = 0;
    bool was_behind = false;
    for (int round = 0; round < 3000; round++) {
        struct iovec pieces[] = {{bytes, (size_t)(round % 7) * 5}, {bytes, 50000}};
        ssize_t taken = round < 200 ? stream_writev(&left, pieces, 2) : 0;
        written += taken > 0 ? (size_t)taken : 0;
        size_t unacknowledged = stream_unacknowledged(&left);
        assert_true(unacknowledged <= written);
        was_behind |= unacknowledged > 100000;
        if (round % 3 == 0 || taken == 0)
            read += read_all(&right);
        else
            continue;
        assert_true(read >= written - unacknowledged);
        if (round >= 200 && read == written && stream_unacknowledged(&left) == 0)
            break;
        usleep(500);
    }
    assert_true(was_behind);
    assert_int_equal(written, read);
    assert_int_equal(0, stream_unacknowledged(&left));
    stream_close(&left);
    stream_close(&right);
}

static void test_what_is_acknowledged_was_received(void **state)
{
    (void)state;
    check_acknowledged(false);
    check_acknowledged(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_plain_stream_carries_bytes_and_ends),
        cmocka_unit_test(test_a_tls_stream_carries_the_same_bytes),
        cmocka_unit_test(test_the_certificate_follows_the_name),
        cmocka_unit_test(test_tickets_resume_at_a_replica_that_shares_the_keys),
        cmocka_unit_test(test_bad_files_are_named),
        cmocka_unit_test(test_what_is_acknowledged_was_received),
    };
    return cmocka_run_group_tests(tests, set_up, folder_end);
}
