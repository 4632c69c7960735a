/*
 * Redis' protocol towards pods: requests in, replies and pushes out, RESP2 and RESP3.
 *
 *     bytes ─▶ resp_parse ─▶ argv (slices into the bytes)          resp_write_* ─▶ evbuffer
 *
 *  The parser is given the same unconsumed bytes again with more behind them, and remembers how far it
 *  understood them: a large bulk that comes in pieces is not read twice. Nothing is allocated but the
 *  argv table, which grows with the arguments that are there, not with the count that the wire claims.
 *
 *  A request over the limits is skipped as it comes, so that its client gets an answer rather than a reset.
 *
 *     input:  *2 CRLF $9 CRLF SUBSCRIBE CRLF $7 CRLF soc…
 *             └─ understood, kept as places ────────┘ └ wanted: 7 + 2 more bytes
 */
#pragma once

#include "shared/parse.h"
#include "shared/slice.h"

#include <stdint.h>

struct evbuffer;

#define RESP_MULTIBULK_MAX     (1024 * 1024)
#define RESP_INLINE_MAX        (64 * 1024)
#define RESP_UNAUTHED_ARGS_MAX 10
#define RESP_UNAUTHED_BULK_MAX 16384

/* What an argument costs beside its bytes, for the limit of a whole request. */
#define RESP_ARGUMENT_COST 32

/* Redis' proto-max-bulk-len: more than this is not even skipped. */
#define RESP_SKIP_MAX (512 * 1024 * 1024)

/* Is a request longer than a limit? */
enum resp_over {
    RESP_FITS,
    RESP_OVER_BULK,    /* an argument */
    RESP_OVER_REQUEST, /* all of them together */
};

struct resp_place;

/* One per client; embedded there. Fields are the parser's own but for the three that say so. */
struct resp_parser {
    size_t bulk_max;    /* the caller's: limits.payload */
    size_t request_max; /* the caller's: limits.request */
    bool
        is_unauthenticated; /* the caller's: hold it to 10 arguments of 16 KiB, as Redis does */

    bool in_multibulk;
    uint32_t args_missing;
    bool has_bulk_len;
    size_t bulk_len;
    size_t understood; /* bytes of the input that need no second look */
    size_t searched;   /* bytes in which no line end was found */
    size_t wanted;
    size_t
        cost; /* of the request so far: its arguments' bytes, and RESP_ARGUMENT_COST each */
    enum resp_over over;
    size_t over_len;
    size_t skip_left; /* bytes of an argument that are skipped when they come */

    struct resp_place *places;
    struct slice *argv;
    size_t argc;
    size_t capacity;
    char *inline_text; /* unquoted arguments of an inline command */
    char error[64];
};

struct resp_request {
    size_t argc;              /* 0: an empty line or array; Redis ignores it */
    const struct slice *argv; /* borrowed: until the next resp_parse or the bytes go */
    size_t consumed;          /* bytes of the input that the request took */
    enum resp_over over;      /* not RESP_FITS: it was skipped, and argc is 0 */
    size_t over_len;          /* the argument's length, or the request's cost */
};

void resp_parser_init(struct resp_parser *parser, size_t bulk_max, size_t request_max);
void resp_parser_cleanup(struct resp_parser *parser);

/* `input` begins with the first byte after the last request that was DONE, and may lie at another
 * address than last time.
 *   DONE  *request is set; the caller drops request->consumed bytes
 *   MORE  the caller drops request->consumed bytes (of a request that is skipped; else 0), and calls again when
 *         resp_wanted bytes are there
 *   BAD   close after sending "-" resp_error CRLF: Redis' own text, "ERR Protocol error: …" */
enum parse_result resp_parse(struct resp_parser *parser, struct slice input,
                             struct resp_request *request) MUST_CHECK;

/* After MORE: no progress is possible before the input is this long. */
static inline size_t resp_wanted(const struct resp_parser *parser)
{
    return parser->wanted;
}

static inline const char *resp_error(const struct resp_parser *parser)
{
    return parser->error;
}

/* Replies. `protocol` is 2 or 3. Line breaks in simple strings and errors become spaces. */
void resp_write_simple(struct evbuffer *out, const char *text);
void resp_write_error(struct evbuffer *out,
                      const char *text); /* "ERR …", without the '-' */
void resp_write_error_format(struct evbuffer *out, const char *format, ...)
    PRINTF_LIKE(2, 3);
void resp_write_integer(struct evbuffer *out, int64_t number);
void resp_write_bulk(struct evbuffer *out, struct slice bytes);
void resp_write_null(struct evbuffer *out, unsigned protocol);             /* $-1, or _ */
void resp_write_bool(struct evbuffer *out, unsigned protocol, bool value); /* :1, or #t */
void resp_write_array(struct evbuffer *out, size_t count);
void resp_write_map(struct evbuffer *out, unsigned protocol,
                    size_t pairs); /* * of 2n, or % */
void resp_write_set(struct evbuffer *out, unsigned protocol, size_t count);  /* *, or ~ */
void resp_write_push(struct evbuffer *out, unsigned protocol, size_t count); /* *, or > */
void resp_write_verbatim(struct evbuffer *out, unsigned protocol,            /* $ or = */
                         struct slice text);

/* Pushes to subscribers. `kind` is "subscribe", "unsubscribe", "psubscribe", "punsubscribe",
 * "ssubscribe" or "sunsubscribe"; a channel whose data is NULL is written as null. */
void resp_write_subscribed(struct evbuffer *out, unsigned protocol, const char *kind,
                           struct slice channel, size_t count);

void resp_write_line_end(struct evbuffer *out);

/* "$", the length, a line end, into `room` (32 bytes are enough); returns how many bytes that were. */
size_t resp_put_bulk_head(char *room, size_t len);

/* message and pmessage up to the payload, into `room`, which holds RESP_HEAD_ROOM and the lengths of pattern
 * and channel; returns the length. The payload and a line end follow. */
#define RESP_HEAD_ROOM ((size_t)128)
size_t resp_put_message_head(char *room, unsigned protocol, struct slice channel,
                             size_t payload_len);
size_t resp_put_pmessage_head(char *room, unsigned protocol, struct slice pattern,
                              struct slice channel, size_t payload_len);
