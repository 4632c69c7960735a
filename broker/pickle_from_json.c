/*
 * One walk over proved JSON, written as it is read: opcodes come in the order of the text. Protocol 4, which
 * every Python 3 since 3.4 reads and which python-socketio 5 therefore finds everywhere; without frames
 * and without a memo, which readers do not need.
 *
 *     [1, "x"]      ]  (  K1  Xx  e           batches of 1,000, as the pickler's
 *     arguments     (  K1  Xx  t              a tuple: data of several arguments, args, callback
 *     {"a": null}   }  (  Xa  N  u
 *
 * In binary data an object is known as a placeholder when it ends: it is then taken back, and the bytes of
 * its attachment written instead.
 *
 *     data of json15            in the pickle        data of json14      in the pickle
 *     [X]                       X                    X                   X
 *     [X, Y]  []                (X, Y)  ()           [X, Y]              [X, Y]
 */
#include "broker/pickle_from_json.h"

#include "broker/json_message.h"
#include "broker/json_scan.h"
#include "broker/json_text.h"
#include "broker/json_walk.h"
#include "broker/pickle_opcode.h"

#include <errno.h>

#define DEPTH_MAX 256
#define BATCH     1000
/* Most items of a tuple: they are on the reader's stack all at once. */
#define TUPLE_MAX 60000
/* Numbers up to this are copied to the stack to be read, longer ones to the heap. */
#define NUMBER_LEN 64

struct frame {
    char close; /* APPENDS, TUPLE, SETITEMS */
    unsigned count;
    size_t start; /* of its output */
    bool is_placeholder;
    bool has_number;
    int64_t number; /* of its attachment */
};

struct reader {
    struct transcoding *transcoding;
    struct json_walk walk;
    struct frame frames[DEPTH_MAX];
    unsigned depth;
    bool is_binary; /* placeholders stand for attachments */
    struct slice *attachments;
    size_t attachment_count;
};

static bool refuse(struct reader *reader, const char *what)
{
    return transcoding_refuse(reader->transcoding, what, reader->walk.at);
}

/* ---- values without items ---- */

static void put_little(struct transcoding *out, char opcode, uint64_t number,
                       size_t width)
{
    char bytes[9] = {opcode};
    for (size_t i = 0; i < width; i++)
        bytes[1 + i] = (char)(number >> (8 * i));
    transcoding_put(out, slice_of(bytes, 1 + width));
}

/* The opcode and length of `len` bytes, in the shorter of two forms. */
static void put_head(struct transcoding *out, char narrow, char wide, size_t len)
{
    if (len < 256)
        put_little(out, narrow, len, 1);
    else
        put_little(out, wide, len, 4);
}

static void write_text(struct transcoding *out, struct slice raw)
{
    if (slice_find(raw, '\\') == raw.len) {
        put_head(out, (char)OP_SHORT_BINUNICODE, OP_BINUNICODE, raw.len);
        transcoding_put(out, raw);
        return;
    }
    /* how long it becomes is known when it is decoded: behind the larger head, then moved */
    char *place = transcoding_reserve(out, raw.len + 5);
    if (place == NULL)
        return;
    size_t len = json_text_decode(raw, place + 5);
    size_t start = out->len;
    put_head(out, (char)OP_SHORT_BINUNICODE, OP_BINUNICODE, len);
    memmove(out->bytes + out->len, out->bytes + start + 5, len);
    transcoding_wrote(out, len);
}

static void write_integer(struct transcoding *out, struct slice text)
{
    char digits[NUMBER_LEN];
    errno = ERANGE;
    long long number = 0;
    if (text.len < sizeof(digits)) {
        memcpy(digits, text.data, text.len);
        digits[text.len] = '\0';
        errno = 0;
        number = strtoll(digits, NULL, 10);
    }
    if (errno == ERANGE) {
        transcoding_put_byte(out, OP_LONG);
        transcoding_put(out, text);
        transcoding_put(out, SLICE("L\n"));
    } else if (number >= 0 && number < 256) {
        put_little(out, OP_BININT1, (uint64_t)number, 1);
    } else if (number >= 0 && number < 65536) {
        put_little(out, OP_BININT2, (uint64_t)number, 2);
    } else if (number >= INT32_MIN && number <= INT32_MAX) {
        put_little(out, OP_BININT, (uint64_t)number, 4);
    } else {
        put_little(out, (char)OP_LONG1, 8, 1);
        put_little(out, (char)number, (uint64_t)number >> 8, 7);
    }
}

static void write_float(struct transcoding *out, struct slice text)
{
    char digits[NUMBER_LEN];
    char *copy = text.len < sizeof(digits) ? digits : must_calloc(1, text.len + 1);
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    double number = strtod(copy, NULL); /* reads NaN and Infinity as well */
    if (copy != digits)
        free(copy);
    uint64_t bits;
    memcpy(&bits, &number, sizeof(bits));
    char bytes[9] = {OP_BINFLOAT};
    for (size_t i = 0; i < 8; i++)
        bytes[1 + i] = (char)(bits >> (56 - 8 * i));
    transcoding_put(out, slice_of(bytes, sizeof(bytes)));
}

static bool is_float(struct slice number)
{
    for (size_t i = 0; i < number.len; i++)
        if (number.data[i] == '.' || (number.data[i] | 0x20) == 'e' ||
            number.data[i] == 'I')
            return true;
    return false;
}

static void write_scalar(struct reader *reader)
{
    struct transcoding *out = reader->transcoding;
    struct slice value;
    if (json_walk_peek(&reader->walk) == '"') {
        json_walk_text(&reader->walk, &value);
        write_text(out, value);
        return;
    }
    json_walk_value(&reader->walk, &value);
    switch (value.data[0]) {
    case 'n':
        transcoding_put_byte(out, OP_NONE);
        break;
    case 't':
        transcoding_put_byte(out, (char)OP_NEWTRUE);
        break;
    case 'f':
        transcoding_put_byte(out, (char)OP_NEWFALSE);
        break;
    case 'N':
    case 'I':
        write_float(out, value);
        break;
    default:
        if (is_float(value))
            write_float(out, value);
        else
            write_integer(out, value);
    }
}

/* ---- placeholders ---- */

/* A key of an object in binary data was written, its value comes next: what does it say about the object? */
static void note_key(struct reader *reader, struct frame *frame, struct slice raw)
{
    char key[16 * 6];
    if (raw.len > sizeof(key))
        return;
    struct slice name = slice_of(key, json_text_decode(raw, key));
    bool is_mark = slice_equals(name, SLICE("_placeholder"));
    if (!is_mark && !slice_equals(name, SLICE("num")))
        return;
    struct json_walk ahead = reader->walk;
    char first = json_walk_peek(&ahead);
    bool is_container =
        first == '[' || first == '{'; /* not walked to its end: it may be nested */
    struct slice value;
    if (!is_container)
        json_walk_value(&ahead, &value);
    if (is_mark) {
        frame->is_placeholder =
            is_container ? json_walk_enter(&ahead) : json_walk_is_true(value);
        return;
    }
    frame->has_number = true;
    frame->number = INT64_MAX; /* nothing that Python takes as an index */
    if (is_container)
        return;
    if (value.data[0] == 't' || value.data[0] == 'f') {
        frame->number = value.data[0] == 't';
    } else if (value.len < 19 && strchr("-0123456789", value.data[0]) != NULL &&
               !is_float(value)) {
        char digits[20] = {0};
        memcpy(digits, value.data, value.len);
        frame->number = strtoll(digits, NULL, 10);
    }
}

/* In place of the object that ended: the bytes of its attachment. */
static bool write_attachment(struct reader *reader, const struct frame *frame)
{
    struct transcoding *out = reader->transcoding;
    int64_t count = (int64_t)reader->attachment_count;
    int64_t number = frame->number < 0 ? frame->number + count : frame->number;
    if (number < 0 || number >= count)
        return refuse(reader, "a placeholder without an attachment before");
    struct slice text = reader->attachments[number];
    out->len = frame->start;
    char *place = transcoding_reserve(out, text.len / 4 * 3 + 5);
    if (place == NULL)
        return false;
    size_t len;
    if (!json_base64_read(text, place + 5, &len))
        return transcoding_refuse(out, "an attachment that is not base64",
                                  (size_t)(text.data - out->payload.data));
    size_t start = out->len;
    put_head(out, OP_SHORT_BINBYTES, OP_BINBYTES, len);
    memmove(out->bytes + out->len, out->bytes + start + 5, len);
    transcoding_wrote(out, len);
    return true;
}

/* ---- values with items ---- */

static void write_key(struct reader *reader, struct frame *frame)
{
    struct slice raw;
    json_walk_key(&reader->walk, &raw);
    write_text(reader->transcoding, raw);
    if (reader->is_binary)
        note_key(reader, frame, raw);
}

/* Writes a value; of a list or object only how it begins: then *is_open. */
static bool begin_value(struct reader *reader, bool as_tuple, bool *is_open)
{
    struct transcoding *out = reader->transcoding;
    char first = json_walk_peek(&reader->walk);
    *is_open = false;
    if (first != '[' && first != '{') {
        write_scalar(reader);
        return !out->is_full;
    }
    bool is_list = first == '[';
    size_t start = out->len;
    if (!as_tuple || !is_list)
        transcoding_put_byte(out, is_list ? OP_EMPTY_LIST : OP_EMPTY_DICT);
    if (!json_walk_enter(&reader->walk)) {
        if (as_tuple && is_list)
            transcoding_put_byte(out, OP_EMPTY_TUPLE);
        return !out->is_full;
    }
    if (reader->depth >= DEPTH_MAX)
        return refuse(reader, "nested too deep");
    struct frame *frame = &reader->frames[reader->depth++];
    *frame = (struct frame){.start = start};
    if (is_list)
        frame->close = as_tuple ? OP_TUPLE : OP_APPENDS;
    else
        frame->close = OP_SETITEMS;
    transcoding_put_byte(out, OP_MARK);
    *is_open = true;
    if (!is_list)
        write_key(reader, frame);
    return true;
}

/* Behind an item of the innermost list or object. */
static bool end_item(struct reader *reader)
{
    struct transcoding *out = reader->transcoding;
    struct frame *frame = &reader->frames[reader->depth - 1];
    if (!json_walk_more(&reader->walk)) {
        reader->depth--;
        if (frame->is_placeholder && frame->has_number)
            return write_attachment(reader, frame);
        transcoding_put_byte(out, frame->close);
        return true;
    }
    if (frame->close == OP_TUPLE && ++frame->count == TUPLE_MAX)
        return refuse(reader, "more arguments than a pickle may have");
    if (frame->close != OP_TUPLE && ++frame->count % BATCH == 0) {
        transcoding_put_byte(out, frame->close);
        transcoding_put_byte(out, OP_MARK);
    }
    return true;
}

/* The value that comes next; a list that is this value itself becomes a tuple when `as_tuple`. */
static bool write_value(struct reader *reader, bool as_tuple)
{
    unsigned base = reader->depth;
    bool is_open;
    if (!begin_value(reader, as_tuple, &is_open))
        return false;
    if (!is_open)
        return true;
    while (!reader->transcoding->is_full) {
        if (!begin_value(reader, false, &is_open))
            return false;
        /* behind a value: end what ends with it */
        while (!is_open) {
            unsigned depth = reader->depth;
            if (!end_item(reader))
                return false;
            if (reader->depth == base)
                return true;
            if (reader->depth == depth) { /* a comma */
                struct frame *frame = &reader->frames[depth - 1];
                if (frame->close == OP_SETITEMS)
                    write_key(reader, frame);
                break;
            }
        }
    }
    return false;
}

/* ---- the message ---- */

/* The texts behind the value of binary data. */
static bool find_attachments(struct reader *reader, const struct json_message *message)
{
    struct json_walk walk = {message->data, 0};
    struct slice value;
    json_walk_enter(&walk);
    json_walk_value(&walk, &value);
    while (json_walk_more(&walk)) {
        if (json_walk_peek(&walk) != '"')
            return refuse(reader, "an attachment that is no text");
        json_walk_text(&walk, &value);
        if (slice_find(value, '\\') != value.len)
            return refuse(reader, "an attachment that is not base64");
        size_t size = (reader->attachment_count + 1) * sizeof(struct slice);
        reader->attachments = scan_scratch_table(reader->transcoding->scratch,
                                                 SCAN_TABLE_ATTACHMENTS, size);
        reader->attachments[reader->attachment_count++] = value;
    }
    return true;
}

static bool write_data(struct reader *reader, const struct json_message *message)
{
    struct json_walk outer = reader->walk;
    struct slice data = message->value;
    bool as_tuple = false;
    if (reader->transcoding->from == DIALECT_JSON15 && data.data[0] == '[') {
        struct slice first = data;
        as_tuple = json_message_count(data, &first) != 1;
        if (!as_tuple)
            data = first;
    }
    if (message->is_binary && !find_attachments(reader, message))
        return false;
    reader->walk.at = (size_t)(data.data - reader->walk.text.data);
    reader->is_binary = message->is_binary;
    bool is_good = write_value(reader, as_tuple);
    reader->is_binary = false;
    reader->walk = outer;
    json_walk_value(&reader->walk, &data);
    return is_good;
}

static bool write_member(struct reader *reader, const struct json_message *message)
{
    struct slice raw, value;
    json_walk_key(&reader->walk, &raw);
    enum scanned_key key = json_message_key(raw);
    if (message->is_emit && key == KEY_BINARY) {
        json_walk_value(&reader->walk, &value);
        return true;
    }
    json_walk_peek(&reader->walk);
    const char *place = reader->walk.text.data + reader->walk.at;
    if (message->is_emit && key == KEY_DATA && place != message->data.data) {
        json_walk_value(&reader->walk, &value); /* another one comes, and wins */
        return true;
    }
    write_text(reader->transcoding, raw);
    if (message->is_emit && key == KEY_DATA)
        return write_data(reader, message);
    return write_value(reader, (message->is_emit && key == KEY_CALLBACK) ||
                                   (message->is_callback && key == KEY_ARGS));
}

bool pickle_from_json(struct transcoding *transcoding)
{
    struct json_message message;
    struct reader reader;
    if (!json_message_read(transcoding, transcoding->depth_max, &message))
        return false;
    reader.transcoding = transcoding;
    reader.walk = (struct json_walk){transcoding->payload, 0};
    reader.depth = 0;
    reader.is_binary = false;
    reader.attachments = NULL;
    reader.attachment_count = 0;
    transcoding_put(transcoding, SLICE("\x80\x04}("));
    bool more = json_walk_enter(&reader.walk);
    for (unsigned count = 1; more; count++) {
        if (!write_member(&reader, &message))
            return false;
        more = json_walk_more(&reader.walk);
        if (more && count % BATCH == 0)
            transcoding_put(transcoding, SLICE("u("));
    }
    transcoding_put(transcoding, SLICE("u."));
    return !transcoding->is_full;
}
