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

/* ---- paths ---- */

/* Where raw_path stands behind the decoded `text`; SIZE_MAX: it does not begin with it. */
static size_t skip_decoded(struct slice raw_path, struct slice text)
{
    size_t at = 0;
    if (slice_starts_with(raw_path, text))
        return text.len; /* nothing in `text` is a '%' */
    for (size_t len = 0; len < text.len; len++)
        if (at == raw_path.len || decode_next(raw_path, &at, false) != text.data[len])
            return SIZE_MAX;
    return at;
}

static struct slice without_slash(struct slice path)
{
    return slice_to(path, path.len - 1);
}

/* May servers disagree about where this path leads? */
static bool has_detours(struct slice raw_path)
{
    for (size_t i = 0; i < raw_path.len; i++) {
        char byte = raw_path.data[i];
        if (byte == '%' || byte == ';')
            return true;
        if (byte == '/' && i + 1 < raw_path.len &&
            (raw_path.data[i + 1] == '/' || raw_path.data[i + 1] == '.'))
            return true;
    }
    return false;
}

/* The segment that began at *segment has ended: "." and ".." are taken back. */
static size_t end_segment(const char *out, size_t len, size_t *segment)
{
    struct slice name = slice_of(out + *segment, len - *segment);
    if (slice_equals(name, SLICE(".")))
        return *segment;
    if (!slice_equals(name, SLICE("..")))
        return len;
    if (*segment > 1)
        *segment = slice_find_last(slice_of(out, *segment - 1), '/') + 1;
    return *segment;
}

/* Writes the path to `out` as a server sees it that resolves all it can: decoded, '\\' as '/', slashes
 * merged, dot segments followed, ;parameters gone (uWSGI and WHATWG URLs do parts of it). Its length. */
static size_t resolve(struct slice raw_path, char out[HTTP_TARGET_MAX + 1])
{
    size_t at = 0, len = 0, segment = 1;
    bool is_parameter = false;
    out[len++] = '/';
    while (at < raw_path.len) {
        char byte = decode_next(raw_path, &at, false);
        if (byte == '/' || byte == '\\') {
            is_parameter = false;
            len = end_segment(out, len, &segment);
            if (len > segment)
                out[len++] = '/';
            segment = len;
            continue;
        }
        is_parameter = is_parameter || byte == ';';
        if (!is_parameter)
            out[len++] = byte;
    }
    return end_segment(out, len, &segment);
}

/* Does a resolved path lead to one of the paths? */
static bool leads_to_engine(struct slice raw_path, const struct slice *paths,
                            size_t count)
{
    char text[HTTP_TARGET_MAX + 1];
    check(raw_path.len <= HTTP_TARGET_MAX);
    struct slice path = slice_of(text, resolve(raw_path, text));
    for (size_t i = 0; i < count; i++)
        if (slice_starts_with(path, paths[i]) ||
            slice_equals(path, without_slash(paths[i])))
            return true;
    return false;
}

static bool names_transport(struct slice query)
{
    struct slice part;
    while (slice_cut(&query, '&', &part))
        if (find_parameter(slice_to(part, slice_find(part, '='))) == PARAMETER_TRANSPORT)
            return true;
    return false;
}

/* Decoded, and no more than that. */
static bool matches_decoded(struct slice raw_path, struct slice query,
                            const struct slice *paths, size_t count,
                            struct engine_path *match)
{
    bool is_longer = false;
    for (size_t i = 0; i < count; i++) {
        struct slice name = without_slash(paths[i]);
        size_t at = skip_decoded(raw_path, name);
        if (at == SIZE_MAX)
            continue;
        *match = (struct engine_path){
            .canonical = name, .rest = slice_from(raw_path, at), .routed_by = paths[i]};
        if (at == raw_path.len)
            return true;
        if (decode_next(raw_path, &at, false) == '/') {
            match->canonical = paths[i];
            match->rest = slice_from(raw_path, at);
            return true;
        }
        is_longer = true;
    }
    *match = (struct engine_path){.routed_by = raw_path};
    return is_longer && names_transport(query);
}

/* As nearly all requests spell it: one of the paths, byte for byte, and none before it may match. */
static bool is_plain(struct slice raw_path, const struct slice *paths, size_t count,
                     struct engine_path *match)
{
    for (size_t i = 0; i < count; i++) {
        if (!slice_starts_with(raw_path, without_slash(paths[i])))
            continue;
        *match = (struct engine_path){.canonical = paths[i],
                                      .rest = slice_from(raw_path, raw_path.len),
                                      .routed_by = paths[i]};
        return slice_equals(raw_path, paths[i]);
    }
    return false;
}

enum engine_path_kind engine_path_match(struct slice raw_path, struct slice query,
                                        const struct slice *paths, size_t count,
                                        struct engine_path *match)
{
    if (is_plain(raw_path, paths, count, match))
        return ENGINE_PATH_MATCH;
    bool has_doubt = has_detours(raw_path);
    struct slice path = raw_path;
    while (slice_starts_with(path, SLICE("//")))
        path = slice_from(path, 1);
    bool matches = matches_decoded(path, query, paths, count, match);
    bool is_as_it_came = match->canonical.data == NULL;
    if (has_doubt && !(matches && is_as_it_came) &&
        leads_to_engine(raw_path, paths, count) != matches)
        return ENGINE_PATH_UNCLEAR;
    return matches ? ENGINE_PATH_MATCH : ENGINE_PATH_OTHER;
}
