/*
 * What is known of the dialects of pods, by who they are: a pod publishes on some connections and is subscribed on
 * another.
 *
 *     listener's dialect, or client_name=web-1:json15 ─▶ named: the view alone
 *     web-1, or a process on a unix socket            ─▶ one entry a pod           (identity.h)
 *     neither                                         ─▶ one entry an address and client library: who is there cannot
 *                                                        be told apart. While they publish in different dialects
 *                                                        they are given json14, which all of them read.
 *     a client manager told its host_id and dialect   ─▶ named: one entry a host_id; whatever is published under it,
 *                                                        on whichever connection, is read by that
 *
 * An entry outlives its clients, because pods reconnect; the longest unused are forgotten.
 */
#pragma once

#include "broker/dialect_guess.h"
#include "broker/envelope.h"

struct dialect_book;
struct dialect_entry;

struct dialect_book *dialect_book_new(void);

/* No view may be attached any more. */
void dialect_book_free(struct dialect_book *book);

/* Of one client, embedded in it; dialect_view_init before use. */
struct dialect_view {
    struct dialect_guess own;    /* named, or from what this client published itself */
    struct dialect_entry *entry; /* NULL: named, or not attached */
};

void dialect_view_init(struct dialect_view *view);

/* `dialect` is not RAW. */
void dialect_view_name(struct dialect_view *view, enum message_dialect dialect);

/* A client manager named it: also what others publish under its host_id is read by it. `dialect` is not RAW. */
void dialect_view_name_host(struct dialect_view *view, struct dialect_book *book,
                            const uint8_t host_id[ENVELOPE_HOST_ID_LEN],
                            enum message_dialect dialect);

/* `key` is the pod's; `is_shared`: or that of several, who cannot be told apart. */
void dialect_view_attach(struct dialect_view *view, struct dialect_book *book,
                         const char *key, bool is_shared);

/* Back to what dialect_view_init made. */
void dialect_view_detach(struct dialect_view *view);

/* The client published `message`, which python-socketio wrote (others prove nothing about the pods). `now` as
 * timing_now(). */
enum dialect_learned dialect_view_learn(struct dialect_view *view,
                                        const struct message *message, uint64_t now);

/* The dialect to read a message of this client by, and what that rests on. */
enum message_dialect dialect_view_read(const struct dialect_view *view,
                                       const struct message *message,
                                       enum dialect_basis *basis);

/* What the client is given: never RAW. */
struct dialect_guess dialect_view_given(const struct dialect_view *view);

/* Entries, for status and tests. */
size_t dialect_book_count(const struct dialect_book *book);
