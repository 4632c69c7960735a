/*
 * What link.c (the life of a connection), link_connect.c (how it comes about) and link_start.c (what is said on a new one,
 * and whether the shard is a master) share.
 */
#pragma once

#include "broker/link.h"
#include "broker/link_reader.h"
#include "broker/output.h"
#include "shared/address.h"
#include "shared/stream.h"
#include "shared/timing.h"

#include <event2/event_struct.h>

#define ADDRESSES_MAX 16

/* Messages in flight and a probe. */
#define EXPECTED_MAX (LINK_IN_FLIGHT_MESSAGES + 16)

/* Of what Redis says when it refuses. */
#define REASON_TEXT_SIZE 512

/* What a shard says of itself. REFUSED: the question is forbidden, or renamed; UNKNOWN: an error that says nothing about the
 * question. */
enum role { ROLE_MASTER, ROLE_OTHER, ROLE_REFUSED, ROLE_UNKNOWN };

enum step { STEP_AUTH, STEP_NAME, STEP_ROLE, STEP_COUNT };

/* How a shard is asked whether it is a master: as it may be asked. */
enum role_source { ROLE_BY_ROLE, ROLE_BY_INFO, ROLE_IS_TRUSTED };

struct link {
    struct event_base *base; /* borrowed */
    struct turn *turn;       /* borrowed */
    struct evdns_base *dns;  /* borrowed, may be NULL */
    struct link_config config;
    struct link_callbacks callbacks;
    char *client_name;
    enum link_state state;
    uint64_t changed_at;
    bool is_started;
    bool may_retry_at_once; /* it was up, and has not been retried since */
    enum close_reason reason;
    char reason_text[REASON_TEXT_SIZE];
    struct backoff backoff;
    struct event *timer; /* DOWN: the back-off; else the tick */
    struct evdns_getaddrinfo_request *request;
    struct address addresses[ADDRESSES_MAX]; /* of the name, from the last answer */
    unsigned address_count, address_next;
    enum role_source role_source;
    bool has_warned_of_role;
    struct stream stream;
    struct event readable;
    struct event writable;
    bool has_events;
    bool is_blocked;
    bool is_hurried; /* what is queued is not only messages of pods */
    struct link_reader *reader;
    bool is_parsing; /* the reader must stay until it returns */
    enum step step;
    struct output output;
    struct chunk_writer writer;
    /* Times of standing_now(): last bytes from Redis, the last probe. */
    uint64_t heard_at;
    uint64_t probed_at;
    bool probes; /* a probe is unanswered */
    /* Publishing: what is unanswered, oldest first; length 0 is a ROLE. */
    struct {
        size_t len;
        uint64_t at;
        uint64_t end; /* where it ends, in bytes of the connection */
    } expected[EXPECTED_MAX];
    unsigned expected_first, expected_count;
    unsigned in_flight_count;
    size_t in_flight_bytes;
    uint64_t written;      /* bytes of the connection */
    uint64_t acknowledged; /* of them, when last looked */
    uint64_t patience;     /* with a long message */
    /* standing_now() when bytes of what is unanswered, or of a long message that comes, went on. */
    uint64_t moved_at;
    /* Subscribing: arguments not yet made a command. */
    struct evbuffer *channels;
    unsigned channel_count;
    bool channels_are_new; /* SUBSCRIBE, else UNSUBSCRIBE */
};

/* ── link.c ── */

void link_change(struct link *link, enum link_state state);
void link_send_arguments(struct link *link, int count, const char **arguments,
                         const size_t *lens);
void link_write_output(struct link *link);

/* Ends the link for this reason, which the shard gives in its own words. */
void link_close_with_text(struct link *link, enum close_reason reason, struct slice text);

/* Takes the socket, which may still be connecting. */
void link_open(struct link *link, int fd);

/* Connected, and secured where it is to be: says the start. */
void link_begin_checking(struct link *link);

/* ── link_connect.c ── */

/* To the next address of the name's last answer, else of a new one. The link may have ended when it returns. */
void link_connect(struct link *link);

/* The socket of a link that is CONNECTING is readable or writable. The same. */
void link_go_on_connecting(struct link *link);

/* Has the name an address that was not tried yet? The next link_connect() takes it. */
bool link_has_other_address(const struct link *link);

/* ── link_start.c ── */

void link_send_word(struct link *link, const char *word);

/* Asks whether the shard is a master, as it may be asked, and reads the answer. */
void link_send_role(struct link *link);
enum role link_role_of(const struct link *link, const struct link_reply *reply);

/* AUTH, CLIENT SETNAME and ROLE, in one write. False: the link has ended. */
bool link_send_start(struct link *link);

/* The answer to the step that is due. */
void link_take_step(struct link *link, const struct link_reply *reply);
