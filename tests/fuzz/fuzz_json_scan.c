/* fuzz: broker */
/*
 * JSON: what is accepted stays so with white space around it, and does not with a byte behind it; texts lie
 * in the payload or the scratch.
 */
#include "broker/json_scan.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned touched;

static void touch(const struct scanned_value *value)
{
    if (value->type == VALUE_TEXT) {
        for (size_t i = 0; i < value->text.len; i++)
            touched += (unsigned char)value->text.data[i];
        check(scanned_utf8_is_valid(value->text.data, value->text.len));
    }
}

static enum parse_result scan(struct slice payload, struct scan_scratch *scratch)
{
    struct scanned scanned;
    struct json_notes notes;
    return json_scan(payload, 256, scratch, &scanned, &notes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct scan_scratch *scratch;
    if (scratch == NULL)
        scratch = scan_scratch_new();
    scan_scratch_reset(scratch);
    struct scanned scanned;
    struct json_notes notes;
    enum parse_result result =
        json_scan(slice_of(data, size), 256, scratch, &scanned, &notes);
    check((result == PARSE_DONE) == (notes.error == NULL) && notes.offset <= size);
    if (result != PARSE_DONE)
        return 0;
    for (size_t key = 0; key < KEY_COUNT; key++)
        if (scanned.values[key].type == VALUE_TEXT &&
            scanned.values[key].text.data != NULL)
            touch(&scanned.values[key]);
    for (size_t i = 0; scanned.room_items != NULL && i < scanned.values[KEY_ROOM].len;
         i++)
        touch(&scanned.room_items[i]);
    char *longer = must_calloc(1, size + 2);
    longer[0] = '\n';
    memcpy(longer + 1, data, size);
    longer[size + 1] = ' ';
    check(scan(slice_of(longer, size + 2), scratch) == PARSE_DONE);
    longer[size + 1] = '}';
    check(scan(slice_of(longer, size + 2), scratch) != PARSE_DONE);
    free(longer);
    return 0;
}
