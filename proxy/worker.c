#include "proxy/worker.h"

#include "shared/listener.h"
#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/client.h"
#include "proxy/drain.h"
#include "proxy/exchange.h"
#include "proxy/proxy_config.h"
#include "proxy/tunnel.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct worker_listener {
    struct worker *worker;
    const struct listener_place *place;
    struct listener *listener;
};

/* A job with its worker, freed by its run(). */
struct worker_job {
    struct post_job job;
    struct worker *worker;
    uint32_t window_ms;
};

/* ---- snapshots ---- */

static struct worker_snapshot *hold_snapshot(struct snapshot *snapshot)
{
    struct worker_snapshot *held = must_calloc(1, sizeof *held);
    held->holders = 1;
    held->snapshot = snapshot;
    held->engine_paths = snapshot->config->engine_paths;
    held->engine_paths_len = snapshot->config->engine_io_paths.count;
    return held;
}

struct worker_snapshot *worker_snapshot_ref(struct worker_snapshot *held)
{
    held->holders++;
    return held;
}

void worker_snapshot_unref(struct worker_snapshot *held)
{
    if (--held->holders > 0)
        return;
    snapshot_unref(held->snapshot);
    free(held);
}

static void take_snapshot(struct post_job *job)
{
    struct worker *worker = CONTAINER_OF(job, struct worker, take_snapshot);
    atomic_flag_clear(&worker->snapshot_posted);
    struct snapshot *snapshot = snapshot_take(&worker->mailbox);
    if (snapshot == NULL)
        return;
    bool has_drain_news = drain_differs(worker->current->snapshot, snapshot);
    worker_snapshot_unref(worker->current);
    worker->current = hold_snapshot(snapshot);
    worker->buffers.limit = (size_t)snapshot->config->limits.buffered_bytes;
    if (has_drain_news)
        drain_apply(worker);
}

static void on_published(void *context)
{
    struct worker *worker = context;
    if (!atomic_flag_test_and_set(&worker->snapshot_posted))
        post_send(&worker->box, &worker->take_snapshot);
}

struct snapshot_mailbox *worker_mailbox(struct worker *worker)
{
    return &worker->mailbox;
}

/* ---- the turn ---- */

/* Buffers of this many bytes are a burst, and after so long we look whether it is over. */
#define BURST_BYTES (256u * 1024)
#define BURST_MS    1000u

static void on_burst_over(struct deadline *deadline)
{
    struct worker *worker = CONTAINER_OF(deadline, struct worker, trim);
    buffer_pool_trim(&worker->buffers);
}

static void end_turn(struct worker *worker)
{
    struct client *client;
    /* Those who are there now: one that resumes again waits for the next turn. */
    struct client *last = TAILQ_LAST(&worker->resuming, client_list);
    while (last != NULL && (client = TAILQ_FIRST(&worker->resuming)) != NULL) {
        bool is_last = client == last;
        client_resume(client);
        if (is_last)
            break;
    }
    for (int to = 0; to < DIRECTIONS; to++) {
        if (worker->relayed[to].bytes == 0)
            continue;
        metrics_add_by(M_TUNNEL_BYTES, to, (int64_t)worker->relayed[to].bytes);
        metrics_add_by(M_TUNNEL_FRAMES, to, (int64_t)worker->relayed[to].frames);
        worker->relayed[to].bytes = worker->relayed[to].frames = 0;
    }
    buffer_pool_tell(&worker->buffers);
    if (worker->buffers.peak > BURST_BYTES && worker->trim.on_due == NULL)
        deadline_set(&worker->wheel, &worker->trim, BURST_MS, on_burst_over);
    while ((client = TAILQ_FIRST(&worker->closed)) != NULL)
        client_free(client);
    endpoint_connection_free_closed(worker);
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    while (!worker->is_stopping) {
        int flags =
            TAILQ_EMPTY(&worker->resuming) ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK;
        event_base_loop(worker->base, flags);
        end_turn(worker);
    }
    return NULL;
}

struct slice worker_date(struct worker *worker)
{
    time_t now = time(NULL);
    if (now != worker->date_second) {
        struct tm parts;
        gmtime_r(&now, &parts);
        strftime(worker->date, sizeof worker->date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        worker->date_second = now;
    }
    return slice_from_text(worker->date);
}

/* ---- accepting ---- */

static void on_accept(void *argument, int fd, const struct address *peer)
{
    struct worker_listener *at = argument;
    struct worker *worker = at->worker;
    int64_t limit = worker->current->snapshot->config->limits.connections;
    unsigned open =
        atomic_fetch_add_explicit(&worker->process->clients, 1, memory_order_relaxed);
    if (limit != 0 && open >= (uint64_t)limit) {
        atomic_fetch_sub_explicit(&worker->process->clients, 1, memory_order_relaxed);
        metrics_add_by(M_CLIENTS_REFUSED, CLOSE_CONNECTIONS_FULL, 1);
        log_warn(LOG_SUBJECT("worker"), "limits.connections are open, client refused",
                 LOG_NUMBER("limit", limit));
        close(fd);
        return;
    }
    client_open(worker, at->place, fd, peer);
}

static void on_back_off(void *argument, int error)
{
    (void)argument, (void)error;
    metrics_add(M_ACCEPT_ERRORS, 1);
}

void worker_listen(struct worker *worker, int fd, const struct listener_place *place)
{
    static const struct listener_callbacks callbacks = {.on_accept = on_accept,
                                                        .on_back_off = on_back_off};
    check(worker->listeners_len < WORKER_LISTENERS_MAX);
    struct worker_listener *at = &worker->listeners[worker->listeners_len++];
    at->worker = worker;
    at->place = place;
    at->listener = listener_new(worker->base, fd, place->name, &callbacks, at);
    listener_start(at->listener);
}

static void stop_listening(struct worker *worker)
{
    for (size_t i = 0; i < worker->listeners_len; i++)
        listener_free(worker->listeners[i].listener);
    worker->listeners_len = 0;
}

/* ---- shutdown ---- */

static void drain(struct post_job *job)
{
    struct worker_job *it = CONTAINER_OF(job, struct worker_job, job);
    struct worker *worker = it->worker;
    stop_listening(worker);
    worker->is_draining = true;
    endpoint_pool_cleanup(worker);
    struct client *client = TAILQ_FIRST(&worker->clients);
    while (client != NULL) {
        struct client *next = TAILQ_NEXT(client, entry);
        client_drain(client, drain_place(client->id, it->window_ms));
        client = next;
    }
    free(it);
}

static void stop(struct post_job *job)
{
    struct worker_job *it = CONTAINER_OF(job, struct worker_job, job);
    struct worker *worker = it->worker;
    struct client *client;
    stop_listening(worker);
    while ((client = TAILQ_FIRST(&worker->clients)) != NULL)
        client_close(client, CLOSE_SHUTDOWN_DEADLINE);
    while ((client = TAILQ_FIRST(&worker->resuming)) != NULL)
        client_close(client, CLOSE_SHUTDOWN_DEADLINE);
    endpoint_pool_cleanup(worker);
    worker->is_stopping = true;
    free(it);
}

static void send_job(struct worker *worker, void (*run_job)(struct post_job *),
                     uint32_t window_ms)
{
    struct worker_job *it = must_calloc(1, sizeof *it);
    it->job.run = run_job;
    it->worker = worker;
    it->window_ms = window_ms;
    post_send(&worker->box, &it->job);
}

void worker_drain(struct worker *worker, uint32_t window_ms)
{
    send_job(worker, drain, window_ms);
}

void worker_stop(struct worker *worker)
{
    send_job(worker, stop, 0);
}

/* ---- life ---- */

struct worker *worker_new(struct process *process, struct snapshot *snapshot,
                          unsigned index)
{
    struct worker *worker = must_calloc(1, sizeof *worker);
    struct event_config *config = event_config_new();
    check(config != NULL);
    event_config_set_flag(config,
                          EVENT_BASE_FLAG_NOLOCK); /* only this thread touches it */
    worker->base = event_base_new_with_config(config);
    event_config_free(config);
    check(worker->base != NULL);
    worker->process = process;
    worker->index = index;
    deadline_wheel_init(&worker->wheel, worker->base);
    buffer_pool_init(&worker->buffers, &process->buffered_bytes,
                     (size_t)snapshot->config->limits.buffered_bytes);
    endpoint_pool_init(&worker->endpoints);
    slab_init(&worker->client_slab, sizeof(struct client));
    slab_init(&worker->connection_slab, sizeof(struct endpoint_connection));
    slab_init(&worker->tunnel_slab, sizeof(struct tunnel));
    slab_init(&worker->exchange_slab, exchange_size());
    worker->current = hold_snapshot(snapshot_ref(snapshot));
    worker->scratch = must_calloc(1, WORKER_SCRATCH_SIZE);
    worker->out = must_calloc(1, WORKER_OUT_SIZE);
    TAILQ_INIT(&worker->clients);
    TAILQ_INIT(&worker->resuming);
    TAILQ_INIT(&worker->closed);
    TAILQ_INIT(&worker->closed_connections);
    worker->listeners = must_calloc(WORKER_LISTENERS_MAX, sizeof *worker->listeners);
    worker->via = process->via;
    snapshot_mailbox_init(&worker->mailbox, on_published, worker);
    post_box_init(&worker->box, worker->base);
    worker->take_snapshot.run = take_snapshot;
    atomic_flag_clear(&worker->snapshot_posted);
    return worker;
}

void worker_start(struct worker *worker)
{
    check(pthread_create(&worker->thread, NULL, run, worker) == 0);
    worker->has_thread = true;
}

void worker_join(struct worker *worker)
{
    if (worker->has_thread)
        pthread_join(worker->thread, NULL);
    worker->has_thread = false;
}

void worker_free(struct worker *worker)
{
    check(!worker->has_thread && TAILQ_EMPTY(&worker->clients));
    stop_listening(worker);
    end_turn(worker);
    post_box_cleanup(&worker->box);
    snapshot_mailbox_cleanup(&worker->mailbox);
    deadline_wheel_cleanup(&worker->wheel);
    worker_snapshot_unref(worker->current);
    buffer_pool_cleanup(&worker->buffers);
    slab_cleanup(&worker->client_slab);
    slab_cleanup(&worker->connection_slab);
    slab_cleanup(&worker->tunnel_slab);
    slab_cleanup(&worker->exchange_slab);
    event_base_free(worker->base);
    free(worker->listeners);
    free(worker->scratch);
    free(worker->out);
    free(worker);
}
