/*
 * Which scanner? The first byte tells: an unpickler does nothing at all with bytes that do not begin with
 * an opcode, and no JSON object begins with one. So
 *
 *     begins with an opcode   it must be a whole pickle, plain as the policy wants it; else it is refused,
 *                             because a pod with an old python-socketio would start to execute it
 *     anything else           JSON, or opaque: harmless to every reader, delivered to all as it is
 */
#include "broker/message.h"

#include "broker/json_scan.h"
#include "broker/pickle_scan.h"
#include "broker/room.h"

#include <stdio.h>

/* What an envelope can count. */
#define ROOMS_MAX     65534
#define NAMESPACE_MAX 65535

const struct message_policy message_policy_default = {
    .objects = PICKLE_OBJECTS_BYTEARRAY_ONLY,
    .depth_max = 256,
};

static const struct slice method_names[METHOD_COUNT] = {
    [METHOD_EMIT] = SLICE_INIT("emit"),
    [METHOD_CALLBACK] = SLICE_INIT("callback"),
    [METHOD_DISCONNECT] = SLICE_INIT("disconnect"),
    [METHOD_CLOSE_ROOM] = SLICE_INIT("close_room"),
    [METHOD_ENTER_ROOM] = SLICE_INIT("enter_room"),
    [METHOD_LEAVE_ROOM] = SLICE_INIT("leave_room"),
    [METHOD_OPAQUE] = SLICE_INIT("opaque"),
    [METHOD_GENERIC] = SLICE_INIT("generic"),
};

const char *message_method_name(enum message_method method)
{
    return (size_t)method < METHOD_COUNT ? method_names[method].data : "unknown";
}

const char *message_encoding_name(enum message_encoding encoding)
{
    switch (encoding) {
    case MESSAGE_PICKLE:
        return "pickle";
    case MESSAGE_JSON:
        return "json";
    case MESSAGE_OPAQUE:
        return "opaque";
    }
    unreachable();
}

const char *message_dialect_name(enum message_dialect dialect)
{
    switch (dialect) {
    case DIALECT_PICKLE:
        return "pickle";
    case DIALECT_JSON14:
        return "json14";
    case DIALECT_JSON15:
        return "json15";
    case DIALECT_RAW:
        return "raw";
    }
    return "unknown"; /* a number from an envelope */
}

static enum message_method find_method(const struct scanned_value *method)
{
    if (method->type != VALUE_TEXT)
        return METHOD_OPAQUE;
    for (size_t i = 0; i < METHOD_OPAQUE; i++)
        if (slice_equals(method->text, method_names[i]))
            return (enum message_method)i;
    return METHOD_OPAQUE;
}

static struct slice text_of(const struct scanned_value *value)
{
    return value->type == VALUE_TEXT ? value->text : slice_of(NULL, 0);
}

/* python-socketio's `to or room`: what is false in Python is everybody. */
static bool is_false(const struct scanned_value *value)
{
    switch (value->type) {
    case VALUE_ABSENT:
    case VALUE_NONE:
        return true;
    case VALUE_BOOL:
    case VALUE_INTEGER:
        return value->integer == 0;
    case VALUE_FLOAT:
        return value->real == 0;
    case VALUE_TEXT:
    case VALUE_BYTES:
        return value->text.len == 0;
    case VALUE_LIST:
        return value->len == 0;
    case VALUE_BIG_INTEGER:
    case VALUE_OTHER:
        return false;
    }
    unreachable();
}

static struct slice *take_rooms(struct scan_scratch *scratch, size_t count)
{
    return count <= ROOMS_MAX ? scan_scratch_take(scratch, count * sizeof(struct slice))
                              : NULL;
}

static void set_rooms(struct message *message, const struct slice *rooms, size_t count)
{
    /* the same room several times is that room: only then is its order kept */
    size_t equal = 1;
    while (equal < count && slice_equals(rooms[0], rooms[equal]))
        equal++;
    message->rooms_known = true;
    message->rooms = rooms;
    message->room_count = equal == count ? 1 : count;
}

static void read_room_list(const struct scanned *scanned, struct scan_scratch *scratch,
                           struct message *message)
{
    size_t count = scanned->values[KEY_ROOM].len;
    struct slice *rooms = take_rooms(scratch, count);
    if (rooms == NULL || scanned->room_items == NULL)
        return;
    for (size_t i = 0; i < count; i++)
        if (!room_write(&scanned->room_items[i], scratch, &rooms[i]))
            return;
    set_rooms(message, rooms, count);
}

/* To the receiver bytes are a list of rooms: the numbers of the bytes. */
static void read_room_bytes(struct slice bytes, struct scan_scratch *scratch,
                            struct message *message)
{
    struct slice *rooms = take_rooms(scratch, bytes.len);
    if (rooms == NULL)
        return;
    for (size_t i = 0; i < bytes.len; i++) {
        struct scanned_value number = {.type = VALUE_INTEGER,
                                       .integer = (unsigned char)bytes.data[i]};
        if (!room_write(&number, scratch, &rooms[i]))
            return;
    }
    set_rooms(message, rooms, bytes.len);
}

static void read_rooms(const struct scanned *scanned, struct scan_scratch *scratch,
                       struct message *message)
{
    const struct scanned_value *room = &scanned->values[KEY_ROOM];
    if (is_false(room)) {
        message->rooms_known = true;
        return;
    }
    if (room->type == VALUE_LIST) {
        read_room_list(scanned, scratch, message);
    } else if (room->type == VALUE_BYTES) {
        read_room_bytes(room->text, scratch, message);
    } else {
        struct slice *rooms = take_rooms(scratch, 1);
        if (rooms != NULL && room_write(room, scratch, rooms))
            set_rooms(message, rooms, 1);
    }
}

/* disconnect: the sid; enter_room, leave_room: the room, then the sid. */
static void read_sid_addresses(const struct scanned *scanned,
                               struct scan_scratch *scratch, struct message *message)
{
    bool has_room = message->method != METHOD_DISCONNECT;
    struct slice *addresses = take_rooms(scratch, 2);
    if (addresses == NULL || message->sid.data == NULL ||
        !room_write_text(message->sid, scratch, &addresses[has_room ? 1 : 0]) ||
        (has_room && !room_write(&scanned->values[KEY_ROOM], scratch, &addresses[0])))
        return;
    message->rooms_known = true;
    message->rooms = addresses;
    message->room_count = has_room ? 1 : 0;
    message->addresses = addresses;
    message->address_count = has_room ? 2 : 1;
}

static void read_addresses(const struct scanned *scanned, struct scan_scratch *scratch,
                           struct message *message)
{
    /* without a namespace the receivers drop it; no room of it is known */
    if (message->namespace.data == NULL)
        return;
    switch (message->method) {
    case METHOD_EMIT:
    case METHOD_CLOSE_ROOM:
        read_rooms(scanned, scratch, message);
        message->addresses = message->rooms;
        message->address_count = message->room_count;
        break;
    case METHOD_DISCONNECT:
    case METHOD_ENTER_ROOM:
    case METHOD_LEAVE_ROOM:
        read_sid_addresses(scanned, scratch, message);
        break;
    case METHOD_CALLBACK:
        message->rooms_known = message->host_id.data != NULL;
        break;
    case METHOD_OPAQUE:
    case METHOD_GENERIC:
        break;
    }
}

static void read_fields(const struct scanned *scanned, struct scan_scratch *scratch,
                        struct message *message)
{
    if (!scanned->is_dict)
        return;
    message->method = find_method(&scanned->values[KEY_METHOD]);
    if (message->method == METHOD_OPAQUE)
        return;
    message->namespace = text_of(&scanned->values[KEY_NAMESPACE]);
    if (message->namespace.len > NAMESPACE_MAX)
        message->namespace = slice_of(NULL, 0);
    message->sid = text_of(&scanned->values[KEY_SID]);
    message->host_id = text_of(&scanned->values[KEY_HOST_ID]);
    message->has_data = scanned->values[KEY_DATA].type != VALUE_ABSENT;
    enum value_type callback = scanned->values[KEY_CALLBACK].type;
    message->has_callback = message->method == METHOD_EMIT && callback != VALUE_ABSENT &&
                            callback != VALUE_NONE;
    read_addresses(scanned, scratch, message);
}

/* data is a bare value up to 5.15.0, and always a list from 5.15.1; a bare list looks the same. With
 * attachments 5.15.1 nests the arguments in a list of their own, and so does a bare list that holds bytes. */
static void read_json_dialect(const struct scanned *scanned, struct message *message)
{
    enum value_type data = scanned->values[KEY_DATA].type;
    message->dialect = DIALECT_JSON15;
    if (data == VALUE_ABSENT || message->method != METHOD_EMIT)
        return;
    if (data != VALUE_LIST) {
        message->dialect = DIALECT_JSON14;
        message->dialect_is_proven = true;
    } else if (scanned->is_binary) {
        bool is_nested = scanned->data_first == VALUE_LIST;
        message->dialect = is_nested ? DIALECT_JSON15 : DIALECT_JSON14;
        message->dialect_is_proven = !is_nested;
    }
}

static void scan_json(struct slice payload, const struct message_policy *policy,
                      struct scan_scratch *scratch, struct message *message)
{
    struct scanned scanned;
    struct json_notes notes;
    if (json_scan(payload, policy->depth_max, scratch, &scanned, &notes) != PARSE_DONE)
        return;
    message->encoding = MESSAGE_JSON;
    read_fields(&scanned, scratch, message);
    read_json_dialect(&scanned, message);
}

static void refuse_code(struct message *message, const char *opcode, size_t offset,
                        const char *objects)
{
    snprintf(message->refused, sizeof(message->refused),
             "pickle opcode %s at byte %zu makes Python look up or call something "
             "(pickle.objects: %s lets it pass)",
             opcode, offset, objects);
}

static void apply_policy(const struct message_policy *policy,
                         const struct pickle_notes *notes, struct message *message)
{
    if (policy->refuse_pickle)
        snprintf(message->refused, sizeof(message->refused),
                 "pickles are refused here (pickle.mode: reject)");
    else if (!notes->is_plain && policy->objects != PICKLE_OBJECTS_ALLOW)
        refuse_code(message, notes->code, notes->code_offset, "allow");
    else if (notes->has_byte_forms && policy->objects == PICKLE_OBJECTS_REJECT)
        refuse_code(message, notes->byte_form, notes->byte_form_offset, "bytearray_only");
}

static void scan_pickle(struct slice payload, const struct message_policy *policy,
                        struct scan_scratch *scratch, struct message *message)
{
    struct scanned scanned;
    struct pickle_notes notes;
    if (pickle_scan(payload, policy->depth_max, scratch, &scanned, &notes) !=
        PARSE_DONE) {
        message->is_plain = false;
        if (policy->objects != PICKLE_OBJECTS_ALLOW || policy->refuse_pickle)
            snprintf(
                message->refused, sizeof(message->refused),
                "neither JSON nor a pickle that is proved plain: %s at byte %zu (%s)",
                notes.error, notes.offset,
                policy->refuse_pickle ? "pickle.mode: reject"
                                      : "pickle.objects: allow lets it pass");
        return;
    }
    message->encoding = MESSAGE_PICKLE;
    message->dialect = DIALECT_PICKLE;
    message->dialect_is_proven = true;
    message->is_plain = notes.is_plain && !notes.has_byte_forms;
    read_fields(&scanned, scratch, message);
    apply_policy(policy, &notes, message);
}

void message_scan(struct slice payload, const struct message_policy *policy,
                  struct scan_scratch *scratch, struct message *message)
{
    scan_scratch_reset(scratch);
    *message = (struct message){
        .encoding = MESSAGE_OPAQUE,
        .dialect = DIALECT_RAW,
        .method = METHOD_OPAQUE,
        .is_plain = true,
    };
    if (payload.len > 0 && pickle_may_begin_with((unsigned char)payload.data[0]))
        scan_pickle(payload, policy, scratch, message);
    else
        scan_json(payload, policy, scratch, message);
}

void message_init_generic(struct message *message)
{
    *message = (struct message){
        .encoding = MESSAGE_OPAQUE,
        .dialect = DIALECT_RAW,
        .method = METHOD_GENERIC,
        .is_plain = true,
    };
}
