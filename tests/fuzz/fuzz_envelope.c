/* fuzz: broker */
/* Envelopes: parse, write, and the bytes are the same; every slice lies in the input. */
#include "broker/envelope.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct slice part, struct slice whole)
{
    check(part.data >= whole.data && part.data + part.len <= whole.data + whole.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice whole = slice_of(data, size);
    struct envelope envelope;
    if (envelope_parse(whole, &envelope) != ENVELOPE_OK)
        return 0;
    check_inside(envelope.channel, whole);
    check_inside(envelope.namespace, whole);
    check_inside(envelope.payload, whole);
    struct slice *rooms = must_calloc(envelope.room_count, sizeof(struct slice));
    struct slice rest = envelope.room_bytes;
    for (size_t i = 0; i < envelope.room_count; i++) {
        check(envelope_next_room(&rest, &rooms[i]));
        check_inside(rooms[i], whole);
    }
    check(rest.len == 0);
    envelope.rooms = rooms;
    size_t header = envelope_size(&envelope);
    check(header + envelope.payload.len == size);
    char *written = must_calloc(1, header);
    envelope_write_bytes(&envelope, written);
    check(memcmp(written, data, header) == 0);
    free(written);
    free(rooms);
    return 0;
}
