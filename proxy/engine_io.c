/*
 * The query is read where it stands: names and values are compared decoded, one character
 * at a time, and only a sid that was percent-encoded is copied.
 */
#include "proxy/engine_io.h"

#include "proxy/http_chars.h"

/* The decoded byte at *at, moving behind it. A '%' without two digits is itself, as
 * for Node and Python. */
static char decode_next(struct slice raw, size_t *at, bool is_query)
{
    char byte = raw.data[(*at)++];
    if (byte == '+' && is_query)
        return ' ';
    if (byte != '%' || raw.len - *at < 2 || !http_char_is(raw.data[*at], HTTP_CHAR_HEX) ||
        !http_char_is(raw.data[*at + 1], HTTP_CHAR_HEX))
        return byte;
    unsigned value =
        http_hex_value(raw.data[*at]) << 4 | http_hex_value(raw.data[*at + 1]);
    *at += 2;
    return (char)value;
}

static bool decodes_to(struct slice raw, struct slice text)
{
    size_t at = 0;
    size_t len = 0;
    while (at < raw.len)
        if (len == text.len || decode_next(raw, &at, true) != text.data[len++])
            return false;
    return len == text.len;
}

size_t engine_query_decode(struct slice raw, char *out, size_t size)
{
    size_t at = 0, len = 0;
    while (at < raw.len) {
        if (len == size)
            return 0;
        out[len++] = decode_next(raw, &at, true);
    }
    return len;
}

static enum parse_result refuse(struct engine_query *facts, const char *reason)
{
    facts->refusal = (struct http_refusal){400, reason};
    return PARSE_BAD;
}

bool engine_sid_is_valid(struct slice sid)
{
    return sid.len > 0 && sid.len <= ENGINE_SID_MAX &&
           http_chars_only(sid, HTTP_CHAR_UNRESERVED);
}

static enum parse_result read_sid(struct slice value, struct engine_query *facts)
{
    size_t at = 0;
    size_t len = 0;
    facts->sid_raw = value;
    if (value.len <= ENGINE_SID_MAX && http_chars_only(value, HTTP_CHAR_UNRESERVED)) {
        facts->sid = value; /* as it always is: nothing is encoded */
        return PARSE_DONE;
    }
    while (at < value.len) {
        char byte = decode_next(value, &at, true);
        if (len == ENGINE_SID_MAX || !http_char_is(byte, HTTP_CHAR_UNRESERVED))
            return refuse(facts, "Session ID unknown");
        facts->sid_decoded[len++] = byte;
    }
    facts->sid = slice_of(facts->sid_decoded, len);
    return PARSE_DONE;
}

enum parameter {
    PARAMETER_SID,
    PARAMETER_EIO,
    PARAMETER_TRANSPORT,
    PARAMETERS_ONCE, /* those before are given at most once */
    PARAMETER_JSONP = PARAMETERS_ONCE,
    PARAMETER_BASE64,
    PARAMETER_OTHER,
};

#define PARAMETER_NAME_MAX 9u

static enum parameter find_parameter(struct slice name)
{
    static const struct slice names[] = {
        [PARAMETER_SID] = SLICE_INIT("sid"),
        [PARAMETER_EIO] = SLICE_INIT("EIO"),
        [PARAMETER_TRANSPORT] = SLICE_INIT("transport"),
        [PARAMETER_JSONP] = SLICE_INIT("j"),
        [PARAMETER_BASE64] = SLICE_INIT("b64"),
    };
    char decoded[PARAMETER_NAME_MAX];
    size_t at = 0;
    size_t len = 0;
    while (at < name.len) {
        if (len == sizeof(decoded))
            return PARAMETER_OTHER;
        decoded[len++] = decode_next(name, &at, true);
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_equals(slice_of(decoded, len), names[i]))
            return (enum parameter)i;
    return PARAMETER_OTHER;
}

/* Python before 3.9.2 also separates parameters by ';'. What it would read there must
 * not be something that we route by. */
static bool hides_parameter(struct slice part)
{
    struct slice piece;
    if (slice_find(part, ';') == part.len || !slice_cut(&part, ';', &piece))
        return false;
    while (slice_cut(&part, ';', &piece))
        if (find_parameter(slice_to(piece, slice_find(piece, '='))) < PARAMETERS_ONCE)
            return true;
    return false;
}

static void read_version(struct slice value, struct engine_query *facts)
{
    facts->version = decodes_to(value, SLICE("4"))   ? ENGINE_VERSION_4
                     : decodes_to(value, SLICE("3")) ? ENGINE_VERSION_3
                                                     : ENGINE_VERSION_OTHER;
}

static void read_transport(struct slice value, struct engine_query *facts)
{
    facts->transport = decodes_to(value, SLICE("polling")) ? ENGINE_TRANSPORT_POLLING
                       : decodes_to(value, SLICE("websocket"))
                           ? ENGINE_TRANSPORT_WEBSOCKET
                           : ENGINE_TRANSPORT_OTHER;
}

enum parse_result engine_query_parse(struct slice query, struct engine_query *facts)
{
    facts->version = ENGINE_VERSION_ABSENT;
    facts->transport = ENGINE_TRANSPORT_ABSENT;
    facts->is_jsonp = facts->is_base64 = false;
    facts->sid = facts->sid_raw = slice_of(NULL, 0);
    facts->refusal = (struct http_refusal){0};
    bool seen[PARAMETERS_ONCE] = {false};
    struct slice part;
    while (slice_cut(&query, '&', &part)) {
        struct slice name = slice_to(part, slice_find(part, '='));
        struct slice value = slice_from(part, name.len + 1);
        enum parameter parameter = find_parameter(name);
        if (hides_parameter(part) || (parameter < PARAMETERS_ONCE && seen[parameter]))
            return refuse(facts, "EIO, transport or sid given twice");
        if (parameter < PARAMETERS_ONCE)
            seen[parameter] = true;
        if (parameter == PARAMETER_SID && read_sid(value, facts) != PARSE_DONE)
            return PARSE_BAD;
        if (parameter == PARAMETER_EIO)
            read_version(value, facts);
        if (parameter == PARAMETER_TRANSPORT)
            read_transport(value, facts);
        facts->is_jsonp = facts->is_jsonp || parameter == PARAMETER_JSONP;
        facts->is_base64 = facts->is_base64 || parameter == PARAMETER_BASE64;
    }
    return PARSE_DONE;
}

struct slice engine_sid_tail(const struct engine_query *facts, size_t count)
{
    size_t at = 0;
    size_t kept = facts->sid.len - min_size(count, facts->sid.len);
    if (facts->sid.data == facts->sid_raw.data)
        return slice_from(facts->sid_raw, kept);
    while (kept-- > 0)
        decode_next(facts->sid_raw, &at, true);
    return slice_from(facts->sid_raw, at);
}

bool engine_path_match(struct slice raw_path, const struct slice *paths, size_t count,
                       struct engine_path *match)
{
    bool has_escape = slice_find(raw_path, '%') < raw_path.len;
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        size_t len = 0;
        if (!has_escape && slice_starts_with(raw_path, paths[i]))
            at = len = paths[i].len;
        while (len < paths[i].len && at < raw_path.len &&
               decode_next(raw_path, &at, false) == paths[i].data[len])
            len++;
        if (len == paths[i].len) {
            match->canonical = paths[i];
            match->rest = slice_from(raw_path, at);
            return true;
        }
    }
    return false;
}
