#include "proxy/probe.h"

#include "proxy/engine_open.h"
#include "proxy/http_head.h"
#include "proxy/ws_frame.h"
#include "proxy/ws_handshake.h"

#include "shared/address.h"
#include "shared/lifecycle.h"
#include "shared/net.h"
#include "shared/slice.h"
#include "shared/stream.h"
#include "shared/timing.h"
#include "shared/tls.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ANSWER_MAX = 64 * 1024, /* head and body of one answer */
    REQUEST_MAX = 2048,
    PACKET_MAX = 16, /* an Engine.IO packet that we send */
};

struct probe {
    uint64_t deadline;
    char *host;      /* for Host and the certificate, without brackets */
    char *authority; /* as in the URL */
    char *path;
    struct address address;
    struct tls_context *tls; /* NULL: plain */
    struct stream stream;
    char answer[ANSWER_MAX];
    size_t answer_len;
    struct http_response response;
    char body[ANSWER_MAX];
    size_t body_len;
    char sid[ENGINE_UPSTREAM_SID_MAX + 64];
    char failure[256];
};

/* Notes what is wrong; gives false so that a caller may return it. */
static bool fail(struct probe *probe, const char *format, ...) PRINTF_LIKE(2, 3);
static bool fail(struct probe *probe, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(probe->failure, sizeof(probe->failure), format, arguments);
    va_end(arguments);
    return false;
}

/* ── the URL ── */

static bool parse_url(struct probe *probe, const char *url)
{
    struct slice rest = slice_from_text(url);
    bool is_tls = slice_starts_with(rest, SLICE("https://"));
    if (!is_tls && !slice_starts_with(rest, SLICE("http://")))
        return fail(probe, "%s is not an http:// or https:// URL", url);
    rest = slice_from(rest, is_tls ? 8 : 7);
    size_t slash = slice_find(rest, '/');
    struct slice authority = slice_to(rest, slash), path = slice_from(rest, slash);
    struct slice host;
    uint16_t port;
    if (!http_authority_parse(authority, &host, &port))
        return fail(probe, "%s has no valid host", url);
    for (size_t i = 0; i < path.len; i++)
        if (path.data[i] <= ' ' || path.data[i] > '~' || path.data[i] == '?' ||
            path.data[i] == '#')
            return fail(probe, "%s: the path must be plain, without a query", url);
    probe->path = path.len <= 1 ? must_strdup("/socket.io/") : slice_dup(path);
    probe->host = slice_dup(host);
    probe->authority = slice_dup(authority);
    const char *bracket = memchr(host.data, ':', host.len) != NULL ? "[]" : "";
    char *place =
        must_printf("%.*s%s%.*s:%u", bracket[0] != '\0', "[", probe->host,
                    bracket[0] != '\0', "]", port != 0 ? port : (is_tls ? 443u : 80u));
    const char *why = NULL;
    bool is_known = address_resolve(slice_from_text(place), &probe->address, &why);
    if (!is_known)
        fail(probe, "%s: %s", place, why);
    free(place);
    if (is_known && is_tls) {
        char *error;
        const struct tls_client_options options = {.alpn = "http/1.1", .verify = true};
        probe->tls = tls_client_new(&options, &error);
        if (probe->tls == NULL) {
            fail(probe, "%s", error);
            free(error);
            return false;
        }
    }
    return is_known;
}

/* ── bytes, waiting for them until the deadline ── */

static bool wait_for(struct probe *probe, short what)
{
    struct pollfd poll_fd = {.fd = probe->stream.fd, .events = what};
    uint64_t now = timing_now();
    int left = now < probe->deadline ? (int)((probe->deadline - now) / 1000) + 1 : 0;
    int ready = left > 0 ? poll(&poll_fd, 1, left) : 0;
    if (ready < 0 && errno != EINTR)
        return fail(probe, "%s", strerror(errno));
    return ready != 0 || fail(probe, "no answer in time");
}

static bool connect_stream(struct probe *probe)
{
    const char *why = NULL;
    bool in_progress;
    int fd = net_connect(&probe->address, &in_progress);
    if (fd < 0)
        return fail(probe, "cannot connect: %s", strerror(errno));
    stream_init(&probe->stream, fd);
    if (!wait_for(probe, POLLOUT))
        return false;
    int error = net_connect_result(fd);
    if (error != 0)
        return fail(probe, "cannot connect: %s", strerror(error));
    if (probe->tls == NULL)
        return true;
    tls_connect(probe->tls, &probe->stream, probe->host);
    for (;;) {
        enum stream_handshake state = stream_handshake(&probe->stream, &why);
        if (state == STREAM_READY)
            return true;
        if (state == STREAM_REFUSED)
            return fail(probe, "TLS: %s", why);
        if (!wait_for(probe, state == STREAM_WANTS_READ ? POLLIN : POLLOUT))
            return false;
    }
}

static bool send_all(struct probe *probe, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t taken = stream_write(&probe->stream, bytes.data, bytes.len);
        if (taken >= 0)
            bytes = slice_from(bytes, (size_t)taken);
        else if (errno != EAGAIN)
            return fail(probe, "cannot send: %s", strerror(errno));
        else if (!wait_for(probe, POLLOUT))
            return false;
    }
    return true;
}

/* Reads once more behind what is there; *ended when the peer has finished. */
static bool receive(struct probe *probe, bool *ended)
{
    for (;;) {
        if (probe->answer_len == sizeof(probe->answer))
            return fail(probe, "the answer is too long");
        ssize_t len = stream_read(&probe->stream, probe->answer + probe->answer_len,
                                  sizeof(probe->answer) - probe->answer_len);
        if (len >= 0) {
            *ended = len == 0;
            probe->answer_len += (size_t)len;
            return true;
        }
        if (errno != EAGAIN)
            return fail(probe, "cannot read: %s", strerror(errno));
        if (!wait_for(probe, POLLIN))
            return false;
    }
}

/* ── one request, its head and its body ── */

static bool read_head(struct probe *probe, bool is_upgrade)
{
    bool ended = false;
    for (size_t before = 0;; before = probe->answer_len) {
        if (!receive(probe, &ended))
            return false;
        enum parse_result result = http_response_parse(
            slice_of(probe->answer, probe->answer_len), before, HTTP_HEAD_BYTES_DEFAULT,
            HTTP_GET, is_upgrade, &probe->response);
        if (result == PARSE_BAD)
            return fail(probe, "not a valid answer: %s", probe->response.refusal.reason);
        if (result == PARSE_DONE)
            return true;
        if (ended)
            return fail(probe, "the connection ended before an answer");
    }
}

static bool read_body(struct probe *probe)
{
    struct body_framing framing;
    enum parse_result result =
        body_framing_start(&framing, (enum body_kind)probe->response.body,
                           probe->response.body_length, sizeof(probe->body), 0);
    size_t at = probe->response.head_len;
    bool ended = false;
    while (result == PARSE_MORE) {
        size_t used;
        struct slice payload;
        result = body_framing_next(&framing,
                                   slice_of(probe->answer + at, probe->answer_len - at),
                                   &used, &payload);
        at += used;
        memcpy(probe->body + probe->body_len, payload.data, payload.len);
        probe->body_len += payload.len;
        if (result != PARSE_MORE || used > 0)
            continue;
        if (ended) {
            result = body_framing_end(&framing);
            break;
        }
        if (!receive(probe, &ended))
            return false;
    }
    return result == PARSE_DONE ||
           fail(probe, "the body: %s", body_fault_text(body_framing_fault(&framing)));
}

static bool ask(struct probe *probe, const char *query, const char *fields,
                bool is_upgrade)
{
    char request[REQUEST_MAX];
    int len = snprintf(request, sizeof(request),
                       "GET %s?EIO=4&transport=%s HTTP/1.1\r\nHost: %s\r\n"
                       "User-Agent: sidrail-probe/" SIDRAIL_VERSION "\r\n%s\r\n",
                       probe->path, query, probe->authority, fields);
    if (len < 0 || (size_t)len >= sizeof(request))
        return fail(probe, "the URL is too long");
    probe->answer_len = probe->body_len = 0;
    return connect_stream(probe) && send_all(probe, slice_of(request, (size_t)len)) &&
           read_head(probe, is_upgrade);
}

/* ── the three steps ── */

static bool handshake(struct probe *probe)
{
    if (!ask(probe, "polling", "Accept-Encoding: identity\r\nConnection: close\r\n",
             false) ||
        !read_body(probe))
        return false;
    stream_close(&probe->stream);
    if (probe->response.status != 200)
        return fail(probe, "status %u", probe->response.status);
    struct engine_open open;
    enum engine_open_verdict verdict =
        engine_open_scan(slice_of(probe->body, probe->body_len), &open);
    if (verdict != ENGINE_OPEN_OK)
        return fail(probe, "no open packet in the answer (%s)",
                    engine_open_verdict_word(verdict));
    if (open.sid.len >= sizeof(probe->sid))
        return fail(probe, "the sid is too long");
    memcpy(probe->sid, open.sid.data, open.sid.len);
    return true;
}

static bool upgrade(struct probe *probe)
{
    char key[WS_KEY_LEN + 1], query[sizeof(probe->sid) + 32], fields[256];
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < WS_KEY_LEN - 3; i++)
        key[i] = digits[timing_random() & 63];
    memcpy(key + WS_KEY_LEN - 3, "A==", 4); /* the last character has four spare bits */
    snprintf(query, sizeof(query), "websocket&sid=%s", probe->sid);
    snprintf(fields, sizeof(fields),
             "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: %s\r\n",
             key);
    if (!ask(probe, query, fields, true))
        return false;
    if (probe->response.status != 101)
        return fail(probe, "status %u", probe->response.status);
    return ws_accept_matches(slice_of(key, WS_KEY_LEN),
                             probe->response.websocket_accept) ||
           fail(probe, "wrong Sec-WebSocket-Accept");
}

/* One masked text frame (RFC 6455 5.2). */
static bool send_text(struct probe *probe, struct slice text)
{
    char frame[6 + PACKET_MAX] = {(char)0x81, (char)(0x80 | text.len)};
    check(text.len <= PACKET_MAX);
    for (size_t i = 0; i < 4; i++)
        frame[2 + i] = (char)(timing_random() & 0xff);
    for (size_t i = 0; i < text.len; i++)
        frame[6 + i] = (char)(text.data[i] ^ frame[2 + i % 4]);
    return send_all(probe, slice_of(frame, 6 + text.len));
}

static bool echo(struct probe *probe)
{
    static const char expected[] = "\x81\x06"
                                   "3probe"; /* one unmasked text frame */
    if (!send_text(probe, SLICE("2probe")))
        return false;
    size_t wanted = probe->response.head_len + sizeof(expected) - 1;
    for (bool ended = false; probe->answer_len < wanted && !ended;)
        if (!receive(probe, &ended))
            return false;
    return (probe->answer_len >= wanted &&
            memcmp(probe->answer + probe->response.head_len, expected,
                   sizeof(expected) - 1) == 0) ||
           fail(probe, "the server did not answer 2probe with 3probe");
}

/* Takes the upgrade and closes, so that the server forgets the session at once. Best effort. */
static void leave(struct probe *probe)
{
    char frame[WS_CLOSE_FRAME_MAX];
    const uint8_t mask[4] = {1, 2, 3, 4};
    size_t len = ws_frame_write_close(frame, WS_CLOSE_NORMAL, mask);
    bool ended = false;
    if (send_text(probe, SLICE("5")) && send_all(probe, slice_of(frame, len)))
        while (!ended && receive(probe, &ended))
            continue;
}

int probe_run(const char *url, uint64_t timeout, FILE *out, FILE *errors)
{
    static const struct {
        const char *name;
        bool (*run)(struct probe *probe);
    } steps[] = {{"handshake", handshake}, {"upgrade", upgrade}, {"echo", echo}};
    struct probe *probe = must_calloc(1, sizeof(*probe));
    uint64_t begin = timing_now();
    probe->deadline = begin + timeout;
    stream_init(&probe->stream, -1);
    const char *step = "URL";
    bool is_good = parse_url(probe, url);
    for (size_t i = 0; is_good && i < ARRAY_LEN(steps); i++) {
        step = steps[i].name;
        is_good = steps[i].run(probe);
    }
    if (is_good) {
        fprintf(out, "ok: handshake, upgrade and echo at %s in %" PRIu64 " ms\n", url,
                (timing_now() - begin) / 1000);
        leave(probe);
    } else {
        fprintf(errors, "probe: %s: %s\n", step, probe->failure);
    }
    stream_close(&probe->stream);
    tls_unref(probe->tls);
    free(probe->host);
    free(probe->authority);
    free(probe->path);
    free(probe);
    return is_good && fflush(out) == 0 ? EXIT_CODE_WELL : EXIT_CODE_START;
}
