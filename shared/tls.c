#include "shared/tls.h"

#include "shared/file_read.h"
#include "shared/log.h"
#include "shared/slice.h"
#include "shared/tls_sessions.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/ui.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TICKET_NAME_BYTES = 16,
    TICKET_KEY_BYTES = 32,
    TICKET_BYTES = TICKET_NAME_BYTES + 2 * TICKET_KEY_BYTES,
    TICKET_KEYS_MAX = 8,
    TICKET_FILE_MAX = 65536, /* bytes, comments included */
    ALPN_MAX = 32,
};

struct ticket_key {
    unsigned char name[TICKET_NAME_BYTES];
    unsigned char hmac[TICKET_KEY_BYTES];
    unsigned char aes[TICKET_KEY_BYTES];
};

struct tls_context {
    atomic_uint holders;
    SSL_CTX **variants; /* one a certificate; the first is the default. Client: one */
    size_t variant_count;
    struct ticket_key ticket_keys[TICKET_KEYS_MAX];
    size_t ticket_key_count;
    unsigned char alpn[ALPN_MAX]; /* wire form: length, then text */
    unsigned alpn_len;
    bool verifies;
};

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static bool say(char **error, const char *what, const char *path)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    *error = must_printf("%s %s: %s", what, path, reason != NULL ? reason : "unusable");
    ERR_clear_error();
    return false;
}

/* OpenSSL would ask on the terminal, and wait there. */
static int refuse_password(char *buffer, int size, int is_writing, void *was_asked)
{
    (void)buffer, (void)size, (void)is_writing;
    if (was_asked != NULL)
        *(bool *)was_asked = true;
    return -1;
}

/* OpenSSL says "no such file" in its own words; the system's are clearer. And it would wait for a FIFO's writer. */
static bool can_open(const char *what, const char *path, char **error)
{
    char why[FILE_WHY_SIZE];
    int fd = file_open(path, NULL, why);
    if (fd < 0)
        *error = must_printf("cannot open %s %s: %s", what, path, why);
    else
        close(fd);
    return fd >= 0;
}

static bool load_key(SSL_CTX *variant, const char *cert, const char *key, char **error)
{
    bool was_asked = false;
    SSL_CTX_set_default_passwd_cb_userdata(variant, &was_asked);
    /* a key that does not fit the certificate is refused here already */
    bool is_mismatch = SSL_CTX_use_PrivateKey_file(variant, key, SSL_FILETYPE_PEM) != 1;
    SSL_CTX_set_default_passwd_cb_userdata(variant, NULL);
    if (was_asked) {
        *error = must_printf("key %s is encrypted: give one without a passphrase "
                             "(openssl pkey -in FILE -out NEW)",
                             key);
        ERR_clear_error();
        return false;
    }
    if (is_mismatch &&
        ERR_GET_REASON(ERR_peek_last_error()) != X509_R_KEY_VALUES_MISMATCH &&
        ERR_GET_REASON(ERR_peek_last_error()) != X509_R_KEY_TYPE_MISMATCH)
        return say(error, "key", key);
    if (is_mismatch || SSL_CTX_check_private_key(variant) != 1) {
        *error = must_printf("key %s does not belong to certificate %s", key, cert);
        ERR_clear_error();
        return false;
    }
    return true;
}

static bool load_certificate(SSL_CTX *variant, const char *cert, const char *key,
                             char **error)
{
    if (!can_open("certificate", cert, error) || !can_open("key", key, error))
        return false;
    if (SSL_CTX_use_certificate_chain_file(variant, cert) != 1)
        return say(error, "certificate", cert);
    return load_key(variant, cert, key, error);
}

bool tls_key_is_exposed(const char *path)
{
    struct stat found;
    if (stat(path, &found) != 0)
        return false;
    mode_t excess = S_IROTH | S_IWOTH;
    if (found.st_uid == geteuid())
        excess |= S_IRGRP | S_IWGRP;
    return (found.st_mode & excess) != 0;
}

static bool is_known(const char *key, const char *const *known, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(key, known[i]) == 0)
            return true;
    return false;
}

void tls_warn_of_keys(const char *const *keys, size_t count, const char *const *known,
                      size_t known_count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_known(keys[i], known, known_count) && !is_known(keys[i], keys, i) &&
            tls_key_is_exposed(keys[i]))
            log_warn(LOG_SUBJECT("main"), "a TLS key can be read by others",
                     LOG_TEXT("path", keys[i]));
}

static struct tls_context *context_new(size_t variants)
{
    struct tls_context *context = must_calloc(1, sizeof(*context));
    atomic_init(&context->holders, 1);
    context->variants = must_calloc(variants, sizeof(SSL_CTX *));
    return context;
}

/* What both sides have in common. */
static SSL_CTX *variant_new(const SSL_METHOD *method)
{
    SSL_CTX *variant = SSL_CTX_new(method);
    check(variant != NULL);
    SSL_CTX_set_default_passwd_cb(variant, refuse_password);
    UI_set_default_method(UI_null()); /* where no callback can be given: CA bundles */
    SSL_CTX_set_options(variant, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(variant, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_min_proto_version(variant, TLS1_2_VERSION);
    return variant;
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

static bool parse_ticket_key(struct slice line, struct ticket_key *key)
{
    unsigned char bytes[TICKET_BYTES];
    if (line.len != 2 * sizeof(bytes))
        return false;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        int high = hex_value(line.data[2 * i]);
        int low = hex_value(line.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (unsigned char)(high << 4 | low);
    }
    memcpy(key->name, bytes, TICKET_NAME_BYTES);
    memcpy(key->hmac, bytes + TICKET_NAME_BYTES, TICKET_KEY_BYTES);
    memcpy(key->aes, bytes + TICKET_NAME_BYTES + TICKET_KEY_BYTES, TICKET_KEY_BYTES);
    OPENSSL_cleanse(bytes, sizeof(bytes));
    return true;
}

/* What is wrong with a line of the file of ticket keys; NULL: nothing. */
static char *take_ticket_key(struct tls_context *context, struct slice line)
{
    if (context->ticket_key_count == TICKET_KEYS_MAX)
        return must_printf("more than %d ticket keys", TICKET_KEYS_MAX);
    if (!parse_ticket_key(line, &context->ticket_keys[context->ticket_key_count]))
        return must_printf("a ticket key is %d hex digits", 2 * TICKET_BYTES);
    context->ticket_key_count++;
    return NULL;
}

static bool load_ticket_keys(struct tls_context *context, const char *path, char **error)
{
    char *text, why[FILE_WHY_SIZE];
    size_t len;
    if (!file_read(path, TICKET_FILE_MAX, &text, &len, NULL, why)) {
        *error = must_printf("cannot open ticket keys %s: %s", path, why);
        return false;
    }
    unsigned number = 0;
    struct slice rest = slice_of(text, len), line;
    char *wrong = NULL;
    while (wrong == NULL && slice_cut(&rest, '\n', &line)) {
        number++;
        line = slice_trim(line);
        if (line.len > 0 && line.data[line.len - 1] == '\r')
            line.len--;
        if (line.len > 0 && line.data[0] != '#')
            wrong = take_ticket_key(context, line);
    }
    OPENSSL_cleanse(text, len);
    free(text);
    if (wrong != NULL)
        *error = must_printf("%s:%u: %s", path, number, wrong);
    else if (context->ticket_key_count == 0)
        *error = must_printf("%s: no ticket key in it", path);
    free(wrong);
    return *error == NULL;
}

/* OpenSSL asks for the key of a new ticket (is_new) or of one that a client brought back.
 * 1: use it. 2: use it and write a new one. 0: not ours, full handshake. -1: failed. */
static int on_ticket(SSL *ssl, unsigned char name[TICKET_NAME_BYTES], unsigned char *iv,
                     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int is_new)
{
    struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    size_t which = 0;
    if (is_new) {
        memcpy(name, context->ticket_keys[0].name, TICKET_NAME_BYTES);
        if (RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1)
            return -1;
    } else {
        while (which < context->ticket_key_count &&
               memcmp(name, context->ticket_keys[which].name, TICKET_NAME_BYTES) != 0)
            which++;
        if (which == context->ticket_key_count)
            return 0;
    }
    struct ticket_key *key = &context->ticket_keys[which];
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->hmac,
                                          TICKET_KEY_BYTES),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    if (EVP_MAC_CTX_set_params(mac, parameters) != 1 ||
        EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->aes, iv, is_new) != 1)
        return -1;
    return !is_new && which > 0 ? 2 : 1;
}

/* Does the certificate of `variant` name `host`? */
static bool names_host(SSL_CTX *variant, const char *host, unsigned flags)
{
    X509 *cert = SSL_CTX_get0_certificate(variant);
    return cert != NULL && X509_check_host(cert, host, 0, flags, NULL) == 1;
}

/* SNI: the exact certificate, else a wildcard one, else the first. */
static int on_server_name(SSL *ssl, int *alert, void *argument)
{
    (void)alert;
    struct tls_context *context = argument;
    const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (host == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    static const unsigned passes[] = {X509_CHECK_FLAG_NO_WILDCARDS,
                                      X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS};
    for (size_t pass = 0; pass < ARRAY_LEN(passes); pass++)
        for (size_t i = 0; i < context->variant_count; i++)
            if (names_host(context->variants[i], host, passes[pass])) {
                SSL_set_SSL_CTX(ssl, context->variants[i]);
                return SSL_TLSEXT_ERR_OK;
            }
    return SSL_TLSEXT_ERR_OK;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *argument)
{
    (void)ssl;
    struct tls_context *context = argument;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_len, context->alpn, context->alpn_len, in,
                              in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void set_alpn(struct tls_context *context, const char *protocol)
{
    if (!is_set(protocol))
        return;
    size_t len = strlen(protocol);
    check(len < ALPN_MAX);
    context->alpn[0] = (unsigned char)len;
    memcpy(context->alpn + 1, protocol, len);
    context->alpn_len = (unsigned)len + 1;
}

/* Loads the authorities of a PEM file. What OpenSSL else works out of a certificate when a thread first needs it, which
 * thread sanitizers take for a race, it works out here. */
static bool load_authorities(SSL_CTX *variant, const char *path)
{
    if (SSL_CTX_load_verify_file(variant, path) != 1)
        return false;
    STACK_OF(X509_OBJECT) *objects =
        X509_STORE_get0_objects(SSL_CTX_get_cert_store(variant));
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        X509 *authority = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        if (authority != NULL)
            (void)X509_check_purpose(authority, -1, 0);
    }
    return true;
}

static bool set_client_ca(SSL_CTX *variant, const char *path, char **error)
{
    if (!can_open("client CA", path, error))
        return false;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (names == NULL || !load_authorities(variant, path)) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return say(error, "client CA", path);
    }
    SSL_CTX_set_client_CA_list(variant, names);
    SSL_CTX_set_verify(variant, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return true;
}

static bool server_variant(struct tls_context *context, size_t index,
                           const struct tls_server_options *options, char **error)
{
    SSL_CTX *variant = variant_new(TLS_server_method());
    context->variants[context->variant_count++] = variant;
    const struct tls_certificate *files = &options->certificates[index];
    SSL_CTX_set_app_data(variant, context);
    SSL_CTX_set_options(variant, SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* sessions live in tickets only: nothing is kept for a client that went away */
    SSL_CTX_set_session_cache_mode(variant, SSL_SESS_CACHE_OFF);
    if (options->min_version != NULL && strcmp(options->min_version, "1.3") == 0)
        SSL_CTX_set_min_proto_version(variant, TLS1_3_VERSION);
    if (!load_certificate(variant, files->cert, files->key, error))
        return false;
    if (is_set(options->client_ca) && !set_client_ca(variant, options->client_ca, error))
        return false;
    tls_sessions_bind(variant);
    if (context->ticket_key_count > 0)
        SSL_CTX_set_tlsext_ticket_key_evp_cb(variant, on_ticket);
    if (context->alpn_len > 0)
        SSL_CTX_set_alpn_select_cb(variant, on_alpn, context);
    SSL_CTX_set_tlsext_servername_callback(variant, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(variant, context);
    return true;
}

struct tls_context *tls_server_new(const struct tls_server_options *options, char **error)
{
    *error = NULL;
    check(options->certificate_count > 0);
    struct tls_context *context = context_new(options->certificate_count);
    set_alpn(context, options->alpn);
    bool is_good = !is_set(options->ticket_keys) ||
                   load_ticket_keys(context, options->ticket_keys, error);
    for (size_t i = 0; is_good && i < options->certificate_count; i++)
        is_good = server_variant(context, i, options, error);
    if (is_good)
        return context;
    tls_unref(context);
    return NULL;
}

static bool set_trust(SSL_CTX *variant, const struct tls_client_options *options,
                      char **error)
{
    if (!options->verify) {
        SSL_CTX_set_verify(variant, SSL_VERIFY_NONE, NULL);
        return true;
    }
    SSL_CTX_set_verify(variant, SSL_VERIFY_PEER, NULL);
    if (!is_set(options->ca))
        return SSL_CTX_set_default_verify_paths(variant) == 1 ||
               say(error, "CA", "of the system");
    if (!can_open("CA", options->ca, error))
        return false;
    return load_authorities(variant, options->ca) || say(error, "CA", options->ca);
}

struct tls_context *tls_client_new(const struct tls_client_options *options, char **error)
{
    *error = NULL;
    struct tls_context *context = context_new(1);
    SSL_CTX *variant = variant_new(TLS_client_method());
    context->variants[context->variant_count++] = variant;
    context->verifies = options->verify;
    set_alpn(context, options->alpn);
    if (context->alpn_len > 0)
        check(SSL_CTX_set_alpn_protos(variant, context->alpn, context->alpn_len) == 0);
    bool is_good = set_trust(variant, options, error);
    if (is_good && is_set(options->cert))
        is_good = load_certificate(variant, options->cert, options->key, error);
    if (is_good)
        return context;
    tls_unref(context);
    return NULL;
}

struct tls_context *tls_ref(struct tls_context *context)
{
    atomic_fetch_add(&context->holders, 1);
    return context;
}

void tls_unref(struct tls_context *context)
{
    if (context == NULL || atomic_fetch_sub(&context->holders, 1) > 1)
        return;
    for (size_t i = 0; i < context->variant_count; i++)
        SSL_CTX_free(context->variants[i]);
    free(context->variants);
    OPENSSL_cleanse(context->ticket_keys, sizeof(context->ticket_keys));
    free(context);
}

/* An SSL holds its context, since callbacks reach the other variants through it. */
static void on_ssl_freed(void *parent, void *held, CRYPTO_EX_DATA *data, int index,
                         long number, void *pointer)
{
    (void)parent, (void)data, (void)index, (void)number, (void)pointer;
    tls_unref(held);
}

static int held_index;
static CRYPTO_ONCE held_once = CRYPTO_ONCE_STATIC_INIT;

static void make_held_index(void)
{
    held_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, on_ssl_freed);
    check(held_index >= 0);
}

static SSL *attach(struct tls_context *context, struct stream *stream)
{
    check(stream->ssl == NULL && stream->fd >= 0);
    CRYPTO_THREAD_run_once(&held_once, make_held_index);
    SSL *ssl = SSL_new(context->variants[0]);
    check(ssl != NULL);
    SSL_set_ex_data(ssl, held_index, tls_ref(context));
    check(SSL_set_fd(ssl, stream->fd) == 1);
    stream->ssl = ssl;
    return ssl;
}

void tls_accept(struct tls_context *context, struct stream *stream)
{
    SSL_set_accept_state(attach(context, stream));
}

void tls_connect(struct tls_context *context, struct stream *stream,
                 const char *server_name)
{
    SSL *ssl = attach(context, stream);
    SSL_set_connect_state(ssl);
    X509_VERIFY_PARAM *wanted = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(wanted, server_name) == 1)
        return; /* an address: verified, and RFC 6066 section 3 forbids it in SNI */
    ERR_clear_error();
    char *name =
        must_strdup(server_name); /* the macro casts const away, and clang warns of it */
    check(SSL_set_tlsext_host_name(ssl, name) == 1);
    free(name);
    if (context->verifies) {
        X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        check(X509_VERIFY_PARAM_set1_host(wanted, server_name, 0) == 1);
    }
}
