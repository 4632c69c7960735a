#include "broker/herald.h"

#include "broker/broker_metrics.h"
#include "broker/envelope.h"
#include "broker/implausible.h"
#include "broker/map_change.h"
#include "broker/receive.h"
#include "broker/seal.h"
#include "broker/shard.h"
#include "broker/standing_clock.h"
#include "broker/subscriber_counts.h"
#include "broker/tails.h"
#include "shared/log.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#define BEAT_EVERY      SECONDS(1)
#define WHERE_EVERY     MILLISECONDS(300)
#define WHERE_APART     MILLISECONDS(20)
#define HEARS_WITHIN    MILLISECONDS(1500) /* a shard that brought something so lately */
#define START_FOR_LINKS SECONDS(3)
#define DISCOVER_FOR    MILLISECONDS(500)
#define BEAT_IN_HASTE   MILLISECONDS(100) /* while counts of channels wait */
#define BEATS_APART     MILLISECONDS(20)  /* at least, however often something changes */

/* Brokers of which no heartbeat was heard: how many of their questions are answered in a second. */
#define STRANGERS_ANSWERED 20

/* New brokers that the log names in a second. */
#define NEWCOMERS_LOGGED 10

/* Of a heartbeat, which stays below 64 KiB. */
#define COUNTS_AND_OTHERS ((size_t)60 * 1024)

/* Tails beyond this follow in a heartbeat of their own: each stays below 64 KiB. */
#define TAILS_IN_BEAT 4096

struct herald {
    struct herald_config config;
    char *cluster;
    struct chunk_writer writer;
    struct evbuffer *out;
    struct event *beat; /* at once, and each second */
    bool beat_is_due;
    uint64_t beat_at;      /* standing_now() of the last one */
    uint64_t second_since; /* standing_now(): what follows was counted from then on */
    unsigned strangers_answered, newcomers_logged;
    bool has_managers;
    uint64_t number;
    uint64_t started_at;  /* timing_now() */
    uint64_t complete_at; /* standing_now() when the first shard was; 0: none yet */
    uint64_t ready_at;    /* timing_now(); 0: not ready */
    uint64_t *want_numbers;
    bool has_new_wants;     /* subscriptions of them are not confirmed yet */
    uint64_t joined_number; /* answers to later questions complete the wants */
    uint64_t turn;          /* of shards, for what may go on any of them */
    struct agreement_verdict verdict;
};

/* ── sending ── */

/* PUBLISH of what lies in herald->out, sealed, to "sidrail1:<cluster>:<suffix>". Borrowed until the next one. */
static struct span make_command(struct herald *herald, const char *suffix)
{
    char channel[128];
    char head[192];
    size_t len = evbuffer_get_length(herald->out);
    size_t seal = seal_len(herald->config.seal);
    int channel_len =
        snprintf(channel, sizeof(channel), "sidrail1:%s:%s", herald->cluster, suffix);
    check(channel_len > 0 && (size_t)channel_len < sizeof(channel));
    int head_len =
        snprintf(head, sizeof(head), "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%zu\r\n",
                 channel_len, channel, seal + len);
    check(head_len > 0 && (size_t)head_len < sizeof(head));
    size_t start = (size_t)head_len + seal;
    size_t whole = start + len + 2;
    chunk_writer_rewind(&herald->writer);
    char *room = chunk_writer_reserve(&herald->writer, whole);
    memcpy(room, head, (size_t)head_len);
    check(evbuffer_remove(herald->out, room + start, len) == (int)len);
    seal_write(herald->config.seal, slice_of(channel, (size_t)channel_len),
               slice_of(room + start, len), room + head_len);
    memcpy(room + whole - 2, "\r\n", 2);
    return chunk_writer_commit(&herald->writer, whole);
}

static void write_own_channel(uint64_t origin, char suffix[32])
{
    snprintf(suffix, 32, "o:%016llx", (unsigned long long)origin);
}

static struct shard *find_shard(const struct herald *herald, struct slice name)
{
    return name.len > 0 ? shard_set_find(herald->config.shards, name) : NULL;
}

/* Where another broker hears us: the shard that it named, else one where it is subscribed, else any; each in turn.
 * NULL: no link is up. */
static struct shard *shard_towards(struct herald *herald, uint64_t origin,
                                   struct slice name)
{
    struct shard *named = find_shard(herald, name);
    if (named != NULL && shard_is_up(named))
        return named;
    const struct peer *peer = peer_find(herald->config.peers, origin);
    size_t count = shard_set_count(herald->config.shards);
    struct shard *other = NULL;
    for (size_t i = 0; i < count; i++) {
        struct shard *shard =
            shard_set_get(herald->config.shards, (herald->turn + i) % count);
        if (!shard_is_up(shard))
            continue;
        if (peer != NULL && peer_is_subscribed(peer, shard_index(shard))) {
            herald->turn += i + 1;
            return shard;
        }
        if (other == NULL)
            other = shard;
    }
    herald->turn++;
    return other;
}

/* A shard on which we hear, each in turn; empty: none. */
static struct slice answer_on(const struct herald *herald)
{
    uint64_t now = standing_now();
    size_t count = shard_set_count(herald->config.shards);
    for (size_t i = 0; i < count; i++) {
        const struct shard *shard =
            shard_set_get(herald->config.shards, (herald->number + i) % count);
        if (shard_is_complete(shard) && now - shard_heard_at(shard) < HEARS_WITHIN)
            return shard_name(shard);
    }
    return SLICE("");
}

static void send_to(struct herald *herald, uint64_t origin, struct control *control,
                    struct slice shard_wanted)
{
    struct shard *shard = shard_towards(herald, origin, shard_wanted);
    if (shard == NULL)
        return;
    control->sender = herald->config.origin;
    if (control->number == 0)
        control->number = herald->number;
    char suffix[32];
    write_own_channel(origin, suffix);
    control_write(control, herald->out);
    shard_send_control(shard, make_command(herald, suffix));
}

/* ── heartbeats ── */

struct facts_parts {
    struct evbuffer *carries, *subscribed, *tails, *generic;
    size_t tail_count;
    size_t tails_before; /* in the heartbeats before */
    bool has_more_tails;
};

static void add_tail(void *context, unsigned partition, uint64_t sequence)
{
    struct facts_parts *parts = context;
    if (parts->tails_before > 0) {
        parts->tails_before--;
        return;
    }
    if (parts->tail_count == TAILS_IN_BEAT) {
        parts->has_more_tails = true;
        return;
    }
    parts->tail_count++;
    control_add_position(parts->tails, (uint16_t)partition, sequence);
}

static struct control_list list_of(struct evbuffer *buffer, size_t count)
{
    size_t len = evbuffer_get_length(buffer);
    return (struct control_list){
        count, len > 0 ? slice_of(evbuffer_pullup(buffer, -1), len) : SLICE("")};
}

static void parts_free(struct facts_parts *parts)
{
    evbuffer_free(parts->carries);
    evbuffer_free(parts->subscribed);
    evbuffer_free(parts->tails);
    evbuffer_free(parts->generic);
}

/* The facts' lists lie in `parts`; its tails_before is set. */
static struct control_facts make_facts(struct herald *herald, struct facts_parts *parts)
{
    *parts = (struct facts_parts){evbuffer_new(), evbuffer_new(), evbuffer_new(),
                                  evbuffer_new(), .tails_before = parts->tails_before};
    size_t subscribed =
        map_change_write_subscribed(herald->config.map, parts->subscribed);
    size_t carries = map_change_write_carries(herald->config.map, parts->carries);
    tails_walk(herald->config.tails, standing_now(), add_tail, parts);
    return (struct control_facts){
        .flags = (uint8_t)((herald->ready_at != 0 ? CONTROL_READY : 0) |
                           (herald->has_managers ? CONTROL_MANAGERS : 0) |
                           (map_change_moves(herald->config.map) ? CONTROL_MOVES : 0)),
        .age = herald->ready_at != 0 ? (timing_now() - herald->ready_at) / 1000 : 0,
        .used = map_change_used(herald->config.map),
        .loaded = map_change_loaded(herald->config.map),
        .carries = list_of(parts->carries, carries),
        .subscribed = list_of(parts->subscribed, subscribed),
        .tails = list_of(parts->tails, parts->tail_count),
    };
}

/* What the tails and others leave of the length of a heartbeat. */
static void add_counts(struct herald *herald, struct control_facts *facts,
                       struct facts_parts *parts)
{
    size_t others =
        facts->tails.bytes.len + facts->carries.bytes.len + facts->subscribed.bytes.len;
    size_t room = others < COUNTS_AND_OTHERS - SUBSCRIBER_COUNTS_CALM
                      ? COUNTS_AND_OTHERS - others
                      : SUBSCRIBER_COUNTS_CALM;
    uint8_t flags;
    size_t count =
        subscriber_counts_write(herald->config.counts, parts->generic, room, &flags);
    facts->generic = list_of(parts->generic, count);
    facts->flags |= flags;
}

/* On one shard only, where not all hear it: nothing of it may be missed elsewhere. */
static void add_no_counts(struct control_facts *facts, struct facts_parts *parts)
{
    facts->generic = list_of(parts->generic, 0);
    facts->flags |= CONTROL_GENERIC_PART;
}

/* On one shard, or on all of which the link is up. False: more tails are to follow. */
static bool beat_once(struct herald *herald, struct shard *only, size_t tails_before)
{
    struct facts_parts parts = {.tails_before = tails_before};
    struct control control = {.kind = CONTROL_HEARTBEAT,
                              .sender = herald->config.origin,
                              .number = ++herald->number,
                              .facts = make_facts(herald, &parts)};
    if (only == NULL)
        add_counts(herald, &control.facts, &parts);
    else
        add_no_counts(&control.facts, &parts);
    control_write(&control, herald->out);
    parts_free(&parts);
    struct span command = make_command(herald, "c");
    span_hold(command);
    for (size_t i = 0; i < shard_set_count(herald->config.shards); i++) {
        struct shard *shard = shard_set_get(herald->config.shards, i);
        if (only != NULL && shard != only)
            continue;
        shard_note_beat(shard);
        shard_send_control(shard, command);
    }
    span_release(command);
    return !parts.has_more_tails;
}

static void beat(struct herald *herald, struct shard *only)
{
    size_t tails = 0;
    while (!beat_once(herald, only, tails))
        tails += TAILS_IN_BEAT;
}

static void set_beat(struct herald *herald, uint64_t after)
{
    struct timeval interval = timing_to_timeval(after);
    check(event_add(herald->beat, &interval) == 0);
}

/* Something has changed: once, at the end of this turn. */
static void beat_soon(struct herald *herald)
{
    if (herald->beat_is_due)
        return;
    herald->beat_is_due = true;
    uint64_t since = standing_now() - herald->beat_at;
    set_beat(herald, since < BEATS_APART ? BEATS_APART - since : MILLISECONDS(1));
}

static void on_beat(evutil_socket_t fd UNUSED, short what UNUSED, void *argument)
{
    struct herald *herald = argument;
    herald->beat_is_due = false;
    herald->beat_at = standing_now();
    beat(herald, NULL);
    set_beat(herald, subscriber_counts_is_behind(herald->config.counts) ? BEAT_IN_HASTE
                                                                        : BEAT_EVERY);
}

/* ── ready ── */

static void ask_where(struct herald *herald, struct peer *peer)
{
    peer->question = ++herald->number;
    peer->asked_at = standing_now();
    peer->asks_again = false;
    peer->token = peer_random_id();
    struct control control = {
        .kind = CONTROL_WHERE, .number = peer->token, .shard = answer_on(herald)};
    send_to(herald, peer->origin, &control, SLICE(""));
}

static bool has_questions(const struct herald *herald)
{
    uint64_t now = standing_now();
    const struct peer *peer;
    for (peer = peer_first(herald->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (peer_is_live(peer, now) && peer->question != 0)
            return true;
    return false;
}

struct agreement herald_agreement(const struct herald *herald)
{
    return (struct agreement){herald->config.peers, herald->config.map, herald->ready_at};
}

const char *herald_outvoted(const struct herald *herald)
{
    return herald->verdict.outvoted[0] != '\0' ? herald->verdict.outvoted : NULL;
}

static void look_at_agreement(struct herald *herald)
{
    struct agreement agreement = herald_agreement(herald);
    uint64_t now = standing_now();
    agreement_look(&agreement, &herald->verdict);
    struct peer *peer;
    for (peer = peer_first(herald->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (peer->question == 0 &&
            (peer->asked_at == 0 || now - peer->asked_at >= WHERE_EVERY) &&
            agreement_wants_answer(&agreement, peer))
            ask_where(herald, peer);
}

static void look_ready(struct herald *herald)
{
    if (herald->ready_at != 0)
        return;
    size_t count = shard_set_count(herald->config.shards);
    size_t complete = 0;
    for (size_t i = 0; i < count; i++)
        complete += shard_is_complete(shard_set_get(herald->config.shards, i));
    if (complete == 0)
        return;
    uint64_t now = standing_now();
    struct agreement agreement = herald_agreement(herald);
    if (herald->complete_at == 0) {
        herald->complete_at = now;
        beat_soon(herald); /* not ready yet: the others answer at once */
    }
    if ((complete < count && timing_now() - herald->started_at < START_FOR_LINKS) ||
        now - herald->complete_at < DISCOVER_FOR || agreement_has_other(&agreement) ||
        has_questions(herald) || herald->verdict.outvoted[0] != '\0')
        return;
    herald->ready_at = timing_now();
    beat(herald, NULL);
    log_info(LOG_SUBJECT("brokers"), "ready",
             LOG_UNSIGNED("others", peer_live_count(herald->config.peers, now)));
    shard_set_set_ready(herald->config.shards);
    herald->config.on_joined(herald->config.context);
}

/* ── questions ── */

bool herald_hears(const struct herald *herald)
{
    if (answer_on(herald).len == 0)
        return false;
    for (size_t i = 0; i < shard_set_count(herald->config.shards); i++)
        if (shard_is_up(shard_set_get(herald->config.shards, i)))
            return true;
    return false;
}

void herald_ask_where(struct herald *herald, uint64_t origin)
{
    uint64_t now = standing_now();
    struct peer *peer = peer_get(herald->config.peers, origin, now);
    if (peer == NULL || origin == herald->config.origin)
        return;
    if (now - peer->asked_at < WHERE_APART)
        peer->asks_again = true; /* soon */
    else
        ask_where(herald, peer);
}

static void ask_all_where(struct herald *herald)
{
    uint64_t now = standing_now();
    struct peer *peer;
    for (peer = peer_first(herald->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (peer_is_present(peer, now))
            ask_where(herald, peer);
}

/* For wants; who is answering a question just now is asked again when it has. Asking anew each time would make every
 * answer too old while wants keep coming. */
static void ask_all_for_wants(struct herald *herald)
{
    uint64_t now = standing_now();
    struct peer *peer;
    for (peer = peer_first(herald->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table)) {
        if (!peer_is_present(peer, now))
            continue;
        if (peer->question != 0 && now - peer->asked_at < WHERE_EVERY)
            peer->asks_again = true;
        else
            ask_where(herald, peer);
    }
}

static void ask_again(struct herald *herald)
{
    uint64_t now = standing_now();
    struct peer *peer;
    for (peer = peer_first(herald->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table)) {
        bool is_late = peer->question != 0 && now - peer->asked_at > WHERE_EVERY;
        if (is_late || (peer->asks_again && now - peer->asked_at >= WHERE_APART))
            ask_where(herald, peer);
    }
}

void herald_ask(struct herald *herald, uint64_t origin, const struct control_list *ranges)
{
    herald->number++;
    struct control control = {
        .kind = CONTROL_ASK, .shard = answer_on(herald), .ranges = *ranges};
    send_to(herald, origin, &control, SLICE(""));
}

/* ── answers ── */

struct places {
    struct evbuffer *list;
    size_t count;
};

/* Counts again from 0 each second. */
static bool is_within(struct herald *herald, unsigned *count, unsigned maximum)
{
    uint64_t now = standing_now();
    if (now - herald->second_since >= SECONDS(1)) {
        herald->second_since = now;
        herald->strangers_answered = herald->newcomers_logged = 0;
    }
    return (*count)++ < maximum;
}

/* A newcomer may ask before its heartbeat comes. */
static bool may_answer(struct herald *herald, uint64_t sender)
{
    const struct peer *peer = peer_find(herald->config.peers, sender);
    return (peer != NULL && !peer_is_stranger(peer)) ||
           is_within(herald, &herald->strangers_answered, STRANGERS_ANSWERED);
}

static void take_where(struct herald *herald, const struct control *question)
{
    if (!may_answer(herald, question->sender)) {
        implausible_note(IMPLAUSIBLE_STRANGER, question->sender);
        return;
    }
    struct places places = {evbuffer_new(), 0};
    for (unsigned i = 0; i < herald->config.partitions && places.count < 65535; i++) {
        uint64_t last = tails_last(herald->config.tails, i);
        if (last == 0)
            continue;
        control_add_position(places.list, (uint16_t)i, last);
        places.count++;
    }
    struct facts_parts parts = {0};
    herald->number++;
    struct control control = {.kind = CONTROL_POSITIONS,
                              .question = question->number,
                              .facts = make_facts(herald, &parts),
                              .places = list_of(places.list, places.count)};
    send_to(herald, question->sender, &control, question->shard);
    parts_free(&parts);
    evbuffer_free(places.list);
}

struct gone {
    struct evbuffer *list;
    size_t count;
};

static void add_gone(struct gone *gone, uint16_t partition, uint64_t first, uint64_t end)
{
    while (first < end && gone->count < CONTROL_RANGES_MAX) {
        uint64_t count =
            end - first < CONTROL_RANGE_MAX ? end - first : CONTROL_RANGE_MAX;
        control_add_range(gone->list, partition, first, (unsigned)count);
        gone->count++;
        first += count;
    }
}

/* The first of a partition that is kept or will be sent: what is before it is gone. */
static uint64_t first_kept(const struct herald *herald, uint16_t partition)
{
    uint64_t end = tails_last(herald->config.tails, partition) + 1;
    const struct sent *first = sent_ring_first_of(herald->config.ring, partition);
    return first != NULL && first->sequence < end ? first->sequence : end;
}

/* One range of an ask: whoever was away for long asks for little of what it misses at a time; it hears at once of all that is
 * gone. False: too much waits already, and it is asked again. */
static bool answer_range(struct herald *herald, const struct control *ask,
                         uint16_t partition, uint64_t first, unsigned count,
                         struct gone *gone)
{
    struct shard *shard = shard_towards(herald, ask->sender, ask->shard);
    uint64_t last = tails_last(herald->config.tails, partition);
    uint64_t kept = first_kept(herald, partition);
    add_gone(gone, partition, first, kept);
    for (uint64_t i = first > kept ? first : kept; i < first + count && i <= last; i++) {
        if (sent_ring_find(herald->config.ring, partition, i) == NULL)
            add_gone(gone, partition, i, i + 1);
        else if (shard != NULL && !shard_send_answer(shard, ask->sender, partition, i))
            return false;
    }
    return true;
}

static void take_ask(struct herald *herald, const struct control *ask)
{
    struct gone gone = {evbuffer_new(), 0};
    struct control_list ranges = ask->ranges;
    uint16_t partition;
    uint64_t first;
    unsigned count;
    bool goes_on = true;
    while (goes_on && control_next_range(&ranges, &partition, &first, &count))
        goes_on = partition >= herald->config.partitions ||
                  answer_range(herald, ask, partition, first, count, &gone);
    if (gone.count > 0) {
        herald->number++;
        struct control control = {.kind = CONTROL_GONE,
                                  .ranges = list_of(gone.list, gone.count)};
        send_to(herald, ask->sender, &control, ask->shard);
    }
    evbuffer_free(gone.list);
}

struct span herald_retransmit(struct herald *herald, uint64_t asker,
                              const struct sent *sent)
{
    struct slice envelope = sent_envelope(sent);
    char flags = (char)(envelope.data[ENVELOPE_FLAGS_OFFSET] | ENVELOPE_RETRANSMIT);
    evbuffer_add(herald->out, envelope.data, ENVELOPE_FLAGS_OFFSET);
    evbuffer_add(herald->out, &flags, 1);
    evbuffer_add(herald->out, envelope.data + ENVELOPE_FLAGS_OFFSET + 1,
                 envelope.len - ENVELOPE_FLAGS_OFFSET - 1);
    char suffix[32];
    write_own_channel(asker, suffix);
    return make_command(herald, suffix);
}

/* ── what the others say ── */

static void tell_new(struct herald *herald, const struct peer *peer)
{
    if (is_within(herald, &herald->newcomers_logged, NEWCOMERS_LOGGED))
        log_info(LOG_SUBJECT("brokers"), "heard", LOG_UNSIGNED("origin", peer->origin),
                 LOG_BOOL("ready", peer->is_ready));
}

/* It was buried, and is back: only cut off. */
static void wake(struct herald *herald, struct peer *peer)
{
    peer->is_back = false;
    if (!receiver_wake_origin(herald->config.receiver, peer->origin) &&
        peer->has_ready_at)
        log_warn(LOG_SUBJECT("brokers"),
                 "heard again after so long that where it was is forgotten; what it sent "
                 "meanwhile is not counted",
                 LOG_UNSIGNED("origin", peer->origin));
}

static void take_facts(struct herald *herald, const struct control *control)
{
    struct peer *peer;
    enum peer_news news =
        peer_hear(herald->config.peers, control, standing_now(), timing_now(), &peer);
    if (news == PEER_REFUSED)
        implausible_note(control->number >= TRACK_NUMBER_MAX ||
                                 peer_find(herald->config.peers, control->sender) !=
                                     NULL ||
                                 peer_is_tomb(herald->config.peers, control->sender)
                             ? IMPLAUSIBLE_NUMBER
                             : IMPLAUSIBLE_CROWD,
                         control->sender);
    if (news == PEER_OLD || news == PEER_REFUSED)
        return;
    if (news != PEER_KNOWN)
        tell_new(herald, peer);
    if (news == PEER_NEW || news == PEER_NOW_READY)
        subscriber_counts_hurry(herald->config.counts);
    if (peer->is_back)
        wake(herald, peer);
    bool is_believed = peer_is_believed(herald->config.peers, peer);
    if (news == PEER_NOW_READY && !peer->is_known && is_believed)
        receiver_set_age(herald->config.receiver, peer->origin, peer->ready_at);
    if (!is_believed && peer->question == 0)
        herald_ask_where(herald, peer->origin);
    if (!peer->is_ready || news == PEER_NOW_READY) {
        if (herald->ready_at != 0)
            beat_soon(
                herald); /* the newcomer must hear of us before it can count on us */
        else if (peer->is_ready)
            herald_ask_where(herald, peer->origin);
    }
    if (peer->used != map_change_used(herald->config.map) || peer->named_map != 0)
        look_at_agreement(herald);
    if (control->kind == CONTROL_HEARTBEAT)
        subscriber_counts_hear(herald->config.counts, peer->origin,
                               control->facts.generic, control->facts.flags,
                               standing_now());
    struct control_list tails = control->facts.tails;
    uint16_t partition;
    uint64_t sequence;
    while (control_next_position(&tails, &partition, &sequence))
        receiver_hear_of(herald->config.receiver, peer->origin, partition, sequence);
    map_change_step(herald->config.map, herald->ready_at != 0);
    shard_set_place(herald->config.shards);
}

/* What was sent between two heartbeats that are far apart is in the tails of neither. */
static void take_heartbeat(struct herald *herald, const struct shard *shard,
                           const struct control *control)
{
    take_facts(herald, control);
    struct peer *peer = peer_find(herald->config.peers, control->sender);
    if (peer == NULL)
        return;
    peer_hear_on(peer, shard_index(shard), standing_now());
    if (!peer->lacks_tails)
        return;
    peer->lacks_tails = false;
    herald_ask_where(herald, peer->origin);
}

static void take_positions(struct herald *herald, const struct control *control)
{
    struct peer *peer = peer_find(herald->config.peers, control->sender);
    if (peer == NULL || peer->question == 0 || control->question != peer->token)
        return;
    uint64_t asked_at = peer->asked_at;
    uint64_t question = peer->question;
    bool is_first = peer->answered_question == 0;
    peer->question = 0;
    peer->answered_question = question;
    peer->answered_map = control->facts.used;
    uint64_t *lasts = must_calloc(herald->config.partitions, sizeof(uint64_t));
    struct control_list places = control->places;
    uint16_t partition;
    uint64_t last;
    while (control_next_position(&places, &partition, &last))
        if (partition < herald->config.partitions)
            lasts[partition] = last;
    take_facts(herald, control);
    peer->lacks_tails = false; /* this answer has everything */
    if (is_first && peer->has_ready_at && !peer->is_known)
        receiver_set_age(herald->config.receiver, peer->origin, peer->ready_at);
    for (unsigned i = 0; i < herald->config.partitions; i++) {
        if (question > herald->want_numbers[i])
            receiver_set_base(herald->config.receiver, control->sender, i, lasts[i]);
        receiver_hear_of(herald->config.receiver, control->sender, i, lasts[i]);
        receiver_confirm(herald->config.receiver, control->sender, i, lasts[i], asked_at);
    }
    free(lasts);
    if (peer->asks_again)
        ask_where(herald, peer);
    look_ready(herald);
    herald->config.on_joined(herald->config.context);
}

/* What else than a heartbeat or a question comes of a broker of which no heartbeat was heard? */
static bool is_from_stranger(const struct herald *herald, const struct control *control)
{
    if (control->kind == CONTROL_HEARTBEAT || control->kind == CONTROL_WHERE)
        return false;
    const struct peer *peer = peer_find(herald->config.peers, control->sender);
    return peer == NULL || peer_is_stranger(peer);
}

void herald_take(struct herald *herald, struct shard *shard, struct slice bytes,
                 bool is_own_channel)
{
    struct control control;
    if (control_parse(bytes, &control) != CONTROL_OK || control.sender == 0 ||
        control.number == 0 || is_own_channel != (control.kind != CONTROL_HEARTBEAT)) {
        metrics_add(M_CONTROL_BAD, 1);
        return;
    }
    if (control.sender == herald->config.origin) {
        shard_hear_own(shard);
        return;
    }
    if (is_from_stranger(herald, &control)) {
        implausible_note(IMPLAUSIBLE_STRANGER, control.sender);
        return;
    }
    switch ((enum control_kind)control.kind) {
    case CONTROL_HEARTBEAT:
        take_heartbeat(herald, shard, &control);
        return;
    case CONTROL_ASK:
        take_ask(herald, &control);
        return;
    case CONTROL_WHERE:
        take_where(herald, &control);
        return;
    case CONTROL_POSITIONS:
        take_positions(herald, &control);
        return;
    case CONTROL_GONE:
        receiver_take_gone(herald->config.receiver, control.sender, control.ranges);
        return;
    case CONTROL_JOINED:
        herald->config.on_entered(herald->config.context, control.message_id);
        return;
    }
    unreachable();
}

/* ── public ── */

struct herald *herald_new(struct event_base *base, const struct herald_config *config)
{
    struct herald *herald = must_calloc(1, sizeof(*herald));
    herald->config = *config;
    herald->cluster = must_strdup(config->cluster);
    herald->out = evbuffer_new();
    herald->beat = event_new(base, -1, 0, on_beat, herald);
    check(herald->out != NULL && herald->beat != NULL);
    herald->want_numbers = must_calloc(config->partitions, sizeof(uint64_t));
    herald->started_at = timing_now();
    set_beat(herald, BEAT_EVERY);
    return herald;
}

void herald_free(struct herald *herald)
{
    event_free(herald->beat);
    evbuffer_free(herald->out);
    chunk_writer_cleanup(&herald->writer);
    free(herald->want_numbers);
    free(herald->cluster);
    free(herald);
}

void herald_shard_up(struct herald *herald, struct shard *shard)
{
    if (herald->ready_at != 0 || herald->complete_at != 0)
        beat(herald, shard);
}

void herald_shard_complete(struct herald *herald, struct shard *shard UNUSED,
                           bool is_complete)
{
    /* What was pushed while nothing was subscribed is lost: where are the others? */
    if (is_complete)
        ask_all_where(herald);
    beat_soon(herald);
    look_ready(herald);
    map_change_step(herald->config.map, herald->ready_at != 0);
}

bool herald_is_heard(const struct herald *herald, size_t shard)
{
    return peers_hear_shard(herald->config.peers, shard,
                            map_change_used(herald->config.map), standing_now());
}

void herald_note_want(struct herald *herald, unsigned partition)
{
    check(partition < herald->config.partitions);
    herald->want_numbers[partition] = herald->number;
    herald->has_new_wants = true;
}

void herald_settle(struct herald *herald)
{
    if (!herald->has_new_wants)
        return;
    herald->has_new_wants = false;
    herald->joined_number = ++herald->number; /* later wants have this number, or more */
    ask_all_for_wants(herald);
}

/* Only answers to later questions count. */
static bool has_answered(const struct peer *peer, uint64_t number)
{
    return peer->answered_question > number || (peer->question == 0 && !peer->asks_again);
}

bool herald_is_joined(const struct herald *herald)
{
    if (herald->complete_at == 0)
        return true;
    if (herald->ready_at == 0 || herald->has_new_wants)
        return false;
    uint64_t now = standing_now();
    const struct peer *peer;
    for (peer = peer_first(herald->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (peer_is_present(peer, now) && !has_answered(peer, herald->joined_number))
            return false;
    return true;
}

bool herald_has_joined(const struct herald *herald, unsigned partition)
{
    uint64_t wanted = herald->want_numbers[partition];
    if (herald->complete_at == 0)
        return true;
    if (herald->ready_at == 0 || wanted >= herald->joined_number)
        return false; /* nobody has been asked yet */
    uint64_t now = standing_now();
    const struct peer *peer;
    for (peer = peer_first(herald->config.peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (peer_is_present(peer, now) && !has_answered(peer, wanted))
            return false;
    return true;
}

bool herald_is_ready(const struct herald *herald)
{
    return herald->ready_at != 0;
}

void herald_set_managers(struct herald *herald, bool has_managers)
{
    if (herald->has_managers == has_managers)
        return;
    herald->has_managers = has_managers;
    beat_soon(herald);
}

void herald_say_joined(struct herald *herald, uint64_t origin, uint64_t message_id)
{
    herald->number++;
    struct control control = {.kind = CONTROL_JOINED, .message_id = message_id};
    send_to(herald, origin, &control, SLICE(""));
}

void herald_announce(struct herald *herald)
{
    beat_soon(herald);
}

void herald_look_at_map(struct herald *herald)
{
    beat_soon(herald);
    map_change_step(herald->config.map, herald->ready_at != 0);
}

void herald_tick(struct herald *herald)
{
    look_at_agreement(herald);
    look_ready(herald);
    map_change_tick(herald->config.map, herald->ready_at != 0);
    ask_again(herald);
    uint64_t origin;
    while ((origin = peer_bury(herald->config.peers, standing_now())) != 0) {
        log_info(LOG_SUBJECT("brokers"), "silent, forgotten",
                 LOG_UNSIGNED("origin", origin));
        receiver_rest_origin(herald->config.receiver, origin);
        subscriber_counts_forget(herald->config.counts, origin);
    }
}
