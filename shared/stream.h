/*
 * One connected, non-blocking socket, plain or TLS: the only place that knows SSL_read.
 *
 *       owner ── stream_read ──▶ recv        (plain: ssl is NULL; one system call, nothing else)
 *             ── stream_write ─▶ send
 *             └─ with TLS ─────▶ SSL_read, SSL_write over the same descriptor
 *
 * The owner keeps the events. Two rules make TLS fit a loop that is level-triggered on the descriptor:
 *   - after reads, ask stream_has_pending(): bytes that OpenSSL holds make no descriptor readable;
 *   - before the first read or write of a TLS stream, run stream_handshake() to STREAM_READY.
 * Renegotiation is off (tls.c), so after the handshake a read waits only for readability and a write
 * only for writability.
 *
 * A stream is 16 bytes and is embedded in its owner.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

struct ssl_st; /* OpenSSL's SSL */

/* The longest plaintext of a TLS record (RFC 8446 section 5.1): so much of what was not taken may be sealed. */
#define STREAM_RECORD_MAX ((size_t)16 * 1024)

struct stream {
    struct ssl_st *ssl; /* NULL: plain. Owned by the stream */
    int fd;             /* -1: closed. Owned by the stream */
};

enum stream_handshake {
    STREAM_READY,       /* bytes may flow */
    STREAM_WANTS_READ,  /* call again when the descriptor is readable */
    STREAM_WANTS_WRITE, /* call again when it is writable */
    STREAM_REFUSED,     /* the peer or its certificate was refused; *why says it */
};

/* A plain stream over a connected, non-blocking descriptor; the stream owns it from now on.
 * tls_accept() or tls_connect() of tls.h turn it into a TLS one before any byte has flowed. */
void stream_init(struct stream *stream, int fd);

/* Goes on with the TLS handshake; STREAM_READY at once for a plain stream. `why` may be NULL; else it
 * gets a constant text on STREAM_REFUSED. */
enum stream_handshake stream_handshake(struct stream *stream,
                                       const char **why) MUST_CHECK;

/* Up to `capacity` bytes into `bytes`. Positive: that many. 0: the peer has finished (a TCP end without
 * TLS close_notify counts as finished too: every protocol above has its own framing). -1: errno is EAGAIN
 * (nothing there) or the error. */
ssize_t stream_read(struct stream *stream, void *bytes, size_t capacity) MUST_CHECK;

/* Up to `len` bytes out. Non-negative: how many were taken (less than `len` when the socket is full).
 * What was not taken must be offered again first, and no less of it (TLS may have sealed it already).
 * -1: errno is EAGAIN (none taken) or the error. Never raises SIGPIPE on a plain stream; daemons ignore
 * the signal for TLS ones. */
ssize_t stream_write(struct stream *stream, const void *bytes, size_t len) MUST_CHECK;

/* The same for several pieces, in order; at most IOV_MAX. */
ssize_t stream_writev(struct stream *stream, const struct iovec *pieces,
                      int count) MUST_CHECK;

/* After -1 with EPROTO, in the same thread: what OpenSSL says about it, constant text. */
const char *stream_failure(void);

/* After STREAM_REFUSED: was it for the peer's certificate? */
bool stream_distrusts_peer(const struct stream *stream);

/* Before the first write: a TLS stream keeps account for stream_unacknowledged(). Nothing on a plain one. */
void stream_track(struct stream *stream);

/* Bytes that were written and that the peer's kernel has not acknowledged; after a reset, what it was then. Of TLS whole
 * records (sealed_records.h), and without stream_track() more than that. */
size_t stream_unacknowledged(const struct stream *stream);

/* Bytes are waiting inside OpenSSL: read again without waiting for the descriptor. */
bool stream_has_pending(const struct stream *stream);

/* Tells the peer that no more will be written (TLS close_notify, then a TCP FIN); reading goes on. */
void stream_finish_writing(struct stream *stream);

/* Closes the descriptor and frees TLS state; harmless when closed already. close_notify is tried once. */
void stream_close(struct stream *stream);

/* As stream_close, but the kernel drops what is queued and sends a reset (SO_LINGER 0). */
void stream_reset(struct stream *stream);
