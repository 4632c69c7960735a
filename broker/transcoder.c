/*
 * Which way:
 *
 *     from ╲ to   pickle               json14               json15
 *     pickle      itself               json_from_pickle     json_from_pickle
 *     json14      pickle_from_json     itself               json_from_json
 *     json15      pickle_from_json     json_from_json       itself
 */
#include "broker/transcoder.h"

#include "broker/json_from_json.h"
#include "broker/json_from_pickle.h"
#include "broker/pickle_from_json.h"

#include <stdio.h>

#define BYTES_FIRST 4096
/* Bytes of the output that are kept for the next run. */
#define BYTES_KEPT (1024 * 1024)

struct transcoder {
    struct transcoding transcoding;
};

bool transcoding_refuse(struct transcoding *transcoding, const char *what, size_t offset)
{
    snprintf(transcoding->refused, sizeof(transcoding->refused), "%s at byte %zu", what,
             offset);
    return false;
}

bool transcoding_grow(struct transcoding *transcoding, size_t len)
{
    if (transcoding->is_full || len > transcoding->len_max - transcoding->len) {
        transcoding->is_full = true;
        return false;
    }
    size_t size = max_size(transcoding->size, BYTES_FIRST);
    while (size < transcoding->len + len)
        size *= 2;
    size = min_size(size, transcoding->len_max); /* so that the size alone is the bound */
    transcoding->bytes = must_realloc(transcoding->bytes, size);
    transcoding->size = size;
    return true;
}

struct transcoder *transcoder_new(unsigned depth_max, size_t len_max)
{
    struct transcoder *transcoder = must_calloc(1, sizeof(*transcoder));
    transcoder->transcoding.depth_max = depth_max;
    transcoder->transcoding.len_max = len_max;
    transcoder->transcoding.scratch = scan_scratch_new();
    return transcoder;
}

void transcoder_free(struct transcoder *transcoder)
{
    if (transcoder == NULL)
        return;
    scan_scratch_free(transcoder->transcoding.scratch);
    free(transcoder->transcoding.bytes);
    free(transcoder);
}

static void begin(struct transcoding *transcoding)
{
    scan_scratch_reset(transcoding->scratch);
    if (transcoding->size > BYTES_KEPT) {
        free(transcoding->bytes);
        transcoding->bytes = NULL;
        transcoding->size = 0;
    }
    transcoding->len = 0;
    transcoding->is_full = false;
    transcoding->refused[0] = '\0';
}

bool transcoder_run(struct transcoder *transcoder, struct slice payload,
                    enum message_dialect from, enum message_dialect to, struct slice *out)
{
    struct transcoding *transcoding = &transcoder->transcoding;
    begin(transcoding);
    *out = payload;
    if (from == to || from == DIALECT_RAW || to == DIALECT_RAW)
        return true;
    transcoding->payload = payload;
    transcoding->from = from;
    transcoding->to = to;
    bool is_good;
    if (from == DIALECT_PICKLE)
        is_good = json_from_pickle(transcoding);
    else if (to == DIALECT_PICKLE)
        is_good = pickle_from_json(transcoding);
    else
        is_good = json_from_json(transcoding, out);
    if (transcoding->is_full) {
        snprintf(transcoding->refused, sizeof(transcoding->refused),
                 "longer than %zu bytes when written as %s", transcoding->len_max,
                 message_dialect_name(to));
        return false;
    }
    if (is_good && (from == DIALECT_PICKLE || to == DIALECT_PICKLE))
        *out = slice_of(transcoding->bytes, transcoding->len);
    return is_good;
}

const char *transcoder_refused(const struct transcoder *transcoder)
{
    return transcoder->transcoding.refused;
}
