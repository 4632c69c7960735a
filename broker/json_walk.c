#include "broker/json_walk.h"

static unsigned char byte_at(const struct json_walk *walk)
{
    check(walk->at < walk->text.len); /* proved before */
    return (unsigned char)walk->text.data[walk->at];
}

char json_walk_peek(struct json_walk *walk)
{
    unsigned char byte = byte_at(walk);
    while (byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r') {
        walk->at++;
        byte = byte_at(walk);
    }
    return (char)byte;
}

bool json_walk_enter(struct json_walk *walk)
{
    json_walk_peek(walk);
    walk->at++;
    char next = json_walk_peek(walk);
    if (next != ']' && next != '}')
        return true;
    walk->at++;
    return false;
}

bool json_walk_more(struct json_walk *walk)
{
    char next = json_walk_peek(walk);
    walk->at++;
    return next == ',';
}

void json_walk_text(struct json_walk *walk, struct slice *raw)
{
    json_walk_peek(walk);
    size_t start = ++walk->at;
    for (;;) {
        struct slice rest = slice_from(walk->text, walk->at);
        const char *quote = memchr(rest.data, '"', rest.len);
        check(quote != NULL);
        const char *escape = memchr(rest.data, '\\', (size_t)(quote - rest.data));
        if (escape == NULL) {
            size_t end = (size_t)(quote - walk->text.data);
            *raw = slice_of(walk->text.data + start, end - start);
            walk->at = end + 1;
            return;
        }
        walk->at = (size_t)(escape - walk->text.data) + 2;
    }
}

void json_walk_key(struct json_walk *walk, struct slice *raw)
{
    json_walk_text(walk, raw);
    json_walk_peek(walk);
    walk->at++;
}

/* Past a list or object, whatever is in it. */
static void skip_container(struct json_walk *walk)
{
    size_t depth = 0;
    struct slice raw;
    do {
        unsigned char byte = byte_at(walk);
        if (byte == '"') {
            json_walk_text(walk, &raw);
            continue;
        }
        if (byte == '[' || byte == '{')
            depth++;
        else if (byte == ']' || byte == '}')
            depth--;
        walk->at++;
    } while (depth > 0);
}

void json_walk_value(struct json_walk *walk, struct slice *value)
{
    char first = json_walk_peek(walk);
    size_t start = walk->at;
    struct slice raw;
    if (first == '"') {
        json_walk_text(walk, &raw);
    } else if (first == '[' || first == '{') {
        skip_container(walk);
    } else {
        while (walk->at < walk->text.len && walk->text.data[walk->at] != '\0' &&
               strchr(",]} \n\t\r", walk->text.data[walk->at]) == NULL)
            walk->at++;
    }
    *value = slice_of(walk->text.data + start, walk->at - start);
}

bool json_walk_is_true(struct slice value)
{
    char first = value.data[0];
    if (first == 'n' || first == 'f')
        return false;
    if (first == '"')
        return value.len > 2;
    if (first == '[' || first == '{') {
        struct json_walk walk = {value, 0};
        return json_walk_enter(&walk);
    }
    if (first != '-' && (first < '0' || first > '9'))
        return true; /* true, NaN, Infinity */
    /* a number is zero when no digit before its exponent is another one */
    for (size_t i = 0; i < value.len && (value.data[i] | 0x20) != 'e'; i++)
        if ((value.data[i] >= '1' && value.data[i] <= '9') || value.data[i] == 'I')
            return true;
    return false;
}
