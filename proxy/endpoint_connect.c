#include "proxy/endpoint_connect.h"

#include "shared/log.h"
#include "shared/net.h"
#include "shared/timing.h"

#include "proxy/endpoint_tls.h"
#include "proxy/proxy_config.h"
#include "proxy/upstream.h"
#include "proxy/worker.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>

static struct endpoint_connection_list *bucket_of(struct worker *worker,
                                                  const struct endpoint *endpoint)
{
    uintptr_t place = (uintptr_t)endpoint / 64;
    return &worker->endpoints
                .buckets[(place ^ place / ENDPOINT_POOL_BUCKETS) % ENDPOINT_POOL_BUCKETS];
}

static uint32_t keep_alive_ms(const struct worker *worker)
{
    return (uint32_t)(worker->current->snapshot->config->timeouts.endpoint_keep_alive /
                      1000);
}

static void idle_remove(struct endpoint_connection *connection)
{
    struct worker *worker = connection->worker;
    TAILQ_REMOVE(bucket_of(worker, connection->endpoint), connection, entry);
    TAILQ_REMOVE(&worker->endpoints.by_age, connection, by_age);
    worker->endpoints.idle_count--;
}

/* TLS talks to itself too (a ticket, say): then nothing is there for us. */
static bool is_without_content(struct endpoint_connection *connection)
{
    char byte;
    return connection->tls != NULL && stream_read(&connection->stream, &byte, 1) < 0 &&
           errno == EAGAIN;
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct endpoint_connection *connection = arg;
    if (connection->on_ready != NULL) {
        connection->on_ready(connection, what);
        return;
    }
    /* Idle: its end, or bytes that nobody asked for. Both make it useless. */
    if (is_without_content(connection))
        return;
    endpoint_note_idle_end(connection->endpoint,
                           deadline_now(&connection->worker->wheel) - connection->since);
    idle_remove(connection);
    endpoint_connection_close(connection);
}

void endpoint_pool_init(struct endpoint_pool *pool)
{
    for (size_t i = 0; i < ENDPOINT_POOL_BUCKETS; i++)
        TAILQ_INIT(&pool->buckets[i]);
    TAILQ_INIT(&pool->by_age);
    pool->idle_count = 0;
    pool->expiry = (struct deadline){0};
}

bool endpoint_pool_close_one(struct worker *worker)
{
    struct endpoint_connection *connection = TAILQ_FIRST(&worker->endpoints.by_age);
    if (connection == NULL)
        return false;
    idle_remove(connection);
    endpoint_connection_close(connection);
    return true;
}

void endpoint_pool_cleanup(struct worker *worker)
{
    while (endpoint_pool_close_one(worker))
        ;
    deadline_clear(&worker->wheel, &worker->endpoints.expiry);
}

static void on_expiry(struct deadline *deadline)
{
    struct worker *worker = CONTAINER_OF(deadline, struct worker, endpoints.expiry);
    struct endpoint_connection *connection;
    uint32_t now = deadline_now(&worker->wheel);
    while ((connection = TAILQ_FIRST(&worker->endpoints.by_age)) != NULL) {
        uint32_t age = now - connection->since;
        uint32_t limit = keep_alive_ms(worker);
        if (age < limit) {
            deadline_set(&worker->wheel, deadline, limit - age, on_expiry);
            return;
        }
        idle_remove(connection);
        endpoint_connection_close(connection);
    }
}

static struct endpoint_connection *idle_find(struct worker *worker,
                                             const struct endpoint *endpoint,
                                             const struct endpoint_tls *tls)
{
    struct endpoint_connection *connection;
    TAILQ_FOREACH(connection, bucket_of(worker, endpoint), entry)
    if (connection->endpoint == endpoint && connection->tls == tls)
        return connection;
    return NULL;
}

static bool is_young(const struct endpoint_connection *connection)
{
    uint32_t idle = deadline_now(&connection->worker->wheel) - connection->since;
    return idle < endpoint_idle_safe_ms(connection->endpoint);
}

bool endpoint_address_is_local(const struct address *address)
{
    switch (address->socket.any.sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(address->socket.v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    default:
        return IN6_IS_ADDR_LOOPBACK(&address->socket.v6.sin6_addr);
    }
}

static void note_opened(struct endpoint_connection *connection)
{
    connection->is_connected = true;
    connection->is_securing = false;
    metrics_add_by(M_CONNECTS, CONNECT_OPENED, 1);
    endpoint_note_success(connection->endpoint);
    endpoint_connection_watch(connection, EV_READ);
}

/* Errors that say nothing about the endpoint. */
static bool is_our_own_want(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
           error == EADDRNOTAVAIL;
}

/* Descriptors of idle connections are there to be used. */
static int connect_to(struct worker *worker, const struct address *address,
                      bool *in_progress)
{
    int fd;
    do
        fd = net_connect(address, in_progress);
    while (fd < 0 && (errno == EMFILE || errno == ENFILE) && worker_make_room(worker));
    return fd;
}

struct endpoint_connection *
endpoint_connection_open(struct worker *worker, struct endpoint *endpoint,
                         struct endpoint_tls *tls, enum endpoint_reuse reuse, void *owner,
                         endpoint_ready_cb on_ready_cb)
{
    struct endpoint_connection *connection =
        reuse != ENDPOINT_REUSE_NONE ? idle_find(worker, endpoint, tls) : NULL;
    if (connection != NULL && reuse == ENDPOINT_REUSE_YOUNG && !is_young(connection))
        connection = NULL;
    if (connection != NULL) {
        idle_remove(connection);
        connection->idled_ms = deadline_now(&worker->wheel) - connection->since;
        connection->owner = owner;
        connection->on_ready = on_ready_cb;
        connection->is_reused = true;
        metrics_add_by(M_CONNECTS, CONNECT_REUSED, 1);
        return connection;
    }

    bool in_progress = false;
    int fd = connect_to(worker, &endpoint->address, &in_progress);
    if (fd < 0) {
        int error = errno;
        metrics_add_by(M_CONNECTS, CONNECT_REFUSED, 1);
        if (!is_our_own_want(error))
            endpoint_note_failure(endpoint, timing_now());
        errno = error;
        return NULL;
    }
    connection = slab_get(&worker->connection_slab);
    stream_init(&connection->stream, fd);
    connection->worker = worker;
    connection->endpoint = endpoint_ref(endpoint);
    connection->tls = endpoint_tls_ref(tls);
    connection->owner = owner;
    connection->on_ready = on_ready_cb;
    connection->since = deadline_now(&worker->wheel);
    if (tls != NULL)
        endpoint_tls_start(tls, endpoint, &connection->stream);
    else if (!in_progress)
        note_opened(connection);
    return connection;
}

ssize_t endpoint_connection_write_early(struct endpoint_connection *connection,
                                        struct slice bytes)
{
    ssize_t sent = -1;
    errno = EAGAIN;
    if (connection->tls == NULL &&
        endpoint_address_is_local(&connection->endpoint->address))
        sent = stream_write(&connection->stream, bytes.data, bytes.len);
    if (sent >= 0) {
        note_opened(connection);
        return sent;
    }
    if (errno == EAGAIN) {
        endpoint_connection_watch(connection, EV_WRITE);
        return -1;
    }
    int error = errno;
    metrics_add_by(M_CONNECTS, CONNECT_REFUSED, 1);
    endpoint_note_failure(connection->endpoint, timing_now());
    errno = error;
    return -1;
}

static enum endpoint_connecting secure(struct endpoint_connection *connection)
{
    const char *why = "";
    switch (stream_handshake(&connection->stream, &why)) {
    case STREAM_READY:
        note_opened(connection);
        return ENDPOINT_CONNECTED;
    case STREAM_WANTS_READ:
        endpoint_connection_watch(connection, EV_READ);
        return ENDPOINT_CONNECTING;
    case STREAM_WANTS_WRITE:
        endpoint_connection_watch(connection, EV_WRITE);
        return ENDPOINT_CONNECTING;
    case STREAM_REFUSED:
        break;
    }
    metrics_add_by(M_CONNECTS, CONNECT_TLS_FAILED, 1);
    endpoint_note_failure(connection->endpoint, timing_now());
    log_warn(LOG_SUBJECT("endpoint"), "TLS failed",
             LOG_TEXT("upstream", connection->endpoint->upstream->name),
             LOG_TEXT("endpoint", connection->endpoint->address_text),
             LOG_TEXT("why", why));
    return ENDPOINT_TLS_REFUSED;
}

enum endpoint_connecting
endpoint_connection_finish(struct endpoint_connection *connection)
{
    if (!connection->is_securing && net_connect_result(connection->stream.fd) != 0) {
        metrics_add_by(M_CONNECTS, CONNECT_REFUSED, 1);
        endpoint_note_failure(connection->endpoint, timing_now());
        return ENDPOINT_NOT_REACHED;
    }
    connection->is_securing = connection->tls != NULL;
    if (connection->is_securing)
        return secure(connection);
    note_opened(connection);
    return ENDPOINT_CONNECTED;
}

void endpoint_connection_give_up(struct endpoint_connection *connection)
{
    metrics_add_by(M_CONNECTS, CONNECT_TIMED_OUT, 1);
    endpoint_note_failure(connection->endpoint, timing_now());
}

void endpoint_connection_watch(struct endpoint_connection *connection, short what)
{
    if (connection->watched == what)
        return;
    if (connection->watched != 0)
        event_del(&connection->event);
    connection->watched = what;
    if (what == 0)
        return;
    event_assign(&connection->event, connection->worker->base, connection->stream.fd,
                 (short)(what | EV_PERSIST), on_ready, connection);
    event_add(&connection->event, NULL);
    if ((what & EV_READ) != 0 && stream_has_pending(&connection->stream))
        event_active(&connection->event, EV_READ, 0);
}

void endpoint_connection_keep(struct endpoint_connection *connection)
{
    struct worker *worker = connection->worker;
    uint32_t limit = keep_alive_ms(worker);
    if (connection->is_reused)
        endpoint_note_idle_served(connection->endpoint, connection->idled_ms);
    if (limit == 0 || worker->is_draining) {
        endpoint_connection_close(connection);
        return;
    }
    endpoint_connection_watch(connection, EV_READ);
    connection->owner = NULL;
    connection->on_ready = NULL;
    connection->since = deadline_now(&worker->wheel);
    TAILQ_INSERT_HEAD(bucket_of(worker, connection->endpoint), connection, entry);
    TAILQ_INSERT_TAIL(&worker->endpoints.by_age, connection, by_age);
    if (worker->endpoints.idle_count++ == 0)
        deadline_set(&worker->wheel, &worker->endpoints.expiry, limit, on_expiry);
}

void endpoint_connection_close(struct endpoint_connection *connection)
{
    endpoint_connection_watch(connection, 0);
    stream_close(&connection->stream);
    connection->owner = NULL;
    connection->on_ready = NULL;
    TAILQ_INSERT_TAIL(&connection->worker->closed_connections, connection, entry);
}

void endpoint_connection_free_closed(struct worker *worker)
{
    struct endpoint_connection *connection;
    while ((connection = TAILQ_FIRST(&worker->closed_connections)) != NULL) {
        TAILQ_REMOVE(&worker->closed_connections, connection, entry);
        endpoint_unref(connection->endpoint);
        endpoint_tls_unref(connection->tls);
        slab_put(&worker->connection_slab, connection);
    }
}
