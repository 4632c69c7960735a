/*
 * A pickle is a program for a machine with a stack, marks and a memo. This is that machine without the
 * objects: an entry says what type would be there and where it came from.
 *
 *     payload  }  (  X method  X emit  X data  ]  (  K1 K2  e  …  u  .
 *                                                              │
 *     stack    dict │mark│ text text text list │mark│ int int  ▼  the mark's items collapse into the list
 *              └ watched: SETITEM(S) into it are looked at, key by key
 *
 *  A list, dict or tuple is known by the offset of the opcode that made it, and entries that stand for
 *  the same object (through the memo) have the same offset. So one pass guesses that the first dict on an
 *  empty stack is the message and is right for every pickler; if the pickle ends with another dict, a
 *  second pass watches that one. A room that is a list or tuple costs one more pass, which collects
 *  what is put into it. Nothing is followed, so nothing can loop.
 *
 *  Rules that make it agree with the unpickler or refuse: every length against what is left; nothing is
 *  popped from below the last mark; dict keys and set items are hashable; texts are UTF-8; numbers are
 *  as the pickler writes them; no opcode crosses the end of a frame; one value on the stack at STOP, and STOP is the last byte.
 *
 *  To add an opcode: its case in step_once (or pickle_code, if it makes Python
 *  call something) with what it pops and pushes, and a row in the unit test.
 */
#include "broker/pickle_scan.h"

#include "broker/pickle_code.h"
#include "broker/pickle_machine.h"
#include "broker/pickle_opcode.h"

#define PROTOCOL_MAX 5
#define STACK_FIRST  512

/* The index on the line of GET and PUT. */
static enum pickle_step read_index(struct pickle_machine *machine, uint64_t *index)
{
    struct slice line;
    enum pickle_step step = pickle_read_line(machine, &line);
    if (step != STEP_ON)
        return step;
    return slice_to_number(line, 0, UINT32_MAX, index)
               ? STEP_ON
               : pickle_bad(machine, "bad memo index");
}

static enum pickle_step text_of(struct pickle_machine *machine, size_t width)
{
    size_t len;
    enum pickle_step step = pickle_read_len(machine, width, &len);
    if (step != STEP_ON)
        return step;
    if (!scanned_utf8_is_valid((const char *)machine->bytes + machine->at, len))
        return pickle_bad(machine, "text that is not UTF-8");
    return pickle_push_bytes(machine, ENTRY_TEXT, len, 0);
}

/* Most of what a message is made of: a text of less than 256 bytes. */
static inline enum pickle_step short_text_of(struct pickle_machine *machine)
{
    size_t left = pickle_left(machine);
    if (left == 0 || machine->bytes[machine->at] >= left)
        return STEP_CUT;
    size_t len = machine->bytes[machine->at++];
    if (!scanned_utf8_is_valid((const char *)machine->bytes + machine->at, len))
        return pickle_bad(machine, "text that is not UTF-8");
    return pickle_push_bytes(machine, ENTRY_TEXT, len, 0);
}

static enum pickle_step bytes_of(struct pickle_machine *machine, size_t width,
                                 uint8_t flags)
{
    size_t len;
    enum pickle_step step = pickle_read_len(machine, width, &len);
    return step == STEP_ON ? pickle_push_bytes(machine, ENTRY_BYTES, len, flags) : step;
}

static bool is_ascii(const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] >= 0x80)
            return false;
    return true;
}

/* Python 2's str, which Python 3 reads as ASCII text. */
static enum pickle_step old_text_of(struct pickle_machine *machine, size_t width)
{
    size_t len;
    enum pickle_step step = pickle_read_len(machine, width, &len);
    if (step != STEP_ON)
        return step;
    if (len > INT32_MAX || !is_ascii(machine->bytes + machine->at, len))
        return pickle_bad(machine, "text that is not ASCII");
    return pickle_push_bytes(machine, ENTRY_TEXT, len, 0);
}

static enum pickle_step number_bytes(struct pickle_machine *machine, enum entry_kind kind,
                                     size_t len)
{
    if (pickle_left(machine) < len)
        return STEP_CUT;
    machine->at += len;
    return pickle_push_kind(machine, kind, 0);
}

static enum pickle_step step_long(struct pickle_machine *machine, size_t width)
{
    size_t len;
    if (width == 4 && pickle_left(machine) >= 4 &&
        machine->bytes[machine->at + 3] >= 0x80)
        return pickle_bad(machine, "negative length");
    enum pickle_step step = pickle_read_len(machine, width, &len);
    return step == STEP_ON ? number_bytes(machine, ENTRY_INTEGER, len) : step;
}

/* The opcodes of protocol 0 that have a line as argument. */
static enum pickle_step step_line(struct pickle_machine *machine, unsigned char opcode)
{
    size_t start = machine->at;
    struct slice line;
    enum pickle_step step = pickle_read_line(machine, &line);
    if (step != STEP_ON)
        return step;
    size_t end = machine->at;
    bool is_narrow;
    switch (opcode) {
    case OP_INT:
    case OP_LONG:
        if (!pickle_integer_is_valid(line, opcode == OP_LONG))
            return pickle_bad(machine, "bad integer");
        return pickle_push_kind(machine, ENTRY_INTEGER, 0);
    case OP_FLOAT:
        if (!pickle_float_is_valid(line))
            return pickle_bad(machine, "bad float");
        return pickle_push_kind(machine, ENTRY_FLOAT, 0);
    case OP_UNICODE:
        if (!pickle_raw_text_is_valid(line, &is_narrow))
            return pickle_bad(machine, "bad text");
        machine->at = start;
        step = pickle_push_bytes(machine, ENTRY_RAW_TEXT, line.len, 0);
        machine->at = end;
        return step;
    default: /* STRING: quoted, and without escapes here */
        if (line.len < 2 || (line.data[0] != '\'' && line.data[0] != '"') ||
            line.data[line.len - 1] != line.data[0] ||
            slice_find(line, '\\') != line.len || slice_find(line, '\r') != line.len ||
            !is_ascii((const unsigned char *)line.data, line.len))
            return pickle_bad(machine, "bad text");
        machine->at = start + 1;
        step = pickle_push_bytes(machine, ENTRY_TEXT, line.len - 2, 0);
        machine->at = end;
        return step;
    }
}

static enum pickle_step step_frame(struct pickle_machine *machine, unsigned char opcode)
{
    if (opcode == OP_FRAME) {
        size_t len;
        if (machine->opcode < machine->frame_end)
            return pickle_bad(machine, "frame in a frame");
        enum pickle_step step = pickle_read_len(machine, 8, &len);
        if (step == STEP_ON)
            machine->frame_end = machine->at + len;
        return step;
    }
    if (pickle_left(machine) < 1)
        return STEP_CUT;
    machine->protocol = machine->bytes[machine->at++];
    if (machine->protocol > PROTOCOL_MAX)
        return pickle_bad(machine, "protocol above 5");
    return STEP_ON;
}

static enum pickle_step step_memo(struct pickle_machine *machine, unsigned char opcode)
{
    uint64_t index;
    enum pickle_step step;
    switch (opcode) {
    case OP_BINPUT:
    case OP_LONG_BINPUT:
    case OP_BINGET:
    case OP_LONG_BINGET: {
        size_t width = opcode == OP_BINPUT || opcode == OP_BINGET ? 1 : 4;
        if (pickle_left(machine) < width)
            return STEP_CUT;
        index = pickle_read_little(machine, width);
        return opcode == OP_BINPUT || opcode == OP_LONG_BINPUT
                   ? pickle_memo_put(machine, index)
                   : pickle_memo_get(machine, index);
    }
    default: /* GET, PUT */
        step = read_index(machine, &index);
        if (step != STEP_ON)
            return step;
        return opcode == OP_PUT ? pickle_memo_put(machine, index)
                                : pickle_memo_get(machine, index);
    }
}

/* Opcodes that take all above the last mark. */
static enum pickle_step step_marked(struct pickle_machine *machine, unsigned char opcode)
{
    size_t count;
    enum pickle_step step = pickle_take_mark(machine, &count);
    if (step != STEP_ON)
        return step;
    switch (opcode) {
    case OP_APPENDS:
        return pickle_fill(machine, ENTRY_LIST, count);
    case OP_SETITEMS:
        return pickle_fill(machine, ENTRY_DICT, count);
    case OP_ADDITEMS:
        return pickle_fill(machine, ENTRY_SET, count);
    case OP_TUPLE:
        return pickle_make_tuple(machine, count);
    case OP_LIST:
        return pickle_make_list(machine, count);
    case OP_DICT:
        return pickle_make_dict(machine, count);
    default: /* FROZENSET */
        return pickle_make_frozenset(machine, count);
    }
}

static enum pickle_step make_small_tuple(struct pickle_machine *machine, size_t count)
{
    return pickle_available(machine) < count ? pickle_underflow(machine)
                                             : pickle_make_tuple(machine, count);
}

static enum pickle_step stop(struct pickle_machine *machine)
{
    if (machine->mark_count != 0 || machine->top != 1)
        return machine->top == 0 ? pickle_underflow(machine)
                                 : pickle_bad(machine, "values left on the stack");
    if (machine->at != machine->len)
        return pickle_bad(machine, "bytes behind the end");
    machine->result = machine->stack[0];
    if ((machine->result.flags & ENTRY_IS_CLASS) != 0)
        pickle_carries_code(machine, "GLOBAL");
    return STEP_STOPPED;
}

/* One opcode: table-shaped, with the ones that messages are made of first. */
static enum pickle_step step_once(struct pickle_machine *machine)
{
    if (machine->at == machine->len)
        return STEP_CUT;
    machine->opcode = machine->at;
    unsigned char opcode = machine->bytes[machine->at++];
    switch (opcode) {
    case OP_SHORT_BINUNICODE:
        return short_text_of(machine);
    case OP_BINUNICODE:
        return text_of(machine, 4);
    case OP_BINUNICODE8:
        return text_of(machine, 8);
    case OP_MEMOIZE:
        return pickle_memo_put(machine, machine->memo_count);
    case OP_BINGET:
    case OP_LONG_BINGET:
    case OP_GET:
    case OP_BINPUT:
    case OP_LONG_BINPUT:
    case OP_PUT:
        return step_memo(machine, opcode);
    case OP_BININT1:
        return number_bytes(machine, ENTRY_INTEGER, 1);
    case OP_BININT2:
        return number_bytes(machine, ENTRY_INTEGER, 2);
    case OP_BININT:
        return number_bytes(machine, ENTRY_INTEGER, 4);
    case OP_LONG1:
        return step_long(machine, 1);
    case OP_LONG4:
        return step_long(machine, 4);
    case OP_BINFLOAT:
        return number_bytes(machine, ENTRY_FLOAT, 8);
    case OP_NONE:
        return pickle_push_kind(machine, ENTRY_NONE, 0);
    case OP_NEWTRUE:
        return pickle_push_kind(machine, ENTRY_TRUE, 0);
    case OP_NEWFALSE:
        return pickle_push_kind(machine, ENTRY_FALSE, 0);
    case OP_MARK:
        return pickle_push_mark(machine);
    case OP_EMPTY_DICT:
        return pickle_make_dict(machine, 0);
    case OP_EMPTY_LIST:
        return pickle_make_list(machine, 0);
    case OP_EMPTY_TUPLE:
        return pickle_make_tuple(machine, 0);
    case OP_EMPTY_SET:
        return pickle_push_kind(machine, ENTRY_SET, ENTRY_UNHASHABLE);
    case OP_TUPLE1:
        return make_small_tuple(machine, 1);
    case OP_TUPLE2:
        return make_small_tuple(machine, 2);
    case OP_TUPLE3:
        return make_small_tuple(machine, 3);
    case OP_APPEND:
        return pickle_fill(machine, ENTRY_LIST, 1);
    case OP_SETITEM:
        return pickle_fill(machine, ENTRY_DICT, 2);
    case OP_APPENDS:
    case OP_SETITEMS:
    case OP_ADDITEMS:
    case OP_TUPLE:
    case OP_LIST:
    case OP_DICT:
    case OP_FROZENSET:
        return step_marked(machine, opcode);
    case OP_SHORT_BINBYTES:
        return bytes_of(machine, 1, 0);
    case OP_BINBYTES:
        return bytes_of(machine, 4, 0);
    case OP_BINBYTES8:
        return bytes_of(machine, 8, 0);
    case OP_BYTEARRAY8:
        return bytes_of(machine, 8, ENTRY_UNHASHABLE);
    case OP_SHORT_BINSTRING:
        return old_text_of(machine, 1);
    case OP_BINSTRING:
        return old_text_of(machine, 4);
    case OP_INT:
    case OP_LONG:
    case OP_FLOAT:
    case OP_UNICODE:
    case OP_STRING:
        return step_line(machine, opcode);
    case OP_PROTO:
    case OP_FRAME:
        return step_frame(machine, opcode);
    case OP_STOP:
        return stop(machine);
    default:
        return pickle_step_code(machine, opcode);
    }
}

/* ---- passes ---- */

/* Runs the machine over the payload, watching one dict and one list or tuple. */
static enum parse_result run(struct pickle_machine *machine, uint32_t watched_dict,
                             uint32_t watched_room)
{
    machine->at = 0;
    machine->top = machine->fence = 0;
    machine->mark_count = 0;
    machine->protocol = 0;
    machine->frame_end = 0;
    machine->memo_len = machine->memo_count = 0;
    machine->item_count = 0;
    machine->watched_dict = watched_dict;
    machine->watched_room = watched_room;
    memset(machine->keys, 0, sizeof(machine->keys));
    *machine->notes = (struct pickle_notes){.is_plain = true};
    enum pickle_step step;
    do {
        step = step_once(machine);
        /* Python's two unpicklers disagree about these; its picklers never write them */
        if (machine->at > machine->frame_end && machine->opcode < machine->frame_end)
            step = pickle_bad(machine, "an opcode across the end of its frame");
    } while (step == STEP_ON);
    machine->notes->offset = machine->opcode;
    if (step == STEP_STOPPED)
        return PARSE_DONE;
    if (step == STEP_BAD)
        return PARSE_BAD;
    machine->notes->error = "cut short";
    return PARSE_MORE;
}

static void machine_init(struct pickle_machine *machine, struct slice payload,
                         unsigned depth_max, struct scan_scratch *scratch,
                         struct pickle_notes *notes)
{
    machine->payload = payload;
    machine->bytes = (const unsigned char *)payload.data;
    machine->len = payload.len;
    machine->opcode = 0;
    machine->scratch = scratch;
    machine->notes = notes;
    machine->depth_max = depth_max < PICKLE_DEPTH_MAX ? depth_max : PICKLE_DEPTH_MAX;
    machine->stack =
        scan_scratch_table(scratch, SCAN_TABLE_STACK, STACK_FIRST * sizeof(struct entry));
    machine->capacity =
        scan_scratch_table_size(scratch, SCAN_TABLE_STACK) / sizeof(struct entry);
    machine->memo = scan_scratch_table(scratch, SCAN_TABLE_MEMO, 0);
    machine->memo_capacity =
        scan_scratch_table_size(scratch, SCAN_TABLE_MEMO) / sizeof(struct entry);
    pickle_bound_memo(machine);
    machine->items = NULL;
    machine->tree = NULL;
}

/* The room is a list or a tuple: its items, by one more pass. */
static void scan_room_items(struct pickle_machine *machine, struct scanned *scanned)
{
    uint32_t dict = machine->result.offset;
    uint32_t room = machine->keys[KEY_ROOM].offset;
    enum parse_result result = run(machine, dict, room);
    check(result == PARSE_DONE); /* as the pass before */
    scanned->values[KEY_ROOM].len = machine->item_count;
    if (machine->item_count == 0 || machine->item_count > PICKLE_ROOM_ITEMS_MAX)
        return;
    struct scanned_value *values = scan_scratch_take(
        machine->scratch, machine->item_count * sizeof(struct scanned_value));
    if (values == NULL)
        return;
    for (size_t i = 0; i < machine->item_count; i++)
        values[i] =
            pickle_entry_value(machine->payload, &machine->items[i], machine->scratch);
    scanned->room_items = values;
}

/* From entries to values: only what a message is routed by is decoded. */
static void resolve(struct pickle_machine *machine, struct scanned *scanned)
{
    static const enum scanned_key texts[] = {KEY_METHOD, KEY_NAMESPACE, KEY_ROOM,
                                             KEY_HOST_ID, KEY_SID};
    scanned->is_dict = true;
    for (size_t key = 0; key < KEY_COUNT; key++)
        scanned->values[key].type =
            pickle_entry_type(machine->payload, &machine->keys[key]);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        scanned->values[texts[i]] = pickle_entry_value(
            machine->payload, &machine->keys[texts[i]], machine->scratch);
    if (scanned->values[KEY_ROOM].type == VALUE_LIST)
        scan_room_items(machine, scanned);
}

enum parse_result pickle_scan(struct slice payload, unsigned depth_max,
                              struct scan_scratch *scratch, struct scanned *scanned,
                              struct pickle_notes *notes)
{
    memset(scanned, 0, sizeof(*scanned));
    *notes = (struct pickle_notes){.is_plain = true};
    if (payload.len >= PICKLE_NOT_WATCHED) {
        notes->error = "longer than 4 GiB";
        return PARSE_BAD;
    }
    struct pickle_machine machine;
    machine_init(&machine, payload, depth_max, scratch, notes);
    enum parse_result result = run(&machine, PICKLE_NOT_WATCHED, PICKLE_NOT_WATCHED);
    if (result != PARSE_DONE || machine.result.kind != ENTRY_DICT)
        return result;
    if (machine.watched_dict != machine.result.offset) {
        result = run(&machine, machine.result.offset, PICKLE_NOT_WATCHED);
        check(result == PARSE_DONE); /* the same bytes as a moment ago */
    }
    resolve(&machine, scanned);
    return PARSE_DONE;
}

enum parse_result pickle_scan_tree(struct slice payload, unsigned depth_max,
                                   struct scan_scratch *scratch, struct pickle_tree *tree,
                                   struct entry *root, struct pickle_notes *notes)
{
    *notes = (struct pickle_notes){.is_plain = true};
    if (payload.len >= PICKLE_NOT_WATCHED) {
        notes->error = "longer than 4 GiB";
        return PARSE_BAD;
    }
    struct pickle_machine machine;
    machine_init(&machine, payload, depth_max, scratch, notes);
    pickle_tree_init(tree, scratch);
    machine.tree = tree;
    enum parse_result result = run(&machine, PICKLE_NOT_WATCHED, PICKLE_NOT_WATCHED);
    if (result == PARSE_DONE)
        *root = machine.result;
    return result;
}

bool pickle_may_begin_with(unsigned char byte)
{
    static const char printable[] = "(.012FIJKLMNPQRSTUVXabcd}eghijl]opqrst)uGBC";
    if (byte >= OP_PROTO)
        return byte <= OP_READONLY_BUFFER;
    return memchr(printable, byte, sizeof(printable) - 1) != NULL;
}
