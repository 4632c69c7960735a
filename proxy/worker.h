/*
 * One thread, one loop, its listeners and clients.
 *
 *      main thread                        worker (1..threads)
 *        worker_new ────────────────────▶ own event_base, own SO_REUSEPORT sockets
 *        snapshot_publish ── mailbox ───▶ takes it between two callbacks; exchanges in flight keep theirs
 *        post_send(worker_box) ─────────▶ runs the job: drain, list clients, stop
 *
 *      one turn:   epoll ─▶ callbacks ─▶ worker_end_turn:  clients that have another request waiting,
 *                                                          counters to the metrics, memory of what was
 *                                                          closed given back
 *
 * Workers share nothing but snapshots, atomic counters of endpoints, and `struct process`. struct worker
 * is what a thread lends to its clients, exchanges and tunnels: loop, clock, scratch memory. What lies in
 * the scratch is valid until the callback returns, no longer.
 */
#pragma once

#include "proxy/buffer.h"
#include "proxy/deadline.h"
#include "proxy/endpoint_connect.h"
#include "proxy/engine_io.h"
#include "proxy/http_head.h"
#include "proxy/listener_place.h"
#include "proxy/post.h"
#include "proxy/proxy_metrics.h"
#include "proxy/slab.h"
#include "proxy/snapshot.h"

#include <stdatomic.h>
#include <sys/queue.h>

struct admission;
struct client;

/* One read takes at most this much. */
#define WORKER_READ_MAX 65536u

/* Room around what is read in place: a chunk line before it, a chunk end behind it; and a whole head. */
#define WORKER_SCRATCH_FRONT 32u
#define WORKER_SCRATCH_SIZE  (WORKER_SCRATCH_FRONT + WORKER_READ_MAX + 64u)
#define WORKER_OUT_SIZE      (2u * WORKER_READ_MAX + 65536u)

TAILQ_HEAD(client_list, client);
TAILQ_HEAD(worker_listener_list, worker_listener);

/* What all threads of the process share besides snapshots. */
struct process {
    struct admission *admission; /* owned by whoever owns the process */
    atomic_bool is_draining;     /* answers close their connections */
    uint64_t started;            /* timing_now() */
    char via[32];                /* our name in Via, of this process alone */
    /* Every request reads what is above: what connections change lies on another cache line. */
    char apart[CACHE_LINE];
    atomic_size_t buffered_bytes;
    atomic_uint clients; /* open now, all workers */
    atomic_uint
        room_wanted; /* grows when a worker had no connection or descriptor left */
    _Atomic uint64_t client_ids;
};

/* A snapshot as this worker's exchanges hold it: counted without atomics. */
struct worker_snapshot {
    unsigned holders;
    struct snapshot *snapshot;        /* one reference */
    const struct slice *engine_paths; /* config->engine_io_paths */
    size_t engine_paths_len;
};

struct worker {
    struct event_base *base;
    struct process *process; /* borrowed */
    struct deadline_wheel wheel;
    struct buffer_pool buffers;
    struct deadline trim; /* when a burst of buffers may be over */
    struct endpoint_pool endpoints;
    struct worker_snapshot
        *current; /* newest snapshot, one holder; never NULL once started */

    char *scratch; /* bytes are read to scratch + WORKER_SCRATCH_FRONT */
    char *out;     /* heads and small answers are written here */
    struct http_request request;
    struct slice request_head; /* the bytes that `request` was parsed from */
    struct http_response response;
    struct engine_query query;

    struct slab client_slab, connection_slab, tunnel_slab, exchange_slab;

    struct client_list clients;  /* open */
    struct client_list resuming; /* have bytes of a next request waiting */
    struct client_list closed;   /* memory goes back at the end of the turn */
    struct endpoint_connection_list closed_connections;
    struct client_list idle; /* of `clients`: between two requests, longest first */
    unsigned clients_count;
    unsigned room_seen; /* process->room_wanted when idle ones were last closed for it */

    struct {
        uint64_t bytes, frames;
    } relayed[DIRECTIONS]; /* of this turn, not yet in the metrics */

    time_t date_second; /* of `date` */
    char date[32];      /* IMF-fixdate */
    const char *via;    /* our name in Via: the process's */

    struct snapshot_mailbox mailbox;
    struct post_box box;
    struct post_job take_snapshot;
    atomic_flag snapshot_posted;

    struct worker_listener_list listeners;
    unsigned index;
    bool is_draining; /* listeners closed, idle clients too */
    bool is_stopping;
    pthread_t thread;
    bool has_thread;
};

/* A worker whose loop does not run yet. `snapshot`: it takes its own reference. */
struct worker *worker_new(struct process *process, struct snapshot *snapshot,
                          unsigned index);

/* Frees it after worker_join() (or without ever having been started). */
void worker_free(struct worker *worker);

/* Any thread: what the worker listens on from now on, whole. It keeps the sockets that it has, by
 * place->socket, for new clients with the new place; begins with the others, whose descriptors it takes; lets go of those
 * that are missing, and of their clients. Then the job goes to `answer_to` and runs on_done there. Snapshots
 * published before are taken first. `job` is the caller's, and so is what is in `items` when the worker has ended
 * without running it: what has been taken is -1 and NULL. */
struct worker_listen {
    int fd;                       /* -1: the worker has it */
    struct listener_place *place; /* one reference */
};
struct worker_listen_job {
    struct post_job job;
    struct worker *worker; /* set by worker_listen() */
    struct worker_listen *items;
    size_t len;
    struct post_box *answer_to;
    void (*on_done)(struct post_job *job);
    void *owner; /* the caller's */
};
void worker_listen(struct worker *worker, struct worker_listen_job *job);

/* Starts the thread; waits for its end (after worker_stop). */
void worker_start(struct worker *worker);
void worker_join(struct worker *worker);

/* The mailbox to publish snapshots to. */
struct snapshot_mailbox *worker_mailbox(struct worker *worker);

/* Any thread: stop accepting, let idle clients go at once, close tunnels with 1012 spread over
 * `window_ms`, and close the rest when the window is over. */
void worker_drain(struct worker *worker, uint32_t window_ms);

/* Any thread: close everything now with the reason and end the loop. */
void worker_stop(struct worker *worker);

/* Descriptors are used up: closes the connection that is idle longest, to an endpoint or else of a client. False: this
 * worker has none; the others close one each within a step of the wheel. */
bool worker_make_room(struct worker *worker);

/* One holder more or less of a snapshot; on the worker's thread. */
struct worker_snapshot *worker_snapshot_ref(struct worker_snapshot *held);
void worker_snapshot_unref(struct worker_snapshot *held);

/* This second as IMF-fixdate; made once a second. */
struct slice worker_date(struct worker *worker);

/* Where reads go. */
static inline char *worker_read_space(struct worker *worker)
{
    return worker->scratch + WORKER_SCRATCH_FRONT;
}
