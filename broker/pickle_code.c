#include "broker/pickle_code.h"

#include "broker/pickle_opcode.h"

/* Below protocol 3 the unpickler takes Python 2's name for Python 3's. */
static bool is_builtins(const struct pickle_machine *machine, struct slice module)
{
    return slice_equals(module, SLICE("builtins")) ||
           (machine->protocol < 3 && slice_equals(module, SLICE("__builtin__")));
}

/* A class or function that Python looks up by name. */
static enum pickle_step push_global(struct pickle_machine *machine, struct slice module,
                                    struct slice name, const char *opcode)
{
    struct entry entry = {.offset = (uint32_t)machine->opcode,
                          .kind = ENTRY_CLASS,
                          .flags = ENTRY_IS_CLASS};
    if (is_builtins(machine, module) && slice_equals(name, SLICE("bytearray"))) {
        entry.len = CLASS_BYTEARRAY;
    } else if (is_builtins(machine, module) && slice_equals(name, SLICE("bytes"))) {
        entry.len = CLASS_BYTES;
    } else if (slice_equals(module, SLICE("_codecs")) &&
               slice_equals(name, SLICE("encode"))) {
        entry.len = CLASS_ENCODE;
    } else {
        pickle_carries_code(machine, opcode);
        entry = (struct entry){.offset = entry.offset, .kind = ENTRY_OBJECT};
    }
    return pickle_push(machine, entry);
}

static enum pickle_step push_object(struct pickle_machine *machine, size_t popped,
                                    const char *opcode)
{
    if (pickle_available(machine) < popped)
        return pickle_underflow(machine);
    pickle_carries_code(machine, opcode);
    machine->top -= popped;
    return pickle_push_kind(machine, ENTRY_OBJECT, 0);
}

/* A call. Three are known to do no more than make bytes; all others are code. */
static enum pickle_step reduce(struct pickle_machine *machine)
{
    if (pickle_available(machine) < 2)
        return pickle_underflow(machine);
    const struct entry *called = pickle_from_top(machine, 2);
    const struct entry *arguments = pickle_from_top(machine, 1);
    struct entry made = {.offset = (uint32_t)machine->opcode, .kind = ENTRY_BYTES};
    bool is_bytes = false;
    if (called->kind == ENTRY_CLASS && arguments->kind == ENTRY_TUPLE) {
        if (called->len == CLASS_BYTEARRAY) {
            is_bytes = (arguments->flags & (ENTRY_ARGS_NONE | ENTRY_ARGS_BYTES)) != 0;
            made.kind = ENTRY_BYTEARRAY;
            made.flags = ENTRY_UNHASHABLE;
            made.argument = (arguments->flags & ENTRY_ARGS_BYTES) != 0;
            made.len = arguments->len;
        } else if (called->len == CLASS_BYTES) {
            is_bytes = (arguments->flags & ENTRY_ARGS_NONE) != 0;
        } else if ((arguments->flags & ENTRY_ARGS_LATIN1) != 0) {
            bool is_raw = (arguments->flags & ENTRY_ARGS_RAW) != 0;
            struct slice text =
                slice_of(machine->bytes + arguments->argument, arguments->len);
            is_bytes = true;
            if (is_raw && !pickle_raw_text_is_valid(text, &is_bytes))
                return pickle_bad(machine, "bad text");
            if (!is_raw)
                is_bytes = pickle_text_is_narrow(text);
            if (!is_bytes)
                return pickle_bad(machine, "text that is no bytes");
            made.kind = is_raw ? ENTRY_RAW_NARROWED : ENTRY_NARROWED;
            made.offset = arguments->argument;
            made.len = arguments->len;
        }
    }
    if (!is_bytes)
        return push_object(machine, 2, "REDUCE");
    pickle_carries_bytes(machine, "REDUCE");
    machine->top -= 2;
    return pickle_push(machine, made);
}

static enum pickle_step stack_global(struct pickle_machine *machine)
{
    if (pickle_available(machine) < 2)
        return pickle_underflow(machine);
    const struct entry *module = pickle_from_top(machine, 2);
    const struct entry *name = pickle_from_top(machine, 1);
    if (module->kind != ENTRY_TEXT || name->kind != ENTRY_TEXT)
        return push_object(machine, 2, "STACK_GLOBAL");
    machine->top -= 2;
    return push_global(machine, pickle_entry_text(machine, module),
                       pickle_entry_text(machine, name), "STACK_GLOBAL");
}

static enum pickle_step global(struct pickle_machine *machine, bool is_instance)
{
    struct slice module, name;
    enum pickle_step step = pickle_read_line(machine, &module);
    if (step == STEP_ON)
        step = pickle_read_line(machine, &name);
    if (step != STEP_ON)
        return step;
    if (!is_instance)
        return push_global(machine, module, name, "GLOBAL");
    size_t count;
    step = pickle_take_mark(machine, &count);
    return step == STEP_ON ? push_object(machine, count, "INST") : step;
}

enum pickle_step pickle_step_code(struct pickle_machine *machine, unsigned char opcode)
{
    static const struct {
        unsigned char opcode;
        unsigned char argument_len;
        unsigned char popped;
        const char *name;
    } rows[] = {
        {OP_BINPERSID, 0, 1, "BINPERSID"}, {OP_NEWOBJ, 0, 2, "NEWOBJ"},
        {OP_NEWOBJ_EX, 0, 3, "NEWOBJ_EX"}, {OP_EXT1, 1, 0, "EXT1"},
        {OP_EXT2, 2, 0, "EXT2"},           {OP_EXT4, 4, 0, "EXT4"},
        {OP_BUILD, 0, 2, "BUILD"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].opcode != opcode)
            continue;
        if (pickle_left(machine) < rows[i].argument_len)
            return STEP_CUT;
        machine->at += rows[i].argument_len;
        return push_object(machine, rows[i].popped, rows[i].name);
    }
    struct slice line;
    size_t count;
    enum pickle_step step;
    switch (opcode) {
    case OP_REDUCE:
        return reduce(machine);
    case OP_GLOBAL:
    case OP_INST:
        return global(machine, opcode == OP_INST);
    case OP_STACK_GLOBAL:
        return stack_global(machine);
    case OP_PERSID:
        step = pickle_read_line(machine, &line);
        return step == STEP_ON ? push_object(machine, 0, "PERSID") : step;
    case OP_OBJ:
        step = pickle_take_mark(machine, &count);
        if (step == STEP_ON && count == 0)
            return pickle_underflow(machine);
        return step == STEP_ON ? push_object(machine, count, "OBJ") : step;
    case OP_POP:
    case OP_POP_MARK:
    case OP_DUP:
        return pickle_bad(
            machine, "POP, POP_MARK or DUP, which Python's pickler never writes here");
    case OP_NEXT_BUFFER:
    case OP_READONLY_BUFFER:
        return pickle_bad(machine, "a buffer outside of the message");
    default:
        return pickle_bad(machine, "not an opcode");
    }
}
