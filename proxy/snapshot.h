/*
 * The snapshot: everything that a worker needs to decide, immutable, and how it gets there.
 *
 *     main thread                                worker
 *     snapshot_new ─▶ snapshot_publish ─▶ mailbox ─ notify ─▶ snapshot_take ─▶ its current one
 *                         (an unread one that was          (the one before is unref'd; exchanges
 *                          there is replaced)               in flight hold their own reference)
 *
 * A pointer in one place that many threads read would need more than a count: a reader could add
 * itself to a count that just fell to zero. So each worker has a mailbox with one reference in it,
 * exchanged as a whole.
 */
#pragma once

#include "shared/base.h"

#include "proxy/route_tag.h"

#include <stdatomic.h>
#include <stdint.h>

struct endpoint_set;
struct proxy_config;

struct snapshot {
    atomic_uint holders;
    uint64_t generation; /* from 1, higher is newer */
    struct proxy_config *config;
    struct file_keys keys;
    size_t sets_len;            /* = config->upstreams.count, same order */
    struct endpoint_set **sets; /* each with one reference */
    uint64_t drain_changes;     /* of endpoints whose upstreams are removed */
};

/* Takes over the caller's references to `config` and to the `config->upstreams.count` sets; copies
 * `keys` and the array. The caller holds the one reference of the result. */
struct snapshot *snapshot_new(uint64_t generation, struct proxy_config *config,
                              const struct file_keys *keys, struct endpoint_set **sets);

/* One holder more (returns the same pointer), one holder less. Any thread. */
struct snapshot *snapshot_ref(struct snapshot *snapshot);
void snapshot_unref(struct snapshot *snapshot);

/* One worker's mailbox. `notify` wakes the worker (writes to its eventfd, say); it is called by the
 * publishing thread and must not block. */
struct snapshot_mailbox {
    struct snapshot *_Atomic next;
    _Atomic uint64_t taken; /* generation that the worker took last */
    void (*notify)(void *context);
    void *context;
};

void snapshot_mailbox_init(struct snapshot_mailbox *mailbox,
                           void (*notify)(void *context), void *context);

/* Gives back a snapshot that nobody took. The worker has ended. */
void snapshot_mailbox_cleanup(struct snapshot_mailbox *mailbox);

/* Main thread: puts one reference into each mailbox and notifies. Keeps the caller's reference. */
void snapshot_publish(struct snapshot *snapshot,
                      struct snapshot_mailbox *const *mailboxes, size_t mailboxes_len);

/* Worker: the newest one with a reference that is the caller's, or NULL when nothing is new. Marks it
 * as taken. */
struct snapshot *snapshot_take(struct snapshot_mailbox *mailbox) MUST_CHECK;

/* Generation that this worker took last, 0 before the first: a reload is done when all have it. */
uint64_t snapshot_taken(const struct snapshot_mailbox *mailbox);
