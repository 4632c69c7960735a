#include "tests/simulation/redis_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#define CHANNEL_SLOTS 1024
#define ARGUMENTS_MAX 2048
#define OUTPUT_MAX    ((size_t)32 << 20)
#define DELAY_MAX     40 /* microseconds until a queued answer is written */

/* Of the last that was said between brokers. */
#define RECORDS_MAX  256
#define RECORDED_LEN 1024

struct peer;

struct channel {
    char *name;
    size_t len;
    struct peer **peers;
    unsigned count, capacity;
    struct channel *next;
};

struct peer {
    struct redis *redis;
    struct wire *wire;
    struct bytes in, out;
    unsigned subscriptions;
    bool is_running, is_flushing;
    bool is_gone; /* waits for its last event */
    TAILQ_ENTRY(peer) of_redis;
};

struct redis {
    unsigned number;
    bool is_up, is_stopped, is_replica, refuses_publish, refuses;
    uint64_t delay;
    size_t output_max;
    struct wire *listener;
    TAILQ_HEAD(peer_list, peer) peers;
    struct channel *channels[CHANNEL_SLOTS];
};

static struct recorded {
    size_t name_len, len;
    char name[RECORDED_LEN], payload[RECORDED_LEN];
} records[RECORDS_MAX];
static unsigned record_count;
static struct redis servers[REDIS_MAX];
static unsigned server_count;
static struct peer_list graveyard;

/* ── channels ── */

static struct channel **place_of(struct redis *redis, const char *name, size_t len)
{
    uint64_t hash = 1469598103934665603U;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)name[i]) * 1099511628211U;
    struct channel **place = &redis->channels[hash % CHANNEL_SLOTS];
    while (*place != NULL &&
           ((*place)->len != len || memcmp((*place)->name, name, len) != 0))
        place = &(*place)->next;
    return place;
}

static void subscribe(struct peer *peer, const char *name, size_t len)
{
    struct channel **place = place_of(peer->redis, name, len);
    if (*place == NULL) {
        *place = must_calloc(1, sizeof(**place));
        (*place)->name = must_memdup(name, len);
        (*place)->len = len;
    }
    struct channel *channel = *place;
    for (unsigned i = 0; i < channel->count; i++)
        if (channel->peers[i] == peer)
            return;
    if (channel->count == channel->capacity) {
        channel->capacity = channel->capacity > 0 ? channel->capacity * 2 : 4;
        channel->peers =
            must_realloc(channel->peers, channel->capacity * sizeof(struct peer *));
    }
    channel->peers[channel->count++] = peer;
    peer->subscriptions++;
}

static bool leave(struct channel *channel, struct peer *peer)
{
    for (unsigned i = 0; i < channel->count; i++)
        if (channel->peers[i] == peer) {
            channel->peers[i] = channel->peers[--channel->count];
            peer->subscriptions--;
            return true;
        }
    return false;
}

static void unsubscribe(struct peer *peer, const char *name, size_t len)
{
    struct channel *channel = *place_of(peer->redis, name, len);
    if (channel != NULL)
        leave(channel, peer);
}

static void forget(struct redis *redis)
{
    for (unsigned i = 0; i < CHANNEL_SLOTS; i++) {
        struct channel *next;
        for (struct channel *channel = redis->channels[i]; channel != NULL;
             channel = next) {
            next = channel->next;
            free(channel->name);
            free(channel->peers);
            free(channel);
        }
        redis->channels[i] = NULL;
    }
}

/* ── connections ── */

static void bury(struct peer *peer)
{
    if (peer->is_gone)
        return;
    struct redis *redis = peer->redis;
    for (unsigned i = 0; i < CHANNEL_SLOTS && peer->subscriptions > 0; i++)
        for (struct channel *channel = redis->channels[i]; channel != NULL;
             channel = channel->next)
            leave(channel, peer);
    peer->is_gone = true;
    wire_set_callback(peer->wire, NULL, NULL);
    wire_close(peer->wire);
    bytes_free(&peer->in);
    bytes_free(&peer->out);
    TAILQ_REMOVE(&redis->peers, peer, of_redis);
    TAILQ_INSERT_TAIL(&graveyard, peer, of_redis);
}

static void on_flush(void *argument, uint64_t number UNUSED)
{
    struct peer *peer = argument;
    peer->is_flushing = false;
    if (peer->is_gone || peer->redis->is_stopped || peer->out.len == 0)
        return;
    ssize_t len = wire_write(peer->wire, bytes_data(&peer->out), peer->out.len);
    if (len > 0)
        bytes_take(&peer->out, (size_t)len);
    if (len < 0)
        peer->out.len = peer->out.first = 0;
}

static void flush_soon(struct peer *peer)
{
    if (peer->is_flushing || peer->is_gone)
        return;
    peer->is_flushing = true;
    world_after(world_below(DELAY_MAX + peer->redis->delay), on_flush, peer, 0);
}

static void say(struct peer *peer, const char *text)
{
    bytes_add(&peer->out, text, strlen(text));
    flush_soon(peer);
}

static void say_bulk(struct peer *peer, const char *data, size_t len)
{
    char head[24];
    int head_len = snprintf(head, sizeof(head), "$%zu\r\n", len);
    bytes_add(&peer->out, head, (size_t)head_len);
    bytes_add(&peer->out, data, len);
    bytes_add(&peer->out, "\r\n", 2);
}

/* ── commands ── */

struct word {
    const char *data;
    size_t len;
};

static bool is_word(struct word word, const char *text)
{
    return strlen(text) == word.len && strncasecmp(word.data, text, word.len) == 0;
}

/* What brokers said to each other: for redis_forge(). */
static void record(struct word name, struct word payload)
{
    if (payload.len > RECORDED_LEN || name.len > RECORDED_LEN ||
        strncmp(name.data, "sidrail1:", min_size(9, name.len)) != 0)
        return;
    struct recorded *place = &records[record_count++ % RECORDS_MAX];
    place->name_len = name.len;
    place->len = payload.len;
    memcpy(place->name, name.data, name.len);
    memcpy(place->payload, payload.data, payload.len);
}

/* To whoever is subscribed; returns how many. */
static unsigned publish(struct redis *redis, struct word name, struct word payload)
{
    struct channel *channel = *place_of(redis, name.data, name.len);
    unsigned count = channel != NULL ? channel->count : 0;
    for (unsigned i = 0; i < count; i++) {
        struct peer *to = channel->peers[i];
        say(to, "*3\r\n$7\r\nmessage\r\n");
        say_bulk(to, name.data, name.len);
        say_bulk(to, payload.data, payload.len);
    }
    return count;
}

static void end_slow_ones(struct redis *redis, struct word name)
{
    struct channel *channel = *place_of(redis, name.data, name.len);
    for (unsigned i = channel != NULL ? channel->count : 0; i-- > 0;)
        if (channel->peers[i]->out.len > redis->output_max)
            bury(channel->peers[i]);
}

static void run_publish(struct peer *peer, struct word name, struct word payload)
{
    struct redis *redis = peer->redis;
    if (redis->refuses_publish) {
        say(peer,
            "-NOPERM this user has no permissions to run the 'publish' command\r\n");
        return;
    }
    char text[24];
    record(name, payload);
    snprintf(text, sizeof(text), ":%u\r\n", publish(redis, name, payload));
    say(peer, text);
    end_slow_ones(redis, name);
}

static void run_subscribe(struct peer *peer, struct word *words, unsigned count,
                          bool is_new)
{
    for (unsigned i = 1; i < count; i++) {
        char text[24];
        if (is_new)
            subscribe(peer, words[i].data, words[i].len);
        else
            unsubscribe(peer, words[i].data, words[i].len);
        say(peer, is_new ? "*3\r\n$9\r\nsubscribe\r\n" : "*3\r\n$11\r\nunsubscribe\r\n");
        say_bulk(peer, words[i].data, words[i].len);
        snprintf(text, sizeof(text), ":%u\r\n", peer->subscriptions);
        say(peer, text);
    }
}

static void run(struct peer *peer, struct word *words, unsigned count)
{
    struct redis *redis = peer->redis;
    if (is_word(words[0], "PUBLISH") && count == 3)
        run_publish(peer, words[1], words[2]);
    else if (is_word(words[0], "SUBSCRIBE") || is_word(words[0], "UNSUBSCRIBE"))
        run_subscribe(peer, words, count, is_word(words[0], "SUBSCRIBE"));
    else if (is_word(words[0], "PING"))
        say(peer,
            peer->subscriptions > 0 ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n" : "+PONG\r\n");
    else if (is_word(words[0], "ROLE"))
        say(peer, redis->is_replica ? "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n"
                                      "$9\r\nconnected\r\n:0\r\n"
                                    : "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    else if (is_word(words[0], "INFO"))
        say(peer, redis->is_replica ? "$12\r\nrole:slave\r\n\r\n"
                                    : "$13\r\nrole:master\r\n\r\n");
    else if (is_word(words[0], "AUTH") || is_word(words[0], "CLIENT"))
        say(peer, "+OK\r\n");
    else
        say(peer, "-ERR unknown command\r\n");
}

/* Reads one request; false: it is not whole. */
static bool take_request(struct peer *peer)
{
    static struct word words[ARGUMENTS_MAX];
    const char *data = bytes_data(&peer->in);
    const char *end = data + peer->in.len;
    const char *at = memchr(data, '\n', peer->in.len);
    if (at == NULL)
        return false;
    check(data[0] == '*');
    unsigned count = (unsigned)strtoul(data + 1, NULL, 10);
    check(count > 0 && count <= ARGUMENTS_MAX);
    at++;
    for (unsigned i = 0; i < count; i++) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        if (line == NULL)
            return false;
        size_t len = strtoul(at + 1, NULL, 10);
        if ((size_t)(end - line - 1) < len + 2)
            return false;
        words[i] = (struct word){line + 1, len};
        at = line + 1 + len + 2;
    }
    run(peer, words, count);
    if (!peer->is_gone)
        bytes_take(&peer->in, (size_t)(at - data));
    return !peer->is_gone;
}

static void on_run(void *argument, uint64_t number UNUSED)
{
    struct peer *peer = argument;
    peer->is_running = false;
    if (peer->is_gone || peer->redis->is_stopped)
        return;
    size_t there = wire_readable(peer->wire);
    if (there > 0) {
        bytes_add(&peer->in, wire_peek(peer->wire), there);
        wire_consume(peer->wire, there);
    }
    while (peer->in.len > 0 && take_request(peer))
        ;
    if (peer->is_gone)
        return;
    if (wire_has_ended(peer->wire))
        bury(peer);
    else if (peer->out.len > 0)
        flush_soon(peer);
}

static void on_change(void *argument, struct wire *wire UNUSED)
{
    struct peer *peer = argument;
    if (peer->is_running || peer->is_gone || peer->redis->is_stopped)
        return;
    peer->is_running = true;
    world_after(world_below(DELAY_MAX + peer->redis->delay), on_run, peer, 0);
}

static void on_accept(void *argument, struct wire *listener)
{
    struct redis *redis = argument;
    struct wire *wire;
    if (redis->is_stopped)
        return;
    while ((wire = wire_accept(listener)) != NULL) {
        struct peer *peer = must_calloc(1, sizeof(*peer));
        peer->redis = redis;
        peer->wire = wire;
        TAILQ_INSERT_TAIL(&redis->peers, peer, of_redis);
        if (redis->refuses) {
            static const char text[] = "-ERR max number of clients reached\r\n";
            wire_write(wire, text, sizeof(text) - 1);
            bury(peer);
            continue;
        }
        wire_set_callback(wire, on_change, peer);
        on_change(peer, wire);
    }
}

/* ── forgeries ── */

/* Places in the bytes of docs/broker-protocol.md. */
#define SEAL_BYTES        21
#define AT_CONTROL_NUMBER 12
#define AT_ORIGIN         12
#define AT_SEQUENCE       20

/* One that was recorded, and begins so (behind its seal, if it has one); NULL: none. */
static const struct recorded *any_record(const char *magic, uint64_t *drawn)
{
    unsigned there = record_count < RECORDS_MAX ? record_count : RECORDS_MAX;
    uint64_t first = world_stream(drawn);
    for (unsigned i = 0; i < there; i++) {
        const struct recorded *one = &records[(first + i) % there];
        size_t at = memcmp(one->payload, "SK", 2) == 0 ? SEAL_BYTES : 0;
        if (one->len > at + AT_SEQUENCE + 8 &&
            (magic == NULL || memcmp(one->payload + at, magic, 2) == 0))
            return one;
    }
    return NULL;
}

static void add_number(char *bytes, uint64_t ahead)
{
    uint64_t number;
    memcpy(&number, bytes, sizeof(number));
    number += ahead;
    memcpy(bytes, &number, sizeof(number));
}

static void change(struct recorded *one, enum forgery kind, uint64_t drawn)
{
    bool is_sealed = memcmp(one->payload, "SK", 2) == 0;
    char *body = one->payload + (is_sealed ? SEAL_BYTES : 0);
    switch (kind) {
    case FORGE_MOVE: /* the last digit of the channel's name */
        one->name[one->name_len - 1] = one->name[one->name_len - 1] == '0' ? '1' : '0';
        return;
    case FORGE_NUMBER:
        memset(body + AT_CONTROL_NUMBER, 0xff, 8);
        return;
    case FORGE_AHEAD:
        add_number(body + AT_SEQUENCE, (uint64_t)1 << 25);
        return;
    case FORGE_STRANGER:
        memcpy(body + AT_ORIGIN, &drawn, sizeof(drawn));
        return;
    case FORGE_GARBAGE:
        one->len = 1 + drawn % one->len;
        for (size_t i = 0; i < one->len; i++)
            one->payload[i] = (char)world_stream(&drawn);
        memcpy(one->payload, drawn % 2 == 0 ? "S1\001" : "SC\001",
               min_size(one->len, drawn % 4));
        return;
    case FORGE_NEXT:
        add_number(body + AT_SEQUENCE, 1 + drawn % 3);
        return;
    case FORGE_FLIP:
        one->payload[drawn % one->len] ^= (char)(1 << (drawn >> 32) % 8);
        return;
    case FORGE_UNSEALED:
        one->len -= (size_t)(body - one->payload);
        memmove(one->payload, body, one->len);
        return;
    case FORGE_REPEAT:
    case FORGERY_COUNT:
        return;
    }
    unreachable();
}

void redis_forge(unsigned number, enum forgery kind, uint64_t drawn)
{
    bool is_message = kind == FORGE_AHEAD || kind == FORGE_STRANGER ||
                      kind == FORGE_NEXT || kind == FORGE_MOVE;
    const char *magic = is_message ? "S1" : kind == FORGE_NUMBER ? "SC" : NULL;
    const struct recorded *found = any_record(magic, &drawn);
    struct redis *redis = &servers[number];
    if (found == NULL || !redis->is_up || redis->is_stopped)
        return;
    static struct recorded forged;
    forged = *found;
    change(&forged, kind, drawn);
    struct word name = {forged.name, forged.name_len};
    publish(redis, name, (struct word){forged.payload, forged.len});
}

/* ── its life ── */

void redis_begin(unsigned count)
{
    check(count <= REDIS_MAX);
    memset(servers, 0, sizeof(servers));
    server_count = count;
    record_count = 0;
    TAILQ_INIT(&graveyard);
    for (unsigned i = 0; i < count; i++) {
        servers[i].number = i;
        servers[i].output_max = OUTPUT_MAX;
        TAILQ_INIT(&servers[i].peers);
        redis_start(i);
    }
}

void redis_end(void)
{
    for (unsigned i = 0; i < server_count; i++)
        redis_kill(i);
    struct peer *peer;
    while ((peer = TAILQ_FIRST(&graveyard)) != NULL) {
        TAILQ_REMOVE(&graveyard, peer, of_redis);
        free(peer);
    }
}

void redis_start(unsigned number)
{
    struct redis *redis = &servers[number];
    if (redis->is_up)
        return;
    redis->is_up = true;
    redis->is_stopped = redis->is_replica = false;
    redis->listener = wire_listen(HOST_REDIS(number), SIM_PORT, on_accept, redis);
}

void redis_kill(unsigned number)
{
    struct redis *redis = &servers[number];
    if (!redis->is_up)
        return;
    redis->is_up = redis->is_stopped = false;
    wires_kill(HOST_REDIS(number), false);
    struct peer *peer;
    while ((peer = TAILQ_FIRST(&redis->peers)) != NULL)
        bury(peer);
    forget(redis);
}

void redis_stop(unsigned number)
{
    servers[number].is_stopped = servers[number].is_up;
}

void redis_continue(unsigned number)
{
    struct redis *redis = &servers[number];
    if (!redis->is_up || !redis->is_stopped)
        return;
    redis->is_stopped = false;
    on_accept(redis, redis->listener);
    struct peer *peer;
    TAILQ_FOREACH(peer, &redis->peers, of_redis)
    {
        on_change(peer, peer->wire);
        if (peer->out.len > 0)
            flush_soon(peer);
    }
}

void redis_demote(unsigned number, bool is_replica)
{
    servers[number].is_replica = is_replica;
}

void redis_refuse_publish(unsigned number, bool refuses)
{
    servers[number].refuses_publish = refuses;
}

void redis_slow(unsigned number, uint64_t delay)
{
    servers[number].delay = delay;
}

void redis_refuse(unsigned number, bool refuses)
{
    servers[number].refuses = refuses;
}

void redis_limit_output(unsigned number, size_t limit)
{
    servers[number].output_max = limit > 0 ? limit : OUTPUT_MAX;
}

unsigned redis_subscriptions(unsigned number)
{
    unsigned count = 0;
    const struct peer *peer;
    TAILQ_FOREACH(peer, &servers[number].peers, of_redis)
    count += peer->subscriptions;
    return count;
}

bool redis_is_running(unsigned number)
{
    return servers[number].is_up && !servers[number].is_stopped;
}
