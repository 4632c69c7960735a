/* fuzz: broker */
/*
 * Pickles: what is accepted is whole (no prefix of it is), and texts lie in the payload or the scratch, which
 * the sanitizers see by touching them.
 */
#include "broker/pickle_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned touched;

static void touch(const struct scanned_value *value)
{
    if (value->type == VALUE_TEXT || value->type == VALUE_BYTES)
        for (size_t i = 0; i < value->text.len; i++)
            touched += (unsigned char)value->text.data[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct scan_scratch *scratch;
    if (scratch == NULL)
        scratch = scan_scratch_new();
    scan_scratch_reset(scratch);
    struct scanned scanned;
    struct pickle_notes notes;
    enum parse_result result =
        pickle_scan(slice_of(data, size), 256, scratch, &scanned, &notes);
    if (result != PARSE_DONE) {
        check(notes.error != NULL && notes.offset <= size);
        return 0;
    }
    check(notes.is_plain == (notes.code == NULL));
    static const enum scanned_key texts[] = {KEY_METHOD, KEY_NAMESPACE, KEY_ROOM,
                                             KEY_HOST_ID, KEY_SID};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        touch(&scanned.values[texts[i]]);
    for (size_t i = 0; scanned.room_items != NULL && i < scanned.values[KEY_ROOM].len;
         i++)
        touch(&scanned.room_items[i]);
    check(size > 0 && pickle_may_begin_with(data[0]));
    check(pickle_scan(slice_of(data, size - 1), 256, scratch, &scanned, &notes) !=
          PARSE_DONE);
    return 0;
}
