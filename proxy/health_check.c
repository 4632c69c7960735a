#include "proxy/health_check.h"

#include "shared/log.h"
#include "shared/net.h"
#include "shared/stream.h"
#include "shared/timing.h"

#include "proxy/endpoint_list.h"
#include "proxy/endpoint_tls.h"
#include "proxy/proxy_config.h"
#include "proxy/proxy_metrics.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdio.h>
#include <stdlib.h>

#define VANISHED_INTERVAL SECONDS(1)
#define VANISHED_FALL     2
#define SUSPECT_INTERVAL  SECONDS(1)

/* First probes of fewer new endpoints than this come within that time. */
#define SOON     MILLISECONDS(500)
#define SOON_MAX 16

#define STATUS_LINE_LEN 12 /* "HTTP/1.1 200" */

enum probe_state { PROBE_WAITING, PROBE_CONNECTING, PROBE_SECURING, PROBE_READING };

/* One endpoint under checks. */
struct checked {
    struct health_checks *checks;
    struct endpoint *endpoint; /* one reference */
    bool is_vanished;
    bool passes;
    bool has_passed; /* a probe, some time */
    unsigned row;    /* results in a row that contradict `passes` */
    enum probe_state state;
    struct stream stream; /* fd -1: no probe under way */
    struct event timer;   /* next probe, or the timeout of this one */
    struct event io;
    char answer[STATUS_LINE_LEN];
    size_t answer_len;
};

struct health_checks {
    struct event_base *base;
    const struct upstream_config *config; /* borrowed */
    const struct health_callbacks *callbacks;
    void *owner;
    struct endpoint_tls *tls; /* one holder; NULL: plain */
    struct checked **items;   /* in the order of the set */
    size_t len;
};

static bool is_http(const struct checked *it)
{
    return !it->is_vanished && it->checks->config->health_check.type == HEALTH_CHECK_HTTP;
}

static bool is_secured(const struct checked *it)
{
    return !it->is_vanished && it->checks->tls != NULL;
}

static bool is_probed(const struct checked *it)
{
    return it->is_vanished || it->checks->config->health_check.type != HEALTH_CHECK_NONE;
}

/* ---- results ---- */

static void wait_for_next(struct checked *it)
{
    uint64_t interval =
        it->is_vanished ? VANISHED_INTERVAL : it->checks->config->health_check.interval;
    if (endpoint_is_suspect(it->endpoint, timing_now()) && interval > SUSPECT_INTERVAL)
        interval = SUSPECT_INTERVAL;
    interval = interval - interval / 8 + timing_random() % (interval / 4 + 1);
    struct timeval wait = timing_to_timeval(interval);
    event_add(&it->timer, &wait);
}

static void end_probe(struct checked *it)
{
    if (it->stream.fd < 0)
        return;
    event_del(&it->io);
    stream_reset(&it->stream);
    it->state = PROBE_WAITING;
}

static void note_vanished_result(struct checked *it, bool passed)
{
    it->row = passed ? 0 : it->row + 1;
    if (it->row == VANISHED_FALL)
        it->checks->callbacks->on_refusing(it->checks->owner,
                                           slice_from_text(it->endpoint->identity),
                                           it->endpoint->port);
}

static void report(struct checked *it)
{
    it->has_passed = it->has_passed || it->passes;
    it->checks->callbacks->on_verdict(it->checks->owner,
                                      slice_from_text(it->endpoint->identity),
                                      it->endpoint->port, it->passes);
}

static void note_result(struct checked *it, bool passed, const char *why)
{
    const struct upstream_config *config = it->checks->config;
    log_debug(LOG_SUBJECT("health"), passed ? "probe passed" : "probe failed",
              LOG_TEXT("upstream", config->name),
              LOG_TEXT("endpoint", it->endpoint->address_text), LOG_TEXT("why", why));
    metrics_add_by(M_HEALTH_PROBES, passed, 1);
    if (passed == it->passes) {
        it->row = 0;
        if (passed && !it->has_passed)
            report(it);
        return;
    }
    int64_t needed = passed ? config->health_check.rise : config->health_check.fall;
    if (++it->row < (uint64_t)needed)
        return;
    it->passes = passed;
    it->row = 0;
    log_each(passed ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, LOG_SUBJECT("health"),
             passed ? "verdict: passes" : "verdict: fails",
             LOG_TEXT("upstream", config->name),
             LOG_TEXT("endpoint", it->endpoint->address_text),
             LOG_TEXT("id", it->endpoint->identity), LOG_TEXT("why", why));
    report(it);
}

/* The one end of a probe. */
static void finish(struct checked *it, bool passed, const char *why)
{
    end_probe(it);
    event_del(&it->timer);
    if (it->is_vanished)
        note_vanished_result(it, passed);
    else
        note_result(it, passed, why);
    wait_for_next(it);
}

/* ---- one probe ---- */

/* True when it is written whole: it is shorter than any socket's buffer. */
static bool send_request(struct checked *it)
{
    char text[ADDRESS_TEXT_SIZE];
    const struct address *address = &it->endpoint->address;
    char *request = must_printf(
        "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sidrail-proxy\r\nAccept: */*\r\n"
        "Connection: close\r\n\r\n",
        it->checks->config->health_check.path,
        address_is_unix(address) ? "localhost" : address_text(address, text));
    ssize_t len = (ssize_t)strlen(request);
    bool is_sent = stream_write(&it->stream, request, (size_t)len) == len;
    free(request);
    return is_sent;
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct checked *it = argument;
    ssize_t got = stream_read(&it->stream, it->answer + it->answer_len,
                              sizeof it->answer - it->answer_len);
    if (got < 0 && errno == EAGAIN)
        return;
    it->answer_len += got > 0 ? (size_t)got : 0;
    struct slice answer = slice_of(it->answer, it->answer_len);
    uint64_t status;
    if (got <= 0) {
        finish(it, false, "no answer");
    } else if (it->answer_len == sizeof it->answer) {
        bool is_status = (slice_starts_with(answer, SLICE("HTTP/1.1 ")) ||
                          slice_starts_with(answer, SLICE("HTTP/1.0 "))) &&
                         slice_to_number(slice_from(answer, 9), 100, 599, &status);
        char why[32];
        if (is_status)
            snprintf(why, sizeof why, "status %u", (unsigned)status);
        else
            snprintf(why, sizeof why, "not an HTTP answer");
        finish(it, is_status && status >= 200 && status < 400, why);
    }
}

static void wait_for(struct checked *it, short what, event_callback_fn on_event)
{
    event_del(&it->io);
    event_assign(&it->io, it->checks->base, it->stream.fd, (short)(what | EV_PERSIST),
                 on_event, it);
    event_add(&it->io, NULL);
}

/* Connected, and secured if it is to be. */
static void on_usable(struct checked *it)
{
    endpoint_note_success(it->endpoint);
    if (!is_http(it)) {
        finish(it, true, "connected");
        return;
    }
    if (!send_request(it)) {
        finish(it, false, "cannot send");
        return;
    }
    it->state = PROBE_READING;
    it->answer_len = 0;
    wait_for(it, EV_READ, on_readable);
}

static void on_handshake(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct checked *it = argument;
    const char *why = "";
    switch (stream_handshake(&it->stream, &why)) {
    case STREAM_READY:
        on_usable(it);
        return;
    case STREAM_WANTS_READ:
        wait_for(it, EV_READ, on_handshake);
        return;
    case STREAM_WANTS_WRITE:
        wait_for(it, EV_WRITE, on_handshake);
        return;
    case STREAM_REFUSED:
        finish(it, false, why);
        return;
    }
    unreachable();
}

static void on_connected(struct checked *it)
{
    if (!is_secured(it)) {
        on_usable(it);
        return;
    }
    it->state = PROBE_SECURING;
    endpoint_tls_start(it->checks->tls, it->endpoint, &it->stream);
    on_handshake(it->stream.fd, 0, it);
}

static void on_writable(evutil_socket_t fd, short what, void *argument)
{
    (void)what;
    struct checked *it = argument;
    int error = net_connect_result(fd);
    if (error == 0)
        on_connected(it);
    else
        finish(it, false, strerror(error));
}

static void begin_probe(struct checked *it)
{
    struct timeval limit = timing_to_timeval(it->checks->config->health_check.timeout);
    bool in_progress = false;
    int fd = net_connect(&it->endpoint->address, &in_progress);
    if (fd < 0) {
        /* for want of descriptors we know nothing of the endpoint */
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            wait_for_next(it);
        else
            finish(it, false, strerror(errno));
        return;
    }
    stream_init(&it->stream, fd);
    it->state = PROBE_CONNECTING;
    event_add(&it->timer, &limit);
    if (in_progress)
        wait_for(it, EV_WRITE, on_writable);
    else
        on_connected(it);
}

static void on_time(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct checked *it = argument;
    if (it->state == PROBE_WAITING)
        begin_probe(it);
    else
        finish(it, false, "timeout");
}

/* ---- who is probed ---- */

static struct checked *add_checked(struct health_checks *checks,
                                   struct endpoint *endpoint)
{
    struct checked *it = must_calloc(1, sizeof *it);
    it->checks = checks;
    it->endpoint = endpoint_ref(endpoint);
    it->passes = true;
    stream_init(&it->stream, -1);
    event_assign(&it->timer, checks->base, -1, 0, on_time, it);
    event_assign(&it->io, checks->base, -1, 0, on_writable, it);
    return it;
}

static void free_checked(struct checked *it)
{
    end_probe(it);
    event_del(&it->timer);
    endpoint_unref(it->endpoint);
    free(it);
}

/* Begins, or begins again because it is (no longer) vanished. The first probe comes within so many microseconds. */
static void begin(struct checked *it, bool is_vanished, uint64_t within)
{
    end_probe(it);
    event_del(&it->timer);
    it->is_vanished = is_vanished;
    it->row = 0;
    if (!is_probed(it))
        return;
    struct timeval wait =
        timing_to_timeval(is_vanished ? 0 : timing_random() % (within + 1));
    event_add(&it->timer, &wait);
}

/* Both in one order: what is behind `old` has not been looked at. */
static struct checked *take_same(struct health_checks *checks, size_t *old,
                                 const struct endpoint *endpoint)
{
    while (*old < checks->len) {
        struct checked *it = checks->items[*old];
        int order = endpoint_identity_compare(
            slice_from_text(it->endpoint->identity), it->endpoint->port,
            slice_from_text(endpoint->identity), endpoint->port);
        if (order > 0)
            return NULL;
        ++*old;
        if (it->endpoint == endpoint)
            return it;
        free_checked(it);
    }
    return NULL;
}

void health_checks_apply(struct health_checks *checks, const struct endpoint_set *set,
                         const struct endpoint_list *list)
{
    struct checked **items = must_calloc(set->len, sizeof(struct checked *));
    uint64_t within = checks->config->health_check.interval;
    if (set->len < checks->len + SOON_MAX)
        within = within < SOON ? within : SOON;
    size_t old = 0;
    for (size_t i = 0; i < set->len; i++) {
        struct endpoint *endpoint = set->entries[i].endpoint;
        bool is_vanished = endpoint_list_is_vanished(list, i);
        struct checked *it = take_same(checks, &old, endpoint);
        bool is_new = it == NULL;
        if (is_new)
            it = add_checked(checks, endpoint);
        if (is_new || it->is_vanished != is_vanished)
            begin(it, is_vanished, within);
        items[i] = it;
    }
    while (old < checks->len)
        free_checked(checks->items[old++]);
    free(checks->items);
    checks->items = items;
    checks->len = set->len;
    endpoint_tls_unref(checks->tls);
    checks->tls = endpoint_tls_ref(set->tls);
}

/* A verdict that nothing could change any more is taken back. */
static void take_back_verdict(struct checked *it)
{
    if (is_probed(it) || it->passes)
        return;
    it->passes = true;
    report(it);
}

void health_checks_set_config(struct health_checks *checks,
                              const struct upstream_config *config)
{
    bool agrees = proxy_config_agrees(checks->config, config, "health_check.");
    checks->config = config;
    for (size_t i = 0; i < checks->len && !agrees; i++) {
        begin(checks->items[i], checks->items[i]->is_vanished,
              config->health_check.interval);
        take_back_verdict(checks->items[i]);
    }
}

struct health_checks *health_checks_new(struct event_base *base,
                                        const struct upstream_config *config,
                                        const struct health_callbacks *callbacks,
                                        void *owner)
{
    struct health_checks *checks = must_calloc(1, sizeof *checks);
    checks->base = base;
    checks->config = config;
    checks->callbacks = callbacks;
    checks->owner = owner;
    return checks;
}

void health_checks_free(struct health_checks *checks)
{
    for (size_t i = 0; i < checks->len; i++)
        free_checked(checks->items[i]);
    free(checks->items);
    endpoint_tls_unref(checks->tls);
    free(checks);
}
