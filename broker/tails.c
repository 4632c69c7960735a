#include "broker/tails.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>

/* What had been sent at a moment. */
struct mark {
    uint64_t sequence; /* 0: none */
    uint64_t at;
};

struct row {
    struct mark last;
    struct mark marks[2]; /* at least TAILS_MIN apart, the older first */
    bool is_recent;
    TAILQ_ENTRY(row) of_recent;
};

struct tails {
    TAILQ_HEAD(, row) recent; /* the latest sent to first */
    struct row *rows;
    unsigned count;
};

struct tails *tails_new(unsigned partitions)
{
    struct tails *tails = must_calloc(1, sizeof(*tails));
    TAILQ_INIT(&tails->recent);
    tails->rows = must_calloc(partitions, sizeof(*tails->rows));
    tails->count = partitions;
    return tails;
}

void tails_free(struct tails *tails)
{
    free(tails->rows);
    free(tails);
}

void tails_note(struct tails *tails, unsigned partition, uint64_t sequence, uint64_t now)
{
    check(partition < tails->count);
    struct row *row = &tails->rows[partition];
    if (sequence <= row->last.sequence)
        return;
    row->last = (struct mark){sequence, now};
    if (row->marks[1].sequence == 0 || now - row->marks[1].at >= TAILS_MIN) {
        row->marks[0] = row->marks[1];
        row->marks[1] = row->last;
    }
    if (row == TAILQ_FIRST(&tails->recent))
        return;
    if (row->is_recent)
        TAILQ_REMOVE(&tails->recent, row, of_recent);
    row->is_recent = true;
    TAILQ_INSERT_HEAD(&tails->recent, row, of_recent);
}

uint64_t tails_last(const struct tails *tails, unsigned partition)
{
    check(partition < tails->count);
    return tails->rows[partition].last.sequence;
}

static uint64_t tail_of(const struct row *row, uint64_t now)
{
    if (now - row->last.at >= TAILS_MIN)
        return row->last.sequence;
    const struct mark *mark = &row->marks[now - row->marks[1].at >= TAILS_MIN ? 1 : 0];
    return mark->sequence;
}

void tails_walk(const struct tails *tails, uint64_t now,
                void (*on_tail)(void *context, unsigned partition, uint64_t sequence),
                void *context)
{
    const struct row *row;
    TAILQ_FOREACH(row, &tails->recent, of_recent)
    {
        if (now - row->last.at > TAILS_MAX)
            return;
        uint64_t sequence = tail_of(row, now);
        if (sequence > 0)
            on_tail(context, (unsigned)(row - tails->rows), sequence);
    }
}
