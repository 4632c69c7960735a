#include "proxy/route_tag.h"

#include "shared/timing.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE_MAX ((size_t)65536)

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

/* ── keys ── */

static bool is_key_id(char id)
{
    return (id >= 'A' && id <= 'Z') || (id >= 'a' && id <= 'z') ||
           (id >= '0' && id <= '9');
}

static int hex_digit(char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    if (character >= 'a' && character <= 'f')
        return character - 'a' + 10;
    return character >= 'A' && character <= 'F' ? character - 'A' + 10 : -1;
}

static bool parse_hex(struct slice text, unsigned char *bytes, size_t len)
{
    if (text.len != len * 2)
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(text.data[2 * i]), low = hex_digit(text.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

/* One line that is neither blank nor a comment; NULL or what is wrong with it. */
static const char *parse_key_line(struct slice line, struct route_keys *keys)
{
    size_t id_len = 0;
    while (id_len < line.len && line.data[id_len] != ' ' && line.data[id_len] != '\t')
        id_len++;
    if (id_len != 1 || !is_key_id(line.data[0]))
        return "the ID must be one letter or digit";
    if (keys->count == ROUTE_KEYS_MAX)
        return "more than 16 keys";
    if (route_keys_find(keys, line.data[0]) >= 0)
        return "this ID was used before";
    struct route_key *key = &keys->keys[keys->count];
    key->id = line.data[0];
    if (!parse_hex(slice_trim(slice_from(line, 1)), key->bytes, sizeof(key->bytes)))
        return "the key must be 32 hexadecimal digits";
    keys->count++;
    return NULL;
}

bool route_keys_parse(struct slice text, struct route_keys *keys, char *error,
                      size_t error_size)
{
    memset(keys, 0, sizeof(*keys));
    struct slice rest = text, line;
    for (unsigned number = 1; slice_cut(&rest, '\n', &line); number++) {
        if (line.len > 0 && line.data[line.len - 1] == '\r')
            line.len--;
        line = slice_trim(line);
        if (line.len == 0 || line.data[0] == '#')
            continue;
        const char *why = parse_key_line(line, keys);
        if (why != NULL) {
            snprintf(error, error_size, "line %u: %s", number, why);
            return false;
        }
    }
    if (keys->count == 0)
        snprintf(error, error_size, "there is no key in it");
    return keys->count > 0;
}

/* The whole file, or false with errno (EFBIG when it is too long). */
static bool read_file(const char *path, char *text, size_t *len, mode_t *mode)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct stat about;
    ssize_t got = fstat(fd, &about);
    *len = 0;
    while (got >= 0 && *len < KEY_FILE_MAX) {
        got = read(fd, text + *len, KEY_FILE_MAX - *len);
        if (got == 0)
            break;
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got > 0)
            *len += (size_t)got;
    }
    int reason = got < 0 ? errno : *len == KEY_FILE_MAX ? EFBIG : 0;
    close(fd);
    *mode = about.st_mode;
    errno = reason;
    return reason == 0;
}

bool route_keys_load(const char *path, struct route_keys *keys,
                     bool *is_readable_by_others, char *error, size_t error_size)
{
    char *text = must_calloc(1, KEY_FILE_MAX);
    size_t len;
    mode_t mode;
    char why[128];
    bool loaded = read_file(path, text, &len, &mode);
    if (!loaded) {
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
    } else {
        *is_readable_by_others = (mode & S_IROTH) != 0;
        loaded = route_keys_parse(slice_of(text, len), keys, why, sizeof(why));
        if (!loaded)
            snprintf(error, error_size, "%s: %s", path, why);
    }
    OPENSSL_cleanse(text, KEY_FILE_MAX);
    free(text);
    return loaded;
}

void route_keys_make_random(struct route_keys *keys)
{
    memset(keys, 0, sizeof(*keys));
    keys->count = 1;
    keys->keys[0].id = '0';
    check(RAND_bytes(keys->keys[0].bytes, sizeof(keys->keys[0].bytes)) == 1);
}

int route_keys_find(const struct route_keys *keys, char id)
{
    for (size_t i = 0; i < keys->count; i++)
        if (keys->keys[i].id == id)
            return (int)i;
    return -1;
}

bool route_keys_equal(const struct route_keys *a, const struct route_keys *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (a->keys[i].id != b->keys[i].id ||
            memcmp(a->keys[i].bytes, b->keys[i].bytes, sizeof(a->keys[i].bytes)) != 0)
            return false;
    return true;
}

/* ── tags ── */

uint64_t route_tag_make(const struct route_key *key, struct slice upstream,
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

bool route_tag_split(struct slice sid, const struct route_keys *keys, size_t *key,
                     uint64_t *tag, size_t *bare_len)
{
    if (sid.len <= ROUTE_TAG_SUFFIX_LEN)
        return false;
    struct slice suffix = slice_from(sid, sid.len - ROUTE_TAG_SUFFIX_LEN);
    if (suffix.data[0] != '.')
        return false;
    int place = route_keys_find(keys, suffix.data[1]);
    if (place < 0 || !route_tag_parse(slice_from(suffix, 2), tag))
        return false;
    *key = (size_t)place;
    *bare_len = sid.len - ROUTE_TAG_SUFFIX_LEN;
    return true;
}
