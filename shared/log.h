/*
 * One line per fact, subject first.
 *
 *     2026-11-24T07:00:00.123Z info client#12 closed reason=idle_timeout bytes=4711       (text)
 *     {"time":"…","level":"info","subject":"client#12","message":"closed","reason":"idle_timeout","bytes":4711}
 *
 * A call costs one load and one compare when its level is off: fields are made only when the line is
 * written. A line is at most LOG_LINE_MAX bytes (longer values are cut and marked with …) and leaves by one
 * write(2), so lines of several threads and processes never mix. Logging never kills and never blocks for
 * long: a full disk, a closed or stuck pipe drops lines, counts them, and says so when it works again.
 * Each call site writes at most LOG_SITE_RATE lines a second; the rest is counted and told in one line
 * "lines suppressed". Debug lines and log_each() are not limited.
 *
 * Use:
 *     struct log_subject subject = {.kind = "client", .id = client->id};
 *     log_warn(&subject, "endpoint refused", LOG_TEXT("endpoint", name), LOG_NUMBER("attempts", 2));
 *     log_info(LOG_SUBJECT("main"), "ready");
 */
#pragma once

#include "shared/slice.h"

#include <stdatomic.h>

#define LOG_LINE_MAX  4096 /* PIPE_BUF: one write to a pipe stays whole */
#define LOG_SITE_RATE 10

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Words of the two enums in their order, NULL at the end; for option tables. */
extern const char *const log_level_words[];
extern const char *const log_format_words[];

struct log_line;

/* Whom a line is about: "client#12", "upstream:chat", "listener#3:0.0.0.0:8080", "main". A small value made
 * where it is needed: nothing has to be stored in the thing itself. `describe`, when given, is called only
 * when the line is written and adds the subject's standing fields with log_line_add(). */
struct log_subject {
    const char *kind;
    uint64_t id;      /* 0: none */
    const char *name; /* NULL: none */
    void (*describe)(struct log_line *line, const void *object);
    const void *object; /* borrowed */
};

enum log_field_type {
    LOG_FIELD_NONE,
    LOG_FIELD_SLICE,
    LOG_FIELD_NUMBER,
    LOG_FIELD_UNSIGNED,
    LOG_FIELD_SECONDS,
    LOG_FIELD_BOOL,
    LOG_FIELD_ERRNO
};

struct log_field {
    const char *name;
    enum log_field_type type;
    union {
        struct slice slice;
        int64_t number;
        uint64_t unsigned_number;
    } value;
};

/* Fields. Values are borrowed until the call returns. */
#define LOG_TEXT(name, text)       log_field_text((name), (text)) /* const char *; NULL is "" */
#define LOG_SLICE(name, slice)     log_field_slice((name), (slice)) /* any bytes; escaped */
#define LOG_NUMBER(name, number)   log_field_number((name), (number))   /* int64_t */
#define LOG_UNSIGNED(name, number) log_field_unsigned((name), (number)) /* uint64_t */
#define LOG_SECONDS(name, micros)                                                        \
    log_field_seconds((name), (micros)) /* microseconds, as 1.250 */
#define LOG_BOOL(name, truth) log_field_bool((name), (truth))
#define LOG_ERRNO(number)     log_field_errno(number) /* error="Connection refused" */

/* A subject without id, name or fields, in place. */
#define LOG_SUBJECT(word) (&(const struct log_subject){.kind = (word)})

#define log_debug(subject, ...) log_at_(LOG_LEVEL_DEBUG, true, subject, __VA_ARGS__)
#define log_info(subject, ...)  log_at_(LOG_LEVEL_INFO, false, subject, __VA_ARGS__)
#define log_warn(subject, ...)  log_at_(LOG_LEVEL_WARN, false, subject, __VA_ARGS__)
#define log_error(subject, ...) log_at_(LOG_LEVEL_ERROR, false, subject, __VA_ARGS__)

/* At the level and without the limit a call site has: for access lines. */
#define log_each(level, subject, ...) log_at_(level, true, subject, __VA_ARGS__)

/* Sets level and format; call once before threads start, and again at a reload. Also makes SIGPIPE harmless
 * and takes over libevent's own log lines (subject "libevent"). Before the first call: info, auto. */
void log_init(enum log_level level, enum log_format format);

/* Any thread, any time (ctl log-level). */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* Is a line of this level written at all? The macros ask by themselves. */
static inline bool log_is_on(enum log_level level);

/* Tells what call sites have suppressed and what could not be written; once a second from the main loop. */
void log_tick(void);

/* Lines that could not be written since the start. */
uint64_t log_lines_dropped(void);

/* Lines go to this descriptor instead of 2 (borrowed). */
void log_set_output_for_test(int fd);

/* For log_subject.describe: one more field of the line. */
void log_line_add(struct log_line *line, struct log_field field);

/* ── what the macros are made of ── */

struct log_site {
    _Atomic uint64_t window; /* the second that is counted */
    _Atomic uint32_t lines, suppressed;
    _Atomic bool listed;
    struct log_site *next;
    const char *message;
    enum log_level level;
};

extern _Atomic int log_level_now;

static inline bool log_is_on(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

/* fields[0] is a filler, so that a call without fields is an array too. */
void log_write(struct log_site *site, enum log_level level,
               const struct log_subject *subject, const char *message,
               const struct log_field *fields, size_t count);

#define log_at_(level_, each, subject, message_, ...)                                    \
    do {                                                                                 \
        if (log_is_on(level_)) {                                                         \
            static struct log_site log_site_;                                            \
            const struct log_field log_fields_[] = {{0}, ##__VA_ARGS__};                 \
            log_write((each) ? NULL : &log_site_, (level_), (subject), (message_),       \
                      log_fields_, ARRAY_LEN(log_fields_));                              \
        }                                                                                \
    } while (0)

static inline struct log_field log_field_slice(const char *name, struct slice slice)
{
    return (struct log_field){name, LOG_FIELD_SLICE, {.slice = slice}};
}

static inline struct log_field log_field_text(const char *name, const char *text)
{
    return log_field_slice(name, slice_from_text(text != NULL ? text : ""));
}

static inline struct log_field log_field_number(const char *name, int64_t number)
{
    return (struct log_field){name, LOG_FIELD_NUMBER, {.number = number}};
}

static inline struct log_field log_field_unsigned(const char *name, uint64_t number)
{
    return (struct log_field){name, LOG_FIELD_UNSIGNED, {.unsigned_number = number}};
}

static inline struct log_field log_field_seconds(const char *name, uint64_t microseconds)
{
    return (struct log_field){name, LOG_FIELD_SECONDS, {.unsigned_number = microseconds}};
}

static inline struct log_field log_field_bool(const char *name, bool truth)
{
    return (struct log_field){name, LOG_FIELD_BOOL, {.number = truth}};
}

static inline struct log_field log_field_errno(int number)
{
    return (struct log_field){"error", LOG_FIELD_ERRNO, {.number = number}};
}
