/*
 * A call, from connection to end of file.
 *
 *      READING ──line──▶ RUNNING ──ctl_finish──▶ WRITING ──all written──▶ closed
 *         │                 │                       │
 *         └── too long, too slow, client left ──────┴─────────────────▶ closed
 *                           │ client left
 *                           ▼
 *                        DESERTED (no connection) ──ctl_finish──▶ freed
 *
 * A handler that runs holds the call, so a client that leaves meanwhile only takes its connection away.
 */
#include "shared/ctl.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/lifecycle.h"
#include "shared/listener.h"
#include "shared/log.h"
#include "shared/timing.h"

#define LINE_MAX_BYTES  4096
#define CALLS_MAX       32
#define ANSWER_MAX      (64 * 1024 * 1024)
#define CONNECTION_WAIT SECONDS(10)
#define NO_ANSWER       "the daemon closed the connection without an answer"

enum call_state { CALL_READING, CALL_RUNNING, CALL_WRITING, CALL_DESERTED };

struct ctl_call {
    struct ctl *ctl;
    enum call_state state;
    struct bufferevent *connection; /* NULL: DESERTED */
    struct evbuffer *out;
    bool wants_json;
    LIST_ENTRY(ctl_call) entry;
};

struct ctl {
    struct event_base *base;
    const struct ctl_verb *verbs;
    size_t verb_count;
    void *argument;
    struct listener *listener;
    size_t call_count;
    LIST_HEAD(ctl_calls, ctl_call) calls;
};

static void call_free(struct ctl_call *call)
{
    LIST_REMOVE(call, entry);
    call->ctl->call_count--;
    if (call->connection != NULL)
        bufferevent_free(call->connection);
    evbuffer_free(call->out);
    free(call);
}

struct evbuffer *ctl_call_out(struct ctl_call *call)
{
    return call->out;
}

bool ctl_call_wants_json(const struct ctl_call *call)
{
    return call->wants_json;
}

void ctl_finish(struct ctl_call *call, bool ok)
{
    if (call->state == CALL_DESERTED) {
        call_free(call);
        return;
    }
    check(call->state == CALL_RUNNING);
    call->state = CALL_WRITING;
    struct evbuffer *output = bufferevent_get_output(call->connection);
    evbuffer_add_printf(output, "%s\n", ok ? "ok" : "error");
    evbuffer_add_buffer(output, call->out);
    struct timeval wait = timing_to_timeval(CONNECTION_WAIT);
    bufferevent_set_timeouts(call->connection, NULL, &wait);
    bufferevent_disable(call->connection, EV_READ);
    bufferevent_enable(call->connection, EV_WRITE);
}

void ctl_refuse(struct ctl_call *call, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    evbuffer_add_vprintf(call->out, format, arguments);
    va_end(arguments);
    evbuffer_add(call->out, "\n", 1);
    ctl_finish(call, false);
}

/* ── dispatch ── */

static const struct ctl_verb *find_verb(const struct ctl_verb *verbs, size_t count,
                                        const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

/* Cuts the line at its spaces, takes "--json" out; false when there are too many words. */
static bool split_words(struct ctl_call *call, char *line, char **words, int *count)
{
    char *rest = NULL;
    *count = 0;
    for (char *word = strtok_r(line, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        if (strcmp(word, "--json") == 0) {
            call->wants_json = true;
            continue;
        }
        if (*count == CTL_ARGUMENTS_MAX + 1)
            return false;
        words[(*count)++] = word;
    }
    return true;
}

static void run_line(struct ctl_call *call, char *line)
{
    char *words[CTL_ARGUMENTS_MAX + 1];
    int count;
    struct ctl *ctl = call->ctl;
    call->state = CALL_RUNNING;
    if (!split_words(call, line, words, &count)) {
        ctl_refuse(call, "more than %d arguments", CTL_ARGUMENTS_MAX);
        return;
    }
    const struct ctl_verb *verb =
        count > 0 ? find_verb(ctl->verbs, ctl->verb_count, words[0]) : NULL;
    if (verb == NULL)
        ctl_refuse(call, "unknown verb; try help");
    else if (count - 1 < verb->minimum || count - 1 > verb->maximum)
        ctl_refuse(call, "usage: %s %s", verb->name, verb->arguments);
    else
        verb->handle(ctl->argument, call, count - 1, words + 1);
}

/* The next line without its newline, NUL-terminated, or NULL when none is whole; the caller frees it. Not
 * evbuffer_readln: its memory is libevent's, which need not be free()'s (event_set_mem_functions). */
static char *take_line(struct evbuffer *from, size_t *len)
{
    size_t newline_len;
    struct evbuffer_ptr end =
        evbuffer_search_eol(from, NULL, &newline_len, EVBUFFER_EOL_LF);
    if (end.pos < 0)
        return NULL;
    *len = (size_t)end.pos;
    char *line = must_calloc(1, *len + 1);
    check(evbuffer_remove(from, line, *len) == end.pos);
    evbuffer_drain(from, newline_len);
    return line;
}

static void on_line(struct bufferevent *connection, void *argument)
{
    struct ctl_call *call = argument;
    struct evbuffer *input = bufferevent_get_input(connection);
    if (call->state != CALL_READING) { /* nothing more is expected; do not hoard it */
        evbuffer_drain(input, evbuffer_get_length(input));
        return;
    }
    size_t len;
    char *line = take_line(input, &len);
    if (line == NULL) {
        if (evbuffer_get_length(input) > LINE_MAX_BYTES)
            call_free(call);
        return;
    }
    bufferevent_set_timeouts(connection, NULL, NULL);
    bool is_text = len <= LINE_MAX_BYTES && strlen(line) == len;
    if (is_text)
        run_line(call, line);
    else
        call_free(call);
    free(line);
}

static void on_written(struct bufferevent *connection, void *argument)
{
    (void)connection;
    struct ctl_call *call = argument;
    if (call->state == CALL_WRITING)
        call_free(call);
}

static void on_end(struct bufferevent *connection, short what, void *argument)
{
    struct ctl_call *call = argument;
    /* the end of input may be a half-close: the answer is tried all the same */
    if (call->state == CALL_RUNNING && (what & BEV_EVENT_EOF) != 0)
        return;
    if (call->state != CALL_RUNNING) {
        call_free(call);
        return;
    }
    bufferevent_free(connection);
    call->connection = NULL;
    call->state = CALL_DESERTED;
}

static void on_accept(void *argument, int fd, const struct address *peer)
{
    (void)peer;
    struct ctl *ctl = argument;
    if (ctl->call_count >= CALLS_MAX) {
        close(fd);
        return;
    }
    struct ctl_call *call = must_calloc(1, sizeof(*call));
    call->ctl = ctl;
    call->out = evbuffer_new();
    call->connection = bufferevent_socket_new(ctl->base, fd, BEV_OPT_CLOSE_ON_FREE);
    check(call->out != NULL && call->connection != NULL);
    LIST_INSERT_HEAD(&ctl->calls, call, entry);
    ctl->call_count++;
    struct timeval wait = timing_to_timeval(CONNECTION_WAIT);
    bufferevent_set_timeouts(call->connection, &wait, NULL);
    bufferevent_setwatermark(call->connection, EV_READ, 0, LINE_MAX_BYTES + 1);
    bufferevent_setcb(call->connection, on_line, on_written, on_end, call);
    bufferevent_enable(call->connection, EV_READ);
}

struct ctl *ctl_new(struct event_base *base, const struct ctl_verb *verbs, size_t count,
                    void *argument)
{
    struct ctl *ctl = must_calloc(1, sizeof(*ctl));
    ctl->base = base;
    ctl->verbs = verbs;
    ctl->verb_count = count;
    ctl->argument = argument;
    LIST_INIT(&ctl->calls);
    return ctl;
}

void ctl_free(struct ctl *ctl)
{
    if (ctl == NULL)
        return;
    listener_free(ctl->listener);
    while (!LIST_EMPTY(&ctl->calls)) {
        struct ctl_call *call = LIST_FIRST(&ctl->calls);
        if (call->connection != NULL) { /* what has been answered should still arrive */
            struct evbuffer *output = bufferevent_get_output(call->connection);
            evbuffer_unfreeze(output, 1);
            evbuffer_write(output, bufferevent_getfd(call->connection));
        }
        call_free(call);
    }
    free(ctl);
}

static bool path_address(const char *path, struct address *address,
                         char why[NET_WHY_SIZE])
{
    char *text = must_printf("unix:%s", path);
    const char *problem;
    bool is_good = address_parse(slice_from_text(text), address, &problem);
    if (!is_good)
        snprintf(why, NET_WHY_SIZE, "%.100s: %s", path, problem);
    free(text);
    return is_good;
}

bool ctl_listen(struct ctl *ctl, const char *path, char why[NET_WHY_SIZE])
{
    struct address address;
    char problem[NET_WHY_SIZE];
    if (!path_address(path, &address, why))
        return false;
    struct net_listen_options options = {.backlog = CALLS_MAX, .mode = 0600};
    int fd = net_listen(&address, &options, problem);
    if (fd < 0) {
        snprintf(why, NET_WHY_SIZE, "%.110s: %.120s", path, problem);
        return false;
    }
    struct listener_callbacks callbacks = {.on_accept = on_accept};
    ctl->listener = listener_new(ctl->base, fd, "ctl", &callbacks, ctl);
    listener_start(ctl->listener);
    return true;
}

/* ── the default path ── */

/* "FOLDER/sidrail/NAME.sock" if that folder can be written, made with mode 0755 if need be. */
static char *path_in(const char *folder, const char *daemon)
{
    char *place = must_printf("%s/sidrail", folder);
    char *path = NULL;
    bool exists = mkdir(place, 0755) == 0 || errno == EEXIST;
    if (exists && access(place, W_OK | X_OK) == 0)
        path = must_printf("%s/%s.sock", place, daemon);
    free(place);
    struct address address;
    char why[NET_WHY_SIZE];
    if (path != NULL && !path_address(path, &address, why)) {
        free(path);
        path = NULL;
    }
    return path;
}

char *ctl_default_path(const char *daemon)
{
    char *path = path_in("/run", daemon);
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (path == NULL && runtime != NULL && runtime[0] == '/')
        path = path_in(runtime, daemon);
    return path;
}

/* ── the other side ── */

static int connect_to(const char *path, char why[NET_WHY_SIZE])
{
    struct address address;
    if (!path_address(path, &address, why))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, &address.socket.any, address.len) == 0)
        return fd;
    snprintf(why, NET_WHY_SIZE, "%.150s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static int connect_to_any(const char *path, const char *daemon, char why[NET_WHY_SIZE])
{
    if (path != NULL)
        return connect_to(path, why);
    char *system = must_printf("/run/sidrail/%s.sock", daemon);
    int fd = connect_to(system, why);
    free(system);
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (fd >= 0 || runtime == NULL || runtime[0] != '/')
        return fd;
    char *own = must_printf("%s/sidrail/%s.sock", runtime, daemon);
    fd = connect_to(own, why);
    free(own);
    return fd;
}

static void print_verbs(const struct ctl_verb *verbs, size_t count, FILE *out)
{
    for (size_t i = 0; i < count; i++) {
        char usage[128];
        snprintf(usage, sizeof(usage), "%s %s", verbs[i].name, verbs[i].arguments);
        fprintf(out, "  %-32s %s\n", usage, verbs[i].help);
    }
}

/* NULL, or what went wrong; constant text. */
static const char *write_line(int fd, int word_count, char **words)
{
    struct evbuffer *line = evbuffer_new();
    for (int i = 0; i < word_count; i++)
        evbuffer_add_printf(line, "%s%s", i > 0 ? " " : "", words[i]);
    evbuffer_add(line, "\n", 1);
    const char *why =
        evbuffer_get_length(line) > LINE_MAX_BYTES ? "the arguments are too long" : NULL;
    while (why == NULL && evbuffer_get_length(line) > 0) {
        /* no SIGPIPE: a daemon that is busy may close at once */
        ssize_t taken =
            send(fd, evbuffer_pullup(line, -1), evbuffer_get_length(line), MSG_NOSIGNAL);
        if (taken > 0)
            evbuffer_drain(line, (size_t)taken);
        else if (taken == 0 || errno != EINTR)
            why = NO_ANSWER;
    }
    evbuffer_free(line);
    return why;
}

/* Reads to the end and sorts by the first line. */
static int read_answer(int fd, FILE *out, FILE *errors)
{
    struct evbuffer *answer = evbuffer_new();
    int got;
    do
        got = evbuffer_read(answer, fd, 65536);
    while (got > 0 && evbuffer_get_length(answer) < ANSWER_MAX);
    size_t first_len;
    char *first = take_line(answer, &first_len);
    bool is_ok = first != NULL && strcmp(first, "ok") == 0;
    size_t len = evbuffer_get_length(answer);
    if (first == NULL)
        fprintf(errors, "%s\n", NO_ANSWER);
    else if (len > 0)
        fwrite(evbuffer_pullup(answer, -1), 1, len, is_ok ? out : errors);
    free(first);
    evbuffer_free(answer);
    return is_ok ? EXIT_CODE_WELL : EXIT_CODE_START;
}

int ctl_client(const char *path, const char *daemon, const struct ctl_verb *verbs,
               size_t count, int word_count, char **words, FILE *out, FILE *errors)
{
    if (word_count == 0 || strcmp(words[0], "help") == 0) {
        print_verbs(verbs, count, word_count == 0 ? errors : out);
        return word_count == 0 ? EXIT_CODE_USAGE : EXIT_CODE_WELL;
    }
    for (int i = 0; i < word_count; i++)
        if (words[i][0] == '\0' || strpbrk(words[i], " \n") != NULL) {
            fprintf(errors, "an argument is empty or holds a space\n");
            return EXIT_CODE_USAGE;
        }
    int verb = 0;
    while (verb < word_count - 1 && strcmp(words[verb], "--json") == 0)
        verb++;
    if (find_verb(verbs, count, words[verb]) == NULL) {
        fprintf(errors, "unknown verb \"%s\"; try help\n", words[verb]);
        return EXIT_CODE_USAGE;
    }
    char why[NET_WHY_SIZE];
    int fd = connect_to_any(path, daemon, why);
    if (fd < 0) {
        fprintf(errors, "%s\n", why);
        return EXIT_CODE_START;
    }
    int code = EXIT_CODE_START;
    const char *trouble = write_line(fd, word_count, words);
    if (trouble == NULL)
        code = read_answer(fd, out, errors);
    else
        fprintf(errors, "%s\n", trouble);
    close(fd);
    return code;
}
