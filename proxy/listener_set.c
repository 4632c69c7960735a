#include "proxy/listener_set.h"

#include "shared/log.h"
#include "shared/net.h"

#include "proxy/listener_place.h"
#include "proxy/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BACKLOG 4096

/* A listening address, or one that shall be. */
struct bound {
    uint64_t socket;
    struct address address; /* as configured */
    struct address local;   /* after port 0 */
};

/* One listener of the config. */
struct planned {
    struct bound bound;
    struct listener_place *place; /* one reference */
    int *fds;                     /* a worker each; -1: it has one, or took it */
    bool is_new;
};

struct listener_plan {
    size_t workers_len;
    struct planned *items;
    size_t len;
};

struct listener_set {
    struct worker *const *workers;
    size_t workers_len;
    struct post_box *box;
    struct bound *bounds;
    size_t len;
    uint64_t sockets; /* numbers given so far */

    struct worker_listen_job *jobs; /* one a worker */
    size_t missing;                 /* workers that have not answered */
    void (*on_applied)(void *argument);
    void *argument;
};

struct listener_set *listener_set_new(struct worker *const *workers, size_t workers_len,
                                      struct post_box *box)
{
    struct listener_set *set = must_calloc(1, sizeof *set);
    set->workers = workers;
    set->workers_len = workers_len;
    set->box = box;
    set->jobs = must_calloc(workers_len, sizeof *set->jobs);
    return set;
}

size_t listener_set_count(const struct listener_set *set)
{
    return set->len;
}

/* ---- plan ---- */

/* Another process must be found out although sockets of one process share a port, so the first socket is bound
 * alone; not where we listen ourselves on an address that overlaps (0.0.0.0 and 127.0.0.1). */
static bool may_bind_alone(const struct listener_set *set, const struct address *address)
{
    for (size_t i = 0; i < set->len; i++)
        if (!address_is_unix(&set->bounds[i].local) && !address_is_unix(address) &&
            address_port(&set->bounds[i].local) == address_port(address))
            return false;
    return true;
}

static bool bind_tcp(const struct listener_set *set, struct planned *item,
                     char why[NET_WHY_SIZE])
{
    struct net_listen_options options = {.backlog = BACKLOG};
    item->bound.local = item->bound.address;
    if (may_bind_alone(set, &item->bound.address)) {
        int alone = net_listen(&item->bound.local, &options, why);
        if (alone < 0)
            return false;
        item->bound.local = net_local_address(alone);
        net_listen_close(alone);
    }
    options.reuse_port = true;
    for (size_t i = 0; i < set->workers_len; i++) {
        item->fds[i] = net_listen(&item->bound.local, &options, why);
        if (item->fds[i] < 0)
            return false;
        item->bound.local = net_local_address(item->fds[i]);
        listener_place_tune(item->place, item->fds[i]);
    }
    return true;
}

static bool bind_unix(const struct listener_set *set, struct planned *item,
                      char why[NET_WHY_SIZE])
{
    struct net_listen_options options = {.backlog = BACKLOG};
    item->bound.local = item->bound.address;
    item->fds[0] = net_listen(&item->bound.local, &options, why);
    for (size_t i = 1; item->fds[0] >= 0 && i < set->workers_len; i++) {
        item->fds[i] = dup(item->fds[0]);
        check(item->fds[i] >= 0);
    }
    return item->fds[0] >= 0;
}

/* The socket of that address which no item before has. */
static const struct bound *find_bound(const struct listener_set *set,
                                      const struct listener_plan *plan,
                                      const struct address *address)
{
    for (size_t i = 0; i < set->len; i++) {
        bool is_taken = false;
        for (size_t j = 0; j < plan->len && !is_taken; j++)
            is_taken = plan->items[j].bound.socket == set->bounds[i].socket;
        if (!is_taken && address_equals(&set->bounds[i].address, address))
            return &set->bounds[i];
    }
    return NULL;
}

/* What needs no socket: TLS files are read before anything is bound. */
static bool add_item(const struct listener_set *set, struct listener_plan *plan,
                     const struct proxy_config *config, size_t index, char *error,
                     size_t error_size)
{
    struct listener_place *place = listener_place_new(config, index, error, error_size);
    if (place == NULL)
        return false;
    const struct address *address = &proxy_config_listener(config, index)->address;
    const struct bound *bound = find_bound(set, plan, address);
    struct planned *item = &plan->items[plan->len];
    item->place = place;
    item->is_new = bound == NULL;
    if (bound != NULL)
        item->bound = *bound;
    else
        item->bound = (struct bound){.address = *address};
    item->fds = must_calloc(set->workers_len, sizeof *item->fds);
    for (size_t i = 0; i < set->workers_len; i++)
        item->fds[i] = -1;
    plan->len++;
    return true;
}

static bool bind_item(const struct listener_set *set, struct planned *item, size_t index,
                      char *error, size_t error_size)
{
    char why[NET_WHY_SIZE];
    bool is_bound = !item->is_new || (item->place->is_unix ? bind_unix(set, item, why)
                                                           : bind_tcp(set, item, why));
    if (!is_bound)
        snprintf(error, error_size, "listeners[%zu].address: %s: %s", index,
                 item->place->name, why);
    else if (!item->place->is_unix)
        snprintf(item->place->port, sizeof item->place->port, "%u",
                 address_port(&item->bound.local) & 0xffff);
    return is_bound;
}

struct listener_plan *listener_plan_new(const struct listener_set *set,
                                        const struct proxy_config *config, char *error,
                                        size_t error_size)
{
    struct listener_plan *plan = must_calloc(1, sizeof *plan);
    plan->workers_len = set->workers_len;
    plan->items = must_calloc(config->listeners.count, sizeof *plan->items);
    bool is_good = true;
    for (size_t i = 0; is_good && i < config->listeners.count; i++)
        is_good = add_item(set, plan, config, i, error, error_size);
    for (size_t i = 0; is_good && i < plan->len; i++)
        is_good = bind_item(set, &plan->items[i], i, error, error_size);
    if (is_good)
        return plan;
    listener_plan_free(plan);
    return NULL;
}

void listener_plan_free(struct listener_plan *plan)
{
    for (size_t i = 0; i < plan->len; i++) {
        for (size_t w = 0; w < plan->workers_len; w++)
            if (plan->items[i].fds[w] >= 0)
                net_listen_close(plan->items[i].fds[w]);
        free(plan->items[i].fds);
        listener_place_unref(plan->items[i].place);
    }
    free(plan->items);
    free(plan);
}

/* ---- apply ---- */

static void free_items(struct worker_listen_job *job)
{
    for (size_t i = 0; i < job->len; i++) {
        if (job->items[i].fd >= 0)
            net_listen_close(job->items[i].fd);
        if (job->items[i].place != NULL)
            listener_place_unref(job->items[i].place);
    }
    free(job->items);
    job->items = NULL;
    job->len = 0;
}

static void on_worker_listens(struct post_job *posted)
{
    struct worker_listen_job *job = CONTAINER_OF(posted, struct worker_listen_job, job);
    struct listener_set *set = job->owner;
    free_items(job);
    if (--set->missing == 0)
        set->on_applied(set->argument);
}

static void log_changes(const struct listener_set *set, const struct listener_plan *plan)
{
    char text[ADDRESS_TEXT_SIZE];
    for (size_t i = 0; i < plan->len; i++)
        if (plan->items[i].is_new)
            log_info(LOG_SUBJECT("main"), "listening",
                     LOG_TEXT("address", address_text(&plan->items[i].bound.local, text)),
                     LOG_BOOL("tls", plan->items[i].place->is_tls));
    for (size_t i = 0; i < set->len; i++) {
        bool stays = false;
        for (size_t j = 0; j < plan->len && !stays; j++)
            stays = plan->items[j].bound.socket == set->bounds[i].socket;
        if (!stays)
            log_info(LOG_SUBJECT("main"),
                     "no longer listening, its clients are closed one by one",
                     LOG_TEXT("address", address_text(&set->bounds[i].local, text)));
    }
}

void listener_set_apply(struct listener_set *set, struct listener_plan *plan,
                        void (*on_applied)(void *argument), void *argument)
{
    check(set->missing == 0);
    for (size_t i = 0; i < plan->len; i++)
        if (plan->items[i].is_new)
            plan->items[i].bound.socket = ++set->sockets;
    log_changes(set, plan);
    free(set->bounds);
    set->len = plan->len;
    set->bounds = must_calloc(plan->len, sizeof *set->bounds);
    for (size_t i = 0; i < plan->len; i++) {
        set->bounds[i] = plan->items[i].bound;
        plan->items[i].place->socket = plan->items[i].bound.socket;
    }
    set->on_applied = on_applied;
    set->argument = argument;
    set->missing = set->workers_len;
    for (size_t w = 0; w < set->workers_len; w++) {
        struct worker_listen_job *job = &set->jobs[w];
        job->owner = set;
        job->answer_to = set->box;
        job->on_done = on_worker_listens;
        job->len = plan->len;
        job->items = must_calloc(plan->len, sizeof *job->items);
        for (size_t i = 0; i < plan->len; i++) {
            job->items[i].fd = plan->items[i].fds[w];
            job->items[i].place = listener_place_ref(plan->items[i].place);
            plan->items[i].fds[w] = -1;
        }
        worker_listen(set->workers[w], job);
    }
    listener_plan_free(plan);
}

void listener_set_free(struct listener_set *set)
{
    for (size_t w = 0; w < set->workers_len; w++)
        free_items(&set->jobs[w]);
    free(set->jobs);
    free(set->bounds);
    free(set);
}
