/*
 * The commands: one table, one signature.
 *
 *     argv ─▶ look up (any case) ─▶ arity ─▶ logged in? ─▶ the user's? ─▶ allowed while subscribed? ─▶ handler ─▶ reply
 *                │                    └───────────┴──────────────┴───────────────┴──▶ Redis' own error text
 *                └ container (CLIENT, PUBSUB …) ─▶ look up the second word in its table
 *
 * A handler never parses and never touches a socket: it reads argv and writes a reply. Families live in
 * command_connection.c, command_pubsub.c and command_server.c.
 *
 * To add a command: a handler in its family, its line in command_handlers.h, and a row in command.c.
 */
#pragma once

#include "broker/client.h"
#include "broker/command_class.h"

struct broker_config;
struct evbuffer;
struct host_ids;
struct interest_table;
struct pods;
struct publisher;

/* What handlers work with; one for the broker. All borrowed. */
struct command_context {
    const struct broker_config *config;
    struct client_set *clients;
    struct interest_table *interest;
    struct publisher *publisher;
    struct pods *pods;
    struct host_ids *host_ids;
    uint64_t started_at;      /* timing_now() */
    bool refuses_subscribers; /* while draining */
};

struct command_call {
    struct command_context *context;
    struct client *client;
    struct client_facts *facts; /* of the client */
    const struct command *row;  /* NULL: not found (yet) */
    uint64_t
        waits_since; /* since when this request waits, timing_now(); 0: it does not */
    size_t argc;
    const struct slice *argv;
    struct evbuffer *reply;      /* what is written here may be dropped (CLIENT REPLY) */
    struct evbuffer *heard;      /* what is written here is not */
    enum client_verdict verdict; /* GO_ON unless the handler says otherwise */
    bool is_judged;              /* it is in the table, and allowed */
    bool is_refused;             /* the reply is an error */
};

enum command_flag {
    COMMAND_NO_AUTH = 1,    /* before AUTH too */
    COMMAND_SUBSCRIBED = 2, /* of a RESP2 client that has subscribed, too */
    COMMAND_CHANNEL = 4,    /* its first argument is a channel */
    COMMAND_CHANNELS = 8,   /* all its arguments are channels or patterns */
    COMMAND_AT_ONCE = 16,   /* after MULTI it is run, not queued */
    COMMAND_NO_MULTI = 32,  /* not after MULTI */
};

struct command {
    const char *name; /* of a subcommand "container|name" */
    int arity; /* as Redis: the number of words, or at least -arity of them; of subcommands both words count */
    unsigned flags;
    enum command_class class;
    void (*handle)(struct command_call *call); /* NULL: a container */
    const struct command *subcommands;         /* of a container; the last has no name */
};

/* The rows, for COMMAND COUNT and tests; the last has no name. */
extern const struct command command_table[];
size_t command_count(void);

/* NULL when there is none. In a container's table `name` is the second word. */
const struct command *command_find(const struct command *table, struct slice name);

/* Answers one request; writes exactly one reply, but for (P)SUBSCRIBE and its kin (one for each name)
 * and SIDRAIL (none). */
enum client_verdict command_run(struct command_context *context, struct client *client,
                                size_t argc, const struct slice *argv,
                                struct evbuffer *reply);

/* Sets `reply` to where the answer goes: to `heard`, or, after CLIENT REPLY OFF or SKIP, to a buffer that
 * command_end_answer() drops. */
void command_begin_answer(struct command_call *call);
void command_end_answer(struct command_call *call);

/* Runs the handler of call->row and counts it, unless it waits. */
void command_handle(struct command_call *call);

/* command_transaction.c: after MULTI, queues the request instead of running it. */
void command_queue(struct command_call *call);

/* Goes on with an EXEC that waited. */
void command_exec_go_on(struct command_call *call);

/* The request is refused before it is run or queued: an open transaction will not be run; if it was EXEC, it is over. */
void command_reject_transaction(struct command_call *call);

/* Answers a request that was longer than a limit, and so is not known: the error names the limit's option and both
 * sizes. Logged once per client. */
void command_refuse_length(struct command_context *context, struct client *client,
                           const struct resp_request *request, struct evbuffer *reply);

/* For handlers: replies with an error, "ERR …" without the '-', and notes that it was one. */
void command_refuse(struct command_call *call, const char *format, ...) PRINTF_LIKE(2, 3);
