/*
 * Where partitions are sent, and what happens when that changes. See shard.h.
 */
#include "broker/shard_parts.h"

#include "broker/broker_metrics.h"
#include "broker/link.h"
#include "broker/standing_clock.h"
#include "shared/log.h"

/* ── usable shards ── */

static void judge(struct shard *shard, uint64_t now)
{
    struct shard_set *set = shard->set;
    bool is_usable = set->is_ready && link_state(shard->publishing) == LINK_UP &&
                     shard->is_complete && !shard->refuses &&
                     set->callbacks.is_heard(set->callbacks.context, shard->index);
    if (is_usable == shard->is_usable)
        return;
    shard->is_usable = is_usable;
    shard->usable_since = now;
    shard->changed_at = timing_now();
    shard->downs += !is_usable;
    shard_tell(shard);
    set->callbacks.on_change(set->callbacks.context, shard);
}

static bool may_send(const struct shard_set *set, uint16_t shard)
{
    return shard != SHARD_NOWHERE &&
           link_state(set->slots[shard]->publishing) == LINK_UP &&
           !set->slots[shard]->refuses;
}

static uint16_t choose(const struct shard_set *set, const struct partition *partition,
                       uint64_t now)
{
    uint16_t current = partition->sent_to;
    if (current != partition->best[0] && current != partition->best[1])
        current = SHARD_NOWHERE; /* of the map before */
    bool is_current_usable = current != SHARD_NOWHERE && set->slots[current]->is_usable;
    for (unsigned rank = 0; rank < SHARD_RANKS; rank++) {
        uint16_t candidate = partition->best[rank];
        if (candidate == SHARD_NOWHERE || !set->slots[candidate]->is_usable)
            continue;
        if (!is_current_usable || candidate == current ||
            now - set->slots[candidate]->usable_since >= SHARD_FAIL_BACK)
            return candidate;
    }
    if (may_send(set, current))
        return current;
    for (unsigned rank = 0; rank < SHARD_RANKS; rank++)
        if (may_send(set, partition->best[rank]))
            return partition->best[rank];
    return SHARD_NOWHERE;
}

/* ── moves ── */

static void put(struct shard_set *set, uint16_t shard, struct sent *sent)
{
    if (shard != SHARD_NOWHERE) {
        outbox_put(set->slots[shard]->outbox, sent);
        return;
    }
    check(!sent->is_queued);
    sent->is_queued = true;
    TAILQ_INSERT_TAIL(&set->homeless, sent, of_queue);
    set->homeless_count++;
}

static void take_out(struct shard_set *set, uint16_t shard, struct sent *sent)
{
    if (!sent->is_queued)
        return; /* it was in flight */
    if (shard != SHARD_NOWHERE) {
        outbox_remove(set->slots[shard]->outbox, sent);
        return;
    }
    sent->is_queued = false;
    TAILQ_REMOVE(&set->homeless, sent, of_queue);
    set->homeless_count--;
}

/* Unconfirmed messages, and those confirmed just now, go first on the new shard, in order. */
static void move(struct shard_set *set, unsigned number, uint16_t to)
{
    struct partition *partition = &set->partitions[number];
    uint16_t from = partition->sent_to;
    partition->sent_to = to;
    if (from != SHARD_NOWHERE) {
        set->slots[from]->sent_here--;
        outbox_void(set->slots[from]->outbox, number);
    }
    if (to != SHARD_NOWHERE)
        set->slots[to]->sent_here++;
    uint64_t now = timing_now();
    struct sent *sent;
    for (sent = sent_ring_first_of(set->ring, (uint16_t)number); sent != NULL;
         sent = TAILQ_NEXT(sent, of_partition)) {
        if (sent->state == SENT_WAITING) {
            take_out(set, from, sent);
        } else {
            /* Where it was first sent nobody may have heard it. */
            if (to == SHARD_NOWHERE || now - sent->confirmed_at > SHARD_CONFIRMED_LATELY)
                continue;
            sent_ring_return(set->ring, sent);
        }
        put(set, to, sent);
    }
    if (from != SHARD_NOWHERE)
        metrics_add(M_MOVES, 1);
    if (to == SHARD_NOWHERE)
        set->callbacks.on_homeless(set->callbacks.context, number);
}

void shard_set_take_out(struct shard_set *set, struct sent *sent)
{
    take_out(set, set->partitions[sent->partition].sent_to, sent);
}

void shard_set_place(struct shard_set *set)
{
    if (!set->is_ready)
        return;
    uint64_t now = standing_now();
    for (size_t i = 0; i < set->count; i++)
        judge(set->shards[i], now);
    bool has_moved = false;
    for (unsigned i = 0; i < set->partition_count; i++) {
        uint16_t to = choose(set, &set->partitions[i], now);
        if (to == set->partitions[i].sent_to)
            continue;
        move(set, i, to);
        has_moved = true;
    }
    for (size_t i = 0; has_moved && i < set->count; i++)
        shard_pump(set->shards[i]);
}

void shard_set_set_ready(struct shard_set *set)
{
    set->is_ready = true;
    shard_set_place(set);
}

void shard_set_send(struct shard_set *set, struct sent *sent)
{
    uint16_t to = set->partitions[sent->partition].sent_to;
    put(set, to, sent);
    if (to == SHARD_NOWHERE) {
        set->callbacks.on_homeless(set->callbacks.context, sent->partition);
        return;
    }
    struct shard *shard = set->slots[to];
    shard->was_full |= outbox_waiting_bytes(shard->outbox) > SHARD_FULL_BYTES;
    shard_pump(shard);
}
