/*
 * Subscribers whose pod is known: what they have not acknowledged, and where it goes when their connection ends. See
 * client.h.
 *
 *     written ─▶ acknowledged by the peer's kernel ─▶ forgotten        (replay.tail: acked)
 *                                  └─▶ a second later ─▶ forgotten     (replay.tail: overlap)
 *
 * All positions are in plaintext; what of TLS is acknowledged, the stream tells by whole records (sealed_records.h), of
 * which a pod has read nothing before the last byte.
 */
#include "broker/client_parts.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/identity.h"
#include "broker/receive.h"
#include "broker/replay_rewrite.h"
#include "broker/transaction.h"
#include "broker/turn.h"
#include "shared/net.h"
#include "shared/timing.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>

/* A subscriber whose pod has closed its end: what was written is given so long to be acknowledged. */
#define END_WITHIN SECONDS(1)
#define END_TICK   MILLISECONDS(10)

/* A connection on which nothing was acknowledged for so long, though it was sent again, ends when its pod is back. */
#define HALF_OPEN_AFTER SECONDS(1)

/* What a cut path leaves unacknowledged is sent again within this (Linux: after 0.2 s, or three round trips). */
#define RESENT_WITHIN MILLISECONDS(500)

/* A pod that is not back is given up after so many heartbeats that nothing acknowledged. */
#define CUT_OFF_HEARTBEATS 10

enum path { PATH_OPEN, PATH_DOUBTFUL, PATH_CUT };

/* What a subscriber has acknowledged is looked up when so much has been queued since. */
#define TRIM_EVERY ((size_t)128 * 1024)

/* With overlap what was acknowledged lately is kept, in so many steps. */
#define OVERLAP    SECONDS(1)
#define MARK_EVERY MILLISECONDS(100)

_Static_assert((CLIENT_MARKS - 1) * MARK_EVERY > OVERLAP,
               "the marks reach back far enough");

/* A pod that says what it has handled, and for whom more than this is kept, is not waited for that it says it. */
#define EXACT_MAX ((size_t)8 * 1024 * 1024)

static size_t unacknowledged(const struct client *client)
{
    return stream_unacknowledged(&client->stream);
}

static void mark(struct client *client, uint64_t now)
{
    size_t waiting = client->output.bytes + unacknowledged(client);
    client->marks[client->mark_count++ % CLIENT_MARKS] = (struct client_mark){
        now, waiting <= client->queued ? client->queued - waiting : 0};
}

/* What was acknowledged OVERLAP ago. */
static uint64_t acknowledged_before(const struct client *client, uint64_t now)
{
    uint64_t acknowledged = 0;
    for (unsigned i = 0; i < CLIENT_MARKS; i++) {
        const struct client_mark *it = &client->marks[i];
        if (it->at != 0 && now - it->at >= OVERLAP && it->acknowledged > acknowledged)
            acknowledged = it->acknowledged;
    }
    return acknowledged;
}

void client_begin_marks(struct client_set *set)
{
    struct timeval every = timing_to_timeval(MARK_EVERY);
    if (set->limits.replay_overlaps)
        check(event_add(set->mark_tick, &every) == 0);
}

void client_on_mark_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct client_set *set = argument;
    uint64_t now = timing_now();
    struct client *client;
    TAILQ_FOREACH(client, &set->open, of_set)
    if (client->is_kept && client->state == CLIENT_OPEN) {
        mark(client, now);
        client_trim(client);
    }
}

void client_trim(struct client *client)
{
    client->trimmed_ago = 0;
    if (client->is_exact && client->replay.bytes <= EXACT_MAX)
        return;
    client->is_exact = false;
    if (client->set->limits.replay_overlaps) {
        replay_trim(&client->replay, acknowledged_before(client, timing_now()));
        return;
    }
    size_t waiting = client->output.bytes + unacknowledged(client);
    if (waiting <= client->queued)
        replay_trim(&client->replay, client->queued - waiting);
}

static void client_keep(struct client *client, struct span span, bool is_delivery)
{
    client->queued += span.len;
    replay_append(&client->replay, span, is_delivery);
    client->trimmed_ago += span.len;
    if (client->trimmed_ago > TRIM_EVERY)
        client_trim(client);
}

void client_queue(struct client *client, struct span span, bool is_delivery, uint64_t now)
{
    if (is_delivery && client->is_answering) {
        output_append(&client->held, span, true, now);
        return;
    }
    output_append(&client->output, span, is_delivery, now);
    if (client->is_kept)
        client_keep(client, span, is_delivery);
}

/*
 *     acknowledged │ in the kernel │ first entry │ oldest ones: dropped │ the rest
 *     ─────────────────────────── stays ────────▶ cut ─────────────────▶ appended anew
 */
size_t client_drop_oldest(struct client *client, size_t bytes, uint64_t since,
                          size_t *bytes_dropped)
{
    struct output *output = &client->output;
    uint64_t written = client->queued - output->bytes;
    size_t sealed = client->stream.ssl != NULL ? STREAM_RECORD_MAX : 0;
    size_t held = client->held.bytes;
    size_t dropped = output_drop_oldest(output, bytes > held ? bytes - held : 0, since,
                                        sealed, bytes_dropped);
    size_t dropped_held = output_drop_oldest(
        &client->held, bytes > output->bytes ? bytes - output->bytes : 0, since, 0,
        bytes_dropped);
    if (!client->is_kept || dropped == 0)
        return dropped + dropped_held;
    client->queued = written + output_first_bytes(output);
    replay_cut(&client->replay, client->queued);
    for (unsigned i = 1; i < output->count; i++) {
        const struct output_entry *entry = output_entry_get(output, i);
        client->queued += entry->span.len;
        replay_append(&client->replay, entry->span, entry->droppable);
    }
    return dropped + dropped_held;
}

void client_keep_no_more(struct client *client)
{
    client->is_kept = client->is_exact = false;
    replay_cleanup(&client->replay);
}

/* For good: its interests go. */
void client_discard(struct client *client)
{
    struct client_set *set = client->set;
    set->parked_bytes -= client->replay.bytes;
    metrics_add(M_PARKED, -1);
    client_enter(client, CLIENT_CLOSED);
    set->callbacks.on_close(set->callbacks.context, client, CLOSE_PEER);
    client_keep_no_more(client);
    turn_request(set->turn);
}

void client_expire(struct client *client, const char *why)
{
    struct log_subject subject = client_subject(client);
    log_info(&subject, "not waited for any more", LOG_TEXT("pod", client->facts.identity),
             LOG_TEXT("why", why), LOG_UNSIGNED("unread_bytes", client->replay.bytes));
    if (client->replay.bytes > 0)
        metrics_add(M_REPLAYS_EXPIRED, 1);
    metrics_add_by(M_LOST, LOSS_RING, replay_messages(&client->replay));
    client_discard(client);
}

void client_bound_parked(struct client_set *set)
{
    while (set->parked_bytes > set->limits.replay_bytes)
        client_expire(TAILQ_FIRST(&set->parked), "replay.bytes");
}

static bool is_pod(struct client *client)
{
    return client->subscriber.counts[0] + client->subscriber.counts[1] > 0 &&
           client->set->callbacks.wants_heartbeat(client->set->callbacks.context, client);
}

bool client_may_park(struct client *client, enum close_reason reason)
{
    /* FINISHING: it said QUIT, or what is no protocol, and does not come back for the rest. */
    return client->state != CLIENT_FINISHING && client->is_kept && is_pod(client) &&
           client->set->on_empty == NULL &&
           (reason == CLOSE_PEER || reason == CLOSE_BROKEN || reason == CLOSE_KILLED);
}

/* The connection is over; the subscriber stays. */
void client_park(struct client *client)
{
    struct client_set *set = client->set;
    replay_end(&client->replay);
    interest_park_all(&client->subscriber);
    transaction_free(client->facts.transaction);
    client->facts.transaction = NULL;
    metrics_add(M_SUBSCRIBERS, -1);
    client->parked_at = timing_now();
    set->parked_bytes += client->replay.bytes;
    metrics_add(M_PARKED, 1);
    client_bound_parked(set);
    client_set_resume(set); /* its heir may wait */
}

static bool is_reset(const struct client *client)
{
    char byte;
    return recv(client->stream.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           errno != EAGAIN && errno != EINTR;
}

void client_on_end_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct client_set *set = argument;
    uint64_t now = timing_now();
    struct client *next;
    for (struct client *client = TAILQ_FIRST(&set->ending); client != NULL;
         client = next) {
        next = TAILQ_NEXT(client, of_work);
        bool is_late = now - client->finishing_since > END_WITHIN;
        if (unacknowledged(client) > 0 && !is_reset(client) && !is_late)
            continue;
        /* What is not acknowledged by now comes again; the kernel must not go on with it. */
        if (is_late)
            net_set_reset_on_close(client->stream.fd);
        client_close(client, client->finish_reason);
    }
    if (TAILQ_EMPTY(&set->ending))
        event_del(set->end_tick);
}

/* The pod may still read what is under way: nothing more is written. */
void client_end(struct client *client, enum close_reason reason)
{
    struct client_set *set = client->set;
    client->finish_reason = reason;
    client_release_held(client);
    if (reason != CLOSE_PEER)
        (void)shutdown(client->stream.fd, SHUT_WR); /* it reads to the end, and returns */
    client_trim(client);
    client_enter(client, CLIENT_ENDING);
    event_del(&client->writable);
    client->is_blocked = false;
    client->finishing_since = timing_now();
    struct timeval every = timing_to_timeval(END_TICK);
    check(event_add(set->end_tick, &every) == 0);
}

/* A reload makes new users of the same names. */
static const char *user_name(const struct client *client)
{
    return client->facts.user != NULL ? client->facts.user->name : "";
}

void client_kill(struct client *client)
{
    if (client->state == CLIENT_ENDING)
        return;
    if (client->state == CLIENT_OPEN && client_may_park(client, CLOSE_KILLED))
        client_end(client, CLOSE_KILLED);
    else
        client_close(client, CLOSE_KILLED);
}

static bool is_of_one_pod(const struct client *one, const struct client *other)
{
    return strcmp(one->facts.identity, other->facts.identity) == 0 &&
           strcmp(user_name(one), user_name(other)) == 0 &&
           one->facts.protocol == other->facts.protocol;
}

static bool is_subscriber_of(const struct client *client, const char *identity)
{
    return client->state == CLIENT_OPEN &&
           client->subscriber.counts[0] + client->subscriber.counts[1] > 0 &&
           strcmp(client->facts.identity, identity) == 0;
}

/* Is the path to its pod cut, as far as can be told: what was sent again and again is not acknowledged? A pod that is
 * stopped answers to probes. */
static enum path path_of(const struct client *client, uint64_t cut_after)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    memset(&info, 0, sizeof(info));
    if (address_is_unix(&client->facts.peer) || unacknowledged(client) == 0 ||
        getsockopt(client->stream.fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return PATH_OPEN;
    unsigned unanswered = info.tcpi_retransmits > info.tcpi_probes ? info.tcpi_retransmits
                                                                   : info.tcpi_probes;
    uint64_t silent = MILLISECONDS((uint64_t)info.tcpi_last_ack_recv);
    if (unanswered == 0)
        return PATH_OPEN;
    return unanswered > 1 && silent > cut_after ? PATH_CUT : PATH_DOUBTFUL;
}

bool client_is_cut_off(const struct client *client)
{
    return path_of(client, client->set->limits.heartbeat * CUT_OFF_HEARTBEATS) ==
           PATH_CUT;
}

static uint64_t acknowledged(const struct client *client)
{
    size_t waiting = client->output.bytes + unacknowledged(client);
    return waiting <= client->queued ? client->queued - waiting : 0;
}

/* Its pod's name subscribes anew since `since`. Its own path is known to be open when something was acknowledged that was
 * sent after that: what was sent before can have been acknowledged by a pod that has gone since. */
static enum path look_at_path(struct client *client, uint64_t since, uint64_t now)
{
    if (address_is_unix(&client->facts.peer))
        return PATH_OPEN;
    if (client->probed_at < since) {
        client->probed_at = now;
        client->probed_from = client->queued;
        client_beat(client, now);
    }
    if (acknowledged(client) > client->probed_from)
        return PATH_OPEN;
    enum path path = path_of(client, HALF_OPEN_AFTER);
    return path == PATH_OPEN && now - since < RESENT_WITHIN ? PATH_DOUBTFUL : path;
}

/* The pod is back while an old connection of it seems to live: it ends, if its path is cut. False: that is not
 * sure yet. */
static bool end_half_open(struct client *client)
{
    uint64_t now = timing_now();
    if (client->returned_at == 0)
        client->returned_at = now;
    bool is_sure = true;
    struct client *next;
    for (struct client *other = client_first(client->set); other != NULL; other = next) {
        next = client_next(other);
        if (other == client || !other->is_kept ||
            !is_subscriber_of(other, client->facts.identity) || !is_pod(other))
            continue;
        enum path path = look_at_path(other, client->returned_at, now);
        if (path == PATH_CUT)
            client_close(other, CLOSE_BROKEN);
        is_sure &= path != PATH_DOUBTFUL;
    }
    if (is_sure)
        client->returned_at = 0;
    return is_sure;
}

/* Behind one address there are several: which of them returns cannot be told. */
static bool is_ambiguous(struct client *client)
{
    if (identity_is_shareable(client->facts.identity))
        return false;
    bool is = false;
    struct client *other;
    TAILQ_FOREACH(other, &client->set->open, of_set)
    if (other != client && is_subscriber_of(other, client->facts.identity)) {
        client_keep_no_more(other);
        is = true;
    }
    return is;
}

static bool is_at_one_address(const struct client *one, const struct client *other)
{
    char one_ip[ADDRESS_TEXT_SIZE];
    char other_ip[ADDRESS_TEXT_SIZE];
    return strcmp(address_ip_text(&one->facts.peer, one_ip),
                  address_ip_text(&other->facts.peer, other_ip)) == 0;
}

/* Whose place the client takes: of several that have one name, only one of its own address, and of these the newest,
 * since an older one may have been a connection of which the pod had lost sight before. NULL: nobody's. */
static struct client *find_parked(struct client *client)
{
    struct client_set *set = client->set;
    struct client *elsewhere = NULL;
    unsigned others = 0;
    struct client *other;
    TAILQ_FOREACH_REVERSE(other, &set->parked, client_list, of_set)
    {
        if (!is_of_one_pod(client, other) ||
            !interest_covers(&client->subscriber, &other->subscriber))
            continue;
        if (is_at_one_address(client, other))
            return other;
        others++;
        elsewhere = other;
    }
    TAILQ_FOREACH(other, &set->open, of_set)
    others += other != client && is_subscriber_of(other, client->facts.identity);
    return others == 1 ? elsewhere : NULL;
}

/* When several of them are cut at once, who returns cannot be told. */
static void tell_of_namesakes(struct client *client)
{
    struct client_set *set = client->set;
    if (set->has_logged_namesakes || client->facts.name[0] == '\0')
        return;
    struct client *other;
    TAILQ_FOREACH(other, &set->open, of_set)
    if (other != client && is_subscriber_of(other, client->facts.identity) &&
        is_at_one_address(client, other) && is_pod(other)) {
        set->has_logged_namesakes = true;
        struct log_subject subject = client_subject(client);
        log_warn(&subject,
                 "several subscribers have one name and address: "
                 "if they return together, one may get what another missed",
                 LOG_TEXT("name", client->facts.name));
        return;
    }
}

bool client_inherit(struct client *client)
{
    struct client_set *set = client->set;
    if (set->limits.replay_window == 0 || client->is_kept || set->on_empty != NULL)
        return true;
    if (client->facts.identity[0] == '\0')
        return true;
    if (!end_half_open(client))
        return false;
    if (is_ambiguous(client))
        return true;
    struct client *other;
    TAILQ_FOREACH(other, &set->ending, of_work)
    if (is_of_one_pod(client, other))
        return false;
    client->is_kept = true;
    client->queued = client->output.bytes + unacknowledged(client);
    client->replay.begin = client->queued;
    client->heir_of = find_parked(client);
    tell_of_namesakes(client);
    return true;
}

void client_take_over(struct client *client, struct client *earlier, uint64_t seen)
{
    struct client_set *set = client->set;
    if (set->limits.replay_window == 0 || set->on_empty != NULL)
        return;
    client->is_kept = client->is_exact = true;
    client->queued = client->output.bytes + unacknowledged(client);
    client->replay.begin = client->queued;
    /* its manager counts what came before it said HELLO, too */
    client->replay.taken = client->facts.delivered + client->beats;
    if (earlier == NULL || earlier->state != CLIENT_PARKED)
        return;
    if (earlier->facts.protocol != client->facts.protocol) {
        client_expire(earlier, "it speaks another RESP now");
        return;
    }
    if (earlier->is_exact) {
        size_t bytes = earlier->replay.bytes;
        replay_trim_messages(&earlier->replay, seen);
        set->parked_bytes -= bytes - earlier->replay.bytes;
    }
    client->heir_of = earlier;
}

void client_note_seen(struct client *client, uint64_t seen)
{
    if (client->is_exact)
        replay_trim_messages(&client->replay, seen);
}

/* A pod may return as another version of itself: what waits for it was written for the one before. */
static void hand_over(struct client *client, const struct client *parked,
                      struct span span, uint64_t now)
{
    struct replay_rewrite *rewrite = client->set->rewrite;
    enum message_dialect from = dialect_view_given(&parked->facts.dialect).dialect;
    enum message_dialect to = dialect_view_given(&client->facts.dialect).dialect;
    struct slice rest = span_bytes(span);
    if (rewrite == NULL || from == to) {
        client_queue_messages(client, span, now);
        return;
    }
    const char *why;
    while (rest.len > 0) {
        struct span message;
        if (replay_rewrite_next(rewrite, &rest, from, to, &message, &why))
            client_queue(client, message, true, now);
        else
            client_miss(client, from, to, why);
    }
}

/* Behind the replies of the request that called client_inherit(), before anything else is delivered. */
void client_take_inheritance(struct client *client)
{
    struct client *parked = client->heir_of;
    client->heir_of = NULL;
    uint64_t now = timing_now();
    struct span span;
    unsigned messages = 0;
    size_t bytes = parked->replay.bytes;
    while (replay_take(&parked->replay, &span)) {
        messages += replay_count_messages(span_bytes(span));
        hand_over(client, parked, span, now);
        span_release(span);
    }
    client->set->parked_bytes -= bytes;
    client->facts.delivered += messages;
    metrics_add(M_REPLAYED, messages);
    struct log_subject subject = client_subject(client);
    log_debug(&subject, "returned", LOG_TEXT("pod", client->facts.identity),
              LOG_UNSIGNED("messages", messages));
    client_discard(parked);
    client_make_dirty(client);
}

/* Nobody reads it now. */
void client_deliver_parked(struct client *client, struct span message)
{
    struct client_set *set = client->set;
    replay_append(&client->replay, message, true);
    if (client->state == CLIENT_ENDING)
        return;
    set->parked_bytes += message.len;
    if (set->parked_bytes > set->limits.replay_bytes)
        turn_request(set->turn); /* not from within a walk of interests */
}

bool client_is_parked(const struct client *client)
{
    return client->state == CLIENT_PARKED || client->state == CLIENT_ENDING;
}
