/* fuzz: broker */
/*
 * Replies of Redis: the first byte says in what pieces the rest comes. However it is split the replies are
 * the same, and what is told lies in the reader's memory.
 */
#include "broker/link_reader.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t mixed;

static void mix(struct slice bytes)
{
    mixed = mixed * 31 + bytes.len;
    for (size_t i = 0; i < bytes.len; i++)
        mixed = mixed * 131 + (unsigned char)bytes.data[i];
}

static bool on_message(void *context UNUSED, struct slice channel, struct slice payload)
{
    mix(channel);
    mix(payload);
    return true;
}

static bool on_too_long(void *context UNUSED, struct slice channel, struct slice start,
                        size_t len)
{
    mix(channel);
    mix(start);
    mixed += len;
    return true;
}

static bool on_reply(void *context UNUSED, const struct link_reply *reply)
{
    mixed = mixed * 31 + (uint64_t)reply->integer + reply->type;
    mix(reply->text);
    mix(reply->channel);
    return true;
}

static uint64_t run(struct slice input, size_t step, bool *is_good)
{
    const struct link_reader_callbacks callbacks = {on_message, on_too_long, on_reply,
                                                    NULL};
    struct link_reader *reader = link_reader_new(step, 4096, &callbacks);
    mixed = 0;
    *is_good = true;
    while (*is_good && input.len > 0) {
        size_t room_size;
        char *room = link_reader_room(reader, &room_size);
        struct slice part = slice_to(input, min_size(step, room_size));
        memcpy(room, part.data, part.len);
        input = slice_from(input, part.len);
        *is_good = link_reader_take(reader, part.len);
    }
    link_reader_free(reader);
    return mixed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 4096)
        return 0;
    bool whole_good, pieces_good;
    struct slice input = slice_of(data + 1, size - 1);
    uint64_t whole = run(input, input.len, &whole_good);
    uint64_t pieces = run(input, (size_t)data[0] % 64 + 1, &pieces_good);
    check(whole == pieces && whole_good == pieces_good);
    return 0;
}
