/*
 * Responses that the edge gives by itself: head and body in one piece.
 *
 *      close_reason row ─▶ status ─┐
 *      Engine.IO path?  ─▶ JSON {"code":…,"message":…} or plain text ─┼─▶ bytes
 *      Origin           ─▶ CORS fields, when it is a valid origin ────┘
 *
 * Nothing of the request is ever shown but a syntactically valid Origin in the CORS fields of an
 * Engine.IO answer (a browser hides a status without them), and the target of a redirect, as parsed. Never
 * cached.
 */
#pragma once

#include "shared/slice.h"

#include "proxy/close_reason.h"

#define EDGE_ANSWER_MAX                                                                  \
    (10 * 1024)             /* bytes of the longest answer: a redirect with its target */
#define EDGE_ORIGIN_MAX 256 /* longer origins are not echoed */

struct edge_answer {
    enum close_reason reason;
    unsigned status;      /* 0: the reason's */
    bool is_engine_io;    /* JSON body and CORS */
    bool is_head;         /* answers HEAD: no body */
    struct slice origin;  /* of the request; empty: none */
    unsigned retry_after; /* seconds; 0: no such field */
    /* of a redirect to https; validated parts of the request, host empty: none */
    struct slice host, path, query;
};

/* Writes the answer to `out`; gives back its length. `closes`: with Connection: close. `date`:
 * IMF-fixdate. */
size_t edge_answer_write(const struct edge_answer *answer, bool closes, struct slice date,
                         char out[EDGE_ANSWER_MAX]);

/* "null" or scheme://host[:port] in plain characters, at most EDGE_ORIGIN_MAX long. */
bool edge_origin_is_valid(struct slice origin);
