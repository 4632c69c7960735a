/*
 * One request and its response.
 *
 *   client's request
 *        │
 *        ▼                 endpoint refuses: another one (handshakes, other paths: 3 in all)
 *      BODY ─whole─▶ ROUTING ◀───────────────────────────────┐         or the same after 50, 100, 200 ms
 *        │  (Engine.IO    │ found                            │                (requests of a session)
 *        │   and chunked) ▼                                  │
 *        │            CONNECTING ──refused, timed out────────┴─▶ PAUSING ─▶ CONNECTING
 *        │                │
 *        │                ▼          a reused connection that ends before a byte: once more on a fresh one
 *        │             SENDING ─all sent─▶ AWAITING ◀─ 1xx     (a fresh one that does so: 502)
 *        │                                    │ final head
 *        │          ┌──────────┬──────────────┴──────┐
 *        │          ▼          ▼                     ▼
 *        │      HOLDING     STREAMING              101 verified ─▶ tunnel_start
 *        │      (handshake  (everything else,
 *        │       200, 400   back-pressure)
 *        │       to a sid)     │
 *        │          └────┬─────┘
 *        ▼               ▼
 *    edge answer    client_end_exchange
 *
 * Engine.IO bodies, and chunked ones on any path, are read whole (limits.body_bytes) before an endpoint is
 * chosen (what could go nowhere is answered before) and go out with Content-Length; other bodies stream. When the client goes away the endpoint's
 * connection is closed at once; it is never half-closed. A response that ends too early is
 * never completed towards the client. The exchange belongs to its client.
 *
 *   exchange.c            life and states, deadlines, connecting, sending
 *   exchange_body.c       the request's body: whole or streamed, how fast
 *   exchange_request.c    what the request is: classification, route, the head for the endpoint
 *   exchange_response.c   what comes back: framing, handshake answers, 101
 */
#pragma once

#include "shared/slice.h"

#include "proxy/client.h"

struct exchange;

/* Bytes of one, for the worker's slab. */
size_t exchange_size(void);

/* Begins the request that the worker's http_request has just parsed from the front of `data`. Gives back how
 * many bytes of `data` belong to it; the rest is the client's. It may have ended (answered, client closed)
 * when this returns. */
size_t exchange_begin(struct client *client, struct slice data);

/* More bytes from the client while the exchange wants a body: how many were taken. */
size_t exchange_take_body(struct exchange *exchange, struct slice data);
bool exchange_wants_body(const struct exchange *exchange);

/* How many bytes of body may be read now; 0: the endpoint is slow. */
size_t exchange_body_room(const struct exchange *exchange);

/* Bytes of its buffers. */
size_t exchange_holds(const struct exchange *exchange);

/* All that the client was sent has been written: go on reading the endpoint. */
void exchange_on_client_drained(struct exchange *exchange);

/* The client took a part of what waited for it. */
void exchange_on_client_took(struct exchange *exchange);

/* The client has finished writing: true when the exchange goes on (the response has begun), false when it is
 * to be aborted. */
bool exchange_outlives_client_end(const struct exchange *exchange);

/* One word for the log: what it is doing. */
const char *exchange_state_word(const struct exchange *exchange);

/* Ends it; a connection that it still has is closed at once. The client calls this. */
void exchange_free(struct exchange *exchange);
