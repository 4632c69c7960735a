#include "broker/json_message.h"

#include "broker/json_scan.h"
#include "broker/json_walk.h"

#define KEY_RAW_MAX 100

enum scanned_key json_message_key(struct slice raw)
{
    char bytes[KEY_RAW_MAX];
    if (slice_find(raw, '\\') == raw.len)
        return scanned_key_find(raw);
    if (raw.len > sizeof(bytes))
        return KEY_COUNT;
    return scanned_key_find(slice_of(bytes, json_text_decode(raw, bytes)));
}

unsigned json_message_count(struct slice list, struct slice *first)
{
    struct json_walk walk = {list, 0};
    if (!json_walk_enter(&walk))
        return 0;
    json_walk_value(&walk, first);
    return json_walk_more(&walk) ? 2 : 1;
}

static bool find_value(struct transcoding *transcoding, struct json_message *message)
{
    size_t offset = (size_t)(message->data.data - transcoding->payload.data);
    message->value = message->data;
    if (!message->is_binary)
        return true;
    if (message->data.data[0] != '[' ||
        json_message_count(message->data, &message->value) == 0)
        return transcoding_refuse(transcoding, "binary data that is no list", offset);
    return true;
}

bool json_message_read(struct transcoding *transcoding, unsigned depth_max,
                       struct json_message *message)
{
    struct scanned scanned;
    struct json_notes notes;
    *message = (struct json_message){0};
    if (json_scan(transcoding->payload, depth_max, transcoding->scratch, &scanned,
                  &notes) != PARSE_DONE)
        return transcoding_refuse(transcoding, notes.error, notes.offset);
    if (!scanned.is_dict)
        return transcoding_refuse(transcoding, "no object", 0);
    const struct scanned_value *method = &scanned.values[KEY_METHOD];
    if (method->type == VALUE_TEXT) {
        message->is_emit = slice_equals(method->text, SLICE("emit"));
        message->is_callback = slice_equals(method->text, SLICE("callback"));
    }
    if (!message->is_emit)
        return true;
    struct json_walk walk = {transcoding->payload, 0};
    bool more = json_walk_enter(&walk);
    while (more) { /* the last of equal keys wins */
        struct slice key, value;
        json_walk_key(&walk, &key);
        json_walk_value(&walk, &value);
        enum scanned_key name = json_message_key(key);
        if (name == KEY_DATA)
            message->data = value;
        if (name == KEY_BINARY)
            message->is_binary = json_walk_is_true(value);
        more = json_walk_more(&walk);
    }
    return message->data.len == 0 || find_value(transcoding, message);
}
