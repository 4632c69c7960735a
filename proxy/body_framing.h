/*
 * Which bytes of a connection belong to this message, RFC 9112 6 and 7.
 *
 *                       ┌────────────────────────────── LENGTH ──────────┐
 *     body_framing_start┤                                                ├─▶ complete
 *                       ├── CHUNKED: size [;ext] CRLF ─▶ data ─▶ CRLF ─┐ │
 *                       │         ▲──────────────────────────────────────┘ │
 *                       │         └─ size 0 ─▶ trailer lines ─▶ empty line ─┘
 *                       └── UNTIL_CLOSE: everything, until the caller sees the end
 *
 * The caller owns the bytes and feeds them; it gets back the ranges that are payload.
 * Nothing is copied. Chunk extensions and trailers are checked, bounded and skipped,
 * never shown.
 */
#pragma once

#include "shared/base.h"
#include "shared/parse.h"
#include "shared/slice.h"

#include <stdbool.h>

enum body_kind {
    BODY_NONE,
    BODY_LENGTH,
    BODY_CHUNKED,
    BODY_UNTIL_CLOSE,
};

enum {
    BODY_CHUNK_DIGITS_MAX = 16,     /* of a chunk size, leading zeros included */
    BODY_EXTENSION_BYTES_MAX = 256, /* behind one chunk size */
    BODY_TRAILER_BYTES_MAX = 16384, /* all lines together */
    BODY_TRAILER_LINES_MAX = 128,
    BODY_FRAMING_MAX =
        16448, /* where bodies are buffered whole: 4,096 chunks of a byte, or any of 5 */
    BODY_CHUNK_LINE_MAX = 18,
};

/* Why a body was refused. */
enum body_fault {
    BODY_FAULT_NONE,
    BODY_FAULT_TOO_LARGE,        /* more payload than allowed: 413 */
    BODY_FAULT_TOO_MUCH_FRAMING, /* 400, as all that follow */
    BODY_FAULT_CHUNK_SIZE,
    BODY_FAULT_CHUNK_EXTENSION,
    BODY_FAULT_CHUNK_END,
    BODY_FAULT_TRAILER,
    BODY_FAULT_TRUNCATED,
};

/* A plain value of 32 bytes, embedded where a body is in progress. */
struct body_framing {
    uint64_t left;   /* payload bytes until the end of the length or of this chunk */
    uint64_t budget; /* payload bytes still allowed in all */
    uint32_t framing_left; /* bytes of chunk lines and ends still allowed */
    uint16_t line_left;    /* bytes still allowed in this extension or these trailers */
    uint16_t lines_left;   /* trailer lines still allowed */
    uint8_t kind;          /* enum body_kind */
    uint8_t state;
    uint8_t digits; /* of this chunk size so far */
    uint8_t fault;  /* enum body_fault */
};

/* Begins a body of `kind`; `length` counts for BODY_LENGTH only. More than `max_bytes`
 * of payload are refused (0: no limit), so are more bytes of chunk lines and chunk ends
 * than there is payload and `max_framing` (0: no limit). A length above max_bytes is PARSE_BAD at once, before any byte was fed; no
 * body and a length of 0 are PARSE_DONE at once. */
enum parse_result body_framing_start(struct body_framing *framing, enum body_kind kind,
                                     uint64_t length, uint64_t max_bytes,
                                     uint32_t max_framing) MUST_CHECK;

/* Takes bytes from the front of `data`: *consumed of them belong to this message, and
 * *payload, a part of those (empty when they were framing only), is content. At most
 * one range comes back in a call:
 *
 * PARSE_DONE  the body ended with the last consumed byte; what follows is another
 * message PARSE_MORE  not ended; call again with the rest while *consumed < data.len
 * PARSE_BAD   see body_framing_fault(); payload is empty
 *
 * Takes at least one byte of a non-empty `data` unless the body is complete or bad. */
enum parse_result body_framing_next(struct body_framing *framing, struct slice data,
                                    size_t *consumed, struct slice *payload) MUST_CHECK;

/* The peer ended the connection: PARSE_DONE when that is (or was already) the end of
 * the body, else PARSE_BAD with BODY_FAULT_TRUNCATED. */
enum parse_result body_framing_end(struct body_framing *framing) MUST_CHECK;

bool body_framing_is_complete(const struct body_framing *framing);
enum body_fault body_framing_fault(const struct body_framing *framing);

/* The status for a client and a constant sentence; 0 and "" for BODY_FAULT_NONE. */
unsigned body_fault_status(enum body_fault fault);
const char *body_fault_text(enum body_fault fault);

/* Writes "<hex>\r\n", the line before a chunk of `size` > 0 bytes; gives back its
 * length. Behind the chunk's bytes the caller writes CHUNK_END, behind the last chunk
 * CHUNK_LAST. */
size_t chunk_line_write(char line[BODY_CHUNK_LINE_MAX], uint64_t size);

#define CHUNK_END  "\r\n"
#define CHUNK_LAST "0\r\n\r\n"
