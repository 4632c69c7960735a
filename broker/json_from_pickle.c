/*
 * A pickle's containers are filled after they were begun, and may be in several places; so it is first read
 * into a tree, by the machine that scans every pickle, and then written from the root down. The walk has
 * its own stack of open containers, no deeper than the bound; a container that is met while it is open
 * would never end.
 *
 *     data in the pickle        json15                            json14
 *     'x', [1], {…}, None       [data]                            data
 *     ('a', 'b')                ["a", "b"]                        ["a", "b"], one list to its readers, as theirs are
 *     ('a',)  ()                ["a"]  []                         "a"  null
 *     {'f': b'…'}               [[{"f": {placeholder 0}}], "…"]   [{"f": {placeholder 0}}, "…"]
 *
 * Bytes stand in the data of an emit only, as attachments; as a room they are the list of their numbers,
 * as which the receivers take them. Keys that are no texts become the texts that Python's json makes of them.
 */
#include "broker/json_from_pickle.h"

#include "broker/json_text.h"
#include "broker/pickle_opcode.h"
#include "broker/pickle_scan.h"
#include "broker/pickle_tree.h"

#include <stdio.h>

#define DEPTH_MAX 256
/* What is around a value of the data: the message, the list of arguments, the list with the attachments. */
#define DEPTH_ADDED 3

struct frame {
    uint32_t container;
    bool is_dict;
    bool has_items;
    struct tree_cursor cursor;
};

struct writer {
    struct transcoding *transcoding;
    struct slice payload;
    struct pickle_tree tree;
    struct frame frames[DEPTH_MAX];
    unsigned depth;
    bool is_data; /* bytes become attachments */
    struct slice *attachments;
    size_t attachment_count;
};

/* ---- values without items ---- */

static bool refuse(struct writer *writer, const char *what, const struct entry *entry)
{
    return transcoding_refuse(writer->transcoding, what, entry->offset);
}

/* An integer beyond int64, from the opcode that made it. */
static bool write_big_integer(struct writer *writer, const struct entry *entry)
{
    struct slice rest = slice_from(writer->payload, entry->offset + 1);
    unsigned char opcode = (unsigned char)writer->payload.data[entry->offset];
    const unsigned char *len = (const unsigned char *)rest.data;
    if (opcode == OP_INT || opcode == OP_LONG) {
        struct slice line = slice_to(rest, slice_find(rest, '\n'));
        if (slice_ends_with(line, SLICE("L")))
            line.len--;
        transcoding_put(writer->transcoding, line);
        return true;
    }
    struct slice bytes =
        opcode == OP_LONG1
            ? slice_of(rest.data + 1, len[0])
            : slice_of(rest.data + 4, (size_t)len[0] | (size_t)len[1] << 8 |
                                          (size_t)len[2] << 16 | (size_t)len[3] << 24);
    return json_long_write(writer->transcoding, bytes) ||
           refuse(writer, "an integer of more than 4,300 digits", entry);
}

/* The bytes of any kind of them; false when there is no room to decode them. */
static bool bytes_of(struct writer *writer, const struct entry *entry,
                     struct slice *bytes)
{
    struct entry made;
    if (entry->kind == ENTRY_BYTEARRAY) {
        *bytes = slice_of("", 0);
        if (entry->argument == 0)
            return true;
        struct tree_cursor cursor = pickle_tree_walk(&writer->tree, entry->len);
        made = *pickle_tree_next(&writer->tree, &cursor);
        entry = &made;
    }
    struct scanned_value value =
        pickle_entry_value(writer->payload, entry, writer->transcoding->scratch);
    *bytes = value.text;
    return value.type == VALUE_BYTES ||
           refuse(writer, "too much text in an old form", entry);
}

static bool write_bytes(struct writer *writer, const struct entry *entry)
{
    struct slice bytes;
    if (!writer->is_data)
        return refuse(writer, "bytes outside of an emit's data", entry);
    if (!bytes_of(writer, entry, &bytes))
        return false;
    size_t size = (writer->attachment_count + 1) * sizeof(struct slice);
    writer->attachments =
        scan_scratch_table(writer->transcoding->scratch, SCAN_TABLE_ATTACHMENTS, size);
    writer->attachments[writer->attachment_count] = bytes;
    transcoding_put(writer->transcoding, SLICE("{\"_placeholder\": true, \"num\": "));
    json_integer_write(writer->transcoding, (int64_t)writer->attachment_count++);
    transcoding_put_byte(writer->transcoding, '}');
    return true;
}

/* None, booleans, numbers and texts; *written false for all else. */
static bool write_simple(struct writer *writer, const struct entry *entry, bool *written)
{
    struct transcoding *out = writer->transcoding;
    *written = true;
    if (entry->kind == ENTRY_TEXT) { /* most values are */
        json_text_write(out, slice_of(writer->payload.data + entry->offset, entry->len));
        return true;
    }
    struct scanned_value value = {.type = pickle_entry_type(writer->payload, entry)};
    if (value.type != VALUE_LIST && value.type != VALUE_BYTES &&
        value.type != VALUE_OTHER)
        value = pickle_entry_value(writer->payload, entry, out->scratch);
    switch (value.type) {
    case VALUE_NONE:
        transcoding_put(out, SLICE("null"));
        return true;
    case VALUE_BOOL:
        transcoding_put(out, value.integer != 0 ? SLICE("true") : SLICE("false"));
        return true;
    case VALUE_INTEGER:
        json_integer_write(out, value.integer);
        return true;
    case VALUE_BIG_INTEGER:
        return write_big_integer(writer, entry);
    case VALUE_FLOAT:
        json_float_write(out, value.real);
        return true;
    case VALUE_TEXT:
        json_text_write(out, value.text);
        return true;
    case VALUE_ABSENT:
    case VALUE_BYTES:
    case VALUE_LIST:
    case VALUE_OTHER:
        if (entry->kind == ENTRY_RAW_TEXT)
            return refuse(writer, "too much text in an old form", entry);
        *written = false;
        return true;
    }
    unreachable();
}

/* A key, and what stands between it and its value. Numbers, booleans and None become texts. */
static bool write_key(struct writer *writer, const struct entry *key)
{
    struct transcoding *out = writer->transcoding;
    bool is_text = key->kind == ENTRY_TEXT || key->kind == ENTRY_RAW_TEXT;
    bool written;
    if (!is_text)
        transcoding_put_byte(out, '"');
    if (!write_simple(writer, key, &written))
        return false;
    if (!written)
        return refuse(writer, "a key that JSON cannot have", key);
    if (!is_text)
        transcoding_put_byte(out, '"');
    transcoding_put(out, SLICE(": "));
    return true;
}

/* ---- values with items ---- */

/* Writes a value; of a list, dict or tuple only how it begins. */
static bool begin_value(struct writer *writer, const struct entry *entry)
{
    struct transcoding *out = writer->transcoding;
    bool written;
    if (!write_simple(writer, entry, &written))
        return false;
    if (written)
        return !out->is_full;
    if (entry->kind == ENTRY_BYTEARRAY ||
        pickle_entry_type(writer->payload, entry) == VALUE_BYTES)
        return write_bytes(writer, entry);
    if (entry->kind == ENTRY_SET || entry->kind == ENTRY_FROZENSET)
        return refuse(writer, "a set, which JSON does not have", entry);
    if (entry->kind != ENTRY_LIST && entry->kind != ENTRY_TUPLE &&
        entry->kind != ENTRY_DICT)
        return refuse(writer, "an object, which JSON does not have", entry);
    if ((entry->flags & ENTRY_ARGS_LATIN1) !=
        0) { /* it is not in the tree: (text, 'latin1') */
        struct entry text = {.offset = entry->argument, .len = entry->len};
        text.kind = (entry->flags & ENTRY_ARGS_RAW) != 0 ? ENTRY_RAW_TEXT : ENTRY_TEXT;
        transcoding_put_byte(out, '[');
        if (!write_simple(writer, &text, &written))
            return false;
        transcoding_put(out, SLICE(", \"latin1\"]"));
        return true;
    }
    struct tree_container *container = &writer->tree.containers[entry->len];
    if (container->is_open)
        return refuse(writer, "a container inside itself", entry);
    if (writer->depth + DEPTH_ADDED >= out->depth_max || writer->depth >= DEPTH_MAX)
        return refuse(writer, "nested too deep", entry);
    container->is_open = true;
    writer->frames[writer->depth++] = (struct frame){
        .container = entry->len,
        .is_dict = entry->kind == ENTRY_DICT,
        .cursor = pickle_tree_walk(&writer->tree, entry->len),
    };
    transcoding_put_byte(out, entry->kind == ENTRY_DICT ? '{' : '[');
    return true;
}

static bool write_value(struct writer *writer, const struct entry *entry)
{
    struct transcoding *out = writer->transcoding;
    unsigned base = writer->depth;
    if (!begin_value(writer, entry))
        return false;
    while (writer->depth > base) {
        struct frame *frame = &writer->frames[writer->depth - 1];
        const struct entry *item = pickle_tree_next(&writer->tree, &frame->cursor);
        if (item == NULL) {
            writer->tree.containers[frame->container].is_open = false;
            writer->depth--;
            transcoding_put_byte(out, frame->is_dict ? '}' : ']');
            continue;
        }
        if (frame->has_items)
            transcoding_put(out, SLICE(", "));
        frame->has_items = true;
        if (frame->is_dict) {
            if (!write_key(writer, item))
                return false;
            item = pickle_tree_next(&writer->tree, &frame->cursor);
        }
        if (!begin_value(writer, item))
            return false;
    }
    return !out->is_full;
}

/* ---- the message ---- */

/* What the data of an emit is to JSON: see the table at the top. */
static bool write_arguments(struct writer *writer, const struct entry *data)
{
    struct transcoding *out = writer->transcoding;
    bool is_tuple = data->kind == ENTRY_TUPLE;
    if (out->to == DIALECT_JSON15) {
        if (is_tuple)
            return write_value(writer, data);
        transcoding_put_byte(out, '[');
        if (!write_value(writer, data))
            return false;
        transcoding_put_byte(out, ']');
        return true;
    }
    if (is_tuple && (data->flags & ENTRY_ARGS_LATIN1) == 0) {
        struct tree_cursor cursor = pickle_tree_walk(&writer->tree, data->len);
        const struct entry *first = pickle_tree_next(&writer->tree, &cursor);
        if (first == NULL) {
            transcoding_put(out, SLICE("null"));
            return true;
        }
        if (cursor.chunk == 0)
            data = first;
    }
    return write_value(writer, data);
}

static bool write_data(struct writer *writer, const struct entry *data)
{
    struct transcoding *out = writer->transcoding;
    size_t start = out->len;
    writer->attachment_count = 0;
    writer->is_data = true;
    bool is_good = write_arguments(writer, data);
    writer->is_data = false;
    if (!is_good)
        return false;
    if (writer->attachment_count > 0) {
        transcoding_put_byte(out, ' '); /* makes room for the bracket in front */
        if (out->is_full)
            return false;
        memmove(out->bytes + start + 1, out->bytes + start, out->len - 1 - start);
        out->bytes[start] = '[';
        for (size_t i = 0; i < writer->attachment_count && !out->is_full; i++) {
            transcoding_put(out, SLICE(", \""));
            json_base64_write(out, writer->attachments[i]);
            transcoding_put_byte(out, '"');
        }
        transcoding_put_byte(out, ']');
    }
    transcoding_put(out, writer->attachment_count > 0 ? SLICE(", \"binary\": true")
                                                      : SLICE(", \"binary\": false"));
    return true;
}

static bool write_room(struct writer *writer, const struct entry *room)
{
    struct transcoding *out = writer->transcoding;
    struct slice bytes;
    if (room->kind != ENTRY_BYTEARRAY &&
        pickle_entry_type(writer->payload, room) != VALUE_BYTES)
        return write_value(writer, room);
    if (!bytes_of(writer, room, &bytes))
        return false;
    transcoding_put_byte(out, '[');
    for (size_t i = 0; i < bytes.len && !out->is_full; i++) {
        if (i > 0)
            transcoding_put(out, SLICE(", "));
        json_integer_write(out, (unsigned char)bytes.data[i]);
    }
    transcoding_put_byte(out, ']');
    return true;
}

static enum scanned_key key_of(struct writer *writer, const struct entry *key)
{
    struct scanned_value value = {.type = VALUE_OTHER};
    if (key->kind == ENTRY_TEXT || (key->kind == ENTRY_RAW_TEXT && key->len < 100))
        value = pickle_entry_value(writer->payload, key, writer->transcoding->scratch);
    return value.type == VALUE_TEXT ? scanned_key_find(value.text) : KEY_COUNT;
}

/* The last value of the key. */
static struct scanned_value find_method(struct writer *writer, const struct entry *root)
{
    struct scanned_value method = {.type = VALUE_ABSENT};
    struct tree_cursor cursor = pickle_tree_walk(&writer->tree, root->len);
    for (const struct entry *key;
         (key = pickle_tree_next(&writer->tree, &cursor)) != NULL;) {
        const struct entry *value = pickle_tree_next(&writer->tree, &cursor);
        if (key_of(writer, key) != KEY_METHOD)
            continue;
        method.type = VALUE_OTHER;
        if (value->kind == ENTRY_TEXT ||
            (value->kind == ENTRY_RAW_TEXT && value->len < 100))
            method =
                pickle_entry_value(writer->payload, value, writer->transcoding->scratch);
    }
    return method;
}

static bool write_message(struct writer *writer, const struct entry *root)
{
    struct transcoding *out = writer->transcoding;
    struct scanned_value method = find_method(writer, root);
    bool emits = method.type == VALUE_TEXT && slice_equals(method.text, SLICE("emit"));
    bool closes =
        method.type == VALUE_TEXT && slice_equals(method.text, SLICE("close_room"));
    bool has_items = false;
    struct tree_cursor cursor = pickle_tree_walk(&writer->tree, root->len);
    writer->tree.containers[root->len].is_open = true;
    transcoding_put_byte(out, '{');
    for (const struct entry *key;
         (key = pickle_tree_next(&writer->tree, &cursor)) != NULL;) {
        const struct entry *value = pickle_tree_next(&writer->tree, &cursor);
        enum scanned_key name = key_of(writer, key);
        if (emits && name == KEY_BINARY) /* says nothing in a pickle, and would in JSON */
            continue;
        if (has_items)
            transcoding_put(out, SLICE(", "));
        has_items = true;
        if (!write_key(writer, key))
            return false;
        bool is_good;
        if (emits && name == KEY_DATA)
            is_good = write_data(writer, value);
        else if ((emits || closes) && name == KEY_ROOM)
            is_good = write_room(writer, value);
        else
            is_good = write_value(writer, value);
        if (!is_good)
            return false;
    }
    transcoding_put_byte(out, '}');
    return true;
}

bool json_from_pickle(struct transcoding *transcoding)
{
    struct writer writer;
    writer.transcoding = transcoding;
    writer.payload = transcoding->payload;
    writer.depth = 0;
    writer.is_data = false;
    writer.attachments = NULL;
    writer.attachment_count = 0;
    struct entry root;
    struct pickle_notes notes;
    if (pickle_scan_tree(transcoding->payload, transcoding->depth_max,
                         transcoding->scratch, &writer.tree, &root, &notes) != PARSE_DONE)
        return transcoding_refuse(transcoding, notes.error, notes.offset);
    if (!notes.is_plain) {
        snprintf(transcoding->refused, sizeof(transcoding->refused),
                 "pickle opcode %s at byte %zu makes an object, which JSON does not have",
                 notes.code, notes.code_offset);
        return false;
    }
    if (root.kind != ENTRY_DICT)
        return transcoding_refuse(transcoding, "no dict", 0);
    return write_message(&writer, &root);
}
