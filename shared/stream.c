#include "shared/stream.h"

#include "shared/net.h"
#include "shared/sealed_records.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* TLS gathers pieces up to this many bytes, so that a head and a small body leave in one record. */
enum { GATHER_BYTES = 16 * 1024 };

/* What the last read or write of this thread that failed with EPROTO was told. */
static _Thread_local const char *failure_text = "";

void stream_init(struct stream *stream, int fd)
{
    stream->ssl = NULL;
    stream->fd = fd;
}

/* OpenSSL's words, and ours where they do not tell the cause; constant text. */
static const char *reason_text(unsigned long error)
{
    if (error == 0)
        return "connection ended";
    if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
        ERR_GET_REASON(error) == SSL_R_WRONG_VERSION_NUMBER)
        return "wrong version number: the other side does not speak TLS";
    const char *reason = ERR_reason_error_string(error);
    return reason != NULL ? reason : "unknown TLS error";
}

enum stream_handshake stream_handshake(struct stream *stream, const char **why)
{
    if (stream->ssl == NULL || SSL_is_init_finished(stream->ssl))
        return STREAM_READY;
    ERR_clear_error();
    int result = SSL_do_handshake(stream->ssl);
    if (result == 1)
        return STREAM_READY;
    switch (SSL_get_error(stream->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return STREAM_WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return STREAM_WANTS_WRITE;
    default:
        break;
    }
    if (why != NULL) {
        long verdict = SSL_get_verify_result(stream->ssl);
        if (verdict != X509_V_OK)
            *why = X509_verify_cert_error_string(verdict);
        else
            *why = reason_text(ERR_peek_error());
    }
    ERR_clear_error();
    return STREAM_REFUSED;
}

/* What OpenSSL's answer means in the words of recv and send. */
static ssize_t tls_result(SSL *ssl, int result)
{
    int failure = errno;
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        errno = failure != 0 ? failure : ECONNRESET;
        break;
    default:
        failure_text = reason_text(ERR_peek_error());
        errno = EPROTO;
        break;
    }
    ERR_clear_error();
    return -1;
}

static ssize_t tls_read(SSL *ssl, void *bytes, size_t capacity)
{
    ERR_clear_error();
    errno = 0;
    size_t len = 0;
    int result = SSL_read_ex(ssl, bytes, capacity, &len);
    return result == 1 ? (ssize_t)len : tls_result(ssl, result);
}

/* ---- what is acknowledged ---- */

/* Of the ex data where a tracked SSL has its sealed_records; -1: none ever was tracked. */
static atomic_int records_index = -1;
static CRYPTO_ONCE records_once = CRYPTO_ONCE_STATIC_INIT;

static void on_ssl_freed(void *parent, void *records, CRYPTO_EX_DATA *data, int index,
                         long number, void *pointer)
{
    (void)parent, (void)data, (void)index, (void)number, (void)pointer;
    if (records != NULL)
        sealed_records_cleanup(records);
    free(records);
}

static void make_records_index(void)
{
    int index = SSL_get_ex_new_index(0, NULL, NULL, NULL, on_ssl_freed);
    check(index >= 0);
    atomic_store(&records_index, index);
}

static struct sealed_records *records_of(const SSL *ssl)
{
    int index = atomic_load_explicit(&records_index, memory_order_relaxed);
    return index >= 0 ? SSL_get_ex_data(ssl, index) : NULL;
}

static void look_what_is_acknowledged(SSL *ssl, struct sealed_records *records)
{
    uint64_t written = BIO_number_written(SSL_get_wbio(ssl));
    uint64_t queued = net_unacknowledged(SSL_get_fd(ssl));
    sealed_records_acknowledge(records, written > queued ? written - queued : 0);
}

/* SSL_write makes one record (SSL_MODE_ENABLE_PARTIAL_WRITE) and has written all of it. */
static void note_record(SSL *ssl, size_t len)
{
    struct sealed_records *records = records_of(ssl);
    if (records == NULL)
        return;
    if (sealed_records_is_full(records))
        look_what_is_acknowledged(ssl, records);
    sealed_records_note(records, len, BIO_number_written(SSL_get_wbio(ssl)));
}

void stream_track(struct stream *stream)
{
    if (stream->ssl == NULL)
        return;
    CRYPTO_THREAD_run_once(&records_once, make_records_index);
    struct sealed_records *records = must_calloc(1, sizeof(*records));
    check(SSL_set_ex_data(stream->ssl, atomic_load(&records_index), records) == 1);
}

size_t stream_unacknowledged(const struct stream *stream)
{
    struct sealed_records *records = stream->ssl != NULL ? records_of(stream->ssl) : NULL;
    if (records == NULL)
        return net_unacknowledged(stream->fd);
    look_what_is_acknowledged(stream->ssl, records);
    return sealed_records_unacknowledged(records);
}

static ssize_t tls_write(SSL *ssl, const void *bytes, size_t len)
{
    if (len == 0)
        return 0;
    ERR_clear_error();
    errno = 0;
    size_t taken = 0;
    int result = SSL_write_ex(ssl, bytes, len, &taken);
    if (result == 1) {
        note_record(ssl, taken);
        return (ssize_t)taken;
    }
    ssize_t failed = tls_result(ssl, result);
    if (failed == 0) {
        errno = EPIPE; /* the peer said close_notify: it reads no more */
        return -1;
    }
    return failed;
}

ssize_t stream_read(struct stream *stream, void *bytes, size_t capacity)
{
    if (stream->ssl != NULL)
        return tls_read(stream->ssl, bytes, capacity);
    ssize_t len;
    do {
        len = recv(stream->fd, bytes, capacity, 0);
    } while (len < 0 && errno == EINTR);
    return len;
}

ssize_t stream_write(struct stream *stream, const void *bytes, size_t len)
{
    if (stream->ssl != NULL)
        return tls_write(stream->ssl, bytes, len);
    ssize_t taken;
    do {
        taken = send(stream->fd, bytes, len, MSG_NOSIGNAL);
    } while (taken < 0 && errno == EINTR);
    return taken;
}

/* Copies up to GATHER_BYTES from `offset` of the first piece on into `gathered`. */
static size_t gather(char *gathered, const struct iovec *pieces, int count, size_t offset)
{
    size_t len = 0;
    for (int i = 0; i < count && len < GATHER_BYTES; i++, offset = 0) {
        size_t part = min_size(pieces[i].iov_len - offset, GATHER_BYTES - len);
        if (part > 0)
            memcpy(gathered + len, (const char *)pieces[i].iov_base + offset, part);
        len += part;
    }
    return len;
}

/* Small pieces leave gathered, as one record. A write that did not fit must be offered again with at least
 * the same length (SSL_write), so each run is as long as a record or all there is: the caller, who is
 * told how much was taken, cannot offer less the next time. */
static ssize_t tls_writev(SSL *ssl, const struct iovec *pieces, int count)
{
    char gathered[GATHER_BYTES];
    size_t total = 0, offset = 0;
    while (count > 0) {
        if (offset == pieces->iov_len) {
            pieces++, count--, offset = 0;
            continue;
        }
        const void *run = (const char *)pieces->iov_base + offset;
        size_t len = pieces->iov_len - offset;
        if (len < GATHER_BYTES && count > 1) {
            len = gather(gathered, pieces, count, offset);
            run = gathered;
        }
        ssize_t taken = tls_write(ssl, run, len);
        if (taken < 0)
            return total > 0 ? (ssize_t)total : -1;
        total += (size_t)taken;
        /* SSL_write takes one record at a time: less than `len` is not yet a full socket */
        for (size_t left = (size_t)taken; left > 0;) {
            size_t part = min_size(left, pieces->iov_len - offset);
            left -= part, offset += part;
            if (offset == pieces->iov_len)
                pieces++, count--, offset = 0;
        }
    }
    return (ssize_t)total;
}

ssize_t stream_writev(struct stream *stream, const struct iovec *pieces, int count)
{
    if (stream->ssl != NULL)
        return tls_writev(stream->ssl, pieces, count);
    struct msghdr message = {0};
    /* sendmsg does not write through msg_iov; the C type cannot say so */
    memcpy(&message.msg_iov, &pieces, sizeof(pieces));
    message.msg_iovlen = (size_t)count;
    ssize_t taken;
    do {
        taken = sendmsg(stream->fd, &message, MSG_NOSIGNAL);
    } while (taken < 0 && errno == EINTR);
    return taken;
}

const char *stream_failure(void)
{
    return failure_text;
}

bool stream_distrusts_peer(const struct stream *stream)
{
    return stream->ssl != NULL && SSL_get_verify_result(stream->ssl) != X509_V_OK;
}

bool stream_has_pending(const struct stream *stream)
{
    /* read-ahead is off: OpenSSL holds at most the rest of one opened record (SSL_has_pending would also
     * count a record that is not whole yet, and reading again would spin) */
    return stream->ssl != NULL && SSL_pending(stream->ssl) > 0;
}

void stream_finish_writing(struct stream *stream)
{
    if (stream->ssl != NULL && SSL_is_init_finished(stream->ssl)) {
        ERR_clear_error();
        if (SSL_shutdown(stream->ssl) < 0)
            ERR_clear_error();
    }
    shutdown(stream->fd, SHUT_WR);
}

void stream_close(struct stream *stream)
{
    if (stream->fd < 0)
        return;
    if (stream->ssl != NULL) {
        ERR_clear_error();
        if (SSL_is_init_finished(stream->ssl) && SSL_shutdown(stream->ssl) < 0)
            ERR_clear_error();
        SSL_free(stream->ssl);
        stream->ssl = NULL;
    }
    close(stream->fd);
    stream->fd = -1;
}

void stream_reset(struct stream *stream)
{
    if (stream->fd < 0)
        return;
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    SSL_free(stream->ssl);
    stream->ssl = NULL;
    close(stream->fd);
    stream->fd = -1;
}
