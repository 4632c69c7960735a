/*
 * One client, from accept to close.
 *
 *      READING ── head whole ──▶ answer ──▶ WRITING ── all written ──▶ closed
 *         └──── too large: 431 ──┘             │
 *         └──── client left, CLIENT_TIME over, place needed ────────▶ closed
 *
 * Not evhttp: it bounds neither the number of clients nor how long one may take for its head, and a port that
 * answers the kubelet's probes must not be taken away by somebody who holds connections open.
 */
#include "shared/admin.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "shared/admin_host.h"
#include "shared/listener.h"
#include "shared/metrics.h"
#include "shared/timing.h"

#define CLIENTS_MAX 64
#define HEAD_MAX    8192
#define CLIENT_TIME SECONDS(10)

#define TYPE_TEXT "text/plain; charset=utf-8"
#define TYPE_HTML "text/html; charset=utf-8"
#define TYPE_JSON "application/json"

/* Everything inline, nothing from elsewhere, not to be framed, and scripts may only ask this port. */
#define PAGE_POLICY                                                                      \
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "           \
    "script-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "   \
    "form-action 'none'; frame-ancestors 'none'\r\n"

struct client {
    struct admin *admin;
    struct bufferevent *connection;
    struct event *overdue;
    bool is_answered;
    TAILQ_ENTRY(client) entry;
};

struct admin {
    struct event_base *base;
    struct admin_callbacks callbacks;
    void *argument;
    struct listener *listener;
    size_t client_count;
    TAILQ_HEAD(clients, client) clients; /* oldest first */
};

struct answer {
    int status;
    const char *reason;
    const char *type;
    const char *fields; /* further field lines, each with its CRLF */
    struct evbuffer *body;
};

static void client_close(struct client *client)
{
    TAILQ_REMOVE(&client->admin->clients, client, entry);
    client->admin->client_count--;
    event_free(client->overdue);
    bufferevent_free(client->connection);
    free(client);
}

/* ── answers ── */

static void say(struct answer *answer, int status, const char *reason, const char *text)
{
    answer->status = status;
    answer->reason = reason;
    evbuffer_add_printf(answer->body, "%s\n", text);
}

static void answer_health(struct admin *admin, struct answer *answer,
                          bool (*is_good)(void *argument, struct evbuffer *why))
{
    struct evbuffer *why = evbuffer_new();
    bool is_ok = is_good == NULL || is_good(admin->argument, why);
    if (is_ok) {
        say(answer, 200, "OK", "ok");
    } else {
        answer->status = 503;
        answer->reason = "Service Unavailable";
        evbuffer_add_buffer(answer->body, why);
        evbuffer_add(answer->body, "\n", 1);
    }
    evbuffer_free(why);
}

static void answer_livez(struct admin *admin, struct answer *answer)
{
    answer_health(admin, answer, NULL);
}

static void answer_startupz(struct admin *admin, struct answer *answer)
{
    answer_health(admin, answer, admin->callbacks.is_started);
}

static void answer_readyz(struct admin *admin, struct answer *answer)
{
    answer_health(admin, answer, admin->callbacks.is_ready);
}

static void answer_metrics(struct admin *admin, struct answer *answer)
{
    (void)admin;
    answer->type = METRICS_CONTENT_TYPE;
    metrics_write(answer->body);
}

static void answer_status(struct admin *admin, struct answer *answer)
{
    if (admin->callbacks.write_status == NULL) {
        say(answer, 404, "Not Found", "not found");
        return;
    }
    answer->type = TYPE_JSON;
    admin->callbacks.write_status(admin->argument, answer->body);
}

static void answer_page(struct admin *admin, struct answer *answer)
{
    static const char plain_page[] =
        "<!doctype html><title>Sidrail</title><ul><li><a href=livez>livez</a>"
        "<li><a href=startupz>startupz</a><li><a href=readyz>readyz</a>"
        "<li><a href=metrics>metrics</a><li><a href=status.json>status.json</a></ul>\n";
    const char *page = admin->callbacks.page != NULL ? admin->callbacks.page : plain_page;
    answer->type = TYPE_HTML;
    answer->fields = PAGE_POLICY "Referrer-Policy: no-referrer\r\n";
    evbuffer_add(answer->body, page, strlen(page));
}

/* To add a path: a row here and its function above. */
static const struct {
    const char *path;
    void (*answer)(struct admin *admin, struct answer *answer);
} paths[] = {
    {"/", answer_page},
    {"/livez", answer_livez},
    {"/startupz", answer_startupz},
    {"/readyz", answer_readyz},
    {"/metrics", answer_metrics},
    {"/status.json", answer_status},
};

static void answer_path(struct admin *admin, struct slice path, struct answer *answer)
{
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        if (slice_equals(path, slice_from_text(paths[i].path))) {
            paths[i].answer(admin, answer);
            return;
        }
    say(answer, 404, "Not Found", "not found");
}

/* Is the request meant for this port? Else the answer says what to do. */
static bool is_meant_for_us(struct admin *admin, struct slice fields,
                            struct answer *answer)
{
    const struct text_list *hosts =
        admin->callbacks.hosts != NULL ? admin->callbacks.hosts(admin->argument) : NULL;
    switch (admin_host_judge(fields, hosts)) {
    case ADMIN_HOST_GOOD:
        return true;
    case ADMIN_HOST_OTHER:
        say(answer, 421, "Misdirected Request",
            "this port answers requests whose Host is an IP address, localhost, or a "
            "name in admin.hosts");
        return false;
    case ADMIN_HOST_BROKEN:
        say(answer, 400, "Bad Request", "bad Host");
        return false;
    }
    unreachable();
}

/* Decides from the request line and Host; no other field of the head changes an answer. */
static void answer_head(struct admin *admin, struct slice line, struct slice fields,
                        struct answer *answer, bool *is_head)
{
    struct slice method, target, version;
    struct slice rest = line;
    bool is_request = slice_cut(&rest, ' ', &method) && slice_cut(&rest, ' ', &target) &&
                      slice_cut(&rest, ' ', &version) && rest.data == NULL;
    is_request = is_request && target.len > 0 &&
                 (slice_equals(version, SLICE("HTTP/1.1")) ||
                  slice_equals(version, SLICE("HTTP/1.0")));
    *is_head = is_request && slice_equals(method, SLICE("HEAD"));
    if (!is_request) {
        say(answer, 400, "Bad Request", "bad request");
    } else if (!is_meant_for_us(admin, fields, answer)) {
        return;
    } else if (!*is_head && !slice_equals(method, SLICE("GET"))) {
        answer->fields = "Allow: GET, HEAD\r\n";
        say(answer, 405, "Method Not Allowed", "only GET and HEAD");
    } else {
        answer_path(admin, slice_to(target, slice_find(target, '?')), answer);
    }
}

static void send_answer(struct client *client, const struct answer *answer, bool is_head)
{
    struct evbuffer *output = bufferevent_get_output(client->connection);
    char date[64];
    time_t now = time(NULL);
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    evbuffer_add_printf(output,
                        "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n"
                        "Content-Length: %zu\r\nCache-Control: no-store\r\n"
                        "X-Content-Type-Options: nosniff\r\n%sConnection: close\r\n\r\n",
                        answer->status, answer->reason, date, answer->type,
                        evbuffer_get_length(answer->body), answer->fields);
    if (!is_head)
        evbuffer_add_buffer(output, answer->body);
    client->is_answered = true;
}

static void answer_client(struct client *client, struct slice head, bool is_too_large)
{
    struct answer answer = {.status = 200,
                            .reason = "OK",
                            .type = TYPE_TEXT,
                            .fields = "",
                            .body = evbuffer_new()};
    bool is_head = false;
    if (is_too_large)
        say(&answer, 431, "Request Header Fields Too Large", "the head is too large");
    else
        answer_head(client->admin, slice_to(head, slice_find(head, '\r')),
                    slice_from(head, slice_find(head, '\n') + 1), &answer, &is_head);
    send_answer(client, &answer, is_head);
    evbuffer_free(answer.body);
}

/* ── clients ── */

static void on_readable(struct bufferevent *connection, void *argument)
{
    struct client *client = argument;
    struct evbuffer *input = bufferevent_get_input(connection);
    size_t len = evbuffer_get_length(input);
    if (client
            ->is_answered) { /* a body, or more requests: not wanted, but read, lest close() resets */
        evbuffer_drain(input, len);
        return;
    }
    struct slice head = slice_of(evbuffer_pullup(input, -1), len);
    size_t end = len;
    const char *found = memmem(head.data, head.len, "\r\n\r\n", 4);
    if (found != NULL)
        end = (size_t)(found - head.data);
    else if (len < HEAD_MAX)
        return;
    answer_client(client, slice_to(head, end), end >= HEAD_MAX);
    evbuffer_drain(input, len);
}

static void on_written(struct bufferevent *connection, void *argument)
{
    (void)connection;
    struct client *client = argument;
    if (client->is_answered)
        client_close(client);
}

static void on_end(struct bufferevent *connection, short what, void *argument)
{
    (void)connection;
    struct client *client = argument;
    /* the end of input may be a half-close: the answer still goes out */
    if (!client->is_answered || (what & BEV_EVENT_EOF) == 0)
        client_close(client);
}

static void on_overdue(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    client_close(argument);
}

static void on_accept(void *argument, int fd, const struct address *peer)
{
    (void)peer;
    struct admin *admin = argument;
    if (admin->client_count >= CLIENTS_MAX)
        client_close(TAILQ_FIRST(&admin->clients));
    struct client *client = must_calloc(1, sizeof(*client));
    client->admin = admin;
    client->connection = bufferevent_socket_new(admin->base, fd, BEV_OPT_CLOSE_ON_FREE);
    client->overdue = evtimer_new(admin->base, on_overdue, client);
    check(client->connection != NULL && client->overdue != NULL);
    struct timeval wait = timing_to_timeval(CLIENT_TIME);
    event_add(client->overdue, &wait);
    TAILQ_INSERT_TAIL(&admin->clients, client, entry);
    admin->client_count++;
    bufferevent_setwatermark(client->connection, EV_READ, 0, HEAD_MAX);
    bufferevent_setcb(client->connection, on_readable, on_written, on_end, client);
    bufferevent_enable(client->connection, EV_READ | EV_WRITE);
}

/* ── the port ── */

struct admin *admin_new(struct event_base *base, const struct admin_callbacks *callbacks,
                        void *argument)
{
    struct admin *admin = must_calloc(1, sizeof(*admin));
    admin->base = base;
    admin->callbacks = *callbacks;
    admin->argument = argument;
    TAILQ_INIT(&admin->clients);
    return admin;
}

bool admin_listen(struct admin *admin, const struct address *address,
                  char why[NET_WHY_SIZE])
{
    char problem[NET_WHY_SIZE], text[ADDRESS_TEXT_SIZE];
    struct net_listen_options options = {.backlog = CLIENTS_MAX};
    address_text(address, text);
    int fd = net_listen(address, &options, problem);
    if (fd < 0) {
        snprintf(why, NET_WHY_SIZE, "%s: %.120s", text, problem);
        return false;
    }
    struct listener_callbacks callbacks = {.on_accept = on_accept};
    admin->listener = listener_new(admin->base, fd, "admin", &callbacks, admin);
    listener_start(admin->listener);
    return true;
}

struct address admin_address(const struct admin *admin)
{
    return net_local_address(listener_fd(admin->listener));
}

void admin_free(struct admin *admin)
{
    if (admin == NULL)
        return;
    listener_free(admin->listener);
    while (!TAILQ_EMPTY(&admin->clients))
        client_close(TAILQ_FIRST(&admin->clients));
    free(admin);
}
