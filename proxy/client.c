#include "proxy/client.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/admission.h"
#include "proxy/edge_answer.h"
#include "proxy/exchange.h"
#include "proxy/proxy_config.h"
#include "proxy/proxy_header_read.h"
#include "proxy/tunnel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define PIPELINED_MAX   16384u /* bytes held while an exchange runs */
#define LINGER_MS       2000u
#define LINGER_BYTES    65536u
#define INTRODUCTION_MS 3000u  /* for a PROXY header */
#define GREETING_MS     10000u /* for a TLS handshake */
#define HEAD_FIRST_READ 4096u  /* room to begin with when a head comes in pieces */

static const struct proxy_config *config_of(const struct client *client)
{
    return client->worker->current->snapshot->config;
}

static uint32_t now_of(const struct client *client)
{
    return deadline_now(&client->worker->wheel);
}

static struct log_subject subject_of(const struct client *client)
{
    return (struct log_subject){.kind = "client", .id = client->id};
}

static void on_client_due(struct deadline *deadline);

static void set_deadline(struct client *client, uint32_t limit_ms)
{
    deadline_set(&client->worker->wheel, &client->deadline, limit_ms, on_client_due);
}

/* ---- endings ---- */

static void drop_work(struct client *client)
{
    if (client->exchange != NULL)
        exchange_free(client->exchange);
    if (client->tunnel != NULL)
        tunnel_free(client->tunnel);
    client->exchange = NULL;
    client->tunnel = NULL;
    buffer_drop(&client->worker->buffers, &client->in);
}

static const char *work_word(const struct client *client)
{
    if (client->exchange != NULL)
        return exchange_state_word(client->exchange);
    return client->tunnel != NULL ? "tunneling" : "reading";
}

static void log_close(const struct client *client, enum close_reason reason)
{
    const struct close_reason_row *row = close_reason_get(reason);
    int access = config_of(client)->log.access;
    bool is_shown =
        access == LOG_ACCESS_ALL || (access == LOG_ACCESS_ERRORS && row->is_error);
    if (!is_shown && !log_is_on(LOG_LEVEL_DEBUG))
        return;
    char ip[CLIENT_IP_SIZE];
    struct log_subject subject = subject_of(client);
    const struct log_field fields[] = {
        LOG_TEXT("reason", row->word),
        LOG_SLICE("ip", client_ip_text(client, ip)),
        LOG_TEXT("while", work_word(client)),
        LOG_UNSIGNED("requests", client->requests),
        LOG_SECONDS("open", MILLISECONDS(now_of(client) - client->accepted_at)),
    };
    if (access == LOG_ACCESS_ALL)
        log_each(LOG_LEVEL_INFO, &subject, row->sentence, fields[0], fields[1], fields[2],
                 fields[3], fields[4]);
    else if (is_shown)
        log_info(&subject, row->sentence, fields[0], fields[1], fields[2], fields[3],
                 fields[4]);
    else
        log_debug(&subject, row->sentence, fields[0], fields[1], fields[2], fields[3],
                  fields[4]);
}

void client_close(struct client *client, enum close_reason reason)
{
    struct worker *worker = client->worker;
    if (client->state == CLIENT_CLOSED)
        return;
    if (client->state == CLIENT_LINGERING)
        reason = (enum close_reason)client->linger_reason;
    log_close(client, reason);
    metrics_add_by(M_CLIENTS_CLOSED, reason, 1);
    metrics_add(M_CLIENTS_OPEN, -1);
    atomic_fetch_sub_explicit(&worker->process->clients, 1, memory_order_relaxed);
    if (client->exchange != NULL)
        metrics_add(M_EXCHANGES_ABORTED, 1);
    client->state = CLIENT_CLOSED;
    if (client->is_admitted)
        admission_leave(worker->process->admission, &client->ip);
    drop_work(client);
    buffer_drop(&worker->buffers, &client->out);
    deadline_clear(&worker->wheel, &client->deadline);
    client_watch(client, 0);
    stream_close(&client->stream);
    TAILQ_REMOVE(client->is_resuming ? &worker->resuming : &worker->clients, client,
                 entry);
    TAILQ_INSERT_TAIL(&worker->closed, client, entry);
    worker->clients_count--;
}

void client_free(struct client *client)
{
    TAILQ_REMOVE(&client->worker->closed, client, entry);
    slab_put(&client->worker->client_slab, client);
}

void client_linger(struct client *client, enum close_reason reason)
{
    if (client->state == CLIENT_CLOSED)
        return;
    drop_work(client);
    client->linger_reason = (uint8_t)reason;
    if (client->out != NULL) {
        client->state = CLIENT_LINGERING;
        client->closes_after_out = true;
        client_watch(client, EV_WRITE);
        set_deadline(client, deadline_limit(config_of(client)->timeouts.write_stall));
        return;
    }
    client->state = CLIENT_LINGERING;
    client->closes_after_out = false;
    client->active_at = 0; /* from here on: bytes thrown away */
    if (client->has_ended) {
        client_close(client, reason);
        return;
    }
    stream_finish_writing(&client->stream);
    client_watch(client, EV_READ);
    set_deadline(client, LINGER_MS);
}

/* Bytes wait for the client: true, and the deadline is set anew, when it took some within write_stall. */
static bool waits_on(struct client *client)
{
    uint32_t limit = deadline_limit(config_of(client)->timeouts.write_stall);
    uint32_t passed = now_of(client) - client->active_at;
    if (passed >= limit && client_has_taken(client))
        passed = 0;
    if (passed < limit)
        set_deadline(client, limit - passed);
    return passed < limit;
}

static void on_client_due(struct deadline *deadline)
{
    struct client *client = CONTAINER_OF(deadline, struct client, deadline);
    switch ((enum client_state)client->state) {
    case CLIENT_INTRODUCED:
        client_close(client, CLOSE_BAD_PROXY_HEADER);
        return;
    case CLIENT_GREETING:
        client_close(client, CLOSE_TLS_FAILED);
        return;
    case CLIENT_WAITING:
        if (client->out == NULL)
            client_close(client, CLOSE_KEEP_ALIVE_IDLE);
        else if (!waits_on(client))
            client_close(client, CLOSE_WRITE_STALL);
        return;
    case CLIENT_HEAD:
        client_answer(client, &(struct edge_answer){.reason = CLOSE_HEAD_TIMEOUT}, false);
        return;
    case CLIENT_LINGERING:
        if (client->out == NULL || !waits_on(client))
            client_close(client, (enum close_reason)client->linger_reason);
        return;
    case CLIENT_EXCHANGING:
    case CLIENT_TUNNELING:
    case CLIENT_CLOSED:
        break; /* these have deadlines of their own */
    }
    unreachable();
}

/* ---- sending ---- */

static void on_client_ready(evutil_socket_t fd, short what, void *arg);

void client_watch(struct client *client, short what)
{
    if (client->watched == what)
        return;
    if (client->watched != 0)
        event_del(&client->event);
    client->watched = what;
    if (what == 0)
        return;
    event_assign(&client->event, client->worker->base, client->stream.fd,
                 (short)(what | EV_PERSIST), on_client_ready, client);
    event_add(&client->event, NULL);
}

static uint32_t queue_of(const struct client *client)
{
    int queued = 0;
    return ioctl(client->stream.fd, SIOCOUTQ, &queued) == 0 ? (uint32_t)queued : 0;
}

bool client_has_taken(struct client *client)
{
    uint32_t before = client->queued;
    client->queued = queue_of(client);
    return client->queued < before;
}

bool client_write(struct client *client, struct slice bytes)
{
    ssize_t sent = 0;
    if (client->out == NULL) {
        sent = stream_write(&client->stream, bytes.data, bytes.len);
        if (sent == (ssize_t)bytes.len)
            return true;
        if (sent < 0 && errno != EAGAIN) {
            client_close(client, CLOSE_CLIENT_RESET);
            return false;
        }
        if (sent < 0)
            sent = 0;
        client->queued = queue_of(client);
    }
    buffer_append(&client->worker->buffers, &client->out,
                  slice_from(bytes, (size_t)sent));
    client_watch(client, (short)(client->watched | EV_WRITE));
    return true;
}

void client_answer(struct client *client, const struct edge_answer *answer, bool stays)
{
    struct worker *worker = client->worker;
    bool closes =
        !stays || client->has_ended ||
        atomic_load_explicit(&worker->process->is_draining, memory_order_relaxed);
    size_t len = edge_answer_write(answer, closes, worker_date(worker), worker->out);
    metrics_add_by(M_EDGE_ANSWERS, answer->reason, 1);
    if (!closes && config_of(client)->log.access != LOG_ACCESS_OFF &&
        close_reason_get(answer->reason)->is_error) {
        struct log_subject subject = subject_of(client);
        log_info(&subject, "answered by the edge",
                 LOG_TEXT("reason", close_reason_get(answer->reason)->word));
    }
    if (!client_write(client, slice_of(worker->out, len)))
        return;
    if (closes)
        client_linger(client, answer->reason);
    else
        client_end_exchange(client, true);
}

/* ---- from one request to the next ---- */

static void begin_waiting(struct client *client)
{
    const struct proxy_config *config = config_of(client);
    client->state = CLIENT_WAITING;
    client->parsed_len = 0;
    if (client->out != NULL) {
        client_watch(client, EV_WRITE);
        set_deadline(client, deadline_limit(config->timeouts.write_stall));
        return;
    }
    if (client->in != NULL) {
        TAILQ_REMOVE(&client->worker->clients, client, entry);
        TAILQ_INSERT_TAIL(&client->worker->resuming, client, entry);
        client->is_resuming = true;
        client_watch(client, 0);
        return;
    }
    client_watch(client, EV_READ);
    set_deadline(client,
                 deadline_limit(client->requests == 0 ? config->timeouts.request_head
                                                      : config->timeouts.keep_alive));
}

void client_end_exchange(struct client *client, bool is_persistent)
{
    if (client->exchange != NULL)
        exchange_free(client->exchange);
    client->exchange = NULL;
    bool stays = is_persistent && !client->has_ended &&
                 !atomic_load_explicit(&client->worker->process->is_draining,
                                       memory_order_relaxed);
    if (stays && client->is_taking)
        client->state = CLIENT_WAITING; /* whoever takes bytes goes on */
    else if (stays)
        begin_waiting(client);
    else if (client->out != NULL || client->in != NULL)
        client_linger(client, CLOSE_DONE);
    else
        client_close(client, CLOSE_DONE);
}

void client_begin_tunnel(struct client *client, struct tunnel *tunnel)
{
    if (client->exchange != NULL)
        exchange_free(client->exchange);
    client->exchange = NULL;
    client->tunnel = tunnel;
    client->state = CLIENT_TUNNELING;
}

static void refuse_head(struct client *client, const struct http_refusal *refusal)
{
    enum close_reason reason = CLOSE_BAD_REQUEST;
    switch (refusal->status) {
    case 414:
        reason = CLOSE_TARGET_TOO_LONG;
        break;
    case 417:
        reason = CLOSE_BAD_EXPECTATION;
        break;
    case 426:
        reason = CLOSE_BAD_UPGRADE;
        break;
    case 431:
        reason = CLOSE_HEAD_TOO_LARGE;
        break;
    case 501:
        reason = CLOSE_UNKNOWN_METHOD;
        break;
    case 505:
        reason = CLOSE_BAD_VERSION;
        break;
    default:
        break;
    }
    struct log_subject subject = subject_of(client);
    log_debug(&subject, "refused", LOG_TEXT("why", refusal->reason));
    client_answer(client, &(struct edge_answer){.reason = reason}, false);
}

/* Bytes of a head, all that came so far. What is not used stays in, or goes to, client->in. */
static void take_head(struct client *client, struct slice data, bool is_in_buffer)
{
    struct worker *worker = client->worker;
    size_t used = 0;
    enum parse_result result = http_request_parse(
        data, client->parsed_len, (size_t)config_of(client)->limits.head_bytes,
        &worker->request);
    switch (result) {
    case PARSE_BAD:
        refuse_head(client, &worker->request.refusal);
        return;
    case PARSE_MORE:
        if (client->has_ended) {
            client_close(client, CLOSE_CLIENT_ABORTED);
            return;
        }
        if (!buffer_pool_has_room(&worker->buffers)) {
            client_answer(
                client,
                &(struct edge_answer){.reason = CLOSE_BUFFERS_FULL, .retry_after = 1},
                false);
            return;
        }
        client->parsed_len = (uint32_t)data.len;
        if (client->state != CLIENT_HEAD) {
            client->state = CLIENT_HEAD;
            set_deadline(client,
                         deadline_limit(config_of(client)->timeouts.request_head));
        }
        client_watch(client, EV_READ);
        break;
    case PARSE_DONE:
        client->state = CLIENT_EXCHANGING;
        client->requests++;
        client->parsed_len = 0;
        deadline_clear(&worker->wheel, &client->deadline);
        if (config_of(client)->timeouts.keep_alive == 0)
            worker->request.is_persistent = false;
        client->is_taking = true;
        used = exchange_begin(client, data);
        client->is_taking = false;
        if (client->state == CLIENT_CLOSED || client->state == CLIENT_LINGERING)
            return;
        break;
    }
    if (is_in_buffer)
        buffer_take(&worker->buffers, &client->in, used);
    else
        buffer_append(&worker->buffers, &client->in, slice_from(data, used));
    if (client->state == CLIENT_WAITING)
        begin_waiting(client); /* answered at once: does anything wait? */
}

void client_resume(struct client *client)
{
    TAILQ_REMOVE(&client->worker->resuming, client, entry);
    TAILQ_INSERT_TAIL(&client->worker->clients, client, entry);
    client->is_resuming = false;
    client_watch(client, EV_READ);
    take_head(client, buffer_bytes(client->in), true);
}

/* ---- reading ---- */

static void on_client_end(struct client *client)
{
    client->has_ended = true;
    switch ((enum client_state)client->state) {
    case CLIENT_WAITING:
        client_close(client,
                     client->out != NULL ? CLOSE_CLIENT_ABORTED : CLOSE_CLIENT_LEFT);
        return;
    case CLIENT_EXCHANGING:
        if (exchange_outlives_client_end(client->exchange))
            client_watch(client, client->out != NULL ? EV_WRITE : 0);
        else if (exchange_wants_body(client->exchange))
            client_answer(client, &(struct edge_answer){.reason = CLOSE_BAD_BODY}, false);
        else
            client_close(client, CLOSE_CLIENT_ABORTED);
        return;
    case CLIENT_HEAD:
        client_answer(client, &(struct edge_answer){.reason = CLOSE_BAD_REQUEST}, false);
        return;
    case CLIENT_LINGERING:
        client_close(client, (enum close_reason)client->linger_reason);
        return;
    case CLIENT_INTRODUCED:
    case CLIENT_GREETING:
    case CLIENT_TUNNELING:
    case CLIENT_CLOSED:
        client_close(client, CLOSE_CLIENT_ABORTED);
        return;
    }
    unreachable();
}

/* Into client->in behind what is there, or to the scratch when nothing is; -1: the client has ended or
 * there was nothing. */
static ssize_t read_some(struct client *client, char *space, size_t room)
{
    ssize_t got = stream_read(&client->stream, space, room);
    if (got > 0) {
        client->active_at = now_of(client);
        return got;
    }
    if (got == 0)
        on_client_end(client);
    else if (errno != EAGAIN)
        client_close(client, CLOSE_CLIENT_RESET);
    return -1;
}

static void read_head(struct client *client)
{
    struct worker *worker = client->worker;
    if (client->in == NULL) {
        char *space = worker_read_space(worker);
        ssize_t got = read_some(client, space, WORKER_READ_MAX);
        if (got > 0)
            take_head(client, slice_of(space, (size_t)got), false);
        return;
    }
    char *space = buffer_reserve(&worker->buffers, &client->in, HEAD_FIRST_READ);
    ssize_t got = read_some(client, space, HEAD_FIRST_READ);
    if (got < 0)
        return;
    buffer_fill(client->in, (size_t)got);
    take_head(client, buffer_bytes(client->in), true);
}

/* While an exchange runs: its body, then what was sent too early. */
static void read_exchanging(struct client *client)
{
    struct worker *worker = client->worker;
    bool wants_body = exchange_wants_body(client->exchange);
    size_t room = wants_body
                      ? min_size(exchange_body_room(client->exchange), WORKER_READ_MAX)
                      : PIPELINED_MAX - min_size(PIPELINED_MAX, buffer_len(client->in));
    if (room == 0) {
        client_watch(client, (short)(client->watched & ~EV_READ));
        return;
    }
    char *space = worker_read_space(worker);
    ssize_t got = read_some(client, space, room);
    if (got < 0)
        return;
    struct slice data = slice_of(space, (size_t)got);
    client->is_taking = true;
    size_t used = wants_body ? exchange_take_body(client->exchange, data) : 0;
    client->is_taking = false;
    if (client->state == CLIENT_CLOSED || client->state == CLIENT_LINGERING)
        return;
    buffer_append(&worker->buffers, &client->in, slice_from(data, used));
    if (client->state == CLIENT_WAITING)
        begin_waiting(client);
}

static void read_lingering(struct client *client)
{
    char *space = worker_read_space(client->worker);
    ssize_t got = stream_read(&client->stream, space, WORKER_READ_MAX);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got > 0) {
        client->active_at += (uint32_t)got;
        if (client->active_at >= LINGER_BYTES)
            client_watch(client, 0); /* enough: it has until the deadline to read */
        return;
    }
    client_close(client, (enum close_reason)client->linger_reason);
}

static void greet(struct client *client)
{
    const char *why = NULL;
    switch (stream_handshake(&client->stream, &why)) {
    case STREAM_READY:
        begin_waiting(client);
        return;
    case STREAM_WANTS_READ:
        client_watch(client, EV_READ);
        return;
    case STREAM_WANTS_WRITE:
        client_watch(client, EV_WRITE);
        return;
    case STREAM_REFUSED: {
        struct log_subject subject = subject_of(client);
        log_debug(&subject, "TLS refused", LOG_TEXT("why", why));
        client_close(client, CLOSE_TLS_FAILED);
        return;
    }
    }
    unreachable();
}

/* ---- the first bytes ---- */

static void remember_peer(struct client *client, const struct address *peer)
{
    client->has_ip = !address_is_unix(peer);
    if (peer->socket.any.sa_family == AF_INET) {
        client->ip.s6_addr[10] = client->ip.s6_addr[11] = 0xff;
        memcpy(&client->ip.s6_addr[12], &peer->socket.v4.sin_addr, 4);
        client->port = ntohs(peer->socket.v4.sin_port);
    } else if (peer->socket.any.sa_family == AF_INET6) {
        client->ip = peer->socket.v6.sin6_addr;
        client->port = ntohs(peer->socket.v6.sin6_port);
    }
}

/* The address is known: it may connect, or has too many connections. */
static bool is_let_in(struct client *client)
{
    int64_t maximum = config_of(client)->limits.connections_per_ip;
    if (maximum == 0 || !client->has_ip)
        return true;
    client->is_admitted = admission_enter(client->worker->process->admission, &client->ip,
                                          (uint64_t)maximum);
    return client->is_admitted;
}

static void begin_greeting(struct client *client)
{
    if (!is_let_in(client)) {
        metrics_add_by(M_CLIENTS_REFUSED, CLOSE_IP_CONNECTIONS_FULL, 1);
        client_close(client, CLOSE_IP_CONNECTIONS_FULL);
        return;
    }
    if (!client->place->is_tls) {
        begin_waiting(client);
        return;
    }
    tls_accept(client->place->tls, &client->stream);
    client->state = CLIENT_GREETING;
    set_deadline(client, GREETING_MS);
    client_watch(client, EV_READ);
}

/* Who may open the file of a unix socket is trusted. */
static void begin_introduction(struct client *client, const struct address *peer)
{
    if (!address_is_unix(peer) &&
        !cidr_list_contains(&config_of(client)->trusted_proxies, peer)) {
        client_close(client, CLOSE_UNTRUSTED_PROXY);
        return;
    }
    client->state = CLIENT_INTRODUCED;
    set_deadline(client, INTRODUCTION_MS);
    client_watch(client, EV_READ);
}

static void read_introduction(struct client *client)
{
    struct worker *worker = client->worker;
    struct proxy_header header;
    switch (proxy_header_read(client->stream.fd, &worker->buffers, &client->in,
                              &client->parsed_len, &header)) {
    case PROXY_HEADER_MORE:
        return;
    case PROXY_HEADER_CLIENT:
        remember_peer(client, &header.client);
        break;
    case PROXY_HEADER_NO_CLIENT:
        break;
    case PROXY_HEADER_BAD:
        client_close(client, CLOSE_BAD_PROXY_HEADER);
        return;
    case PROXY_HEADER_ENDED: /* a balancer that only looks whether we are there */
        client_close(client,
                     client->in == NULL ? CLOSE_CLIENT_LEFT : CLOSE_BAD_PROXY_HEADER);
        return;
    case PROXY_HEADER_FAILED:
        client_close(client, CLOSE_CLIENT_RESET);
        return;
    }
    if (client->parsed_len == 0)
        begin_greeting(client);
}

static void on_readable(struct client *client)
{
    switch ((enum client_state)client->state) {
    case CLIENT_WAITING:
    case CLIENT_HEAD:
        read_head(client);
        return;
    case CLIENT_EXCHANGING:
        read_exchanging(client);
        return;
    case CLIENT_LINGERING:
        read_lingering(client);
        return;
    case CLIENT_INTRODUCED:
    case CLIENT_GREETING:
    case CLIENT_TUNNELING:
    case CLIENT_CLOSED:
        return;
    }
    unreachable();
}

static void on_writable(struct client *client)
{
    struct slice bytes = buffer_bytes(client->out);
    ssize_t sent = stream_write(&client->stream, bytes.data, bytes.len);
    if (sent < 0) {
        if (errno != EAGAIN)
            client_close(client, CLOSE_CLIENT_RESET);
        return;
    }
    buffer_take(&client->worker->buffers, &client->out, (size_t)sent);
    client->active_at = now_of(client);
    if (client->state == CLIENT_EXCHANGING)
        exchange_on_client_took(client->exchange);
    if (client->out != NULL)
        return;
    client_watch(client, (short)(client->watched & ~EV_WRITE));
    if (client->closes_after_out)
        client_linger(client, (enum close_reason)client->linger_reason);
    else if (client->state == CLIENT_WAITING)
        begin_waiting(client);
    else if (client->state == CLIENT_EXCHANGING)
        exchange_on_client_drained(client->exchange);
}

static void on_client_ready(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct client *client = arg;
    if (client->state == CLIENT_TUNNELING) {
        tunnel_on_client(client->tunnel, what);
        return;
    }
    if (client->state == CLIENT_GREETING) {
        greet(client);
        return;
    }
    if (client->state == CLIENT_INTRODUCED) {
        read_introduction(client);
        return;
    }
    if ((what & EV_WRITE) != 0 && client->out != NULL)
        on_writable(client);
    if ((what & EV_READ) == 0 || (client->watched & EV_READ) == 0)
        return;
    do
        on_readable(client);
    while (client->state != CLIENT_CLOSED && (client->watched & EV_READ) != 0 &&
           stream_has_pending(&client->stream));
}

/* ---- beginning ---- */

void client_open(struct worker *worker, const struct listener_place *place, int fd,
                 const struct address *peer)
{
    struct client *client = slab_get(&worker->client_slab);
    stream_init(&client->stream, fd);
    client->worker = worker;
    client->place = place;
    client->id =
        atomic_fetch_add_explicit(&worker->process->client_ids, 1, memory_order_relaxed) +
        1;
    remember_peer(client, peer);
    TAILQ_INSERT_TAIL(&worker->clients, client, entry);
    worker->clients_count++;
    metrics_add(M_CLIENTS_ACCEPTED, 1);
    metrics_add(M_CLIENTS_OPEN, 1);
    client->accepted_at = now_of(client);
    if (place->has_proxy_protocol)
        begin_introduction(client, peer);
    else
        begin_greeting(client);
    client->accepted_at = client->active_at = now_of(client);
}

void client_drain(struct client *client, uint32_t delay_ms)
{
    switch ((enum client_state)client->state) {
    case CLIENT_WAITING:
        if (client->out == NULL && client->in == NULL)
            client_close(client, CLOSE_SHUTDOWN);
        return;
    case CLIENT_TUNNELING:
        tunnel_leave_later(client->tunnel, delay_ms);
        return;
    case CLIENT_INTRODUCED:
    case CLIENT_GREETING:
    case CLIENT_HEAD:
    case CLIENT_EXCHANGING: /* its answer says Connection: close */
    case CLIENT_LINGERING:
    case CLIENT_CLOSED:
        return;
    }
    unreachable();
}

struct slice client_ip_text(const struct client *client, char text[CLIENT_IP_SIZE])
{
    text[0] = '\0';
    if (!client->has_ip)
        return slice_of(text, 0);
    if (!IN6_IS_ADDR_V4MAPPED(&client->ip)) {
        inet_ntop(AF_INET6, &client->ip, text, CLIENT_IP_SIZE);
        return slice_from_text(text);
    }
    /* Asked for at every request: four bytes to decimal by hand. */
    size_t len = 0;
    for (int i = 12; i < 16; i++) {
        unsigned byte = client->ip.s6_addr[i];
        if (byte >= 100)
            text[len++] = (char)('0' + byte / 100);
        if (byte >= 10)
            text[len++] = (char)('0' + byte / 10 % 10);
        text[len++] = (char)('0' + byte % 10);
        text[len++] = i < 15 ? '.' : '\0';
    }
    return slice_of(text, len - 1);
}
