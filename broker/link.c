#include "broker/link_parts.h"

#include "broker/batch_clock.h"
#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/link_reader.h"
#include "broker/output.h"
#include "broker/standing_clock.h"
#include "broker/turn.h"
#include "shared/log.h"
#include "shared/net.h"
#include "shared/timing.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>

#define BACKOFF_FIRST MILLISECONDS(100)
#define BACKOFF_LAST  SECONDS(5)

#define CONNECT_WITHIN SECONDS(3) /* address, connection and start together, each */

/* Where another address of the name is left. */
#define CONNECT_TO_ONE_WITHIN SECONDS(1)
#define PROBE_EVERY                                                                      \
    SECONDS(1) /* publishing: always; subscribing: when nothing is heard */
#define ANSWER_WITHIN SECONDS(1) /* publishing */

/* Of a message longer than what else may be in flight, doubled at each ending that it was in vain: buffers on the way
 * may take megabytes of it at once, and pass them on slowly. */
#define PATIENCE_LAST SECONDS(16)
#define PONG_WITHIN                                                                      \
    SECONDS(2) /* subscribing: stale three seconds after the last sign of life */
#define TICK MILLISECONDS(100)

/* One read. What is published comes back here, in larger pieces than it was sent in: a Redis that is not read
 * as fast as it is written to must hold the difference. Pages that are not used cost nothing. */
#define READ_SIZE_PUBLISHING  ((size_t)16 * 1024)
#define READ_SIZE_SUBSCRIBING ((size_t)256 * 1024)

/* The type of a TLS record (RFC 8446 section 5.1). */
#define TLS_ALERT 21

/* Channels in one SUBSCRIBE: small enough that Redis does other things in between. */
#define SUBSCRIBE_BATCH 512

void link_change(struct link *link, enum link_state state)
{
    if (link->state == state)
        return;
    link->state = state;
    link->changed_at = timing_now();
}

static void set_timer(struct link *link, uint64_t after)
{
    struct timeval interval = timing_to_timeval(after);
    check(event_add(link->timer, &interval) == 0);
}

/* Alone in flight but for a probe. */
static bool is_long(size_t len)
{
    return len > LINK_IN_FLIGHT_BYTES;
}

/* ── commands ── */

void link_send_arguments(struct link *link, int count, const char **arguments,
                         const size_t *lens)
{
    char *command = NULL;
    int len = redisFormatCommandArgv(&command, count, arguments, lens);
    check(len > 0);
    output_append(&link->output,
                  chunk_writer_copy(&link->writer, slice_of(command, (size_t)len)), false,
                  timing_now());
    free(command);
}

static void expect(struct link *link, size_t len)
{
    check(link->expected_count < EXPECTED_MAX);
    unsigned last = (link->expected_first + link->expected_count) % EXPECTED_MAX;
    link->expected[last].len = len;
    link->expected[last].at = standing_now();
    link->expected[last].end = link->written + link->output.bytes;
    link->expected_count++;
}

/* A demoted master takes publishes that nobody sees, so it is asked what it is. */
static void send_probe(struct link *link, uint64_t now)
{
    bool is_publishing = link->config.kind == LINK_PUBLISHING;
    if (is_publishing)
        link_send_role(link);
    else
        link_send_word(link, "PING");
    if (is_publishing)
        expect(link, 0); /* behind link_send_arguments(): its end is that of the output */
    link->probes = true;
    link->probed_at = now;
}

static void send_channels(struct link *link)
{
    if (link->channel_count == 0)
        return;
    size_t len = evbuffer_get_length(link->channels);
    char head[64];
    int head_len = snprintf(head, sizeof(head), "*%u\r\n$%d\r\n%s\r\n",
                            link->channel_count + 1, link->channels_are_new ? 9 : 11,
                            link->channels_are_new ? "SUBSCRIBE" : "UNSUBSCRIBE");
    check(head_len > 0 && (size_t)head_len < sizeof(head));
    char *room = chunk_writer_reserve(&link->writer, (size_t)head_len + len);
    memcpy(room, head, (size_t)head_len);
    check(evbuffer_remove(link->channels, room + head_len, len) == (int)len);
    output_append(&link->output,
                  chunk_writer_commit(&link->writer, (size_t)head_len + len), false,
                  timing_now());
    link->channel_count = 0;
}

static void add_channel(struct link *link, struct slice channel, bool is_new)
{
    check(link->config.kind == LINK_SUBSCRIBING);
    if (link->channel_count > 0 &&
        (link->channels_are_new != is_new || link->channel_count == SUBSCRIBE_BATCH))
        send_channels(link);
    link->channels_are_new = is_new;
    link->channel_count++;
    link->is_hurried = true;
    evbuffer_add_printf(link->channels, "$%zu\r\n", channel.len);
    evbuffer_add(link->channels, channel.data, channel.len);
    evbuffer_add(link->channels, "\r\n", 2);
    turn_request(link->turn);
}

void link_close_with_text(struct link *link, enum close_reason reason, struct slice text)
{
    snprintf(link->reason_text, sizeof(link->reason_text), "%.*s", SLICE_ARGS(text));
    link_close(link, reason);
}

/* ── what comes from Redis ── */

static bool on_message(void *context, struct slice channel, struct slice payload)
{
    struct link *link = context;
    if (link->config.kind == LINK_PUBLISHING)
        link_close(link, CLOSE_PROTOCOL);
    else if (link->state == LINK_UP)
        link->callbacks.on_message(link->callbacks.context, link, channel, payload);
    return link->state != LINK_DOWN;
}

static bool on_too_long(void *context, struct slice channel, struct slice start,
                        size_t len)
{
    struct link *link = context;
    if (link->config.kind == LINK_PUBLISHING)
        link_close(link, CLOSE_PROTOCOL);
    else if (link->state == LINK_UP)
        link->callbacks.on_too_long(link->callbacks.context, link, channel, start, len);
    return link->state != LINK_DOWN;
}

static void take_published(struct link *link, const struct link_reply *reply)
{
    if (link->expected_count == 0) {
        link_close(link, CLOSE_PROTOCOL);
        return;
    }
    size_t len = link->expected[link->expected_first].len;
    link->expected_first = (link->expected_first + 1) % EXPECTED_MAX;
    link->expected_count--;
    if (len == 0) {
        link->probes = false;
        enum role role = link_role_of(link, reply);
        if (role == ROLE_REFUSED || role == ROLE_UNKNOWN)
            link_close_with_text(link, CLOSE_LINK_DENIED, reply->text);
        else if (role != ROLE_MASTER)
            link_close_with_text(link, CLOSE_LINK_NOT_MASTER, SLICE(""));
        return;
    }
    link->in_flight_count--;
    link->in_flight_bytes -= len;
    if (is_long(len)) {
        link->moved_at = standing_now(); /* a probe waited behind it */
        link->patience = ANSWER_WITHIN;
    }
    link->callbacks.on_reply(link->callbacks.context, link,
                             reply->type == LINK_REPLY_INTEGER, reply->text);
}

static void take_pushed(struct link *link, const struct link_reply *reply)
{
    struct slice word = reply->text;
    /* a full disk: Redis refuses PING with it, and nothing that is needed here */
    bool is_pong = slice_starts_with(word, SLICE("MISCONF"));
    if (reply->type == LINK_REPLY_ERROR && !is_pong)
        link_close_with_text(link, CLOSE_LINK_DENIED, word);
    else if (reply->type != LINK_REPLY_ARRAY)
        /* PING before the first SUBSCRIBE is answered with a status */
        link->probes = false;
    else if (slice_equals(word, SLICE("pong")))
        link->probes = false;
    else if (slice_equals(word, SLICE("subscribe")))
        link->callbacks.on_subscribed(link->callbacks.context, link, reply->channel,
                                      true);
    else if (slice_equals(word, SLICE("unsubscribe")))
        link->callbacks.on_subscribed(link->callbacks.context, link, reply->channel,
                                      false);
}

static bool on_reply(void *context, const struct link_reply *reply)
{
    struct link *link = context;
    if (link->state == LINK_CHECKING)
        link_take_step(link, reply);
    else if (link->config.kind == LINK_PUBLISHING)
        take_published(link, reply);
    else
        take_pushed(link, reply);
    return link->state != LINK_DOWN;
}

/* ── writing ── */

/* The connection has ended, with `error` or (0) orderly. At the start the reason is most often that the other side
 * wanted TLS, or a certificate in it, which a reset that overtakes its alert does not show. */
static void end_of_connection(struct link *link, int error)
{
    bool is_tls = link->stream.ssl != NULL;
    bool is_mute = link->state == LINK_CHECKING && link->heard_at == link->probed_at;
    if (error == EPROTO)
        link_close_with_text(link, CLOSE_LINK_TLS, slice_from_text(stream_failure()));
    else if (is_mute && is_tls)
        link_close_with_text(
            link, CLOSE_LINK_TLS,
            SLICE("ended before its first answer; if it wants a certificate, "
                  "give tls.cert and tls.key"));
    else if (is_mute)
        link_close_with_text(
            link, error == 0 ? CLOSE_PEER : CLOSE_BROKEN,
            SLICE("ended before its first answer; if it speaks TLS, the URL "
                  "must begin with rediss://"));
    else
        link_close(link, error == 0 ? CLOSE_PEER : CLOSE_BROKEN);
}

void link_write_output(struct link *link)
{
    size_t wrote = 0;
    enum output_result result = output_write(&link->output, &link->stream, &wrote);
    link->written += wrote;
    switch (result) {
    case OUTPUT_EMPTY:
        if (link->is_blocked)
            event_del(&link->writable);
        link->is_blocked = link->is_hurried = false;
        chunk_writer_rewind(&link->writer);
        return;
    case OUTPUT_BLOCKED:
        if (!link->is_blocked)
            check(event_add(&link->writable, NULL) == 0);
        link->is_blocked = true;
        return;
    case OUTPUT_BROKEN:
        end_of_connection(link, errno);
        return;
    }
    unreachable();
}

void link_begin_checking(struct link *link)
{
    link_change(link, LINK_CHECKING);
    link->heard_at = link->probed_at = standing_now();
    if (!link_send_start(link))
        return;
    check(event_add(&link->readable, NULL) == 0);
    link_write_output(link);
}

/* ── reading ── */

/* A read of TLS gives one record; more are taken while a whole one has room, so that a busy shard is not read in
 * smaller pieces than a plain one. */
static ssize_t read_records(struct link *link, char *room, size_t size)
{
    size_t total = 0;
    ssize_t len;
    do {
        len = stream_read(&link->stream, room + total, size - total);
        total += len > 0 ? (size_t)len : 0;
    } while (len > 0 && size - total >= STREAM_RECORD_MAX);
    return total > 0 ? (ssize_t)total : len; /* an end or error is met again */
}

/* Where TLS is wanted and we speak none, the answer is an alert (RFC 8446 section 6), not Redis' protocol. */
static bool is_alert(const struct link *link, const char *bytes)
{
    return link->state == LINK_CHECKING && link->stream.ssl == NULL &&
           (unsigned char)bytes[0] == TLS_ALERT;
}

static void on_readable(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct link *link = argument;
    if (link->state == LINK_CONNECTING) {
        link_go_on_connecting(link);
        return;
    }
    size_t size;
    char *room = link_reader_room(link->reader, &size);
    ssize_t len = link->stream.ssl != NULL ? read_records(link, room, size)
                                           : stream_read(&link->stream, room, size);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (len <= 0) {
        end_of_connection(link, len == 0 ? 0 : errno);
        return;
    }
    if (is_alert(link, room)) {
        link_close_with_text(link, CLOSE_LINK_TLS,
                             SLICE("it speaks TLS: the URL must begin with rediss://"));
        return;
    }
    batch_clock_start();
    link->heard_at = standing_now();
    struct link_reader *reader = link->reader;
    link->is_parsing = true;
    bool is_good = link_reader_take(reader, (size_t)len);
    link->is_parsing = false;
    batch_clock_stop();
    if (link->state != LINK_DOWN && is_long(link_reader_begun(reader)))
        link->moved_at = link->heard_at;
    if (link->state == LINK_DOWN)
        link_reader_free(reader);
    else if (!is_good)
        link_close(link, CLOSE_PROTOCOL);
    else if (stream_has_pending(&link->stream))
        event_active(&link->readable, EV_READ, 0); /* the descriptor does not show it */
}

static void on_writable(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct link *link = argument;
    if (link->state == LINK_CONNECTING)
        link_go_on_connecting(link);
    else
        link_write_output(link);
}

void link_open(struct link *link, int fd)
{
    stream_init(&link->stream, fd);
    net_set_no_delay(fd);
    net_set_keep_alive(fd, SECONDS(15));
    check(event_assign(&link->readable, link->base, fd, EV_READ | EV_PERSIST, on_readable,
                       link) == 0);
    check(event_assign(&link->writable, link->base, fd, EV_WRITE | EV_PERSIST,
                       on_writable, link) == 0);
    link->has_events = true;
    const struct link_reader_callbacks callbacks = {on_message, on_too_long, on_reply,
                                                    link};
    size_t read_size = link->config.kind == LINK_PUBLISHING ? READ_SIZE_PUBLISHING
                                                            : READ_SIZE_SUBSCRIBING;
    link->reader = link_reader_new(read_size, link->config.message_max, &callbacks);
}

/* ── time ── */

/* What the shard's kernel has acknowledged since: of the oldest only. A stopped Redis has a kernel that goes on taking
 * what comes behind it. */
static void look_what_moved(struct link *link, uint64_t now)
{
    if (link->expected_count == 0)
        return;
    uint64_t waiting = stream_unacknowledged(&link->stream);
    uint64_t acknowledged = link->written > waiting ? link->written - waiting : 0;
    if (acknowledged <= link->acknowledged)
        return;
    if (link->acknowledged < link->expected[link->expected_first].end)
        link->moved_at = now;
    link->acknowledged = acknowledged;
}

static bool is_unanswered(const struct link *link, uint64_t now)
{
    if (link->config.kind == LINK_PUBLISHING) {
        unsigned oldest = link->expected_first;
        uint64_t sent_at = link->expected[oldest].at;
        uint64_t since = sent_at > link->moved_at ? sent_at : link->moved_at;
        bool is_patient = is_long(link->expected[oldest].len);
        return link->expected_count > 0 &&
               now - since > (is_patient ? link->patience : ANSWER_WITHIN);
    }
    return link->probes && now - link->probed_at > PONG_WITHIN &&
           now - link->heard_at > PONG_WITHIN;
}

static bool is_probe_due(const struct link *link, uint64_t now)
{
    uint64_t since =
        link->config.kind == LINK_PUBLISHING ? link->probed_at : link->heard_at;
    return !link->probes && now - since > PROBE_EVERY;
}

static void tick(struct link *link)
{
    uint64_t now = standing_now();
    set_timer(link, TICK);
    if (link->state < LINK_UP) {
        bool is_one_of_several =
            link->state == LINK_CONNECTING && link_has_other_address(link);
        if (timing_now() - link->changed_at <=
            (is_one_of_several ? CONNECT_TO_ONE_WITHIN : CONNECT_WITHIN))
            return;
        bool is_securing = link->state == LINK_CONNECTING && link->stream.ssl != NULL;
        link_close_with_text(link, CLOSE_LINK_TIMEOUT,
                             is_securing
                                 ? SLICE("no answer in the TLS handshake; does it "
                                         "speak TLS?")
                                 : SLICE(""));
        return;
    }
    if (link->config.kind == LINK_PUBLISHING)
        look_what_moved(link, now);
    if (is_unanswered(link, now)) {
        if (is_long(link->in_flight_bytes) && link->patience < PATIENCE_LAST)
            link->patience *= 2;
        link_close(link, CLOSE_LINK_UNANSWERED);
    } else if (is_probe_due(link, now)) {
        send_probe(link, now);
        link_write_output(link);
    }
}

static void begin(struct link *link)
{
    set_timer(link, TICK);
    link->reason_text[0] = '\0'; /* the next ending has words of its own, or none */
    link_connect(link);
}

static void on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct link *link = argument;
    if (link->state == LINK_DOWN)
        begin(link);
    else
        tick(link);
}

/* ── public ── */

/* Lets go of everything that belongs to the connection. */
static void let_go(struct link *link)
{
    if (link->request != NULL)
        evdns_getaddrinfo_cancel(link->request);
    link->request = NULL;
    if (link->has_events) {
        event_del(&link->readable);
        event_del(&link->writable);
    }
    link->has_events = link->is_blocked = link->is_hurried = false;
    stream_close(&link->stream);
    if (link->reader != NULL && !link->is_parsing)
        link_reader_free(link->reader);
    link->reader = NULL; /* while parsing, on_readable frees it */
    output_clear(&link->output);
    evbuffer_drain(link->channels, evbuffer_get_length(link->channels));
    link->channel_count = 0;
    link->probes = false;
    link->expected_first = link->expected_count = 0;
    link->in_flight_count = 0;
    link->in_flight_bytes = 0;
    link->written = link->acknowledged = link->moved_at = 0;
}

struct link *link_new(struct event_base *base, struct turn *turn, struct evdns_base *dns,
                      const struct link_config *config,
                      const struct link_callbacks *callbacks)
{
    struct link *link = must_calloc(1, sizeof(*link));
    link->base = base;
    link->turn = turn;
    link->dns = dns;
    link->config = *config;
    link->callbacks = *callbacks;
    link->client_name = must_strdup(config->client_name);
    link->reason = CLOSE_SHUTDOWN;
    link->changed_at = timing_now();
    link->patience = ANSWER_WITHIN;
    link->stream.fd = -1;
    link->timer = event_new(base, -1, 0, on_timer, link);
    link->channels = evbuffer_new();
    check(link->timer != NULL && link->channels != NULL);
    backoff_init(&link->backoff, BACKOFF_FIRST, BACKOFF_LAST);
    return link;
}

void link_free(struct link *link)
{
    check(!link->is_parsing);
    let_go(link);
    event_free(link->timer);
    evbuffer_free(link->channels);
    output_cleanup(&link->output);
    chunk_writer_cleanup(&link->writer);
    free(link->client_name);
    free(link);
}

void link_start(struct link *link)
{
    if (link->is_started)
        return;
    link->is_started = true;
    set_timer(link, 0);
}

/* Another address of the same name may do better. */
static bool is_of_address(enum close_reason reason)
{
    return reason == CLOSE_LINK_REFUSED || reason == CLOSE_LINK_TIMEOUT ||
           reason == CLOSE_LINK_NOT_MASTER || reason == CLOSE_LINK_TLS ||
           reason == CLOSE_PEER || reason == CLOSE_BROKEN;
}

void link_close(struct link *link, enum close_reason reason)
{
    if (link->state == LINK_DOWN)
        return;
    link->reason = reason;
    bool goes_on =
        link->is_started && link_has_other_address(link) && is_of_address(reason);
    if (!goes_on)
        link->address_count = link->address_next = 0;
    let_go(link);
    link_change(link, LINK_DOWN);
    if (goes_on) {
        set_timer(link, 0);
        return;
    }
    metrics_add_by(M_LINKS_CLOSED, (int)reason, 1);
    if (link->is_started) {
        bool at_once =
            link->may_retry_at_once && (reason == CLOSE_PEER || reason == CLOSE_BROKEN);
        link->may_retry_at_once = false;
        set_timer(link, at_once ? 0 : backoff_next(&link->backoff));
    }
    link->callbacks.on_change(link->callbacks.context, link);
}

enum link_state link_state(const struct link *link)
{
    return link->state;
}

const char *link_state_text(enum link_state state)
{
    switch (state) {
    case LINK_DOWN:
        return "down";
    case LINK_RESOLVING:
        return "resolving";
    case LINK_CONNECTING:
        return "connecting";
    case LINK_CHECKING:
        return "checking";
    case LINK_UP:
        return "up";
    }
    unreachable();
}

enum close_reason link_last_reason(const struct link *link)
{
    return link->reason;
}

const char *link_last_text(const struct link *link)
{
    return link->reason_text[0] != '\0' ? link->reason_text
                                        : close_reason_sentence(link->reason);
}

bool link_has_room(const struct link *link, size_t len)
{
    return link->in_flight_count == 0 ||
           (link->in_flight_count < LINK_IN_FLIGHT_MESSAGES &&
            link->in_flight_bytes + len <= LINK_IN_FLIGHT_BYTES);
}

void link_send(struct link *link, struct span command)
{
    check(link->config.kind == LINK_PUBLISHING && command.len > 0);
    output_append(&link->output, command, false, batch_now());
    expect(link, command.len);
    link->in_flight_count++;
    link->in_flight_bytes += command.len;
    turn_request(link->turn);
}

void link_hurry(struct link *link)
{
    link->is_hurried = true;
}

bool link_is_hurried(const struct link *link)
{
    return link->is_hurried;
}

void link_subscribe(struct link *link, struct slice channel)
{
    add_channel(link, channel, true);
}

void link_unsubscribe(struct link *link, struct slice channel)
{
    add_channel(link, channel, false);
}

unsigned link_in_flight_count(const struct link *link)
{
    return link->in_flight_count;
}

size_t link_in_flight_bytes(const struct link *link)
{
    return link->in_flight_bytes;
}

bool link_is_held_up(const struct link *link)
{
    return is_long(link->in_flight_bytes);
}

uint64_t link_moved_at(const struct link *link)
{
    return link->moved_at;
}

size_t link_queued_bytes(const struct link *link)
{
    return link->output.bytes + evbuffer_get_length(link->channels);
}

void link_flush(struct link *link)
{
    if (link->state < LINK_UP)
        return;
    send_channels(link);
    if (!link->is_blocked && link->output.bytes > 0)
        link_write_output(link);
}
