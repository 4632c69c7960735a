/*
 * The open packet is read by a scanner that knows all of JSON's grammar and keeps only
 * what it was asked for:
 *
 *     0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket","webtransport"],…} [1e …]
 *              └──── open->sid ────┘                         └ webtransport ┘
 *
 * A key written with escapes, a key twice, a value of another kind: all "not understood",
 * because another reader could understand it differently.
 */
#include "proxy/engine_open.h"

#include "proxy/http_chars.h"

enum {
    JSON_DEPTH_MAX = 16,
    INTERVAL_MAX = 86400000, /* a day, in milliseconds */
    PREFIX_DIGITS_MAX = 8,   /* of an EIO=3 packet length */
};

struct json {
    const char *at;
    const char *end;
};

static void skip_space(struct json *json)
{
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\t' ||
                                    *json->at == '\r' || *json->at == '\n'))
        json->at++;
}

static bool take(struct json *json, char byte)
{
    if (json->at == json->end || *json->at != byte)
        return false;
    json->at++;
    return true;
}

static bool take_digits(struct json *json)
{
    const char *begin = json->at;
    while (json->at < json->end && http_char_is(*json->at, HTTP_CHAR_DIGIT))
        json->at++;
    return json->at > begin;
}

/* A number in JSON's grammar; *text is what it was. */
static bool scan_number(struct json *json, struct slice *text)
{
    const char *begin = json->at;
    take(json, '-');
    if (!take(json, '0') && !take_digits(json))
        return false;
    if (take(json, '.') && !take_digits(json))
        return false;
    if (take(json, 'e') || take(json, 'E')) {
        if (!take(json, '+'))
            take(json, '-');
        if (!take_digits(json))
            return false;
    }
    *text = slice_of(begin, (size_t)(json->at - begin));
    return true;
}

static bool scan_escape(struct json *json)
{
    if (json->at == json->end)
        return false;
    char byte = *json->at++;
    if (byte != 'u')
        return memchr("\"\\/bfnrt", byte, 8) != NULL;
    for (size_t i = 0; i < 4; i++)
        if (json->at == json->end || !http_char_is(*json->at++, HTTP_CHAR_HEX))
            return false;
    return true;
}

/* A string; *text is between the quotes as it stands, *is_plain when nothing in it is
 * escaped. */
static bool scan_string(struct json *json, struct slice *text, bool *is_plain)
{
    if (!take(json, '"'))
        return false;
    const char *begin = json->at;
    *is_plain = true;
    while (json->at < json->end && *json->at != '"') {
        if ((unsigned char)*json->at < 0x20)
            return false;
        if (*json->at++ == '\\') {
            *is_plain = false;
            if (!scan_escape(json))
                return false;
        }
    }
    *text = slice_of(begin, (size_t)(json->at - begin));
    return take(json, '"');
}

static bool skip_word(struct json *json, struct slice word)
{
    if (!slice_starts_with(slice_of(json->at, (size_t)(json->end - json->at)), word))
        return false;
    json->at += word.len;
    return true;
}

static bool skip_value(struct json *json, unsigned depth);

/* The members of an object or array behind its opening bracket, and the closing one. */
static bool skip_members(struct json *json, char close, unsigned depth)
{
    struct slice key;
    bool is_plain;
    if (depth > JSON_DEPTH_MAX)
        return false;
    skip_space(json);
    if (take(json, close))
        return true;
    for (;;) {
        skip_space(json);
        if (close == '}') {
            if (!scan_string(json, &key, &is_plain))
                return false;
            skip_space(json);
            if (!take(json, ':'))
                return false;
        }
        if (!skip_value(json, depth))
            return false;
        skip_space(json);
        if (take(json, close))
            return true;
        if (!take(json, ','))
            return false;
    }
}

static bool skip_value(struct json *json, unsigned depth)
{
    struct slice text;
    bool is_plain;
    skip_space(json);
    if (json->at == json->end)
        return false;
    switch (*json->at) {
    case '"':
        return scan_string(json, &text, &is_plain);
    case '{':
        json->at++;
        return skip_members(json, '}', depth + 1);
    case '[':
        json->at++;
        return skip_members(json, ']', depth + 1);
    case 't':
        return skip_word(json, SLICE("true"));
    case 'f':
        return skip_word(json, SLICE("false"));
    case 'n':
        return skip_word(json, SLICE("null"));
    default:
        return scan_number(json, &text);
    }
}

enum open_key { KEY_SID, KEY_UPGRADES, KEY_PING_INTERVAL, KEY_PING_TIMEOUT, KEY_OTHER };

/* The array of transports: plain strings. Notes the bytes to cut for "webtransport":
 * with the comma before it, or behind it when it is the first. */
static bool scan_upgrades(struct json *json, struct engine_open *open)
{
    const char *last_end = NULL; /* of the member before */
    bool cut_reaches_next = false;
    if (!take(json, '['))
        return false;
    skip_space(json);
    if (take(json, ']'))
        return true;
    for (;;) {
        struct slice text;
        bool is_plain;
        skip_space(json);
        const char *begin = json->at;
        if (cut_reaches_next) {
            open->webtransport.len = (size_t)(begin - open->webtransport.data);
            cut_reaches_next = false;
        }
        if (!scan_string(json, &text, &is_plain) || !is_plain)
            return false;
        if (slice_equals(text, SLICE("webtransport"))) {
            if (open->webtransport.len > 0)
                return false;
            const char *from = last_end != NULL ? last_end : begin;
            open->webtransport = slice_of(from, (size_t)(json->at - from));
            cut_reaches_next = last_end == NULL;
        }
        last_end = json->at;
        skip_space(json);
        if (take(json, ']'))
            return true;
        if (!take(json, ','))
            return false;
    }
}

static bool scan_interval(struct json *json, uint32_t *milliseconds)
{
    struct slice text;
    uint64_t number;
    if (!scan_number(json, &text))
        return false;
    /* a fraction or an absurd value is legal JSON, and tells us nothing */
    if (slice_to_number(text, 0, INTERVAL_MAX, &number))
        *milliseconds = (uint32_t)number;
    return true;
}

static enum open_key find_key(struct slice key)
{
    static const struct slice names[] = {
        [KEY_SID] = SLICE_INIT("sid"),
        [KEY_UPGRADES] = SLICE_INIT("upgrades"),
        [KEY_PING_INTERVAL] = SLICE_INIT("pingInterval"),
        [KEY_PING_TIMEOUT] = SLICE_INIT("pingTimeout"),
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_equals(key, names[i]))
            return (enum open_key)i;
    return KEY_OTHER;
}

static enum engine_open_verdict scan_sid(struct json *json, struct engine_open *open)
{
    bool is_plain;
    struct slice sid;
    if (json->at < json->end && *json->at != '"')
        return ENGINE_OPEN_NO_SID;
    if (!scan_string(json, &sid, &is_plain))
        return ENGINE_OPEN_BAD_JSON;
    if (!is_plain || sid.len == 0 || sid.len > ENGINE_UPSTREAM_SID_MAX ||
        !http_chars_only(sid, HTTP_CHAR_UNRESERVED))
        return ENGINE_OPEN_SID_FORM;
    open->sid = sid;
    return ENGINE_OPEN_OK;
}

static enum engine_open_verdict scan_member(struct json *json, bool seen[KEY_OTHER],
                                            struct engine_open *open)
{
    struct slice key;
    bool is_plain;
    skip_space(json);
    if (!scan_string(json, &key, &is_plain) || !is_plain)
        return ENGINE_OPEN_BAD_JSON;
    skip_space(json);
    if (!take(json, ':'))
        return ENGINE_OPEN_BAD_JSON;
    skip_space(json);
    enum open_key known = find_key(key);
    if (known != KEY_OTHER) {
        if (seen[known])
            return known == KEY_SID ? ENGINE_OPEN_NO_SID : ENGINE_OPEN_BAD_JSON;
        seen[known] = true;
    }
    bool understood = false;
    switch (known) {
    case KEY_SID:
        return scan_sid(json, open);
    case KEY_UPGRADES:
        understood = scan_upgrades(json, open);
        break;
    case KEY_PING_INTERVAL:
        understood = scan_interval(json, &open->ping_interval);
        break;
    case KEY_PING_TIMEOUT:
        understood = scan_interval(json, &open->ping_timeout);
        break;
    case KEY_OTHER:
        understood = skip_value(json, 1);
        break;
    }
    return understood ? ENGINE_OPEN_OK : ENGINE_OPEN_BAD_JSON;
}

/* "0{…}" at json->at; on success json stands behind it. */
static enum engine_open_verdict scan_packet(struct json *json, struct engine_open *open)
{
    bool seen[KEY_OTHER] = {false};
    *open = (struct engine_open){0};
    if (!skip_word(json, SLICE("0{")))
        return ENGINE_OPEN_NOT_OPEN;
    skip_space(json);
    if (!take(json, '}')) {
        for (;;) {
            enum engine_open_verdict verdict = scan_member(json, seen, open);
            if (verdict != ENGINE_OPEN_OK)
                return verdict;
            skip_space(json);
            if (take(json, '}'))
                break;
            if (!take(json, ','))
                return ENGINE_OPEN_BAD_JSON;
        }
    }
    return seen[KEY_SID] ? ENGINE_OPEN_OK : ENGINE_OPEN_NO_SID;
}

enum engine_open_verdict engine_open_scan(struct slice body, struct engine_open *open)
{
    struct json json = {body.data, body.data + body.len};
    *open = (struct engine_open){0};
    if (body.len > ENGINE_HANDSHAKE_MAX)
        return ENGINE_OPEN_TOO_LONG;
    enum engine_open_verdict verdict = scan_packet(&json, open);
    if (verdict == ENGINE_OPEN_OK && json.at < json.end && *json.at != 0x1e)
        verdict = ENGINE_OPEN_BAD_JSON;
    return verdict;
}

/* Appends to `out`; false when it is full. */
static bool append(char *out, size_t size, size_t *len, struct slice text)
{
    if (size - *len < text.len)
        return false;
    if (text.len > 0)
        memcpy(out + *len, text.data, text.len);
    *len += text.len;
    return true;
}

size_t engine_open_write(struct slice body, const struct engine_open *open,
                         struct slice tag, char *out, size_t size)
{
    size_t sid_end = (size_t)(open->sid.data - body.data) + open->sid.len;
    size_t cut = open->webtransport.len > 0
                     ? (size_t)(open->webtransport.data - body.data)
                     : body.len;
    size_t len = 0;
    size_t at = 0;
    bool fits = true;
    /* the two edits in the order in which they stand in the body */
    for (size_t i = 0; i < 2; i++) {
        if ((sid_end < cut) == (i == 0)) {
            fits =
                fits && append(out, size, &len, slice_of(body.data + at, sid_end - at));
            if (tag.len > 0)
                fits = fits && append(out, size, &len, SLICE(".")) &&
                       append(out, size, &len, tag);
            at = sid_end;
        } else {
            fits = fits && append(out, size, &len, slice_of(body.data + at, cut - at));
            at = cut + open->webtransport.len;
        }
    }
    fits = fits && append(out, size, &len, slice_from(body, at));
    return fits ? len : 0;
}

/* Writes the four hexadecimal digits behind \u as UTF-8; a half of a surrogate pair as
 * '?', since nothing that is looked for has one. */
static size_t write_unicode(const char *digits, char utf8[3])
{
    unsigned code = 0;
    for (size_t i = 0; i < 4; i++)
        code = code << 4 | http_hex_value(digits[i]);
    if (code < 0x80 || (code >= 0xd800 && code < 0xe000)) {
        utf8[0] = code < 0x80 ? (char)code : '?';
        return 1;
    }
    if (code < 0x800) {
        utf8[0] = (char)(0xc0 | code >> 6);
        utf8[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    utf8[0] = (char)(0xe0 | code >> 12);
    utf8[1] = (char)(0x80 | (code >> 6 & 0x3f));
    utf8[2] = (char)(0x80 | (code & 0x3f));
    return 3;
}

/* Takes one escape behind its backslash to `out`; gives back how many bytes it made, 0
 * for a bad one. */
static size_t unescape(struct json *json, char out[3])
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    const char *letter = json->at;
    if (!scan_escape(json))
        return 0;
    if (*letter == 'u')
        return write_unicode(letter + 1, out);
    out[0] = meanings[(const char *)memchr(letters, *letter, 8) - letters];
    return 1;
}

/* The text of ___eio[N]("…"); unescaped into scratch. False when it is none, or too
 * long. */
static bool read_jsonp(struct slice body, char scratch[ENGINE_HANDSHAKE_MAX],
                       struct slice *text)
{
    struct json json = {body.data, body.data + body.len};
    size_t len = 0;
    if (!skip_word(&json, SLICE("___eio[")) || !take_digits(&json) ||
        !skip_word(&json, SLICE("](\"")))
        return false;
    while (json.at < json.end && *json.at != '"') {
        char made[3];
        size_t count = 1;
        made[0] = *json.at++;
        if (made[0] == '\\')
            count = unescape(&json, made);
        if (count == 0 || len + count > ENGINE_HANDSHAKE_MAX)
            return false;
        memcpy(scratch + len, made, count);
        len += count;
    }
    *text = slice_of(scratch, len);
    return json.at < json.end;
}

/* Moves behind the length in front of an EIO=3 packet: "97:", or 00 09 07 ff. */
static bool skip_length(struct json *json)
{
    bool is_binary = json->at < json->end && *json->at == 0;
    size_t digits = 0;
    json->at += is_binary;
    while (json->at < json->end && digits < PREFIX_DIGITS_MAX &&
           (is_binary ? (unsigned char)*json->at < 10
                      : http_char_is(*json->at, HTTP_CHAR_DIGIT))) {
        json->at++;
        digits++;
    }
    return digits > 0 && take(json, is_binary ? (char)0xff : ':');
}

enum engine_open_verdict engine_open_learn(struct slice body,
                                           char scratch[ENGINE_HANDSHAKE_MAX],
                                           struct engine_open *open)
{
    *open = (struct engine_open){0};
    if (body.len > ENGINE_HANDSHAKE_MAX)
        return ENGINE_OPEN_TOO_LONG;
    if (slice_starts_with(body, SLICE("___eio[")) && !read_jsonp(body, scratch, &body))
        return ENGINE_OPEN_NOT_OPEN;
    struct json json = {body.data, body.data + body.len};
    if (!slice_starts_with(body, SLICE("0{")) && !skip_length(&json))
        return ENGINE_OPEN_NOT_OPEN;
    return scan_packet(&json, open);
}

const char *engine_open_verdict_word(enum engine_open_verdict verdict)
{
    static const char *const words[ENGINE_OPEN_VERDICTS] = {
        [ENGINE_OPEN_OK] = "ok",
        [ENGINE_OPEN_TOO_LONG] = "too_long",
        [ENGINE_OPEN_NOT_OPEN] = "not_open",
        [ENGINE_OPEN_BAD_JSON] = "bad_json",
        [ENGINE_OPEN_NO_SID] = "no_sid",
        [ENGINE_OPEN_SID_FORM] = "sid_form",
    };
    return words[verdict];
}

bool engine_is_session_unknown(struct slice body)
{
    /* Node: JSON on polling, plain text on an upgrade. Python: a JSON string, the sid
     * in it since 4.11 */
    return slice_starts_with(body, SLICE("{\"code\":1,")) ||
           slice_equals(body, SLICE("Session ID unknown")) ||
           slice_starts_with(body, SLICE("\"Invalid session"));
}
