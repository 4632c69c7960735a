#include "broker/json_text.h"

#include "broker/room.h"

#include <math.h>
#include <stdio.h>

/* Python refuses to read longer integers (sys.int_info.default_max_str_digits). */
#define DIGITS_MAX 4300
/* A byte is 2.408 digits: what cannot have more than DIGITS_MAX, and one over. */
#define LONG_BYTES_MAX 1787
#define LIMB           1000000000u /* nine digits */

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ---- texts ---- */

/* Quote, backslash, control, or the first byte of what may be a surrogate. */
static bool is_special(unsigned char byte)
{
    return byte < 0x20 || byte == '"' || byte == '\\' || byte == 0xed;
}

/* How many bytes from here are written as they are. Eight at a time while all are plain ASCII: the
 * subtractions borrow only above a byte that is special itself. */
static size_t plain_len(const unsigned char *bytes, size_t len)
{
    const uint64_t ones = 0x0101010101010101u;
    size_t at = 0;
    while (len - at >= 8) {
        uint64_t eight;
        memcpy(&eight, bytes + at, 8);
        uint64_t quote = eight ^ (ones * '"');
        uint64_t backslash = eight ^ (ones * '\\');
        uint64_t special =
            (quote - ones) | (backslash - ones) | (eight - ones * 0x20) | eight;
        if ((special & ones * 0x80) != 0)
            break;
        at += 8;
    }
    while (at < len && !is_special(bytes[at]))
        at++;
    return at;
}

/* Writes what stands for the special character at `text`; returns how many bytes of the text that was. */
static size_t write_special(struct transcoding *transcoding, struct slice text)
{
    static const char meant[] = "\"\\\b\f\n\r\t";
    static const char names[] = "\"\\bfnrt";
    unsigned char byte = (unsigned char)text.data[0];
    char escape[8] = {'\\'};
    if (byte == 0xed && text.len >= 3) {
        unsigned char second = (unsigned char)text.data[1];
        if (second < 0xa0) { /* no surrogate */
            transcoding_put(transcoding, slice_to(text, 3));
            return 3;
        }
        unsigned point =
            0xd000u | (second & 0x3fu) << 6 | ((unsigned char)text.data[2] & 0x3fu);
        snprintf(escape, sizeof(escape), "\\u%04x", point);
        transcoding_put(transcoding, slice_of(escape, 6));
        return 3;
    }
    const char *found = byte != '\0' ? strchr(meant, byte) : NULL;
    if (found != NULL) {
        escape[1] = names[found - meant];
        transcoding_put(transcoding, slice_of(escape, 2));
    } else {
        snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)byte);
        transcoding_put(transcoding, slice_of(escape, 6));
    }
    return 1;
}

void json_text_write(struct transcoding *transcoding, struct slice text)
{
    transcoding_put_byte(transcoding, '"');
    while (text.len > 0 && !transcoding->is_full) {
        size_t plain = plain_len((const unsigned char *)text.data, text.len);
        transcoding_put(transcoding, slice_to(text, plain));
        text = slice_from(text, plain);
        if (text.len > 0)
            text = slice_from(text, write_special(transcoding, text));
    }
    transcoding_put_byte(transcoding, '"');
}

/* ---- numbers ---- */

void json_integer_write(struct transcoding *transcoding, int64_t number)
{
    char digits[24];
    size_t at = sizeof(digits);
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do
        digits[--at] = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (number < 0)
        digits[--at] = '-';
    transcoding_put(transcoding, slice_of(digits + at, sizeof(digits) - at));
}

void json_float_write(struct transcoding *transcoding, double number)
{
    char text[32];
    if (isnan(number))
        transcoding_put(transcoding, SLICE("NaN"));
    else if (isinf(number))
        transcoding_put(transcoding, number < 0 ? SLICE("-Infinity") : SLICE("Infinity"));
    else
        transcoding_put(transcoding, slice_of(text, room_write_float(number, text)));
}

/* limbs = limbs * 256 + byte; least limb first. */
static void shift_in(uint32_t *limbs, size_t *count, uint32_t byte)
{
    uint64_t carry = byte;
    for (size_t i = 0; i < *count; i++) {
        carry += (uint64_t)limbs[i] << 8;
        limbs[i] = (uint32_t)(carry % LIMB);
        carry /= LIMB;
    }
    if (carry > 0)
        limbs[(*count)++] = (uint32_t)carry;
}

bool json_long_write(struct transcoding *transcoding, struct slice bytes)
{
    uint32_t limbs[LONG_BYTES_MAX * 8 / 29 + 2];
    char text[sizeof(limbs) / sizeof(limbs[0]) * 9 + 2];
    bool is_negative =
        bytes.len > 0 && ((unsigned char)bytes.data[bytes.len - 1] & 0x80) != 0;
    unsigned char fill = is_negative ? 0xff : 0;
    while (bytes.len > 0 && (unsigned char)bytes.data[bytes.len - 1] == fill)
        bytes.len--; /* the sign is known already */
    if (bytes.len > LONG_BYTES_MAX)
        return false;
    size_t count = 0;
    for (size_t i = bytes.len; i-- > 0;) /* of a negative number: what -1 lacks to it */
        shift_in(limbs, &count, (unsigned char)bytes.data[i] ^ fill);
    if (is_negative) {
        uint32_t carry = 1;
        for (size_t i = 0; carry > 0; i++) {
            if (i == count)
                limbs[count++] = 0;
            limbs[i] += carry;
            carry = limbs[i] == LIMB;
            if (carry > 0)
                limbs[i] = 0;
        }
    }
    size_t at = sizeof(text);
    for (size_t i = 0; i < count; i++) {
        uint32_t limb = limbs[i];
        for (unsigned digit = 0; digit < 9; digit++, limb /= 10)
            text[--at] = (char)('0' + limb % 10);
    }
    while (at < sizeof(text) && text[at] == '0')
        at++;
    if (sizeof(text) - at > DIGITS_MAX)
        return false;
    if (at == sizeof(text))
        text[--at] = '0';
    if (is_negative)
        transcoding_put_byte(transcoding, '-');
    transcoding_put(transcoding, slice_of(text + at, sizeof(text) - at));
    return true;
}

/* ---- base64 ---- */

void json_base64_write(struct transcoding *transcoding, struct slice bytes)
{
    size_t len = (bytes.len + 2) / 3 * 4;
    char *place = transcoding_reserve(transcoding, len);
    if (place == NULL)
        return;
    const unsigned char *at = (const unsigned char *)bytes.data;
    size_t left = bytes.len;
    for (; left >= 3; left -= 3, at += 3) {
        *place++ = base64_digits[at[0] >> 2];
        *place++ = base64_digits[(at[0] & 3) << 4 | at[1] >> 4];
        *place++ = base64_digits[(at[1] & 15) << 2 | at[2] >> 6];
        *place++ = base64_digits[at[2] & 63];
    }
    if (left > 0) {
        unsigned second = left == 2 ? at[1] : 0;
        *place++ = base64_digits[at[0] >> 2];
        *place++ = base64_digits[(at[0] & 3) << 4 | second >> 4];
        *place++ = left == 2 ? base64_digits[(second & 15) << 2] : '=';
        *place++ = '=';
    }
    transcoding_wrote(transcoding, len);
}

static int digit_value(char byte)
{
    if (byte >= 'A' && byte <= 'Z')
        return byte - 'A';
    if (byte >= 'a' && byte <= 'z')
        return byte - 'a' + 26;
    if (byte >= '0' && byte <= '9')
        return byte - '0' + 52;
    return byte == '+' ? 62 : byte == '/' ? 63 : -1;
}

bool json_base64_read(struct slice text, char *bytes, size_t *len)
{
    if (text.len % 4 != 0)
        return false;
    size_t padding = 0;
    while (padding < 2 && padding < text.len && text.data[text.len - 1 - padding] == '=')
        padding++;
    *len = 0;
    for (size_t i = 0; i < text.len; i += 4) {
        unsigned three = 0;
        for (size_t j = 0; j < 4; j++) {
            bool is_padding = i + j >= text.len - padding;
            int value = is_padding ? 0 : digit_value(text.data[i + j]);
            if (value < 0)
                return false;
            three = three << 6 | (unsigned)value;
        }
        size_t count = i + 4 == text.len ? 3 - padding : 3;
        for (size_t j = 0; j < count; j++)
            bytes[(*len)++] = (char)(three >> (16 - 8 * j));
    }
    return true;
}
