#include "proxy/removed_endpoints.h"

#include "proxy/drain.h"
#include "proxy/endpoint.h"
#include "proxy/endpoint_set.h"
#include "proxy/upstream.h"

#include <stdlib.h>

void removed_endpoints_cleanup(struct removed_endpoints *removed)
{
    for (size_t i = 0; i < removed->len; i++)
        endpoint_unref(removed->items[i]);
    free(removed->items);
    *removed = (struct removed_endpoints){0};
}

void removed_endpoints_add(struct removed_endpoints *removed,
                           const struct endpoint_set *set,
                           const struct upstream_config *config)
{
    struct drain_terms terms = drain_terms_of(config);
    upstream_remove(set->upstream, &terms);
    removed->items = must_realloc(removed->items,
                                  (removed->len + set->len) * sizeof(struct endpoint *));
    for (size_t i = 0; i < set->len; i++)
        removed->items[removed->len++] = endpoint_ref(set->entries[i].endpoint);
}

static bool has_home(const struct endpoint *endpoint, struct endpoint_set *const *sets,
                     size_t len)
{
    for (size_t i = 0; i < len; i++)
        for (size_t e = 0; e < sets[i]->len; e++) {
            const struct endpoint_entry *entry = &sets[i]->entries[e];
            if (entry->state < ENDPOINT_DRAINING &&
                address_equals(&entry->endpoint->address, &endpoint->address))
                return true;
        }
    return false;
}

/* Those that nobody can reach any more. */
static void forget(struct removed_endpoints *removed)
{
    size_t kept = 0;
    for (size_t i = 0; i < removed->len; i++) {
        if (endpoint_has_one_holder(removed->items[i]))
            endpoint_unref(removed->items[i]);
        else
            removed->items[kept++] = removed->items[i];
    }
    removed->len = kept;
}

bool removed_endpoints_follow(struct removed_endpoints *removed,
                              struct endpoint_set *const *sets, size_t len,
                              bool are_complete, uint64_t now)
{
    uint64_t changes = removed->drain_changes;
    forget(removed);
    for (size_t i = 0; i < removed->len; i++) {
        bool stays = has_home(removed->items[i], sets, len);
        if (stays || are_complete)
            removed->drain_changes +=
                endpoint_note_draining(removed->items[i], !stays, now);
    }
    return removed->drain_changes != changes;
}
