/*
 * The pickle machine without its objects: stack, marks and memo of entries, and what the opcodes do to
 * them. Only for pickle_scan and pickle_code; the rules are told in pickle_scan.c.
 *
 * Every function that gives an enum pickle_step says STEP_ON when the machine may go on.
 */
#pragma once

#include "broker/pickle_entry.h"
#include "broker/pickle_scan.h"
#include "broker/pickle_tree.h"

#define PICKLE_STACK_MAX      65536
#define PICKLE_DEPTH_MAX      256
#define PICKLE_MEMO_MAX       (4 * 1024 * 1024)
#define PICKLE_NOT_WATCHED    UINT32_MAX
#define PICKLE_ROOM_ITEMS_MAX 65536

struct pickle_machine {
    struct slice payload;
    const unsigned char *bytes; /* payload.data */
    size_t len;
    size_t at;     /* behind the opcode and the part of its argument that was read */
    size_t opcode; /* where it is */

    struct scan_scratch *scratch;
    struct entry *stack;
    size_t top;
    size_t capacity;
    size_t fence; /* stack index of the last mark: nothing below is popped */
    uint32_t marks[PICKLE_DEPTH_MAX]; /* fences of the marks before */
    unsigned mark_count;
    unsigned depth_max;
    size_t frame_end;  /* of the last FRAME */
    unsigned protocol; /* of the last PROTO, 0 without one */

    struct entry *memo;
    size_t memo_len;   /* entries that are initialised */
    size_t memo_count; /* of them set: the next index of MEMOIZE */
    size_t memo_capacity;
    size_t memo_bound; /* indexes below it are allowed, and there is memory for them */

    uint32_t
        watched_dict; /* by identity; PICKLE_NOT_WATCHED: the first one on an empty stack */
    struct entry keys[KEY_COUNT];
    uint32_t watched_room;
    struct entry *items;
    size_t item_count;

    struct pickle_tree *tree; /* NULL: what is in containers is not kept */

    struct entry result;
    struct pickle_notes *notes;
};

/* What a step says: go on, or how the scan ends. */
enum pickle_step { STEP_ON, STEP_STOPPED, STEP_CUT, STEP_BAD };

static inline enum pickle_step pickle_bad(struct pickle_machine *machine,
                                          const char *error)
{
    machine->notes->error = error;
    return STEP_BAD;
}

static inline enum pickle_step pickle_underflow(struct pickle_machine *machine)
{
    return pickle_bad(machine, "stack underflow");
}

/* ---- reading arguments ---- */

static inline size_t pickle_left(const struct pickle_machine *machine)
{
    return machine->len - machine->at;
}

static inline uint64_t pickle_read_little(struct pickle_machine *machine, size_t width)
{
    uint64_t number = 0;
    for (size_t i = 0; i < width; i++)
        number |= (uint64_t)machine->bytes[machine->at + i] << (8 * i);
    machine->at += width;
    return number;
}

/* A length of `width` bytes; what it measures must be there too. */
static inline enum pickle_step pickle_read_len(struct pickle_machine *machine,
                                               size_t width, size_t *len)
{
    if (pickle_left(machine) < width)
        return STEP_CUT;
    uint64_t number = pickle_read_little(machine, width);
    if (number > INT64_MAX)
        return pickle_bad(machine, "length past all bounds");
    if (number > pickle_left(machine))
        return STEP_CUT;
    *len = (size_t)number;
    return STEP_ON;
}

/* A line without its line feed. */
static inline enum pickle_step pickle_read_line(struct pickle_machine *machine,
                                                struct slice *line)
{
    struct slice rest = slice_from(machine->payload, machine->at);
    size_t len = slice_find(rest, '\n');
    if (len == rest.len)
        return STEP_CUT;
    *line = slice_to(rest, len);
    machine->at += len + 1;
    return STEP_ON;
}

/* ---- stack ---- */

enum pickle_step pickle_grow_stack(struct pickle_machine *machine);

static inline size_t pickle_available(const struct pickle_machine *machine)
{
    return machine->top - machine->fence;
}

static inline struct entry *pickle_from_top(struct pickle_machine *machine, size_t count)
{
    return &machine->stack[machine->top - count];
}

static inline enum pickle_step pickle_push(struct pickle_machine *machine,
                                           struct entry entry)
{
    if (machine->top == machine->capacity || machine->top >= PICKLE_STACK_MAX) {
        enum pickle_step step = pickle_grow_stack(machine);
        if (step != STEP_ON)
            return step;
    }
    machine->stack[machine->top++] = entry;
    return STEP_ON;
}

static inline enum pickle_step pickle_push_kind(struct pickle_machine *machine,
                                                enum entry_kind kind, uint8_t flags)
{
    return pickle_push(machine, (struct entry){.offset = (uint32_t)machine->opcode,
                                               .kind = (uint8_t)kind,
                                               .flags = flags});
}

static inline enum pickle_step pickle_push_bytes(struct pickle_machine *machine,
                                                 enum entry_kind kind, size_t len,
                                                 uint8_t flags)
{
    struct entry entry = {.offset = (uint32_t)machine->at,
                          .len = (uint32_t)len,
                          .kind = (uint8_t)kind,
                          .flags = flags};
    machine->at += len;
    return pickle_push(machine, entry);
}

static inline enum pickle_step pickle_push_mark(struct pickle_machine *machine)
{
    if (machine->mark_count >= machine->depth_max)
        return pickle_bad(machine, "nested too deep");
    machine->marks[machine->mark_count++] = (uint32_t)machine->fence;
    machine->fence = machine->top;
    return STEP_ON;
}

/* Takes the last mark away: its items are the `*count` on top of the stack. */
static inline enum pickle_step pickle_take_mark(struct pickle_machine *machine,
                                                size_t *count)
{
    if (machine->mark_count == 0)
        return pickle_bad(machine, "no mark");
    *count = machine->top - machine->fence;
    machine->fence = machine->marks[--machine->mark_count];
    return STEP_ON;
}

/* The text of an ENTRY_TEXT or ENTRY_RAW_TEXT, as it is in the payload. */
static inline struct slice pickle_entry_text(const struct pickle_machine *machine,
                                             const struct entry *entry)
{
    return slice_of(machine->bytes + entry->offset, entry->len);
}

/* The first opcode that makes Python look up or call something is noted by its name. */
void pickle_carries_code(struct pickle_machine *machine, const char *opcode);

/* The same for a call that is known to do no more than make bytes. */
void pickle_carries_bytes(struct pickle_machine *machine, const char *opcode);

/* Each replaces the `count` values on top of the stack (they are there) by one container of them. */
enum pickle_step pickle_make_tuple(struct pickle_machine *machine, size_t count);
enum pickle_step pickle_make_dict(struct pickle_machine *machine, size_t count);
enum pickle_step pickle_make_list(struct pickle_machine *machine, size_t count);
enum pickle_step pickle_make_frozenset(struct pickle_machine *machine, size_t count);

/* APPEND, APPENDS, SETITEM, SETITEMS, ADDITEMS: `count` values on top go into the container of that kind
 * that is below them. */
enum pickle_step pickle_fill(struct pickle_machine *machine, enum entry_kind kind,
                             size_t count);

/* After a change of memo_capacity. */
static inline void pickle_bound_memo(struct pickle_machine *machine)
{
    machine->memo_bound =
        min_size(machine->memo_capacity, min_size(machine->len, PICKLE_MEMO_MAX));
}

/* Makes room for a memo index that was not used before, or refuses it. */
enum pickle_step pickle_grow_memo(struct pickle_machine *machine, uint64_t index);

static inline enum pickle_step pickle_memo_put(struct pickle_machine *machine,
                                               uint64_t index)
{
    if (pickle_available(machine) == 0)
        return pickle_underflow(machine);
    if (index == machine->memo_len && index < machine->memo_bound) {
        machine->memo_len++; /* as picklers number: no call, nothing to clear */
        machine->memo_count++;
    } else {
        if (index >= machine->memo_len) {
            enum pickle_step step = pickle_grow_memo(machine, index);
            if (step != STEP_ON)
                return step;
        }
        if (machine->memo[index].kind == ENTRY_UNSET)
            machine->memo_count++;
    }
    entry_copy(&machine->memo[index], &machine->stack[machine->top - 1]);
    return STEP_ON;
}

static inline enum pickle_step pickle_memo_get(struct pickle_machine *machine,
                                               uint64_t index)
{
    if (index >= machine->memo_len || machine->memo[index].kind == ENTRY_UNSET)
        return pickle_bad(machine, "memo entry that was never set");
    return pickle_push(machine, machine->memo[index]);
}
