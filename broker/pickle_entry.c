/*
 * Reads what an entry stands for. The places were checked when the entry was made: lines end with a line
 * feed, lengths lie in the payload, texts are valid.
 */
#include "broker/pickle_entry.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* Python refuses to read longer ones (sys.int_info.default_max_str_digits). */
#define DIGITS_MAX 4300
/* Longest number of a line that is read: a float's repr has at most 24 bytes. */
#define NUMBER_LEN_MAX 512

static struct slice skip_digits(struct slice text)
{
    size_t count = 0;
    while (count < text.len && text.data[count] >= '0' && text.data[count] <= '9')
        count++;
    return slice_from(text, count);
}

bool pickle_integer_is_valid(struct slice line, bool is_long)
{
    if (is_long && slice_ends_with(line, SLICE("L")))
        line.len--;
    if (!is_long && (slice_equals(line, SLICE("00")) || slice_equals(line, SLICE("01"))))
        return true;
    if (slice_starts_with(line, SLICE("-")))
        line = slice_from(line, 1);
    if (line.len == 0 || line.len > DIGITS_MAX || (line.len > 1 && line.data[0] == '0'))
        return false;
    return skip_digits(line).len == 0;
}

static bool is_float_text(struct slice line)
{
    if (line.len > NUMBER_LEN_MAX - 1)
        return false;
    if (slice_starts_with(line, SLICE("-")))
        line = slice_from(line, 1);
    if (slice_equals(line, SLICE("inf")) || slice_equals(line, SLICE("nan")))
        return true;
    struct slice rest = skip_digits(line);
    if (rest.len == line.len)
        return false;
    if (slice_starts_with(rest, SLICE("."))) {
        struct slice fraction = slice_from(rest, 1);
        rest = skip_digits(fraction);
        if (rest.len == fraction.len)
            return false;
    }
    if (slice_starts_with(rest, SLICE("e"))) {
        rest = slice_from(rest, 1);
        if (slice_starts_with(rest, SLICE("-")) || slice_starts_with(rest, SLICE("+")))
            rest = slice_from(rest, 1);
        struct slice exponent = rest;
        rest = skip_digits(exponent);
        if (rest.len == exponent.len)
            return false;
    }
    return rest.len == 0;
}

/* Behind the opcode FLOAT; not longer than a number of ours may be. */
static double float_of(struct slice line)
{
    char text[NUMBER_LEN_MAX];
    check(line.len < sizeof(text));
    memcpy(text, line.data, line.len);
    text[line.len] = '\0';
    return strtod(text, NULL);
}

bool pickle_float_is_valid(struct slice line)
{
    /* digits that are too much for a double are an error to Python, not infinity */
    return is_float_text(line) &&
           (!isinf(float_of(line)) || slice_ends_with(line, SLICE("inf")));
}

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte = (char)(byte | 0x20);
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Takes one code point off raw-unicode-escape; false at a broken escape. Only \uXXXX and \UXXXXXXXX are
 * escapes; a backslash before anything else is itself, and so is what follows it. */
static bool take_raw(struct slice *raw, uint32_t *code_point, uint32_t *second)
{
    unsigned char byte = (unsigned char)raw->data[0];
    *code_point = byte;
    *second = UINT32_MAX;
    *raw = slice_from(*raw, 1);
    if (byte != '\\' || raw->len == 0)
        return true;
    char escape = raw->data[0];
    *raw = slice_from(*raw, 1);
    if (escape != 'u' && escape != 'U') {
        *second = (unsigned char)escape;
        return true;
    }
    size_t digits = escape == 'u' ? 4 : 8;
    if (raw->len < digits)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = hex_digit(raw->data[i]);
        if (digit < 0)
            return false;
        value = value * 16 + (unsigned)digit;
    }
    *raw = slice_from(*raw, digits);
    *code_point = (uint32_t)value;
    return value <= 0x10ffff;
}

bool pickle_raw_text_is_valid(struct slice raw, bool *is_narrow)
{
    *is_narrow = true;
    while (raw.len > 0) {
        uint32_t code_point, second;
        if (!take_raw(&raw, &code_point, &second))
            return false;
        if (code_point > 255)
            *is_narrow = false;
    }
    return true;
}

bool pickle_text_is_narrow(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.data[i] > 0xc3)
            return false;
    return true;
}

/* Decodes raw-unicode-escape to UTF-8, or to latin-1 when `narrow`. */
static bool decode_raw(struct slice raw, bool narrow, struct scan_scratch *scratch,
                       struct slice *text)
{
    /* one byte becomes at most two, six become at most three */
    size_t most = raw.len * 2;
    char *bytes = scan_scratch_take(scratch, most);
    if (bytes == NULL)
        return false;
    size_t len = 0;
    while (raw.len > 0) {
        uint32_t points[2];
        if (!take_raw(&raw, &points[0], &points[1]))
            return false;
        for (size_t i = 0; i < 2 && points[i] != UINT32_MAX; i++) {
            if (narrow)
                bytes[len++] = (char)points[i];
            else
                len += scanned_utf8_write(points[i], bytes + len);
        }
    }
    scan_scratch_give_back(scratch, most - len);
    *text = slice_of(bytes, len);
    return true;
}

static bool narrow_text(struct slice text, struct scan_scratch *scratch,
                        struct slice *bytes)
{
    char *narrowed = scan_scratch_take(scratch, text.len);
    if (narrowed == NULL)
        return false;
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        if (byte >= 0xc2) /* c2 or c3, then a continuation: 80..ff */
            byte =
                (unsigned char)((byte & 3) << 6 | ((unsigned char)text.data[++i] & 0x3f));
        narrowed[len++] = (char)byte;
    }
    scan_scratch_give_back(scratch, text.len - len);
    *bytes = slice_of(narrowed, len);
    return true;
}

static uint32_t little32(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static struct scanned_value integer_value(int64_t number)
{
    return (struct scanned_value){.type = VALUE_INTEGER, .integer = number};
}

/* Two's complement, little endian, of any length. */
static struct scanned_value long_value(const unsigned char *bytes, size_t len)
{
    unsigned char sign = len > 0 && (bytes[len - 1] & 0x80) != 0 ? 0xff : 0;
    while (len > 8 && bytes[len - 1] == sign && ((bytes[len - 2] ^ sign) & 0x80) == 0)
        len--;
    if (len > 8)
        return (struct scanned_value){.type = VALUE_BIG_INTEGER};
    uint64_t number = sign != 0 ? UINT64_MAX : 0;
    for (size_t i = len; i-- > 0;)
        number = number << 8 | bytes[i];
    return integer_value((int64_t)number);
}

static struct slice line_at(struct slice payload, size_t offset)
{
    struct slice rest = slice_from(payload, offset);
    return slice_to(rest, slice_find(rest, '\n'));
}

static struct scanned_value decimal_value(struct slice line)
{
    if (line.len == 2 && line.data[0] == '0') /* 00 and 01 of INT */
        return (struct scanned_value){.type = VALUE_BOOL, .integer = line.data[1] == '1'};
    char text[32];
    if (slice_ends_with(line, SLICE("L")))
        line.len--;
    if (line.len >= sizeof(text))
        return (struct scanned_value){.type = VALUE_BIG_INTEGER};
    memcpy(text, line.data, line.len);
    text[line.len] = '\0';
    errno = 0;
    long long number = strtoll(text, NULL, 10);
    if (errno == ERANGE)
        return (struct scanned_value){.type = VALUE_BIG_INTEGER};
    return integer_value(number);
}

static struct scanned_value read_integer(struct slice payload, size_t offset)
{
    const unsigned char *at = (const unsigned char *)payload.data + offset;
    switch (*at) {
    case 'J': /* BININT */
        return integer_value((int32_t)little32(at + 1));
    case 'K': /* BININT1 */
        return integer_value(at[1]);
    case 'M': /* BININT2 */
        return integer_value(at[1] | at[2] << 8);
    case 0x8a: /* LONG1 */
        return long_value(at + 2, at[1]);
    case 0x8b: /* LONG4 */
        return long_value(at + 5, little32(at + 1));
    default: /* INT, LONG */
        return decimal_value(line_at(payload, offset + 1));
    }
}

static double read_float(struct slice payload, size_t offset)
{
    double number;
    if (payload.data[offset] == 'G') { /* BINFLOAT: big endian */
        uint64_t bits = 0;
        for (size_t i = 1; i <= 8; i++)
            bits = bits << 8 | (unsigned char)payload.data[offset + i];
        memcpy(&number, &bits, sizeof(number));
        return number;
    }
    return float_of(line_at(payload, offset + 1));
}

enum value_type pickle_entry_type(struct slice payload, const struct entry *entry)
{
    switch ((enum entry_kind)entry->kind) {
    case ENTRY_UNSET:
        return VALUE_ABSENT;
    case ENTRY_NONE:
        return VALUE_NONE;
    case ENTRY_TRUE:
    case ENTRY_FALSE:
        return VALUE_BOOL;
    case ENTRY_INTEGER:
        return read_integer(payload, entry->offset).type;
    case ENTRY_FLOAT:
        return VALUE_FLOAT;
    case ENTRY_TEXT:
    case ENTRY_RAW_TEXT:
        return VALUE_TEXT;
    case ENTRY_BYTES:
    case ENTRY_NARROWED:
    case ENTRY_RAW_NARROWED:
        return VALUE_BYTES;
    case ENTRY_LIST:
    case ENTRY_TUPLE:
        return VALUE_LIST;
    case ENTRY_DICT:
    case ENTRY_SET:
    case ENTRY_FROZENSET:
    case ENTRY_BYTEARRAY:
    case ENTRY_CLASS:
    case ENTRY_OBJECT:
        return VALUE_OTHER;
    }
    unreachable();
}

struct scanned_value pickle_entry_value(struct slice payload, const struct entry *entry,
                                        struct scan_scratch *scratch)
{
    struct scanned_value value = {.type = pickle_entry_type(payload, entry)};
    struct slice bytes = slice_of(payload.data + entry->offset, entry->len);
    bool decoded = true;
    switch ((enum entry_kind)entry->kind) {
    case ENTRY_TRUE:
        value.integer = 1;
        break;
    case ENTRY_INTEGER:
        return read_integer(payload, entry->offset);
    case ENTRY_FLOAT:
        value.real = read_float(payload, entry->offset);
        break;
    case ENTRY_TEXT:
    case ENTRY_BYTES:
        value.text = bytes;
        break;
    case ENTRY_RAW_TEXT:
        decoded = decode_raw(bytes, false, scratch, &value.text);
        break;
    case ENTRY_NARROWED:
        decoded = narrow_text(bytes, scratch, &value.text);
        break;
    case ENTRY_RAW_NARROWED:
        decoded = decode_raw(bytes, true, scratch, &value.text);
        break;
    case ENTRY_UNSET:
    case ENTRY_NONE:
    case ENTRY_FALSE:
    case ENTRY_LIST:
    case ENTRY_TUPLE:
    case ENTRY_DICT:
    case ENTRY_SET:
    case ENTRY_FROZENSET:
    case ENTRY_BYTEARRAY:
    case ENTRY_CLASS:
    case ENTRY_OBJECT:
        break;
    }
    if (!decoded)
        value.type = VALUE_OTHER;
    return value;
}
