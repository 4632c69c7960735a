/*
 * What is kept while something of an (origin, partition) is missing. See receive.h.
 */
#include "broker/receive_parts.h"

#include "broker/implausible.h"
#include "broker/peers.h"
#include "broker/standing_clock.h"

#include <assert.h>
#include <stdlib.h>

struct gap *gap_find(const struct receiver *receiver, uint64_t origin, unsigned partition)
{
    if (receiver->gap_count == 0)
        return NULL;
    const struct gap_key key = {origin, partition};
    struct gap *gap;
    HASH_FIND(hh, receiver->gaps_by_key, &key, sizeof(key), gap);
    return gap;
}

struct gap *gap_get(struct receiver *receiver, uint64_t origin, unsigned partition)
{
    struct gap *gap = gap_find(receiver, origin, partition);
    if (gap != NULL)
        return gap;
    gap = must_calloc(1, sizeof(*gap));
    gap->key = (struct gap_key){origin, partition};
    TAILQ_INIT(&gap->held);
    HASH_ADD(hh, receiver->gaps_by_key, key, sizeof(gap->key), gap);
    TAILQ_INSERT_TAIL(&receiver->gaps, gap, of_receiver);
    receiver->gap_count++;
    const struct peer *peer = peer_find(receiver->peers, origin);
    gap->is_of_stranger =
        origin != receiver->origin && (peer == NULL || peer_is_stranger(peer));
    receiver->gaps_of_strangers += gap->is_of_stranger;
    return gap;
}

void gap_hear_of(struct gap *gap, uint64_t sequence)
{
    if (sequence <= gap->known)
        return;
    gap->known = sequence;
    gap->known_at = standing_now();
}

void gap_let_go(struct receiver *receiver, struct gap *gap, struct held *held)
{
    TAILQ_REMOVE(&gap->held, held, of_gap);
    size_t bytes = sizeof(*held) + held->len;
    gap->held_bytes -= bytes;
    receiver->held_bytes -= bytes;
    receiver->held_of_strangers -= gap->is_of_stranger ? bytes : 0;
    free(held);
}

void gap_free(struct receiver *receiver, struct gap *gap)
{
    struct held *held;
    while ((held = TAILQ_FIRST(&gap->held)) != NULL)
        gap_let_go(receiver, gap, held);
    assert(receiver->gaps_by_key != NULL); /* it holds this gap */
    HASH_DEL(receiver->gaps_by_key, gap);
    TAILQ_REMOVE(&receiver->gaps, gap, of_receiver);
    receiver->gap_count--;
    receiver->gaps_of_strangers -= gap->is_of_stranger;
    free(gap);
}

bool gap_hold(struct receiver *receiver, struct gap *gap, uint64_t sequence,
              struct slice bytes, bool is_gone)
{
    /* From the end: messages come in order, except those that were asked for. */
    struct held *before;
    TAILQ_FOREACH_REVERSE(before, &gap->held, held_list, of_gap)
    if (before->sequence <= sequence)
        break;
    if (before != NULL && before->sequence == sequence)
        return false;
    struct held *held = must_realloc(NULL, sizeof(*held) + bytes.len);
    held->sequence = sequence;
    held->is_gone = is_gone;
    held->len = bytes.len;
    if (bytes.len > 0)
        memcpy(held->bytes, bytes.data, bytes.len);
    if (before != NULL)
        TAILQ_INSERT_AFTER(&gap->held, before, held, of_gap);
    else
        TAILQ_INSERT_HEAD(&gap->held, held, of_gap);
    size_t cost = sizeof(*held) + held->len;
    gap->held_bytes += cost;
    receiver->held_bytes += cost;
    receiver->held_of_strangers += gap->is_of_stranger ? cost : 0;
    return true;
}

void gap_disbelieve(struct receiver *receiver, struct gap *gap, uint64_t last)
{
    struct held *held;
    while ((held = TAILQ_LAST(&gap->held, held_list)) != NULL && held->sequence > last)
        gap_let_go(receiver, gap, held);
    gap->known = last;
    implausible_note(IMPLAUSIBLE_SEQUENCE, gap->key.origin);
}
