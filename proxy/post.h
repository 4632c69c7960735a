/*
 * Work handed from one thread to another's loop.
 *
 *      any thread                                   the loop's thread
 *      post_send(box, job) ─▶ [ job · job · job ] ─ eventfd ─▶ job->run(job)
 *
 * The only way by which threads of the proxy talk besides atomic counters and published snapshots. For
 * rare things (a new snapshot, shutdown, an operator's question): the box has a lock. Jobs run in the
 * order in which they were sent.
 */
#pragma once

#include <event2/event_struct.h>

#include <pthread.h>
#include <sys/queue.h>

/* Embedded in whatever carries the job's data; belongs to the box from post_send() until run() is called,
 * then to run(). */
struct post_job {
    STAILQ_ENTRY(post_job) entry;
    void (*run)(struct post_job *job);
};

STAILQ_HEAD(post_list, post_job);

struct post_box {
    pthread_mutex_t lock;
    struct post_list jobs;
    struct event event;
    int fd;
};

/* `base` is the loop that runs the jobs; it outlives the box. */
void post_box_init(struct post_box *box, struct event_base *base);

/* Jobs that have not run are left alone: their senders know what to do with them. */
void post_box_cleanup(struct post_box *box);

/* Any thread. */
void post_send(struct post_box *box, struct post_job *job);
