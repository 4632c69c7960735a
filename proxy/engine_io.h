/*
 * What a request and a handshake say in Engine.IO's own words.
 *
 *     /socket.io/?EIO=4&sid=…   ──▶ engine_path_match, engine_query_parse
 *     0{"sid":"…",…}            ──▶ engine_open_scan ──▶ engine_open_write     EIO=4
 *     97:0{…}, ___eio[0]("…")   ──▶ engine_open_learn    EIO=3 and JSONP: only read
 *
 * A sid is rewritten only when that is provably right: the open packet comes first, is
 * one JSON object whose every byte was understood, and has exactly one plain sid.
 * Everything else is left alone and the reason is told.
 */
#pragma once

#include "proxy/http_head.h"
#include "shared/base.h"
#include "shared/parse.h"
#include "shared/slice.h"

#include <stdbool.h>

enum {
    ENGINE_SID_MAX = 256,          /* in a request, decoded, with all tags */
    ENGINE_UPSTREAM_SID_MAX = 128, /* as an endpoint gives it */
    ENGINE_HANDSHAKE_MAX = 16384,  /* longer handshake bodies are not scanned */
};

enum engine_transport {
    ENGINE_TRANSPORT_ABSENT,
    ENGINE_TRANSPORT_POLLING,
    ENGINE_TRANSPORT_WEBSOCKET,
    ENGINE_TRANSPORT_OTHER,
};

enum engine_version {
    ENGINE_VERSION_ABSENT,
    ENGINE_VERSION_3,
    ENGINE_VERSION_4,
    ENGINE_VERSION_OTHER,
};

struct engine_query {
    enum engine_version version;
    enum engine_transport transport;
    bool is_jsonp;  /* j= is there */
    bool is_base64; /* b64= is there */
    /* decoded, [A-Za-z0-9_.~-]; empty: none. Points into the query or at sid_decoded */
    struct slice sid;
    struct slice sid_raw;             /* its bytes in the query */
    struct http_refusal refusal;      /* after PARSE_BAD */
    char sid_decoded[ENGINE_SID_MAX]; /* used when the sid was percent-encoded */
};

/* Reads the raw query once; names and values are decoded. PARSE_BAD (400): EIO,
 * transport, sid or j twice, a sid that is too long or has other bytes. Do not copy
 * *facts while facts->sid is used. */
enum parse_result engine_query_parse(struct slice query,
                                     struct engine_query *facts) MUST_CHECK;

/* The last `count` characters of the decoded sid as they stand in the query, for
 * request_edits.query_cut. */
struct slice engine_sid_tail(const struct engine_query *facts, size_t count);

/* Where a path lies that matched: canonical (one of `paths`) and the raw rest behind
 * it, to be written in this order. */
struct engine_path {
    struct slice canonical; /* one of the paths */
    struct slice rest;      /* raw bytes behind it; empty for the path itself */
};

/* True when the decoded path begins with one of `paths` (each ends with '/'). */
bool engine_path_match(struct slice raw_path, const struct slice *paths, size_t count,
                       struct engine_path *match) MUST_CHECK;

/* The outcome of reading a handshake body; the words are metric labels. */
enum engine_open_verdict {
    ENGINE_OPEN_OK,
    ENGINE_OPEN_TOO_LONG, /* body above ENGINE_HANDSHAKE_MAX */
    ENGINE_OPEN_NOT_OPEN, /* does not begin with an open packet */
    ENGINE_OPEN_BAD_JSON, /* not understood to its end */
    ENGINE_OPEN_NO_SID,   /* none, or two */
    ENGINE_OPEN_SID_FORM, /* not [A-Za-z0-9_-]{1,128} */
    ENGINE_OPEN_VERDICTS,
};

struct engine_open {
    struct slice sid; /* inside the body (or the scratch of engine_open_learn) */
    /* bytes to leave out so that "webtransport" is not offered; empty: not there */
    struct slice webtransport;
    uint32_t ping_interval; /* milliseconds; 0: not told */
    uint32_t ping_timeout;
};

/* Reads the EIO=4 polling body `0{…}`, with later packets behind 0x1e left alone. */
enum engine_open_verdict engine_open_scan(struct slice body,
                                          struct engine_open *open) MUST_CHECK;

/* Writes `body` to `out` with "." and `tag` behind the sid and without webtransport;
 * every other byte as it was. Gives back the length, 0 when `size` does not suffice;
 * body.len + tag.len + 1 always does. `tag` may be empty: then only webtransport goes. */
size_t engine_open_write(struct slice body, const struct engine_open *open,
                         struct slice tag, char *out, size_t size) MUST_CHECK;

/* Reads sid and intervals from any other form: EIO=3 text and binary payloads, both
 * inside JSONP, EIO=4 inside JSONP, or the open packet alone (`0{…}`, the first frame
 * of a WebSocket). `scratch` (ENGINE_HANDSHAKE_MAX bytes) holds the unescaped JSONP
 * text; open->sid points into it or into the body. */
enum engine_open_verdict engine_open_learn(struct slice body,
                                           char scratch[ENGINE_HANDSHAKE_MAX],
                                           struct engine_open *open) MUST_CHECK;

/* "ok", "too_long", "not_open", "bad_json", "no_sid", "sid_form". */
const char *engine_open_verdict_word(enum engine_open_verdict verdict);

/* True for the body with which Node or Python tell that they do not know the sid (on a
 * status 400). */
bool engine_is_session_unknown(struct slice body);

/* The sid alone: 1..ENGINE_SID_MAX bytes of [A-Za-z0-9_.~-]. */
bool engine_sid_is_valid(struct slice sid);

/* What a client gets when its session cannot be found (rule 4 of the contract): status
 * 400. */
#define ENGINE_SESSION_UNKNOWN_BODY "{\"code\":1,\"message\":\"Session ID unknown\"}"
