/*
 * One descent over the text. Everything is skipped with its grammar checked; of the outermost object the
 * places of the values that a message is routed by are kept, and decoded when the text has proved whole.
 *
 *     {"method": "emit", "data": [ … skipped … ], "room": ["a", 1], …}
 *                ▲ found{TEXT, 11..15}                    ▲ found{LIST}: its items are read afterwards
 *
 * The grammar is Python's C scanner's: NaN and the infinities are numbers, an integer has at most 4,300
 * digits, white space is space, tab, CR, LF, strings hold no byte below 20, \u takes four hex digits.
 */
#include "broker/json_scan.h"

#include <errno.h>
#include <stdlib.h>

#define DEPTH_MAX 256
/* Python refuses to read longer integers (sys.int_info.default_max_str_digits). */
#define DIGITS_MAX 4300

/* A value's type and place; of a text without its quotes. */
struct found {
    enum value_type type;
    bool has_escapes; /* TEXT */
    size_t start;
    size_t end;
};

struct reader {
    const unsigned char *bytes;
    size_t len;
    size_t at;
    unsigned depth;
    unsigned depth_max;
    bool was_cut;
    const char *error;
    struct found keys[KEY_COUNT];
    enum value_type data_first;
};

static bool bad(struct reader *reader, const char *error)
{
    reader->error = error;
    return false;
}

static bool cut(struct reader *reader)
{
    reader->was_cut = true;
    return bad(reader, "cut short");
}

static bool at_end(const struct reader *reader)
{
    return reader->at == reader->len;
}

static void skip_space(struct reader *reader)
{
    while (reader->at < reader->len) {
        unsigned char byte = reader->bytes[reader->at];
        if (byte > ' ' || (byte != ' ' && byte != '\n' && byte != '\t' && byte != '\r'))
            return;
        reader->at++;
    }
}

/* ---- texts ---- */

/* Place (0..7) of the first of eight bytes that has its top bit set or is a quote, a backslash or below
 * 20; 8 when there is none. The subtractions borrow only above such a byte, so the first is exact. */
static size_t find_special(const unsigned char *bytes)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t eight = (uint64_t)bytes[0] | (uint64_t)bytes[1] << 8 |
                     (uint64_t)bytes[2] << 16 | (uint64_t)bytes[3] << 24 |
                     (uint64_t)bytes[4] << 32 | (uint64_t)bytes[5] << 40 |
                     (uint64_t)bytes[6] << 48 | (uint64_t)bytes[7] << 56;
    uint64_t quote = eight ^ (ones * '"');
    uint64_t backslash = eight ^ (ones * '\\');
    uint64_t special =
        (quote - ones) | (backslash - ones) | (eight - ones * 0x20) | eight;
    special &= ones * 0x80;
    return special != 0 ? (size_t)__builtin_ctzll(special) / 8 : 8;
}

static bool is_hex(unsigned char byte)
{
    return (byte >= '0' && byte <= '9') || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'f');
}

/* Behind a backslash. */
static bool skip_escape(struct reader *reader)
{
    if (at_end(reader))
        return cut(reader);
    unsigned char escape = reader->bytes[reader->at++];
    if (escape != 'u')
        return (escape != '\0' && strchr("\"\\/bfnrt", escape) != NULL) ||
               bad(reader, "bad escape");
    for (size_t i = 0; i < 4; i++) {
        if (at_end(reader))
            return cut(reader);
        if (!is_hex(reader->bytes[reader->at++]))
            return bad(reader, "bad escape");
    }
    return true;
}

/* Behind the opening quote. */
static bool skip_text(struct reader *reader, struct found *found)
{
    found->type = VALUE_TEXT;
    found->has_escapes = false;
    found->start = reader->at;
    for (;;) {
        while (reader->len - reader->at >= 8) {
            size_t plain = find_special(reader->bytes + reader->at);
            reader->at += plain;
            if (plain < 8)
                break;
        }
        if (at_end(reader))
            return cut(reader);
        unsigned char byte = reader->bytes[reader->at];
        if (byte == '"') {
            found->end = reader->at++;
            return true;
        }
        if (byte == '\\') {
            reader->at++;
            found->has_escapes = true;
            if (!skip_escape(reader))
                return false;
        } else if (byte < 0x20) {
            return bad(reader, "control character in a text");
        } else if (byte < 0x80) {
            reader->at++;
        } else {
            size_t width =
                scanned_utf8_len(reader->bytes + reader->at, reader->len - reader->at);
            if (width == 0)
                return reader->len - reader->at < 4
                           ? cut(reader)
                           : bad(reader, "text that is not UTF-8");
            reader->at += width;
        }
    }
}

/* ---- numbers and words ---- */

static size_t skip_digits(struct reader *reader)
{
    size_t start = reader->at;
    while (!at_end(reader) && reader->bytes[reader->at] >= '0' &&
           reader->bytes[reader->at] <= '9')
        reader->at++;
    return reader->at - start;
}

static bool skip_word(struct reader *reader, struct slice word)
{
    size_t there = min_size(word.len, reader->len - reader->at);
    if (memcmp(reader->bytes + reader->at, word.data, there) != 0)
        return bad(reader, "not a value");
    reader->at += there;
    return there == word.len || cut(reader);
}

/* Digits that must be there: behind a point or an exponent. */
static bool skip_more_digits(struct reader *reader)
{
    if (skip_digits(reader) > 0)
        return true;
    return at_end(reader) ? cut(reader) : bad(reader, "bad number");
}

static bool skip_number(struct reader *reader, struct found *found)
{
    found->start = reader->at;
    found->type = VALUE_INTEGER;
    if (reader->bytes[reader->at] == '-') {
        reader->at++;
        if (at_end(reader))
            return cut(reader);
        if (reader->bytes[reader->at] == 'I') {
            found->type = VALUE_FLOAT;
            bool whole = skip_word(reader, SLICE("Infinity"));
            found->end = reader->at;
            return whole;
        }
    }
    size_t first = reader->at;
    size_t digits = skip_digits(reader);
    if (digits == 0 || (digits > 1 && reader->bytes[first] == '0'))
        return bad(reader, "bad number");
    if (!at_end(reader) && reader->bytes[reader->at] == '.') {
        reader->at++;
        found->type = VALUE_FLOAT;
        if (!skip_more_digits(reader))
            return false;
    }
    if (!at_end(reader) && (reader->bytes[reader->at] | 0x20) == 'e') {
        reader->at++;
        found->type = VALUE_FLOAT;
        if (!at_end(reader) &&
            (reader->bytes[reader->at] == '+' || reader->bytes[reader->at] == '-'))
            reader->at++;
        if (!skip_more_digits(reader))
            return false;
    }
    found->end = reader->at;
    if (found->type == VALUE_INTEGER && digits > DIGITS_MAX)
        return bad(reader, "integer of more than 4,300 digits");
    return true;
}

static bool skip_named(struct reader *reader, struct slice word, enum value_type type,
                       struct found *found)
{
    found->type = type;
    found->start = reader->at;
    bool whole = skip_word(reader, word);
    found->end = reader->at;
    return whole;
}

/* ---- values ---- */

static bool skip_value(struct reader *reader, struct found *found);

static bool enter(struct reader *reader)
{
    reader->at++;
    if (++reader->depth > reader->depth_max)
        return bad(reader, "nested too deep");
    skip_space(reader);
    return true;
}

/* Behind an item: a comma (*more), or the end of the container. */
static bool skip_separator(struct reader *reader, unsigned char close, bool *more)
{
    skip_space(reader);
    if (at_end(reader))
        return cut(reader);
    unsigned char byte = reader->bytes[reader->at++];
    *more = byte == ',';
    if (*more) {
        skip_space(reader);
        return true;
    }
    reader->depth--;
    return byte == close || bad(reader, "neither a comma nor the end");
}

/* True when the container that was just entered ends at once. */
static bool is_empty(struct reader *reader, unsigned char close)
{
    if (at_end(reader) || reader->bytes[reader->at] != close)
        return false;
    reader->at++;
    reader->depth--;
    return true;
}

static bool skip_array(struct reader *reader, enum value_type *first)
{
    if (!enter(reader))
        return false;
    *first = VALUE_ABSENT;
    if (is_empty(reader, ']'))
        return true;
    bool more = true;
    while (more) {
        struct found item;
        if (!skip_value(reader, &item))
            return false;
        if (*first == VALUE_ABSENT)
            *first = item.type;
        if (!skip_separator(reader, ']', &more))
            return false;
    }
    return true;
}

/* A key and the colon behind it. */
static bool skip_key(struct reader *reader, struct found *key)
{
    if (at_end(reader))
        return cut(reader);
    if (reader->bytes[reader->at] != '"')
        return bad(reader, "a key is no text");
    reader->at++;
    if (!skip_text(reader, key))
        return false;
    skip_space(reader);
    if (at_end(reader))
        return cut(reader);
    if (reader->bytes[reader->at] != ':')
        return bad(reader, "no colon behind a key");
    reader->at++;
    skip_space(reader);
    return true;
}

static bool skip_object(struct reader *reader)
{
    if (!enter(reader))
        return false;
    if (is_empty(reader, '}'))
        return true;
    bool more = true;
    while (more) {
        struct found key, value;
        if (!skip_key(reader, &key) || !skip_value(reader, &value) ||
            !skip_separator(reader, '}', &more))
            return false;
    }
    return true;
}

static bool skip_value(struct reader *reader, struct found *found)
{
    if (at_end(reader))
        return cut(reader);
    enum value_type first;
    found->start = reader->at;
    switch (reader->bytes[reader->at]) {
    case '"':
        reader->at++;
        return skip_text(reader, found);
    case '{':
        found->type = VALUE_OTHER;
        return skip_object(reader);
    case '[':
        found->type = VALUE_LIST;
        return skip_array(reader, &first);
    case 't':
        return skip_named(reader, SLICE("true"), VALUE_BOOL, found);
    case 'f':
        return skip_named(reader, SLICE("false"), VALUE_BOOL, found);
    case 'n':
        return skip_named(reader, SLICE("null"), VALUE_NONE, found);
    case 'N':
        return skip_named(reader, SLICE("NaN"), VALUE_FLOAT, found);
    case 'I':
        return skip_named(reader, SLICE("Infinity"), VALUE_FLOAT, found);
    default:
        return skip_number(reader, found);
    }
}

/* ---- texts and numbers, decoded ---- */

static unsigned hex_value(const unsigned char *digits)
{
    unsigned value = 0;
    for (size_t i = 0; i < 4; i++) {
        unsigned digit = digits[i];
        value = value * 16 + (digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
    }
    return value;
}

/* One escape, behind its backslash; two that are a surrogate pair are one code point. */
static size_t take_escape(const unsigned char *escape, const unsigned char *end,
                          uint32_t *code_point)
{
    static const char names[] = "\"\\/bfnrt";
    static const char meant[] = "\"\\/\b\f\n\r\t";
    if (*escape != 'u') {
        *code_point = (unsigned char)meant[strchr(names, *escape) - names];
        return 1;
    }
    *code_point = hex_value(escape + 1);
    if (*code_point < 0xd800 || *code_point > 0xdbff || end - escape < 11 ||
        escape[5] != '\\' || escape[6] != 'u')
        return 5;
    unsigned low = hex_value(escape + 7);
    if (low < 0xdc00 || low > 0xdfff)
        return 5;
    *code_point = 0x10000 + ((*code_point - 0xd800) << 10) + (low - 0xdc00);
    return 11;
}

size_t json_text_decode(struct slice raw, char *bytes)
{
    const unsigned char *at = (const unsigned char *)raw.data;
    const unsigned char *end = at + raw.len;
    size_t len = 0;
    while (at < end) {
        if (*at != '\\') {
            bytes[len++] = (char)*at++;
            continue;
        }
        uint32_t code_point;
        at += 1 + take_escape(at + 1, end, &code_point);
        len += scanned_utf8_write(code_point, bytes + len);
    }
    return len;
}

/* The text without escapes; false when the scratch is used up. */
static bool decode_text(const struct reader *reader, const struct found *found,
                        struct scan_scratch *scratch, struct slice *text)
{
    size_t most = found->end - found->start;
    *text = slice_of(reader->bytes + found->start, most);
    if (!found->has_escapes)
        return true;
    char *bytes = scan_scratch_take(scratch, most);
    if (bytes == NULL)
        return false;
    size_t len = json_text_decode(*text, bytes);
    scan_scratch_give_back(scratch, most - len);
    *text = slice_of(bytes, len);
    return true;
}

/* The number's text with a NUL behind it; false when the scratch is used up. */
static bool number_text(const struct reader *reader, const struct found *found,
                        struct scan_scratch *scratch, char **text)
{
    size_t len = found->end - found->start;
    *text = scan_scratch_take(scratch, len + 1);
    if (*text == NULL)
        return false;
    memcpy(*text, reader->bytes + found->start, len);
    (*text)[len] = '\0';
    return true;
}

static struct scanned_value value_of(const struct reader *reader,
                                     const struct found *found,
                                     struct scan_scratch *scratch)
{
    struct scanned_value value = {.type = found->type};
    const struct scanned_value none = {.type = VALUE_OTHER};
    char *text;
    if (found->type == VALUE_BOOL)
        value.integer = reader->bytes[found->start] == 't';
    if (found->type == VALUE_TEXT && !decode_text(reader, found, scratch, &value.text))
        return none;
    if (found->type == VALUE_INTEGER) {
        if (!number_text(reader, found, scratch, &text))
            return none;
        errno = 0;
        value.integer = strtoll(text, NULL, 10);
        if (errno == ERANGE)
            value.type = VALUE_BIG_INTEGER;
    }
    if (found->type == VALUE_FLOAT) { /* strtod reads NaN and Infinity as well */
        if (!number_text(reader, found, scratch, &text))
            return none;
        value.real = strtod(text, NULL);
    }
    return value;
}

/* ---- the message ---- */

static enum scanned_key key_of(const struct reader *reader, const struct found *key)
{
    struct slice raw = slice_of(reader->bytes + key->start, key->end - key->start);
    char bytes[8 * sizeof("namespace")];
    if (!key->has_escapes)
        return scanned_key_find(raw);
    if (raw.len > 6 * sizeof("namespace"))
        return KEY_COUNT;
    size_t len = 0;
    const unsigned char *at = reader->bytes + key->start;
    const unsigned char *end = reader->bytes + key->end;
    while (at < end) {
        uint32_t code_point = *at;
        size_t width = 1;
        if (code_point == '\\')
            width += take_escape(at + 1, end, &code_point);
        else if (code_point >= 0x80)
            return KEY_COUNT;
        at += width;
        len += scanned_utf8_write(code_point, bytes + len);
    }
    return scanned_key_find(slice_of(bytes, len));
}

/* The outermost object: as skip_object, and the values of known keys are kept. */
static bool read_message(struct reader *reader)
{
    if (!enter(reader))
        return false;
    if (is_empty(reader, '}'))
        return true;
    bool more = true;
    while (more) {
        struct found key, value;
        if (!skip_key(reader, &key))
            return false;
        enum scanned_key name = key_of(reader, &key);
        bool is_data_list =
            name == KEY_DATA && !at_end(reader) && reader->bytes[reader->at] == '[';
        if (is_data_list) {
            value = (struct found){.type = VALUE_LIST, .start = reader->at};
            if (!skip_array(reader, &reader->data_first))
                return false;
        } else if (!skip_value(reader, &value)) {
            return false;
        }
        if (name != KEY_COUNT)
            reader->keys[name] = value;
        if (!skip_separator(reader, '}', &more))
            return false;
    }
    return true;
}

/* Walks the array at `found` (known to be well-formed): its items into `items`, at most `capacity` of
 * them; returns how many there are. */
static size_t read_items(struct reader *reader, const struct found *found,
                         struct found *items, size_t capacity)
{
    reader->at = found->start;
    size_t count = 0;
    if (!enter(reader) || is_empty(reader, ']'))
        return 0;
    bool more = true;
    while (more) {
        struct found item;
        if (!skip_value(reader, &item))
            return count;
        if (count < capacity)
            items[count] = item;
        count++;
        if (!skip_separator(reader, ']', &more))
            return count;
    }
    return count;
}

static void read_room_items(struct reader *reader, struct scan_scratch *scratch,
                            struct scanned *scanned)
{
    const struct found *room = &reader->keys[KEY_ROOM];
    reader->depth = 1;
    size_t count = read_items(reader, room, NULL, 0);
    scanned->values[KEY_ROOM].len = count;
    if (count == 0 || count > SCAN_TEXT_MAX / sizeof(struct found))
        return;
    struct found *items = scan_scratch_take(scratch, count * sizeof(*items));
    struct scanned_value *values = scan_scratch_take(scratch, count * sizeof(*values));
    if (items == NULL || values == NULL)
        return;
    reader->depth = 1;
    read_items(reader, room, items, count);
    for (size_t i = 0; i < count; i++)
        values[i] = value_of(reader, &items[i], scratch);
    scanned->room_items = values;
}

static void resolve(struct reader *reader, struct scan_scratch *scratch,
                    struct scanned *scanned)
{
    static const enum scanned_key resolved[] = {KEY_METHOD, KEY_NAMESPACE, KEY_ROOM,
                                                KEY_HOST_ID, KEY_SID};
    scanned->is_dict = true;
    scanned->data_first = reader->data_first;
    const struct found *binary = &reader->keys[KEY_BINARY];
    scanned->is_binary =
        binary->type == VALUE_BOOL && reader->bytes[binary->start] == 't';
    for (size_t key = 0; key < KEY_COUNT; key++)
        scanned->values[key].type = reader->keys[key].type;
    for (size_t i = 0; i < ARRAY_LEN(resolved); i++)
        scanned->values[resolved[i]] =
            value_of(reader, &reader->keys[resolved[i]], scratch);
    if (scanned->values[KEY_ROOM].type == VALUE_LIST)
        read_room_items(reader, scratch, scanned);
}

enum parse_result json_scan(struct slice payload, unsigned depth_max,
                            struct scan_scratch *scratch, struct scanned *scanned,
                            struct json_notes *notes)
{
    struct reader reader = {.bytes = (const unsigned char *)payload.data,
                            .len = payload.len,
                            .depth_max = depth_max < DEPTH_MAX ? depth_max : DEPTH_MAX};
    memset(scanned, 0, sizeof(*scanned));
    skip_space(&reader);
    struct found value;
    bool is_object = !at_end(&reader) && reader.bytes[reader.at] == '{';
    bool is_good = is_object ? read_message(&reader) : skip_value(&reader, &value);
    if (is_good) {
        skip_space(&reader);
        is_good = at_end(&reader) || bad(&reader, "bytes behind the end");
    }
    notes->error = reader.error;
    notes->offset = reader.at;
    if (!is_good)
        return reader.was_cut ? PARSE_MORE : PARSE_BAD;
    if (is_object)
        resolve(&reader, scratch, scanned);
    return PARSE_DONE;
}
