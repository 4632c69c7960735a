#include "broker/envelope.h"

#include "broker/little.h"

#include <event2/buffer.h>

#define CHANNEL_MAX   255
#define FIELD_MAX     65535
#define ROOMS_UNKNOWN 65535

/* ---- writing ---- */

size_t envelope_size(const struct envelope *envelope)
{
    if (envelope->channel.len > CHANNEL_MAX || envelope->namespace.len > FIELD_MAX ||
        envelope->payload.len > UINT32_MAX || envelope->room_count > ENVELOPE_ROOMS_MAX)
        return 0;
    size_t size = ENVELOPE_FIXED_LEN + 1 + envelope->channel.len + 2 +
                  envelope->namespace.len + 2 + 4;
    if ((envelope->flags & ENVELOPE_HAS_HOST) != 0)
        size += ENVELOPE_HOST_ID_LEN;
    for (size_t i = 0; envelope->rooms_known && i < envelope->room_count; i++) {
        if (envelope->rooms[i].len > FIELD_MAX)
            return 0;
        size += 2 + envelope->rooms[i].len;
    }
    return size;
}

void envelope_write_bytes(const struct envelope *envelope, char *bytes)
{
    char *at = put_bytes(bytes, "S1", 2);
    at = put_little(at, ENVELOPE_VERSION, 1);
    at = put_little(at, envelope->flags, 1);
    at = put_little(at, envelope->method, 1);
    at = put_little(at, envelope->dialect, 1);
    at = put_little(at, envelope->partition, 2);
    at = put_little(at, envelope->map, 4);
    at = put_little(at, envelope->origin, 8);
    at = put_little(at, envelope->sequence, 8);
    at = put_little(at, envelope->message_id, 8);
    if ((envelope->flags & ENVELOPE_HAS_HOST) != 0)
        at = put_bytes(at, envelope->host_id, ENVELOPE_HOST_ID_LEN);
    at = put_field(at, envelope->channel, 1);
    at = put_field(at, envelope->namespace, 2);
    at = put_little(at, envelope->rooms_known ? envelope->room_count : ROOMS_UNKNOWN, 2);
    for (size_t i = 0; envelope->rooms_known && i < envelope->room_count; i++)
        at = put_field(at, envelope->rooms[i], 2);
    put_little(at, envelope->payload.len, 4);
}

bool envelope_write(const struct envelope *envelope, struct evbuffer *out)
{
    size_t size = envelope_size(envelope);
    if (size == 0)
        return false;
    struct evbuffer_iovec space;
    check(evbuffer_reserve_space(out, (ev_ssize_t)size, &space, 1) == 1);
    envelope_write_bytes(envelope, space.iov_base);
    space.iov_len = size;
    check(evbuffer_commit_space(out, &space, 1) == 0);
    return true;
}

/* ---- reading ---- */

bool envelope_next_room(struct slice *room_bytes, struct slice *room)
{
    return take_field(room_bytes, 2, room);
}

/* Behind magic and version. */
static bool take_numbers(struct slice *rest, struct envelope *envelope)
{
    uint64_t flags, method, dialect, partition, map;
    if (!take_little(rest, 1, &flags) || !take_little(rest, 1, &method) ||
        !take_little(rest, 1, &dialect) || !take_little(rest, 2, &partition) ||
        !take_little(rest, 4, &map) || !take_little(rest, 8, &envelope->origin) ||
        !take_little(rest, 8, &envelope->sequence) ||
        !take_little(rest, 8, &envelope->message_id))
        return false;
    envelope->flags = (uint8_t)flags;
    envelope->method = (uint8_t)method;
    envelope->dialect = (uint8_t)dialect;
    envelope->partition = (uint16_t)partition;
    envelope->map = (uint32_t)map;
    return true;
}

static bool take_fixed(struct slice *rest, struct envelope *envelope)
{
    if (!take_numbers(rest, envelope))
        return false;
    if ((envelope->flags & ENVELOPE_HAS_HOST) == 0)
        return true;
    struct slice host_id;
    if (!take_bytes(rest, ENVELOPE_HOST_ID_LEN, &host_id))
        return false;
    memcpy(envelope->host_id, host_id.data, ENVELOPE_HOST_ID_LEN);
    return true;
}

static bool take_rooms(struct slice *rest, struct envelope *envelope)
{
    uint64_t count;
    if (!take_little(rest, 2, &count))
        return false;
    envelope->rooms_known = count != ROOMS_UNKNOWN;
    envelope->room_count = envelope->rooms_known ? (size_t)count : 0;
    envelope->room_bytes = *rest;
    struct slice room;
    for (size_t i = 0; i < envelope->room_count; i++)
        if (!envelope_next_room(rest, &room))
            return false;
    envelope->room_bytes.len -= rest->len;
    return true;
}

bool envelope_parse_numbers(struct slice bytes, struct envelope *envelope)
{
    memset(envelope, 0, sizeof(*envelope));
    struct slice rest = bytes;
    struct slice magic;
    uint64_t version;
    return take_bytes(&rest, 2, &magic) && slice_equals(magic, SLICE("S1")) &&
           take_little(&rest, 1, &version) && version == ENVELOPE_VERSION &&
           take_numbers(&rest, envelope);
}

enum envelope_result envelope_parse(struct slice bytes, struct envelope *envelope)
{
    memset(envelope, 0, sizeof(*envelope));
    struct slice rest = bytes;
    struct slice magic;
    uint64_t version;
    if (!take_bytes(&rest, 2, &magic) || !slice_equals(magic, SLICE("S1")) ||
        !take_little(&rest, 1, &version))
        return ENVELOPE_BAD;
    if (version != ENVELOPE_VERSION)
        return ENVELOPE_UNKNOWN_VERSION;
    if (!take_fixed(&rest, envelope) || !take_field(&rest, 1, &envelope->channel) ||
        !take_field(&rest, 2, &envelope->namespace) || !take_rooms(&rest, envelope) ||
        !take_field(&rest, 4, &envelope->payload) || rest.len != 0)
        return ENVELOPE_BAD;
    return ENVELOPE_OK;
}

/* ---- host ids ---- */

/* The digit's value + 1; 0 for what is no lower-case hex digit. */
static const uint8_t hex_values[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,
    ['6'] = 7,  ['7'] = 8,  ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12,
    ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

bool envelope_host_id_parse(struct slice text, uint8_t host_id[ENVELOPE_HOST_ID_LEN])
{
    if (text.len != 2 * ENVELOPE_HOST_ID_LEN)
        return false;
    for (size_t i = 0; i < ENVELOPE_HOST_ID_LEN; i++) {
        unsigned high = hex_values[(unsigned char)text.data[2 * i]];
        unsigned low = hex_values[(unsigned char)text.data[2 * i + 1]];
        if (high == 0 || low == 0)
            return false;
        host_id[i] = (uint8_t)((high - 1) << 4 | (low - 1));
    }
    return true;
}

void envelope_host_id_write(const uint8_t host_id[ENVELOPE_HOST_ID_LEN], char text[32])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < ENVELOPE_HOST_ID_LEN; i++) {
        text[2 * i] = digits[host_id[i] >> 4];
        text[2 * i + 1] = digits[host_id[i] & 15];
    }
}
