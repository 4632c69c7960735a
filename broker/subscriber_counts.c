#include "broker/subscriber_counts.h"

#include "broker/interest.h"
#include "broker/peers.h"

#include <event2/buffer.h>
#include <stdlib.h>

/* Of one heartbeat, which stays below 64 KiB. */
#define WRITE_MAX ((size_t)16 * 1024)

/* Channels of one broker; beyond, what it says is not counted. */
#define CHANNELS_MAX 20000

#define NAME_MAX_LEN 255

struct entry {
    char *name; /* owned */
    size_t len;
    uint32_t count;
    uint64_t heard_at;
};

/* What one broker says. */
struct page {
    uint64_t origin;
    uint64_t heard_at;
    struct entry *entries;
    size_t count, capacity;
    TAILQ_ENTRY(page) of_all;
};

struct subscriber_counts {
    const struct interest_table *interest; /* borrowed */
    char *next; /* the first to be written; NULL: from the beginning */
    TAILQ_HEAD(, page) pages;
};

static void page_clear(struct page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free(page->entries[i].name);
    page->count = 0;
}

static void page_free(struct subscriber_counts *counts, struct page *page)
{
    TAILQ_REMOVE(&counts->pages, page, of_all);
    page_clear(page);
    free(page->entries);
    free(page);
}

static struct page *page_find(const struct subscriber_counts *counts, uint64_t origin)
{
    struct page *page;
    TAILQ_FOREACH(page, &counts->pages, of_all)
    if (page->origin == origin)
        return page;
    return NULL;
}

static struct entry *entry_find(const struct page *page, struct slice name)
{
    for (size_t i = 0; i < page->count; i++)
        if (slice_equals(slice_of(page->entries[i].name, page->entries[i].len), name))
            return &page->entries[i];
    return NULL;
}

static void page_add(struct page *page, struct slice name, uint32_t count, uint64_t now)
{
    if (page->count == CHANNELS_MAX)
        return;
    if (page->count == page->capacity) {
        page->capacity = page->capacity > 0 ? page->capacity * 2 : 16;
        page->entries =
            must_realloc(page->entries, page->capacity * sizeof(struct entry));
    }
    page->entries[page->count++] = (struct entry){slice_dup(name), name.len, count, now};
}

static void page_age(struct page *page, uint64_t now)
{
    size_t kept = 0;
    for (size_t i = 0; i < page->count; i++) {
        if (now - page->entries[i].heard_at > SUBSCRIBER_COUNT_KEEP)
            free(page->entries[i].name);
        else
            page->entries[kept++] = page->entries[i];
    }
    page->count = kept;
}

struct subscriber_counts *subscriber_counts_new(const struct interest_table *interest)
{
    struct subscriber_counts *counts = must_calloc(1, sizeof(*counts));
    counts->interest = interest;
    TAILQ_INIT(&counts->pages);
    return counts;
}

void subscriber_counts_free(struct subscriber_counts *counts)
{
    struct page *page;
    while ((page = TAILQ_FIRST(&counts->pages)) != NULL)
        page_free(counts, page);
    free(counts->next);
    free(counts);
}

/* ── own ── */

static const struct interest_target *first_target(const struct subscriber_counts *counts)
{
    const struct interest_target *target = NULL;
    if (counts->next != NULL)
        target = interest_target_find(counts->interest, INTEREST_CHANNEL,
                                      slice_from_text(counts->next));
    return target != NULL ? target : interest_first(counts->interest, INTEREST_CHANNEL);
}

static bool is_written(const struct interest_target *target)
{
    return target->active > 0 && target->name.len <= NAME_MAX_LEN;
}

size_t subscriber_counts_write(struct subscriber_counts *counts, struct evbuffer *out,
                               bool *is_part)
{
    const struct interest_target *first = first_target(counts);
    const struct interest_target *target = first;
    size_t begun = evbuffer_get_length(out);
    size_t written = 0;
    while (target != NULL && evbuffer_get_length(out) - begun < WRITE_MAX) {
        if (is_written(target)) {
            control_add_channel(out, target->name, target->active);
            written++;
        }
        target = TAILQ_NEXT(target, of_kind);
    }
    /* Not from the beginning, or not to the end. */
    *is_part =
        target != NULL || first != interest_first(counts->interest, INTEREST_CHANNEL);
    free(counts->next);
    counts->next = target != NULL ? slice_dup(target->name) : NULL;
    return written;
}

/* ── of others ── */

void subscriber_counts_hear(struct subscriber_counts *counts, uint64_t origin,
                            struct control_list list, bool is_part, uint64_t now)
{
    struct page *page = page_find(counts, origin);
    if (page == NULL) {
        page = must_calloc(1, sizeof(*page));
        page->origin = origin;
        TAILQ_INSERT_TAIL(&counts->pages, page, of_all);
    }
    page->heard_at = now;
    if (is_part)
        page_age(page, now);
    else
        page_clear(page);
    struct slice name;
    uint32_t count;
    while (control_next_channel(&list, &name, &count)) {
        struct entry *entry = is_part ? entry_find(page, name) : NULL;
        if (entry == NULL)
            page_add(page, name, count, now);
        else
            *entry = (struct entry){entry->name, entry->len, count, now};
    }
}

void subscriber_counts_forget(struct subscriber_counts *counts, uint64_t origin)
{
    struct page *page = page_find(counts, origin);
    if (page != NULL)
        page_free(counts, page);
}

static bool is_counted(const struct page *page, uint64_t now)
{
    return now - page->heard_at <= PEER_LIVE;
}

uint64_t subscriber_counts_of(const struct subscriber_counts *counts,
                              struct slice channel, uint64_t now)
{
    uint64_t sum = 0;
    const struct page *page;
    TAILQ_FOREACH(page, &counts->pages, of_all)
    {
        const struct entry *entry =
            is_counted(page, now) ? entry_find(page, channel) : NULL;
        sum += entry != NULL ? entry->count : 0;
    }
    return sum;
}

static bool is_in_earlier_page(const struct subscriber_counts *counts,
                               const struct page *page, struct slice name, uint64_t now)
{
    const struct page *earlier;
    TAILQ_FOREACH(earlier, &counts->pages, of_all)
    {
        if (earlier == page)
            return false;
        if (is_counted(earlier, now) && entry_find(earlier, name) != NULL)
            return true;
    }
    return false;
}

void subscriber_counts_walk(const struct subscriber_counts *counts, uint64_t now,
                            void (*on_channel)(void *context, struct slice channel),
                            void *context)
{
    const struct page *page;
    TAILQ_FOREACH(page, &counts->pages, of_all)
    {
        for (size_t i = 0; i < page->count && is_counted(page, now); i++) {
            struct slice name = slice_of(page->entries[i].name, page->entries[i].len);
            if (!is_in_earlier_page(counts, page, name, now))
                on_channel(context, name);
        }
    }
}
