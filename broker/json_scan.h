/*
 * Reads JSON as Python's json.loads does: NaN, Infinity and -Infinity, integers of up to 4,300 digits,
 * the last of equal keys wins, lone surrogates by escape or raw, control characters in strings refused.
 * UTF-8 only: a byte order mark or UTF-16 is refused (json.loads would detect it).
 */
#pragma once

#include "broker/scan_scratch.h"
#include "broker/scanned.h"
#include "shared/parse.h"

struct json_notes {
    const char *error; /* PARSE_BAD, PARSE_MORE: why; static text */
    size_t offset;     /* where */
};

/* Scans all of `payload`: one JSON value, white space around it, nothing else.
 *   DONE  whole: *scanned is set
 *   MORE  the payload ends before the value does
 *   BAD   no JSON that Python reads, or nested deeper than depth_max
 * Slices in *scanned point into the payload or the scratch. Does not reset the scratch. */
enum parse_result json_scan(struct slice payload, unsigned depth_max,
                            struct scan_scratch *scratch, struct scanned *scanned,
                            struct json_notes *notes) MUST_CHECK;

/* Writes what a text of proved JSON, without its quotes, stands for: never longer than it. */
size_t json_text_decode(struct slice raw, char *bytes);
