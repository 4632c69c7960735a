#include "broker/shard_url.h"

#include "shared/address.h"

#include <ctype.h>
#include <stdlib.h>
#include <xxhash.h>

#define HOST_MAX 253 /* RFC 1035 section 2.3.4, as text */

/* "[user][:password]" before the '@'. */
static void parse_credentials(struct slice text, struct shard_url *url)
{
    size_t colon = slice_find(text, ':');
    if (colon > 0)
        url->username = slice_dup(slice_to(text, colon));
    if (colon < text.len)
        url->password = slice_dup(slice_from(text, colon + 1));
}

const char *shard_url_parse(struct slice text, struct shard_url *url)
{
    if (slice_starts_with(text, SLICE("unix:/"))) {
        struct address address;
        const char *why;
        if (!address_parse(text, &address, &why))
            return why;
        url->unix_path = slice_dup(text);
        return NULL;
    }
    url->is_tls = slice_starts_with(text, SLICE("rediss://"));
    if (!url->is_tls && !slice_starts_with(text, SLICE("redis://")))
        return "must begin with redis://, rediss:// or unix:/";
    text = slice_from(text, strlen(url->is_tls ? "rediss://" : "redis://"));
    size_t at = slice_find_last(text, '@');
    if (at < text.len) {
        parse_credentials(slice_to(text, at), url);
        text = slice_from(text, at + 1);
    }
    size_t slash = slice_find(text, '/');
    struct slice path = slice_from(text, slash);
    if (path.len > 1 && !slice_equals(path, SLICE("/0")))
        return "pub/sub knows no databases; leave the path away";
    text = slice_to(text, slash);
    size_t colon = slice_find_last(text, ':');
    size_t bracket = slice_find_last(text, ']');
    bool has_port = colon < text.len && (bracket == text.len || colon > bracket);
    struct slice host = has_port ? slice_to(text, colon) : text;
    struct slice port = has_port ? slice_from(text, colon + 1) : SLICE("6379");
    if (host.len >= 2 && host.data[0] == '[' && host.data[host.len - 1] == ']')
        host = slice_of(host.data + 1, host.len - 2);
    uint64_t number;
    if (host.len == 0)
        return "names no host";
    if (host.len > HOST_MAX)
        return "names a host of more than 253 characters";
    if (!slice_to_number(port, 1, 65535, &number))
        return "has a port that is not 1..65535";
    url->host = slice_dup(host);
    url->port = slice_dup(port);
    return NULL;
}

void shard_url_cleanup(struct shard_url *url)
{
    free(url->host);
    free(url->port);
    free(url->unix_path);
    free(url->username);
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
