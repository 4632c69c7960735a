/*
 * The parts of a JSON message that its dialect decides about, as places in the payload.
 *
 *     {"method": "emit", …, "data": [[{…}, 1], "AP8B"], "binary": true, …}
 *                                    └ value ┘ └ attachments
 *                                   └──────── data ──┘
 */
#pragma once

#include "broker/transcoding.h"

struct json_message {
    bool is_emit;
    bool is_callback;
    bool is_binary;    /* an emit whose data holds attachments */
    struct slice data; /* empty: none */
    struct slice
        value; /* what the emit gave as data: data itself, or the first item of binary data */
};

/* False: refused: no JSON that Python reads, or an emit that its readers could not take apart. `depth_max`
 * bounds the nesting. */
bool json_message_read(struct transcoding *transcoding, unsigned depth_max,
                       struct json_message *message) MUST_CHECK;

/* How many items the list `list` has, but no more than two; the first is *first. */
unsigned json_message_count(struct slice list, struct slice *first);

/* The known key of that raw text, or KEY_COUNT. */
enum scanned_key json_message_key(struct slice raw);
