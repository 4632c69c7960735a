#include "broker/dialect_book.h"

#include "shared/timing.h"

#include <stdlib.h>
#include <sys/queue.h>

/* uthash is a macro package with its own opinion about these. */
#include <uthash.h>

/* Entries without a client. */
#define KEPT_MAX 4096

/* Who cannot be told apart has several dialects while each was published within this. */
#define MIXED_WITHIN SECONDS(60)

#define DIALECTS DIALECT_RAW

/* Keys of client managers. */
#define HOST_PREFIX   "host:"
#define HOST_KEY_SIZE (sizeof(HOST_PREFIX) + 32)

struct dialect_entry {
    struct dialect_book *book;
    struct dialect_guess guess; /* from all of its clients */
    bool is_shared;
    bool is_mixed;
    uint64_t published_at[DIALECTS]; /* timing_now(); 0: never */
    unsigned holders;
    TAILQ_ENTRY(dialect_entry) of_kept; /* without holders, the longest unused first */
    UT_hash_handle hh;
    char key[];
};

struct dialect_book {
    struct dialect_entry *by_key;
    bool has_hosts; /* there was a client manager */
    TAILQ_HEAD(, dialect_entry) kept;
    size_t kept_count;
};

struct dialect_book *dialect_book_new(void)
{
    struct dialect_book *book = must_calloc(1, sizeof(*book));
    TAILQ_INIT(&book->kept);
    return book;
}

static void forget_oldest(struct dialect_book *book)
{
    struct dialect_entry *entry = TAILQ_FIRST(&book->kept);
    TAILQ_REMOVE(&book->kept, entry, of_kept);
    book->kept_count--;
    HASH_DEL(book->by_key, entry);
    free(entry);
}

void dialect_book_free(struct dialect_book *book)
{
    while (book->kept_count > 0)
        forget_oldest(book);
    check(book->by_key == NULL);
    free(book);
}

size_t dialect_book_count(const struct dialect_book *book)
{
    return HASH_COUNT(book->by_key);
}

static struct dialect_entry *entry_new(struct dialect_book *book, const char *key,
                                       bool is_shared)
{
    size_t len = strlen(key);
    struct dialect_entry *entry = must_calloc(1, sizeof(*entry) + len + 1);
    entry->book = book;
    entry->is_shared = is_shared;
    dialect_guess_init(&entry->guess);
    memcpy(entry->key, key, len + 1);
    HASH_ADD_STR(book->by_key, key, entry);
    return entry;
}

static void release(struct dialect_entry *entry)
{
    struct dialect_book *book = entry->book;
    check(entry->holders > 0);
    if (--entry->holders > 0)
        return;
    TAILQ_INSERT_TAIL(&book->kept, entry, of_kept);
    if (++book->kept_count > KEPT_MAX)
        forget_oldest(book);
}

void dialect_view_init(struct dialect_view *view)
{
    dialect_guess_init(&view->own);
    view->entry = NULL;
}

void dialect_view_name(struct dialect_view *view, enum message_dialect dialect)
{
    dialect_view_detach(view);
    dialect_guess_name(&view->own, dialect);
}

/* Holds the entry of a key, which is made where there is none. */
static struct dialect_entry *hold(struct dialect_book *book, const char *key,
                                  bool is_shared)
{
    struct dialect_entry *entry;
    HASH_FIND_STR(book->by_key, key, entry);
    if (entry == NULL)
        entry = entry_new(book, key, is_shared);
    else if (entry->holders == 0) {
        TAILQ_REMOVE(&book->kept, entry, of_kept);
        book->kept_count--;
    }
    entry->holders++;
    return entry;
}

static void put_host_key(char key[HOST_KEY_SIZE],
                         const uint8_t host_id[ENVELOPE_HOST_ID_LEN])
{
    memcpy(key, HOST_PREFIX, sizeof(HOST_PREFIX) - 1);
    envelope_host_id_write(host_id, key + sizeof(HOST_PREFIX) - 1);
    key[HOST_KEY_SIZE - 1] = '\0';
}

void dialect_view_name_host(struct dialect_view *view, struct dialect_book *book,
                            const uint8_t host_id[ENVELOPE_HOST_ID_LEN],
                            enum message_dialect dialect)
{
    char key[HOST_KEY_SIZE];
    put_host_key(key, host_id);
    struct dialect_entry *entry = hold(book, key, false);
    dialect_view_name(view, dialect);
    view->entry = entry;
    dialect_guess_name(&entry->guess, dialect);
    book->has_hosts = true;
}

void dialect_view_attach(struct dialect_view *view, struct dialect_book *book,
                         const char *key, bool is_shared)
{
    struct dialect_entry *entry = hold(book, key, is_shared);
    dialect_view_detach(view);
    view->entry = entry;
}

void dialect_view_detach(struct dialect_view *view)
{
    if (view->entry != NULL)
        release(view->entry);
    dialect_view_init(view);
}

/* A pickle and JSON, or bare data and lists, from an address within a minute. */
static bool is_mixed(const struct dialect_entry *entry, uint64_t now)
{
    unsigned count = 0;
    for (unsigned i = 0; i < DIALECTS; i++)
        count +=
            entry->published_at[i] != 0 && now - entry->published_at[i] < MIXED_WITHIN;
    return count > 1;
}

enum dialect_learned dialect_view_learn(struct dialect_view *view,
                                        const struct message *message, uint64_t now)
{
    struct dialect_entry *entry = view->entry;
    if (view->own.basis == DIALECT_NAMED)
        return DIALECT_NOTHING_NEW;
    enum dialect_learned learned = dialect_guess_learn(&view->own, message);
    if (entry == NULL)
        return learned;
    if (entry->is_shared && view->own.basis != DIALECT_UNKNOWN) {
        entry->published_at[view->own.dialect] = now;
        entry->is_mixed = is_mixed(entry, now);
    }
    return dialect_guess_learn(&entry->guess, message);
}

/* Of several who cannot be told apart, what this client published itself is what is known of it. */
static const struct dialect_guess *guess_of(const struct dialect_view *view)
{
    if (view->entry == NULL ||
        (view->entry->is_mixed && view->own.basis != DIALECT_UNKNOWN))
        return &view->own;
    return &view->entry->guess;
}

/* What the client manager named under whose host_id the message was published; NULL: nothing. A callback's host_id is
 * that of the one it is for. */
static const struct dialect_guess *named_by_host(const struct dialect_view *view,
                                                 const struct message *message)
{
    uint8_t host_id[ENVELOPE_HOST_ID_LEN];
    char key[HOST_KEY_SIZE];
    if (view->entry == NULL || !view->entry->book->has_hosts ||
        view->own.basis == DIALECT_NAMED || message->method == METHOD_CALLBACK ||
        !envelope_host_id_parse(message->host_id, host_id))
        return NULL;
    put_host_key(key, host_id);
    const struct dialect_entry *entry;
    HASH_FIND_STR(view->entry->book->by_key, key, entry);
    return entry != NULL ? &entry->guess : NULL;
}

enum message_dialect dialect_view_read(const struct dialect_view *view,
                                       const struct message *message,
                                       enum dialect_basis *basis)
{
    const struct dialect_guess *guess = named_by_host(view, message);
    if (guess == NULL)
        guess = guess_of(view);
    if (guess->basis == DIALECT_NAMED)
        *basis = DIALECT_NAMED;
    else if (message->dialect_is_proven)
        *basis = DIALECT_PROVEN;
    else
        *basis = guess->basis == DIALECT_PROVEN ? DIALECT_PROVEN : DIALECT_ASSUMED;
    return dialect_guess_read(guess, message);
}

struct dialect_guess dialect_view_given(const struct dialect_view *view)
{
    const struct dialect_entry *entry = view->entry;
    if (entry == NULL)
        return view->own;
    if (entry->is_mixed)
        return (struct dialect_guess){DIALECT_JSON14, DIALECT_ASSUMED};
    return entry->guess;
}
