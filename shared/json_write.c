#include "shared/json_write.h"

#include <event2/buffer.h>
#include <inttypes.h>
#include <math.h>

void json_init(struct json_writer *json, struct evbuffer *out)
{
    memset(json, 0, sizeof(*json));
    json->out = out;
}

void json_write_quoted(struct evbuffer *out, struct slice text)
{
    evbuffer_add(out, "\"", 1);
    while (text.len > 0) {
        /* the longest stretch that needs no escape in one piece */
        size_t plain = 0, len;
        while (plain < text.len && (len = slice_utf8_len(slice_from(text, plain))) > 0) {
            unsigned char byte = (unsigned char)text.data[plain];
            if (byte < 0x20 || byte == 0x7f || byte == '"' || byte == '\\')
                break;
            plain += len;
        }
        evbuffer_add(out, text.data, plain);
        text = slice_from(text, plain);
        if (text.len == 0)
            break;
        unsigned char byte = (unsigned char)text.data[0];
        if (byte == '"' || byte == '\\')
            evbuffer_add_printf(out, "\\%c", byte);
        else if (byte == '\n')
            evbuffer_add(out, "\\n", 2);
        else if (byte < 0x80)
            evbuffer_add_printf(out, "\\u%04x", byte);
        else
            evbuffer_add(out, "\\ufffd", 6);
        text = slice_from(text, 1);
    }
    evbuffer_add(out, "\"", 1);
}

static void begin_member(struct json_writer *json, const char *name)
{
    if (json->has_members[json->depth])
        evbuffer_add(json->out, ",", 1);
    json->has_members[json->depth] = true;
    if (name != NULL) {
        json_write_quoted(json->out, slice_from_text(name));
        evbuffer_add(json->out, ":", 1);
    }
}

static void begin_group(struct json_writer *json, const char *name, const char *bracket)
{
    begin_member(json, name);
    evbuffer_add(json->out, bracket, 1);
    check(json->depth + 1 < JSON_DEPTH_MAX);
    json->has_members[++json->depth] = false;
}

static void end_group(struct json_writer *json, const char *bracket)
{
    check(json->depth > 0);
    json->depth--;
    evbuffer_add(json->out, bracket, 1);
}

void json_object_begin(struct json_writer *json, const char *name)
{
    begin_group(json, name, "{");
}

void json_object_end(struct json_writer *json)
{
    end_group(json, "}");
}

void json_array_begin(struct json_writer *json, const char *name)
{
    begin_group(json, name, "[");
}

void json_array_end(struct json_writer *json)
{
    end_group(json, "]");
}

void json_text(struct json_writer *json, const char *name, struct slice text)
{
    begin_member(json, name);
    json_write_quoted(json->out, text);
}

void json_number(struct json_writer *json, const char *name, int64_t number)
{
    begin_member(json, name);
    evbuffer_add_printf(json->out, "%" PRId64, number);
}

void json_unsigned(struct json_writer *json, const char *name, uint64_t number)
{
    begin_member(json, name);
    evbuffer_add_printf(json->out, "%" PRIu64, number);
}

void json_decimal(struct json_writer *json, const char *name, double number)
{
    begin_member(json, name);
    if (isfinite(number))
        evbuffer_add_printf(json->out, "%.15g", number);
    else
        evbuffer_add(json->out, "null", 4);
}

void json_bool(struct json_writer *json, const char *name, bool truth)
{
    begin_member(json, name);
    evbuffer_add_printf(json->out, "%s", truth ? "true" : "false");
}

void json_null(struct json_writer *json, const char *name)
{
    begin_member(json, name);
    evbuffer_add(json->out, "null", 4);
}
