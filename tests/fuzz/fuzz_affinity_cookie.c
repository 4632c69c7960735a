/* fuzz: proxy */
/*
 * What is read of a Cookie field and of a sid lies inside the input and is what would be written:
 * parse(write(x)) = x, and write(parse(text)) = text.
 */
#include "proxy/affinity_cookie.h"
#include "proxy/route_tag.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_cookies(struct slice field)
{
    struct slice rest = field, value;
    while (affinity_cookie_next(&rest, SLICE("c"), &value)) {
        check(value.data >= field.data &&
              value.data + value.len <= field.data + field.len);
        struct affinity_cookie cookie;
        if (!affinity_cookie_parse(value, &cookie))
            continue;
        char text[AFFINITY_COOKIE_LEN];
        affinity_cookie_format(&cookie, text);
        check(slice_equals(value, slice_of(text, sizeof(text))));
    }
}

static void check_sid(struct slice sid)
{
    static const struct file_keys keys = {.count = 2, .keys = {{.id = 'a'}, {.id = 'b'}}};
    size_t key, bare_len;
    uint64_t tag;
    if (!route_tag_split(sid, &keys, &key, &tag, &bare_len))
        return;
    char suffix[ROUTE_TAG_SUFFIX_LEN];
    route_tag_suffix(keys.keys[key].id, tag, suffix);
    check(bare_len > 0 && bare_len + sizeof(suffix) == sid.len);
    check(slice_equals(slice_from(sid, bare_len), slice_of(suffix, sizeof(suffix))));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_of(data, size);
    check_cookies(input);
    check_sid(input);
    struct file_keys keys;
    char error[128];
    if (file_keys_parse(input, &keys, error, sizeof(error)))
        check(keys.count >= 1 && keys.count <= FILE_KEYS_MAX);
    affinity_cookie_is_cross_site(slice_to(input, size / 2), slice_from(input, size / 2));
    return 0;
}
