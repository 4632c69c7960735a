#include "proxy/post.h"

#include "shared/base.h"

#include <event2/event.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_posted(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct post_box *box = arg;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got; /* EAGAIN: a run before this one took the jobs already */

    struct post_list jobs = STAILQ_HEAD_INITIALIZER(jobs);
    pthread_mutex_lock(&box->lock);
    STAILQ_CONCAT(&jobs, &box->jobs);
    pthread_mutex_unlock(&box->lock);
    struct post_job *job;
    while ((job = STAILQ_FIRST(&jobs)) != NULL) {
        STAILQ_REMOVE_HEAD(&jobs, entry);
        job->run(job);
    }
}

void post_box_init(struct post_box *box, struct event_base *base)
{
    pthread_mutex_init(&box->lock, NULL);
    STAILQ_INIT(&box->jobs);
    box->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    check(box->fd >= 0);
    event_assign(&box->event, base, box->fd, EV_READ | EV_PERSIST, on_posted, box);
    event_add(&box->event, NULL);
}

void post_box_cleanup(struct post_box *box)
{
    event_del(&box->event);
    close(box->fd);
    pthread_mutex_destroy(&box->lock);
}

void post_send(struct post_box *box, struct post_job *job)
{
    pthread_mutex_lock(&box->lock);
    STAILQ_INSERT_TAIL(&box->jobs, job, entry);
    pthread_mutex_unlock(&box->lock);
    uint64_t one = 1;
    ssize_t sent = write(box->fd, &one, sizeof one);
    check(sent == sizeof one);
}
