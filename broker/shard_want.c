/*
 * What is subscribed where: the partitions that somebody wants, on home and standby of every map that is carried. See
 * shard.h.
 *
 *     want ─▶ partition ─▶ of each map: home, standby ─▶ SEAT_WANTED ─link up─▶ ASKED ─▶ CONFIRMED
 *     carry ─▶ the same for all wanted partitions of one more map; drop ─▶ what no other map needs is given up
 */
#include "broker/shard_parts.h"

#include "broker/broker_config.h"
#include "broker/partition_map.h"
#include "broker/shard_url.h"
#include "broker/standing_clock.h"
#include "shared/timing.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* ── names ── */

#define CHANNEL_MAX 128

static struct slice channel_of(const struct shard_set *set, unsigned partition,
                               char text[CHANNEL_MAX])
{
    int len = snprintf(text, CHANNEL_MAX, "%s%04x", set->prefix, partition);
    check(len > 0 && len < CHANNEL_MAX);
    return slice_of(text, (size_t)len);
}

bool shard_partition_of(const struct shard_set *set, struct slice channel,
                        unsigned *partition)
{
    if (channel.len != set->prefix_len + 4 ||
        memcmp(channel.data, set->prefix, set->prefix_len) != 0)
        return false;
    unsigned number = 0;
    for (size_t i = set->prefix_len; i < channel.len; i++) {
        char c = channel.data[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0)
            return false;
        number = number * 16 + (unsigned)digit;
    }
    *partition = number;
    return number < set->partition_count;
}

/* ── one shard ── */

static void note_due(struct shard *shard, unsigned count)
{
    if (shard->due == 0)
        shard->due_since = standing_now();
    shard->due += count;
}

static void ask(struct shard *shard, unsigned number)
{
    uint8_t *seat = &shard->seats[number];
    if ((*seat & SEAT_ASKED) != 0 || link_state(shard->subscribing) != LINK_UP)
        return;
    char text[CHANNEL_MAX];
    *seat |= SEAT_ASKED;
    note_due(shard, 1);
    link_subscribe(shard->subscribing, channel_of(shard->set, number, text));
}

static void unask(struct shard *shard, unsigned number)
{
    uint8_t *seat = &shard->seats[number];
    if ((*seat & SEAT_ASKED) == 0)
        return;
    char text[CHANNEL_MAX];
    shard->confirmed_count -= (*seat & SEAT_CONFIRMED) != 0;
    *seat &= SEAT_WANTED;
    link_unsubscribe(shard->subscribing, channel_of(shard->set, number, text));
}

static void seat_want(struct shard *shard, unsigned number)
{
    if ((shard->seats[number] & SEAT_WANTED) == 0)
        shard->wanted++;
    shard->seats[number] |= SEAT_WANTED;
    ask(shard, number);
}

static void seat_unwant(struct shard *shard, unsigned number)
{
    if ((shard->seats[number] & SEAT_WANTED) == 0)
        return;
    shard->wanted--;
    unask(shard, number);
    shard->seats[number] = 0;
}

void shard_ask_all(struct shard *shard)
{
    struct shard_set *set = shard->set;
    link_subscribe(shard->subscribing, slice_from_text(set->control_channel));
    link_subscribe(shard->subscribing, slice_from_text(set->own_channel));
    note_due(shard, 2);
    for (unsigned i = 0; i < set->partition_count; i++)
        if ((shard->seats[i] & SEAT_WANTED) != 0)
            ask(shard, i);
    shard->complete_due = shard->due;
}

void shard_forget_asked(struct shard *shard)
{
    struct shard_set *set = shard->set;
    for (unsigned i = 0; i < set->partition_count; i++)
        shard->seats[i] &= SEAT_WANTED;
    shard->due = shard->complete_due = shard->carry_due = shard->confirmed_count = 0;
    if (!shard->is_complete)
        return;
    shard->is_complete = false;
    set->callbacks.on_complete(set->callbacks.context, shard, false);
}

void shard_take_confirmation(struct shard *shard, struct slice channel)
{
    struct shard_set *set = shard->set;
    if (shard->due == 0)
        return;
    unsigned number;
    if (shard_partition_of(set, channel, &number)) {
        uint8_t *seat = &shard->seats[number];
        if ((*seat & SEAT_ASKED) != 0 && (*seat & SEAT_CONFIRMED) == 0) {
            *seat |= SEAT_CONFIRMED;
            shard->confirmed_count++;
        }
    }
    /* Confirmations come in the order of SUBSCRIBE: the first ones are of the connect, then of a map. */
    shard->due--;
    shard->due_since = standing_now();
    bool was_carried = shard->carry_due == 0;
    if (!was_carried)
        shard->carry_due--;
    if (shard->complete_due > 0 && --shard->complete_due == 0) {
        shard->is_complete = true;
        set->callbacks.on_complete(set->callbacks.context, shard, true);
        shard_set_place(set);
    } else if (!was_carried && shard->carry_due == 0) {
        set->callbacks.on_carried(set->callbacks.context);
    }
    if (shard->due == 0)
        shard_settle(set);
}

/* ── partitions ── */

static const struct carried_map *carried_find(const struct shard_set *set,
                                              const struct partition_map *map)
{
    for (size_t i = 0; i < set->map_count; i++)
        if (set->maps[i].map == map)
            return &set->maps[i];
    return NULL;
}

/* The slot of home (rank 0) or standby by one map. */
static uint16_t slot_by(const struct carried_map *carried, unsigned number, unsigned rank)
{
    uint16_t place = rank == 0 ? partition_map_shard(carried->map, number)
                               : partition_map_standby(carried->map, number);
    return place == PARTITION_NO_SHARD ? SHARD_NOWHERE : carried->slots[place];
}

static void want_by(struct shard_set *set, const struct carried_map *carried,
                    unsigned number)
{
    for (unsigned rank = 0; rank < SHARD_RANKS; rank++) {
        uint16_t slot = slot_by(carried, number, rank);
        if (slot != SHARD_NOWHERE)
            seat_want(set->slots[slot], number);
    }
}

static void set_wanted(struct shard_set *set, unsigned number, bool is_wanted)
{
    set->partitions[number].is_wanted = is_wanted;
    set->callbacks.on_wanted(set->callbacks.context, number, is_wanted);
    for (size_t i = 0; is_wanted && i < set->map_count; i++)
        want_by(set, &set->maps[i], number);
    for (size_t i = 0; !is_wanted && i < set->count; i++)
        seat_unwant(set->shards[i], number);
}

static void want(struct shard_set *set, unsigned number)
{
    struct partition *partition = &set->partitions[number];
    if (partition->wants++ > 0)
        return;
    if (partition->is_wanted)
        set->lingering--;
    else
        set_wanted(set, number, true);
}

static void unwant(struct shard_set *set, unsigned number)
{
    struct partition *partition = &set->partitions[number];
    check(partition->wants > 0);
    if (--partition->wants > 0)
        return;
    partition->unwanted_at = timing_now();
    set->lingering++;
}

void shard_unwant_lingering(struct shard_set *set, uint64_t now)
{
    for (unsigned i = 0; set->lingering > 0 && i < set->partition_count; i++) {
        struct partition *partition = &set->partitions[i];
        if (partition->is_wanted && partition->wants == 0 &&
            now - partition->unwanted_at > SHARD_LINGER) {
            set->lingering--;
            set_wanted(set, i, false);
        }
    }
}

void shard_set_want(struct shard_set *set, uint32_t partition)
{
    if (partition != SHARD_ALL_PARTITIONS) {
        want(set, partition);
        return;
    }
    if (set->wants_all++ == 0)
        for (unsigned i = 0; i < set->partition_count; i++)
            want(set, i);
}

void shard_set_unwant(struct shard_set *set, uint32_t partition)
{
    if (partition != SHARD_ALL_PARTITIONS) {
        unwant(set, partition);
        return;
    }
    check(set->wants_all > 0);
    if (--set->wants_all == 0)
        for (unsigned i = 0; i < set->partition_count; i++)
            unwant(set, i);
}

bool shard_set_is_wanted(const struct shard_set *set, unsigned partition)
{
    return set->partitions[partition].is_wanted;
}

/* ── maps ── */

static struct shard *find_by(const struct shard_set *set,
                             const struct broker_shard_config *config)
{
    return shard_set_find_at(set, slice_from_text(config->name),
                             shard_url_place(slice_from_text(config->url)));
}

static bool has_room(const struct shard_set *set, const struct broker_config *config)
{
    size_t count = set->count;
    for (size_t i = 0; i < broker_config_shard_count(config); i++)
        count += find_by(set, broker_config_shard(config, i)) == NULL;
    return count <= SHARDS_MAX && set->map_count < SHARD_MAPS_MAX;
}

static void set_left(struct shard *shard, bool is_left)
{
    if (shard->is_left == is_left)
        return;
    shard->is_left = is_left;
    free(shard->label);
    struct shard_url url = {0};
    check(shard_url_parse(slice_from_text(shard->config->url), &url) == NULL);
    char *place = shard_url_name(&url);
    shard->label = is_left ? must_printf("%s (%s)", shard->config->name, place)
                           : must_strdup(shard->config->name);
    free(place);
    shard_url_cleanup(&url);
}

/* Those whose names lead elsewhere now. */
static void note_left(struct shard_set *set, const struct broker_config *config)
{
    for (size_t i = 0; i < set->count; i++) {
        struct shard *shard = set->shards[i];
        for (size_t j = 0; j < broker_config_shard_count(config); j++) {
            const struct broker_shard_config *now = broker_config_shard(config, j);
            if (strcmp(now->name, shard->config->name) == 0)
                set_left(shard, find_by(set, now) != shard);
        }
    }
}

/* The same shard with another configuration: its links connect again where user, password or TLS have changed. */
static void reconfigure(struct shard *shard, const struct broker_shard_config *config)
{
    bool is_elsewhere = strcmp(shard->config->url, config->url) != 0;
    broker_shard_config_replace(shard->config, config);
    if (!is_elsewhere)
        return;
    link_close(shard->publishing, CLOSE_LINK_MOVED);
    link_close(shard->subscribing, CLOSE_LINK_MOVED);
}

void shard_set_reconfigure(struct shard_set *set, const struct broker_config *config)
{
    for (size_t i = 0; i < broker_config_shard_count(config); i++) {
        const struct broker_shard_config *shard_config = broker_config_shard(config, i);
        struct shard *shard = find_by(set, shard_config);
        if (shard != NULL)
            reconfigure(shard, shard_config);
    }
    note_left(set, config);
}

bool shard_set_carry(struct shard_set *set, const struct partition_map *map,
                     const struct broker_config *config)
{
    if (!has_room(set, config))
        return false;
    struct carried_map *carried = &set->maps[set->map_count++];
    carried->map = map;
    carried->count = broker_config_shard_count(config);
    carried->slots = must_calloc(carried->count, sizeof(uint16_t));
    for (size_t i = 0; i < carried->count; i++) {
        const struct broker_shard_config *shard_config = broker_config_shard(config, i);
        struct shard *shard = find_by(set, shard_config);
        if (shard == NULL)
            shard = shard_open(set, broker_shard_config_copy(shard_config));
        else
            reconfigure(shard, shard_config);
        carried->slots[i] = (uint16_t)shard->index;
    }
    note_left(set, config);
    for (unsigned i = 0; i < set->partition_count; i++)
        if (set->partitions[i].is_wanted)
            want_by(set, carried, i);
    for (size_t i = 0; i < set->count; i++)
        set->shards[i]->carry_due = set->shards[i]->due;
    return true;
}

bool shard_set_all_of(const struct shard_set *set, const struct partition_map *map,
                      bool (*visit)(void *context, const struct shard *shard),
                      void *context)
{
    const struct carried_map *carried = carried_find(set, map);
    check(carried != NULL);
    for (size_t i = 0; i < carried->count; i++)
        if (!visit(context, set->slots[carried->slots[i]]))
            return false;
    return true;
}

static bool is_carrying(void *context UNUSED, const struct shard *shard)
{
    return shard->is_complete && shard->carry_due == 0;
}

bool shard_set_carries(const struct shard_set *set, const struct partition_map *map)
{
    return shard_set_all_of(set, map, is_carrying, NULL);
}

void shard_set_use(struct shard_set *set, const struct partition_map *map)
{
    const struct carried_map *carried = carried_find(set, map);
    check(carried != NULL);
    for (size_t i = 0; i < set->count; i++)
        set->shards[i]->partitions = 0;
    for (unsigned i = 0; i < set->partition_count; i++) {
        struct partition *partition = &set->partitions[i];
        for (unsigned rank = 0; rank < SHARD_RANKS; rank++)
            partition->best[rank] = slot_by(carried, i, rank);
        set->slots[partition->best[0]]->partitions++;
    }
    shard_set_place(set);
}

/* Does a carried map have the partition there? */
static bool is_needed(const struct shard *shard, unsigned number)
{
    const struct shard_set *set = shard->set;
    for (size_t i = 0; i < set->map_count; i++)
        for (unsigned rank = 0; rank < SHARD_RANKS; rank++)
            if (slot_by(&set->maps[i], number, rank) == shard->index)
                return true;
    return false;
}

static bool is_in_a_map(const struct shard *shard)
{
    const struct shard_set *set = shard->set;
    for (size_t i = 0; i < set->map_count; i++)
        for (size_t j = 0; j < set->maps[i].count; j++)
            if (set->maps[i].slots[j] == shard->index)
                return true;
    return false;
}

void shard_set_drop(struct shard_set *set, const struct partition_map *map)
{
    size_t place = 0;
    while (place < set->map_count && set->maps[place].map != map)
        place++;
    check(place < set->map_count);
    free(set->maps[place].slots);
    set->map_count--;
    memmove(&set->maps[place], &set->maps[place + 1],
            (set->map_count - place) * sizeof(set->maps[0]));
    for (size_t i = set->count; i-- > 0;) {
        struct shard *shard = set->shards[i];
        if (!is_in_a_map(shard)) {
            shard_close(shard);
            continue;
        }
        for (unsigned number = 0; number < set->partition_count; number++)
            if ((shard->seats[number] & SEAT_WANTED) != 0 && !is_needed(shard, number))
                seat_unwant(shard, number);
    }
}
