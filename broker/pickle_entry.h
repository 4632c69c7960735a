/*
 * One entry of the pickle stack and memo: a type and a place in the payload, 16 bytes. What an entry
 * stands for is read from the payload only when somebody asks for it (pickle_entry_value).
 */
#pragma once

#include "broker/scan_scratch.h"
#include "broker/scanned.h"

enum entry_kind {
    ENTRY_UNSET, /* memo: nothing was put here */
    ENTRY_NONE,
    ENTRY_TRUE,
    ENTRY_FALSE,
    ENTRY_INTEGER,  /* offset of its opcode */
    ENTRY_FLOAT,    /* offset of its opcode */
    ENTRY_TEXT,     /* offset, len of UTF-8 */
    ENTRY_RAW_TEXT, /* offset, len of raw-unicode-escape (UNICODE, protocol 0) */
    ENTRY_BYTES,    /* offset, len */
    /* made by a call: content not told, but with a tree, where argument is 1 the only item of tuple len */
    ENTRY_BYTEARRAY,
    ENTRY_NARROWED, /* offset, len of UTF-8 that latin-1 encodes to bytes (protocol 2) */
    ENTRY_RAW_NARROWED, /* the same of raw-unicode-escape (protocol 0) */
    /* containers: the offset of the opcode that made it is its identity; len is its number in the tree */
    ENTRY_LIST,
    ENTRY_TUPLE,
    ENTRY_DICT,
    ENTRY_SET,
    ENTRY_FROZENSET,
    ENTRY_CLASS,  /* one of the harmless ones; len is an enum entry_class */
    ENTRY_OBJECT, /* anything that code may have made */
};

enum entry_class { CLASS_BYTES, CLASS_BYTEARRAY, CLASS_ENCODE };

enum entry_flag {
    ENTRY_UNHASHABLE = 1, /* not a dict key; a tuple with such an item has it too */
    ENTRY_IS_CLASS = 2,
    /* tuples that are the arguments of a harmless call: (), (bytes,), (text, 'latin1') */
    ENTRY_ARGS_NONE = 4,
    ENTRY_ARGS_BYTES = 8,
    ENTRY_ARGS_LATIN1 = 16,
    ENTRY_ARGS_RAW = 32, /* the text is raw-unicode-escape */
};

struct entry {
    uint32_t offset;
    uint32_t len;
    uint32_t
        argument; /* tuple with ARGS_LATIN1: offset of the text, whose length is len */
    uint16_t depth;
    uint8_t kind;
    uint8_t flags;
};

/* An entry that was written a moment ago, as two words: that is how it was written, and one load of all
 * sixteen bytes would wait until both have left the processor's store buffer. */
static inline void entry_copy(struct entry *to, const struct entry *from)
{
    uint64_t first, second;
    memcpy(&first, from, sizeof(first));
    memcpy(&second, (const char *)from + sizeof(first), sizeof(second));
    __asm__("" : "+r"(first), "+r"(second)); /* no code; keeps them two */
    memcpy(to, &first, sizeof(first));
    memcpy((char *)to + sizeof(first), &second, sizeof(second));
}

/* The value of an entry: numbers are read, texts decoded into the scratch where they need it. A text for
 * which there is no room in the scratch becomes VALUE_OTHER. The len of lists and tuples is not told. */
struct scanned_value pickle_entry_value(struct slice payload, const struct entry *entry,
                                        struct scan_scratch *scratch);

/* The type alone: nothing is decoded. */
enum value_type pickle_entry_type(struct slice payload, const struct entry *entry);

/* The grammar that Python's pickler writes on the lines of INT, LONG and FLOAT; each is a part of what
 * the unpickler reads. `line` is without its line feed. */
bool pickle_integer_is_valid(struct slice line, bool is_long);
bool pickle_float_is_valid(struct slice line);

/* Can raw-unicode-escape be decoded? *is_narrow: every code point is below 256. */
bool pickle_raw_text_is_valid(struct slice raw, bool *is_narrow);

/* Is every code point of this valid UTF-8 below 256? */
bool pickle_text_is_narrow(struct slice text);
