#include "broker/seal.h"

#include "broker/envelope.h"
#include "broker/little.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

#define SEAL_VERSION 1
#define HEAD_LEN     5 /* before the MAC */
#define MAC_LEN      16
#define DIGEST_LEN   32

struct seal {
    struct file_keys keys; /* count 0: none */
    bool accepts_unsigned;
    EVP_MAC *mac;
    EVP_MAC_CTX *contexts[FILE_KEYS_MAX]; /* one a key, which it holds */
};

const char *seal_refusal_label(int refusal)
{
    static const char *const labels[SEAL_REFUSAL_COUNT] = {"unsigned", "unknown_key",
                                                           "forged", "bad"};
    check(refusal >= 0 && refusal < SEAL_REFUSAL_COUNT);
    return labels[refusal];
}

struct seal *seal_new(void)
{
    struct seal *seal = must_calloc(1, sizeof(*seal));
    seal->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    check(seal->mac != NULL);
    return seal;
}

static void drop_keys(struct seal *seal)
{
    for (size_t i = 0; i < seal->keys.count; i++)
        EVP_MAC_CTX_free(seal->contexts[i]);
    OPENSSL_cleanse(&seal->keys, sizeof(seal->keys));
}

void seal_free(struct seal *seal)
{
    drop_keys(seal);
    EVP_MAC_free(seal->mac);
    free(seal);
}

static EVP_MAC_CTX *context_of(const struct seal *seal, const struct file_key *key)
{
    char digest[] = "SHA256";
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end()};
    EVP_MAC_CTX *context = EVP_MAC_CTX_new(seal->mac);
    check(context != NULL);
    check(EVP_MAC_init(context, key->bytes, sizeof(key->bytes), parameters) == 1);
    return context;
}

void seal_set_keys(struct seal *seal, const struct file_keys *keys, bool accepts_unsigned)
{
    drop_keys(seal);
    seal->accepts_unsigned = accepts_unsigned;
    if (keys == NULL)
        return;
    seal->keys = *keys;
    for (size_t i = 0; i < keys->count; i++)
        seal->contexts[i] = context_of(seal, &keys->keys[i]);
}

bool seal_has_keys(const struct seal *seal)
{
    return seal->keys.count > 0;
}

bool seal_is_strict(const struct seal *seal)
{
    return seal_has_keys(seal) && !seal->accepts_unsigned;
}

size_t seal_len(const struct seal *seal)
{
    return seal_has_keys(seal) ? SEAL_LEN : 0;
}

static void update(EVP_MAC_CTX *context, const char *bytes, size_t len)
{
    check(len == 0 || EVP_MAC_update(context, (const unsigned char *)bytes, len) == 1);
}

/* `head` is what stands before the MAC. */
static void make_mac(EVP_MAC_CTX *context, const char *head, struct slice channel,
                     struct slice body, unsigned char digest[DIGEST_LEN])
{
    char start[HEAD_LEN + 2];
    memcpy(start, head, HEAD_LEN);
    put_little(start + HEAD_LEN, channel.len, 2);
    check(EVP_MAC_init(context, NULL, 0, NULL) == 1); /* the same key again */
    update(context, start, sizeof(start));
    update(context, channel.data, channel.len);
    if (slice_starts_with(body, SLICE("S1")) && body.len > ENVELOPE_FLAGS_OFFSET) {
        char lead[ENVELOPE_FLAGS_OFFSET + 1];
        memcpy(lead, body.data, sizeof(lead));
        lead[ENVELOPE_FLAGS_OFFSET] &= (char)~ENVELOPE_RETRANSMIT;
        update(context, lead, sizeof(lead));
        body = slice_from(body, sizeof(lead));
    }
    update(context, body.data, body.len);
    size_t len = 0;
    check(EVP_MAC_final(context, digest, &len, DIGEST_LEN) == 1 && len == DIGEST_LEN);
}

void seal_write(struct seal *seal, struct slice channel, struct slice body, char *room)
{
    if (!seal_has_keys(seal))
        return;
    check(channel.len <= UINT16_MAX);
    char *at = put_bytes(room, "SK", 2);
    at = put_little(at, SEAL_VERSION, 1);
    at = put_little(at, seal_is_strict(seal) ? SEAL_STRICT : 0, 1);
    at = put_bytes(at, &seal->keys.keys[0].id, 1);
    unsigned char digest[DIGEST_LEN];
    make_mac(seal->contexts[0], room, channel, body, digest);
    put_bytes(at, digest, MAC_LEN);
}

static bool is_sealed(struct slice bytes)
{
    return slice_starts_with(bytes, SLICE("SK"));
}

bool seal_peek(struct slice bytes, struct slice *body, unsigned *flags)
{
    *flags = 0;
    *body = bytes;
    if (!is_sealed(bytes))
        return true;
    if (bytes.len < SEAL_LEN || bytes.data[2] != SEAL_VERSION)
        return false;
    *flags = (unsigned char)bytes.data[3];
    *body = slice_from(bytes, SEAL_LEN);
    return true;
}

enum seal_verdict seal_open(struct seal *seal, struct slice channel, struct slice bytes,
                            struct slice *body)
{
    unsigned flags;
    if (!seal_peek(bytes, body, &flags))
        return SEAL_BAD;
    if (!seal_has_keys(seal))
        return SEAL_UNCHECKED;
    if (!is_sealed(bytes))
        return seal->accepts_unsigned ? SEAL_UNCHECKED : SEAL_UNSIGNED;
    int key = file_keys_find(&seal->keys, bytes.data[HEAD_LEN - 1]);
    if (key < 0)
        return SEAL_UNKNOWN_KEY;
    if (channel.len > UINT16_MAX)
        return SEAL_FORGED;
    unsigned char digest[DIGEST_LEN];
    make_mac(seal->contexts[key], bytes.data, channel, *body, digest);
    return CRYPTO_memcmp(digest, bytes.data + HEAD_LEN, MAC_LEN) == 0 ? SEAL_CHECKED
                                                                      : SEAL_FORGED;
}
