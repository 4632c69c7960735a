/*
 * The open packet: what an endpoint says when a session begins.
 *
 *     0{"sid":"…",…}           ──▶ engine_open_scan ──▶ engine_open_write    EIO=4
 *     97:0{…}, ___eio[0]("…")  ──▶ engine_open_learn   EIO=3 and JSONP: only read
 *
 * A sid is rewritten only when that is provably right: the open packet comes first, is
 * one JSON object whose every byte was understood, and has exactly one plain sid.
 * Everything else is left alone and the reason is told.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>

enum {
    ENGINE_UPSTREAM_SID_MAX = 128, /* as an endpoint gives it */
    ENGINE_HANDSHAKE_MAX = 16384,  /* longer handshake bodies are not scanned */
};

/* The outcome of reading a handshake body; the words are metric labels. */
enum engine_open_verdict {
    ENGINE_OPEN_OK,
    ENGINE_OPEN_TOO_LONG, /* body above ENGINE_HANDSHAKE_MAX */
    ENGINE_OPEN_NOT_OPEN, /* does not begin with an open packet */
    ENGINE_OPEN_BAD_JSON, /* not understood to its end */
    ENGINE_OPEN_NO_SID,   /* none, or two */
    ENGINE_OPEN_SID_FORM, /* not [A-Za-z0-9_.~-]{1,128} */
    ENGINE_OPEN_VERDICTS,
};

struct engine_open {
    struct slice sid; /* inside the body (or the scratch of engine_open_learn) */
    /* bytes to leave out so that "webtransport" is not offered; empty: not there */
    struct slice webtransport;
    uint32_t ping_interval; /* milliseconds; 0: not told */
    uint32_t ping_timeout;
};

/* Reads the EIO=4 polling body `0{…}`, with later packets behind 0x1e left alone. The sid may bear the tag
 * of another proxy behind us. */
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
