/*
 * Commands of the operator: a unix stream socket, mode 0600, one command a connection.
 *
 *      client                          daemon
 *      "drain 10.0.0.7:5000\n"  ──▶    table of verbs ──▶ handler ──▶ ctl_finish (now or later)
 *                               ◀──    "ok\n" or "error\n", then the body, then end of file
 *
 * Arguments are separated by spaces and hold none. A handler may keep the call and finish it when the work is
 * done (reload: all threads took the snapshot); until then the connection stays open.
 */
#pragma once

#include "shared/net.h"

#include <stdio.h>

struct event_base;
struct evbuffer;
struct ctl;
struct ctl_call;

#define CTL_ARGUMENTS_MAX 16

/* A row of the daemon's table. `handle` gets what follows the verb; "--json" is taken out and told by
 * ctl_call_wants_json(). It writes to ctl_call_out() and calls ctl_finish() exactly once, now or later. */
struct ctl_verb {
    const char *name;
    const char *arguments; /* for help: "ENDPOINT | --upstream NAME", or "" */
    const char *help;      /* one sentence */
    int minimum, maximum;  /* number of arguments */
    void (*handle)(void *argument, struct ctl_call *call, int count, char **arguments);
};

struct ctl *ctl_new(struct event_base *base, const struct ctl_verb *verbs, size_t count,
                    void *argument);
/* Sends what has been finished, ends calls that have not: they must not be finished any more. */
void ctl_free(struct ctl *ctl);

/* Listens on `path`, or false with `why`. */
bool ctl_listen(struct ctl *ctl, const char *path, char why[NET_WHY_SIZE]) MUST_CHECK;

/* The body of the answer. */
struct evbuffer *ctl_call_out(struct ctl_call *call);
bool ctl_call_wants_json(const struct ctl_call *call);

/* Sends "ok" or "error" and the body; the call is gone afterwards. Also right when the client has left. */
void ctl_finish(struct ctl_call *call, bool ok);

/* finish with an error of one line, made as printf would. */
void ctl_refuse(struct ctl_call *call, const char *format, ...) PRINTF_LIKE(2, 3);

/* `socket: auto` of daemon "proxy" or "broker": /run/sidrail/NAME.sock if that folder can be written (made if
 * need be), else $XDG_RUNTIME_DIR/sidrail/NAME.sock, else NULL (off; the caller warns). The caller frees it. */
char *ctl_default_path(const char *daemon);

/* `sidrail-x ctl`: sends the words, copies the body to `out`, errors to `errors` with one line. Path NULL:
 * tries both defaults of `daemon`. EXIT_CODE_WELL when the answer was ok, EXIT_CODE_START when not or nobody
 * listens, EXIT_CODE_USAGE when there is no verb. "help" and no verb print the table of verbs. */
int ctl_client(const char *path, const char *daemon, const struct ctl_verb *verbs,
               size_t count, int word_count, char **words, FILE *out, FILE *errors);
