/*
 * What a client has queued between MULTI and EXEC.
 *
 *     MULTI ─▶ open ─request─▶ kept ─EXEC─▶ running, one request after the other ─▶ gone
 *               └─ a request that is refused, or too much ─▶ aborted: nothing is kept, EXEC is refused
 *
 * Requests are copied: the input that they came in goes on. What one client may queue is bounded in bytes, what each
 * request costs beside its words included.
 */
#pragma once

#include "shared/slice.h"

struct command;

struct queued_request {
    const struct command *row; /* borrowed */
    size_t argc;
    struct slice *argv; /* owned: one block with the bytes */
};

struct transaction {
    struct queued_request *requests;
    size_t count, capacity;
    size_t bytes;
    bool is_aborted;
    /* While EXEC runs. */
    bool is_running;
    bool finishes;        /* the connection ends after it */
    size_t next;          /* first request that is not done */
    uint64_t waits_since; /* since when it waits, timing_now(); 0: it does not */
};

struct transaction *transaction_new(void);

/* NULL: nothing. */
void transaction_free(struct transaction *transaction);

/* False: with this request it would be over bytes_max; nothing was done. */
bool transaction_add(struct transaction *transaction, const struct command *row,
                     size_t argc, const struct slice *argv, size_t bytes_max) MUST_CHECK;

/* Nothing of it will be run; gives the memory back. */
void transaction_abort(struct transaction *transaction);

/* The request `next` is done: gives its memory back and goes on to the one behind it. */
void transaction_done(struct transaction *transaction);
