#include "broker/echo_book.h"

#include <stdlib.h>

/* uthash is a macro package with its own opinion about these. */
#include <uthash.h>

struct echo_entry {
    struct echo_book *book;
    bool is_process;
    bool has_host_id;
    bool has_several; /* host_ids */
    bool is_proven;   /* from 5.10 */
    uint8_t host_id[ENVELOPE_HOST_ID_LEN];
    unsigned holders, subscribers;
    UT_hash_handle hh;
    char key[];
};

struct echo_book {
    struct echo_entry *by_key;
};

struct echo_book *echo_book_new(void)
{
    return must_calloc(1, sizeof(struct echo_book));
}

void echo_book_free(struct echo_book *book)
{
    check(book->by_key == NULL);
    free(book);
}

void echo_view_attach(struct echo_view *view, struct echo_book *book, const char *key,
                      bool is_process)
{
    echo_view_detach(view);
    struct echo_entry *entry;
    HASH_FIND_STR(book->by_key, key, entry);
    if (entry == NULL) {
        size_t len = strlen(key);
        entry = must_calloc(1, sizeof(*entry) + len + 1);
        entry->book = book;
        entry->is_process = is_process;
        memcpy(entry->key, key, len + 1);
        HASH_ADD_STR(book->by_key, key, entry);
    }
    entry->holders++;
    view->entry = entry;
}

void echo_view_detach(struct echo_view *view)
{
    struct echo_entry *entry = view->entry;
    if (entry == NULL)
        return;
    entry->subscribers -= view->is_subscribed;
    if (--entry->holders == 0) {
        HASH_DEL(entry->book->by_key, entry);
        free(entry);
    }
    *view = (struct echo_view){0};
}

void echo_view_subscribe(struct echo_view *view)
{
    if (view->entry == NULL || view->is_subscribed)
        return;
    view->is_subscribed = true;
    view->entry->subscribers++;
}

void echo_view_learn(struct echo_view *view, enum message_method method,
                     const uint8_t host_id[ENVELOPE_HOST_ID_LEN])
{
    struct echo_entry *entry = view->entry;
    if (entry == NULL || method == METHOD_CALLBACK) /* its host_id is the receiver's */
        return;
    entry->is_proven |= method != METHOD_EMIT;
    if (!entry->has_host_id)
        memcpy(entry->host_id, host_id, ENVELOPE_HOST_ID_LEN);
    else
        entry->has_several |= memcmp(entry->host_id, host_id, ENVELOPE_HOST_ID_LEN) != 0;
    entry->has_host_id = true;
}

bool echo_view_spares(const struct echo_view *view, enum echo_mode mode,
                      const struct envelope *envelope)
{
    const struct echo_entry *entry = view->entry;
    if (entry == NULL || mode == ECHO_ON || !entry->has_host_id || entry->has_several ||
        entry->subscribers != 1 || envelope->method == METHOD_CALLBACK ||
        (envelope->flags & ENVELOPE_HAS_HOST) == 0)
        return false;
    if (mode == ECHO_AUTO && !(entry->is_process && entry->is_proven))
        return false;
    return memcmp(entry->host_id, envelope->host_id, ENVELOPE_HOST_ID_LEN) == 0;
}
