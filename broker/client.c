#include "broker/client_parts.h"

#include "broker/batch_clock.h"
#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/replay_rewrite.h"
#include "broker/transaction.h"
#include "broker/turn.h"
#include "shared/net.h"
#include "shared/timing.h"

#include <errno.h>
#include <event2/buffer.h>
#include <stdlib.h>
#include <unistd.h>

/* A client that does not take its replies is not read from while more than this waits. */
#define OUTPUT_PAUSE ((size_t)1024 * 1024)

/* A finishing client that does not take what is queued is closed after this. */
#define FINISH_WITHIN SECONDS(1)

/* So much is written whatever the window says. */
#define WINDOW_BYTES ((size_t)64 * 1024)

/* Requests of one client in one turn, while others wait; looked at after so many, and after each long one. */
#define TAKE_WITHIN  MILLISECONDS(2)
#define LOOK_EVERY   16
#define LONG_REQUEST 64 /* arguments */
#define LONG_REPLIES ((size_t)16 * 1024)

/* What one client gets done in a pass of those that wait: so much, or LOOK_EVERY requests; one in any case. One by one
 * their answers would be written one by one. */
#define PASS_BYTES ((size_t)8 * 1024)

#define SWEEP_EVERY SECONDS(1)

#define FOREIGN_LOG_EVERY SECONDS(60)

struct log_subject client_subject(const struct client *client)
{
    return (struct log_subject){.kind = "client", .id = client->facts.id};
}

static void finish(struct client *client, enum close_reason reason)
{
    client_enter(client, CLIENT_FINISHING);
    client->finish_reason = reason;
    client->finishing_since = timing_now();
    client_make_dirty(client);
}

/* Its request is answered: the next one may come. */
static void go_on(struct client *client)
{
    client_cease_to_wait(client);
    if (client->state == CLIENT_OPEN)
        client_set_reading(client, true);
}

/* ── input ── */

/* What is in `reply` becomes a span of the shared chunk. */
static void queue_bytes(struct client *client, struct evbuffer *reply, uint64_t now)
{
    struct client_set *set = client->set;
    size_t len = evbuffer_get_length(reply);
    if (len == 0)
        return;
    char *room = chunk_writer_reserve(&set->replies, len);
    check(evbuffer_remove(reply, room, len) == (int)len);
    if (client->state == CLIENT_OPEN) {
        client_queue(client, chunk_writer_commit(&set->replies, len), false, now);
        client_make_dirty(client);
    }
}

/* In order with what is delivered to it. */
void client_reply_partly(struct client *client, struct evbuffer *reply)
{
    if (evbuffer_get_length(reply) > 0 &&
        (client->subscriber.counts[0] + client->subscriber.counts[1] > 0 ||
         evbuffer_get_length(reply) >= READ_SIZE))
        queue_bytes(client, reply, batch_now());
    if (client->heir_of != NULL)
        client_take_inheritance(client);
}

static void queue_reply(struct client *client, uint64_t now)
{
    queue_bytes(client, client->set->reply, now);
}

/* A web page or webhook that posts to us may be an attack; or an address is wrong somewhere. Told at most once a minute:
 * whoever does it may do it often. */
static void note_foreign(struct client *client, const char *what, uint64_t now)
{
    struct client_set *set = client->set;
    set->foreign++;
    if (set->foreign_logged_at != 0 && now - set->foreign_logged_at < FOREIGN_LOG_EVERY)
        return;
    struct log_subject subject = client_subject(client);
    char text[ADDRESS_TEXT_SIZE];
    log_warn(
        &subject, "possible attack: a connection that does not speak to Redis was ended",
        LOG_TEXT("what", what), LOG_TEXT("peer", address_text(&client->facts.peer, text)),
        LOG_UNSIGNED("since_last_told", set->foreign));
    set->foreign_logged_at = now;
    set->foreign = 0;
}

/* False: the connection was not meant for us. */
static bool may_begin(struct client *client, struct slice input, uint64_t now)
{
    struct client_set *set = client->set;
    if (client->has_begun || set->callbacks.look_first == NULL)
        return true;
    switch (set->callbacks.look_first(set->callbacks.context, input)) {
    case FIRST_MORE:
        return true;
    case FIRST_OURS:
        client->has_begun = true;
        return true;
    case FIRST_FOREIGN:
        break;
    }
    note_foreign(client, "first bytes", now);
    resp_write_error(set->reply,
                     "ERR Protocol error: a connection begins with RESP or an "
                     "inline command of this broker");
    queue_reply(client, now);
    finish(client, CLOSE_FOREIGN);
    return false;
}

/* Is it the others' turn, after so many requests and bytes? */
static bool is_over(const struct client_set *set, const struct resp_request *request,
                    unsigned taken, size_t done, uint64_t since)
{
    bool looks = taken % LOOK_EVERY == 0 || request->argc > LONG_REQUEST ||
                 evbuffer_get_length(set->reply) > LONG_REPLIES;
    if (set->waiting.current != NULL)
        return looks || done >= PASS_BYTES;
    return looks && timing_now() - since > TAKE_WITHIN;
}

/* Gives whole requests to the owner; returns how many bytes are done with. */
static size_t take_requests(struct client *client, struct slice input)
{
    struct client_set *set = client->set;
    size_t done = 0;
    unsigned taken = 0;
    batch_clock_start();
    uint64_t now = batch_now();
    while (client->state == CLIENT_OPEN && client->output.bytes <= OUTPUT_PAUSE) {
        struct resp_request request;
        if (!may_begin(client, slice_from(input, done), now))
            break;
        client->parser.is_unauthenticated = !client->facts.is_authenticated;
        enum parse_result result =
            resp_parse(&client->parser, slice_from(input, done), &request);
        if (result == PARSE_MORE) {
            done += request.consumed;
            break;
        }
        if (result == PARSE_BAD) {
            resp_write_error(set->reply, resp_error(&client->parser));
            queue_reply(client, now);
            finish(client, CLOSE_PROTOCOL);
            break;
        }
        enum client_verdict verdict = CLIENT_GO_ON;
        if (request.over != RESP_FITS)
            set->callbacks.on_too_long(set->callbacks.context, client, &request,
                                       set->reply);
        if (request.argc > 0) {
            client->facts.active_at = now;
            client_wait_for(client, CLIENT_WAITS_ALONE, client->facts.id);
            verdict = set->callbacks.on_request(set->callbacks.context, client,
                                                request.argc, request.argv, set->reply);
        }
        if (verdict == CLIENT_DISTRUST) {
            note_foreign(client, "POST or Host: as a command", now);
            client_close(client, CLOSE_FOREIGN);
            break;
        }
        if (verdict == CLIENT_YIELD) {
            if (client->facts.waits_since != 0)
                go_on(client);
            client_yield(client);
            break;
        }
        if (verdict == CLIENT_WAIT) {
            /* The parser has let go of this request: it will read it again. It stays in the loop until more comes
             * (on_readable): most of those who wait for an answer send nothing. */
            client_begin_to_wait(client, now);
            break;
        }
        if (client->facts.waits_since != 0)
            go_on(client);
        done += request.consumed;
        bool yields = done < input.len && is_over(set, &request, ++taken, done, now);
        client_reply_partly(client, set->reply);
        if (verdict == CLIENT_FINISH) {
            queue_reply(client, now);
            finish(client, CLOSE_QUIT);
        }
        if (yields && client->state == CLIENT_OPEN) {
            client_yield(client);
            break;
        }
    }
    queue_reply(client, now);
    batch_clock_stop();
    if (client->state == CLIENT_OPEN && client->output.bytes > OUTPUT_PAUSE)
        client_set_reading(client, false);
    return done;
}

/* Not while requests are taken: they lie in the input. */
static void bound_inputs(struct client_set *set)
{
    while (set->input_bytes > set->limits.input) {
        struct client *client = client_longest_input(set);
        if (client == NULL)
            return;
        resp_write_error(set->reply, "ERR unfinished requests of all clients are longer "
                                     "than limits.input, and this is the longest");
        queue_reply(client, timing_now());
        finish(client, CLOSE_INPUT);
        client_input_give_back(client);
    }
}

void client_take_input(struct client *client)
{
    if (client->input != NULL) {
        size_t done = take_requests(client, slice_of(client->input, client->input_len));
        client_input_keep(client,
                          slice_of(client->input + done, client->input_len - done));
    }
}

static void on_readable(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct client *client = argument;
    struct client_set *set = client->set;
    if (client->state == CLIENT_GREETING) {
        client_greet(client);
        return;
    }
    check(client->state == CLIENT_OPEN);
    if (client->facts.waits_since != 0 || client->yields) {
        client_set_reading(client, false);
        return;
    }
    char *room = set->scratch;
    size_t size = READ_SIZE;
    if (client->input != NULL) {
        client_input_grow(client);
        room = client->input + client->input_len;
        size = client->input_size - client->input_len;
    }
    ssize_t len = stream_read(&client->stream, room, size);
    if (len < 0) {
        if (errno != EAGAIN && errno != EINTR)
            client_close(client, CLOSE_BROKEN);
        return;
    }
    if (len == 0) {
        if (client_may_park(client, CLOSE_PEER))
            client_end(client, CLOSE_PEER);
        else
            finish(client, CLOSE_PEER);
        return;
    }
    if (stream_has_pending(&client->stream))
        event_active(&client->readable, EV_READ, 0); /* the descriptor does not tell */
    if (client->input != NULL) {
        client_input_set_len(client, client->input_len + (size_t)len);
        if (client->input_len >= resp_wanted(&client->parser))
            client_take_input(client);
    } else {
        size_t done = take_requests(client, slice_of(set->scratch, (size_t)len));
        client_input_keep(client, slice_of(set->scratch + done, (size_t)len - done));
    }
    bound_inputs(set);
}

/* ── output ── */

static void after_write(struct client *client, enum output_result result)
{
    switch (result) {
    case OUTPUT_BROKEN:
        client_close(client, CLOSE_BROKEN);
        return;
    case OUTPUT_BLOCKED:
        if (!client->is_blocked)
            check(event_add(&client->writable, NULL) == 0);
        client->is_blocked = true;
        return;
    case OUTPUT_EMPTY:
        if (client->is_blocked)
            event_del(&client->writable);
        client->is_blocked = false;
        if (client->state == CLIENT_FINISHING)
            client_close(client, client->finish_reason);
        return;
    }
    unreachable();
}

/* A client that was paused because it took no replies goes on. */
static void unpause(struct client *client)
{
    if (client->state != CLIENT_OPEN || client->is_reading || client->yields ||
        client->facts.waits_since != 0 || client->output.bytes > OUTPUT_PAUSE / 2)
        return;
    if (client->input != NULL)
        client_yield(client); /* one that reads fast would keep the turn from its end */
    else
        client_set_reading(client, true);
}

static void flush(struct client *client)
{
    size_t wrote = 0;
    enum output_result result = output_write(&client->output, &client->stream, &wrote);
    client->backlog.written += wrote;
    after_write(client, result);
    if (client->state == CLIENT_OPEN)
        unpause(client);
}

static void on_writable(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct client *client = argument;
    if (client->state == CLIENT_GREETING)
        client_greet(client);
    else
        flush(client);
}

static void drop_oldest(struct client *client, size_t left, uint64_t since)
{
    size_t bytes = 0;
    size_t dropped = client_drop_oldest(client, left, since, &bytes);
    if (dropped > 0 && client->facts.dropped == 0) {
        struct log_subject subject = client_subject(client);
        log_warn(&subject, "slow subscriber: oldest messages dropped",
                 LOG_TEXT("name", client->facts.name), LOG_UNSIGNED("messages", dropped),
                 LOG_UNSIGNED("bytes", bytes));
    }
    client->facts.dropped += dropped;
    client->facts.delivered -= dropped;
    metrics_add(M_DELIVERIES_DROPPED, (int64_t)dropped);
}

/* The limits of a slow subscriber: what waits, and (once a second) how long. */
static void judge(struct client *client)
{
    const struct client_limits *limits = &client->set->limits;
    client->is_slow = false;
    if (client_waiting_bytes(client) <= limits->slow_bytes)
        return;
    if (limits->slow_policy == SLOW_DISCONNECT)
        client_close(client, CLOSE_SLOW_BYTES);
    else /* down to three quarters, so that this is not done for every message */
        drop_oldest(client, limits->slow_bytes / 4 * 3, 0);
}

static void judge_age(struct client *client, uint64_t now)
{
    const struct client_limits *limits = &client->set->limits;
    if (output_age(&client->output, now) <= limits->slow_age)
        return;
    if (limits->slow_policy == SLOW_DISCONNECT)
        client_close(client, CLOSE_SLOW_AGE);
    else
        drop_oldest(client, SIZE_MAX, now - limits->slow_age);
}

static void work(struct client *client)
{
    if (client->is_slow)
        judge(client);
    if (client->state != CLIENT_CLOSED && !client->is_blocked)
        flush(client);
}

static void client_free(struct client *client)
{
    output_cleanup(&client->output);
    output_cleanup(&client->held);
    replay_cleanup(&client->replay);
    resp_parser_cleanup(&client->parser);
    client_input_give_back(client);
    client_identity_cleanup(client);
    transaction_free(client->facts.transaction);
    free(client->facts.name);
    free(client->facts.lib_name);
    free(client->facts.lib_version);
    broker_config_release(client->facts.listener->whole);
    free(client);
}

static void free_closed(struct client_set *set)
{
    struct client *client;
    while ((client = TAILQ_FIRST(&set->closed)) != NULL) {
        TAILQ_REMOVE(&set->closed, client, of_work);
        client_free(client);
    }
}

static void end_turn(void *context)
{
    struct client_set *set = context;
    client_resume_waiting(set);
    /* Work may make others dirty (a PUBLISH); they are done in the same pass. */
    struct client *client;
    while ((client = TAILQ_FIRST(&set->dirty)) != NULL) {
        TAILQ_REMOVE(&set->dirty, client, of_work);
        client->is_dirty = false;
        work(client);
    }
    if (set->passes) {
        set->passes = false;
        window_note_flush(&set->window, timing_now());
    }
    set->greeted = 0;
    client_bound_parked(set);
    free_closed(set);
    chunk_writer_rewind(&set->replies);
    if (set->on_empty != NULL && set->count == 0) {
        void (*on_empty)(void *context) = set->on_empty;
        set->on_empty = NULL;
        on_empty(set->on_empty_context);
    }
}

static void on_window(void *context)
{
    struct client_set *set = context;
    struct client *client;
    set->passes = !TAILQ_EMPTY(&set->lagging);
    while ((client = TAILQ_FIRST(&set->lagging)) != NULL)
        client_make_dirty(client);
}

/* ── once a second: age, heartbeat, clients that do not finish ── */

/* False: it needs no write of its own now. */
static bool queue_delivery(struct client *client, struct span message, uint64_t now)
{
    if (client_is_parked(client)) {
        client_deliver_parked(client, message);
        return false;
    }
    if (client->state != CLIENT_OPEN)
        return false;
    client->delivered_at = now;
    client->facts.delivered++;
    client_queue(client, message, true, now);
    if (client_waiting_bytes(client) > client->set->limits.slow_bytes &&
        !client->is_slow) {
        client->is_slow = true;
        client_make_dirty(client);
        return false;
    }
    return !client->is_blocked && !client->is_dirty;
}

/* Of the pod's own channel: one of another ends the reader of aioredis 1. HEARTBEAT_PAYLOAD says why nobody sees it. */
void client_beat(struct client *client, uint64_t now)
{
    struct client_set *set = client->set;
    struct slice payload = SLICE(HEARTBEAT_PAYLOAD);
    struct slice channel = set->callbacks.message_channel(set->callbacks.context, client);
    if (channel.data == NULL)
        return;
    char *room = chunk_writer_reserve(&set->replies,
                                      RESP_HEAD_ROOM + channel.len + payload.len + 2);
    size_t len =
        resp_put_message_head(room, client->facts.protocol, channel, payload.len);
    memcpy(room + len, payload.data, payload.len);
    memcpy(room + len + payload.len, "\r\n", 2);
    /* neither waits for the flush window nor makes a message wait */
    if (queue_delivery(client, chunk_writer_commit(&set->replies, len + payload.len + 2),
                       now))
        client_make_dirty(client);
    client->facts.delivered--;
    client->beats++;
    metrics_add(M_HEARTBEATS, 1);
}

static void beat_if_due(struct client *client, uint64_t now)
{
    struct client_set *set = client->set;
    if (set->limits.heartbeat == 0 || client->output.bytes > 0 ||
        now - client->delivered_at + SWEEP_EVERY / 2 < set->limits.heartbeat ||
        !set->callbacks.wants_heartbeat(set->callbacks.context, client))
        return;
    client_beat(client, now);
}

static void on_sweep(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct client_set *set = argument;
    uint64_t now = timing_now();
    struct client *next;
    for (struct client *client = client_first(set); client != NULL; client = next) {
        next = client_next(client);
        if (client->state == CLIENT_ENDING)
            continue;
        if (client->state == CLIENT_GREETING) {
            client_hurry_greeting(client, now);
            continue;
        }
        if (client->state == CLIENT_FINISHING) {
            if (now - client->finishing_since > FINISH_WITHIN && set->on_empty == NULL)
                client_close(client, client->finish_reason);
            continue;
        }
        judge_age(client, now);
        if (client->state != CLIENT_OPEN)
            continue;
        if (client->is_kept && set->limits.heartbeat > 0 && client_is_cut_off(client))
            client_close(client, CLOSE_BROKEN);
        else
            beat_if_due(client, now);
    }
    struct client *parked;
    while ((parked = TAILQ_FIRST(&set->parked)) != NULL &&
           now - parked->parked_at > set->limits.replay_window)
        client_expire(parked, "replay.window");
    turn_request(set->turn);
}

/* ── the set ── */

struct client_set *client_set_new(struct event_base *base, struct turn *turn,
                                  const struct client_limits *limits,
                                  const struct client_callbacks *callbacks)
{
    struct client_set *set = must_calloc(1, sizeof(*set));
    set->base = base;
    set->limits = *limits;
    set->callbacks = *callbacks;
    TAILQ_INIT(&set->open);
    TAILQ_INIT(&set->dirty);
    TAILQ_INIT(&set->lagging);
    client_waiting_init(&set->waiting);
    TAILQ_INIT(&set->yielding);
    TAILQ_INIT(&set->behind);
    TAILQ_INIT(&set->ending);
    TAILQ_INIT(&set->parked);
    TAILQ_INIT(&set->closed);
    set->reply = evbuffer_new();
    set->turn = turn;
    set->dialects = dialect_book_new();
    set->echoes = echo_book_new();
    if (limits->rewritten_max > 0)
        set->rewrite =
            replay_rewrite_new(limits->depth_max, limits->rewritten_max,
                               callbacks->carries_messages, callbacks->context);
    turn_add_step(turn, end_turn, set);
    window_init(&set->window, base, limits->flush_window, on_window, set);
    set->sweep = event_new(base, -1, EV_PERSIST, on_sweep, set);
    set->end_tick = event_new(base, -1, EV_PERSIST, client_on_end_tick, set);
    set->mark_tick = event_new(base, -1, EV_PERSIST, client_on_mark_tick, set);
    set->look_behind = event_new(base, -1, 0, client_on_look_behind, set);
    check(set->reply != NULL && set->sweep != NULL && set->look_behind != NULL &&
          set->end_tick != NULL && set->mark_tick != NULL);
    set->go_on = event_new(base, -1, 0, client_on_go_on, set);
    check(set->go_on != NULL);
    client_begin_marks(set);
    struct timeval every = timing_to_timeval(SWEEP_EVERY);
    check(event_add(set->sweep, &every) == 0);
    return set;
}

void client_set_set_limits(struct client_set *set, const struct client_limits *limits)
{
    bool has_window = limits->flush_window != set->limits.flush_window;
    set->limits = *limits;
    if (has_window)
        window_set_length(&set->window, set->base, limits->flush_window);
}

void client_set_free(struct client_set *set)
{
    struct client *client;
    while ((client = TAILQ_FIRST(&set->open)) != NULL)
        client_close(client, CLOSE_SHUTDOWN);
    while ((client = TAILQ_FIRST(&set->parked)) != NULL)
        client_discard(client);
    free_closed(set);
    event_free(set->end_tick);
    event_free(set->mark_tick);
    window_cleanup(&set->window);
    event_free(set->sweep);
    event_free(set->look_behind);
    event_free(set->go_on);
    evbuffer_free(set->reply);
    chunk_writer_cleanup(&set->replies);
    dialect_book_free(set->dialects);
    echo_book_free(set->echoes);
    replay_rewrite_free(set->rewrite);
    free(set);
}

static void refuse(int fd, bool is_tls)
{
    static const char text[] = "-ERR max number of clients reached\r\n";
    if (!is_tls) {
        ssize_t wrote = write(fd, text, sizeof(text) - 1); /* best effort, as Redis */
        (void)wrote;
    }
    close(fd);
    metrics_add_by(M_CLIENTS_CLOSED, CLOSE_CLIENT_LIMIT, 1);
}

void client_open(struct client_set *set, int fd, const struct address *peer,
                 const struct broker_listener_config *listener)
{
    metrics_add(M_CLIENTS_ACCEPTED, 1);
    if (set->count >= set->limits.clients) {
        refuse(fd, listener->tls_context != NULL);
        return;
    }
    struct client *client = must_calloc(1, sizeof(*client));
    client->set = set;
    stream_init(&client->stream, fd);
    net_set_no_delay(fd);
    net_set_keep_alive(fd, SECONDS(60));
    resp_parser_init(&client->parser, set->limits.payload, set->limits.request);
    subscriber_init(&client->subscriber);
    uint64_t now = timing_now();
    client->delivered_at = now;
    broker_config_hold(listener->whole);
    client->facts = (struct client_facts){
        .id = ++set->next_id,
        .connected_at = now,
        .active_at = now,
        .peer = *peer,
        .local = net_local_address(fd),
        .listener = listener,
        .is_authenticated = listener->users.count == 0,
        .protocol = 2,
        .name = must_strdup(""),
        .identity = must_strdup(""),
        .lib_name = must_strdup(""),
        .lib_version = must_strdup(""),
        .last_command = "NULL",
    };
    dialect_view_init(&client->facts.dialect);
    check(event_assign(&client->readable, set->base, fd, EV_READ | EV_PERSIST,
                       on_readable, client) == 0);
    check(event_assign(&client->writable, set->base, fd, EV_WRITE | EV_PERSIST,
                       on_writable, client) == 0);
    client->state = CLIENT_OPEN;
    if (listener->tls_context != NULL)
        client_begin_greeting(client);
    client_set_reading(client, true);
    TAILQ_INSERT_TAIL(&set->open, client, of_set);
    set->count++;
    metrics_add(M_CLIENTS, 1);
    struct log_subject subject = client_subject(client);
    char text[ADDRESS_TEXT_SIZE];
    log_debug(&subject, "connected", LOG_TEXT("peer", address_text(peer, text)));
}

void client_close(struct client *client, enum close_reason reason)
{
    struct client_set *set = client->set;
    if (client->state == CLIENT_CLOSED || client->state == CLIENT_PARKED)
        return;
    bool is_parked = client_may_park(client, reason);
    client_release_held(client);
    if (is_parked)
        client_trim(client);
    else
        set->callbacks.on_close(set->callbacks.context, client, reason);
    client_enter(client, is_parked ? CLIENT_PARKED : CLIENT_CLOSED);
    echo_view_detach(&client->facts.echo);
    event_del(&client->writable);
    stream_close(&client->stream);
    if (is_parked)
        client_park(client);
    metrics_add(M_CLIENTS, -1);
    metrics_add_by(M_CLIENTS_CLOSED, (int)reason, 1);
    struct log_subject subject = client_subject(client);
    char text[ADDRESS_TEXT_SIZE];
    enum log_level level =
        close_reason_is_error(reason) ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG;
    log_at_(level, level == LOG_LEVEL_DEBUG, &subject, "closed",
            LOG_TEXT("reason", close_reason_label((int)reason)),
            LOG_TEXT("name", client->facts.name),
            LOG_TEXT("peer", address_text(&client->facts.peer, text)),
            LOG_UNSIGNED("published", client->facts.published),
            LOG_UNSIGNED("delivered", client->facts.delivered),
            LOG_UNSIGNED("unread_bytes", client->output.bytes));
    if (!is_parked)
        metrics_add(M_DELIVERIES_DROPPED, (int64_t)output_messages(&client->output));
    output_clear(&client->output);
    turn_request(set->turn);
}

bool client_is_closed(const struct client *client)
{
    return client->state == CLIENT_CLOSED || client->state == CLIENT_PARKED;
}

void client_deliver(struct client *client, struct span message, uint64_t now)
{
    struct client_set *set = client->set;
    if (!queue_delivery(client, message, now))
        return;
    if (set->limits.flush_window > 0 && !set->passes)
        set->passes = window_passes(&set->window, now);
    if (set->limits.flush_window == 0 || set->passes ||
        client->output.bytes >= WINDOW_BYTES) {
        client_make_dirty(client);
        return;
    }
    if (client->is_lagging)
        return;
    client->is_lagging = true;
    TAILQ_INSERT_TAIL(&set->lagging, client, of_work);
    window_wait(&set->window);
}

struct client_facts *client_facts(struct client *client)
{
    return &client->facts;
}

uint64_t client_id(const struct client *client)
{
    return client->facts.id;
}

void client_reply(struct client *client, struct evbuffer *reply)
{
    queue_bytes(client, reply, timing_now());
}

struct subscriber *client_subscriber(struct client *client)
{
    return &client->subscriber;
}

struct client *client_from_subscriber(struct subscriber *subscriber)
{
    return CONTAINER_OF(subscriber, struct client, subscriber);
}

size_t client_input_bytes(const struct client *client)
{
    return client->input_len;
}

size_t client_output_bytes(const struct client *client)
{
    return client->output.bytes;
}

uint64_t client_output_age(const struct client *client)
{
    return output_age(&client->output, timing_now());
}

struct client *client_find(struct client_set *set, uint64_t id)
{
    struct client *client;
    TAILQ_FOREACH(client, &set->open, of_set)
    if (client->facts.id == id)
        return client;
    return NULL;
}

struct client *client_first(struct client_set *set)
{
    return TAILQ_FIRST(&set->open);
}

struct client *client_next(struct client *client)
{
    return TAILQ_NEXT(client, of_set);
}

size_t client_set_undelivered(const struct client_set *set)
{
    size_t messages = 0;
    const struct client *client;
    TAILQ_FOREACH(client, &set->open, of_set)
    messages += output_messages(&client->output) + output_messages(&client->held);
    return messages;
}

unsigned client_count(const struct client_set *set)
{
    return set->count;
}

void client_set_finish(struct client_set *set, void (*on_empty)(void *context),
                       void *context)
{
    set->on_empty = on_empty;
    set->on_empty_context = context;
    while (!TAILQ_EMPTY(&set->parked))
        client_expire(TAILQ_FIRST(&set->parked), "shutdown");
    while (!TAILQ_EMPTY(&set->ending))
        client_close(TAILQ_FIRST(&set->ending), CLOSE_SHUTDOWN);
    struct client *next;
    for (struct client *client = client_first(set); client != NULL; client = next) {
        next = client_next(client);
        if (client->state != CLIENT_FINISHING)
            finish(client, CLOSE_SHUTDOWN);
    }
    turn_request(set->turn);
}
