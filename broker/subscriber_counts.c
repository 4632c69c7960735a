#include "broker/subscriber_counts.h"

#include "broker/interest.h"
#include "broker/peers.h"

#include <event2/buffer.h>
#include <stdlib.h>

/* uthash is a macro package with its own opinion about these. */
#include <uthash.h>

/* Channels of one broker; beyond, what it says is not counted. */
#define CHANNELS_MAX 200000

#define NAME_MAX_LEN 255

struct entry {
    uint32_t count;
    uint32_t turn; /* of the page, when it was heard */
    uint64_t heard_at;
    UT_hash_handle hh;
    size_t len;
    char name[];
};

/* What one broker says. */
struct page {
    uint64_t origin;
    uint64_t heard_at;
    struct entry *entries; /* by name */
    uint32_t turn;         /* 0: it knows no turns */
    TAILQ_ENTRY(page) of_all;
};

struct subscriber_counts {
    struct interest_table *interest; /* borrowed */
    bool goes_on;                    /* within a turn */
    bool hurries; /* from the next turn on, or in this one: until its end */
    bool is_hurried_turn;
    TAILQ_HEAD(, page) pages;
};

static void entry_free(struct page *page, struct entry *entry)
{
    HASH_DEL(page->entries, entry);
    free(entry);
}

static void page_clear(struct page *page)
{
    while (page->entries != NULL)
        entry_free(page, page->entries);
}

static void page_free(struct subscriber_counts *counts, struct page *page)
{
    TAILQ_REMOVE(&counts->pages, page, of_all);
    page_clear(page);
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
    struct entry *entry;
    HASH_FIND(hh, page->entries, name.data, name.len, entry);
    return entry;
}

static void page_set(struct page *page, struct slice name, uint32_t count, uint64_t now)
{
    struct entry *entry = entry_find(page, name);
    if (entry != NULL && count == 0) {
        entry_free(page, entry);
        return;
    }
    if (count == 0 || (entry == NULL && HASH_COUNT(page->entries) >= CHANNELS_MAX))
        return;
    if (entry == NULL) {
        entry = must_calloc(1, sizeof(*entry) + name.len + 1);
        entry->len = name.len;
        if (name.len > 0)
            memcpy(entry->name, name.data, name.len);
        HASH_ADD_KEYPTR(hh, page->entries, entry->name, entry->len, entry);
    }
    entry->count = count;
    entry->turn = page->turn;
    entry->heard_at = now;
}

/* What was in none of the last two turns, or was heard too long ago of a broker that knows no turns. */
static void page_age(struct page *page, uint64_t now)
{
    struct entry *next;
    for (struct entry *entry = page->entries; entry != NULL; entry = next) {
        next = entry->hh.next;
        if (page->turn > 0 ? page->turn - entry->turn > 2
                           : now - entry->heard_at > SUBSCRIBER_COUNT_KEEP)
            entry_free(page, entry);
    }
}

struct subscriber_counts *subscriber_counts_new(struct interest_table *interest)
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
    free(counts);
}

/* ── own ── */

static bool is_written(const struct interest_target *target)
{
    return target->active > 0 && target->name.len <= NAME_MAX_LEN;
}

/* All of them, if they are few. False: nothing is written. */
static bool write_all(struct subscriber_counts *counts, struct evbuffer *out,
                      size_t *count)
{
    size_t bytes = 0;
    const struct interest_target *first =
        interest_first(counts->interest, INTEREST_CHANNEL);
    const struct interest_target *target;
    for (target = first; target != NULL; target = TAILQ_NEXT(target, of_kind)) {
        bytes += is_written(target) ? 1 + target->name.len + 4 : 0;
        if (bytes > SUBSCRIBER_COUNTS_CALM)
            return false;
    }
    for (target = first; target != NULL; target = TAILQ_NEXT(target, of_kind))
        if (is_written(target)) {
            control_add_channel(out, target->name, target->active);
            (*count)++;
        }
    return true;
}

static size_t write_changed(struct subscriber_counts *counts, struct evbuffer *out,
                            size_t end)
{
    size_t count = 0;
    struct slice name;
    unsigned active;
    while (evbuffer_get_length(out) + 1 + NAME_MAX_LEN + 4 <= end &&
           interest_take_change(counts->interest, &name, &active))
        if (name.len <= NAME_MAX_LEN) {
            control_add_channel(out, name, active);
            count++;
        }
    return count;
}

/* The turn goes on, or a new one begins. */
static size_t write_turn(struct subscriber_counts *counts, struct evbuffer *out,
                         size_t end, uint8_t *flags)
{
    size_t count = 0;
    bool begins = !counts->goes_on;
    if (begins) {
        *flags |= CONTROL_GENERIC_TURN;
        counts->is_hurried_turn = counts->hurries;
    }
    counts->goes_on = true;
    while (evbuffer_get_length(out) + 1 + NAME_MAX_LEN + 4 <= end) {
        const struct interest_target *target =
            interest_walk_next(counts->interest, begins);
        begins = false;
        if (target == NULL) {
            counts->goes_on = false;
            counts->hurries = counts->hurries && !counts->is_hurried_turn;
            break;
        }
        if (is_written(target)) {
            control_add_channel(out, target->name, target->active);
            count++;
        }
    }
    return count;
}

size_t subscriber_counts_write(struct subscriber_counts *counts, struct evbuffer *out,
                               size_t room, uint8_t *flags)
{
    size_t begun = evbuffer_get_length(out);
    size_t count = 0;
    *flags = 0;
    if (write_all(counts, out, &count)) {
        struct slice name;
        unsigned active;
        while (interest_take_change(counts->interest, &name, &active)) {
        }
        counts->goes_on = counts->hurries = false;
        return count;
    }
    *flags = CONTROL_GENERIC_PART;
    count = write_changed(counts, out, begun + room);
    size_t end =
        begun + (counts->hurries ? room : min_size(room, SUBSCRIBER_COUNTS_CALM));
    return count + write_turn(counts, out, end, flags);
}

bool subscriber_counts_is_behind(const struct subscriber_counts *counts)
{
    return counts->hurries || interest_has_change(counts->interest);
}

void subscriber_counts_hurry(struct subscriber_counts *counts)
{
    counts->hurries = true;
    counts->is_hurried_turn = false; /* the one that goes on does not have all */
}

/* ── of others ── */

void subscriber_counts_hear(struct subscriber_counts *counts, uint64_t origin,
                            struct control_list list, uint8_t flags, uint64_t now)
{
    struct page *page = page_find(counts, origin);
    if (page == NULL) {
        page = must_calloc(1, sizeof(*page));
        page->origin = origin;
        TAILQ_INSERT_TAIL(&counts->pages, page, of_all);
    }
    page->heard_at = now;
    bool is_part = (flags & CONTROL_GENERIC_PART) != 0;
    if ((flags & CONTROL_GENERIC_TURN) != 0)
        page->turn++;
    if (!is_part)
        page_clear(page);
    else if ((flags & CONTROL_GENERIC_TURN) != 0 || page->turn == 0)
        page_age(page, now);
    struct slice name;
    uint32_t count;
    while (control_next_channel(&list, &name, &count))
        page_set(page, name, count, now);
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
        if (!is_counted(page, now))
            continue;
        for (const struct entry *entry = page->entries; entry != NULL;
             entry = entry->hh.next) {
            struct slice name = slice_of(entry->name, entry->len);
            if (!is_in_earlier_page(counts, page, name, now))
                on_channel(context, name);
        }
    }
}
