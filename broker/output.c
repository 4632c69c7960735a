#include "broker/output.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

/* Entries in one writev; more gain nothing, and the kernel's own limit is 1024. */
#define WRITEV_ENTRIES 64

/* Kept when the queue is empty: what a client in ordinary use needs. */
#define KEEP_ENTRIES 4 /* a power of two, as every capacity */

static struct output_entry *entry_at(const struct output *output, unsigned index)
{
    return &output->entries[(output->first + index) & (output->capacity - 1)];
}

static void grow(struct output *output)
{
    unsigned capacity = output->capacity > 0 ? output->capacity * 2 : KEEP_ENTRIES;
    struct output_entry *entries = must_calloc(capacity, sizeof(*entries));
    for (unsigned i = 0; i < output->count; i++)
        entries[i] = *entry_at(output, i);
    free(output->entries);
    output->entries = entries;
    output->first = 0;
    output->capacity = capacity;
}

static void give_back(struct output *output)
{
    check(output->bytes == 0 && output->written == 0);
    if (output->capacity <= KEEP_ENTRIES)
        return;
    free(output->entries);
    output->entries = NULL;
    output->first = output->capacity = 0;
}

static void remove_first(struct output *output)
{
    span_release(entry_at(output, 0)->span);
    output->first = (output->first + 1) & (output->capacity - 1);
    output->count--;
    output->written = 0;
}

void output_cleanup(struct output *output)
{
    output_clear(output);
    free(output->entries);
    *output = (struct output){0};
}

void output_append(struct output *output, struct span span, bool droppable, uint64_t now)
{
    if (span.len == 0 || output_extend(output, span, droppable, now))
        return;
    output->bytes += span.len;
    if (output->count == output->capacity)
        grow(output);
    span_hold(span);
    output->count++;
    *entry_at(output, output->count - 1) = (struct output_entry){span, now, 1, droppable};
}

static void consume(struct output *output, size_t len)
{
    output->bytes -= len;
    output->written += len;
    while (output->count > 0 && output->written >= entry_at(output, 0)->span.len) {
        size_t rest = output->written - entry_at(output, 0)->span.len;
        remove_first(output);
        output->written = rest;
    }
}

enum output_result output_write(struct output *output, struct stream *stream,
                                size_t *wrote)
{
    while (output->count > 0) {
        struct iovec parts[WRITEV_ENTRIES];
        unsigned count = output->count < WRITEV_ENTRIES ? output->count : WRITEV_ENTRIES;
        size_t total = 0;
        for (unsigned i = 0; i < count; i++) {
            struct span span = entry_at(output, i)->span;
            size_t skip = i == 0 ? output->written : 0;
            parts[i].iov_base = span.chunk->data + span.start + skip;
            parts[i].iov_len = span.len - skip;
            total += parts[i].iov_len;
        }
        ssize_t len = stream_writev(stream, parts, (int)count);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? OUTPUT_BLOCKED
                                                           : OUTPUT_BROKEN;
        *wrote += (size_t)len;
        consume(output, (size_t)len);
        if ((size_t)len < total)
            return OUTPUT_BLOCKED;
    }
    give_back(output);
    return OUTPUT_EMPTY;
}

size_t output_messages(const struct output *output)
{
    size_t messages = 0;
    for (unsigned i = 0; i < output->count; i++) {
        const struct output_entry *entry = entry_at(output, i);
        size_t len = entry->span.len;
        size_t left = len - (i == 0 ? output->written : 0);
        if (entry->droppable)
            messages += (entry->messages * left + len - 1) / len;
    }
    return messages;
}

size_t output_first_bytes(const struct output *output)
{
    return output->count > 0 ? entry_at(output, 0)->span.len - output->written : 0;
}

const struct output_entry *output_entry_get(const struct output *output, unsigned index)
{
    check(index < output->count);
    return entry_at(output, index);
}

uint64_t output_age(const struct output *output, uint64_t now)
{
    return output->count > 0 ? now - entry_at(output, 0)->queued_at : 0;
}

size_t output_drop_oldest(struct output *output, size_t bytes, uint64_t since,
                          size_t sealed, size_t *dropped_bytes)
{
    size_t messages = 0;
    size_t before = 0; /* bytes of earlier entries, written or not */
    unsigned kept = 0;
    unsigned count = output->count;
    for (unsigned i = 0; i < count; i++) {
        struct output_entry entry = *entry_at(output, i);
        bool is_sealed = i == 0 || before < output->written + sealed;
        before += entry.span.len;
        if (!is_sealed && entry.droppable &&
            (output->bytes > bytes || entry.queued_at < since)) {
            messages += entry.messages;
            *dropped_bytes += entry.span.len;
            output->bytes -= entry.span.len;
            span_release(entry.span);
        } else {
            *entry_at(output, kept++) = entry;
        }
    }
    output->count = kept;
    return messages;
}

void output_clear(struct output *output)
{
    while (output->count > 0)
        remove_first(output);
    output->bytes = 0;
    output->written = 0;
    give_back(output);
}
