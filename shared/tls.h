/*
 * TLS settings made from files, as immutable contexts with a count of holders; a reload makes a new one
 * and open connections keep theirs.
 *
 *      files ─ tls_server_new ─▶ context ─ tls_accept ──▶ stream (handshake by stream_handshake)
 *            ─ tls_client_new ─▶ context ─ tls_connect ─▶ stream
 *
 * Server side: one certificate a name. The name that the client asks for (SNI, RFC 6066 section 3) is
 * compared exactly first, then with wildcards; the first certificate is the default. Only http/1.1 is offered
 * (ALPN, RFC 7301) when `alpn` says so. Renegotiation and compression are off. Contexts may be used by
 * all threads.
 */
#pragma once

#include "shared/base.h"
#include "shared/stream.h"

struct tls_context;

struct tls_certificate {
    const char *cert; /* PEM file: the certificate, then its chain */
    const char *key;  /* PEM file */
};

struct tls_server_options {
    const struct tls_certificate *certificates;
    size_t certificate_count; /* at least 1 */
    const char *min_version;  /* "1.2" or "1.3" */
    const char *
        client_ca; /* PEM file: clients must show a certificate of it; NULL or "": none asked */
    const char *
        ticket_keys; /* file shared by replicas, see below; NULL or "": keys of this process */
    const char *alpn; /* the one protocol offered, as "http/1.1"; NULL: none */
};

struct tls_client_options {
    const char *ca;         /* PEM file; NULL or "": the system's */
    const char *cert, *key; /* our own certificate; NULL or "": none */
    const char *alpn;       /* as above */
    bool verify;            /* false: any certificate is taken (the daemon logs that) */
};

/* A context with one holder, or NULL and in *error one line that names the file and what is wrong with it
 * (the caller frees it).
 * Ticket key file: lines of 160 hex digits (16 bytes name, 32 HMAC-SHA-256 key, 32 AES-256 key; as
 * `openssl rand -hex 80` prints); `#` and blank lines skipped; the first writes, all read; 1-8 lines. */
struct tls_context *tls_server_new(const struct tls_server_options *options,
                                   char **error) MUST_CHECK;
struct tls_context *tls_client_new(const struct tls_client_options *options,
                                   char **error) MUST_CHECK;

/* Can others than its owner read the file of a private key? A group may when it is how we read it ourselves, as a
 * volume of Kubernetes with fsGroup. False also when there is no such file. */
bool tls_key_is_exposed(const char *path);

/* Logs a warning for each key that is exposed; `known` are those that were looked at before. */
void tls_warn_of_keys(const char *const *keys, size_t count, const char *const *known,
                      size_t known_count);

/* One holder more; gives the context back. */
struct tls_context *tls_ref(struct tls_context *context);

/* One holder less; the last one frees. NULL is allowed. */
void tls_unref(struct tls_context *context);

/* Makes a plain stream a TLS one, as the server or as the client. Nothing is sent yet. `server_name` is a
 * host name (sent as SNI and verified, RFC 6125) or an IP address (verified, never sent). The stream keeps what
 * it needs of the context. */
void tls_accept(struct tls_context *context, struct stream *stream);
void tls_connect(struct tls_context *context, struct stream *stream,
                 const char *server_name);
