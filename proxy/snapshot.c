#include "proxy/snapshot.h"

#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"

#include <openssl/crypto.h>
#include <stdlib.h>

struct snapshot *snapshot_new(uint64_t generation, struct proxy_config *config,
                              const struct file_keys *keys, struct endpoint_set **sets)
{
    struct snapshot *snapshot = must_calloc(1, sizeof(*snapshot));
    atomic_init(&snapshot->holders, 1);
    snapshot->generation = generation;
    snapshot->config = config;
    snapshot->keys = *keys;
    snapshot->sets_len = config->upstreams.count;
    snapshot->sets = must_calloc(snapshot->sets_len, sizeof(struct endpoint_set *));
    for (size_t i = 0; i < snapshot->sets_len; i++) {
        check(file_keys_equal(keys, &sets[i]->keys));
        snapshot->sets[i] = sets[i];
    }
    return snapshot;
}

struct snapshot *snapshot_ref(struct snapshot *snapshot)
{
    atomic_fetch_add_explicit(&snapshot->holders, 1, memory_order_relaxed);
    return snapshot;
}

void snapshot_unref(struct snapshot *snapshot)
{
    if (atomic_fetch_sub_explicit(&snapshot->holders, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < snapshot->sets_len; i++)
        endpoint_set_unref(snapshot->sets[i]);
    free(snapshot->sets);
    proxy_config_unref(snapshot->config);
    OPENSSL_cleanse(&snapshot->keys, sizeof(snapshot->keys));
    free(snapshot);
}

void snapshot_mailbox_init(struct snapshot_mailbox *mailbox,
                           void (*notify)(void *context), void *context)
{
    atomic_init(&mailbox->next, NULL);
    atomic_init(&mailbox->taken, 0);
    mailbox->notify = notify;
    mailbox->context = context;
}

static struct snapshot *mailbox_exchange(struct snapshot_mailbox *mailbox,
                                         struct snapshot *snapshot)
{
    return atomic_exchange_explicit(&mailbox->next, snapshot, memory_order_acq_rel);
}

void snapshot_mailbox_cleanup(struct snapshot_mailbox *mailbox)
{
    struct snapshot *unread = mailbox_exchange(mailbox, NULL);
    if (unread != NULL)
        snapshot_unref(unread);
}

void snapshot_publish(struct snapshot *snapshot,
                      struct snapshot_mailbox *const *mailboxes, size_t mailboxes_len)
{
    for (size_t i = 0; i < mailboxes_len; i++) {
        struct snapshot *unread = mailbox_exchange(mailboxes[i], snapshot_ref(snapshot));
        if (unread != NULL)
            snapshot_unref(unread);
        mailboxes[i]->notify(mailboxes[i]->context);
    }
}

struct snapshot *snapshot_take(struct snapshot_mailbox *mailbox)
{
    struct snapshot *next = mailbox_exchange(mailbox, NULL);
    if (next != NULL)
        atomic_store_explicit(&mailbox->taken, next->generation, memory_order_release);
    return next;
}

uint64_t snapshot_taken(const struct snapshot_mailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->taken, memory_order_acquire);
}
