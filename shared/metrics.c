#include "shared/metrics.h"

#include <event2/buffer.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

const struct metric_buckets metric_buckets_seconds = {
    .bounds = {100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000,
               500000, 1000000, 2500000, 5000000, 10000000, 30000000, 60000000},
    .count = 18,
    .divisor = 1000000,
};

const struct metric_buckets metric_buckets_bytes = {
    .bounds = {64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216},
    .count = 10,
    .divisor = 1,
};

/* All slots of one thread. Only that thread writes; the list keeps them after the thread's end, since what
 * was counted stays counted. */
struct thread_slots {
    _Atomic int64_t *values;
    struct thread_slots *next;
};

struct collector {
    metrics_collect_cb collect;
    void *argument;
};

struct metrics_page {
    struct evbuffer *out;
    const struct metric_row *row;
};

static const struct metric_row *rows;
static size_t row_count;
static size_t *first_slots; /* of each row */
static size_t slot_count;
static struct collector *collectors;
static _Atomic uint64_t generation; /* 0: no table; odd while one is in use */

static pthread_mutex_t threads_lock = PTHREAD_MUTEX_INITIALIZER;
static struct thread_slots *threads; /* under threads_lock */

static _Thread_local struct {
    uint64_t generation;
    _Atomic int64_t *values;
} mine;

/* ── the table ── */

static bool is_collected(const struct metric_row *row)
{
    return row->kind == METRIC_COLLECTED_GAUGE || row->kind == METRIC_COLLECTED_COUNTER;
}

static bool is_name(const char *text)
{
    if (text == NULL || text[0] == '\0' || (text[0] >= '0' && text[0] <= '9'))
        return false;
    return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(text);
}

static size_t label_count(const struct metric_row *row)
{
    size_t count = 0;
    while (count < METRIC_LABELS_MAX && row->labels[count] != NULL)
        count++;
    return count;
}

static void check_row(const struct metric_row *row)
{
    check(is_name(row->name));
    check(row->help != NULL && row->help[0] != '\0');
    for (size_t i = 0; i < label_count(row); i++)
        check(is_name(row->labels[i]));
    check((row->kind == METRIC_HISTOGRAM) == (row->buckets != NULL));
    if (row->buckets != NULL)
        check(row->buckets->count <= METRIC_BUCKETS_MAX && row->buckets->divisor > 0);
    if (is_collected(row))
        check(row->label_text == NULL);
    else
        check(label_count(row) == (row->label_text != NULL) &&
              (row->label_text != NULL) == (row->label_values > 0));
    for (int value = 0; value < row->label_values; value++) /* no value without a word */
        check(row->label_text(value) != NULL);
}

static size_t value_count(const struct metric_row *row)
{
    return row->label_values > 0 ? (size_t)row->label_values : 1;
}

/* Slots of one label value: of a histogram its buckets, the one without bound, and the sum. */
static size_t slots_of_value(const struct metric_row *row)
{
    if (is_collected(row))
        return 0;
    return row->kind == METRIC_HISTOGRAM ? row->buckets->count + 2 : 1;
}

void metrics_init(const struct metric_row *table, size_t count)
{
    check(rows == NULL);
    rows = table;
    row_count = count;
    first_slots = must_calloc(count, sizeof(*first_slots));
    collectors = must_calloc(count, sizeof(*collectors));
    slot_count = 0;
    for (size_t i = 0; i < count; i++) {
        check_row(&table[i]);
        for (size_t before = 0; before < i; before++)
            check(strcmp(table[before].name, table[i].name) != 0);
        first_slots[i] = slot_count;
        slot_count += value_count(&table[i]) * slots_of_value(&table[i]);
    }
    atomic_fetch_add(&generation, 1);
}

void metrics_cleanup(void)
{
    if (rows == NULL)
        return;
    atomic_fetch_add(&generation, 1);
    rows = NULL;
    row_count = 0;
    free(first_slots);
    free(collectors);
    while (threads != NULL) {
        struct thread_slots *next = threads->next;
        free(threads->values);
        free(threads);
        threads = next;
    }
}

/* ── counting ── */

static void attach_thread(uint64_t now)
{
    struct thread_slots *slots = must_calloc(1, sizeof(*slots));
    /* a cache line more at the end, so that no other thread's slots share ours */
    slots->values = must_calloc(slot_count + 8, sizeof(*slots->values));
    pthread_mutex_lock(&threads_lock);
    slots->next = threads;
    threads = slots;
    pthread_mutex_unlock(&threads_lock);
    mine.values = slots->values;
    mine.generation = now;
}

/* The slots of one metric's label value in this thread; NULL when there is no table. */
static _Atomic int64_t *my_slots(int metric, int value)
{
    uint64_t now = atomic_load_explicit(&generation, memory_order_acquire);
    if (now % 2 == 0)
        return NULL;
    if (mine.generation != now)
        attach_thread(now);
    check(metric >= 0 && (size_t)metric < row_count);
    check(value >= 0 && (size_t)value < value_count(&rows[metric]));
    return mine.values + first_slots[metric] +
           (size_t)value * slots_of_value(&rows[metric]);
}

static void add_to(_Atomic int64_t *slot, int64_t n)
{
    /* one writer: no need of an atomic add */
    int64_t old = atomic_load_explicit(slot, memory_order_relaxed);
    atomic_store_explicit(slot, old + n, memory_order_relaxed);
}

void metrics_add_by(int metric, int value, int64_t n)
{
    _Atomic int64_t *slots = my_slots(metric, value);
    if (slots == NULL)
        return;
    check(rows[metric].kind == METRIC_GAUGE ||
          (rows[metric].kind == METRIC_COUNTER && n >= 0));
    add_to(slots, n);
}

void metrics_add(int metric, int64_t n)
{
    metrics_add_by(metric, 0, n);
}

void metrics_observe_by(int metric, int value, uint64_t observed)
{
    _Atomic int64_t *slots = my_slots(metric, value);
    if (slots == NULL)
        return;
    const struct metric_buckets *buckets = rows[metric].buckets;
    check(buckets != NULL);
    size_t bucket = 0;
    while (bucket < buckets->count && observed > buckets->bounds[bucket])
        bucket++;
    add_to(&slots[bucket], 1);
    add_to(&slots[buckets->count + 1], (int64_t)(observed & INT64_MAX));
}

void metrics_observe(int metric, uint64_t value)
{
    metrics_observe_by(metric, 0, value);
}

/* ── summing ── */

static int64_t sum_of_slot(size_t slot)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&threads_lock);
    for (struct thread_slots *thread = threads; thread != NULL; thread = thread->next)
        sum +=
            (uint64_t)atomic_load_explicit(&thread->values[slot], memory_order_relaxed);
    pthread_mutex_unlock(&threads_lock);
    return (int64_t)sum;
}

int64_t metrics_sum_by(int metric, int value)
{
    if (rows == NULL)
        return 0;
    check(metric >= 0 && (size_t)metric < row_count && !is_collected(&rows[metric]));
    const struct metric_row *row = &rows[metric];
    check(value >= 0 && (size_t)value < value_count(row));
    size_t slot = first_slots[metric] + (size_t)value * slots_of_value(row);
    if (row->kind != METRIC_HISTOGRAM)
        return sum_of_slot(slot);
    int64_t sum = 0;
    for (size_t i = 0; i <= row->buckets->count; i++)
        sum += sum_of_slot(slot + i);
    return sum;
}

int64_t metrics_sum(int metric)
{
    int64_t sum = 0;
    for (size_t value = 0; rows != NULL && value < value_count(&rows[metric]); value++)
        sum += metrics_sum_by(metric, (int)value);
    return sum;
}

void metrics_set_collector(int metric, metrics_collect_cb collect, void *argument)
{
    check(metric >= 0 && (size_t)metric < row_count && is_collected(&rows[metric]));
    collectors[metric] = (struct collector){collect, argument};
}

/* ── Prometheus text ── */

static const char *type_text(enum metric_kind kind)
{
    switch (kind) {
    case METRIC_COUNTER:
    case METRIC_COLLECTED_COUNTER:
        return "counter";
    case METRIC_GAUGE:
    case METRIC_COLLECTED_GAUGE:
        return "gauge";
    case METRIC_HISTOGRAM:
        return "histogram";
    }
    unreachable();
}

static void write_help(struct evbuffer *out, const char *help)
{
    for (; *help != '\0'; help++) {
        if (*help == '\\' || *help == '\n')
            evbuffer_add_printf(out, "\\%c", *help == '\n' ? 'n' : '\\');
        else
            evbuffer_add(out, help, 1);
    }
}

static void write_label_value(struct evbuffer *out, struct slice text)
{
    evbuffer_add(out, "\"", 1);
    while (text.len > 0) {
        size_t len = slice_utf8_len(text);
        char byte = text.data[0];
        if (len == 0)
            evbuffer_add(out, "\xef\xbf\xbd", 3);
        else if (byte == '\\' || byte == '"')
            evbuffer_add_printf(out, "\\%c", byte);
        else if (byte == '\n')
            evbuffer_add(out, "\\n", 2);
        else
            evbuffer_add(out, text.data, len);
        text = slice_from(text, len > 0 ? len : 1);
    }
    evbuffer_add(out, "\"", 1);
}

/* `{label="value",le="0.5"}`; nothing when there is neither. */
static void write_labels(struct evbuffer *out, const struct metric_row *row,
                         const struct slice *values, const char *bound)
{
    size_t count = label_count(row);
    if (count == 0 && bound == NULL)
        return;
    for (size_t i = 0; i < count; i++) {
        evbuffer_add_printf(out, "%s%s=", i == 0 ? "{" : ",", row->labels[i]);
        write_label_value(out, values[i]);
    }
    if (bound != NULL)
        evbuffer_add_printf(out, "%sle=\"%s\"", count == 0 ? "{" : ",", bound);
    evbuffer_add(out, "}", 1);
}

static void write_histogram(struct evbuffer *out, const struct metric_row *row,
                            size_t slot, const struct slice *values)
{
    const struct metric_buckets *buckets = row->buckets;
    int64_t count = 0;
    for (size_t i = 0; i <= buckets->count; i++) {
        char bound[32] = "+Inf";
        if (i < buckets->count)
            snprintf(bound, sizeof(bound), "%.15g",
                     (double)buckets->bounds[i] / (double)buckets->divisor);
        count += sum_of_slot(slot + i);
        evbuffer_add_printf(out, "%s_bucket", row->name);
        write_labels(out, row, values, bound);
        evbuffer_add_printf(out, " %" PRId64 "\n", count);
    }
    evbuffer_add_printf(out, "%s_sum", row->name);
    write_labels(out, row, values, NULL);
    evbuffer_add_printf(out, " %.15g\n",
                        (double)sum_of_slot(slot + buckets->count + 1) /
                            (double)buckets->divisor);
    evbuffer_add_printf(out, "%s_count", row->name);
    write_labels(out, row, values, NULL);
    evbuffer_add_printf(out, " %" PRId64 "\n", count);
}

static void write_slots(struct evbuffer *out, size_t metric)
{
    const struct metric_row *row = &rows[metric];
    for (size_t value = 0; value < value_count(row); value++) {
        size_t slot = first_slots[metric] + value * slots_of_value(row);
        struct slice label = row->label_text != NULL
                                 ? slice_from_text(row->label_text((int)value))
                                 : SLICE("");
        if (row->kind == METRIC_HISTOGRAM) {
            write_histogram(out, row, slot, &label);
            continue;
        }
        evbuffer_add_printf(out, "%s", row->name);
        write_labels(out, row, &label, NULL);
        evbuffer_add_printf(out, " %" PRId64 "\n", sum_of_slot(slot));
    }
}

void metrics_sample(struct metrics_page *page, double value,
                    const struct slice *label_values)
{
    evbuffer_add_printf(page->out, "%s", page->row->name);
    write_labels(page->out, page->row, label_values, NULL);
    if (isnan(value))
        evbuffer_add_printf(page->out, " NaN\n");
    else if (isinf(value))
        evbuffer_add_printf(page->out, " %cInf\n", value < 0 ? '-' : '+');
    else
        evbuffer_add_printf(page->out, " %.15g\n", value);
}

void metrics_write(struct evbuffer *out)
{
    for (size_t i = 0; i < row_count; i++) {
        evbuffer_add_printf(out, "# HELP %s ", rows[i].name);
        write_help(out, rows[i].help);
        evbuffer_add_printf(out, "\n# TYPE %s %s\n", rows[i].name,
                            type_text(rows[i].kind));
        struct metrics_page page = {.out = out, .row = &rows[i]};
        if (!is_collected(&rows[i]))
            write_slots(out, i);
        else if (collectors[i].collect != NULL)
            collectors[i].collect(&page, (int)i, collectors[i].argument);
    }
}

void metrics_print(const struct metric_row *table, size_t count, FILE *out)
{
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s\t%s\t", table[i].name, type_text(table[i].kind));
        for (size_t label = 0; label < label_count(&table[i]); label++)
            fprintf(out, "%s%s", label > 0 ? "," : "", table[i].labels[label]);
        fprintf(out, "%s\t%s\n", label_count(&table[i]) == 0 ? "-" : "", table[i].help);
    }
}
