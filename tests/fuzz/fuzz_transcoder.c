/* fuzz: broker */
/*
 * Transcoding any payload to any dialect ends, stays in its bounds, and what it writes is the same message.
 */
#include "tests/unit/broker/transcode_property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct transcode_property property;
    if (property.transcoder == NULL)
        transcode_property_init(&property);
    struct slice payload = slice_of(data, size);
    struct message message;
    message_scan(payload, &message_policy_default, property.before, &message);
    bool is_pickle = message.encoding == MESSAGE_PICKLE;
    bool is_json = message.encoding == MESSAGE_JSON;
    for (int from = DIALECT_PICKLE; from <= DIALECT_JSON15; from++) {
        bool is_whole = from == DIALECT_PICKLE ? is_pickle : is_json;
        for (int to = DIALECT_PICKLE; to <= DIALECT_JSON15; to++) {
            struct slice out;
            if (is_whole && size < 64 * 1024 && !message_is_refused(&message))
                check_transcoding(&property, payload, (enum message_dialect)from,
                                  (enum message_dialect)to);
            else if (from != to && !is_whole)
                check(!transcoder_run(property.transcoder, payload,
                                      (enum message_dialect)from,
                                      (enum message_dialect)to, &out) ||
                      is_json);
        }
    }
    return 0;
}
