#include "shared/admin_host.h"

#include "shared/address.h"

/* The value of the only field Host; more than one, or a name before a space, makes it broken. */
static bool find_host(struct slice fields, struct slice *host, size_t *count)
{
    struct slice line, name;
    *count = 0;
    while (slice_cut(&fields, '\n', &line)) {
        if (line.len > 0 && line.data[line.len - 1] == '\r')
            line.len--;
        size_t colon = slice_find(line, ':');
        if (colon == line.len)
            continue;
        name = slice_to(line, colon);
        if (!slice_equals_nocase(slice_trim(name), SLICE("host")))
            continue;
        if (slice_trim(name).len != name.len || ++*count > 1)
            return false;
        *host = slice_trim(slice_from(line, colon + 1));
    }
    return true;
}

static bool is_digits(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
    return true;
}

/* An IP address, with or without a port. */
static bool is_ip(struct slice host)
{
    struct address address;
    const char *why;
    char text[64];
    if (host.len + sizeof(":0") > sizeof(text) || slice_starts_with(host, SLICE("unix:")))
        return false;
    if (address_parse(host, &address, &why))
        return true;
    int len = snprintf(text, sizeof(text), "%.*s:0", SLICE_ARGS(host));
    return address_parse(slice_of(text, (size_t)len), &address, &why);
}

/* Is `name` the pattern, or below "*.domain"? */
static bool matches(struct slice name, struct slice pattern)
{
    if (slice_equals(pattern, SLICE("*")))
        return true;
    if (!slice_starts_with(pattern, SLICE("*.")))
        return slice_equals_nocase(name, pattern);
    struct slice domain = slice_from(pattern, 1); /* ".domain" */
    return name.len > domain.len &&
           slice_equals_nocase(slice_from(name, name.len - domain.len), domain);
}

enum admin_host admin_host_judge(struct slice fields, const struct text_list *hosts)
{
    struct slice host;
    size_t count;
    if (!find_host(fields, &host, &count))
        return ADMIN_HOST_BROKEN;
    if (count == 0 || is_ip(host))
        return ADMIN_HOST_GOOD;
    size_t colon = slice_find(host, ':');
    if (host.len == 0 || !is_digits(slice_from(host, colon + 1)))
        return ADMIN_HOST_BROKEN;
    host = slice_to(host, colon);
    if (slice_ends_with(host, SLICE(".")))
        host.len--;
    if (slice_equals_nocase(host, SLICE("localhost")))
        return ADMIN_HOST_GOOD;
    for (size_t i = 0; hosts != NULL && i < hosts->count; i++)
        if (matches(host, slice_from_text(hosts->items[i])))
            return ADMIN_HOST_GOOD;
    return ADMIN_HOST_OTHER;
}

const char *admin_host_check(const void *value)
{
    struct slice name = slice_from_text(*(char *const *)value);
    if (slice_equals(name, SLICE("*")))
        return NULL;
    if (slice_starts_with(name, SLICE("*.")))
        name = slice_from(name, 2);
    bool is_name = name.len > 0 && name.len <= 253;
    for (size_t i = 0; i < name.len && is_name; i++) {
        char c = name.data[i];
        is_name = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
    }
    return is_name ? NULL
                   : "must be a host name without a port, \"*.example.com\" or \"*\"";
}
