/*
 * Field lines (RFC 9112 5), strictly: token, colon, value, CRLF; no space before the
 * colon, no folding, no bare CR or LF, no control characters.
 *
 *     ▶ line ── CR LF ──▶ end of the section
 *       │
 *       └─ name ─ ':' ─ OWS ─ value ─ OWS ─ CR LF ─▶ line
 *
 * The scan goes byte by byte and stops at the first wrong one, so that a bad prefix stays
 * bad whatever follows, and a line that is too long is refused where its limit is, not
 * where it ends.
 */
#include "proxy/http_field.h"

#include "proxy/http_chars.h"

struct known_field {
    struct slice name; /* lower case */
    enum http_field_sort sort;
};

static const struct known_field known_fields[HTTP_FIELD_IDS] = {
#define FIELD(id, name, sort) [id] = {SLICE_INIT(name), HTTP_FIELD_SORT_##sort},
#include "proxy/http_field.def"
#undef FIELD
};

_Static_assert(HTTP_FIELD_IDS <= 64, "http_fields.present has 64 bits");

enum http_field_sort http_field_sort(enum http_field_id id)
{
    return known_fields[id].sort;
}

enum http_field_id http_field_id(struct slice name)
{
    if (name.len == 0)
        return HTTP_FIELD_OTHER;
        /* a chain of compares with constants: almost every row fails at its first */
#define FIELD(id, text, sort)                                                            \
    if (name.len == sizeof(text) - 1 && (name.data[0] | 0x20) == text[0] &&              \
        slice_equals_nocase(name, SLICE(text)))                                          \
        return id;
#include "proxy/http_field.def"
#undef FIELD
    return HTTP_FIELD_OTHER;
}

/* What ProxyFix of Werkzeug, uvicorn, gunicorn, Django's settings, Tornado, Sanic, Express and the middlewares that one
 * finds for them read, and what balancers write. */
bool http_field_is_of_proxies(enum http_field_id id, struct slice name)
{
    static const struct slice beginnings[] = {
        SLICE_INIT("x-forwarded"), SLICE_INIT("x-original-"), SLICE_INIT("x-rewrite-"),
        SLICE_INIT("x-ssl-"),      SLICE_INIT("ssl-client-"), SLICE_INIT("x-client-cert"),
    };
    static const struct slice names[] = {
        SLICE_INIT("client-ip"),
        SLICE_INIT("cf-connecting-ip"),
        SLICE_INIT("fastly-client-ip"),
        SLICE_INIT("front-end-https"),
        SLICE_INIT("path-info"),
        SLICE_INIT("remote-addr"),
        SLICE_INIT("remote-user"),
        SLICE_INIT("script-name"),
        SLICE_INIT("true-client-ip"),
        SLICE_INIT("x-client-ip"),
        SLICE_INIT("x-cluster-client-ip"),
        SLICE_INIT("x-envoy-external-address"),
        SLICE_INIT("x-envoy-original-path"),
        SLICE_INIT("x-host"),
        SLICE_INIT("x-http-scheme"),
        SLICE_INIT("x-path-info"),
        SLICE_INIT("x-real-port"),
        SLICE_INIT("x-real-proto"),
        SLICE_INIT("x-remote-addr"),
        SLICE_INIT("x-remote-ip"),
        SLICE_INIT("x-remote-user"),
        SLICE_INIT("x-scheme"),
        SLICE_INIT("x-script-name"),
        SLICE_INIT("x-url-scheme"),
    };
    if (id != HTTP_FIELD_OTHER || name.len == 0)
        return false;
    char first = (char)(name.data[0] | 0x20);
    if (first != 'x' && first != 'c' && first != 'f' && first != 'p' && first != 'r' &&
        first != 's' && first != 't')
        return false;
    for (size_t i = 0; i < ARRAY_LEN(beginnings); i++)
        if (slice_equals_nocase(slice_to(name, beginnings[i].len), beginnings[i]))
            return true;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_equals_nocase(name, names[i]))
            return true;
    return false;
}

static enum parse_result refuse(struct http_refusal *refusal, unsigned status,
                                const char *reason)
{
    refusal->status = status;
    refusal->reason = reason;
    return PARSE_BAD;
}

/* The scan stands at `stop`: nothing more has come, or nothing more may come. */
static enum parse_result out_of_bytes(const char *stop, const char *data_end,
                                      struct http_refusal *refusal)
{
    if (stop == data_end)
        return PARSE_MORE;
    return refuse(refusal, 431, "header section or field line too long");
}

static void add_field(struct http_fields *fields, struct slice name, struct slice value)
{
    struct http_field *field = &fields->list[fields->count++];
    enum http_field_id id = http_field_id(name);
    field->name = name;
    field->value = value;
    field->id = (uint8_t)id;
    field->is_nominated = false;
    field->has_underscore = memchr(name.data, '_', name.len) != NULL;
    fields->present |= (uint64_t)1 << id;
}

/* Behind the bytes at `p` that a value may have, eight at a time: where it stops, at most 7 good bytes may
 * follow. Tabs end it early, which costs time only. */
static const char *skip_value_words(const char *p, const char *stop)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    for (; stop - p >= (ptrdiff_t)sizeof(uint64_t); p += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        uint64_t del = word ^ ones * 0x7f;
        if ((((word - ones * ' ') & ~word) | ((del - ones) & ~del)) & tops)
            break;
    }
    return p;
}

/* One line "name: value" CRLF from *at; the line may not reach `stop`. */
static enum parse_result parse_line(const char **at, const char *stop,
                                    const char *data_end, struct http_fields *fields,
                                    struct http_refusal *refusal)
{
    const char *name = *at;
    const char *p = name;
    while (p < stop && http_char_is(*p, HTTP_CHAR_TOKEN))
        p++;
    if (p == stop)
        return out_of_bytes(stop, data_end, refusal);
    if (*p != ':')
        return refuse(refusal, 400,
                      p == name ? "field line without a name" : "bad byte in field name");
    if (p == name)
        return refuse(refusal, 400, "empty field name");
    size_t name_len = (size_t)(p - name);

    p++;
    while (p < stop && (*p == ' ' || *p == '\t'))
        p++;
    const char *value = p;
    p = skip_value_words(p, stop);
    while (p < stop && http_char_is(*p, HTTP_CHAR_VALUE))
        p++;
    if (p == stop)
        return out_of_bytes(stop, data_end, refusal);
    if (*p != '\r')
        return refuse(refusal, 400, "bad byte in field value");
    const char *value_end = p;
    p++;
    if (p == stop)
        return out_of_bytes(stop, data_end, refusal);
    if (*p != '\n')
        return refuse(refusal, 400, "bare CR in field line");
    while (value_end > value && (value_end[-1] == ' ' || value_end[-1] == '\t'))
        value_end--;
    add_field(fields, slice_of(name, name_len),
              slice_of(value, (size_t)(value_end - value)));
    *at = p + 1;
    return PARSE_DONE;
}

enum parse_result http_fields_parse(const char **at, const char *data_end,
                                    size_t max_bytes, struct http_fields *fields,
                                    struct http_refusal *refusal)
{
    const char *begin = *at;
    const char *p = begin;
    fields->count = 0;
    fields->present = 0;
    for (;;) {
        size_t allowed = min_size(max_bytes - (size_t)(p - begin), HTTP_LINE_MAX);
        const char *stop = p + min_size(allowed, (size_t)(data_end - p));
        if (p == stop)
            return out_of_bytes(stop, data_end, refusal);
        if (*p == '\r') {
            if (p + 1 == stop)
                return out_of_bytes(stop, data_end, refusal);
            if (p[1] != '\n')
                return refuse(refusal, 400, "bare CR in header section");
            *at = p + 2;
            return PARSE_DONE;
        }
        if (*p == ' ' || *p == '\t')
            return refuse(refusal, 400, "folded or indented field line");
        if (fields->count == HTTP_FIELDS_MAX)
            return refuse(refusal, 431, "too many fields");
        enum parse_result result = parse_line(&p, stop, data_end, fields, refusal);
        if (result != PARSE_DONE)
            return result;
    }
}

/* One connection option (RFC 9110 7.6.1). False when it nominates what must not be. */
static bool apply_option(struct http_fields *fields, struct slice option,
                         struct http_connection_options *options)
{
    if (slice_equals_nocase(option, SLICE("close"))) {
        options->close = true;
        return true;
    }
    if (slice_equals_nocase(option, SLICE("keep-alive"))) {
        options->keep_alive = true;
        return true;
    }
    if (slice_equals_nocase(option, SLICE("upgrade"))) {
        options->upgrade = true;
        return true;
    }
    enum http_field_id id = http_field_id(option);
    enum http_field_sort sort = http_field_sort(id);
    if (sort == HTTP_FIELD_SORT_FRAMING)
        return false;
    if (sort == HTTP_FIELD_SORT_PROTECTED || sort == HTTP_FIELD_SORT_OURS)
        return true; /* would take away what the endpoint needs, or what we say */
    for (size_t i = 0; i < fields->count; i++)
        if (slice_equals_nocase(fields->list[i].name, option))
            fields->list[i].is_nominated = true;
    return true;
}

bool http_connection_apply(struct http_fields *fields,
                           struct http_connection_options *options,
                           struct http_refusal *refusal)
{
    *options = (struct http_connection_options){0};
    size_t count = 0;
    for (size_t i = 0; i < fields->count; i++) {
        if (fields->list[i].id != HTTP_FIELD_CONNECTION)
            continue;
        struct slice rest = fields->list[i].value;
        struct slice part;
        while (slice_cut(&rest, ',', &part)) {
            struct slice option = slice_trim(part);
            if (++count > HTTP_CONNECTION_OPTIONS) {
                refuse(refusal, 400, "too many connection options");
                return false;
            }
            if (option.len == 0)
                continue; /* empty list members are legal (RFC 9110 5.6.1.2) */
            if (!http_is_token(option)) {
                refuse(refusal, 400, "connection option is not a token");
                return false;
            }
            if (!apply_option(fields, option, options)) {
                refuse(refusal, 400, "Connection nominates a framing field");
                return false;
            }
        }
    }
    return true;
}

size_t http_field_count(const struct http_fields *fields, enum http_field_id id,
                        struct slice *value)
{
    *value = slice_of(NULL, 0);
    if (!http_field_is_present(fields, id))
        return 0;
    size_t count = 0;
    for (size_t i = 0; i < fields->count; i++)
        if (fields->list[i].id == id && count++ == 0)
            *value = fields->list[i].value;
    return count;
}

const struct http_field *http_field_find(const struct http_fields *fields,
                                         enum http_field_id id)
{
    if (!http_field_is_present(fields, id))
        return NULL;
    for (size_t i = 0; i < fields->count; i++)
        if (fields->list[i].id == id)
            return &fields->list[i];
    return NULL;
}

const struct http_field *http_field_find_name(const struct http_fields *fields,
                                              struct slice name)
{
    for (size_t i = 0; i < fields->count; i++)
        if (slice_equals_nocase(fields->list[i].name, name))
            return &fields->list[i];
    return NULL;
}

struct slice http_cookie_find(const struct http_fields *fields, struct slice name)
{
    if (!http_field_is_present(fields, HTTP_FIELD_COOKIE))
        return slice_of(NULL, 0);
    for (size_t i = 0; i < fields->count; i++) {
        if (fields->list[i].id != HTTP_FIELD_COOKIE)
            continue;
        struct slice rest = fields->list[i].value;
        struct slice part;
        while (slice_cut(&rest, ';', &part)) {
            struct slice pair = slice_trim(part);
            size_t equals = slice_find(pair, '=');
            if (equals < pair.len && slice_equals(slice_to(pair, equals), name))
                return slice_from(pair, equals + 1);
        }
    }
    return slice_of(NULL, 0);
}

bool http_list_has(const struct http_fields *fields, enum http_field_id id,
                   struct slice name, size_t *members)
{
    bool found = false;
    *members = 0;
    for (size_t i = 0; i < fields->count; i++) {
        if (fields->list[i].id != id)
            continue;
        struct slice rest = fields->list[i].value;
        struct slice part;
        while (slice_cut(&rest, ',', &part)) {
            part = slice_trim(part);
            part = slice_trim(slice_to(part, slice_find(part, ';')));
            if (part.len > 0)
                *members += 1;
            found = found || slice_equals_nocase(part, name);
        }
    }
    return found;
}

/* A Transfer-Encoding that is a list of codings with chunked last is one that we could
 * read but do not offer (501); everything else is not HTTP. */
static bool is_other_coding(struct slice value)
{
    struct slice part = value;
    size_t members = 0;
    while (slice_cut(&value, ',', &part)) {
        part = slice_trim(part);
        if (!http_is_token(part))
            return false;
        bool is_chunked = slice_equals_nocase(part, SLICE("chunked"));
        if (is_chunked != (value.data == NULL))
            return false;
        members++;
    }
    return members > 1;
}

enum parse_result http_framing_read(const struct http_fields *fields, uint8_t minor,
                                    enum body_kind *kind, uint64_t *length,
                                    struct http_refusal *refusal)
{
    struct slice coding;
    struct slice digits;
    size_t codings = http_field_count(fields, HTTP_FIELD_TRANSFER_ENCODING, &coding);
    size_t lengths = http_field_count(fields, HTTP_FIELD_CONTENT_LENGTH, &digits);
    *kind = BODY_NONE;
    *length = 0;
    if (codings > 0) {
        if (lengths > 0)
            return refuse(refusal, 400, "Content-Length beside Transfer-Encoding");
        if (codings > 1)
            return refuse(refusal, 400, "more than one Transfer-Encoding");
        if (minor == 0)
            return refuse(refusal, 400, "Transfer-Encoding in HTTP/1.0");
        if (!slice_equals_nocase(coding, SLICE("chunked")))
            return refuse(refusal, is_other_coding(coding) ? 501 : 400,
                          "Transfer-Encoding is not chunked");
        *kind = BODY_CHUNKED;
        return PARSE_DONE;
    }
    if (lengths > 1)
        return refuse(refusal, 400, "more than one Content-Length");
    if (lengths == 1) {
        if (!slice_to_number(digits, 0, INT64_MAX, length))
            return refuse(refusal, 400, "bad Content-Length");
        *kind = BODY_LENGTH;
    }
    return PARSE_DONE;
}

bool http_is_token(struct slice text)
{
    return text.len > 0 && http_chars_only(text, HTTP_CHAR_TOKEN);
}

bool http_is_field_value(struct slice value)
{
    return http_chars_only(value, HTTP_CHAR_VALUE);
}
