/*
 * Reads Python pickles, protocols 0 to 5, without executing anything: a stack of types and places and a
 * memo, as the unpickler has them, but containers are one opaque entry and only the outermost dict is
 * looked into. What this accepts as plain, Python's unpickler reads the same; what it cannot prove
 * plain it flags or refuses.
 */
#pragma once

#include "broker/scan_scratch.h"
#include "broker/scanned.h"
#include "shared/parse.h"

struct pickle_notes {
    const char *error; /* PARSE_BAD: why; static text */
    size_t offset;     /* of the opcode at which the scan ended or which carries code */

    /* False: an opcode that makes Python look up or call something was met; `code` names the first. */
    bool is_plain;
    const char *code;
    size_t code_offset;

    /* The only such opcodes build bytes or a bytearray in the one form in which Python's pickler writes
     * them below protocol 5 (bytearray) and 3 (bytes); is_plain stays true. */
    bool has_byte_forms;
    const char *byte_form;
    size_t byte_form_offset;
};

/* Scans all of `payload`: one pickle that ends with the payload's last byte.
 *   DONE  whole: *scanned and *notes are set (notes->is_plain may be false)
 *   MORE  the payload ends before the pickle does
 *   BAD   not a pickle, or one that Python's pickler never writes (bytes behind its end, leftovers on
 *         the stack, POP, DUP, GET of nothing), or past a bound: `depth_max` open marks or nested
 *         tuples, 65,536 stack entries, memo indices beyond the payload's length.
 * Slices in *scanned point into the payload or the scratch. Does not reset the scratch. */
enum parse_result pickle_scan(struct slice payload, unsigned depth_max,
                              struct scan_scratch *scratch, struct scanned *scanned,
                              struct pickle_notes *notes) MUST_CHECK;

struct entry;
struct pickle_tree;

/* The same scan, which keeps the whole content: *root is the pickled value, its containers' items are in
 * *tree, both until the scratch's next reset or scan. Also BAD: more values than a tree keeps. */
enum parse_result pickle_scan_tree(struct slice payload, unsigned depth_max,
                                   struct scan_scratch *scratch, struct pickle_tree *tree,
                                   struct entry *root,
                                   struct pickle_notes *notes) MUST_CHECK;

/* True when Python's unpickler would do anything at all with a payload that begins with this byte:
 * false means that it fails at once, so such a payload is harmless to it. */
bool pickle_may_begin_with(unsigned char byte);
