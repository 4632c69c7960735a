#include "proxy/client_parts.h"

#include "shared/log.h"
#include "shared/net.h"
#include "shared/timing.h"

#include "proxy/admission.h"
#include "proxy/edge_answer.h"
#include "proxy/exchange.h"
#include "proxy/tunnel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define LINGER_MS 2000u

static void on_client_due(struct deadline *deadline);

void client_set_deadline(struct client *client, uint32_t limit_ms)
{
    deadline_set(&client->worker->wheel, &client->deadline, limit_ms, on_client_due);
}

void client_leave_idle(struct client *client)
{
    if (client->is_idle)
        TAILQ_REMOVE(&client->worker->idle, client, idle);
    client->is_idle = false;
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
    int access = client_config(client)->log.access;
    bool is_shown =
        access == LOG_ACCESS_ALL || (access == LOG_ACCESS_ERRORS && row->is_error);
    if (!is_shown && !log_is_on(LOG_LEVEL_DEBUG))
        return;
    char ip[CLIENT_IP_SIZE];
    struct log_subject subject = client_subject(client);
    const struct log_field fields[] = {
        LOG_TEXT("reason", row->word),
        LOG_SLICE("ip", client_ip_text(client, ip)),
        LOG_TEXT("while", work_word(client)),
        LOG_UNSIGNED("requests", client->requests),
        LOG_SECONDS("open", MILLISECONDS(client_now(client) - client->accepted_at)),
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
    client_leave_idle(client);
    if (client->is_admitted)
        admission_leave(worker->process->admission, &client->ip);
    drop_work(client);
    buffer_drop(&worker->buffers, &client->out);
    client_settle(client);
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
    listener_place_unref(client->place);
    slab_put(&client->worker->client_slab, client);
}

void client_linger(struct client *client, enum close_reason reason)
{
    if (client->state == CLIENT_CLOSED)
        return;
    client_leave_idle(client);
    drop_work(client);
    client_settle(client);
    client->linger_reason = (uint8_t)reason;
    if (client->out != NULL) {
        client->state = CLIENT_LINGERING;
        client->closes_after_out = true;
        client_watch(client, EV_WRITE);
        client_set_deadline(client,
                            deadline_limit(client_config(client)->timeouts.write_stall));
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
    client_set_deadline(client, LINGER_MS);
}

/* Bytes wait for the client: true, and the deadline starts again, when it took some within write_stall. */
static bool waits_on(struct client *client)
{
    uint32_t limit = deadline_limit(client_config(client)->timeouts.write_stall);
    uint32_t passed = client_now(client) - client->active_at;
    if (passed >= limit && client_has_taken(client))
        passed = 0;
    if (passed < limit)
        client_set_deadline(client, limit - passed);
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
    if ((what & EV_READ) != 0 && stream_has_pending(&client->stream))
        event_active(&client->event, EV_READ, 0);
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
    client_settle(client);
    client_watch(client, (short)(client->watched | EV_WRITE));
    return true;
}

void client_answer(struct client *client, const struct edge_answer *answer, bool stays)
{
    struct worker *worker = client->worker;
    bool closes = !stays || !client_stays(client);
    size_t len = edge_answer_write(answer, closes, worker_date(worker), worker->out);
    metrics_add_by(M_EDGE_ANSWERS, answer->reason, 1);
    if (!closes && client_config(client)->log.access != LOG_ACCESS_OFF &&
        close_reason_get(answer->reason)->is_error) {
        struct log_subject subject = client_subject(client);
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

void client_begin_waiting(struct client *client)
{
    const struct proxy_config *config = client_config(client);
    client->state = CLIENT_WAITING;
    client->parsed_len = 0;
    if (client->out != NULL) {
        client_watch(client, EV_WRITE);
        client_set_deadline(client, deadline_limit(config->timeouts.write_stall));
        return;
    }
    if (client->in != NULL) {
        TAILQ_REMOVE(&client->worker->clients, client, entry);
        TAILQ_INSERT_TAIL(&client->worker->resuming, client, entry);
        client->is_resuming = true;
        client_watch(client, 0);
        return;
    }
    if (client->requests > 0 && !client->is_idle) {
        client->is_idle = true;
        TAILQ_INSERT_TAIL(&client->worker->idle, client, idle);
    }
    client_watch(client, EV_READ);
    client_set_deadline(client, deadline_limit(client->requests == 0
                                                   ? config->timeouts.request_head
                                                   : config->timeouts.keep_alive));
}

void client_end_exchange(struct client *client, bool is_persistent)
{
    if (client->exchange != NULL)
        exchange_free(client->exchange);
    client->exchange = NULL;
    client_settle(client);
    bool stays = is_persistent && client_stays(client);
    if (stays && client->is_taking)
        client->state = CLIENT_WAITING; /* whoever takes bytes goes on */
    else if (stays)
        client_begin_waiting(client);
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
    client_settle(client);
    client->active_at = client_now(client);
    if (client->state == CLIENT_EXCHANGING)
        exchange_on_client_took(client->exchange);
    if (client->out != NULL)
        return;
    client_watch(client, (short)(client->watched & ~EV_WRITE));
    if (client->closes_after_out)
        client_linger(client, (enum close_reason)client->linger_reason);
    else if (client->state == CLIENT_WAITING)
        client_begin_waiting(client);
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
        client_greet(client);
        return;
    }
    if (client->state == CLIENT_INTRODUCED) {
        client_read_introduction(client);
        return;
    }
    if ((what & EV_WRITE) != 0 && client->out != NULL)
        on_writable(client);
    if ((what & EV_READ) == 0 || (client->watched & EV_READ) == 0)
        return;
    do
        client_read(client);
    while (client->state != CLIENT_CLOSED && (client->watched & EV_READ) != 0 &&
           stream_has_pending(&client->stream));
}

/* ---- beginning ---- */

void client_open(struct worker *worker, struct listener_place *place, int fd,
                 const struct address *peer)
{
    struct client *client = slab_get(&worker->client_slab);
    stream_init(&client->stream, fd);
    client->worker = worker;
    client->place = listener_place_ref(place);
    client->id =
        atomic_fetch_add_explicit(&worker->process->client_ids, 1, memory_order_relaxed) +
        1;
    client_remember_peer(client, peer);
    TAILQ_INSERT_TAIL(&worker->clients, client, entry);
    worker->clients_count++;
    metrics_add(M_CLIENTS_ACCEPTED, 1);
    metrics_add(M_CLIENTS_OPEN, 1);
    client->accepted_at = client_now(client);
    if (place->has_proxy_protocol)
        client_begin_introduction(client, peer);
    else
        client_begin_greeting(client);
    client->accepted_at = client->active_at = client_now(client);
}

void client_drain(struct client *client, uint32_t delay_ms)
{
    switch ((enum client_state)client->state) {
    case CLIENT_WAITING:
        if (client->out == NULL && client->in == NULL)
            client_close(client, CLOSE_SHUTDOWN);
        return;
    case CLIENT_TUNNELING:
        tunnel_leave_later(client->tunnel, delay_ms, CLOSE_SHUTDOWN);
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

void client_follow_limits(struct client *client)
{
    uint64_t keep_alive = client_config(client)->timeouts.keep_alive;
    if (!client->place->is_unix && client->state != CLIENT_CLOSED)
        net_set_user_timeout(client->stream.fd,
                             proxy_config_user_timeout(client_config(client)));
    if (client->state == CLIENT_TUNNELING)
        tunnel_follow_limits(client->tunnel);
    else if (client->state == CLIENT_WAITING && client->out == NULL &&
             client->requests > 0) /* 0: it should not have stayed */
        client_set_deadline(client, keep_alive == 0 ? 0 : deadline_limit(keep_alive));
}

void client_leave(struct client *client, uint32_t delay_ms)
{
    client->is_leaving = true;
    if (client->state == CLIENT_TUNNELING)
        tunnel_leave_later(client->tunnel, delay_ms, CLOSE_LISTENER_REMOVED);
    else if (client->state == CLIENT_WAITING && client->requests > 0 &&
             client->out == NULL && client->in == NULL)
        client_close(client, CLOSE_LISTENER_REMOVED);
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
