/*
 * The chunk decoder and its two simple brothers. States, with the byte that leads on:
 *
 *     SIZE_FIRST ─ hex ─▶ SIZE ─┬─ CR ────────▶ SIZE_LF ─ LF ─┬─ size > 0 ─▶ DATA
 *       ▲                       └─ ; ─▶ NAME … ─── CR ──▲      │              │ all taken
 *       │                                                      │              ▼
 *       └───────────────────── LF ─ DATA_LF ◀─ CR ──────────── │ ────────── DATA_CR
 *                                                              └─ size 0 ─▶ TRAILER_FIRST
 *
 *     TRAILER_FIRST ─┬─ CR ─▶ TRAILER_END ─ LF ─▶ COMPLETE
 *       ▲            └─ token ─▶ TRAILER_NAME ─ : ─▶ TRAILER ─ CR ─▶ TRAILER_LF ─ LF ─┐
 *       └───────────────────────────────────────────────────────────────────────────┘
 *
 *     ;  NAME_FIRST ─ token ─▶ NAME ─ = ─▶ VALUE_FIRST ─┬─ token ─▶ VALUE ────┬─ ; or CR
 *           ▲                    └─ ; or CR             └─ " ─▶ QUOTED ─ " ─▶ QUOTED_END
 *           └─ ;                                                 \ ─▶ QUOTED_PAIR
 *
 * Any other byte leads to FAULTY. Whitespace may stand around ; and = of an extension, though not
 * in front of the first ; and of the CR. A length and "until close" are DATA from the beginning. Framing bytes are taken one by
 * one, payload in one step, so that the cost is that of the framing.
 */
#include "proxy/body_framing.h"

#include "proxy/http_chars.h"

enum state {
    SIZE_FIRST,
    SIZE,
    NAME_FIRST,
    NAME,
    NAME_END,
    VALUE_FIRST,
    VALUE,
    VALUE_END,
    QUOTED,
    QUOTED_PAIR,
    QUOTED_END,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST,
    TRAILER_NAME,
    TRAILER,
    TRAILER_LF,
    TRAILER_END,
    COMPLETE,
    FAULTY,
};

_Static_assert(sizeof(struct body_framing) <= 32, "sits in every exchange");

static enum parse_result refuse(struct body_framing *framing, enum body_fault fault)
{
    framing->state = FAULTY;
    framing->fault = (uint8_t)fault;
    return PARSE_BAD;
}

enum parse_result body_framing_start(struct body_framing *framing, enum body_kind kind,
                                     uint64_t length, uint64_t max_bytes,
                                     uint32_t max_framing)
{
    *framing = (struct body_framing){
        .left = kind == BODY_LENGTH ? length : 0,
        .budget = max_bytes > 0 ? max_bytes : UINT64_MAX,
        .framing_left = max_framing > 0 ? max_framing : UINT32_MAX,
        .kind = (uint8_t)kind,
        .state = kind == BODY_CHUNKED ? SIZE_FIRST : DATA,
    };
    if (framing->left > framing->budget)
        return refuse(framing, BODY_FAULT_TOO_LARGE);
    if (kind == BODY_NONE || (kind == BODY_LENGTH && length == 0)) {
        framing->state = COMPLETE;
        return PARSE_DONE;
    }
    return PARSE_MORE;
}

/* The line with the chunk's size has ended. */
static enum parse_result begin_chunk(struct body_framing *framing)
{
    if (framing->left == 0) {
        framing->state = TRAILER_FIRST;
        framing->line_left = BODY_TRAILER_BYTES_MAX;
        framing->lines_left = BODY_TRAILER_LINES_MAX;
        return PARSE_MORE;
    }
    if (framing->left > framing->budget)
        return refuse(framing, BODY_FAULT_TOO_LARGE);
    if (framing->framing_left != UINT32_MAX)
        framing->framing_left +=
            (uint32_t)min_size(framing->left, UINT32_MAX - 1 - framing->framing_left);
    framing->budget -= framing->budget != UINT64_MAX ? framing->left : 0;
    framing->state = DATA;
    return PARSE_MORE;
}

static enum parse_result step_size(struct body_framing *framing, char byte)
{
    if (http_char_is(byte, HTTP_CHAR_HEX)) {
        if (framing->digits == BODY_CHUNK_DIGITS_MAX)
            return refuse(framing, BODY_FAULT_CHUNK_SIZE);
        framing->digits++;
        framing->left = framing->left << 4 | http_hex_value(byte);
        framing->state = SIZE;
        return PARSE_MORE;
    }
    if (framing->state == SIZE_FIRST)
        return refuse(framing, BODY_FAULT_CHUNK_SIZE);
    if (byte == '\r') {
        framing->state = SIZE_LF;
        return PARSE_MORE;
    }
    if (byte != ';')
        return refuse(framing, BODY_FAULT_CHUNK_SIZE);
    framing->state = NAME_FIRST;
    framing->line_left = BODY_EXTENSION_BYTES_MAX;
    return PARSE_MORE;
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

/* Where an extension may go on after a name, a value or a quoted-string; FAULTY: nowhere. `blank`: where whitespace
 * leads. */
static enum state after_part(char byte, enum state blank)
{
    if (byte == ';')
        return NAME_FIRST;
    if (byte == '\r')
        return SIZE_LF;
    return is_blank(byte) ? blank : FAULTY;
}

/* RFC 9112 7.1.1. Readers that know quotes and readers that do not would find different ends of a line that breaks this. */
static enum state extension_next(enum state state, char byte)
{
    bool is_token = http_char_is(byte, HTTP_CHAR_TOKEN);
    switch (state) {
    case NAME_FIRST:
        return is_token ? NAME : is_blank(byte) ? NAME_FIRST : FAULTY;
    case NAME:
        if (is_token || byte == '=')
            return is_token ? NAME : VALUE_FIRST;
        return after_part(byte, NAME_END);
    case NAME_END:
        if (byte == '=')
            return VALUE_FIRST;
        return byte == '\r' ? FAULTY : after_part(byte, NAME_END);
    case VALUE_FIRST:
        if (byte == '"')
            return QUOTED;
        return is_token ? VALUE : is_blank(byte) ? VALUE_FIRST : FAULTY;
    case VALUE:
        return is_token ? VALUE : after_part(byte, VALUE_END);
    case VALUE_END:
        return byte == '\r' ? FAULTY : after_part(byte, VALUE_END);
    case QUOTED_END:
        return after_part(byte, VALUE_END);
    case QUOTED:
        if (byte == '"')
            return QUOTED_END;
        return byte == '\\' ? QUOTED_PAIR : QUOTED;
    case QUOTED_PAIR:
        return QUOTED;
    case SIZE_FIRST:
    case SIZE:
    case SIZE_LF:
    case DATA:
    case DATA_CR:
    case DATA_LF:
    case TRAILER_FIRST:
    case TRAILER_NAME:
    case TRAILER:
    case TRAILER_LF:
    case TRAILER_END:
    case COMPLETE:
    case FAULTY:
        break; /* of no extension */
    }
    unreachable();
}

/* Extensions are skipped, but their grammar is checked. */
static enum parse_result step_extension(struct body_framing *framing, char byte)
{
    enum state next = extension_next((enum state)framing->state, byte);
    bool is_end = next == SIZE_LF;
    if (next == FAULTY ||
        (!is_end && (!http_char_is(byte, HTTP_CHAR_VALUE) || framing->line_left == 0)))
        return refuse(framing, BODY_FAULT_CHUNK_EXTENSION);
    if (!is_end)
        framing->line_left--;
    framing->state = (uint8_t)next;
    return PARSE_MORE;
}

/* Trailers are field lines, bounded and skipped: nothing reads them (RFC 9110 6.5.1). */
static enum parse_result step_trailer(struct body_framing *framing, char byte)
{
    if (framing->line_left == 0)
        return refuse(framing, BODY_FAULT_TRAILER);
    framing->line_left--;
    if (framing->state == TRAILER_FIRST) {
        if (byte == '\r') {
            framing->state = TRAILER_END;
            return PARSE_MORE;
        }
        if (!http_char_is(byte, HTTP_CHAR_TOKEN) || framing->lines_left == 0)
            return refuse(framing, BODY_FAULT_TRAILER);
        framing->lines_left--;
        framing->state = TRAILER_NAME;
        return PARSE_MORE;
    }
    if (framing->state == TRAILER_NAME) {
        if (byte != ':' && !http_char_is(byte, HTTP_CHAR_TOKEN))
            return refuse(framing, BODY_FAULT_TRAILER);
        framing->state = byte == ':' ? TRAILER : TRAILER_NAME;
        return PARSE_MORE;
    }
    if (byte == '\r')
        framing->state = TRAILER_LF;
    else if (!http_char_is(byte, HTTP_CHAR_VALUE))
        return refuse(framing, BODY_FAULT_TRAILER);
    return PARSE_MORE;
}

/* The one byte that may stand here. */
static enum parse_result step_exact(struct body_framing *framing, char byte, char wanted,
                                    enum state next, enum body_fault fault)
{
    if (byte != wanted)
        return refuse(framing, fault);
    framing->state = (uint8_t)next;
    return PARSE_MORE;
}

static enum parse_result step(struct body_framing *framing, char byte)
{
    if (framing->framing_left != UINT32_MAX && framing->state < TRAILER_FIRST) {
        if (framing->framing_left == 0)
            return refuse(framing, BODY_FAULT_TOO_MUCH_FRAMING);
        framing->framing_left--;
    }
    switch ((enum state)framing->state) {
    case SIZE_FIRST:
    case SIZE:
        return step_size(framing, byte);
    case NAME_FIRST:
    case NAME:
    case NAME_END:
    case VALUE_FIRST:
    case VALUE:
    case VALUE_END:
    case QUOTED:
    case QUOTED_PAIR:
    case QUOTED_END:
        return step_extension(framing, byte);
    case SIZE_LF:
        if (byte != '\n')
            return refuse(framing, BODY_FAULT_CHUNK_SIZE);
        return begin_chunk(framing);
    case DATA_CR:
        return step_exact(framing, byte, '\r', DATA_LF, BODY_FAULT_CHUNK_END);
    case DATA_LF:
        framing->digits = 0;
        framing->left = 0;
        return step_exact(framing, byte, '\n', SIZE_FIRST, BODY_FAULT_CHUNK_END);
    case TRAILER_FIRST:
    case TRAILER_NAME:
    case TRAILER:
        return step_trailer(framing, byte);
    case TRAILER_LF:
        return step_exact(framing, byte, '\n', TRAILER_FIRST, BODY_FAULT_TRAILER);
    case TRAILER_END:
        if (byte != '\n')
            return refuse(framing, BODY_FAULT_TRAILER);
        framing->state = COMPLETE;
        return PARSE_DONE;
    case DATA:
    case COMPLETE:
    case FAULTY:
        break;
    }
    unreachable();
}

/* Takes payload, in one step. */
static enum parse_result take_data(struct body_framing *framing, struct slice data,
                                   size_t *consumed, struct slice *payload)
{
    size_t len = data.len;
    if (framing->kind == BODY_UNTIL_CLOSE) {
        if (len > framing->budget)
            return refuse(framing, BODY_FAULT_TOO_LARGE);
        framing->budget -= framing->budget != UINT64_MAX ? len : 0;
    } else {
        if (framing->left < len)
            len = (size_t)framing->left;
        framing->left -= len;
    }
    *payload = slice_to(data, len);
    *consumed += len;
    if (framing->kind == BODY_UNTIL_CLOSE || framing->left > 0)
        return PARSE_MORE;
    framing->state = framing->kind == BODY_CHUNKED ? DATA_CR : COMPLETE;
    return framing->state == COMPLETE ? PARSE_DONE : PARSE_MORE;
}

enum parse_result body_framing_next(struct body_framing *framing, struct slice data,
                                    size_t *consumed, struct slice *payload)
{
    *consumed = 0;
    *payload = slice_of(data.data, 0);
    if (framing->state == COMPLETE)
        return PARSE_DONE;
    if (framing->state == FAULTY)
        return PARSE_BAD;
    while (*consumed < data.len) {
        if (framing->state == DATA)
            return take_data(framing, slice_from(data, *consumed), consumed, payload);
        enum parse_result result = step(framing, data.data[*consumed]);
        if (result == PARSE_BAD)
            return PARSE_BAD;
        *consumed += 1;
        if (result == PARSE_DONE)
            return PARSE_DONE;
    }
    return PARSE_MORE;
}

enum parse_result body_framing_end(struct body_framing *framing)
{
    if (framing->state == FAULTY)
        return PARSE_BAD;
    if (framing->kind == BODY_UNTIL_CLOSE)
        framing->state = COMPLETE;
    if (framing->state == COMPLETE)
        return PARSE_DONE;
    return refuse(framing, BODY_FAULT_TRUNCATED);
}

bool body_framing_is_complete(const struct body_framing *framing)
{
    return framing->state == COMPLETE;
}

enum body_fault body_framing_fault(const struct body_framing *framing)
{
    return (enum body_fault)framing->fault;
}

static const struct {
    unsigned status;
    const char *text;
} faults[] = {
    [BODY_FAULT_NONE] = {0, ""},
    [BODY_FAULT_TOO_LARGE] = {413, "body too large"},
    [BODY_FAULT_TOO_MUCH_FRAMING] = {400, "more chunk framing than body"},
    [BODY_FAULT_CHUNK_SIZE] = {400, "bad chunk size"},
    [BODY_FAULT_CHUNK_EXTENSION] = {400, "bad or long chunk extension"},
    [BODY_FAULT_CHUNK_END] = {400, "chunk not ended by CRLF"},
    [BODY_FAULT_TRAILER] = {400, "bad or long trailers"},
    [BODY_FAULT_TRUNCATED] = {400, "body ended early"},
};

unsigned body_fault_status(enum body_fault fault)
{
    return faults[fault].status;
}

const char *body_fault_text(enum body_fault fault)
{
    return faults[fault].text;
}

size_t chunk_line_write(char line[BODY_CHUNK_LINE_MAX], uint64_t size)
{
    size_t digits = 1;
    while (digits < BODY_CHUNK_DIGITS_MAX && size >> (4 * digits) != 0)
        digits++;
    for (size_t i = 0; i < digits; i++)
        line[i] = "0123456789abcdef"[size >> (4 * (digits - 1 - i)) & 15];
    line[digits] = '\r';
    line[digits + 1] = '\n';
    return digits + 2;
}
