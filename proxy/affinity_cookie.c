#include "proxy/affinity_cookie.h"

#include "shared/timing.h"

#include "proxy/route_tag.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define UPSTREAM_HASH_BITS 36
#define UPSTREAM_HASH_LEN  6

/* Places in the value. */
#define TAG_AT           1
#define UPSTREAM_HASH_AT (TAG_AT + ROUTE_TAG_LEN + 1)
#define CLIENT_KEY_AT    (UPSTREAM_HASH_AT + UPSTREAM_HASH_LEN + 1)

/* 36 bits are six characters but not whole bytes: they travel as the high bits of five bytes, whose
 * seventh character would hold the four zero bits that follow. */
static void hash_format(uint64_t hash, char text[UPSTREAM_HASH_LEN])
{
    unsigned char bytes[5];
    char characters[7];
    uint64_t shifted = hash << 4;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(shifted >> (32 - 8 * i));
    base64url_encode(bytes, sizeof(bytes), characters);
    memcpy(text, characters, UPSTREAM_HASH_LEN);
}

static bool hash_parse(const char *text, uint64_t *hash)
{
    unsigned char bytes[5];
    char characters[7];
    memcpy(characters, text, UPSTREAM_HASH_LEN);
    characters[6] = 'A'; /* zero */
    if (!base64url_decode(slice_of(characters, sizeof(characters)), bytes, sizeof(bytes)))
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        value = value << 8 | bytes[i];
    *hash = value >> 4;
    return true;
}

uint64_t upstream_hash_of(struct slice upstream)
{
    return XXH64(upstream.data, upstream.len, 0) >> (64 - UPSTREAM_HASH_BITS);
}

void affinity_cookie_format(const struct affinity_cookie *cookie,
                            char text[AFFINITY_COOKIE_LEN])
{
    text[0] = cookie->key_id;
    route_tag_format(cookie->tag, text + TAG_AT);
    text[UPSTREAM_HASH_AT - 1] = '.';
    hash_format(cookie->upstream_hash, text + UPSTREAM_HASH_AT);
    text[CLIENT_KEY_AT - 1] = '.';
    /* the client key has the width of a tag */
    route_tag_format(cookie->client_key, text + CLIENT_KEY_AT);
}

bool affinity_cookie_parse(struct slice value, struct affinity_cookie *cookie)
{
    if (value.len != AFFINITY_COOKIE_LEN || value.data[UPSTREAM_HASH_AT - 1] != '.' ||
        value.data[CLIENT_KEY_AT - 1] != '.')
        return false;
    char id = value.data[0];
    if (!((id >= 'A' && id <= 'Z') || (id >= 'a' && id <= 'z') ||
          (id >= '0' && id <= '9')))
        return false;
    cookie->key_id = id;
    return route_tag_parse(slice_of(value.data + TAG_AT, ROUTE_TAG_LEN), &cookie->tag) &&
           hash_parse(value.data + UPSTREAM_HASH_AT, &cookie->upstream_hash) &&
           route_tag_parse(slice_of(value.data + CLIENT_KEY_AT, ROUTE_TAG_LEN),
                           &cookie->client_key);
}

bool affinity_cookie_next(struct slice *rest, struct slice name, struct slice *value)
{
    struct slice pair;
    while (slice_cut(rest, ';', &pair)) {
        pair = slice_trim(pair);
        size_t equals = slice_find(pair, '=');
        if (equals == pair.len || !slice_equals(slice_to(pair, equals), name))
            continue;
        *value = slice_from(pair, equals + 1);
        if (value->len >= 2 && value->data[0] == '"' &&
            value->data[value->len - 1] == '"')
            *value = slice_of(value->data + 1, value->len - 2);
        return true;
    }
    return false;
}

/* Text appended to a field of fixed size; what the options admit always fits. */
struct field {
    char *text;
    size_t len;
};

static void field_add(struct field *field, const char *bytes, size_t len)
{
    check(field->len + len <= AFFINITY_COOKIE_FIELD_MAX);
    memcpy(field->text + field->len, bytes, len);
    field->len += len;
}

static void field_add_text(struct field *field, const char *text)
{
    field_add(field, text, strlen(text));
}

size_t affinity_cookie_write_field(const struct affinity_cookie_options *options,
                                   const struct affinity_cookie *cookie, bool is_tls,
                                   bool is_cross_site,
                                   char text[AFFINITY_COOKIE_FIELD_MAX])
{
    bool is_embedded = is_tls && is_cross_site;
    int same_site = options->same_site;
    if (same_site == SAME_SITE_AUTO)
        same_site = is_embedded ? SAME_SITE_NONE : SAME_SITE_LAX;
    bool is_secure = options->secure == COOKIE_SECURE_ALWAYS ||
                     (options->secure == COOKIE_SECURE_AUTO && is_tls) ||
                     same_site == SAME_SITE_NONE;
    char value[AFFINITY_COOKIE_LEN];
    affinity_cookie_format(cookie, value);

    struct field field = {text, 0};
    field_add_text(&field, options->name);
    field_add(&field, "=", 1);
    field_add(&field, value, sizeof(value));
    field_add_text(&field, "; Path=");
    field_add_text(&field, options->path);
    if (options->domain[0] != '\0') {
        field_add_text(&field, "; Domain=");
        field_add_text(&field, options->domain);
    }
    if (options->max_age > 0) {
        char seconds[48];
        snprintf(seconds, sizeof(seconds), "; Max-Age=%" PRIu64,
                 (options->max_age + SECONDS(1) - 1) / SECONDS(1));
        field_add_text(&field, seconds);
    }
    field_add_text(&field, "; HttpOnly");
    if (is_secure)
        field_add_text(&field, "; Secure");
    field_add_text(&field, same_site == SAME_SITE_NONE     ? "; SameSite=None"
                           : same_site == SAME_SITE_STRICT ? "; SameSite=Strict"
                                                           : "; SameSite=Lax");
    if (is_embedded && same_site == SAME_SITE_NONE)
        field_add_text(&field, "; Partitioned");
    return field.len;
}

/* "name:8080", "[::1]:8080" without the port. */
static struct slice host_without_port(struct slice host)
{
    if (host.len > 0 && host.data[0] == '[')
        return slice_to(host, slice_find(host, ']') + 1);
    return slice_to(host, slice_find(host, ':'));
}

bool affinity_cookie_is_cross_site(struct slice origin, struct slice host)
{
    if (origin.len == 0)
        return false;
    for (size_t i = 0; i + 3 <= origin.len; i++)
        if (memcmp(origin.data + i, "://", 3) == 0)
            return !slice_equals_nocase(host_without_port(slice_from(origin, i + 3)),
                                        host_without_port(host));
    return true; /* "null": a sandboxed frame, a file */
}
