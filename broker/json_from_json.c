/*
 *     json14                            json15
 *     X                                 [X]
 *     [X, "AP8B"], binary               [[X], "AP8B"], binary
 *     null                       ◀──    []
 *     [X, Y], one list to its readers   [X, Y], two arguments
 *
 * Only what is between the data's begin and the end of its value changes.
 */
#include "broker/json_from_json.h"

#include "broker/json_message.h"

static bool is_list(struct slice value)
{
    return value.data[0] == '[';
}

/* What stands in place of the value: before it, instead of it, behind it. */
static bool find_change(enum message_dialect to, struct slice value,
                        struct slice parts[3])
{
    parts[0] = parts[2] = SLICE("");
    parts[1] = value;
    if (to == DIALECT_JSON15) {
        parts[0] = SLICE("[");
        parts[2] = SLICE("]");
        return true;
    }
    if (!is_list(value))
        return false;
    struct slice first;
    unsigned count = json_message_count(value, &first);
    if (count > 1)
        return false;
    parts[1] = count == 0 ? SLICE("null") : first;
    return true;
}

bool json_from_json(struct transcoding *transcoding, struct slice *out)
{
    struct json_message message;
    struct slice payload = transcoding->payload;
    /* one list more than there was */
    if (!json_message_read(transcoding, transcoding->depth_max - 1, &message))
        return false;
    struct slice parts[3];
    *out = payload;
    if (!message.is_emit || message.data.len == 0 ||
        !find_change(transcoding->to, message.value, parts))
        return true;
    size_t start = (size_t)(message.value.data - payload.data);
    transcoding_put(transcoding, slice_to(payload, start));
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        transcoding_put(transcoding, parts[i]);
    transcoding_put(transcoding, slice_from(payload, start + message.value.len));
    *out = slice_of(transcoding->bytes, transcoding->len);
    return true;
}
