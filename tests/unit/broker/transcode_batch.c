/*
 * Transcodes many payloads: for transcode_differential.py. Reads (from and to as a byte each; length as four
 * bytes, little endian; payload) again and again from stdin, and writes for each (a byte: 1 written, 0 refused;
 * length; payload or why not) to stdout. Each payload is read against a guard page.
 */
#include "tests/unit/unit.h"

#include "broker/transcoder.h"

#include <stdio.h>
#include <stdlib.h>

static void answer(bool is_good, struct slice bytes)
{
    unsigned char head[5] = {is_good};
    for (size_t i = 0; i < 4; i++)
        head[1 + i] = (unsigned char)(bytes.len >> (8 * i));
    check(fwrite(head, 1, sizeof(head), stdout) == sizeof(head));
    check(fwrite(bytes.data, 1, bytes.len, stdout) == bytes.len);
}

int main(void)
{
    struct transcoder *transcoder = transcoder_new(256, 16 * 1024 * 1024);
    unsigned char head[6];
    while (fread(head, 1, sizeof(head), stdin) == sizeof(head)) {
        size_t len = (size_t)head[2] | (size_t)head[3] << 8 | (size_t)head[4] << 16 |
                     (size_t)head[5] << 24;
        char *payload = must_calloc(1, len);
        check(fread(payload, 1, len, stdin) == len);
        char *guarded = guarded_copy(payload, len);
        struct slice out;
        bool is_good = transcoder_run(transcoder, slice_of(guarded, len),
                                      (enum message_dialect)head[0],
                                      (enum message_dialect)head[1], &out);
        answer(is_good, is_good ? out : slice_from_text(transcoder_refused(transcoder)));
        guarded_free(guarded, len);
        free(payload);
    }
    transcoder_free(transcoder);
    return 0;
}
