/*
 * What a request says about itself in Engine.IO's own words: is its path one of ours, and
 * which version, transport and session does its query name.
 *
 *     /socket.io/?EIO=4&transport=polling&sid=…
 *     └─ engine_path_match ─┘  └─ engine_query_parse
 *
 * Endpoints read path and query decoded, so we do; what two of them would read
 * differently (a parameter twice) is refused.
 */
#pragma once

#include "proxy/http_head.h"
#include "shared/base.h"
#include "shared/parse.h"
#include "shared/slice.h"

#include <stdbool.h>

enum {
    ENGINE_SID_MAX = 256, /* in a request, decoded, with all tags */
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
 * transport or sid twice, a sid that is too long or has other bytes. Do not copy
 * *facts while facts->sid is used. */
enum parse_result engine_query_parse(struct slice query,
                                     struct engine_query *facts) MUST_CHECK;

/* Writes a value of the query decoded to `out`, without NUL; gives back its length, 0 when it is empty or longer
 * than `size`. */
size_t engine_query_decode(struct slice raw, char *out, size_t size);

/* The last `count` characters of the decoded sid as they stand in the query, for
 * request_edits.query_cut. */
struct slice engine_sid_tail(const struct engine_query *facts, size_t count);

/* What a path is, of all that some server in front of an Engine.IO application may make of it. */
enum engine_path_kind {
    ENGINE_PATH_OTHER,
    ENGINE_PATH_MATCH,
    /* servers differ: decoded it is Engine.IO and with dot segments, doubled slashes or ;parameters
     * resolved it is not, or the reverse. To be refused with 400 */
    ENGINE_PATH_UNCLEAR,
};

/* A path that matched. `canonical` and `rest` are to be written in this order; canonical.data is NULL
 * when the path is to be written as it came. */
struct engine_path {
    struct slice
        canonical; /* one of the paths, without its last slash when the request has none */
    struct slice rest; /* raw bytes behind it; empty for the path itself */
    struct slice
        routed_by; /* what rules are looked up with, so that all spellings go one way */
};

/* Is it one of `paths` (each begins and ends with '/')? Decoded, and with or without the last slash:
 * ASGI, Sanic and Node's addTrailingSlash: false take both. Slashes doubled in front count as one
 * (http.server drops them, and so Werkzeug and eventlet). Node without the slash takes any longer name
 * too ("/socket.iox"), if the query has a transport: then that matches. *match is set by
 * ENGINE_PATH_MATCH only. `raw_path` has at most HTTP_TARGET_MAX bytes. */
enum engine_path_kind engine_path_match(struct slice raw_path, struct slice query,
                                        const struct slice *paths, size_t count,
                                        struct engine_path *match) MUST_CHECK;

/* The sid alone: 1..ENGINE_SID_MAX bytes of [A-Za-z0-9_.~-]. */
bool engine_sid_is_valid(struct slice sid);

/* What a client gets when its session cannot be found (rule 4 of the contract): status
 * 400. */
#define ENGINE_SESSION_UNKNOWN_BODY "{\"code\":1,\"message\":\"Session ID unknown\"}"
