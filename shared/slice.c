#include "shared/slice.h"

static unsigned char lower(char byte)
{
    return (unsigned char)(byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte);
}

/* The eight bytes at `text`, letters in lower case: bit 7 of `from_a ^ behind_z` marks those in A-Z. */
static uint64_t lower_word(const char *text)
{
    const uint64_t ones = 0x0101010101010101u, tops = ones << 7;
    uint64_t word;
    memcpy(&word, text, sizeof word);
    uint64_t low = word & ~tops;
    uint64_t from_a = low + ones * (0x80 - 'A'), behind_z = low + ones * (0x7f - 'Z');
    return word | ((from_a ^ behind_z) & ~word & tops) >> 2;
}

bool slice_equals_nocase(struct slice a, struct slice b)
{
    /* not strncasecmp: it stops at a NUL and asks the locale */
    if (a.len != b.len)
        return false;
    size_t i = 0;
    for (; a.len - i >= sizeof(uint64_t); i += sizeof(uint64_t))
        if (lower_word(a.data + i) != lower_word(b.data + i))
            return false;
    for (; i < a.len; i++)
        if (a.data[i] != b.data[i] && lower(a.data[i]) != lower(b.data[i]))
            return false;
    return true;
}

bool slice_starts_with(struct slice text, struct slice prefix)
{
    return text.len >= prefix.len && slice_equals(slice_to(text, prefix.len), prefix);
}

bool slice_ends_with(struct slice text, struct slice suffix)
{
    return text.len >= suffix.len &&
           slice_equals(slice_from(text, text.len - suffix.len), suffix);
}

size_t slice_find(struct slice text, char byte)
{
    const char *found = text.len > 0 ? memchr(text.data, byte, text.len) : NULL;
    return found != NULL ? (size_t)(found - text.data) : text.len;
}

size_t slice_find_last(struct slice text, char byte)
{
    const char *found = text.len > 0 ? memrchr(text.data, byte, text.len) : NULL;
    return found != NULL ? (size_t)(found - text.data) : text.len;
}

bool slice_cut(struct slice *rest, char separator, struct slice *part)
{
    if (rest->data == NULL)
        return false;
    size_t end = slice_find(*rest, separator);
    *part = slice_to(*rest, end);
    *rest = end < rest->len ? slice_from(*rest, end + 1) : slice_of(NULL, 0);
    return true;
}

struct slice slice_trim(struct slice text)
{
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = slice_from(text, 1);
    while (text.len > 0 &&
           (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
        text.len--;
    return text;
}

bool slice_to_number(struct slice text, uint64_t minimum, uint64_t maximum,
                     uint64_t *number)
{
    if (text.len == 0)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)(unsigned char)text.data[i] - '0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (value < minimum || value > maximum)
        return false;
    *number = value;
    return true;
}

char *slice_dup(struct slice text)
{
    return must_memdup(text.data, text.len);
}

size_t slice_utf8_len(struct slice text)
{
    if (text.len == 0)
        return 0;
    const unsigned char *bytes = (const unsigned char *)text.data;
    unsigned char first = bytes[0];
    if (first < 0x80)
        return 1;
    size_t len = first >= 0xc2 && first <= 0xdf   ? 2
                 : first >= 0xe0 && first <= 0xef ? 3
                 : first >= 0xf0 && first <= 0xf4 ? 4
                                                  : 0;
    if (len == 0 || text.len < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    /* the second byte says the rest: E0 and F0 overlong, ED surrogates, F4 past the end */
    bool good =
        !(first == 0xe0 && bytes[1] < 0xa0) && !(first == 0xed && bytes[1] > 0x9f) &&
        !(first == 0xf0 && bytes[1] < 0x90) && !(first == 0xf4 && bytes[1] > 0x8f);
    return good ? len : 0;
}
