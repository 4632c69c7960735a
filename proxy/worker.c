#include "proxy/worker.h"

#include "shared/listener.h"
#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/client.h"
#include "proxy/drain.h"
#include "proxy/exchange.h"
#include "proxy/proxy_config.h"
#include "proxy/tunnel.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct worker_listener {
    TAILQ_ENTRY(worker_listener) entry;
    struct worker *worker;
    struct listener_place *place; /* one reference */
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

/* What waits for a long time has to learn of a shorter one now. */
static void follow_limits(struct worker *worker)
{
    struct client *client;
    TAILQ_FOREACH(client, &worker->clients, entry)
    client_follow_limits(client);
}

static void take_snapshot(struct post_job *job)
{
    struct worker *worker = CONTAINER_OF(job, struct worker, take_snapshot);
    atomic_flag_clear(&worker->snapshot_posted);
    struct snapshot *snapshot = snapshot_take(&worker->mailbox);
    if (snapshot == NULL)
        return;
    const struct snapshot *before = worker->current->snapshot;
    bool has_drain_news = drain_differs(before, snapshot);
    bool has_other_limits =
        memcmp(&before->config->timeouts, &snapshot->config->timeouts,
               sizeof snapshot->config->timeouts) != 0; /* durations, no padding */
    worker_snapshot_unref(worker->current);
    worker->current = hold_snapshot(snapshot);
    worker->buffers.limit = (size_t)snapshot->config->limits.buffered_bytes;
    if (has_drain_news)
        drain_apply(worker);
    if (has_other_limits)
        follow_limits(worker);
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

static bool close_idle_client(struct worker *worker)
{
    struct client *client = TAILQ_FIRST(&worker->idle);
    if (client != NULL)
        client_close(client, CLOSE_MADE_ROOM);
    return client != NULL;
}

static void ask_for_room(struct worker *worker)
{
    worker->room_seen++; /* the others, not itself */
    atomic_fetch_add_explicit(&worker->process->room_wanted, 1, memory_order_relaxed);
}

bool worker_make_room(struct worker *worker)
{
    if (endpoint_pool_close_one(worker) || close_idle_client(worker))
        return true;
    ask_for_room(worker);
    return false;
}

/* Other workers have asked so often since. */
static void give_room(struct worker *worker)
{
    unsigned wanted =
        atomic_load_explicit(&worker->process->room_wanted, memory_order_relaxed);
    bool has_some = true;
    for (; worker->room_seen != wanted && has_some; worker->room_seen++) {
        has_some = endpoint_pool_close_one(worker);
        has_some = close_idle_client(worker) || has_some;
    }
    worker->room_seen = wanted;
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
    give_room(worker);
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

/* limits.connections are open: the one that is idle longest leaves. */
static bool makes_place(struct worker *worker)
{
    if (close_idle_client(worker))
        return true;
    ask_for_room(worker);
    return false;
}

static void on_accept(void *argument, int fd, const struct address *peer)
{
    struct worker_listener *at = argument;
    struct worker *worker = at->worker;
    int64_t limit = worker->current->snapshot->config->limits.connections;
    unsigned open =
        atomic_fetch_add_explicit(&worker->process->clients, 1, memory_order_relaxed);
    if (limit != 0 && open >= (uint64_t)limit && !makes_place(worker)) {
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
    struct worker_listener *at = argument;
    metrics_add(M_ACCEPT_ERRORS, 1);
    if (error == EMFILE || error == ENFILE)
        (void)worker_make_room(at->worker);
}

static void begin_listening(struct worker *worker, struct worker_listen *item)
{
    static const struct listener_callbacks callbacks = {.on_accept = on_accept,
                                                        .on_back_off = on_back_off};
    struct worker_listener *at = must_calloc(1, sizeof *at);
    at->worker = worker;
    at->place = item->place;
    at->listener =
        listener_new(worker->base, item->fd, item->place->name, &callbacks, at);
    TAILQ_INSERT_TAIL(&worker->listeners, at, entry);
    listener_start(at->listener);
    item->fd = -1;
    item->place = NULL;
}

static void end_listening(struct worker_listener *at)
{
    TAILQ_REMOVE(&at->worker->listeners, at, entry);
    listener_free(at->listener);
    listener_place_unref(at->place);
    free(at);
}

static void stop_listening(struct worker *worker)
{
    struct worker_listener *at;
    while ((at = TAILQ_FIRST(&worker->listeners)) != NULL)
        end_listening(at);
}

/* The listener has been removed from the configuration: what waits in its queue is served too. */
static void drain_listener(struct worker_listener *at)
{
    struct worker *worker = at->worker;
    uint64_t socket = at->place->socket;
    uint64_t window = worker->current->snapshot->config->shutdown.window;
    uint32_t window_ms = window == 0 ? 0 : deadline_limit(window);
    listener_accept_queued(at->listener);
    end_listening(at);
    struct client *client = TAILQ_FIRST(&worker->clients);
    while (client != NULL) {
        struct client *next = TAILQ_NEXT(client, entry);
        if (client->place->socket == socket)
            client_leave(client, drain_place(client->id, window_ms));
        client = next;
    }
    TAILQ_FOREACH(client, &worker->resuming, entry)
    if (client->place->socket == socket)
        client_leave(client, 0);
}

static struct worker_listen *find_item(const struct worker_listen_job *job,
                                       uint64_t socket)
{
    for (size_t i = 0; i < job->len; i++)
        if (job->items[i].place != NULL && job->items[i].place->socket == socket)
            return &job->items[i];
    return NULL;
}

static void renew_listener(struct worker_listener *at, struct worker_listen *item)
{
    struct listener_place *before = at->place;
    at->place = item->place;
    item->place = NULL;
    listener_place_unref(before);
    listener_place_tune(at->place, listener_fd(at->listener));
}

static void listen_on(struct post_job *posted)
{
    struct worker_listen_job *job = CONTAINER_OF(posted, struct worker_listen_job, job);
    struct worker *worker = job->worker;
    struct worker_listener *at = TAILQ_FIRST(&worker->listeners);
    while (at != NULL) {
        struct worker_listener *next = TAILQ_NEXT(at, entry);
        struct worker_listen *item = find_item(job, at->place->socket);
        if (item != NULL)
            renew_listener(at, item);
        else
            drain_listener(at);
        at = next;
    }
    for (size_t i = 0; i < job->len && !worker->is_draining; i++)
        if (job->items[i].fd >= 0)
            begin_listening(worker, &job->items[i]);
    posted->run = job->on_done;
    post_send(job->answer_to, posted);
}

void worker_listen(struct worker *worker, struct worker_listen_job *job)
{
    job->worker = worker;
    job->job.run = listen_on;
    post_send(&worker->box, &job->job);
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
    TAILQ_INIT(&worker->idle);
    TAILQ_INIT(&worker->resuming);
    TAILQ_INIT(&worker->closed);
    TAILQ_INIT(&worker->closed_connections);
    TAILQ_INIT(&worker->listeners);
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
    free(worker->scratch);
    free(worker->out);
    free(worker);
}
