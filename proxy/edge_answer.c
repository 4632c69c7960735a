#include "proxy/edge_answer.h"

#include "proxy/engine_io.h"

#include <stdio.h>

bool edge_origin_is_valid(struct slice origin)
{
    if (slice_equals(origin, SLICE("null")))
        return true;
    if (origin.len == 0 || origin.len > EDGE_ORIGIN_MAX)
        return false;
    size_t colon = slice_find(origin, ':');
    if (colon == 0 || colon + 3 >= origin.len ||
        memcmp(origin.data + colon, "://", 3) != 0)
        return false;
    for (size_t i = 0; i < origin.len; i++) {
        char c = origin.data[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '+' ||
                        c == '_';
        bool is_mark = i > colon + 2 && (c == ':' || c == '[' || c == ']');
        if (!is_plain && !is_mark && (i < colon || i > colon + 2))
            return false;
    }
    return true;
}

/* The numbers are Node's: 1 is an unknown session, 2 a method that does not begin a session, 4 a refusal, 3 everything else. */
static int engine_code(enum close_reason reason)
{
    if (reason == CLOSE_SESSION_UNKNOWN)
        return 1;
    if (reason == CLOSE_METHOD_NOT_ALLOWED || reason == CLOSE_NO_SESSION)
        return 2;
    return reason == CLOSE_FORBIDDEN ? 4 : 3;
}

static size_t body_write(const struct edge_answer *answer, char *body, size_t size)
{
    int len;
    if (answer->reason == CLOSE_DONE)
        len = 0;
    else if (!answer->is_engine_io)
        len = snprintf(body, size, "%s\n", close_reason_get(answer->reason)->sentence);
    else if (answer->reason == CLOSE_SESSION_UNKNOWN)
        len = snprintf(body, size, "%s", ENGINE_SESSION_UNKNOWN_BODY);
    else
        len = snprintf(body, size, "{\"code\":%d,\"message\":\"%s\"}",
                       engine_code(answer->reason),
                       close_reason_get(answer->reason)->sentence);
    check(len >= 0 && (size_t)len < size);
    return (size_t)len;
}

size_t edge_answer_write(const struct edge_answer *answer, bool closes, struct slice date,
                         char out[EDGE_ANSWER_MAX])
{
    int status = answer->status != 0 ? (int)answer->status
                                     : close_reason_get(answer->reason)->status;
    char body[256];
    size_t body_len = body_write(answer, body, sizeof body);
    size_t len = 0;
#define ADD(...) len += (size_t)snprintf(out + len, EDGE_ANSWER_MAX - len, __VA_ARGS__)
    ADD("HTTP/1.1 %d %s\r\nDate: %.*s\r\n", status, close_reason_phrase(status),
        SLICE_ARGS(date));
    if (body_len > 0)
        ADD("Content-Type: %s\r\n",
            answer->is_engine_io ? "application/json" : "text/plain; charset=utf-8");
    ADD("Content-Length: %zu\r\nCache-Control: no-store\r\n", body_len);
    if (answer->reason == CLOSE_METHOD_NOT_ALLOWED || answer->reason == CLOSE_DONE)
        ADD("Allow: GET, %sPOST, OPTIONS\r\n",
            answer->is_engine_io ? "" : "HEAD, PUT, PATCH, DELETE, ");
    if (status == 426)
        ADD("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    if (answer->retry_after != 0)
        ADD("Retry-After: %u\r\n", answer->retry_after);
    if (answer->host.len > 0) {
        bool is_v6 = slice_find(answer->host, ':') < answer->host.len;
        ADD("Location: https://%s%.*s%s%.*s%s%.*s\r\n", is_v6 ? "[" : "",
            SLICE_ARGS(answer->host), is_v6 ? "]" : "", SLICE_ARGS(answer->path),
            answer->query.data != NULL ? "?" : "", SLICE_ARGS(answer->query));
    }
    if (answer->is_engine_io && edge_origin_is_valid(answer->origin))
        ADD("Access-Control-Allow-Origin: %.*s\r\n"
            "Access-Control-Allow-Credentials: true\r\nVary: Origin\r\n",
            SLICE_ARGS(answer->origin));
    ADD("Connection: %s\r\n\r\n", status == 426 ? "upgrade, close"
                                  : closes      ? "close"
                                                : "keep-alive");
    if (!answer->is_head)
        ADD("%.*s", (int)body_len, body);
#undef ADD
    check(len < EDGE_ANSWER_MAX);
    return len;
}
