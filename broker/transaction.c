#include "broker/transaction.h"

#include "shared/base.h"

#include <stdlib.h>

struct transaction *transaction_new(void)
{
    return must_calloc(1, sizeof(struct transaction));
}

static void free_requests(struct transaction *transaction)
{
    for (size_t i = transaction->next; i < transaction->count; i++)
        free(transaction->requests[i].argv);
    free(transaction->requests);
    transaction->requests = NULL;
    transaction->count = transaction->capacity = transaction->next = 0;
    transaction->bytes = 0;
}

void transaction_free(struct transaction *transaction)
{
    if (transaction == NULL)
        return;
    free_requests(transaction);
    free(transaction);
}

static size_t block_size(size_t argc, const struct slice *argv)
{
    size_t size = argc * sizeof(struct slice);
    for (size_t i = 0; i < argc; i++)
        size += argv[i].len;
    return size;
}

bool transaction_add(struct transaction *transaction, const struct command *row,
                     size_t argc, const struct slice *argv, size_t bytes_max)
{
    size_t size = block_size(argc, argv);
    size_t bytes = transaction->bytes + size + sizeof(struct queued_request);
    if (bytes > bytes_max)
        return false;
    if (transaction->count == transaction->capacity) {
        transaction->capacity = max_size(transaction->capacity * 2, 8);
        transaction->requests = must_realloc(
            transaction->requests, transaction->capacity * sizeof(struct queued_request));
    }
    struct slice *copy = must_calloc(1, size);
    char *at = (char *)(copy + argc);
    for (size_t i = 0; i < argc; i++) {
        if (argv[i].len > 0)
            memcpy(at, argv[i].data, argv[i].len);
        copy[i] = slice_of(at, argv[i].len);
        at += argv[i].len;
    }
    transaction->requests[transaction->count++] =
        (struct queued_request){.row = row, .argc = argc, .argv = copy};
    transaction->bytes = bytes;
    return true;
}

void transaction_abort(struct transaction *transaction)
{
    free_requests(transaction);
    transaction->is_aborted = true;
}

void transaction_done(struct transaction *transaction)
{
    check(transaction->next < transaction->count);
    free(transaction->requests[transaction->next].argv);
    transaction->next++;
}
