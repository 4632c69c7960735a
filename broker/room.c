#include "broker/room.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Every whole number up to here is a double of its own: 2^53. */
#define WHOLE_FLOAT_MAX 9007199254740992.0
/* "-d.ddddddddddddddddde-ddd" and a NUL */
#define FLOAT_LEN_MAX 32
#define PRECISION_MAX 17
#define KIND_LEN      2

static bool write_kind(const char *kind, struct slice text, struct scan_scratch *scratch,
                       struct slice *room)
{
    if (text.len > ROOM_LEN_MAX - KIND_LEN)
        return false;
    char *bytes = scan_scratch_take(scratch, text.len + KIND_LEN);
    if (bytes == NULL)
        return false;
    memcpy(bytes, kind, KIND_LEN);
    if (text.len > 0)
        memcpy(bytes + KIND_LEN, text.data, text.len);
    *room = slice_of(bytes, text.len + KIND_LEN);
    return true;
}

static bool write_integer(int64_t number, struct scan_scratch *scratch,
                          struct slice *room)
{
    char text[24];
    int len = snprintf(text, sizeof(text), "%lld", (long long)number);
    return write_kind("i:", slice_of(text, (size_t)len), scratch, room);
}

/* Adds one to the last digit of "-d.ddde-ddd"; false if all were nines. */
static bool add_to_last_digit(char *text)
{
    for (char *at = strchr(text, 'e') - 1; at >= text && *at != '-'; at--) {
        if (*at == '.')
            continue;
        if (*at != '9') {
            (*at)++;
            return true;
        }
        *at = '0';
    }
    return false;
}

/* Digits and exponent of the shortest scientific form that reads back the same: "-1.25e+20". The first
 * precision at which the nearest decimal reads back is the shortest; but below a power of two doubles stand
 * twice as close as above it, so that there the next decimal above may read back where the nearest does not. */
static int shortest(double number, char text[FLOAT_LEN_MAX])
{
    int len = 0, exponent;
    bool is_power_of_two = fabs(frexp(number, &exponent)) == 0.5;
    for (int precision = 0; precision < PRECISION_MAX; precision++) {
        len = snprintf(text, FLOAT_LEN_MAX, "%.*e", precision, number);
        if (strtod(text, NULL) == number)
            break;
        if (is_power_of_two && add_to_last_digit(text) && strtod(text, NULL) == number)
            break;
    }
    return len;
}

size_t room_write_float(double number, char *text)
{
    if (isnan(number) || isinf(number))
        return (size_t)sprintf(text, "%s",
                               isnan(number) ? "nan"
                               : number > 0  ? "inf"
                                             : "-inf");
    char scientific[FLOAT_LEN_MAX];
    shortest(number, scientific);
    int exponent = atoi(strchr(scientific, 'e') + 1);
    if (exponent < -4 || exponent >= 16) /* as repr: 1e-05, 1e+16 */
        return (size_t)sprintf(text, "%s", scientific);
    char *at = text;
    char digits[FLOAT_LEN_MAX];
    int count = 0;
    for (const char *from = scientific; *from != 'e'; from++) {
        if (*from == '-')
            *at++ = '-';
        else if (*from != '.')
            digits[count++] = *from;
    }
    if (exponent < 0) {
        at += sprintf(at, "0.%.*s", -exponent - 1, "000");
        at += sprintf(at, "%.*s", count, digits);
        return (size_t)(at - text);
    }
    for (int i = 0; i <= exponent || i < count; i++) {
        if (i == exponent + 1)
            *at++ = '.';
        *at++ = i < count ? digits[i] : '0';
    }
    if (count <= exponent + 1)
        at += sprintf(at, ".0");
    return (size_t)(at - text);
}

bool room_write(const struct scanned_value *value, struct scan_scratch *scratch,
                struct slice *room)
{
    char text[FLOAT_LEN_MAX];
    switch (value->type) {
    case VALUE_TEXT:
        return write_kind("s:", value->text, scratch, room);
    case VALUE_BOOL:
    case VALUE_INTEGER:
        return write_integer(value->integer, scratch, room);
    case VALUE_FLOAT:
        if (isnan(value->real))
            return false;
        if (fabs(value->real) <= WHOLE_FLOAT_MAX && value->real == trunc(value->real))
            return write_integer((int64_t)value->real, scratch, room);
        return write_kind("f:", slice_of(text, room_write_float(value->real, text)),
                          scratch, room);
    case VALUE_ABSENT:
    case VALUE_NONE:
    case VALUE_BIG_INTEGER:
    case VALUE_BYTES:
    case VALUE_LIST:
    case VALUE_OTHER:
        return false;
    }
    unreachable();
}

bool room_write_text(struct slice text, struct scan_scratch *scratch, struct slice *room)
{
    return write_kind("s:", text, scratch, room);
}

void room_hashed_part(struct slice room, struct slice *prefix, struct slice *part)
{
    *prefix = slice_of("", 0);
    *part = room;
    if (!slice_starts_with(room, SLICE("s:")))
        return;
    struct slice text = slice_from(room, KIND_LEN);
    size_t open = slice_find(text, '{');
    if (open == text.len)
        return;
    struct slice tag = slice_from(text, open + 1);
    size_t close = slice_find(tag, '}');
    if (close == 0 || close == tag.len)
        return;
    *prefix = slice_to(room, KIND_LEN);
    *part = slice_to(tag, close);
}
