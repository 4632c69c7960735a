#include "tests/simulation/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define SYN_TIMES       4
#define EPHEMERAL_FIRST 40000

struct wire {
    int host, peer_host, port;
    uint16_t own_port;
    enum wire_state state;
    struct wire *peer; /* NULL: a listener */
    struct wire *listener;
    wire_cb on_change;
    void *argument;
    bool is_notified;
    struct bytes in, out;
    size_t arriving; /* acknowledged on their way back */
    bool fin_out, fin_sent, fin_in;
    bool is_reset; /* it, or by its peer */
    int error;
    bool is_delivering; /* an event is due */
    bool waits_for_path, waits_for_room;
    bool stalls;
    bool keeps_alive;
    size_t acks_held; /* of bytes that came in: their acknowledgement could not go back */
    uint64_t acked_at;
    unsigned syn_count;
    TAILQ_ENTRY(wire) of_all;
    TAILQ_ENTRY(wire) of_accept;
    TAILQ_HEAD(, wire) waiting; /* of a listener */
};

static struct {
    struct wire_profile profile;
    TAILQ_HEAD(wire_list, wire) all;
    unsigned blocked[HOST_MAX][HOST_MAX];
    bool refuses[HOST_MAX];
    bool is_gone[HOST_MAX]; /* the machine: answers nothing */
    uint16_t next_port;
} wires;

/* ── bytes ── */

void bytes_add(struct bytes *bytes, const void *data, size_t len)
{
    if (bytes->first > 0 && bytes->first + bytes->len + len > bytes->capacity) {
        memmove(bytes->data, bytes->data + bytes->first, bytes->len);
        bytes->first = 0;
    }
    if (bytes->len + len > bytes->capacity) {
        size_t capacity = bytes->capacity > 0 ? bytes->capacity : 256;
        while (capacity < bytes->len + len)
            capacity *= 2;
        bytes->data = must_realloc(bytes->data, capacity);
        bytes->capacity = capacity;
    }
    if (len > 0)
        memcpy(bytes->data + bytes->first + bytes->len, data, len);
    bytes->len += len;
}

void bytes_take(struct bytes *bytes, size_t len)
{
    check(len <= bytes->len);
    bytes->first += len;
    bytes->len -= len;
    if (bytes->len == 0)
        bytes->first = 0;
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

/* ── the life of all ── */

void wires_begin(const struct wire_profile *profile)
{
    memset(&wires, 0, sizeof(wires));
    wires.profile = *profile;
    wires.next_port = EPHEMERAL_FIRST;
    TAILQ_INIT(&wires.all);
}

void wires_end(void)
{
    struct wire *wire;
    while ((wire = TAILQ_FIRST(&wires.all)) != NULL) {
        TAILQ_REMOVE(&wires.all, wire, of_all);
        bytes_free(&wire->in);
        bytes_free(&wire->out);
        free(wire);
    }
}

static struct wire *wire_new(int host, int peer_host, int port, enum wire_state state)
{
    struct wire *wire = must_calloc(1, sizeof(*wire));
    wire->host = host;
    wire->peer_host = peer_host;
    wire->port = port;
    wire->state = state;
    wire->acked_at = world_now();
    TAILQ_INIT(&wire->waiting);
    TAILQ_INSERT_TAIL(&wires.all, wire, of_all);
    return wire;
}

static uint64_t latency(void)
{
    const struct wire_profile *profile = &wires.profile;
    if (profile->slow_one_in > 0 && world_once_in(profile->slow_one_in))
        return world_between(profile->latency_low, profile->latency_slow);
    return world_between(profile->latency_low, profile->latency_high);
}

static void on_notify(void *argument, uint64_t number UNUSED)
{
    struct wire *wire = argument;
    wire->is_notified = false;
    if (wire->on_change != NULL)
        wire->on_change(wire->argument, wire);
}

static void notify(struct wire *wire)
{
    if (wire->is_notified || wire->on_change == NULL || wire->state == WIRE_CLOSED)
        return;
    wire->is_notified = true;
    world_after(0, on_notify, wire, 0);
}

static bool is_open(const struct wire *from)
{
    return wires.blocked[from->host][from->peer_host] == 0 &&
           !wires.is_gone[from->peer_host] && !wires.is_gone[from->host];
}

/* ── what is under way ── */

static void deliver_soon(struct wire *wire);

static void on_acknowledged(void *argument, uint64_t len)
{
    struct wire *wire = argument;
    if (wire->is_reset)
        return; /* the count stays as it was */
    wire->arriving -= len;
    wire->acked_at = world_now();
    notify(wire);
}

/* `wire` acknowledges what came in. */
static void acknowledge(struct wire *wire, size_t len)
{
    if (!is_open(wire) || wire->stalls) {
        wire->acks_held += len;
        return;
    }
    world_after(latency(), on_acknowledged, wire->peer, len);
}

static void on_reset_arrives(void *argument, uint64_t error)
{
    struct wire *wire = argument;
    if (wire->state == WIRE_CLOSED || wire->is_reset)
        return;
    wire->is_reset = true;
    wire->error = (int)error;
    wire->arriving += wire->out.len; /* what SIOCOUTQ says stays */
    wire->out.len = wire->out.first = 0;
    notify(wire);
}

static void send_reset(struct wire *wire)
{
    if (wire->peer != NULL && is_open(wire))
        world_after(latency(), on_reset_arrives, wire->peer, ECONNRESET);
}

static bool room_of(const struct wire *wire, size_t *room)
{
    size_t limit = wires.profile.buffer;
    *room = wire->in.len < limit ? limit - wire->in.len : 0;
    return *room > 0;
}

static void pass_fin(struct wire *wire)
{
    struct wire *peer = wire->peer;
    wire->fin_sent = true;
    if (peer->state == WIRE_CLOSED || peer->is_reset)
        return;
    peer->fin_in = true;
    notify(peer);
}

static void on_deliver(void *argument, uint64_t number);

/* It is sent again, as TCP does, until the answer comes through. */
static void on_send_again(void *argument, uint64_t number UNUSED)
{
    struct wire *wire = argument;
    if (!wire->waits_for_path || wire->is_reset || wire->state == WIRE_CLOSED)
        return;
    wire->waits_for_path = false;
    wire->is_delivering = true;
    on_deliver(wire, 0);
}

static void on_deliver(void *argument, uint64_t number UNUSED)
{
    struct wire *wire = argument;
    struct wire *peer = wire->peer;
    size_t room;
    wire->is_delivering = false;
    if (wire->is_reset || (wire->out.len == 0 && (!wire->fin_out || wire->fin_sent)))
        return;
    if (!is_open(wire) || wire->stalls || wire->state == WIRE_CONNECTING) {
        wire->waits_for_path = true;
        return;
    }
    if (wire->out.len == 0) {
        pass_fin(wire);
        return;
    }
    if (peer->state == WIRE_CLOSED || peer->is_reset) {
        if (is_open(peer)) {
            world_after(latency(), on_reset_arrives, wire, ECONNRESET);
            return;
        }
        wire->waits_for_path = true;
        world_after(SECONDS(1), on_send_again, wire, 0);
        return;
    }
    if (!room_of(peer, &room)) {
        wire->waits_for_room = true;
        return;
    }
    size_t len = min_size(room, wire->out.len);
    if (wires.profile.piece_one_in > 0 && world_once_in(wires.profile.piece_one_in))
        len = (size_t)world_between(1, len);
    bytes_add(&peer->in, bytes_data(&wire->out), len);
    bytes_take(&wire->out, len);
    wire->arriving += len;
    acknowledge(peer, len);
    notify(peer);
    notify(wire);
    if (wire->out.len == 0 && wire->fin_out && world_once_in(2))
        pass_fin(wire);
    else
        deliver_soon(wire);
}

static void deliver_soon(struct wire *wire)
{
    if (wire->is_delivering || wire->waits_for_path || wire->waits_for_room ||
        wire->peer == NULL)
        return;
    if (wire->out.len == 0 && (!wire->fin_out || wire->fin_sent))
        return;
    wire->is_delivering = true;
    world_after(latency(), on_deliver, wire, 0);
}

/* The path is open again: TCP notices when it sends again, which it does ever more seldom. */
static void resume_path(struct wire *wire)
{
    if (wire->acks_held > 0) {
        world_after(latency(), on_acknowledged, wire->peer, wire->acks_held);
        wire->acks_held = 0;
    }
    if (!wire->waits_for_path)
        return;
    wire->waits_for_path = false;
    uint64_t silent = world_now() - wire->acked_at;
    uint64_t wait = min_size(silent, SECONDS(3));
    wire->is_delivering = true;
    world_after(latency() + world_below(wait + 1), on_deliver, wire, 0);
}

/* ── connecting ── */

static struct wire *find_listener(int host, int port)
{
    struct wire *wire;
    TAILQ_FOREACH(wire, &wires.all, of_all)
    if (wire->state == WIRE_LISTENS && wire->host == host && wire->port == port)
        return wire;
    return NULL;
}

static void on_established(void *argument, uint64_t number UNUSED)
{
    struct wire *wire = argument;
    if (wire->state != WIRE_CONNECTING || wire->is_reset)
        return;
    wire->state = WIRE_UP;
    wire->acked_at = world_now();
    notify(wire);
    if (wire->waits_for_path)
        resume_path(wire);
}

static void on_syn(void *argument, uint64_t number UNUSED)
{
    struct wire *wire = argument;
    if (wire->state != WIRE_CONNECTING || wire->is_reset)
        return;
    struct wire *peer = wire->peer;
    if (!is_open(wire) || !is_open(peer)) {
        if (++wire->syn_count < SYN_TIMES)
            world_after(SECONDS(1ULL << (wire->syn_count - 1)), on_syn, wire, 0);
        return;
    }
    struct wire *listener = find_listener(wire->peer_host, wire->port);
    if (listener == NULL || wires.refuses[wire->peer_host]) {
        world_after(latency(), on_reset_arrives, wire, ECONNREFUSED);
        return;
    }
    peer->state = WIRE_UP;
    peer->listener = listener;
    TAILQ_INSERT_TAIL(&listener->waiting, peer, of_accept);
    notify(listener);
    world_after(latency(), on_established, wire, 0);
}

struct wire *wire_connect(int from, int to, int port, wire_cb on_change, void *argument)
{
    struct wire *wire = wire_new(from, to, port, WIRE_CONNECTING);
    struct wire *peer = wire_new(to, from, port, WIRE_CONNECTING);
    wire->own_port = wires.next_port++;
    peer->own_port = (uint16_t)port;
    wire->peer = peer;
    peer->peer = wire;
    wire->on_change = on_change;
    wire->argument = argument;
    world_after(latency(), on_syn, wire, 0);
    return wire;
}

struct wire *wire_listen(int host, int port, wire_cb on_change, void *argument)
{
    struct wire *wire = wire_new(host, host, port, WIRE_LISTENS);
    wire->own_port = (uint16_t)port;
    wire->on_change = on_change;
    wire->argument = argument;
    return wire;
}

bool wire_has_waiting(const struct wire *listener)
{
    return !TAILQ_EMPTY(&listener->waiting);
}

struct wire *wire_accept(struct wire *listener)
{
    struct wire *wire = TAILQ_FIRST(&listener->waiting);
    if (wire == NULL)
        return NULL;
    TAILQ_REMOVE(&listener->waiting, wire, of_accept);
    wire->listener = NULL;
    return wire;
}

void wire_set_callback(struct wire *wire, wire_cb on_change, void *argument)
{
    wire->on_change = on_change;
    wire->argument = argument;
    if (wire->in.len > 0 || wire->fin_in || wire->is_reset)
        notify(wire);
}

/* ── of one end ── */

enum wire_state wire_state(const struct wire *wire)
{
    return wire->state;
}

int wire_host(const struct wire *wire)
{
    return wire->host;
}

int wire_peer_host(const struct wire *wire)
{
    return wire->peer_host;
}

int wire_port(const struct wire *wire)
{
    return wire->port;
}

struct sockaddr_in wire_address(const struct wire *wire, bool is_peer)
{
    const struct wire *end = is_peer && wire->peer != NULL ? wire->peer : wire;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(end->own_port)};
    address.sin_addr.s_addr = htonl(0x0a000001U + (uint32_t)end->host);
    return address;
}

size_t wire_readable(const struct wire *wire)
{
    return wire->in.len;
}

const char *wire_peek(const struct wire *wire)
{
    return bytes_data(&wire->in);
}

void wire_consume(struct wire *wire, size_t len)
{
    bytes_take(&wire->in, len);
    if (wire->peer != NULL && wire->peer->waits_for_room) {
        wire->peer->waits_for_room = false;
        deliver_soon(wire->peer);
    }
}

bool wire_has_ended(const struct wire *wire)
{
    return wire->in.len == 0 && (wire->fin_in || wire->is_reset);
}

int wire_error(const struct wire *wire)
{
    return wire->error;
}

void wire_clear_error(struct wire *wire)
{
    wire->error = 0;
}

size_t wire_unacknowledged(const struct wire *wire)
{
    return wire->out.len + wire->arriving;
}

unsigned wire_silent(const struct wire *wire)
{
    if (wire_unacknowledged(wire) == 0 ||
        (!wire->waits_for_path && wire->peer->acks_held == 0))
        return 0;
    return (unsigned)((world_now() - wire->acked_at) / 1000);
}

bool wire_is_writable(const struct wire *wire)
{
    return wire->is_reset ||
           (wire->state == WIRE_UP &&
            wire_unacknowledged(wire) < wires.profile.buffer - wires.profile.buffer / 3);
}

ssize_t wire_write(struct wire *wire, const void *data, size_t len)
{
    if (wire->is_reset || wire->fin_out || wire->state == WIRE_CLOSED) {
        errno = wire->error != 0 ? wire->error : EPIPE;
        return -1;
    }
    size_t limit = wires.profile.buffer;
    size_t held = wire_unacknowledged(wire);
    size_t room = held < limit ? limit - held : 0;
    if (wire->state == WIRE_CONNECTING)
        room = 0;
    if (held == 0)
        wire->acked_at = world_now();
    len = min_size(len, room);
    bytes_add(&wire->out, data, len);
    deliver_soon(wire);
    return (ssize_t)len;
}

static void on_keep_alive(void *argument, uint64_t idle)
{
    struct wire *wire = argument;
    if (wire->state == WIRE_CLOSED || wire->is_reset)
        return;
    if (wire->peer->state == WIRE_CLOSED && !wire->fin_in && is_open(wire) &&
        is_open(wire->peer))
        on_reset_arrives(wire, ECONNRESET);
    else
        world_after(idle, on_keep_alive, wire, idle);
}

void wire_keep_alive(struct wire *wire, uint64_t idle)
{
    if (wire->keeps_alive)
        return;
    wire->keeps_alive = true;
    world_after(idle, on_keep_alive, wire, idle);
}

void wire_finish(struct wire *wire)
{
    if (wire->fin_out || wire->state == WIRE_CLOSED)
        return;
    wire->fin_out = true;
    deliver_soon(wire);
}

void wire_vanish(struct wire *wire)
{
    if (wire->state == WIRE_CLOSED)
        return;
    if (wire->listener != NULL)
        TAILQ_REMOVE(&wire->listener->waiting, wire, of_accept);
    wire->listener = NULL;
    wire->state = WIRE_CLOSED;
    bytes_free(&wire->in);
    if (wire->peer != NULL && wire->peer->waits_for_room) {
        wire->peer->waits_for_room = false;
        deliver_soon(wire->peer);
    }
}

void wire_reset(struct wire *wire)
{
    if (wire->state == WIRE_CLOSED)
        return;
    send_reset(wire);
    wire->is_reset = true;
    wire->out.len = wire->out.first = 0;
    wire->acks_held = 0; /* what comes again is answered with a reset */
    wire_vanish(wire);
}

void wire_close(struct wire *wire)
{
    if (wire->state == WIRE_LISTENS) {
        struct wire *waiting;
        while ((waiting = TAILQ_FIRST(&wire->waiting)) != NULL)
            wire_reset(waiting);
        wire->state = WIRE_CLOSED;
        return;
    }
    if (wire->state == WIRE_CLOSED)
        return;
    if (wire->in.len > 0 || wire->state == WIRE_CONNECTING) {
        wire_reset(wire);
        return;
    }
    wire_finish(wire);
    wire_vanish(wire);
}

/* ── faults ── */

bool wires_are_blocked(int from, int to)
{
    return wires.blocked[from][to] > 0;
}

void wires_block(int from, int to)
{
    wires.blocked[from][to]++;
}

/* What waits for a path that is open (again). */
static void resume_paths(int from, int to)
{
    struct wire *wire;
    TAILQ_FOREACH(wire, &wires.all, of_all)
    if ((from < 0 || wire->host == from) && (to < 0 || wire->peer_host == to) &&
        wire->peer != NULL && wire->peer->state != WIRE_LISTENS && !wire->stalls &&
        is_open(wire))
        resume_path(wire);
}

void wires_set_gone(int host, bool is_gone)
{
    if (wires.is_gone[host] == is_gone)
        return;
    wires.is_gone[host] = is_gone;
    if (is_gone)
        return;
    resume_paths(host, -1);
    resume_paths(-1, host);
}

void wires_unblock(int from, int to)
{
    if (wires.blocked[from][to] == 0 || --wires.blocked[from][to] > 0)
        return;
    resume_paths(from, to);
}

void wires_refuse(int host, bool refuse)
{
    wires.refuses[host] = refuse;
}

void wires_kill(int host, bool silent)
{
    struct wire *wire;
    TAILQ_FOREACH(wire, &wires.all, of_all)
    {
        if (wire->host != host || wire->state == WIRE_CLOSED)
            continue;
        if (silent && wire->state != WIRE_LISTENS) {
            wire->out.len = wire->out.first = 0;
            wire_vanish(wire);
        } else if (wire->state != WIRE_LISTENS && world_once_in(4)) {
            wire_reset(wire);
        } else {
            wire_close(wire);
        }
    }
}

void wire_break(struct wire *wire)
{
    world_after(latency(), on_reset_arrives, wire, ECONNRESET);
    world_after(latency(), on_reset_arrives, wire->peer, ECONNRESET);
}

void wire_stall(struct wire *wire, bool stalls)
{
    wire->stalls = stalls;
    if (!stalls && is_open(wire))
        resume_path(wire);
}

struct wire *wires_between(int from, int to, unsigned index)
{
    unsigned count = 0;
    struct wire *wire;
    TAILQ_FOREACH(wire, &wires.all, of_all)
    count += wire->host == from && wire->peer_host == to && wire->state == WIRE_UP &&
             !wire->is_reset && wire->peer != NULL;
    if (count == 0)
        return NULL;
    index %= count;
    TAILQ_FOREACH(wire, &wires.all, of_all)
    if (wire->host == from && wire->peer_host == to && wire->state == WIRE_UP &&
        !wire->is_reset && wire->peer != NULL && index-- == 0)
        return wire;
    return NULL;
}
