#include "broker/agreement.h"

#include "broker/map_change.h"
#include "broker/partition_map.h"
#include "broker/peers.h"
#include "broker/standing_clock.h"
#include "shared/log.h"

#include <stdio.h>
#include <string.h>

/* Ages are heard with delays; within this two brokers are as old as each other. */
#define SAME_AGE SECONDS(2)

/* To finish a change of the map, when this broker starts beside it. */
#define WAIT_FOR_OTHERS SECONDS(20)

/* By what its heartbeats say. */
static bool seems_to_differ(const struct agreement *agreement, const struct peer *peer)
{
    const struct map_change *map = agreement->map;
    return peer->used != map_change_used(map) && !map_change_knows(map, peer->used) &&
           !map_change_knows(map, peer->loaded) &&
           !peer_carries(peer, map_change_used(map)) &&
           !map_change_is_without(map, peer->origin) &&
           peer_is_present(peer, standing_now());
}

bool agreement_differs(const struct agreement *agreement, const struct peer *peer)
{
    return peer_has_shown_map(peer) && seems_to_differ(agreement, peer);
}

bool agreement_wants_answer(const struct agreement *agreement, const struct peer *peer)
{
    return !peer_has_shown_map(peer) && seems_to_differ(agreement, peer);
}

static void add(char text[AGREEMENT_TEXT_SIZE], const char *word)
{
    size_t len = strlen(text);
    snprintf(text + len, AGREEMENT_TEXT_SIZE - len, "%s%s", len > 0 ? ", " : "", word);
}

void agreement_write(const struct agreement *agreement, const struct peer *peer,
                     char text[AGREEMENT_TEXT_SIZE])
{
    static const char *const orders[] = {"room", "namespace", "total"};
    struct map_outline own = map_change_outline(agreement->map);
    const struct map_outline *other = &peer->outline;
    char part[80];
    text[0] = '\0';
    if (!peer->has_outline) {
        add(text, "partitions, order, channels, shards or weights");
        return;
    }
    if (other->partitions != own.partitions) {
        snprintf(part, sizeof(part), "partitions (%u, here %u)", other->partitions,
                 own.partitions);
        add(text, part);
    }
    if (other->order != own.order) {
        snprintf(part, sizeof(part), "order (%s, here %s)",
                 other->order < ARRAY_LEN(orders) ? orders[other->order] : "unknown",
                 orders[own.order]);
        add(text, part);
    }
    if (other->channels != own.channels)
        add(text, "channels");
    if (other->shards != own.shards)
        add(text, "names or weights of shards");
}

/* Then what is published arrives, at the pace of asking. */
static bool differs_in_shards_only(const struct agreement *agreement,
                                   const struct peer *peer)
{
    struct map_outline own = map_change_outline(agreement->map);
    return peer->has_outline && peer->outline.partitions == own.partitions &&
           peer->outline.order == own.order && peer->outline.channels == own.channels;
}

/* Those who use one map. */
struct party {
    uint64_t hash;
    unsigned count;
    uint64_t
        ready_at; /* of the one that has been READY for longest; UINT64_MAX: none is */
};

static void join(struct party *party, uint64_t ready_at)
{
    party->count++;
    if (ready_at < party->ready_at)
        party->ready_at = ready_at;
}

static uint64_t ready_at_of(const struct peer *peer)
{
    return peer->is_ready ? peer->ready_at : UINT64_MAX;
}

/* `is_ready_only`: who is not READY does not count. Of those with another map count only those who have shown it. */
static struct party party_of(const struct agreement *agreement, uint64_t hash,
                             bool is_ready_only)
{
    struct party party = {.hash = hash, .ready_at = UINT64_MAX};
    uint64_t now = standing_now();
    const struct peer *peer;
    for (peer = peer_first(agreement->peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (peer->used == hash && peer_is_present(peer, now) &&
            (peer->is_ready || !is_ready_only) &&
            (hash == map_change_used(agreement->map) || peer_has_shown_map(peer)))
            join(&party, ready_at_of(peer));
    if (hash == map_change_used(agreement->map))
        join(&party, agreement->ready_at != 0 ? agreement->ready_at : UINT64_MAX);
    return party;
}

static bool has_more_right(const struct party *party, const struct party *other)
{
    if (party->count != other->count)
        return party->count > other->count;
    uint64_t apart = party->ready_at > other->ready_at
                         ? party->ready_at - other->ready_at
                         : other->ready_at - party->ready_at;
    return apart > SAME_AGE ? party->ready_at < other->ready_at
                            : party->hash < other->hash;
}

static bool is_outvoted_by(const struct agreement *agreement, const struct peer *peer,
                           bool is_in_use)
{
    if (!agreement_differs(agreement, peer))
        return false;
    if (is_in_use && agreement->ready_at != 0 &&
        (!peer->is_ready || differs_in_shards_only(agreement, peer)))
        return false;
    if (peer->is_ready && agreement->ready_at == 0)
        return true; /* this one is not needed yet */
    if (is_in_use && !peer->is_ready)
        return false;
    struct party ours = party_of(agreement, map_change_used(agreement->map), is_in_use);
    struct party theirs = party_of(agreement, peer->used, is_in_use);
    return has_more_right(&theirs, &ours);
}

const struct peer *agreement_outvoted_by(const struct agreement *agreement)
{
    struct party ours = party_of(agreement, map_change_used(agreement->map), true);
    bool is_in_use = ours.ready_at != UINT64_MAX;
    const struct peer *peer;
    for (peer = peer_first(agreement->peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (is_outvoted_by(agreement, peer, is_in_use))
            return peer;
    return NULL;
}

bool agreement_has_other(const struct agreement *agreement)
{
    uint64_t now = standing_now();
    const struct peer *peer;
    for (peer = peer_first(agreement->peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (peer_is_live(peer, now) && peer->used != map_change_used(agreement->map))
            return true;
    return false;
}

/* Once for each map of a broker that is another one. */
static void tell_differs(const struct agreement *agreement, struct peer *peer)
{
    bool differs = agreement_differs(agreement, peer);
    if (peer->named_map == (differs ? peer->used : 0))
        return;
    peer->named_map = differs ? peer->used : 0;
    char origin[20];
    snprintf(origin, sizeof(origin), "%016llx", (unsigned long long)peer->origin);
    if (!differs) {
        log_info(LOG_SUBJECT("map"), "no difference to another broker any more",
                 LOG_TEXT("origin", origin));
        return;
    }
    char what[AGREEMENT_TEXT_SIZE];
    agreement_write(agreement, peer, what);
    log_error(LOG_SUBJECT("map"), "another broker has a different map",
              LOG_TEXT("origin", origin), LOG_TEXT("differs", what),
              LOG_BOOL("ready", peer->is_ready));
}

/* A change is under way, and does not end: what would be accepted now would be too old when it does. */
static bool waits_for_long(const struct agreement *agreement,
                           struct agreement_verdict *verdict)
{
    uint64_t now = standing_now();
    if (agreement->ready_at != 0 || !agreement_has_other(agreement))
        verdict->waits_since = 0;
    else if (verdict->waits_since == 0)
        verdict->waits_since = now;
    return verdict->waits_since != 0 && now - verdict->waits_since > WAIT_FOR_OTHERS;
}

void agreement_look(const struct agreement *agreement, struct agreement_verdict *verdict)
{
    struct peer *peer;
    for (peer = peer_first(agreement->peers); peer != NULL;
         peer = TAILQ_NEXT(peer, of_table))
        if (peer->number != 0)
            tell_differs(agreement, peer);
    const struct peer *other = agreement_outvoted_by(agreement);
    bool was_outvoted = verdict->outvoted[0] != '\0';
    verdict->outvoted[0] = '\0';
    if (waits_for_long(agreement, verdict))
        snprintf(verdict->outvoted, sizeof(verdict->outvoted),
                 "other brokers still use another map");
    if (other != NULL) {
        char what[AGREEMENT_TEXT_SIZE];
        agreement_write(agreement, other, what);
        snprintf(verdict->outvoted, sizeof(verdict->outvoted),
                 "broker %016llx has a different map: %.120s",
                 (unsigned long long)other->origin, what);
    }
    bool is_outvoted = verdict->outvoted[0] != '\0';
    if (!was_outvoted && is_outvoted)
        log_error(LOG_SUBJECT("map"), "not ready, and publishes are refused",
                  LOG_TEXT("why", verdict->outvoted));
    if (was_outvoted && !is_outvoted)
        log_info(LOG_SUBJECT("map"), "publishes are accepted again");
}
