/*
 * Requests, as Redis' processMultibulkBuffer and processInlineBuffer read them, with the same limits and
 * the same texts for what is refused.
 *
 *     first byte '*' ──▶ count ──▶ ┌ $len ──▶ len bytes, CRLF ┐ × count ──▶ DONE
 *                                  └──────────────────────────┘
 *     anything else  ──▶ a line ──▶ split at spaces, quotes undone ──────▶ DONE
 *
 * Each arrow moves `understood`; what lies before it is never read again. As in Redis the byte behind a CR
 * and the two behind a bulk are skipped, not compared.
 */
#include "broker/resp.h"

#include <event2/buffer.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CAPACITY_FIRST 8
#define CAPACITY_KEPT  1024 /* a longer argv table is given back before the next request */
#define LINE_END_LEN   2

/* Where an argument lies in the input (or in inline_text). */
struct resp_place {
    size_t offset;
    size_t len;
};

void resp_parser_init(struct resp_parser *parser, size_t bulk_max, size_t request_max)
{
    *parser = (struct resp_parser){.bulk_max = bulk_max, .request_max = request_max};
}

void resp_parser_cleanup(struct resp_parser *parser)
{
    free(parser->places);
    free(parser->argv);
    free(parser->inline_text);
    *parser = (struct resp_parser){.bulk_max = parser->bulk_max,
                                   .request_max = parser->request_max};
}

static enum parse_result bad(struct resp_parser *parser, const char *error)
{
    snprintf(parser->error, sizeof(parser->error), "ERR Protocol error: %s", error);
    return PARSE_BAD;
}

static enum parse_result more(struct resp_parser *parser, size_t wanted)
{
    parser->wanted = wanted;
    return PARSE_MORE;
}

static void add_place(struct resp_parser *parser, size_t offset, size_t len)
{
    if (parser->argc == parser->capacity) {
        parser->capacity = max_size(parser->capacity * 2, CAPACITY_FIRST);
        parser->places =
            must_realloc(parser->places, parser->capacity * sizeof(struct resp_place));
        parser->argv =
            must_realloc(parser->argv, parser->capacity * sizeof(struct slice));
    }
    parser->places[parser->argc++] = (struct resp_place){.offset = offset, .len = len};
}

/* The request is whole: slices for its places, and a clean parser for the next one. */
static enum parse_result done(struct resp_parser *parser, const char *base,
                              size_t consumed, struct resp_request *request)
{
    for (size_t i = 0; i < parser->argc; i++)
        parser->argv[i] =
            slice_of(base + parser->places[i].offset, parser->places[i].len);
    *request = (struct resp_request){
        .argc = parser->argc,
        .argv = parser->argv,
        .consumed = consumed,
        .over = parser->over,
        .over_len = parser->over == RESP_OVER_REQUEST ? parser->cost : parser->over_len,
    };
    parser->over = RESP_FITS;
    parser->cost = 0;
    parser->in_multibulk = false;
    parser->has_bulk_len = false;
    parser->understood = 0;
    parser->searched = 0;
    parser->wanted = 1;
    return PARSE_DONE;
}

static void forget_last_request(struct resp_parser *parser)
{
    parser->argc = 0;
    if (parser->capacity > CAPACITY_KEPT) {
        free(parser->places);
        free(parser->argv);
        parser->places = NULL;
        parser->argv = NULL;
        parser->capacity = 0;
    }
    free(parser->inline_text);
    parser->inline_text = NULL;
}

/* From here on the request is skipped. What was longer first is what is wrong with it. */
static void note_over(struct resp_parser *parser, enum resp_over over, size_t len)
{
    if (parser->over != RESP_FITS)
        return;
    parser->over = over;
    parser->over_len = len;
    forget_last_request(parser);
}

/* The line from `understood` to `end` (not in it), and that many of `skipped` bytes behind it; `too_long` is
 * the error past 64 KiB. */
static enum parse_result take_line(struct resp_parser *parser, struct slice input,
                                   char end, size_t skipped, const char *too_long,
                                   struct slice *line)
{
    size_t from = max_size(parser->understood, parser->searched);
    size_t at = from + slice_find(slice_from(input, from), end);
    if (at - parser->understood > RESP_INLINE_MAX)
        return bad(parser, too_long);
    parser->searched = at;
    if (at + skipped > input.len)
        return more(parser, max_size(input.len + 1, at + skipped));
    *line = slice_of(input.data + parser->understood, at - parser->understood);
    parser->understood = at + skipped;
    parser->searched = parser->understood;
    return PARSE_DONE;
}

/* As Redis' string2ll: no sign but '-', no leading zero, nothing else. */
static bool read_len(struct slice text, int64_t *number)
{
    uint64_t size;
    bool is_negative = slice_starts_with(text, SLICE("-"));
    if (is_negative)
        text = slice_from(text, 1);
    if (text.len > 1 && text.data[0] == '0')
        return false;
    if (!slice_to_number(text, is_negative ? 1 : 0, INT64_MAX, &size))
        return false;
    *number = is_negative ? -(int64_t)size : (int64_t)size;
    return true;
}

/* ---- inline ---- */

static bool is_space(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte = (char)(byte | 0x20);
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* One escape between double quotes, behind its backslash. */
static char take_escape(struct slice *rest)
{
    static const char names[] = "nrtba";
    static const char meant[] = "\n\r\t\b\a";
    char escape = rest->data[0];
    if (escape == 'x' && rest->len >= 3 && hex_digit(rest->data[1]) >= 0 &&
        hex_digit(rest->data[2]) >= 0) {
        char byte = (char)(hex_digit(rest->data[1]) << 4 | hex_digit(rest->data[2]));
        *rest = slice_from(*rest, 3);
        return byte;
    }
    *rest = slice_from(*rest, 1);
    const char *name = escape != '\0' ? strchr(names, escape) : NULL;
    return name != NULL ? meant[name - names] : escape;
}

/* The inside of quotes, behind the opening one, appended to *out. False: not closed, or something other than
 * a space behind the closing quote. */
static bool take_quoted(struct slice *rest, char quote, char **out)
{
    while (rest->len > 0) {
        char byte = rest->data[0];
        *rest = slice_from(*rest, 1);
        if (byte == quote)
            return rest->len == 0 || is_space(rest->data[0]);
        bool is_escape =
            byte == '\\' && rest->len > 0 && (quote == '"' || rest->data[0] == '\'');
        *(*out)++ = is_escape ? take_escape(rest) : byte;
    }
    return false;
}

static bool split_inline(struct resp_parser *parser, struct slice rest)
{
    char *out = parser->inline_text;
    while (rest.len > 0) {
        if (is_space(rest.data[0])) {
            rest = slice_from(rest, 1);
            continue;
        }
        char *start = out;
        while (rest.len > 0 && !is_space(rest.data[0])) {
            char byte = rest.data[0];
            rest = slice_from(rest, 1);
            if (byte != '"' && byte != '\'')
                *out++ = byte;
            else if (!take_quoted(&rest, byte, &out))
                return false;
        }
        add_place(parser, (size_t)(start - parser->inline_text), (size_t)(out - start));
    }
    return true;
}

static enum parse_result parse_inline(struct resp_parser *parser, struct slice input,
                                      struct resp_request *request)
{
    struct slice line;
    enum parse_result result =
        take_line(parser, input, '\n', 1, "too big inline request", &line);
    if (result != PARSE_DONE)
        return result;
    if (slice_ends_with(line, SLICE("\r")))
        line.len--;
    line = slice_to(line, slice_find(line, '\0')); /* as in Redis, a NUL ends the line */
    parser->inline_text = must_realloc(parser->inline_text, line.len);
    if (!split_inline(parser, line))
        return bad(parser, "unbalanced quotes in request");
    return done(parser, parser->inline_text, parser->understood, request);
}

/* ---- multibulk ---- */

static enum parse_result parse_count(struct resp_parser *parser, struct slice input)
{
    struct slice line;
    enum parse_result result =
        take_line(parser, input, '\r', LINE_END_LEN, "too big mbulk count string", &line);
    if (result != PARSE_DONE)
        return result;
    int64_t count;
    if (!read_len(slice_from(line, 1), &count) || count > RESP_MULTIBULK_MAX)
        return bad(parser, "invalid multibulk length");
    if (count > RESP_UNAUTHED_ARGS_MAX && parser->is_unauthenticated)
        return bad(parser, "unauthenticated multibulk length");
    parser->in_multibulk = true;
    parser->args_missing = count > 0 ? (uint32_t)count : 0;
    parser->cost = (size_t)parser->args_missing * RESP_ARGUMENT_COST;
    if (parser->cost > parser->request_max)
        note_over(parser, RESP_OVER_REQUEST, 0);
    return PARSE_DONE;
}

static enum parse_result parse_bulk_len(struct resp_parser *parser, struct slice input)
{
    struct slice line;
    char expected[] = "expected '$', got '?'";
    if (input.len > parser->understood && input.data[parser->understood] != '$') {
        *strchr(expected, '?') = input.data[parser->understood];
        return bad(parser, expected);
    }
    enum parse_result result =
        take_line(parser, input, '\r', LINE_END_LEN, "too big bulk count string", &line);
    if (result != PARSE_DONE)
        return result;
    int64_t len;
    size_t most = parser->is_unauthenticated ? parser->bulk_max
                                             : max_size(parser->bulk_max, RESP_SKIP_MAX);
    if (!read_len(slice_from(line, 1), &len) || len < 0 || (uint64_t)len > most)
        return bad(parser, "invalid bulk length");
    if (len > RESP_UNAUTHED_BULK_MAX && parser->is_unauthenticated)
        return bad(parser, "unauthenticated bulk length");
    parser->has_bulk_len = true;
    parser->bulk_len = (size_t)len;
    parser->skip_left = parser->bulk_len + LINE_END_LEN;
    parser->cost += parser->bulk_len;
    if (parser->bulk_len > parser->bulk_max)
        note_over(parser, RESP_OVER_BULK, parser->bulk_len);
    if (parser->cost > parser->request_max)
        note_over(parser, RESP_OVER_REQUEST, 0);
    return PARSE_DONE;
}

static enum parse_result skip_bulk(struct resp_parser *parser, struct slice input)
{
    size_t skipped = min_size(parser->skip_left, input.len - parser->understood);
    parser->understood += skipped;
    parser->skip_left -= skipped;
    parser->searched = parser->understood;
    if (parser->skip_left > 0)
        return more(parser, input.len + 1);
    parser->has_bulk_len = false;
    parser->args_missing--;
    return PARSE_DONE;
}

static enum parse_result parse_bulk(struct resp_parser *parser, struct slice input)
{
    if (!parser->has_bulk_len) {
        enum parse_result result = parse_bulk_len(parser, input);
        if (result != PARSE_DONE)
            return result;
    }
    if (parser->over != RESP_FITS)
        return skip_bulk(parser, input);
    size_t end = parser->understood + parser->bulk_len + LINE_END_LEN;
    if (end > input.len)
        return more(parser, end);
    add_place(parser, parser->understood, parser->bulk_len);
    parser->understood = end;
    parser->searched = end;
    parser->has_bulk_len = false;
    parser->args_missing--;
    return PARSE_DONE;
}

/* What is skipped need not be kept until the rest comes. */
static void drop_skipped(struct resp_parser *parser, struct resp_request *request)
{
    request->consumed = parser->understood;
    parser->wanted -= parser->understood;
    parser->searched -= min_size(parser->searched, parser->understood);
    parser->understood = 0;
}

enum parse_result resp_parse(struct resp_parser *parser, struct slice input,
                             struct resp_request *request)
{
    *request = (struct resp_request){0};
    if (parser->understood == 0 && parser->over == RESP_FITS)
        forget_last_request(parser);
    if (input.len == 0)
        return more(parser, 1);
    if (!parser->in_multibulk) {
        if (input.data[0] != '*')
            return parse_inline(parser, input, request);
        enum parse_result result = parse_count(parser, input);
        if (result != PARSE_DONE)
            return result;
    }
    while (parser->args_missing > 0) {
        enum parse_result result = parse_bulk(parser, input);
        if (result == PARSE_MORE && parser->over != RESP_FITS)
            drop_skipped(parser, request);
        if (result != PARSE_DONE)
            return result;
    }
    return done(parser, input.data, parser->understood, request);
}

/* ---- replies ---- */

static char *write_digits(char *end, uint64_t number)
{
    do
        *--end = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return end;
}

/* A type byte, a number, a line end. */
static void write_number(struct evbuffer *out, char type, bool is_negative,
                         uint64_t number)
{
    char line[32];
    char *end = line + sizeof(line);
    end[-1] = '\n';
    end[-2] = '\r';
    char *at = write_digits(end - 2, number);
    if (is_negative)
        *--at = '-';
    *--at = type;
    evbuffer_add(out, at, (size_t)(end - at));
}

static void write_line(struct evbuffer *out, char type, const char *text)
{
    evbuffer_add(out, &type, 1);
    for (size_t len; *text != '\0'; text += len) {
        len = strcspn(text, "\r\n");
        evbuffer_add(out, text, len);
        if (text[len] != '\0') {
            evbuffer_add(out, " ", 1);
            len++;
        }
    }
    evbuffer_add(out, "\r\n", LINE_END_LEN);
}

void resp_write_simple(struct evbuffer *out, const char *text)
{
    write_line(out, '+', text);
}

void resp_write_error(struct evbuffer *out, const char *text)
{
    write_line(out, '-', text);
}

void resp_write_error_format(struct evbuffer *out, const char *format, ...)
{
    va_list arguments;
    char *text;
    va_start(arguments, format);
    int len = vasprintf(&text, format, arguments);
    va_end(arguments);
    check(len >= 0);
    write_line(out, '-', text);
    free(text);
}

void resp_write_integer(struct evbuffer *out, int64_t number)
{
    write_number(out, ':', number < 0,
                 number < 0 ? 0 - (uint64_t)number : (uint64_t)number);
}

void resp_write_bulk(struct evbuffer *out, struct slice bytes)
{
    write_number(out, '$', false, bytes.len);
    evbuffer_add(out, bytes.data, bytes.len);
    resp_write_line_end(out);
}

void resp_write_null(struct evbuffer *out, unsigned protocol)
{
    if (protocol >= 3)
        evbuffer_add(out, "_\r\n", 3);
    else
        evbuffer_add(out, "$-1\r\n", 5);
}

void resp_write_bool(struct evbuffer *out, unsigned protocol, bool value)
{
    if (protocol >= 3)
        evbuffer_add(out, value ? "#t\r\n" : "#f\r\n", 4);
    else
        resp_write_integer(out, value);
}

void resp_write_array(struct evbuffer *out, size_t count)
{
    write_number(out, '*', false, count);
}

void resp_write_map(struct evbuffer *out, unsigned protocol, size_t pairs)
{
    write_number(out, protocol >= 3 ? '%' : '*', false,
                 protocol >= 3 ? pairs : 2 * pairs);
}

void resp_write_set(struct evbuffer *out, unsigned protocol, size_t count)
{
    write_number(out, protocol >= 3 ? '~' : '*', false, count);
}

void resp_write_push(struct evbuffer *out, unsigned protocol, size_t count)
{
    write_number(out, protocol >= 3 ? '>' : '*', false, count);
}

void resp_write_verbatim(struct evbuffer *out, unsigned protocol, struct slice text)
{
    static const char kind[] = "txt:";
    if (protocol < 3) {
        resp_write_bulk(out, text);
        return;
    }
    write_number(out, '=', false, text.len + sizeof(kind) - 1);
    evbuffer_add(out, kind, sizeof(kind) - 1);
    evbuffer_add(out, text.data, text.len);
    resp_write_line_end(out);
}

void resp_write_line_end(struct evbuffer *out)
{
    evbuffer_add(out, "\r\n", LINE_END_LEN);
}

void resp_write_subscribed(struct evbuffer *out, unsigned protocol, const char *kind,
                           struct slice channel, size_t count)
{
    resp_write_push(out, protocol, 3);
    resp_write_bulk(out, slice_from_text(kind));
    if (channel.data == NULL)
        resp_write_null(out, protocol);
    else
        resp_write_bulk(out, channel);
    resp_write_integer(out, (int64_t)count);
}

static char *put_number(char *at, char type, uint64_t number)
{
    char digits[20];
    char *end = digits + sizeof(digits);
    char *first = write_digits(end, number);
    *at++ = type;
    memcpy(at, first, (size_t)(end - first));
    at += end - first;
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

static char *put_bulk(char *at, struct slice bytes)
{
    at = put_number(at, '$', bytes.len);
    if (bytes.len > 0)
        memcpy(at, bytes.data, bytes.len);
    at += bytes.len;
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

size_t resp_put_bulk_head(char *room, size_t len)
{
    return (size_t)(put_number(room, '$', len) - room);
}

size_t resp_put_message_head(char *room, unsigned protocol, struct slice channel,
                             size_t payload_len)
{
    char *at = put_number(room, protocol >= 3 ? '>' : '*', 3);
    at = put_bulk(at, SLICE("message"));
    at = put_bulk(at, channel);
    return (size_t)(put_number(at, '$', payload_len) - room);
}

size_t resp_put_pmessage_head(char *room, unsigned protocol, struct slice pattern,
                              struct slice channel, size_t payload_len)
{
    char *at = put_number(room, protocol >= 3 ? '>' : '*', 4);
    at = put_bulk(at, SLICE("pmessage"));
    at = put_bulk(at, pattern);
    at = put_bulk(at, channel);
    return (size_t)(put_number(at, '$', payload_len) - room);
}
