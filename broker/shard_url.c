#include "broker/shard_url.h"

#include "shared/address.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#define HOST_MAX     253 /* RFC 1035 section 2.3.4, as text */
#define DATABASE_MAX 65535

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static const char *wrong_at(struct shard_url *url, const char *what, size_t offset)
{
    snprintf(url->why, sizeof(url->why), "%s at character %zu", what, offset + 1);
    return url->why;
}

/* Percent-encoding undone (RFC 3986 section 2.1). NULL, or what is wrong; `offset` is that of the text in the URL. */
static const char *decode(struct shard_url *url, struct slice text, size_t offset,
                          char **decoded)
{
    char *out = *decoded = must_calloc(1, text.len + 1);
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] != '%') {
            *out++ = text.data[i];
            continue;
        }
        int high = i + 1 < text.len ? hex_value(text.data[i + 1]) : -1;
        int low = i + 2 < text.len ? hex_value(text.data[i + 2]) : -1;
        if (high < 0 || low < 0)
            return wrong_at(url, "has a % without two hexadecimal digits (write %25)",
                            offset + i);
        if (high == 0 && low == 0)
            return wrong_at(url, "has %00, which no name or password holds,", offset + i);
        *out++ = (char)(high << 4 | low);
        i += 2;
    }
    return NULL;
}

/* "[user][:password]" before the '@'. */
static const char *parse_credentials(struct slice text, size_t offset,
                                     struct shard_url *url)
{
    size_t colon = slice_find(text, ':');
    const char *why = NULL;
    if (colon > 0)
        why = decode(url, slice_to(text, colon), offset, &url->username);
    if (why == NULL && colon < text.len)
        why =
            decode(url, slice_from(text, colon + 1), offset + colon + 1, &url->password);
    return why;
}

/* "", "/", or "/N": pub/sub has no databases, so the number of one changes nothing. */
static const char *parse_path(struct slice path, size_t offset, struct shard_url *url)
{
    uint64_t database;
    if (slice_find(path, '?') < path.len)
        return wrong_at(url, "has a query, which is not read here,",
                        offset + slice_find(path, '?'));
    if (path.len <= 1 || slice_to_number(slice_from(path, 1), 0, DATABASE_MAX, &database))
        return NULL;
    return wrong_at(url, "has something else than a database's number", offset + 1);
}

static const char *check_host(struct slice host, size_t offset, struct shard_url *url)
{
    for (size_t i = 0; i < host.len; i++)
        if ((unsigned char)host.data[i] <= ' ' || host.data[i] == 0x7f ||
            strchr("[]?#%\\", host.data[i]) != NULL)
            return wrong_at(url, "has what no host has", offset + i);
    if (host.len == 0)
        return "names no host";
    return host.len > HOST_MAX ? "names a host of more than 253 characters" : NULL;
}

/* host, host:port, [IPv6] or [IPv6]:port */
static const char *parse_place(struct slice text, size_t offset, struct shard_url *url)
{
    struct slice host, rest;
    bool is_v6 = text.len > 0 && text.data[0] == '[';
    if (is_v6) {
        size_t end = slice_find(text, ']');
        if (end == text.len)
            return wrong_at(url, "has a [ without a ]", offset);
        host = slice_of(text.data + 1, end - 1);
        rest = slice_from(text, end + 1);
        if (slice_find(host, ':') == host.len || (rest.len > 0 && rest.data[0] != ':'))
            return wrong_at(url, "has something else than [IPv6]:port", offset);
    } else {
        size_t colon = slice_find(text, ':');
        host = slice_to(text, colon);
        rest = slice_from(text, colon);
        if (slice_find_last(text, ':') != colon)
            return wrong_at(url, "has an IPv6 address without [ and ]", offset);
    }
    const char *why = check_host(host, offset + is_v6, url);
    uint64_t number;
    struct slice port = rest.len > 0 ? slice_from(rest, 1) : SLICE("6379");
    if (why == NULL && !slice_to_number(port, 1, 65535, &number))
        why = "has a port that is not 1..65535";
    if (why != NULL)
        return why;
    url->host = slice_dup(host);
    url->port = slice_dup(port);
    return NULL;
}

static const char *parse_unix(struct slice text, struct shard_url *url)
{
    struct address address;
    const char *why;
    if (slice_starts_with(text, SLICE("unix://")) &&
        !slice_starts_with(text, SLICE("unix:///")))
        return "must be unix:/path; a user and a password are other options";
    if (slice_starts_with(text, SLICE("unix:///"))) {
        struct slice path = slice_from(text, strlen("unix://"));
        url->unix_path = must_printf("unix:%.*s", SLICE_ARGS(path));
    } else {
        url->unix_path = slice_dup(text);
    }
    return address_parse(slice_from_text(url->unix_path), &address, &why) ? NULL : why;
}

const char *shard_url_parse(struct slice text, struct shard_url *url)
{
    if (slice_starts_with(text, SLICE("unix:/")))
        return parse_unix(text, url);
    url->is_tls = slice_starts_with(text, SLICE("rediss://"));
    if (!url->is_tls && !slice_starts_with(text, SLICE("redis://")))
        return "must begin with redis://, rediss:// or unix:/";
    size_t offset = strlen(url->is_tls ? "rediss://" : "redis://");
    text = slice_from(text, offset);
    size_t at = slice_find_last(text, '@');
    const char *why = NULL;
    if (at < text.len) {
        why = parse_credentials(slice_to(text, at), offset, url);
        text = slice_from(text, at + 1);
        offset += at + 1;
    }
    size_t slash = min_size(slice_find(text, '/'), slice_find(text, '?'));
    if (why == NULL)
        why = parse_path(slice_from(text, slash), offset + slash, url);
    return why != NULL ? why : parse_place(slice_to(text, slash), offset, url);
}

void shard_url_cleanup(struct shard_url *url)
{
    free(url->host);
    free(url->port);
    free(url->unix_path);
    free(url->username);
    if (url->password != NULL)
        explicit_bzero(url->password, strlen(url->password));
    free(url->password);
    *url = (struct shard_url){0};
}

char *shard_url_name(const struct shard_url *url)
{
    if (url->host == NULL)
        return must_strdup(url->unix_path);
    bool is_v6 = strchr(url->host, ':') != NULL;
    return must_printf(is_v6 ? "[%s]:%s" : "%s:%s", url->host, url->port);
}

uint64_t shard_url_place(struct slice text)
{
    struct shard_url url = {0};
    uint64_t place = 0;
    if (shard_url_parse(text, &url) == NULL) {
        char *name = shard_url_name(&url);
        for (char *c = name; url.host != NULL && *c != '\0'; c++)
            *c = (char)tolower((unsigned char)*c);
        place = XXH3_64bits(name, strlen(name));
        free(name);
    }
    shard_url_cleanup(&url);
    return place;
}
