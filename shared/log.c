/*
 * One line from fact to descriptor.
 *
 *      log_write ─▶ may this call site speak? ─▶ struct log_line (on the stack, LOG_LINE_MAX bytes)
 *                        │ no: counted                 │ text or JSON, escaped, cut when it does not fit
 *                        ▼                             ▼
 *                   log_tick tells               poll, then one write(2), under one lock
 *                                                      │ not writable, full disk, closed pipe: counted
 *                                                      ▼
 *                                                log_tick or the next good line tells
 *
 * Why poll first: stderr is often a pipe whose reader may stall, and it is shared with other processes, so it
 * must not be made non-blocking. A pipe that polls writable takes one page, and a line is never more.
 */
#include "shared/log.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/timing.h"

/* Kept free behind the fields: `,"cut":true}` and the line's end. */
#define RESERVE 32
/* A field is begun only when this much is left besides its name and RESERVE. */
#define FIELD_ROOM 48
/* How long a line may wait for a slow reader before it is dropped. */
#define PATIENCE_MS 20

const char *const log_level_words[] = {"debug", "info", "warn", "error", NULL};
const char *const log_format_words[] = {"auto", "text", "json", NULL};

struct log_line {
    size_t len;
    bool is_json;
    bool was_cut;
    char bytes[LOG_LINE_MAX];
};

_Atomic int log_level_now = LOG_LEVEL_INFO;
static _Atomic int format_now = LOG_FORMAT_AUTO;
static _Atomic int output_fd = STDERR_FILENO;

static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER;
static bool output_is_stuck;      /* under output_lock */
static bool output_has_half_line; /* under output_lock */
static _Atomic uint64_t dropped, dropped_untold;

static pthread_mutex_t sites_lock = PTHREAD_MUTEX_INITIALIZER;
static struct log_site *suppressing_sites; /* under sites_lock */

/* ── the line ── */

static size_t room(const struct log_line *line)
{
    return LOG_LINE_MAX - RESERVE - line->len;
}

static void put(struct log_line *line, const char *bytes, size_t len)
{
    len = min_size(len, room(line));
    memcpy(line->bytes + line->len, bytes, len);
    line->len += len;
}

static void put_text(struct log_line *line, const char *text)
{
    put(line, text, strlen(text));
}

static bool is_c1_control(const unsigned char *bytes, size_t len)
{
    return len == 2 && bytes[0] == 0xc2 && bytes[1] < 0xa0;
}

/* The escaped form of the character at the start of `text`, which is *used bytes long; its length. */
static size_t escape(struct slice text, bool is_json, char form[8], size_t *used)
{
    const unsigned char *bytes = (const unsigned char *)text.data;
    size_t len = slice_utf8_len(text);
    *used = len > 0 ? len : 1;
    if (len ==
        0) /* in JSON the backslash itself is escaped: the reader sees \xff in both forms */
        return (size_t)snprintf(form, 8, is_json ? "\\\\x%02x" : "\\x%02x", bytes[0]);
    if (bytes[0] == '"' || bytes[0] == '\\')
        return (size_t)snprintf(form, 8, "\\%c", bytes[0]);
    if (bytes[0] == '\n')
        return (size_t)snprintf(form, 8, "\\n");
    if (bytes[0] < 0x20 || bytes[0] == 0x7f)
        return (size_t)snprintf(form, 8, "\\u%04x", bytes[0]);
    if (is_c1_control(bytes, len))
        return (size_t)snprintf(form, 8, "\\u%04x", bytes[1]);
    memcpy(form, text.data, len);
    return len;
}

static void put_escaped(struct log_line *line, struct slice text)
{
    char form[8];
    while (text.len > 0) {
        size_t used;
        size_t len = escape(text, line->is_json, form, &used);
        if (room(line) < len + 4) { /* 4: the … and the closing quote */
            put_text(line, "\xe2\x80\xa6");
            line->was_cut = true;
            return;
        }
        put(line, form, len);
        text = slice_from(text, used);
    }
}

static bool needs_quotes(struct slice text)
{
    if (text.len == 0)
        return true;
    while (text.len > 0) {
        unsigned char byte = (unsigned char)text.data[0];
        size_t len = slice_utf8_len(text);
        if (len == 0 || byte <= ' ' || byte == 0x7f || byte == '"' || byte == '=' ||
            byte == '\\' || is_c1_control((const unsigned char *)text.data, len))
            return true;
        text = slice_from(text, len);
    }
    return false;
}

static void put_value(struct log_line *line, struct slice text)
{
    bool is_quoted = line->is_json || needs_quotes(text);
    if (is_quoted)
        put_text(line, "\"");
    put_escaped(line, text);
    if (is_quoted)
        put_text(line, "\"");
}

static void put_key(struct log_line *line, const char *name)
{
    if (line->is_json) {
        put_text(line, line->len > 1 ? ",\"" : "\"");
        put_text(line, name);
        put_text(line, "\":");
    } else {
        put_text(line, " ");
        put_text(line, name);
        put_text(line, "=");
    }
}

void log_line_add(struct log_line *line, struct log_field field)
{
    if (field.type == LOG_FIELD_NONE)
        return;
    if (room(line) < strlen(field.name) + FIELD_ROOM) {
        line->was_cut = true;
        return;
    }
    char text[128];
    put_key(line, field.name);
    switch (field.type) {
    case LOG_FIELD_NONE:
        break;
    case LOG_FIELD_SLICE:
        put_value(line, field.value.slice);
        break;
    case LOG_FIELD_NUMBER:
        snprintf(text, sizeof(text), "%" PRId64, field.value.number);
        put_text(line, text);
        break;
    case LOG_FIELD_UNSIGNED:
        snprintf(text, sizeof(text), "%" PRIu64, field.value.unsigned_number);
        put_text(line, text);
        break;
    case LOG_FIELD_SECONDS:
        snprintf(text, sizeof(text), "%" PRIu64 ".%03" PRIu64,
                 field.value.unsigned_number / 1000000,
                 field.value.unsigned_number / 1000 % 1000);
        put_text(line, text);
        break;
    case LOG_FIELD_BOOL:
        put_text(line, field.value.number ? "true" : "false");
        break;
    case LOG_FIELD_ERRNO:
        put_value(line, slice_from_text(strerror((int)field.value.number)));
        break;
    }
}

static void put_subject(struct log_line *line, const struct log_subject *subject)
{
    char id[32] = "";
    if (subject->id != 0)
        snprintf(id, sizeof(id), "#%" PRIu64, subject->id);
    put_text(line, subject->kind);
    put_text(line, id);
    if (subject->name != NULL) {
        put_text(line, ":");
        put_escaped(line, slice_to(slice_from_text(subject->name), 512));
    }
}

static void begin_line(struct log_line *line, enum log_level level,
                       const struct log_subject *subject, const char *message)
{
    int format = atomic_load_explicit(&format_now, memory_order_relaxed);
    int fd = atomic_load_explicit(&output_fd, memory_order_relaxed);
    char time[TIMING_TEXT_SIZE];
    timing_wall_text(time);
    line->len = 0;
    line->was_cut = false;
    line->is_json =
        format == LOG_FORMAT_JSON || (format == LOG_FORMAT_AUTO && !isatty(fd));
    put_text(line, line->is_json ? "{\"time\":\"" : "");
    put_text(line, time);
    put_text(line, line->is_json ? "\",\"level\":\"" : " ");
    put_text(line, log_level_words[level]);
    put_text(line, line->is_json ? "\",\"subject\":\"" : " ");
    put_subject(line, subject);
    put_text(line, line->is_json ? "\",\"message\":\"" : " ");
    put_escaped(line, slice_to(slice_from_text(message), LOG_LINE_MAX / 2));
    put_text(line, line->is_json ? "\"" : "");
}

static void end_line(struct log_line *line)
{
    /* what follows uses RESERVE, so it always fits */
    const char *end = line->is_json ? (line->was_cut ? ",\"cut\":true}\n" : "}\n")
                                    : (line->was_cut ? " cut=true\n" : "\n");
    size_t len = strlen(end);
    memcpy(line->bytes + line->len, end, len);
    line->len += len;
}

/* ── the descriptor ── */

static bool is_writable(int fd)
{
    struct pollfd wish = {.fd = fd, .events = POLLOUT};
    int patience = output_is_stuck ? 0 : PATIENCE_MS;
    int result;
    do
        result = poll(&wish, 1, patience);
    while (result < 0 && errno == EINTR);
    return result > 0 && (wish.revents & (POLLERR | POLLNVAL)) == 0;
}

static ssize_t write_once(int fd, const char *bytes, size_t len)
{
    ssize_t written;
    do
        written = write(fd, bytes, len);
    while (written < 0 && errno == EINTR);
    return written;
}

/* Under output_lock. */
static bool write_whole(const struct log_line *line)
{
    int fd = atomic_load_explicit(&output_fd, memory_order_relaxed);
    if (!is_writable(fd))
        return false;
    if (output_has_half_line) { /* end what a full disk cut off */
        if (write_once(fd, "\n", 1) != 1)
            return false;
        output_has_half_line = false;
        if (!is_writable(fd))
            return false;
    }
    ssize_t written = write_once(fd, line->bytes, line->len);
    if (written > 0 && (size_t)written < line->len)
        output_has_half_line = true;
    return written == (ssize_t)line->len;
}

static bool send_line(struct log_line *line)
{
    end_line(line);
    pthread_mutex_lock(&output_lock);
    bool is_written = write_whole(line);
    output_is_stuck = !is_written;
    pthread_mutex_unlock(&output_lock);
    if (!is_written) {
        atomic_fetch_add(&dropped, 1);
        atomic_fetch_add(&dropped_untold, 1);
    }
    return is_written;
}

static void tell_dropped(void)
{
    uint64_t count = atomic_exchange(&dropped_untold, 0);
    if (count == 0)
        return;
    struct log_line line;
    begin_line(&line, LOG_LEVEL_WARN, LOG_SUBJECT("log"), "lines dropped");
    log_line_add(&line, LOG_UNSIGNED("count", count));
    end_line(&line);
    pthread_mutex_lock(&output_lock);
    bool is_written = write_whole(&line);
    pthread_mutex_unlock(&output_lock);
    if (!is_written) /* this line itself is not one of them */
        atomic_fetch_add(&dropped_untold, count);
}

/* ── call sites ── */

static void tell_suppressed(struct log_site *site, uint64_t count)
{
    struct log_line line;
    begin_line(&line, site->level, LOG_SUBJECT("log"), "lines suppressed");
    log_line_add(&line, LOG_TEXT("like", site->message));
    log_line_add(&line, LOG_UNSIGNED("suppressed", count));
    send_line(&line);
}

/* The first line of a new second begins a new count and tells what the old one suppressed. */
static void roll_window(struct log_site *site, uint64_t window)
{
    uint64_t old = atomic_load_explicit(&site->window, memory_order_relaxed);
    if (old == window || !atomic_compare_exchange_strong(&site->window, &old, window))
        return;
    atomic_store(&site->lines, 0);
    uint32_t suppressed = atomic_exchange(&site->suppressed, 0);
    if (suppressed > 0)
        tell_suppressed(site, suppressed);
}

static bool may_speak(struct log_site *site, enum log_level level, const char *message)
{
    roll_window(site, timing_now() / SECONDS(1));
    if (atomic_fetch_add_explicit(&site->lines, 1, memory_order_relaxed) < LOG_SITE_RATE)
        return true;
    atomic_fetch_add_explicit(&site->suppressed, 1, memory_order_relaxed);
    if (!atomic_load_explicit(&site->listed, memory_order_acquire)) {
        pthread_mutex_lock(&sites_lock);
        if (!site->listed) {
            site->level = level;
            site->message = message; /* a literal of ours: log_write asks for one */
            site->next = suppressing_sites;
            suppressing_sites = site;
            atomic_store_explicit(&site->listed, true, memory_order_release);
        }
        pthread_mutex_unlock(&sites_lock);
    }
    return false;
}

void log_write(struct log_site *site, enum log_level level,
               const struct log_subject *subject, const char *message,
               const struct log_field *fields, size_t count)
{
    if (site != NULL && !may_speak(site, level, message))
        return;
    struct log_line line;
    begin_line(&line, level, subject, message);
    if (subject->describe != NULL)
        subject->describe(&line, subject->object);
    for (size_t i = 1; i < count; i++)
        log_line_add(&line, fields[i]);
    if (send_line(&line))
        tell_dropped();
}

void log_tick(void)
{
    uint64_t window = timing_now() / SECONDS(1);
    /* sites are never taken off the list, so it can be walked from a head once read */
    pthread_mutex_lock(&sites_lock);
    struct log_site *first = suppressing_sites;
    pthread_mutex_unlock(&sites_lock);
    for (struct log_site *site = first; site != NULL; site = site->next)
        if (atomic_load_explicit(&site->suppressed, memory_order_relaxed) > 0)
            roll_window(site, window);
    tell_dropped();
}

uint64_t log_lines_dropped(void)
{
    return atomic_load(&dropped);
}

/* ── set-up ── */

static void on_libevent_line(int severity, const char *message)
{
    struct log_field field[2] = {{0}, LOG_TEXT("text", message)};
    enum log_level level = severity == EVENT_LOG_DEBUG  ? LOG_LEVEL_DEBUG
                           : severity == EVENT_LOG_MSG  ? LOG_LEVEL_INFO
                           : severity == EVENT_LOG_WARN ? LOG_LEVEL_WARN
                                                        : LOG_LEVEL_ERROR;
    static struct log_site site;
    if (log_is_on(level))
        log_write(&site, level, LOG_SUBJECT("libevent"), "says", field, ARRAY_LEN(field));
}

void log_init(enum log_level level, enum log_format format)
{
    signal(SIGPIPE, SIG_IGN);
    atomic_store(&format_now, (int)format);
    log_set_level(level);
    event_set_log_callback(on_libevent_line);
}

void log_set_level(enum log_level level)
{
    atomic_store(&log_level_now, (int)level);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load(&log_level_now);
}

void log_set_output_for_test(int fd)
{
    pthread_mutex_lock(&output_lock);
    atomic_store(&output_fd, fd);
    output_is_stuck = false;
    output_has_half_line = false;
    pthread_mutex_unlock(&output_lock);
}
