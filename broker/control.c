#include "broker/control.h"

#include "broker/little.h"
#include "broker/partition_map.h"

#include <event2/buffer.h>
#include <stdio.h>

#define NAME_MAX_LEN 255
#define OUTLINE_LEN  23 /* line feed, m; partitions 4, order 1, channels 8, shards 8 */
#define PLACE_LEN    17 /* line feed and 16 hex digits behind a shard's name */

/* ---- lists, element by element ---- */

static bool take_element_end(struct control_list *list, bool ok)
{
    if (ok)
        list->count--;
    return ok;
}

bool control_next_hash(struct control_list *list, uint64_t *hash)
{
    return list->count > 0 && take_element_end(list, take_little(&list->bytes, 8, hash));
}

bool control_next_name(struct control_list *list, struct slice *name)
{
    return list->count > 0 && take_element_end(list, take_field(&list->bytes, 1, name));
}

bool control_read_outline(struct slice name, struct map_outline *outline)
{
    uint64_t partitions, order;
    if (!slice_starts_with(name, SLICE("\nm")))
        return false;
    struct slice rest = slice_from(name, 2);
    if (!take_little(&rest, 4, &partitions) || !take_little(&rest, 1, &order) ||
        !take_little(&rest, 8, &outline->channels) ||
        !take_little(&rest, 8, &outline->shards))
        return false;
    outline->partitions = (unsigned)partitions;
    outline->order = (unsigned)order;
    return true;
}

bool control_take_place(struct slice *name, uint64_t *place)
{
    if (name->len <= PLACE_LEN || name->data[name->len - PLACE_LEN] != '\n')
        return false;
    uint64_t number = 0;
    for (size_t i = name->len - PLACE_LEN + 1; i < name->len; i++) {
        char c = name->data[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
            return false;
        number = number << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *place = number;
    *name = slice_to(*name, name->len - PLACE_LEN);
    return true;
}

bool control_next_position(struct control_list *list, uint16_t *partition,
                           uint64_t *sequence)
{
    uint64_t number;
    if (list->count == 0 || !take_little(&list->bytes, 2, &number) ||
        !take_little(&list->bytes, 8, sequence))
        return false;
    *partition = (uint16_t)number;
    return take_element_end(list, true);
}

bool control_next_channel(struct control_list *list, struct slice *channel,
                          uint32_t *count)
{
    uint64_t number;
    if (list->count == 0 || !take_field(&list->bytes, 1, channel) ||
        !take_little(&list->bytes, 4, &number))
        return false;
    *count = (uint32_t)number;
    return take_element_end(list, true);
}

bool control_next_range(struct control_list *list, uint16_t *partition, uint64_t *first,
                        unsigned *count)
{
    uint64_t number, length;
    if (list->count == 0 || !take_little(&list->bytes, 2, &number) ||
        !take_little(&list->bytes, 8, first) || !take_little(&list->bytes, 2, &length))
        return false;
    *partition = (uint16_t)number;
    *count = (unsigned)length;
    return take_element_end(list, length >= 1 && length <= CONTROL_RANGE_MAX &&
                                      *first >= 1 && *first <= UINT64_MAX - length);
}

/* ---- reading ---- */

/* A count of `width` bytes, then its elements, each of which must be readable by `next`. */
#define TAKE_LIST(rest, width, list, walk)                                               \
    do {                                                                                 \
        uint64_t count_;                                                                 \
        if (!take_little(rest, width, &count_))                                          \
            return false;                                                                \
        struct control_list left_ = {(size_t)count_, *(rest)};                           \
        while (left_.count > 0)                                                          \
            if (!(walk))                                                                 \
                return false;                                                            \
        (list)->count = (size_t)count_;                                                  \
        (list)->bytes = slice_to(*(rest), (rest)->len - left_.bytes.len);                \
        *(rest) = left_.bytes;                                                           \
    } while (0)

static bool take_ranges(struct slice *rest, struct control_list *list)
{
    uint16_t partition;
    uint64_t first;
    unsigned count;
    TAKE_LIST(rest, 2, list, control_next_range(&left_, &partition, &first, &count));
    return list->count <= CONTROL_RANGES_MAX;
}

static bool take_positions(struct slice *rest, struct control_list *list)
{
    uint16_t partition;
    uint64_t sequence;
    TAKE_LIST(rest, 2, list, control_next_position(&left_, &partition, &sequence));
    return true;
}

static bool take_facts(struct slice *rest, struct control_facts *facts)
{
    uint64_t flags, hash;
    struct slice name;
    uint32_t count;
    if (!take_little(rest, 1, &flags) || !take_little(rest, 8, &facts->age) ||
        !take_little(rest, 8, &facts->used) || !take_little(rest, 8, &facts->loaded))
        return false;
    facts->flags = (uint8_t)flags;
    TAKE_LIST(rest, 1, &facts->carries, control_next_hash(&left_, &hash));
    TAKE_LIST(rest, 1, &facts->subscribed, control_next_name(&left_, &name));
    if (!take_positions(rest, &facts->tails))
        return false;
    TAKE_LIST(rest, 2, &facts->generic, control_next_channel(&left_, &name, &count));
    return true;
}

static bool take_body(struct slice *rest, struct control *control)
{
    switch ((enum control_kind)control->kind) {
    case CONTROL_HEARTBEAT:
        return take_facts(rest, &control->facts);
    case CONTROL_ASK:
        return take_field(rest, 1, &control->shard) &&
               take_ranges(rest, &control->ranges);
    case CONTROL_WHERE:
        return take_field(rest, 1, &control->shard);
    case CONTROL_POSITIONS:
        return take_little(rest, 8, &control->question) &&
               take_facts(rest, &control->facts) &&
               take_positions(rest, &control->places);
    case CONTROL_GONE:
        return take_ranges(rest, &control->ranges);
    case CONTROL_JOINED:
        return take_little(rest, 8, &control->message_id);
    }
    unreachable();
}

bool control_is_control(struct slice bytes)
{
    return slice_starts_with(bytes, SLICE("SC"));
}

uint64_t control_peek_sender(struct slice bytes)
{
    uint64_t sender = 0;
    struct slice rest = slice_from(bytes, CONTROL_KIND_OFFSET + 1);
    return control_is_control(bytes) && take_little(&rest, 8, &sender) ? sender : 0;
}

enum control_result control_parse(struct slice bytes, struct control *control)
{
    memset(control, 0, sizeof(*control));
    if (!control_is_control(bytes))
        return CONTROL_BAD;
    struct slice rest = slice_from(bytes, 2);
    uint64_t version, kind;
    if (!take_little(&rest, 1, &version))
        return CONTROL_BAD;
    if (version != CONTROL_VERSION)
        return CONTROL_UNKNOWN_VERSION;
    if (!take_little(&rest, 1, &kind) || !take_little(&rest, 8, &control->sender) ||
        !take_little(&rest, 8, &control->number))
        return CONTROL_BAD;
    control->kind = (uint8_t)kind;
    if (kind < CONTROL_HEARTBEAT || kind > CONTROL_JOINED)
        return CONTROL_UNKNOWN_KIND;
    return take_body(&rest, control) && rest.len == 0 ? CONTROL_OK : CONTROL_BAD;
}

/* ---- writing ---- */

static void add_little(struct evbuffer *out, uint64_t number, size_t width)
{
    char bytes[8];
    put_little(bytes, number, width);
    evbuffer_add(out, bytes, width);
}

static void add_field(struct evbuffer *out, struct slice field)
{
    check(field.len <= NAME_MAX_LEN);
    add_little(out, field.len, 1);
    evbuffer_add(out, field.data, field.len);
}

static void add_list(struct evbuffer *out, size_t width, const struct control_list *list)
{
    check(list->count < (size_t)1 << (8 * width));
    add_little(out, list->count, width);
    evbuffer_add(out, list->bytes.data, list->bytes.len);
}

void control_add_hash(struct evbuffer *list, uint64_t hash)
{
    add_little(list, hash, 8);
}

void control_add_name(struct evbuffer *list, struct slice name)
{
    add_field(list, name);
}

void control_add_place(struct evbuffer *list, struct slice name, uint64_t place)
{
    char text[NAME_MAX_LEN + 1];
    if (name.len + PLACE_LEN > NAME_MAX_LEN)
        return;
    int len = snprintf(text, sizeof(text), "%.*s\n%016llx", SLICE_ARGS(name),
                       (unsigned long long)place);
    add_field(list, slice_of(text, (size_t)len));
}

void control_add_outline(struct evbuffer *list, const struct map_outline *outline)
{
    char text[OUTLINE_LEN] = "\nm";
    put_little(text + 2, outline->partitions, 4);
    put_little(text + 6, outline->order, 1);
    put_little(text + 7, outline->channels, 8);
    put_little(text + 15, outline->shards, 8);
    add_field(list, slice_of(text, sizeof(text)));
}

void control_add_position(struct evbuffer *list, uint16_t partition, uint64_t sequence)
{
    add_little(list, partition, 2);
    add_little(list, sequence, 8);
}

void control_add_channel(struct evbuffer *list, struct slice channel, uint32_t count)
{
    add_field(list, channel);
    add_little(list, count, 4);
}

void control_add_range(struct evbuffer *list, uint16_t partition, uint64_t first,
                       unsigned count)
{
    check(count >= 1 && count <= CONTROL_RANGE_MAX && first >= 1);
    add_little(list, partition, 2);
    add_little(list, first, 8);
    add_little(list, count, 2);
}

static void add_facts(struct evbuffer *out, const struct control_facts *facts)
{
    add_little(out, facts->flags, 1);
    add_little(out, facts->age, 8);
    add_little(out, facts->used, 8);
    add_little(out, facts->loaded, 8);
    add_list(out, 1, &facts->carries);
    add_list(out, 1, &facts->subscribed);
    add_list(out, 2, &facts->tails);
    add_list(out, 2, &facts->generic);
}

void control_write(const struct control *control, struct evbuffer *out)
{
    evbuffer_add(out, "SC", 2);
    add_little(out, CONTROL_VERSION, 1);
    add_little(out, control->kind, 1);
    add_little(out, control->sender, 8);
    add_little(out, control->number, 8);
    switch ((enum control_kind)control->kind) {
    case CONTROL_HEARTBEAT:
        add_facts(out, &control->facts);
        return;
    case CONTROL_ASK:
        add_field(out, control->shard);
        add_list(out, 2, &control->ranges);
        return;
    case CONTROL_WHERE:
        add_field(out, control->shard);
        return;
    case CONTROL_POSITIONS:
        add_little(out, control->question, 8);
        add_facts(out, &control->facts);
        add_list(out, 2, &control->places);
        return;
    case CONTROL_GONE:
        add_list(out, 2, &control->ranges);
        return;
    case CONTROL_JOINED:
        add_little(out, control->message_id, 8);
        return;
    }
    unreachable();
}
