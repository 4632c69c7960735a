/*
 * Explains many payloads: for scan_differential.py. Reads (length as four bytes, little endian; payload)
 * again and again from stdin, and writes one line for each, as `sidrail-broker explain` would. Each payload
 * is scanned against a guard page.
 */
#include "tests/unit/unit.h"

#include "broker/explain.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>

static void explain(struct slice payload, struct scan_scratch *scratch,
                    const struct partition_map *map,
                    const struct partition_map_config *config)
{
    struct message message;
    struct evbuffer *out = evbuffer_new();
    message_scan(payload, &message_policy_default, scratch, &message);
    explain_write(out, SLICE("socketio"), &message, map, config);
    size_t len = evbuffer_get_length(out);
    check(fwrite(evbuffer_pullup(out, -1), 1, len, stdout) == len);
    evbuffer_free(out);
}

int main(void)
{
    const struct partition_map_config config = {.partitions = 4096};
    struct partition_map *map = partition_map_new(&config);
    struct scan_scratch *scratch = scan_scratch_new();
    unsigned char head[4];
    while (fread(head, 1, sizeof(head), stdin) == sizeof(head)) {
        size_t len = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 |
                     (size_t)head[3] << 24;
        char *payload = must_calloc(1, len);
        check(fread(payload, 1, len, stdin) == len);
        char *guarded = guarded_copy(payload, len);
        explain(slice_of(guarded, len), scratch, map, &config);
        guarded_free(guarded, len);
        free(payload);
    }
    scan_scratch_free(scratch);
    partition_map_free(map);
    return 0;
}
