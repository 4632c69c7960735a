/*
 * Connections as a kernel has them, in memory: two directions of bytes with a latency that is drawn, in pieces that are
 * drawn, with buffers that fill, and with the faults that a schedule asks for.
 *
 *     write ─▶ out ─(latency, the path is open, the reader has room)─▶ in of the peer ─▶ read
 *               └ counts as unacknowledged until the way back has taken its latency too
 *
 * One `struct wire` is one end. Brokers reach theirs through descriptors (libc.c), everybody else through this header.
 * A host is a machine with an address: brokers, Redis servers and clients have one each. Ends live until wires_end().
 */
#pragma once

#include "tests/simulation/world.h"

#include <netinet/in.h>
#include <stddef.h>
#include <sys/types.h>

#define HOST_MAX         64
#define HOST_BROKER(i)   (i)
#define HOST_REDIS(i)    (16 + (i))
#define HOST_CLIENT(i)   (32 + (i))
#define HOST_CLIENTS_MAX (HOST_MAX - 32)

#define SIM_PORT 6379

/* Bytes with a front that is taken away. */
struct bytes {
    char *data;
    size_t first, len, capacity;
};

void bytes_add(struct bytes *bytes, const void *data, size_t len);
void bytes_take(struct bytes *bytes, size_t len);
void bytes_free(struct bytes *bytes);
static inline const char *bytes_data(const struct bytes *bytes)
{
    return bytes->data + bytes->first;
}

struct wire;
/* Something has changed: bytes came, there is room again, it is connected, it has ended. Never from within a call. */
typedef void (*wire_cb)(void *argument, struct wire *wire);

/* How connections behave in this run. */
struct wire_profile {
    uint64_t latency_low, latency_high; /* microseconds */
    unsigned slow_one_in; /* of deliveries: takes up to latency_slow; 0: none */
    uint64_t latency_slow;
    size_t buffer;         /* bytes that a kernel holds in each direction, on each side */
    unsigned piece_one_in; /* of deliveries: only a part arrives; 0: none */
};

void wires_begin(const struct wire_profile *profile);
void wires_end(void);

/* A listener at a host; `on_accept` gets each end that waits. */
struct wire *wire_listen(int host, int port, wire_cb on_change, void *argument);
struct wire *wire_accept(struct wire *listener);

struct wire *wire_connect(int from, int to, int port, wire_cb on_change, void *argument);
void wire_set_callback(struct wire *wire, wire_cb on_change, void *argument);

enum wire_state { WIRE_LISTENS, WIRE_CONNECTING, WIRE_UP, WIRE_CLOSED };
enum wire_state wire_state(const struct wire *wire);

/* What may be read without waiting; 0 with wire_has_ended(): no more will come. */
size_t wire_readable(const struct wire *wire);
const char *wire_peek(const struct wire *wire);
void wire_consume(struct wire *wire, size_t len);
bool wire_has_ended(const struct wire *wire);

/* errno of its end; 0: none, or an orderly one. */
int wire_error(const struct wire *wire);
void wire_clear_error(struct wire *wire);
bool wire_has_waiting(const struct wire *listener);

/* As much as fits; -1: it has ended. */
ssize_t wire_write(struct wire *wire, const void *data, size_t len);
bool wire_is_writable(const struct wire *wire);
size_t wire_unacknowledged(const struct wire *wire);
/* Milliseconds since anything was acknowledged while something was under way and the path is blocked; else 0. */
unsigned wire_silent(const struct wire *wire);

/* Probes after so long without a word: a peer that has vanished answers them with a reset, as TCP's keep-alive has it. */
void wire_keep_alive(struct wire *wire, uint64_t idle);

/* End of file behind what is written. */
void wire_finish(struct wire *wire);
/* As close(): end of file, or a reset when there are bytes that were not read. */
void wire_close(struct wire *wire);
void wire_reset(struct wire *wire);
/* The end vanishes without a packet; what comes later is answered with a reset (when the path is open). */
void wire_vanish(struct wire *wire);
int wire_host(const struct wire *wire);
int wire_peer_host(const struct wire *wire);
int wire_port(const struct wire *wire);
struct sockaddr_in wire_address(const struct wire *wire, bool is_peer);

/* ── faults ── */

/* Nothing passes from `from` to `to`, of old connections and new ones; may be said several times. */
void wires_block(int from, int to);
void wires_unblock(int from, int to);
bool wires_are_blocked(int from, int to);
/* The machine has gone: nothing comes from it, and it answers nothing. */
void wires_set_gone(int host, bool is_gone);
/* New connections are refused while true. */
void wires_refuse(int host, bool refuse);
/* All of a process end, as its kernel does it; `silent`: the machine has gone, no packet is sent. */
void wires_kill(int host, bool silent);
/* Both ends get a reset, as from a middlebox that has forgotten the connection. */
void wire_break(struct wire *wire);
/* One direction of this connection stalls: what this end writes stays. */
void wire_stall(struct wire *wire, bool stalls);
/* Connections between two hosts, the `index`-th modulo their number; NULL: none. */
struct wire *wires_between(int from, int to, unsigned index);
