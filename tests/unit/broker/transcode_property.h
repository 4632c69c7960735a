/*
 * What is true of every message in every dialect, for the unit test and the fuzzer:
 *
 *   - what is written scans as the same message: method, namespace, rooms, sid, host_id, callback
 *   - what is written can be written back, and then stays as it is
 *
 * Where a text holds two surrogates in a row nothing is demanded of it: JSON joins them to one character.
 */
#pragma once

#include "broker/transcoder.h"

#include <stdlib.h>

struct transcode_property {
    struct transcoder *transcoder;
    struct scan_scratch *before;
    struct scan_scratch *after;
};

static inline void transcode_property_init(struct transcode_property *property)
{
    property->transcoder = transcoder_new(256, 64 * 1024 * 1024);
    property->before = scan_scratch_new();
    property->after = scan_scratch_new();
}

static inline void transcode_property_cleanup(struct transcode_property *property)
{
    transcoder_free(property->transcoder);
    scan_scratch_free(property->before);
    scan_scratch_free(property->after);
}

static inline bool has_surrogates(struct slice text)
{
    for (size_t i = 0; i + 1 < text.len; i++)
        if ((unsigned char)text.data[i] == 0xed &&
            (unsigned char)text.data[i + 1] >= 0xa0)
            return true;
    return false;
}

static inline void check_same_text(struct slice before, struct slice after)
{
    check(has_surrogates(before) || slice_equals(before, after));
    check((before.data == NULL) == (after.data == NULL));
}

static inline void check_same_message(const struct message *before,
                                      const struct message *after)
{
    check(!message_is_refused(after));
    check(before->method == after->method);
    check_same_text(before->namespace, after->namespace);
    check_same_text(before->sid, after->sid);
    check_same_text(before->host_id, after->host_id);
    check(before->has_callback == after->has_callback);
    if (!before->rooms_known)
        return;
    for (size_t i = 0; i < before->room_count; i++)
        if (has_surrogates(before->rooms[i]))
            return;
    check(after->rooms_known && after->room_count == before->room_count);
    for (size_t i = 0; i < before->room_count; i++)
        check_same_text(before->rooms[i], after->rooms[i]);
}

/* A copy of what the transcoder writes, or no data when it refuses. The caller frees it. */
static inline struct slice transcoded_copy(struct transcode_property *property,
                                           struct slice payload,
                                           enum message_dialect from,
                                           enum message_dialect to)
{
    struct slice out;
    if (transcoder_run(property->transcoder, payload, from, to, &out))
        return slice_of(must_memdup(out.data, out.len), out.len);
    const char *why = transcoder_refused(property->transcoder);
    check(why[0] != '\0');
    for (; *why != '\0'; why++)
        check(*why >= ' ' && *why <= '~');
    return slice_of(NULL, 0);
}

static inline void transcoded_free(struct slice copy)
{
    free((void *)(uintptr_t)copy.data);
}

/* `payload` is whole and of dialect `from`; it is small enough for everything to be decoded. */
static inline void check_transcoding(struct transcode_property *property,
                                     struct slice payload, enum message_dialect from,
                                     enum message_dialect to)
{
    struct message before, after;
    struct slice there = transcoded_copy(property, payload, from, to);
    if (there.data == NULL)
        return;
    message_scan(payload, &message_policy_default, property->before, &before);
    message_scan(there, &message_policy_default, property->after, &after);
    check(after.encoding == (to == DIALECT_PICKLE ? MESSAGE_PICKLE : MESSAGE_JSON));
    check(to != DIALECT_JSON15 || from == DIALECT_JSON15 || after.method != METHOD_EMIT ||
          !(after.dialect_is_proven && after.dialect == DIALECT_JSON14));
    check_same_message(&before, &after);
    struct slice back = transcoded_copy(property, there, to, from);
    if (back.data != NULL && from != to) {
        struct slice again = transcoded_copy(property, back, from, to);
        struct slice last = slice_of(NULL, 0);
        if (again.data != NULL)
            last = transcoded_copy(property, again, to, from);
        check(last.data == NULL || slice_equals(back, last));
        transcoded_free(again);
        transcoded_free(last);
    }
    transcoded_free(back);
    transcoded_free(there);
}
