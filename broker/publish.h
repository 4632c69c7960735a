/*
 * Outward: what happens to a PUBLISH.
 *
 *                        hub ──▶ deliver at once
 *   message_scan ─ plain?┤
 *        │               shards ─▶ partition ─▶ sequence, sent ring ─▶ FIFO of the shard ─▶ answered
 *        └ refused: "-ERR …"                      │                        (its place is fixed)
 *                                                 └ home and standby down: delivered to local pods at once, in
 *                                                   sequence; the copy that returns later is a duplicate
 *
 * While a usable shard, or every subscriber that reads, is behind, publishers wait for their answer (at most PUBLISH_WAIT_MAX), which keeps
 * queues, and so delays, short however fast they publish.
 *
 * With delivery.ack: shard the answer waits until Redis has given its own (publish_answer), at most PUBLISH_ANSWER_WITHIN.
 *
 * The answer is the number of this broker's own interests in the channel: never a signal about others.
 * What waits for shards is bounded (spill): over it a PUBLISH is refused, so that whatever was accepted is
 * sent when the shard returns.
 */
#pragma once

#include "shared/slice.h"
#include "shared/timing.h"

struct agreement;
struct broker_config;
struct deliverer;
struct envelope;
struct dialect_view;
struct echo_view;
struct event_base;
struct gate;
struct hot_rooms;
struct interest_table;
struct map_change;
struct partition_map;
struct peer_table;
struct publisher;
struct shard_set;
struct subscriber_counts;
struct turn;

/* For a shard that is behind; well below the 5 s after which redis-py gives up and publishes again. */
#define PUBLISH_WAIT_MAX SECONDS(3)

/* For the answer of a shard (delivery.ack: shard), in all. */
#define PUBLISH_ANSWER_WITHIN SECONDS(4)

/* For subscribers that are all behind. */
#define PUBLISH_WAIT_SUBSCRIBERS_MAX MILLISECONDS(200)

enum publish_refusal {
    PUBLISH_UNSAFE,           /* a pickle that the policy refuses */
    PUBLISH_OVERLOADED,       /* the spill is full */
    PUBLISH_CHANNEL_TOO_LONG, /* for an envelope */
    PUBLISH_UNADDRESSABLE,    /* namespace or rooms do not fit an envelope */
    PUBLISH_TOO_LONG,         /* it, or its request, is longer than a limit */
    PUBLISH_MAP_DIFFERS,      /* other brokers have another map, and more right */
};
#define PUBLISH_REFUSAL_COUNT 6

/* As in metrics. */
const char *publish_refusal_label(int refusal);

/* Where an accepted message stands, to be asked for the answer of its shards (delivery.ack: shard). */
struct publish_ticket {
    unsigned count; /* 0: nothing to wait for */
    struct publish_place {
        uint16_t partition;
        uint64_t sequence;
    } places[2];
};

enum publish_answer { ANSWER_DUE, ANSWER_CONFIRMED, ANSWER_REFUSED };

/* What a message waits for; it is published when publish_must_wait() says that it need not wait any more. */
enum publish_wait_for {
    PUBLISH_WAITS_FOR_NOTHING,
    PUBLISH_WAITS_FOR_READERS, /* every subscriber of the channel that reads is behind */
    PUBLISH_WAITS_FOR_ANY_SHARD, /* all are full */
    PUBLISH_WAITS_FOR_SHARD,     /* that of its partition is full */
    PUBLISH_WAITS_FOR_ENTRY,     /* its client's enter_room is not applied yet */
};

struct publish_wait {
    enum publish_wait_for what;
    uint16_t partition; /* of SHARD */
    uint64_t which;     /* the same for all that wait for the same channel, or shard */
};

struct publish_result {
    bool must_wait;           /* nothing was done; ask again at on_relief */
    struct publish_wait wait; /* what for */
    bool is_accepted;
    const uint8_t *
        host_id; /* accepted: its publisher's, 16 bytes, until the next message; or NULL */
    unsigned receivers;           /* accepted: interests of this broker's clients */
    struct publish_ticket ticket; /* accepted */
    enum publish_refusal refusal; /* refused */
    char text[256];               /* refused: the error for the client, "ERR …" */
};

/* Everything but `map` (NULL without shards) is borrowed and required; `turn` gets a step that writes to
 * the shards. The shards are made and started by publisher_start. */
struct publisher *publisher_new(struct event_base *base, struct turn *turn,
                                const struct broker_config *config,
                                const struct partition_map *map,
                                struct interest_table *interest,
                                struct deliverer *deliverer);
void publisher_free(struct publisher *publisher);

/* `on_relief` as in struct shard_callbacks. Without shards: nothing to do. */
void publisher_start(struct publisher *publisher, void (*on_relief)(void *context),
                     void *context);

/* Takes over another configuration (borrowed until the next one); its shards are a change of the map. False: too many
 * changes wait for other brokers, and nothing was done. Not from a callback of a link. */
bool publisher_reload(struct publisher *publisher,
                      const struct broker_config *config) MUST_CHECK;

/* A broker that does not take part in a change of the map is not waited for. */
void publisher_go_on_without(struct publisher *publisher, uint64_t origin);

/* NULL: the embedded hub. */
const struct map_change *publisher_map(const struct publisher *publisher);
const struct peer_table *publisher_peers(const struct publisher *publisher);

/* What is known without reading the payload: must the message wait? `*wait` says what it waited for so far (zero: it
 * is new), and then what it waits for. `waited`: for how long, microseconds. Those that wait come before new ones. */
bool publish_must_wait(const struct publisher *publisher, struct slice channel,
                       uint64_t waited, uint64_t now, struct publish_wait *wait);

/* After publish_must_wait(). `dialect` and `echo` are the client's: it is read by the one, and both learn from it. `waited` is for how long the same message has waited
 * before, microseconds; `now` as timing_now(). */
void publish_message(struct publisher *publisher, struct dialect_view *dialect,
                     struct echo_view *echo, struct slice channel, struct slice payload,
                     uint64_t waited, uint64_t now, struct publish_result *result);

/* Pods with a client manager are here, or not any more. */
void publisher_set_managers(struct publisher *publisher, bool has_managers);

/* An enter_room was delivered here: calls `on_entry`. The envelope lives until it returns. */
void publisher_watch_entries(struct publisher *publisher,
                             void (*on_entry)(void *context,
                                              const struct envelope *envelope),
                             void *context);

/* Its client's pod gets what is published to the room from now on. */
void publisher_say_entered(struct publisher *publisher, uint64_t origin,
                           uint64_t message_id);

/* What the shards of an accepted message have said. on_relief is called when it changes. */
enum publish_answer publish_answer(const struct publisher *publisher,
                                   const struct publish_ticket *ticket);

/* Is the payload of this channel a python-socketio message? */
bool publisher_knows_channel(const struct publisher *publisher, struct slice channel);

/* Is everything received that is wanted: subscriptions confirmed, and other brokers have said where they are? */
bool publisher_is_settled(const struct publisher *publisher);

/* limits.channels: of one client. */
size_t publisher_channels_max(const struct publisher *publisher);

/* Subscribers at other brokers; NULL: the embedded hub. */
const struct subscriber_counts *publisher_counts(const struct publisher *publisher);

/* Is everything received of a partition that is wanted: its subscriptions are confirmed where a link is up, and all
 * other brokers have said where they are since it is wanted? */
bool publisher_has_joined(const struct publisher *publisher, unsigned partition);

/* For a pod with a client manager: callbacks to its host_id (32 hex digits), and what the broker cannot tell the rooms of.
 * Returns what publisher_unwant_pod needs. */
uint64_t publisher_want_pod(struct publisher *publisher, struct slice channel,
                            struct slice host_id);
void publisher_unwant_pod(struct publisher *publisher, uint64_t wanted);

/* For a room ("": everybody) that such a pod needs: its partition, wanted from now on until it is given back; or
 * UINT32_MAX (hub). */
uint32_t publisher_want_room(struct publisher *publisher, struct slice channel,
                             struct slice namespace, struct slice room);
void publisher_unwant_room(struct publisher *publisher, uint32_t partition);

/* Other brokers have another map, and more right: why, for people; this broker is not ready, and refuses publishes. NULL:
 * there are none. */
const char *publisher_outvoted(const struct publisher *publisher);

/* For agreement.h; not of the hub. */
struct agreement publisher_agreement(const struct publisher *publisher);

/* By which other brokers know this one; random for each start. */
uint64_t publisher_origin(const struct publisher *publisher);

/* NULL: the embedded hub. */
const struct gate *publisher_gate(const struct publisher *publisher);

/* NULL: the embedded hub. */
struct shard_set *publisher_shards(struct publisher *publisher);

/* Nothing of ours waits for a shard, and what was sent has come back to local subscribers. */
bool publisher_is_idle(const struct publisher *publisher);

/* A few times a second: what did not come back, rings, silent origins. */
void publisher_tick(struct publisher *publisher);

/* The busiest rooms of what this broker's clients publish. */
const struct hot_rooms *publisher_hot_rooms(const struct publisher *publisher);

struct publisher_status {
    uint64_t origin;
    uint64_t map_hash;
    size_t spill_bytes;
    size_t spill_messages;
    size_t sent_ring_bytes;
    size_t sent_ring_messages;
    unsigned origins; /* other brokers heard of */
    unsigned live_brokers;
    size_t gaps, held_bytes;
};
struct publisher_status publisher_status(const struct publisher *publisher);
