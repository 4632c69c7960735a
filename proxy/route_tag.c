#include "proxy/route_tag.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

static const char TAG_PURPOSE[] = "sidrail-tag-1";
static const char ALPHABET[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* ── base64url ── */

/* The value of a digit and 1; 0 for what is none. Every request has one or two tags to read. */
static const uint8_t digits_of[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,
    ['H'] = 8,  ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14,
    ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21,
    ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28,
    ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35,
    ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42,
    ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49,
    ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63,
    ['_'] = 64,
};

static int digit_of(char character)
{
    return (int)digits_of[(unsigned char)character] - 1;
}

void base64url_encode(const unsigned char *bytes, size_t len, char *text)
{
    unsigned waiting = 0, waiting_bits = 0;
    for (size_t i = 0; i < len; i++) {
        waiting = waiting << 8 | bytes[i];
        waiting_bits += 8;
        while (waiting_bits >= 6) {
            waiting_bits -= 6;
            *text++ = ALPHABET[waiting >> waiting_bits & 63];
        }
    }
    if (waiting_bits > 0)
        *text = ALPHABET[waiting << (6 - waiting_bits) & 63];
}

bool base64url_decode(struct slice text, unsigned char *bytes, size_t len)
{
    if (text.len != (len * 4 + 2) / 3)
        return false;
    unsigned waiting = 0, waiting_bits = 0;
    for (size_t i = 0; i < text.len; i++) {
        int digit = digit_of(text.data[i]);
        if (digit < 0)
            return false;
        waiting = waiting << 6 | (unsigned)digit;
        waiting_bits += 6;
        if (waiting_bits >= 8) {
            waiting_bits -= 8;
            *bytes++ = (unsigned char)(waiting >> waiting_bits);
        }
    }
    /* what is left over must be zero, or the same bytes would have several spellings */
    return (waiting & ((1u << waiting_bits) - 1)) == 0;
}

/* ── tags ── */

uint64_t route_tag_make(const struct file_key *key, struct slice upstream,
                        struct slice identity, unsigned port, unsigned attempt)
{
    char numbers[32]; /* 00 port, and 00 attempt when there is one */
    int numbers_len = attempt == 0 ? snprintf(numbers, sizeof(numbers), "%c%u", 0, port)
                                   : snprintf(numbers, sizeof(numbers), "%c%u%c%u", 0,
                                              port, 0, attempt);
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    check(hmac != NULL);
    EVP_MAC_CTX *context = EVP_MAC_CTX_new(hmac);
    check(context != NULL);
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end()};
    check(EVP_MAC_init(context, key->bytes, sizeof(key->bytes), parameters) == 1);
    struct slice parts[] = {slice_of(TAG_PURPOSE, sizeof(TAG_PURPOSE)), /* with its NUL */
                            upstream, slice_of("", 1), identity,
                            slice_of(numbers, (size_t)numbers_len)};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (parts[i].len > 0)
            check(EVP_MAC_update(context, (const unsigned char *)parts[i].data,
                                 parts[i].len) == 1);
    unsigned char mac[32];
    size_t mac_len;
    check(EVP_MAC_final(context, mac, &mac_len, sizeof(mac)) == 1 && mac_len == 32);
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(hmac);

    uint64_t tag = 0;
    for (size_t i = 0; i < sizeof(tag); i++)
        tag = tag << 8 | mac[i];
    return tag;
}

void route_tag_format(uint64_t tag, char text[ROUTE_TAG_LEN])
{
    unsigned char bytes[8];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(tag >> (56 - 8 * i));
    base64url_encode(bytes, sizeof(bytes), text);
}

bool route_tag_parse(struct slice text, uint64_t *tag)
{
    unsigned char bytes[8];
    if (!base64url_decode(text, bytes, sizeof(bytes)))
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        value = value << 8 | bytes[i];
    *tag = value;
    return true;
}

void route_tag_suffix(char key_id, uint64_t tag, char text[ROUTE_TAG_SUFFIX_LEN])
{
    text[0] = '.';
    text[1] = key_id;
    route_tag_format(tag, text + 2);
}

bool route_tag_split(struct slice sid, const struct file_keys *keys, size_t *key,
                     uint64_t *tag, size_t *bare_len)
{
    if (sid.len <= ROUTE_TAG_SUFFIX_LEN)
        return false;
    struct slice suffix = slice_from(sid, sid.len - ROUTE_TAG_SUFFIX_LEN);
    if (suffix.data[0] != '.')
        return false;
    int place = file_keys_find(keys, suffix.data[1]);
    if (place < 0 || !route_tag_parse(slice_from(suffix, 2), tag))
        return false;
    *key = (size_t)place;
    *bare_len = sid.len - ROUTE_TAG_SUFFIX_LEN;
    return true;
}
