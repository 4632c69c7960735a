#include "proxy/http_get.h"

#include "shared/net.h"
#include "shared/stream.h"
#include "shared/timing.h"
#include "shared/tls.h"

#include "proxy/body_framing.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>

#define HEAD_BYTES_MAX 32768u
#define READ_SIZE      65536u
#define READS_A_TURN   16
#define INTERIM_MAX    16 /* 1xx answers before the one that counts */

enum get_state { GET_CONNECTING, GET_SECURING, GET_SENDING, GET_HEAD, GET_BODY };

struct http_get {
    struct event_base *base;
    const struct http_get_callbacks *callbacks;
    void *argument;
    enum get_state state;
    struct stream stream;
    char *request;
    size_t request_len, sent;
    char *head; /* HEAD_BYTES_MAX, until it is complete */
    size_t head_len;
    unsigned interim; /* 1xx answers so far */
    struct body_framing framing;
    uint64_t patience;
    int failed; /* errno of a connect that failed at once */
    struct event io, timer, deadline;
    bool is_in_callback, is_stopped;
    char bytes[READ_SIZE];
};

static void free_get(struct http_get *get)
{
    event_del(&get->io);
    event_del(&get->timer);
    event_del(&get->deadline);
    stream_close(&get->stream);
    free(get->request);
    free(get->head);
    free(get);
}

static void end(struct http_get *get, enum http_get_end how, const char *why)
{
    get->is_in_callback = true;
    if (!get->is_stopped)
        get->callbacks->on_end(get->argument, how, why);
    free_get(get);
}

static void wait_for(struct http_get *get, short what, event_callback_fn on_event)
{
    struct timeval limit = timing_to_timeval(get->patience);
    event_del(&get->io);
    event_assign(&get->io, get->base, get->stream.fd, (short)(what | EV_PERSIST),
                 on_event, get);
    event_add(&get->io, NULL);
    event_add(&get->timer, &limit);
}

/* ---- the answer ---- */

/* False: it has been stopped. */
static bool give_body(struct http_get *get, struct slice bytes)
{
    if (bytes.len == 0)
        return true;
    get->is_in_callback = true;
    get->callbacks->on_body(get->argument, bytes);
    get->is_in_callback = false;
    return !get->is_stopped;
}

/* False: the get is over and freed. */
static bool take_body(struct http_get *get, struct slice data)
{
    while (data.len > 0) {
        size_t consumed;
        struct slice payload;
        enum parse_result result =
            body_framing_next(&get->framing, data, &consumed, &payload);
        if (!give_body(get, payload) || result != PARSE_MORE) {
            end(get, result == PARSE_DONE ? HTTP_GET_DONE : HTTP_GET_BROKEN,
                body_fault_text(body_framing_fault(&get->framing)));
            return false;
        }
        data = slice_from(data, consumed);
    }
    return true;
}

/* The head is complete, the rest is body. False: the get is over and freed. */
static bool take_response(struct http_get *get, const struct http_response *response,
                          struct slice rest)
{
    get->state = GET_BODY;
    get->is_in_callback = true;
    get->callbacks->on_head(get->argument, response);
    get->is_in_callback = false;
    enum parse_result result =
        body_framing_start(&get->framing, response->body, response->body_length, 0, 0);
    if (get->is_stopped || result != PARSE_MORE) {
        end(get, result == PARSE_DONE ? HTTP_GET_DONE : HTTP_GET_BROKEN,
            body_fault_text(body_framing_fault(&get->framing)));
        return false;
    }
    return take_body(get, rest);
}

/* Takes bytes until a head is complete that is not interim. False: it is over and freed. */
static bool take_head(struct http_get *get, struct slice data)
{
    size_t last = get->head_len;
    size_t room = HEAD_BYTES_MAX + READ_SIZE - get->head_len;
    memcpy(get->head + get->head_len, data.data, min_size(data.len, room));
    get->head_len += min_size(data.len, room);
    while (get->head_len > 0) {
        struct slice all = slice_of(get->head, get->head_len);
        struct http_response response;
        enum parse_result result =
            http_response_parse(all, last, HEAD_BYTES_MAX, HTTP_GET, false, &response);
        if (result == PARSE_MORE)
            break;
        if (result == PARSE_BAD) {
            end(get, HTTP_GET_BROKEN, "the answer is not HTTP");
            return false;
        }
        struct slice rest = slice_from(all, response.head_len);
        if (!response.is_interim)
            return take_response(get, &response, rest);
        if (++get->interim > INTERIM_MAX) {
            end(get, HTTP_GET_BROKEN, "too many interim answers");
            return false;
        }
        memmove(get->head, rest.data, rest.len);
        get->head_len = rest.len;
        last = 0;
    }
    return true;
}

static void on_finished(struct http_get *get)
{
    if (get->state == GET_BODY && body_framing_end(&get->framing) == PARSE_DONE)
        end(get, HTTP_GET_DONE, "");
    else
        end(get, HTTP_GET_BROKEN, "the server closed the connection");
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct http_get *get = argument;
    struct timeval limit = timing_to_timeval(get->patience);
    event_add(&get->timer, &limit);
    for (int i = 0; i < READS_A_TURN || stream_has_pending(&get->stream); i++) {
        ssize_t got = stream_read(&get->stream, get->bytes, sizeof get->bytes);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got < 0) {
            end(get, HTTP_GET_BROKEN, strerror(errno));
            return;
        }
        if (got == 0) {
            on_finished(get);
            return;
        }
        struct slice data = slice_of(get->bytes, (size_t)got);
        if (get->state == GET_HEAD ? !take_head(get, data) : !take_body(get, data))
            return;
    }
}

/* ---- the question ---- */

static void on_sendable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct http_get *get = argument;
    ssize_t taken = stream_write(&get->stream, get->request + get->sent,
                                 get->request_len - get->sent);
    if (taken < 0 && errno != EAGAIN && errno != EINTR) {
        end(get, HTTP_GET_BROKEN, strerror(errno));
        return;
    }
    get->sent += taken > 0 ? (size_t)taken : 0;
    if (get->sent < get->request_len)
        return;
    get->state = GET_HEAD;
    wait_for(get, EV_READ, on_readable);
}

static void on_handshake(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct http_get *get = argument;
    const char *why = "";
    switch (stream_handshake(&get->stream, &why)) {
    case STREAM_READY:
        get->state = GET_SENDING;
        wait_for(get, EV_WRITE, on_sendable);
        return;
    case STREAM_WANTS_READ:
        wait_for(get, EV_READ, on_handshake);
        return;
    case STREAM_WANTS_WRITE:
        wait_for(get, EV_WRITE, on_handshake);
        return;
    case STREAM_REFUSED:
        end(get, HTTP_GET_BROKEN, why);
        return;
    }
    unreachable();
}

static void on_connected(evutil_socket_t fd, short what, void *argument)
{
    struct http_get *get = argument;
    int error = net_connect_result(fd);
    if (error != 0) {
        end(get, HTTP_GET_BROKEN, strerror(error));
        return;
    }
    get->state = GET_SECURING;
    on_handshake(fd, what, argument);
}

static void on_time(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct http_get *get = argument;
    end(get, HTTP_GET_BROKEN, get->failed != 0 ? strerror(get->failed) : "timeout");
}

static void on_deadline(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    end(argument, HTTP_GET_BROKEN, "timeout: the answer does not end");
}

/* ---- life ---- */

struct http_get *http_get_new(struct event_base *base,
                              const struct http_get_request *request,
                              const struct http_get_callbacks *callbacks, void *argument)
{
    static const struct timeval at_once;
    struct http_get *get = must_calloc(1, sizeof *get);
    bool in_progress;
    get->base = base;
    get->callbacks = callbacks;
    get->argument = argument;
    get->patience = request->patience;
    get->head = must_calloc(1, HEAD_BYTES_MAX + READ_SIZE);
    bool has_bearer = request->bearer.len > 0;
    get->request =
        must_printf("GET %.*s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: sidrail-proxy\r\n"
                    "Accept: application/json\r\nConnection: close\r\n%s%.*s%s\r\n",
                    SLICE_ARGS(request->target), SLICE_ARGS(request->host),
                    has_bearer ? "Authorization: Bearer " : "",
                    has_bearer ? (int)request->bearer.len : 0,
                    has_bearer ? request->bearer.data : "", has_bearer ? "\r\n" : "");
    get->request_len = strlen(get->request);
    event_assign(&get->timer, base, -1, 0, on_time, get);
    event_assign(&get->deadline, base, -1, 0, on_deadline, get);
    event_assign(&get->io, base, -1, 0, on_connected, get);
    int fd = net_connect(&request->address, &in_progress);
    get->failed = fd < 0 ? errno : 0;
    stream_init(&get->stream, fd);
    if (fd < 0) {
        event_add(&get->timer, &at_once);
        return get;
    }
    net_set_no_delay(fd);
    net_set_keep_alive(fd, SECONDS(15));
    net_set_user_timeout(fd, SECONDS(30));
    if (request->tls != NULL)
        tls_connect(request->tls, &get->stream, request->server_name);
    wait_for(get, EV_WRITE, on_connected);
    if (request->whole > 0) {
        struct timeval limit = timing_to_timeval(request->whole);
        event_add(&get->deadline, &limit);
    }
    return get;
}

void http_get_stop(struct http_get *get)
{
    get->is_stopped = true;
    if (!get->is_in_callback)
        free_get(get);
}
