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

/* Where a path lies that matched: canonical (one of `paths`) and the raw rest behind
 * it, to be written in this order. */
struct engine_path {
    struct slice canonical; /* one of the paths */
    struct slice rest;      /* raw bytes behind it; empty for the path itself */
};

/* True when the decoded path begins with one of `paths` (each ends with '/'). */
bool engine_path_match(struct slice raw_path, const struct slice *paths, size_t count,
                       struct engine_path *match) MUST_CHECK;

/* The sid alone: 1..ENGINE_SID_MAX bytes of [A-Za-z0-9_.~-]. */
bool engine_sid_is_valid(struct slice sid);

/* What a client gets when its session cannot be found (rule 4 of the contract): status
 * 400. */
#define ENGINE_SESSION_UNKNOWN_BODY "{\"code\":1,\"message\":\"Session ID unknown\"}"
