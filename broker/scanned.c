#include "broker/scanned.h"

const struct slice scanned_key_names[KEY_COUNT] = {
    [KEY_METHOD] = SLICE_INIT("method"),
    [KEY_EVENT] = SLICE_INIT("event"),
    [KEY_DATA] = SLICE_INIT("data"),
    [KEY_BINARY] = SLICE_INIT("binary"),
    [KEY_NAMESPACE] = SLICE_INIT("namespace"),
    [KEY_ROOM] = SLICE_INIT("room"),
    [KEY_SKIP_SID] = SLICE_INIT("skip_sid"),
    [KEY_CALLBACK] = SLICE_INIT("callback"),
    [KEY_HOST_ID] = SLICE_INIT("host_id"),
    [KEY_SID] = SLICE_INIT("sid"),
    [KEY_ID] = SLICE_INIT("id"),
    [KEY_ARGS] = SLICE_INIT("args"),
};

static enum scanned_key either(struct slice name, enum scanned_key a, enum scanned_key b)
{
    if (memcmp(name.data, scanned_key_names[a].data, name.len) == 0)
        return a;
    return memcmp(name.data, scanned_key_names[b].data, name.len) == 0 ? b : KEY_COUNT;
}

enum scanned_key scanned_key_find(struct slice name)
{
    /* by length there are at most three names */
    switch (name.len) {
    case 2:
        return either(name, KEY_ID, KEY_ID);
    case 3:
        return either(name, KEY_SID, KEY_SID);
    case 4:
        if (memcmp(name.data, "args", 4) == 0)
            return KEY_ARGS;
        return either(name, KEY_DATA, KEY_ROOM);
    case 5:
        return either(name, KEY_EVENT, KEY_EVENT);
    case 6:
        return either(name, KEY_METHOD, KEY_BINARY);
    case 7:
        return either(name, KEY_HOST_ID, KEY_HOST_ID);
    case 8:
        return either(name, KEY_SKIP_SID, KEY_CALLBACK);
    case 9:
        return either(name, KEY_NAMESPACE, KEY_NAMESPACE);
    default:
        return KEY_COUNT;
    }
}

static bool is_continuation(unsigned char byte)
{
    return (byte & 0xc0) == 0x80;
}

size_t scanned_utf8_len(const unsigned char *bytes, size_t len)
{
    unsigned char first = bytes[0];
    if (first < 0xc2 || first > 0xf4 || len < 2 || !is_continuation(bytes[1]))
        return 0;
    if (first < 0xe0)
        return 2;
    if (len < 3 || !is_continuation(bytes[2]))
        return 0;
    if (first <
        0xf0) /* e0 80..9f would be overlong; ed a0..bf are surrogates, which pass */
        return first == 0xe0 && bytes[1] < 0xa0 ? 0 : 3;
    if (len < 4 || !is_continuation(bytes[3]))
        return 0;
    if ((first == 0xf0 && bytes[1] < 0x90) || (first == 0xf4 && bytes[1] > 0x8f))
        return 0;
    return 4;
}

bool scanned_utf8_is_valid_slow(const char *bytes, size_t len)
{
    const unsigned char *at = (const unsigned char *)bytes;
    const unsigned char *end = at + len;
    while (at < end) {
        uint64_t eight;
        while (end - at >= 8) {
            memcpy(&eight, at, 8);
            if ((eight & 0x8080808080808080u) != 0)
                break;
            at += 8;
        }
        while (at < end && *at < 0x80)
            at++;
        if (at == end)
            return true;
        size_t width = scanned_utf8_len(at, (size_t)(end - at));
        if (width == 0)
            return false;
        at += width;
    }
    return true;
}

size_t scanned_utf8_write(uint32_t code_point, char *bytes)
{
    if (code_point < 0x80) {
        bytes[0] = (char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        bytes[0] = (char)(0xc0 | code_point >> 6);
        bytes[1] = (char)(0x80 | (code_point & 0x3f));
        return 2;
    }
    if (code_point < 0x10000) {
        bytes[0] = (char)(0xe0 | code_point >> 12);
        bytes[1] = (char)(0x80 | (code_point >> 6 & 0x3f));
        bytes[2] = (char)(0x80 | (code_point & 0x3f));
        return 3;
    }
    bytes[0] = (char)(0xf0 | code_point >> 18);
    bytes[1] = (char)(0x80 | (code_point >> 12 & 0x3f));
    bytes[2] = (char)(0x80 | (code_point >> 6 & 0x3f));
    bytes[3] = (char)(0x80 | (code_point & 0x3f));
    return 4;
}
