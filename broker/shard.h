/*
 * The shards: each one Redis with a publishing and a subscribing link, the channels that are wanted of it, and which
 * partitions are sent there.
 *
 *      shard_set_send ─▶ outbox of the partition's shard ─▶ in flight ─▶ on_answer    (publishing link)
 *                          ▲ moves: unconfirmed and just confirmed ones first, in order
 *
 *      shard_set_want ─▶ home and standby of the partition ─▶ SUBSCRIBE ─▶ confirmed  (subscribing link)
 *      control, own channel: of every shard                    on_message ◀──┘
 *
 *      DOWN ──links up, what was wanted at the connect confirmed (complete), every live broker hears it──▶ USABLE
 *        ▲                                                                                                   │
 *        └──────────────────────────────────── any of it ends ───────────────────────────────────────────────┘
 *
 *      a partition is sent to   its best-ranked usable shard (back to a better one only after SHARD_FAIL_BACK)
 *                               none usable: where it is, if that link is up; else the best-ranked one that is up
 *                               none up: nowhere; it waits here, and own pods are served at once (on_homeless)
 *
 * A shard that answers a PUBLISH with an error (ACL, a script that does not end) is as one that is down, until it has taken
 * a heartbeat SHARD_REFUSES_FOR later; the message goes on by the standby.
 *
 * A shard is a name and a place, where its URL leads. A name whose URL changes is two shards until every broker has gone
 * on to the new one: that at the old place is *left*, and people see its place beside its name.
 *
 * Nothing is sent before shard_set_set_ready(). A partition that nobody wants any more stays subscribed for
 * SHARD_LINGER, for the pod that reconnects. (docs/broker-protocol.md, "Origin")
 */
#pragma once

#include "broker/link.h"
#include "broker/sent_ring.h"

struct broker_config;
struct partition_map;
struct shard;
struct shard_set;
struct turn;

#define SHARD_LINGER SECONDS(5)

/* A FIFO is full above this, and has room again below half of it. */
#define SHARD_FULL_BYTES ((size_t)128 * 1024)

/* Want every partition: unmodified pods, patterns. */
#define SHARD_ALL_PARTITIONS UINT32_MAX

/* Instead of a partition: its broker's own channel, the channel of all. */
#define SHARD_OWN_CHANNEL     UINT32_MAX
#define SHARD_CONTROL_CHANNEL (UINT32_MAX - 1)

/* Carried at a time: in use, loaded, and kept. */
#define SHARD_MAPS_MAX 16

/* Usable for so long before partitions come back to it. */
#define SHARD_FAIL_BACK SECONDS(5)

/* Sent again at a move though confirmed: Redis may have replied and not yet written to subscribers. */
#define SHARD_CONFIRMED_LATELY MILLISECONDS(250)

#define SHARD_REFUSES_FOR SECONDS(1)

/* Errors to one message, then it is answered so: its partition may be forbidden, and the heartbeat not. */
#define SHARD_REFUSALS_MAX 3

struct shard_callbacks {
    /* A shard has become usable or ceased to be: whoever waits may look again. */
    void (*on_change)(void *context, struct shard *shard);
    /* The shard answered `sent`, which is off every queue: confirm it; ok is false: with an error, SHARD_REFUSALS_MAX
     * times. */
    void (*on_answer)(void *context, struct shard *shard, struct sent *sent, bool ok,
                      struct slice text);
    /* What came on the channel of a partition, or of none (SHARD_OWN_CHANNEL, SHARD_CONTROL_CHANNEL). */
    void (*on_message)(void *context, struct shard *shard, struct slice channel,
                       uint32_t partition, struct slice bytes);
    /* The same of `len` bytes, which is too long for any broker and was read past: `start` are its first 64. */
    void (*on_too_long)(void *context, struct shard *shard, uint32_t partition,
                        struct slice start, size_t len);
    /* A partition begins or ceases to be received. */
    void (*on_wanted)(void *context, unsigned partition, bool is_wanted);
    /* No confirmation is due any more, or a FIFO that was full has room: whoever waits may look again. */
    void (*on_relief)(void *context);
    /* The publishing link is up and has carried nothing yet; the subscribing link has become complete, or is no
     * longer. */
    void (*on_up)(void *context, struct shard *shard);
    void (*on_complete)(void *context, struct shard *shard, bool is_complete);
    /* What the newest map needs of the shard is confirmed. */
    void (*on_carried)(void *context);
    /* A message is given to a link; the command that carries it to one broker alone (borrowed). */
    void (*on_sending)(void *context, const struct sent *sent);
    struct span (*on_retransmit)(void *context, uint64_t asker, const struct sent *sent);
    /* No shard of the partition can be sent to. */
    void (*on_homeless)(void *context, unsigned partition);
    /* Do all live brokers hear this shard? */
    bool (*is_heard)(void *context, size_t shard);
    /* The shard with this index ends; the next one with it will be another. */
    void (*on_gone)(void *context, size_t shard);
    void *context;
};

/* All pointers are borrowed. `origin` names the own channel and the links. Has no shards until shard_set_carry(); their
 * links are down until shard_set_start. */
struct shard_set *shard_set_new(struct event_base *base, struct turn *turn,
                                const struct broker_config *config, unsigned partitions,
                                struct sent_ring *ring, uint64_t origin,
                                const struct shard_callbacks *callbacks);
void shard_set_free(struct shard_set *set);
void shard_set_start(struct shard_set *set);

/* Maps (docs/broker-protocol.md, "Map change"). `map` is borrowed until shard_set_drop(), `config` is that which it was
 * made of: shards that are new get links, others apply what has changed (another user, password or TLS: they connect again). Home
 * and standby of each wanted partition are subscribed in addition. False: there would be too many shards or maps, and
 * nothing was done. */
bool shard_set_carry(struct shard_set *set, const struct partition_map *map,
                     const struct broker_config *config) MUST_CHECK;

/* The same for a map that is carried already: shards apply what has changed. */
void shard_set_reconfigure(struct shard_set *set, const struct broker_config *config);

/* Is everything confirmed that the newest map needed when its carrying began? */
bool shard_set_carries(const struct shard_set *set, const struct partition_map *map);

/* Partitions are sent by this map from now on; it must be carried. */
void shard_set_use(struct shard_set *set, const struct partition_map *map);

/* What only this map needed is unsubscribed, shards that are in no map end. Not the one in use, and not from a
 * callback of a link. */
void shard_set_drop(struct shard_set *set, const struct partition_map *map);

/* Visits the map's shards until `visit` returns false; true when it never did. */
bool shard_set_all_of(const struct shard_set *set, const struct partition_map *map,
                      bool (*visit)(void *context, const struct shard *shard),
                      void *context);

/* Counted: each want needs its unwant. `partition` or SHARD_ALL_PARTITIONS. */
void shard_set_want(struct shard_set *set, uint32_t partition);
void shard_set_unwant(struct shard_set *set, uint32_t partition);

/* Is the partition received, or will be as soon as its shard is up? */
bool shard_set_is_wanted(const struct shard_set *set, unsigned partition);

/* Is its subscription confirmed on those of its shards that can confirm it? */
bool shard_set_is_confirmed(const struct shard_set *set, unsigned partition);

/* False while a confirmation is due from a shard that is up, or a first connection is under way. */
bool shard_set_is_settled(const struct shard_set *set);

/* A few times a second. */
void shard_set_tick(struct shard_set *set, uint64_t now);

/* What the next flush of all would write. */
size_t shard_set_queued_bytes(const struct shard_set *set);

/* Writes what is queued, of links that have at least `bytes` queued. */
void shard_set_flush(struct shard_set *set, size_t bytes);

/* Writes what is queued, of links that are hurried (link_hurry). */
void shard_set_flush_hurried(struct shard_set *set);

/* From now on messages are sent. */
void shard_set_set_ready(struct shard_set *set);

/* Looks again where partitions are to be sent, after something that is_heard() depends on has changed. */
void shard_set_place(struct shard_set *set);

/* Where the partition is sent now; NULL: nowhere. */
struct shard *shard_of_partition(const struct shard_set *set, unsigned partition);
size_t shard_set_count(const struct shard_set *set);
struct shard *shard_set_get(const struct shard_set *set, size_t place); /* 0..count - 1 */
/* That of the newest configuration, never one that is left; or at a place, left or not. NULL: there is none. */
struct shard *shard_set_find(const struct shard_set *set, struct slice name);
struct shard *shard_set_find_at(const struct shard_set *set, struct slice name,
                                uint64_t place);
size_t shard_set_usable_count(const struct shard_set *set);

/* Nothing waits and nothing is in flight. */
bool shard_set_is_idle(const struct shard_set *set);

/* Puts a WAITING message behind those of its partition, and sends what may be sent. */
void shard_set_send(struct shard_set *set, struct sent *sent);

/* Takes a WAITING message out of the queue that it is in. */
void shard_set_take_out(struct shard_set *set, struct sent *sent);

/* Control to one channel's suffix behind "sidrail1:<cluster>:"; dropped when the link is down. `command` is held. */
void shard_send_control(struct shard *shard, struct span command);
/* A heartbeat of one's own goes out there, or has come back: who does not hear its own hears nobody. */
void shard_note_beat(struct shard *shard);
void shard_hear_own(struct shard *shard);

/* A message again, to one broker. False: too much waits there. */
bool shard_send_answer(struct shard *shard, uint64_t asker, uint16_t partition,
                       uint64_t sequence);

/* Its own as long as it lives, also while others come and go. */
size_t shard_index(const struct shard *shard);
struct slice shard_name(const struct shard *shard);
uint64_t shard_place(const struct shard *shard); /* shard_url_place() */
bool shard_is_left(const struct shard *shard);
bool shard_is_usable(const struct shard *shard);
bool shard_is_up(const struct shard *shard);       /* the publishing link */
bool shard_is_complete(const struct shard *shard); /* the subscribing link */

/* When the subscribing link brought the last message; standing_now(). */
uint64_t shard_heard_at(const struct shard *shard);

/* The partition's shard is usable and behind: who publishes should wait for on_relief. It bounds the time that a
 * message waits, where the spill bounds what waits for a shard that is down. For a message that has not waited yet it
 * is full until on_relief: those that wait come first. */
bool shard_set_is_full(const struct shard_set *set, unsigned partition, bool has_waited);

/* So are all shards: no partition needs to be known. */
bool shard_set_is_full_everywhere(const struct shard_set *set, bool has_waited);

/* Does any message wait where this partition is sent? */
bool shard_set_has_waiting(const struct shard_set *set, unsigned partition);

/* For people and metrics. */
struct shard_status {
    const char *name;    /* left: with its place */
    const char *state;   /* up, down, starting, unheard, connecting, subscribing */
    const char *why;     /* "" while up */
    uint64_t changed_at; /* timing_now() */
    const char *publishing, *subscribing; /* states of the links */
    unsigned partitions, sent_here, wanted, confirmed;
    size_t waiting, waiting_bytes, in_flight, in_flight_bytes;
    uint64_t published, received, retransmitted, downs;
    uint64_t round_trip; /* microseconds, of the last confirmed message; smoothed */
};
struct shard_status shard_status(const struct shard *shard);
