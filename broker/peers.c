#include "broker/peers.h"

#include <openssl/rand.h>
#include <stdlib.h>

struct tomb {
    uint64_t origin;
    struct number_track track;
    bool has_ready_at;
    uint64_t ready_at, age;
};

struct peer_table {
    peer_shard_cb next_shard;
    void *context;
    void (*on_displaced)(void *context, uint64_t origin);
    void *displaced_context;
    bool wants_answers;
    TAILQ_HEAD(, peer) peers;
    unsigned count;
    struct tomb tombs[PEERS_TOMBS_MAX];
    unsigned tomb_count, tomb_next;
    uint64_t forgotten_ready_at; /* the latest of tombs that were overwritten; 0: none */
};

struct peer_table *peer_table_new(peer_shard_cb next_shard, void *context)
{
    struct peer_table *table = must_calloc(1, sizeof(*table));
    table->next_shard = next_shard;
    table->context = context;
    TAILQ_INIT(&table->peers);
    return table;
}

void peer_table_on_displaced(struct peer_table *table,
                             void (*on_displaced)(void *context, uint64_t origin),
                             void *context)
{
    table->on_displaced = on_displaced;
    table->displaced_context = context;
}

static void remove_peer(struct peer_table *table, struct peer *peer)
{
    TAILQ_REMOVE(&table->peers, peer, of_table);
    table->count--;
    free(peer);
}

void peer_table_free(struct peer_table *table)
{
    struct peer *peer;
    while ((peer = TAILQ_FIRST(&table->peers)) != NULL)
        remove_peer(table, peer);
    free(table);
}

/* Its index, or -1. */
static int tomb_find(const struct peer_table *table, uint64_t origin)
{
    for (unsigned i = 0; i < table->tomb_count; i++)
        if (table->tombs[i].origin == origin)
            return (int)i;
    return -1;
}

static void entomb(struct peer_table *table, const struct peer *peer)
{
    struct tomb *tomb = &table->tombs[table->tomb_next];
    if (tomb->origin != 0 && tomb->has_ready_at &&
        tomb->ready_at > table->forgotten_ready_at)
        table->forgotten_ready_at = tomb->ready_at;
    *tomb = (struct tomb){peer->origin, peer->track, peer->has_ready_at, peer->ready_at,
                          peer->age};
    table->tomb_next = (table->tomb_next + 1) % PEERS_TOMBS_MAX;
    if (table->tomb_count < PEERS_TOMBS_MAX)
        table->tomb_count++;
}

/* How much speaks for it: that it is a broker, and that it lives. */
static unsigned standing_of(const struct peer *peer, uint64_t standing)
{
    return peer_is_live(peer, standing) ? 3
           : peer->has_ready_at         ? 2
           : peer_is_stranger(peer)     ? 0
                                        : 1;
}

/* Makes room for another. False: all are live. */
static bool displace(struct peer_table *table, uint64_t standing)
{
    struct peer *least = NULL;
    struct peer *peer;
    unsigned lowest = 3;
    TAILQ_FOREACH(peer, &table->peers, of_table)
    {
        unsigned rank = standing_of(peer, standing);
        if (rank > lowest ||
            (rank == lowest && least != NULL && peer->heard_at >= least->heard_at))
            continue;
        if (rank == 3)
            continue;
        lowest = rank;
        least = peer;
    }
    if (least == NULL)
        return false;
    if (table->on_displaced != NULL)
        table->on_displaced(table->displaced_context, least->origin);
    if (lowest > 1)
        entomb(table, least);
    remove_peer(table, least);
    return true;
}

/* NULL: there is no room. */
static struct peer *add_peer(struct peer_table *table, uint64_t origin, uint64_t standing)
{
    if (table->count == PEERS_MAX && !displace(table, standing))
        return NULL;
    struct peer *peer = must_calloc(1, sizeof(*peer));
    peer->origin = origin;
    peer->heard_at = standing;
    TAILQ_INSERT_TAIL(&table->peers, peer, of_table);
    table->count++;
    return peer;
}

struct peer *peer_find(const struct peer_table *table, uint64_t origin)
{
    struct peer *peer;
    TAILQ_FOREACH(peer, &table->peers, of_table)
    if (peer->origin == origin)
        return peer;
    return NULL;
}

struct peer *peer_get(struct peer_table *table, uint64_t origin, uint64_t standing)
{
    struct peer *peer = peer_find(table, origin);
    if (peer == NULL && !peer_is_tomb(table, origin))
        peer = add_peer(table, origin, standing);
    return peer;
}

/* The peer of a tomb that a newer heartbeat opens. NULL: there is no room. */
static struct peer *exhume(struct peer_table *table, struct tomb *tomb, uint64_t standing)
{
    struct peer *peer = add_peer(table, tomb->origin, standing);
    if (peer == NULL)
        return NULL;
    peer->has_ready_at = tomb->has_ready_at;
    peer->ready_at = tomb->ready_at;
    peer->age = tomb->age;
    peer->back_at = standing;
    peer->is_known = tomb->has_ready_at;
    peer->is_back = true;
    tomb->origin = 0; /* no origin is 0 */
    return peer;
}

/* Ready for the first time that we hear. A tomb that was overwritten may have been its: delays make an age look less than
 * it is, by less than PEER_KEEP. */
static void note_ready(const struct peer_table *table, struct peer *peer, uint64_t age,
                       uint64_t now)
{
    peer->has_ready_at = true;
    peer->ready_at = now - (age < now / 1000 ? age * 1000 : now);
    peer->is_known = table->forgotten_ready_at != 0 &&
                     peer->ready_at <= table->forgotten_ready_at + PEER_KEEP;
}

static bool has_bit(const uint8_t *bits, size_t shard)
{
    return (bits[shard / 8] & (1U << (shard % 8))) != 0;
}

static void set_bit(uint8_t *bits, size_t shard)
{
    bits[shard / 8] |= (uint8_t)(1U << (shard % 8));
}

/* One entry of its list; returns whether it names a place. */
static bool take_name(const struct peer_table *table, struct peer *peer,
                      struct slice name, uint8_t *alone)
{
    uint64_t place;
    bool has_place = control_take_place(&name, &place);
    size_t found = 0;
    size_t last = 0;
    struct peer_shard shard;
    for (size_t i = 0; table->next_shard(table->context, i, &shard); i++) {
        if (shard.index >= PEER_SHARDS_MAX || !slice_equals(shard.name, name))
            continue;
        if (has_place && shard.place == place)
            set_bit(peer->subscribed, shard.index);
        if (!has_place)
            set_bit(peer->named, shard.index);
        found++;
        last = shard.index;
    }
    if (!has_place && found == 1)
        set_bit(alone, last);
    return has_place;
}

static void take_subscribed(const struct peer_table *table, struct peer *peer,
                            struct control_list list)
{
    uint8_t alone[PEER_SHARDS_MAX / 8] = {0};
    bool says_places = false;
    memset(peer->subscribed, 0, sizeof(peer->subscribed));
    memset(peer->named, 0, sizeof(peer->named));
    struct slice name;
    peer->has_outline = false;
    while (control_next_name(&list, &name)) {
        if (control_read_outline(name, &peer->outline))
            peer->has_outline = true;
        else
            says_places |= take_name(table, peer, name, alone);
    }
    if (!says_places)
        memcpy(peer->subscribed, alone, sizeof(alone));
}

static void take_facts(struct peer_table *table, struct peer *peer,
                       const struct control_facts *facts)
{
    peer->used = facts->used;
    peer->loaded = facts->loaded;
    peer->moves = (facts->flags & CONTROL_MOVES) != 0;
    peer->carries_count = 0;
    struct control_list list = facts->carries;
    uint64_t hash;
    while (control_next_hash(&list, &hash))
        peer->carries[peer->carries_count++] = hash;
    take_subscribed(table, peer, facts->subscribed);
}

enum peer_news peer_hear(struct peer_table *table, const struct control *control,
                         uint64_t standing, uint64_t now, struct peer **found)
{
    *found = NULL;
    int tomb = tomb_find(table, control->sender);
    struct number_track track = {0};
    if (tomb >= 0) {
        enum track_verdict verdict =
            number_track_take(&table->tombs[tomb].track, control->number, standing);
        if (verdict != TRACK_NEWS)
            return verdict == TRACK_LATE ? PEER_OLD : PEER_REFUSED;
        track = table->tombs[tomb].track;
    } else if (control->number >= TRACK_NUMBER_MAX) {
        return PEER_REFUSED;
    }
    struct peer *peer = tomb >= 0 ? exhume(table, &table->tombs[tomb], standing)
                                  : peer_get(table, control->sender, standing);
    if (peer == NULL)
        return PEER_REFUSED;
    enum track_verdict verdict =
        tomb >= 0 ? TRACK_NEWS
                  : number_track_take(&peer->track, control->number, standing);
    if (verdict == TRACK_IMPLAUSIBLE)
        return PEER_REFUSED;
    *found = peer;
    if (verdict == TRACK_LATE)
        return PEER_OLD;
    if (tomb >= 0)
        peer->track = track;
    const struct control_facts *facts = &control->facts;
    bool is_new = peer->number == 0;
    if (peer_is_silent(peer, standing))
        peer->back_at = standing;
    peer->number = control->number;
    peer->heard_at = standing;
    peer->is_ready = (facts->flags & CONTROL_READY) != 0;
    peer->has_managers = (facts->flags & CONTROL_MANAGERS) != 0;
    take_facts(table, peer, facts);
    if (peer->is_ready) {
        peer->lacks_tails |=
            facts->age > peer->age && facts->age - peer->age > PEER_TAILS_JOIN_MS;
        peer->age = facts->age;
    }
    if (peer->is_ready && !peer->has_ready_at) {
        note_ready(table, peer, facts->age, now);
        return PEER_NOW_READY;
    }
    return is_new ? PEER_NEW : PEER_KNOWN;
}

void peer_table_want_answers(struct peer_table *table, bool wants_answers)
{
    table->wants_answers = wants_answers;
}

bool peer_is_believed(const struct peer_table *table, const struct peer *peer)
{
    return peer != NULL && !peer_is_stranger(peer) &&
           (!table->wants_answers || peer->answered_question != 0);
}

bool peer_has_shown_map(const struct peer *peer)
{
    return peer->answered_question != 0 && peer->answered_map == peer->used;
}

uint64_t peer_random_id(void)
{
    uint64_t id = 0;
    while (id == 0)
        check(RAND_bytes((unsigned char *)&id, (int)sizeof(id)) == 1);
    return id;
}

bool peer_is_stranger(const struct peer *peer)
{
    return peer->number == 0;
}

bool peer_is_tomb(const struct peer_table *table, uint64_t origin)
{
    return tomb_find(table, origin) >= 0;
}

bool peer_is_live(const struct peer *peer, uint64_t standing)
{
    return peer->is_ready && standing - peer->heard_at <= PEER_LIVE;
}

bool peer_is_present(const struct peer *peer, uint64_t standing)
{
    return peer->number != 0 && standing - peer->heard_at <= PEER_LIVE;
}

bool peer_is_silent(const struct peer *peer, uint64_t standing)
{
    return standing - peer->heard_at > PEER_SILENT;
}

bool peer_is_subscribed(const struct peer *peer, size_t shard)
{
    return shard < PEER_SHARDS_MAX &&
           (has_bit(peer->subscribed, shard) ||
            (has_bit(peer->named, shard) &&
             (has_bit(peer->heard[0], shard) || has_bit(peer->heard[1], shard))));
}

void peer_hear_on(struct peer *peer, size_t shard, uint64_t standing)
{
    if (shard >= PEER_SHARDS_MAX)
        return;
    uint64_t passed = standing - peer->heard_since;
    if (passed > PEER_LIVE) {
        if (passed > 2 * PEER_LIVE)
            memset(peer->heard[0], 0, sizeof(peer->heard[0]));
        memcpy(peer->heard[1], peer->heard[0], sizeof(peer->heard[0]));
        memset(peer->heard[0], 0, sizeof(peer->heard[0]));
        peer->heard_since = standing;
    }
    set_bit(peer->heard[0], shard);
}

bool peer_carries(const struct peer *peer, uint64_t map)
{
    for (unsigned i = 0; i < peer->carries_count; i++)
        if (peer->carries[i] == map)
            return true;
    return false;
}

bool peers_have_managers(const struct peer_table *table, uint64_t standing)
{
    const struct peer *peer;
    TAILQ_FOREACH(peer, &table->peers, of_table)
    if (peer->has_managers && peer_is_live(peer, standing))
        return true;
    return false;
}

struct peer *peer_first(const struct peer_table *table)
{
    return TAILQ_FIRST(&table->peers);
}

unsigned peer_live_count(const struct peer_table *table, uint64_t standing)
{
    unsigned count = 0;
    const struct peer *peer;
    TAILQ_FOREACH(peer, &table->peers, of_table)
    count += peer_is_live(peer, standing);
    return count;
}

bool peers_hear_shard(const struct peer_table *table, size_t shard, uint64_t map,
                      uint64_t standing)
{
    const struct peer *peer;
    TAILQ_FOREACH(peer, &table->peers, of_table)
    if (peer_is_live(peer, standing) &&
        !(peer_is_subscribed(peer, shard) && peer_carries(peer, map)))
        return false;
    return true;
}

bool peers_are_heard(const struct peer_table *table, uint64_t standing)
{
    const struct peer *peer;
    TAILQ_FOREACH(peer, &table->peers, of_table)
    if (peer->has_ready_at && peer_is_silent(peer, standing))
        return false;
    return true;
}

void peers_forget_shard(struct peer_table *table, size_t shard)
{
    struct peer *peer;
    TAILQ_FOREACH(peer, &table->peers, of_table)
    {
        uint8_t *const all[] = {peer->subscribed, peer->named, peer->heard[0],
                                peer->heard[1]};
        for (size_t i = 0; i < ARRAY_LEN(all); i++)
            all[i][shard / 8] &= (uint8_t) ~(1U << (shard % 8));
    }
}

uint64_t peer_bury(struct peer_table *table, uint64_t standing)
{
    struct peer *peer;
    TAILQ_FOREACH(peer, &table->peers, of_table)
    if (standing - peer->heard_at > PEER_KEEP) {
        uint64_t origin = peer->origin;
        entomb(table, peer);
        remove_peer(table, peer);
        return origin;
    }
    return 0;
}
