#include "broker/pickle_machine.h"

void pickle_carries_code(struct pickle_machine *machine, const char *name)
{
    struct pickle_notes *notes = machine->notes;
    if (!notes->is_plain)
        return;
    notes->is_plain = false;
    notes->code = name;
    notes->code_offset = machine->opcode;
}

void pickle_carries_bytes(struct pickle_machine *machine, const char *name)
{
    struct pickle_notes *notes = machine->notes;
    if (notes->has_byte_forms)
        return;
    notes->has_byte_forms = true;
    notes->byte_form = name;
    notes->byte_form_offset = machine->opcode;
}

enum pickle_step pickle_grow_stack(struct pickle_machine *machine)
{
    if (machine->top >= PICKLE_STACK_MAX)
        return pickle_bad(machine, "more than 65,536 values on the stack");
    scan_scratch_table(machine->scratch, SCAN_TABLE_STACK,
                       (machine->capacity + 1) * sizeof(struct entry));
    machine->stack = scan_scratch_table(machine->scratch, SCAN_TABLE_STACK, 0);
    machine->capacity = scan_scratch_table_size(machine->scratch, SCAN_TABLE_STACK) /
                        sizeof(struct entry);
    return STEP_ON;
}

/* ---- containers ---- */

/* Items with these flags (OR-ed), the deepest of them `deepest`, go into a container. A class that ends up as
 * a value is no plain data. */
static enum pickle_step note_items(struct pickle_machine *machine, unsigned flags,
                                   unsigned deepest, uint16_t *depth)
{
    if (deepest + 1 > *depth)
        *depth = (uint16_t)(deepest + 1);
    if (deepest >= machine->depth_max)
        return pickle_bad(machine, "nested too deep");
    if ((flags & ENTRY_IS_CLASS) != 0)
        pickle_carries_code(machine, "GLOBAL");
    return STEP_ON;
}

/* Looks at `count` values that go into a container: their flags OR-ed, the container's depth. */
static enum pickle_step look_at(struct pickle_machine *machine,
                                const struct entry *entries, size_t count, uint8_t *flags,
                                uint16_t *depth)
{
    unsigned deepest = 0;
    unsigned all = 0;
    for (size_t i = 0; i < count; i++) {
        all |= entries[i].flags;
        if (entries[i].depth > deepest)
            deepest = entries[i].depth;
    }
    *flags = (uint8_t)all;
    return note_items(machine, all, deepest, depth);
}

static bool is_kind(const struct entry *entry, enum entry_kind kind)
{
    /* an object that code made may be anything; the pickle is flagged already */
    return entry->kind == kind || entry->kind == ENTRY_OBJECT;
}

static void collect(struct pickle_machine *machine, const struct entry *entries,
                    size_t count)
{
    if (machine->item_count + count > PICKLE_ROOM_ITEMS_MAX)
        count = PICKLE_ROOM_ITEMS_MAX + 1 -
                machine->item_count; /* the caller sees that it is too many */
    size_t size = (machine->item_count + count) * sizeof(struct entry);
    machine->items = scan_scratch_table(machine->scratch, SCAN_TABLE_ITEMS, size);
    if (count > 0)
        memcpy(machine->items + machine->item_count, entries,
               count * sizeof(struct entry));
    machine->item_count += count;
}

/* With a tree, a list, dict or tuple has its number there as len. A tuple that may be the arguments of
 * _codecs.encode has none: its len is its text's. */
static enum pickle_step keep_container(struct pickle_machine *machine,
                                       struct entry *container)
{
    if (machine->tree == NULL || pickle_tree_open(machine->tree, &container->len))
        return STEP_ON;
    return pickle_bad(machine, "more containers than are kept");
}

static enum pickle_step keep_items(struct pickle_machine *machine,
                                   const struct entry *container,
                                   const struct entry *items, size_t count)
{
    if (machine->tree == NULL || container->kind == ENTRY_OBJECT ||
        pickle_tree_add(machine->tree, container->len, items, count))
        return STEP_ON;
    return pickle_bad(machine, "more values than are kept");
}

static enum pickle_step add_items(struct pickle_machine *machine, struct entry *list,
                                  const struct entry *items, size_t count)
{
    uint8_t flags;
    enum pickle_step step = look_at(machine, items, count, &flags, &list->depth);
    if (step == STEP_ON)
        step = keep_items(machine, list, items, count);
    if (list->offset == machine->watched_room)
        collect(machine, items, count);
    return step;
}

static enum scanned_key find_key(struct pickle_machine *machine, const struct entry *key)
{
    if (key->kind == ENTRY_TEXT)
        return scanned_key_find(pickle_entry_text(machine, key));
    if (key->kind != ENTRY_RAW_TEXT || key->len > 10 * sizeof("namespace"))
        return KEY_COUNT;
    struct scanned_value text =
        pickle_entry_value(machine->payload, key, machine->scratch);
    return text.type == VALUE_TEXT ? scanned_key_find(text.text) : KEY_COUNT;
}

/* Puts `count` keys and values, in turn, into a dict. */
static enum pickle_step add_pairs(struct pickle_machine *machine, struct entry *dict,
                                  const struct entry *pairs, size_t count)
{
    if (count % 2 != 0)
        return pickle_bad(machine, "odd number of keys and values");
    unsigned key_flags = 0;
    unsigned value_flags = 0;
    unsigned deepest = 0;
    for (size_t i = 0; i < count; i += 2) {
        key_flags |= pairs[i].flags;
        value_flags |= pairs[i + 1].flags;
        unsigned depth =
            pairs[i].depth > pairs[i + 1].depth ? pairs[i].depth : pairs[i + 1].depth;
        if (depth > deepest)
            deepest = depth;
    }
    enum pickle_step step =
        note_items(machine, key_flags | value_flags, deepest, &dict->depth);
    if (step != STEP_ON)
        return step;
    if ((key_flags & ENTRY_UNHASHABLE) != 0)
        return pickle_bad(machine, "unhashable key");
    step = keep_items(machine, dict, pairs, count);
    if (step != STEP_ON)
        return step;
    if (dict->offset != machine->watched_dict)
        return STEP_ON;
    for (size_t i = 0; i < count; i += 2) {
        enum scanned_key key = find_key(machine, &pairs[i]);
        if (key != KEY_COUNT)
            machine->keys[key] = pairs[i + 1];
    }
    return STEP_ON;
}

static bool is_latin1(const struct pickle_machine *machine, const struct entry *entry)
{
    return (entry->kind == ENTRY_TEXT || entry->kind == ENTRY_RAW_TEXT) &&
           slice_equals(pickle_entry_text(machine, entry), SLICE("latin1"));
}

enum pickle_step pickle_make_tuple(struct pickle_machine *machine, size_t count)
{
    const struct entry *items = pickle_from_top(machine, count);
    struct entry tuple = {.offset = (uint32_t)machine->opcode, .kind = ENTRY_TUPLE};
    uint8_t flags;
    enum pickle_step step = look_at(machine, items, count, &flags, &tuple.depth);
    if (step != STEP_ON)
        return step;
    tuple.flags = flags & ENTRY_UNHASHABLE;
    if (count == 0)
        tuple.flags |= ENTRY_ARGS_NONE;
    if (count == 1 && (items[0].kind == ENTRY_BYTES || items[0].kind == ENTRY_NARROWED ||
                       items[0].kind == ENTRY_RAW_NARROWED))
        tuple.flags |= ENTRY_ARGS_BYTES;
    if (count == 2 && (items[0].kind == ENTRY_TEXT || items[0].kind == ENTRY_RAW_TEXT) &&
        is_latin1(machine, &items[1])) {
        tuple.flags |= ENTRY_ARGS_LATIN1;
        if (items[0].kind == ENTRY_RAW_TEXT)
            tuple.flags |= ENTRY_ARGS_RAW;
        tuple.argument = items[0].offset;
        tuple.len = items[0].len;
    }
    if ((tuple.flags & ENTRY_ARGS_LATIN1) == 0) {
        step = keep_container(machine, &tuple);
        if (step == STEP_ON)
            step = keep_items(machine, &tuple, items, count);
        if (step != STEP_ON)
            return step;
    }
    if (machine->watched_room == tuple.offset)
        collect(machine, items, count);
    machine->top -= count;
    return pickle_push(machine, tuple);
}

enum pickle_step pickle_make_dict(struct pickle_machine *machine, size_t count)
{
    struct entry dict = {.offset = (uint32_t)machine->opcode,
                         .kind = ENTRY_DICT,
                         .flags = ENTRY_UNHASHABLE,
                         .depth = 1};
    if (machine->watched_dict == PICKLE_NOT_WATCHED && machine->top == count)
        machine->watched_dict = dict.offset;
    enum pickle_step step = keep_container(machine, &dict);
    if (step == STEP_ON)
        step = add_pairs(machine, &dict, pickle_from_top(machine, count), count);
    if (step != STEP_ON)
        return step;
    machine->top -= count;
    return pickle_push(machine, dict);
}

enum pickle_step pickle_make_list(struct pickle_machine *machine, size_t count)
{
    struct entry list = {.offset = (uint32_t)machine->opcode,
                         .kind = ENTRY_LIST,
                         .flags = ENTRY_UNHASHABLE,
                         .depth = 1};
    enum pickle_step step = keep_container(machine, &list);
    if (step == STEP_ON)
        step = add_items(machine, &list, pickle_from_top(machine, count), count);
    if (step != STEP_ON)
        return step;
    machine->top -= count;
    return pickle_push(machine, list);
}

enum pickle_step pickle_make_frozenset(struct pickle_machine *machine, size_t count)
{
    struct entry set = {.offset = (uint32_t)machine->opcode, .kind = ENTRY_FROZENSET};
    uint8_t flags;
    enum pickle_step step =
        look_at(machine, pickle_from_top(machine, count), count, &flags, &set.depth);
    if (step != STEP_ON)
        return step;
    if ((flags & ENTRY_UNHASHABLE) != 0)
        return pickle_bad(machine, "unhashable item");
    machine->top -= count;
    return pickle_push(machine, set);
}

enum pickle_step pickle_fill(struct pickle_machine *machine, enum entry_kind kind,
                             size_t count)
{
    if (pickle_available(machine) < count + 1)
        return pickle_underflow(machine);
    struct entry *container = pickle_from_top(machine, count + 1);
    const struct entry *items = container + 1;
    if (!is_kind(container, kind))
        return pickle_bad(machine, "values put into something that cannot take them");
    enum pickle_step step;
    if (kind == ENTRY_LIST) {
        step = add_items(machine, container, items, count);
    } else if (kind == ENTRY_DICT) {
        step = add_pairs(machine, container, items, count);
    } else {
        uint8_t flags;
        step = look_at(machine, items, count, &flags, &container->depth);
        if (step == STEP_ON && (flags & ENTRY_UNHASHABLE) != 0)
            return pickle_bad(machine, "unhashable item");
    }
    machine->top -= count;
    return step;
}

/* ---- memo ---- */

enum pickle_step pickle_grow_memo(struct pickle_machine *machine, uint64_t index)
{
    /* the pickler numbers from 0, and each number costs it at least one byte */
    if (index >= min_size(machine->len, PICKLE_MEMO_MAX))
        return pickle_bad(machine, "memo index past its bound");
    if (index >= machine->memo_capacity) {
        machine->memo = scan_scratch_table(machine->scratch, SCAN_TABLE_MEMO,
                                           ((size_t)index + 1) * sizeof(struct entry));
        machine->memo_capacity =
            scan_scratch_table_size(machine->scratch, SCAN_TABLE_MEMO) /
            sizeof(struct entry);
    }
    pickle_bound_memo(machine);
    while (machine->memo_len <= index)
        machine->memo[machine->memo_len++].kind = ENTRY_UNSET;
    return STEP_ON;
}
