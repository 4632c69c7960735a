#include "broker/replay_rewrite.h"

#include "broker/replay.h"
#include "broker/resp.h"
#include "broker/transcoder.h"

#include <stdlib.h>

struct replay_rewrite {
    struct transcoder *transcoder;
    struct scan_scratch *scratch;
    struct message_policy policy;
    struct chunk_writer writer;
    bool (*carries_messages)(void *context, struct slice channel);
    void *context;
};

struct replay_rewrite *replay_rewrite_new(unsigned depth_max, size_t len_max,
                                          bool (*carries_messages)(void *context,
                                                                   struct slice channel),
                                          void *context)
{
    struct replay_rewrite *rewrite = must_calloc(1, sizeof(*rewrite));
    rewrite->transcoder = transcoder_new(depth_max, len_max);
    rewrite->scratch = scan_scratch_new();
    rewrite->policy =
        (struct message_policy){.objects = PICKLE_OBJECTS_ALLOW, .depth_max = depth_max};
    rewrite->carries_messages = carries_messages;
    rewrite->context = context;
    return rewrite;
}

void replay_rewrite_free(struct replay_rewrite *rewrite)
{
    if (rewrite == NULL)
        return;
    transcoder_free(rewrite->transcoder);
    scan_scratch_free(rewrite->scratch);
    chunk_writer_cleanup(&rewrite->writer);
    free(rewrite);
}

/* What a payload that was given to a pod of this dialect is: RAW where it is no message. */
static enum message_dialect dialect_of(struct replay_rewrite *rewrite,
                                       const struct replay_message *message,
                                       enum message_dialect given)
{
    if (!rewrite->carries_messages(rewrite->context, message->channel))
        return DIALECT_RAW;
    struct message scanned;
    message_scan(message->payload, &rewrite->policy, rewrite->scratch, &scanned);
    if (scanned.method == METHOD_OPAQUE)
        return DIALECT_RAW;
    if (scanned.encoding == MESSAGE_PICKLE)
        return DIALECT_PICKLE;
    return given == DIALECT_PICKLE ? scanned.dialect : given;
}

static struct span write_frame(struct replay_rewrite *rewrite,
                               const struct replay_message *message, struct slice payload)
{
    unsigned protocol = message->frame.data[0] == '>' ? 3 : 2;
    char *room = chunk_writer_reserve(&rewrite->writer,
                                      RESP_HEAD_ROOM + message->pattern.len +
                                          message->channel.len + payload.len + 2);
    size_t len =
        message->pattern.data == NULL
            ? resp_put_message_head(room, protocol, message->channel, payload.len)
            : resp_put_pmessage_head(room, protocol, message->pattern, message->channel,
                                     payload.len);
    memcpy(room + len, payload.data, payload.len);
    memcpy(room + len + payload.len, "\r\n", 2);
    return chunk_writer_commit(&rewrite->writer, len + payload.len + 2);
}

bool replay_rewrite_next(struct replay_rewrite *rewrite, struct slice *bytes,
                         enum message_dialect from, enum message_dialect to,
                         struct span *message, const char **why)
{
    struct replay_message parsed;
    replay_next_message(bytes, &parsed);
    enum message_dialect dialect = dialect_of(rewrite, &parsed, from);
    if (dialect == DIALECT_RAW || dialect == to) {
        *message = chunk_writer_copy(&rewrite->writer, parsed.frame);
        return true;
    }
    struct slice payload;
    if (!transcoder_run(rewrite->transcoder, parsed.payload, dialect, to, &payload)) {
        *why = transcoder_refused(rewrite->transcoder);
        return false;
    }
    *message = write_frame(rewrite, &parsed, payload);
    return true;
}
