/*
 * Certificates for unit tests.
 */
#pragma once

#include "tests/unit/unit.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

/* A self-signed certificate FOLDER/NAME.crt with its .key, for the subject alternative names `names`, as
 * "DNS:a.test,IP:127.0.0.1". */
static inline void certificate_make(const char *folder, const char *name,
                                    const char *names)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *subject = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name,
                               -1, -1, 0);
    X509_set_issuer_name(cert, subject);
    X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    X509_add_ext(cert, san, -1);
    X509_EXTENSION_free(san);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);

    char path[300];
    snprintf(path, sizeof(path), "%s/%s.crt", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    PEM_write_X509(file, cert);
    fclose(file);
    snprintf(path, sizeof(path), "%s/%s.key", folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    X509_free(cert);
    EVP_PKEY_free(key);
}
