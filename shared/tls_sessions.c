#include "shared/tls_sessions.h"

#include "shared/base.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdbool.h>

/* Of what a session is worth: a new sense of the settings below needs a new one. */
static const char label[] = "sidrail tls session 2";

_Static_assert(SSL_MAX_SID_CTX_LENGTH == 32, "a SHA-256 fits");

/* The authorities of the certificates that are asked for. */
static void digest_authorities(EVP_MD_CTX *sum, SSL_CTX *context)
{
    STACK_OF(X509_OBJECT) *objects =
        X509_STORE_get0_objects(SSL_CTX_get_cert_store(context));
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        X509 *authority = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned len = 0;
        if (authority == NULL)
            continue; /* a revocation list, which nothing looks at */
        check(X509_digest(authority, EVP_sha256(), digest, &len) == 1);
        check(EVP_DigestUpdate(sum, digest, len) == 1);
    }
}

static bool has_expired(const X509 *certificate)
{
    return X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0;
}

/* OpenSSL has opened a ticket, or has not; a resumed session's certificate is not verified again. */
static SSL_TICKET_RETURN on_opened(SSL *ssl, SSL_SESSION *session,
                                   const unsigned char *name, size_t name_len,
                                   SSL_TICKET_STATUS status, void *argument)
{
    (void)name, (void)name_len, (void)argument;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    const X509 *peer = SSL_SESSION_get0_peer(session);
    bool asks = (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0;
    if (asks && (peer == NULL || has_expired(peer)))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE
                                        : SSL_TICKET_RETURN_USE_RENEW;
}

void tls_sessions_bind(SSL_CTX *context)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    int mode = SSL_CTX_get_verify_mode(context);
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    check(sum != NULL && EVP_DigestInit_ex(sum, EVP_sha256(), NULL) == 1);
    check(EVP_DigestUpdate(sum, label, sizeof(label)) == 1);
    check(EVP_DigestUpdate(sum, &mode, sizeof(mode)) == 1);
    digest_authorities(sum, context);
    check(EVP_DigestFinal_ex(sum, digest, &len) == 1);
    EVP_MD_CTX_free(sum);
    check(SSL_CTX_set_session_id_context(context, digest, len) == 1);
    check(SSL_CTX_set_session_ticket_cb(context, NULL, on_opened, NULL) == 1);
}
