/*
 * What the files of the exchange share; nobody else includes this. exchange.h has the picture.
 *
 *      exchange.c ──▶ exchange_body.c ──▶ exchange_request.c ──▶ exchange.c ──▶ exchange_response.c ──▶ client.c
 *      life           reads the body      which endpoint, what    connect, send   what comes back
 */
#pragma once

#include "proxy/body_framing.h"
#include "proxy/edge_answer.h"
#include "proxy/exchange.h"
#include "proxy/route.h"
#include "proxy/ws_handshake.h"

/* Bytes of a streamed request body that wait for the endpoint. */
#define EXCHANGE_STREAM_MAX 65536u

/* How often a body is looked at that the client has to send. */
#define EXCHANGE_BODY_LOOK_MS 1000u

enum exchange_state {
    EXCHANGE_BODY,    /* the body is being read whole */
    EXCHANGE_WAITING, /* for a newer snapshot or for its turn (ROUTE_WAIT) */
    EXCHANGE_PAUSING, /* before the same endpoint is tried again */
    EXCHANGE_CONNECTING,
    EXCHANGE_SENDING, /* the endpoint has not taken the request yet, or its body streams */
    EXCHANGE_AWAITING,  /* nothing of the final head yet */
    EXCHANGE_HOLDING,   /* a body that is looked at before it is passed on */
    EXCHANGE_STREAMING, /* the body flows */
};

struct exchange {
    struct client *client; /* borrowed: it owns us */
    struct worker *worker;
    struct worker_snapshot *snapshot; /* one holder */
    const struct route_config *rule;  /* of the snapshot; NULL before it is matched */
    size_t upstream;
    struct endpoint *endpoint;              /* one reference; NULL before it is chosen */
    struct endpoint_connection *connection; /* owned */

    struct buffer *head;    /* the client's, as it came: to route again */
    struct buffer *body;    /* of the client, decoded, while it is read whole */
    struct buffer *request; /* for the endpoint; kept while it could be sent again */
    uint32_t request_sent;
    uint64_t body_left; /* of a streamed request body: not yet read from the client */
    struct body_framing request_body;
    struct body_framing response_body;
    uint64_t body_bytes;      /* of the request, received */
    uint64_t body_bytes_seen; /* of those, when the body was last looked at */
    uint64_t body_owed;       /* bytes by which the client is late */
    uint32_t looked_at;       /* deadline_now(): BODY was looked at, or began */
    uint32_t moved_at;        /* last progress while streaming */
    uint64_t began;           /* timing_now() of a handshake */

    struct buffer *response;      /* a head that is not whole, or the body that is held */
    struct buffer *response_head; /* of HOLDING: its head as it came */
    struct buffer *sid; /* untagged and not learned: to be when its endpoint knows it */
    uint32_t parsed_len;

    struct endpoint *tried[ROUTE_TRIES_MAX]; /* each with one reference */
    uint8_t tried_len;
    uint8_t tried_reason; /* enum close_reason of the last of them */
    uint8_t attempts;     /* connects to the same endpoint */
    uint8_t interims;
    uint8_t state;       /* enum exchange_state */
    uint8_t kind;        /* enum route_kind */
    uint8_t method;      /* enum http_method */
    uint8_t version;     /* enum engine_version */
    uint8_t minor;       /* of the client's HTTP version */
    uint8_t out_framing; /* enum body_kind towards the client */
    bool is_engine_io;
    bool is_jsonp;
    bool is_upgrade;
    bool has_odd_body;   /* of a GET, HEAD or OPTIONS: few servers read it well */
    bool is_persistent;  /* the client's side may stay */
    bool keeps_endpoint; /* the endpoint's side may stay */
    bool was_resent;
    bool is_body_unread;   /* WAITING: the body is read once there is a way */
    bool is_body_cut;      /* answered before the client had sent its body */
    bool has_answer_begun; /* bytes of the final response went to the client */
    bool is_tls_client;    /* https at the outermost trusted hop */
    bool is_cross_site;
    bool is_begun;   /* counted on the endpoint */
    bool is_counted; /* as a handshake with a result */
    bool sets_cookie;
    char key_id;
    uint64_t tag;
    uint64_t random_key;
    uint32_t waited_ms;
    struct affinity_cookie cookie;
    char websocket_key[WS_KEY_LEN];
    uint16_t origin_len;
    char origin[EDGE_ORIGIN_MAX];
};

/* ---- exchange.c ---- */

/* The edge answers; the exchange is gone afterwards. `stays`: the request was read whole. */
void exchange_answer(struct exchange *exchange, enum close_reason reason);
void exchange_answer_with(struct exchange *exchange, struct edge_answer answer);

/* How a handshake ended; counted once, other requests are not. */
void exchange_count_handshake(struct exchange *exchange, enum handshake_result result);

/* Goes to `endpoint` with what lies in exchange->request. */
void exchange_connect(struct exchange *exchange, struct endpoint *endpoint);

/* The deadline of the state, in milliseconds from now. */
void exchange_set_deadline(struct exchange *exchange, uint32_t limit_ms);

/* No connection or no answer from this endpoint: another one, the same again, or the end. `reason`: what it
 * would be called. */
void exchange_endpoint_failed(struct exchange *exchange, enum close_reason reason);

/* The response ends here although it is not whole: the client must not take it for whole. */
void exchange_cut_answer(struct exchange *exchange);

/* Writes what waits; a streamed body is pulled from the client as room appears. */
void exchange_send_request(struct exchange *exchange);

/* How long the endpoint may be silent, in milliseconds. */
uint32_t exchange_poll_limit(const struct exchange *exchange);

static inline const struct proxy_config *exchange_config(const struct exchange *exchange)
{
    return exchange->snapshot->snapshot->config;
}

/* ---- exchange_body.c ---- */

/* Begin the body of the worker's request; `rest` begins with it. How many bytes of it belong to the body. The first: one
 * of a known length on other paths, which streams; the second: one that is read whole before anything is sent. */
size_t exchange_begin_streamed(struct exchange *exchange, struct slice rest);
size_t exchange_begin_whole(struct exchange *exchange, struct slice rest);

/* May `more` bytes of the body be held? False: answered. */
bool exchange_has_room(struct exchange *exchange, size_t more) MUST_CHECK;

/* WAITING with an unread body: is there a way by now? */
void exchange_route_unread(struct exchange *exchange);

/* Is the body too slow, after `passed` milliseconds more in which the client could have sent? */
bool exchange_body_is_late(struct exchange *exchange, uint32_t passed) MUST_CHECK;

/* The deadline of BODY. */
void exchange_look_at_body(struct exchange *exchange);

/* ---- exchange_request.c ---- */

/* Everything that the head alone decides. False: answered. The request is the worker's. */
bool exchange_classify(struct exchange *exchange) MUST_CHECK;

/* Chooses an endpoint for the worker's request (parsed from exchange->head when `parses`), writes the head for
 * it and connects. The body, if it was read whole, is `body`. */
void exchange_route(struct exchange *exchange, bool parses, struct slice body);

/* Could the worker's request go anywhere now? False: answered, or (EXCHANGE_WAITING, with the body unread) not
 * yet known. */
bool exchange_has_way(struct exchange *exchange) MUST_CHECK;

/* Parses exchange->head again, and finds the rule of a newer snapshot. False: answered. */
bool exchange_prepare_again(struct exchange *exchange) MUST_CHECK;

/* ---- exchange_response.c ---- */

/* The endpoint's socket is readable. */
void exchange_read(struct exchange *exchange);

/* The client has taken everything: go on. */
void exchange_resume_reading(struct exchange *exchange);
