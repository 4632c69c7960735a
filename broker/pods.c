#include "broker/pods.h"

#include "broker/broker_metrics.h"
#include "broker/publish.h"
#include "broker/resp.h"
#include "broker/shard.h"
#include "shared/log.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>

#define GREETING_INFIX  ".sidrail."
#define HOST_DIGITS     32
#define CONNECTION_SIZE 48
#define GREETING_MAX    512

/* A partition that is not joined yet, or (NOTHING) the place in the queue where a change is complete. */
#define NOTHING UINT32_MAX

/* Bounds what waits for a pod that says nothing. */
#define ENTERING_MAX 256

struct pod_wait {
    uint32_t partition;
    uint64_t generation, sequence; /* NOTHING: what is then joined */
    uint64_t since;
    TAILQ_ENTRY(pod_wait) of_pod;
};

/* An enter_room whose client's pod has not told the room yet. */
struct pod_entering {
    uint64_t origin, message_id;
    uint64_t since;
    struct slice channel, namespace, room, sid; /* in `bytes` */
    TAILQ_ENTRY(pod_entering) of_pods;
    char bytes[];
};

struct pods {
    TAILQ_HEAD(, pod_entering) entering; /* the oldest first */
    unsigned entering_count;
    struct interest_table *interest;
    struct pod_rooms *rooms;
    struct client_set *clients;
    struct publisher *publisher;
    TAILQ_HEAD(, pod) all;
};

static struct log_subject subject_of(const struct pod *pod)
{
    return (struct log_subject){.kind = "client", .id = client_facts(pod->client)->id};
}

static void enter(struct pod *pod, enum pod_state state)
{
    pod->state = state;
    pod->since = timing_now();
    pod->filter.is_filtered = state == POD_FILTERED;
}

static void say(const struct pod *pod, struct evbuffer *out, const char *text)
{
    struct slice payload = slice_from_text(text);
    struct slice channel = slice_from_text(pod->greeting);
    char head[RESP_HEAD_ROOM + GREETING_MAX];
    evbuffer_add(out, head,
                 resp_put_message_head(head, client_facts(pod->client)->protocol, channel,
                                       payload.len));
    evbuffer_add(out, payload.data, payload.len);
    evbuffer_add(out, "\r\n", 2);
}

/* As the answer to no request. */
static void tell(const struct pod *pod, const char *text)
{
    if (client_is_parked(pod->client))
        return;
    struct evbuffer *out = evbuffer_new();
    check(out != NULL);
    say(pod, out, text);
    client_reply(pod->client, out);
    evbuffer_free(out);
}

static void connection_text(const struct pods *pods, const struct client *client,
                            char text[CONNECTION_SIZE])
{
    snprintf(text, CONNECTION_SIZE, "%016llx-%llu",
             (unsigned long long)publisher_origin(pods->publisher),
             (unsigned long long)client_id(client));
}

/* ── joins ── */

static void wait_for(struct pod *pod, uint32_t partition, uint64_t sequence)
{
    struct pod_wait *wait = must_calloc(1, sizeof(*wait));
    *wait = (struct pod_wait){.partition = partition,
                              .generation = pod->generation,
                              .sequence = sequence,
                              .since = timing_now()};
    TAILQ_INSERT_TAIL(&pod->waits, wait, of_pod);
    pod->wait_count++;
}

static void forget_wait(struct pod *pod, struct pod_wait *wait)
{
    TAILQ_REMOVE(&pod->waits, wait, of_pod);
    pod->wait_count--;
    free(wait);
}

static void forget_waits(struct pod *pod)
{
    while (!TAILQ_EMPTY(&pod->waits))
        forget_wait(pod, TAILQ_FIRST(&pod->waits));
}

/* Tells how far its changes are joined. */
static void look(struct pods *pods, struct pod *pod)
{
    uint64_t now = timing_now();
    bool has_news = false;
    bool is_late = false;
    uint64_t generation = 0;
    uint64_t joined = 0;
    if (client_is_parked(pod->client)) {
        forget_waits(pod); /* it tells all its rooms when it returns */
        return;
    }
    struct pod_wait *wait;
    while ((wait = TAILQ_FIRST(&pod->waits)) != NULL) {
        if (wait->partition == NOTHING) {
            has_news = true;
            generation = wait->generation;
            joined = wait->sequence;
        } else if (!publisher_has_joined(pods->publisher, wait->partition)) {
            if (now - wait->since <= PODS_WAIT_MAX)
                break;
            is_late = true;
        }
        forget_wait(pod, wait);
    }
    if (is_late)
        pods_open(pods, pod, true);
    if (!has_news)
        return;
    char text[64];
    snprintf(text, sizeof(text), "joined %llu %llu", (unsigned long long)generation,
             (unsigned long long)joined);
    tell(pod, text);
}

/* False: it has more than a client may have, and now gets everything. */
static bool add(struct pods *pods, struct pod *pod, const struct slice *pairs,
                size_t count)
{
    size_t max = publisher_channels_max(pods->publisher);
    for (size_t i = 0; i + 1 < count; i += 2) {
        if (pod->filter.count >= max || pod->wait_count > max) {
            pods_open(pods, pod, true);
            pod_rooms_remove_all(pods->rooms, &pod->filter);
            forget_waits(pod);
            return false;
        }
        uint32_t partition = pod_rooms_add(pods->rooms, &pod->filter, pairs[i],
                                           pairs[i + 1], pod->generation);
        if (partition != NOTHING && !publisher_has_joined(pods->publisher, partition))
            wait_for(pod, partition, 0);
    }
    return true;
}

/* ── who enters a room from afar ── */

static void forget_entering(struct pods *pods, struct pod_entering *entering)
{
    TAILQ_REMOVE(&pods->entering, entering, of_pods);
    pods->entering_count--;
    free(entering);
}

/* True: its origin was told, or nobody here is to. */
static bool is_entered(const struct pods *pods, const struct pod_entering *entering)
{
    uint32_t partition = NOTHING;
    switch (pod_rooms_look_at_entry(pods->rooms, entering->channel, entering->namespace,
                                    entering->sid, entering->room, &partition)) {
    case POD_ENTRY_NOT_HERE:
        return true;
    case POD_ENTRY_WAITS:
        return false;
    case POD_ENTRY_DONE:
        break;
    }
    if (partition != NOTHING && !publisher_has_joined(pods->publisher, partition))
        return false;
    publisher_say_entered(pods->publisher, entering->origin, entering->message_id);
    return true;
}

static void look_at_entries(struct pods *pods)
{
    uint64_t now = timing_now();
    struct pod_entering *next;
    for (struct pod_entering *it = TAILQ_FIRST(&pods->entering); it != NULL; it = next) {
        next = TAILQ_NEXT(it, of_pods);
        if (now - it->since > PODS_WAIT_MAX || is_entered(pods, it))
            forget_entering(pods, it);
    }
}

static struct slice put(char **at, struct slice text)
{
    struct slice copy = slice_of(*at, text.len);
    if (text.len > 0)
        memcpy(*at, text.data, text.len);
    *at += text.len;
    return copy;
}

void pods_note_entry(struct pods *pods, const struct envelope *envelope)
{
    struct slice rest = envelope->room_bytes;
    struct slice room;
    struct slice sid;
    if (TAILQ_EMPTY(&pods->all) || !envelope_next_room(&rest, &room) ||
        !envelope_next_room(&rest, &sid))
        return;
    if (pods->entering_count == ENTERING_MAX)
        forget_entering(pods, TAILQ_FIRST(&pods->entering));
    struct pod_entering *entering =
        must_calloc(1, sizeof(*entering) + envelope->channel.len +
                           envelope->namespace.len + room.len + sid.len);
    char *at = entering->bytes;
    entering->channel = put(&at, envelope->channel);
    entering->namespace = put(&at, envelope->namespace);
    entering->room = put(&at, room);
    entering->sid = put(&at, sid);
    entering->origin = envelope->origin;
    entering->message_id = envelope->message_id;
    entering->since = timing_now();
    TAILQ_INSERT_TAIL(&pods->entering, entering, of_pods);
    pods->entering_count++;
    if (is_entered(pods, entering))
        forget_entering(pods, entering);
}

/* ── what a manager says ── */

bool pods_is_greeting(struct slice name, struct slice *channel)
{
    struct slice infix = SLICE(GREETING_INFIX);
    size_t tail = infix.len + HOST_DIGITS;
    uint8_t host_id[ENVELOPE_HOST_ID_LEN];
    if (name.len <= tail || name.len > GREETING_MAX ||
        !slice_equals(slice_to(slice_from(name, name.len - tail), infix.len), infix) ||
        !envelope_host_id_parse(slice_from(name, name.len - HOST_DIGITS), host_id))
        return false;
    *channel = slice_to(name, name.len - tail);
    return true;
}

void pods_greet(struct pods *pods, struct client *client, struct slice channel,
                struct slice greeting)
{
    struct pod *pod = must_calloc(1, sizeof(*pod));
    pod->client = client;
    pod->greeting = slice_dup(greeting);
    pod->interest = interest_add_partial(pods->interest, client_subscriber(client),
                                         INTEREST_CHANNEL, channel);
    uint8_t host_id[ENVELOPE_HOST_ID_LEN];
    check(envelope_host_id_parse(slice_from(greeting, greeting.len - HOST_DIGITS),
                                 host_id));
    pod_rooms_init(&pod->filter, pod->interest->target->name, host_id);
    TAILQ_INIT(&pod->waits);
    enter(pod, POD_GREETED);
    /* What can be for any pod, and callbacks. */
    pod->host_partition = publisher_want_pod(
        pods->publisher, channel, slice_from(greeting, greeting.len - HOST_DIGITS));
    TAILQ_INSERT_TAIL(&pods->all, pod, of_pods);
    client_facts(client)->pod = pod;
    metrics_add(M_PODS, 1);
    publisher_set_managers(pods->publisher, true);
}

void pods_write_greeting(const struct pods *pods, const struct pod *pod,
                         struct evbuffer *reply)
{
    char connection[CONNECTION_SIZE];
    connection_text(pods, pod->client, connection);
    char text[CONNECTION_SIZE + 32];
    snprintf(text, sizeof(text), "hello %d %s", PODS_PROTOCOL, connection);
    say(pod, reply, text);
}

/* It receives from now on. */
static void begin(struct pod *pod)
{
    if (!pod->interest->active)
        metrics_add(M_SUBSCRIBERS, 1);
    interest_activate(pod->interest);
}

/* Its manager said HELLO on another connection, which is not ended or is waited for. */
static bool has_earlier(const struct pods *pods, const struct pod *pod)
{
    const struct pod *other;
    TAILQ_FOREACH(other, &pods->all, of_pods)
    if (other != pod && other->has_spoken && strcmp(other->greeting, pod->greeting) == 0)
        return true;
    return false;
}

struct pod *pods_find_earlier(const struct pods *pods, const struct pod *pod,
                              struct slice connection)
{
    struct pod *earlier;
    TAILQ_FOREACH(earlier, &pods->all, of_pods)
    {
        char text[CONNECTION_SIZE];
        connection_text(pods, earlier->client, text);
        if (earlier != pod && earlier->has_spoken &&
            slice_equals(connection, slice_from_text(text)) &&
            strcmp(earlier->greeting, pod->greeting) == 0)
            return earlier;
    }
    return NULL;
}

void pods_hello(struct pods *pods, struct pod *pod, bool skips_own, struct pod *earlier,
                uint64_t seen)
{
    pod->filter.skips_own = skips_own;
    if (pod->has_spoken)
        return;
    pod->has_spoken = true;
    pod->is_held = false;
    enter(pod, POD_SPOKEN);
    if (earlier != NULL) {
        struct client *client = earlier->client;
        pod_rooms_move(&earlier->filter, &pod->filter);
        if (earlier->interest->is_whole)
            interest_set_whole(pods->interest, pod->interest, true);
        /* Its rooms are as it told them last, and it tells them again now. */
        if (earlier->state == POD_FILTERED)
            pod->filter.is_filtered = true;
        client_close(client, CLOSE_PEER);
        client_take_over(pod->client, client, seen);
    } else {
        client_take_over(pod->client, NULL, 0);
    }
    begin(pod);
}

void pods_rooms(struct pods *pods, struct pod *pod, uint64_t generation, bool is_last,
                const struct slice *pairs, size_t count)
{
    if (generation < pod->generation) {
        pods_open(pods, pod, true);
        return;
    }
    pod->generation = generation;
    if (!add(pods, pod, pairs, count) || !is_last)
        return;
    pod_rooms_remove_older(pods->rooms, &pod->filter, generation);
    pod->sequence = 0;
    enter(pod, POD_FILTERED);
    interest_set_whole(pods->interest, pod->interest, false);
    wait_for(pod, NOTHING, 0);
    look(pods, pod);
}

void pods_change(struct pods *pods, struct pod *pod, uint64_t generation,
                 uint64_t sequence, bool is_join, const struct slice *pairs, size_t count)
{
    if (generation != pod->generation || sequence != pod->sequence + 1) {
        pods_open(pods, pod, true);
        return;
    }
    pod->sequence = sequence;
    if (!is_join) {
        for (size_t i = 0; i + 1 < count; i += 2)
            pod_rooms_remove(pods->rooms, &pod->filter, pairs[i], pairs[i + 1]);
        return;
    }
    if (!add(pods, pod, pairs, count))
        return;
    wait_for(pod, NOTHING, sequence);
    look(pods, pod);
    look_at_entries(pods);
}

void pods_open(struct pods *pods, struct pod *pod, bool is_odd)
{
    /* What came here now would come again with what waits there, and before what is older. */
    pod->is_held = !pod->has_spoken && has_earlier(pods, pod);
    if (pod->is_held)
        return;
    begin(pod);
    interest_set_whole(pods->interest, pod->interest, true);
    if (is_odd && pod->state != POD_OPEN) {
        struct log_subject subject = subject_of(pod);
        log_info(&subject, "gets everything for now",
                 LOG_TEXT("was", pod_state_text(pod)),
                 LOG_UNSIGNED("rooms", pod->filter.count));
        metrics_add(M_PODS_FAILED_OPEN, 1);
    }
    enter(pod, POD_OPEN);
    if (!is_odd)
        pod->since = UINT64_MAX; /* it wants it so */
}

/* ── the set ── */

struct pods *pods_new(struct interest_table *interest, struct pod_rooms *rooms,
                      struct client_set *clients, struct publisher *publisher)
{
    struct pods *pods = must_calloc(1, sizeof(*pods));
    *pods = (struct pods){
        .interest = interest, .rooms = rooms, .clients = clients, .publisher = publisher};
    TAILQ_INIT(&pods->all);
    TAILQ_INIT(&pods->entering);
    return pods;
}

void pods_free(struct pods *pods)
{
    check(TAILQ_EMPTY(&pods->all));
    while (!TAILQ_EMPTY(&pods->entering))
        forget_entering(pods, TAILQ_FIRST(&pods->entering));
    free(pods);
}

/* The connections that a manager has opened since its `last` one that said HELLO, which is gone. */
static void open_held(struct pods *pods, const struct pod *last)
{
    struct pod *pod;
    if (!last->has_spoken || has_earlier(pods, last))
        return;
    TAILQ_FOREACH(pod, &pods->all, of_pods)
    if (pod->is_held && !client_is_parked(pod->client) &&
        strcmp(pod->greeting, last->greeting) == 0)
        pods_open(pods, pod, true);
}

void pod_free(struct pods *pods, struct pod *pod)
{
    client_facts(pod->client)->pod = NULL;
    pod_rooms_remove_all(pods->rooms, &pod->filter);
    publisher_unwant_pod(pods->publisher, pod->host_partition);
    forget_waits(pod);
    TAILQ_REMOVE(&pods->all, pod, of_pods);
    metrics_add(M_PODS, -1);
    publisher_set_managers(pods->publisher, !TAILQ_EMPTY(&pods->all));
    open_held(pods, pod);
    free(pod->greeting);
    free(pod);
}

void pods_look(struct pods *pods)
{
    look_at_entries(pods);
    struct pod *pod;
    TAILQ_FOREACH(pod, &pods->all, of_pods)
    if (!TAILQ_EMPTY(&pod->waits))
        look(pods, pod);
}

void pods_tick(struct pods *pods)
{
    uint64_t now = timing_now();
    struct pod *pod;
    TAILQ_FOREACH(pod, &pods->all, of_pods)
    {
        if (!TAILQ_EMPTY(&pod->waits))
            look(pods, pod);
        if (pod->is_held || client_is_parked(pod->client) || pod->since > now)
            continue;
        uint64_t past = now - pod->since;
        if ((pod->state == POD_GREETED || pod->state == POD_SPOKEN) &&
            past > PODS_WAIT_MAX)
            pods_open(pods, pod, true);
        if (pod->state == POD_OPEN && pod->has_spoken && past > PODS_AGAIN_AFTER) {
            pod->since = now;
            tell(pod, "again");
        }
    }
}

struct pod *pods_first(const struct pods *pods)
{
    return TAILQ_FIRST(&pods->all);
}

const char *pod_state_text(const struct pod *pod)
{
    switch (pod->state) {
    case POD_GREETED:
        return "greeted";
    case POD_SPOKEN:
        return "spoken";
    case POD_FILTERED:
        return "filtered";
    case POD_OPEN:
        return "open";
    }
    unreachable();
}
