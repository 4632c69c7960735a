/*
 * A reply is read again from its start when more of it has come, but not before the bytes are there that
 * stopped the last attempt: a long payload in many pieces is looked at twice.
 */
#include "broker/link_reader.h"

#include <stdlib.h>

#include "shared/parse.h"

/* Longer lines are not Redis': an error names at most a command and its arguments, cut. */
#define LINE_MAX_LEN ((size_t)64 * 1024)

/* Longer messages are not Redis'. */
#define SKIPPED_MAX ((uint64_t)1 << 40)

/* Of a number: what fits an int64. */
#define DIGITS_MAX 18

/* ROLE has three levels; a master lists its replicas. */
#define DEPTH_MAX    8
#define ELEMENTS_MAX 65536

struct link_reader {
    char *bytes;
    size_t size;
    size_t len;
    size_t wanted; /* no reply is whole before there are so many */
    size_t skips;  /* bytes that are to be read past, of a message that is too long */
    size_t skipped;
    size_t read_size;
    size_t reply_max;
    struct link_reader_callbacks callbacks;
};

/* One element as it lies in the buffer. */
struct element {
    char type;
    struct slice text; /* '+', '-', '$' */
    int64_t number;    /* ':', '*' */
    bool is_null;
};

/* A reply while it is read. */
struct cursor {
    struct slice bytes;
    size_t at;
    size_t wanted; /* after PARSE_MORE */
    size_t
        too_long; /* the length of the element that is: the cursor is at its first byte */
};

static enum parse_result more(struct cursor *cursor, size_t wanted)
{
    cursor->wanted = wanted;
    return PARSE_MORE;
}

static enum parse_result take_line(struct cursor *cursor, struct slice *line)
{
    const char *start = cursor->bytes.data + cursor->at;
    size_t left = cursor->bytes.len - cursor->at;
    const char *end = memchr(start, '\r', left);
    if (end == NULL || (size_t)(end - start) + 2 > left)
        return left > LINE_MAX_LEN ? PARSE_BAD : more(cursor, cursor->bytes.len + 1);
    if (end[1] != '\n')
        return PARSE_BAD;
    *line = slice_of(start, (size_t)(end - start));
    cursor->at += line->len + 2;
    return PARSE_DONE;
}

/* A number and its line end. */
static enum parse_result take_number(struct cursor *cursor, int64_t *number)
{
    const char *at = cursor->bytes.data + cursor->at;
    const char *end = cursor->bytes.data + cursor->bytes.len;
    bool is_negative = at < end && *at == '-';
    at += is_negative;
    const char *first = at;
    int64_t value = 0;
    while (at < end && at - first < DIGITS_MAX && *at >= '0' && *at <= '9')
        value = value * 10 + (*at++ - '0');
    if (end - at < 2 && (at == end || *at == '\r'))
        return more(cursor, cursor->bytes.len + 1);
    if (at == first || at[0] != '\r' || at[1] != '\n')
        return PARSE_BAD;
    *number = is_negative ? -value : value;
    cursor->at = (size_t)(at - cursor->bytes.data) + 2;
    return PARSE_DONE;
}

/* The bytes of a bulk string, behind its length. */
static enum parse_result take_bulk(struct cursor *cursor, size_t reply_max,
                                   struct element *element)
{
    element->is_null = element->number == -1;
    if (element->is_null)
        return PARSE_DONE;
    if (element->number < 0 || (uint64_t)element->number > SKIPPED_MAX)
        return PARSE_BAD;
    if ((uint64_t)element->number > reply_max) {
        cursor->too_long = (size_t)element->number;
        return PARSE_BAD;
    }
    size_t len = (size_t)element->number;
    if (cursor->bytes.len - cursor->at < len + 2)
        return more(cursor, cursor->at + len + 2);
    const char *text = cursor->bytes.data + cursor->at;
    if (text[len] != '\r' || text[len + 1] != '\n')
        return PARSE_BAD;
    element->text = slice_of(text, len);
    cursor->at += len + 2;
    return PARSE_DONE;
}

static enum parse_result take_element(struct cursor *cursor, size_t reply_max,
                                      struct element *element)
{
    if (cursor->at == cursor->bytes.len)
        return more(cursor, cursor->bytes.len + 1);
    *element = (struct element){.type = cursor->bytes.data[cursor->at++]};
    enum parse_result result;
    switch (element->type) {
    case '+':
    case '-':
        return take_line(cursor, &element->text);
    case ':':
        return take_number(cursor, &element->number);
    case '$':
        result = take_number(cursor, &element->number);
        return result == PARSE_DONE ? take_bulk(cursor, reply_max, element) : result;
    case '*':
        result = take_number(cursor, &element->number);
        if (result == PARSE_DONE &&
            (element->number < -1 || element->number > ELEMENTS_MAX))
            return PARSE_BAD;
        element->is_null = element->number == -1;
        return result;
    default:
        return PARSE_BAD;
    }
}

/* `count` elements of an array: the first three, as far as they are strings, into `strings`. */
static enum parse_result take_elements(struct cursor *cursor, size_t reply_max,
                                       int64_t count, struct slice strings[3])
{
    int64_t left[DEPTH_MAX] = {count}; /* of each array that is open */
    unsigned depth = 0;
    unsigned total = 0;
    for (;;) {
        while (left[depth] == 0) {
            if (depth == 0)
                return PARSE_DONE;
            depth--;
        }
        int64_t place = count - left[0];
        bool is_outer = depth == 0;
        struct element element;
        enum parse_result result = take_element(cursor, reply_max, &element);
        if (result != PARSE_DONE)
            return result;
        left[depth]--;
        if (++total > ELEMENTS_MAX)
            return PARSE_BAD;
        if (element.type == '*' && !element.is_null) {
            if (++depth == DEPTH_MAX)
                return PARSE_BAD;
            left[depth] = element.number;
        } else if (element.type == '$' && !element.is_null && is_outer && place < 3) {
            strings[place] = element.text;
        }
    }
}

static void set_single(const struct element *element, struct link_reply *reply)
{
    switch (element->type) {
    case ':':
        reply->type = LINK_REPLY_INTEGER;
        reply->integer = element->number;
        return;
    case '+':
    case '-':
        reply->type = element->type == '+' ? LINK_REPLY_STATUS : LINK_REPLY_ERROR;
        reply->text = element->text;
        return;
    default:
        /* a bulk string or a null: OTHER */
        if (!element->is_null)
            reply->text = element->text;
        return;
    }
}

/* The payload of a message is too long: its start is shown, then all of it is read past. */
static enum parse_result skip_message(struct link_reader *reader, struct cursor *cursor,
                                      const struct slice strings[3], bool *goes_on)
{
    size_t left = cursor->bytes.len - cursor->at;
    if (left < LINK_READER_START)
        return more(cursor, cursor->at + LINK_READER_START);
    size_t whole = cursor->too_long + 2; /* its line end */
    size_t there = min_size(left, whole);
    *goes_on = reader->callbacks.on_too_long(
        reader->callbacks.context, strings[1],
        slice_of(cursor->bytes.data + cursor->at, LINK_READER_START), cursor->too_long);
    cursor->at += there;
    reader->skips = whole - there;
    reader->skipped = there;
    return PARSE_DONE;
}

static bool is_message(const struct slice strings[3])
{
    return slice_equals(strings[0], SLICE("message")) && strings[1].data != NULL;
}

/* One reply; *goes_on is what the owner says to it. */
static enum parse_result take_reply(struct link_reader *reader, struct cursor *cursor,
                                    bool *goes_on)
{
    struct link_reply reply = {.text = SLICE(""), .channel = SLICE("")};
    struct element element;
    enum parse_result result = take_element(cursor, reader->reply_max, &element);
    if (result != PARSE_DONE)
        return result;
    const struct link_reader_callbacks *callbacks = &reader->callbacks;
    if (element.type != '*' || element.is_null) {
        set_single(&element, &reply);
        *goes_on = callbacks->on_reply(callbacks->context, &reply);
        return PARSE_DONE;
    }
    struct slice strings[3] = {SLICE(""), SLICE(""), {NULL, 0}};
    result = take_elements(cursor, reader->reply_max, element.number, strings);
    if (result == PARSE_BAD && cursor->too_long > 0 && element.number == 3 &&
        strings[2].data == NULL && is_message(strings) &&
        cursor->too_long > LINK_READER_START)
        return skip_message(reader, cursor, strings, goes_on);
    if (result != PARSE_DONE)
        return result;
    if (strings[2].data != NULL && slice_equals(strings[0], SLICE("message"))) {
        *goes_on = callbacks->on_message(callbacks->context, strings[1], strings[2]);
        return PARSE_DONE;
    }
    reply.type = LINK_REPLY_ARRAY;
    reply.text = strings[0];
    reply.channel = strings[1];
    *goes_on = callbacks->on_reply(callbacks->context, &reply);
    return PARSE_DONE;
}

struct link_reader *link_reader_new(size_t read_size, size_t reply_max,
                                    const struct link_reader_callbacks *callbacks)
{
    struct link_reader *reader = must_calloc(1, sizeof(*reader));
    reader->read_size = read_size;
    reader->reply_max = reply_max;
    reader->callbacks = *callbacks;
    reader->wanted = 1;
    return reader;
}

void link_reader_free(struct link_reader *reader)
{
    free(reader->bytes);
    free(reader);
}

/* It grows with what has come, and not with what a length claims. */
char *link_reader_room(struct link_reader *reader, size_t *size)
{
    if (reader->size > 2 * reader->read_size && reader->len < reader->read_size / 2) {
        reader->size = reader->read_size;
        reader->bytes = must_realloc(reader->bytes, reader->size);
    }
    if (reader->size - reader->len < max_size(reader->read_size / 2, 1)) {
        reader->size = max_size(reader->size * 2, reader->read_size);
        reader->bytes = must_realloc(reader->bytes, reader->size);
    }
    *size = reader->size - reader->len;
    return reader->bytes + reader->len;
}

bool link_reader_take(struct link_reader *reader, size_t len)
{
    check(len <= reader->size - reader->len);
    char *came = reader->bytes + reader->len;
    size_t past = min_size(reader->skips, len);
    reader->skips -= past;
    reader->skipped += past;
    if (past > 0)
        memmove(came, came + past, len - past);
    reader->len += len - past;
    if (reader->skips > 0)
        return true;
    struct cursor cursor = {.bytes = slice_of(reader->bytes, reader->len)};
    size_t start = 0;
    enum parse_result result = PARSE_DONE;
    bool goes_on = true;
    while (goes_on && reader->skips == 0 && reader->len - start >= reader->wanted) {
        cursor.too_long = 0;
        cursor.at = start;
        result = take_reply(reader, &cursor, &goes_on);
        if (result != PARSE_DONE)
            break;
        start = cursor.at;
        reader->wanted = 1;
    }
    if (result == PARSE_MORE)
        reader->wanted = cursor.wanted - start;
    if (start > 0)
        memmove(reader->bytes, reader->bytes + start, reader->len - start);
    reader->len -= start;
    return result != PARSE_BAD && reader->len <= reader->reply_max;
}

size_t link_reader_begun(const struct link_reader *reader)
{
    return reader->skips > 0 ? reader->skipped : reader->len;
}
