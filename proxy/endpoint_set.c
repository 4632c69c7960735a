#include "proxy/endpoint_set.h"

#include "proxy/endpoint_tls.h"
#include "proxy/learned_sids.h"
#include "proxy/tag_table.h"
#include "proxy/upstream.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Places in the tag table from here on are tombstones. */
#define TOMBSTONE_PLACES UINT32_C(0x40000000)

#define MD5_LEN     16
#define MD5_HEX_LEN 32

struct tombstone {
    uint64_t tag;
    uint64_t gone; /* when */
    size_t key;    /* place in the set's keys */
};

struct endpoint_index {
    uint64_t *tags; /* entries × keys, the entries' `tags` point into it */
    struct tag_table by_tag;
    struct tombstone *tombstones; /* oldest first */
    size_t tombstones_len;
    size_t collisions;
    struct tag_table by_legacy;       /* by the first half of the MD5 */
    unsigned char (*legacy)[MD5_LEN]; /* one an entry; NULL when switched off */
    char legacy_suffix[MD5_HEX_LEN];  /* what stands behind '|' in such a cookie */
};

const char *endpoint_state_word(enum endpoint_state state)
{
    switch (state) {
    case ENDPOINT_WARMING:
        return "warming";
    case ENDPOINT_READY:
        return "ready";
    case ENDPOINT_DEGRADED:
        return "degraded";
    case ENDPOINT_DRAINING:
        return "draining";
    case ENDPOINT_CLOSING:
        return "closing";
    case ENDPOINT_GONE:
        return "gone";
    }
    unreachable();
}

/* ── entries, sorted by identity and port ── */

static int compare_specs(const void *a, const void *b)
{
    const struct endpoint_spec *one = *(const struct endpoint_spec *const *)a;
    const struct endpoint_spec *other = *(const struct endpoint_spec *const *)b;
    int order = endpoint_identity_compare(one->who.identity, one->who.port,
                                          other->who.identity, other->who.port);
    /* equal ones in the order they were given, so that the first can be kept */
    return order != 0 ? order : (one > other) - (one < other);
}

static const struct endpoint_entry *find_identity(const struct endpoint_set *set,
                                                  struct slice identity, unsigned port)
{
    size_t low = 0, high = set->len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct endpoint *endpoint = set->entries[middle].endpoint;
        int order = endpoint_identity_compare(slice_from_text(endpoint->identity),
                                              endpoint->port, identity, port);
        if (order == 0)
            return &set->entries[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static struct endpoint *carry_on_or_new(struct endpoint_set *set,
                                        const struct endpoint_set *previous,
                                        const struct endpoint_identity *who, uint64_t now)
{
    const struct endpoint_entry *before =
        previous != NULL ? find_identity(previous, who->identity, who->port) : NULL;
    if (before != NULL && address_equals(&before->endpoint->address, &who->address))
        return endpoint_ref(before->endpoint);
    return endpoint_new(set->upstream, who, now, previous == NULL);
}

static void add_entries(struct endpoint_set *set, const struct endpoint_spec *specs,
                        size_t specs_len, const struct endpoint_set *previous,
                        uint64_t now)
{
    const struct endpoint_spec **sorted = must_calloc(specs_len, sizeof(*sorted));
    for (size_t i = 0; i < specs_len; i++)
        sorted[i] = &specs[i];
    qsort(sorted, specs_len, sizeof(*sorted), compare_specs);

    set->entries = must_calloc(specs_len, sizeof(struct endpoint_entry));
    for (size_t i = 0; i < specs_len; i++) {
        const struct endpoint_identity *who = &sorted[i]->who;
        check(sorted[i]->state != ENDPOINT_GONE);
        if (i > 0 && endpoint_identity_compare(sorted[i - 1]->who.identity,
                                               sorted[i - 1]->who.port, who->identity,
                                               who->port) == 0)
            continue;
        struct endpoint_entry *entry = &set->entries[set->len++];
        entry->endpoint = carry_on_or_new(set, previous, who, now);
        entry->state = sorted[i]->state;
        entry->is_ordered = sorted[i]->is_ordered;
        entry->keeps_tunnels = sorted[i]->keeps_tunnels;
        entry->weight = sorted[i]->weight < ENDPOINT_WEIGHT_MAX ? sorted[i]->weight
                                                                : ENDPOINT_WEIGHT_MAX;
    }
    free(sorted);
}

/* Names are the label and the port: processes of one pod differ by the port alone. An endpoint of weight 0
 * keeps its place with weight 1 and is refused when asked. */
static void rank_entries(struct endpoint_set *set)
{
    struct slice *names = must_calloc(set->len, sizeof(*names));
    unsigned *weights = must_calloc(set->len, sizeof(*weights));
    for (size_t i = 0; i < set->len; i++) {
        const struct endpoint *endpoint = set->entries[i].endpoint;
        char *name = must_printf("%s%c%u", endpoint->label, 0, endpoint->port);
        size_t label_len = strlen(endpoint->label) + 1;
        names[i] = slice_of(name, label_len + strlen(name + label_len));
        weights[i] = set->entries[i].weight > 0 ? set->entries[i].weight : 1;
    }
    set->rendezvous = rendezvous_new(names, weights, set->len);
    for (size_t i = 0; i < set->len; i++)
        free((void *)(uintptr_t)names[i].data);
    free(names);
    free(weights);
}

/* ── tags and tombstones ── */

/* Tags need not be computed again when the keys stayed and no collision made them depend on others. */
static const uint64_t *tags_before(const struct endpoint_set *set,
                                   const struct endpoint_set *previous,
                                   const struct endpoint *endpoint)
{
    if (previous == NULL || previous->index->collisions > 0 ||
        !file_keys_equal(&previous->keys, &set->keys))
        return NULL;
    const struct endpoint_entry *before =
        find_identity(previous, slice_from_text(endpoint->identity), endpoint->port);
    return before != NULL ? before->tags : NULL;
}

static void add_tags(struct endpoint_set *set, const struct endpoint_set_options *options,
                     const struct endpoint_set *previous)
{
    struct endpoint_index *index = set->index;
    size_t keys = set->keys.count;
    struct slice upstream = slice_from_text(set->upstream->name);
    index->tags = must_calloc(set->len * keys, sizeof(*index->tags));
    for (size_t i = 0; i < set->len; i++) {
        uint64_t *tags = &index->tags[i * keys];
        const struct endpoint *endpoint = set->entries[i].endpoint;
        const uint64_t *before = tags_before(set, previous, endpoint);
        for (size_t key = 0; key < keys; key++) {
            unsigned attempt = 0;
            tags[key] = before != NULL
                            ? before[key]
                            : options->make_tag(&set->keys.keys[key], upstream,
                                                slice_from_text(endpoint->identity),
                                                endpoint->port, 0);
            while (!tag_table_add(&index->by_tag, key, tags[key], (uint32_t)i)) {
                index->collisions++;
                tags[key] = options->make_tag(&set->keys.keys[key], upstream,
                                              slice_from_text(endpoint->identity),
                                              endpoint->port, ++attempt);
            }
        }
        set->entries[i].tags = tags;
    }
}

/* Notes a tag as gone, unless its key is no longer known, an endpoint has it (again), or it is noted. */
static void add_tombstone(struct endpoint_set *set, char key_id, uint64_t tag,
                          uint64_t gone)
{
    struct endpoint_index *index = set->index;
    int key = file_keys_find(&set->keys, key_id);
    if (key < 0 || !tag_table_add(&index->by_tag, (size_t)key, tag,
                                  TOMBSTONE_PLACES + (uint32_t)index->tombstones_len))
        return;
    index->tombstones[index->tombstones_len++] =
        (struct tombstone){.tag = tag, .gone = gone, .key = (size_t)key};
}

static bool is_expired(const struct tombstone *tombstone, uint64_t now)
{
    return tombstone->gone + ENDPOINT_TOMBSTONE_LIFE <= now;
}

static bool has_departed(const struct endpoint_set *set,
                         const struct endpoint_entry *previous)
{
    const struct endpoint *endpoint = previous->endpoint;
    return find_identity(set, slice_from_text(endpoint->identity), endpoint->port) ==
           NULL;
}

/* How many tags of `previous` have lost their endpoint. An endpoint that stays loses none, even where a key was
 * replaced under the same ID: its old tags are then simply not known any more. */
static size_t count_departed(const struct endpoint_set *set,
                             const struct endpoint_set *previous)
{
    size_t departed = 0;
    for (size_t i = 0; i < previous->len; i++)
        if (has_departed(set, &previous->entries[i]))
            departed += previous->keys.count;
    return departed;
}

/* `departed` new ones behind as many of the old ones as the bound leaves, the oldest being left out. */
static void add_tombstones(struct endpoint_set *set, const struct endpoint_set *previous,
                           size_t departed, uint64_t now)
{
    const struct endpoint_index *before = previous->index;
    size_t room = ENDPOINT_TOMBSTONES_MAX - min_size(departed, ENDPOINT_TOMBSTONES_MAX);
    size_t first = before->tombstones_len - min_size(before->tombstones_len, room);
    set->index->tombstones =
        must_calloc(before->tombstones_len - first + departed, sizeof(struct tombstone));
    for (size_t i = first; i < before->tombstones_len; i++) {
        const struct tombstone *tombstone = &before->tombstones[i];
        if (!is_expired(tombstone, now))
            add_tombstone(set, previous->keys.keys[tombstone->key].id, tombstone->tag,
                          tombstone->gone);
    }
    for (size_t i = 0; i < previous->len; i++)
        for (size_t key = 0;
             key < previous->keys.count && has_departed(set, &previous->entries[i]);
             key++)
            if (set->index->tombstones_len < ENDPOINT_TOMBSTONES_MAX)
                add_tombstone(set, previous->keys.keys[key].id,
                              previous->entries[i].tags[key], now);
}

enum tag_meaning endpoint_set_find_tag(const struct endpoint_set *set, size_t key,
                                       uint64_t tag, uint64_t now,
                                       const struct endpoint_entry **entry)
{
    uint32_t place = tag_table_find(&set->index->by_tag, key, tag);
    if (place == TAG_TABLE_NONE)
        return TAG_UNKNOWN;
    if (place >= TOMBSTONE_PLACES)
        return is_expired(&set->index->tombstones[place - TOMBSTONE_PLACES], now)
                   ? TAG_UNKNOWN
                   : TAG_TOMBSTONE;
    *entry = &set->entries[place];
    return TAG_KNOWN;
}

/* ── cookies of ingress-nginx ── */

static void md5(struct slice first, struct slice second, unsigned char digest[MD5_LEN])
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    check(context != NULL);
    check(EVP_DigestInit_ex(context, EVP_md5(), NULL) == 1);
    check(EVP_DigestUpdate(context, first.data, first.len) == 1);
    check(EVP_DigestUpdate(context, second.data, second.len) == 1);
    check(EVP_DigestFinal_ex(context, digest, NULL) == 1);
    EVP_MD_CTX_free(context);
}

static void write_hex(const unsigned char digest[MD5_LEN], char hex[MD5_HEX_LEN])
{
    for (size_t i = 0; i < MD5_LEN; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
}

static uint64_t first_half(const unsigned char digest[MD5_LEN])
{
    uint64_t half;
    memcpy(&half, digest, sizeof(half));
    return half;
}

static void add_legacy(struct endpoint_set *set, struct slice name)
{
    struct endpoint_index *index = set->index;
    index->legacy = must_calloc(set->len, sizeof(*index->legacy));
    for (size_t i = 0; i < set->len; i++) {
        char text[ADDRESS_TEXT_SIZE];
        address_text(&set->entries[i].endpoint->address, text);
        md5(name, slice_from_text(text), index->legacy[i]);
        /* of two endpoints at one address the first is as good as the other */
        tag_table_add(&index->by_legacy, 0, first_half(index->legacy[i]), (uint32_t)i);
    }
    unsigned char digest[MD5_LEN];
    char hex[MD5_HEX_LEN];
    md5(name, SLICE(""), digest);
    write_hex(digest, hex);
    md5(slice_of(hex, sizeof(hex)), name, digest);
    write_hex(digest, index->legacy_suffix);
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

const struct endpoint_entry *endpoint_set_find_legacy(const struct endpoint_set *set,
                                                      struct slice cookie)
{
    const struct endpoint_index *index = set->index;
    size_t bar = slice_find(cookie, '|');
    if (index->legacy == NULL || bar != MD5_HEX_LEN)
        return NULL;
    if (bar < cookie.len &&
        !slice_equals(slice_from(cookie, bar + 1),
                      slice_of(index->legacy_suffix, sizeof(index->legacy_suffix))))
        return NULL;
    unsigned char digest[MD5_LEN];
    for (size_t i = 0; i < MD5_LEN; i++) {
        int high = hex_value(cookie.data[2 * i]), low = hex_value(cookie.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return NULL;
        digest[i] = (unsigned char)(high << 4 | low);
    }
    uint32_t place = tag_table_find(&index->by_legacy, 0, first_half(digest));
    if (place == TAG_TABLE_NONE ||
        memcmp(index->legacy[place], digest, sizeof(digest)) != 0)
        return NULL;
    return &set->entries[place];
}

/* ── life ── */

/* ---- draining ---- */

/* Endpoints that terminate, and those that are gone, are to lose their tunnels by and by; where there is somewhere
 * to go. */
static void note_draining(struct endpoint_set *set, const struct endpoint_set *previous,
                          uint64_t now)
{
    set->drain_changes = previous != NULL ? previous->drain_changes : 0;
    for (size_t i = 0; i < set->len; i++) {
        const struct endpoint_entry *entry = &set->entries[i];
        set->drain_changes += endpoint_note_draining(
            entry->endpoint, entry->state >= ENDPOINT_DRAINING && !entry->keeps_tunnels,
            now);
    }
    for (size_t i = 0; previous != NULL && i < previous->len; i++)
        if (endpoint_set_find(set, previous->entries[i].endpoint) == NULL)
            set->drain_changes +=
                endpoint_note_draining(previous->entries[i].endpoint, true, now);
}

struct endpoint_set *endpoint_set_new(struct upstream *upstream,
                                      const struct endpoint_set_options *options,
                                      const struct endpoint_spec *specs, size_t specs_len,
                                      const struct endpoint_set *previous, uint64_t now)
{
    check(specs_len < TOMBSTONE_PLACES && options->keys->count > 0);
    struct endpoint_set_options filled = *options;
    if (filled.make_tag == NULL)
        filled.make_tag = route_tag_make;

    struct endpoint_set *set = must_calloc(1, sizeof(*set));
    atomic_init(&set->holders, 1);
    set->upstream = upstream_ref(upstream);
    set->learned = previous != NULL ? learned_sids_ref(previous->learned)
                                    : learned_sids_new(options->learned_maximum);
    learned_sids_set_maximum(set->learned, options->learned_maximum);
    set->keys = *options->keys;
    set->place_after = options->place_after;
    set->slow_start = options->slow_start;
    set->is_static = options->is_static;
    add_entries(set, specs, specs_len, previous, now);
    rank_entries(set);
    note_draining(set, previous, now);

    set->index = must_calloc(1, sizeof(*set->index));
    size_t departed = previous != NULL ? count_departed(set, previous) : 0;
    size_t tombstones_before = previous != NULL ? previous->index->tombstones_len : 0;
    tag_table_init(&set->index->by_tag,
                   set->len * set->keys.count + departed + tombstones_before);
    add_tags(set, &filled, previous);
    if (previous != NULL)
        add_tombstones(set, previous, departed, now);
    tag_table_init(&set->index->by_legacy, set->len);
    if (options->ingress_upstream_name.len > 0)
        add_legacy(set, options->ingress_upstream_name);
    return set;
}

void endpoint_set_secure(struct endpoint_set *set, struct endpoint_tls *tls)
{
    endpoint_tls_unref(set->tls);
    set->tls = endpoint_tls_ref(tls);
}

struct endpoint_set *endpoint_set_ref(struct endpoint_set *set)
{
    atomic_fetch_add_explicit(&set->holders, 1, memory_order_relaxed);
    return set;
}

void endpoint_set_unref(struct endpoint_set *set)
{
    if (atomic_fetch_sub_explicit(&set->holders, 1, memory_order_acq_rel) != 1)
        return;
    struct endpoint_index *index = set->index;
    tag_table_cleanup(&index->by_tag);
    tag_table_cleanup(&index->by_legacy);
    free(index->tags);
    free(index->tombstones);
    free(index->legacy);
    free(index);
    rendezvous_free(set->rendezvous);
    endpoint_tls_unref(set->tls);
    learned_sids_unref(set->learned);
    for (size_t i = 0; i < set->len; i++)
        endpoint_unref(set->entries[i].endpoint);
    free(set->entries);
    upstream_unref(set->upstream);
    free(set);
}

/* ── questions ── */

const struct endpoint_entry *endpoint_set_find(const struct endpoint_set *set,
                                               const struct endpoint *endpoint)
{
    const struct endpoint_entry *entry =
        find_identity(set, slice_from_text(endpoint->identity), endpoint->port);
    return entry != NULL && entry->endpoint == endpoint ? entry : NULL;
}

enum endpoint_state endpoint_entry_state(const struct endpoint_set *set,
                                         const struct endpoint_entry *entry, uint64_t now)
{
    if (entry->state == ENDPOINT_READY && set->place_after > 0 &&
        !entry->endpoint->is_founder && now < entry->endpoint->created + set->place_after)
        return ENDPOINT_WARMING;
    return entry->state;
}

double endpoint_entry_weight(const struct endpoint_set *set,
                             const struct endpoint_entry *entry, uint64_t now)
{
    const struct endpoint *endpoint = entry->endpoint;
    double weight = entry->weight;
    if (set->slow_start == 0 || endpoint->is_founder)
        return weight;
    uint64_t age = now > endpoint->created ? now - endpoint->created : 0;
    if (age >= set->slow_start)
        return weight;
    return weight * (0.1 + 0.9 * (double)age / (double)set->slow_start);
}

double endpoint_entry_load(const struct endpoint_set *set,
                           const struct endpoint_entry *entry, uint64_t now)
{
    double weight = endpoint_entry_weight(set, entry, now);
    return weight > 0 ? endpoint_sessions(entry->endpoint, now) / weight : INFINITY;
}

size_t endpoint_set_tombstones(const struct endpoint_set *set, uint64_t now)
{
    size_t living = 0;
    for (size_t i = 0; i < set->index->tombstones_len; i++)
        living += !is_expired(&set->index->tombstones[i], now);
    return living;
}

size_t endpoint_set_collisions(const struct endpoint_set *set)
{
    return set->index->collisions;
}

void endpoint_set_check(const struct endpoint_set *set)
{
    const struct endpoint_index *index = set->index;
    const struct tag_table *table = &index->by_tag;
    check(table->count == set->len * set->keys.count + index->tombstones_len);
    check(table->count * 2 <= table->slots_len);
    check(rendezvous_count(set->rendezvous) == set->len);
    check(index->tombstones_len <= ENDPOINT_TOMBSTONES_MAX);
    for (size_t i = 0; i < set->len; i++) {
        const struct endpoint_entry *entry = &set->entries[i];
        const struct endpoint *endpoint = entry->endpoint;
        check(atomic_load(&endpoint->holders) > 0);
        check(endpoint->upstream == set->upstream);
        check(entry->weight <= ENDPOINT_WEIGHT_MAX && entry->state != ENDPOINT_GONE);
        check(endpoint_set_find(set, endpoint) == entry);
        if (i > 0)
            check(endpoint_identity_compare(slice_from_text(entry[-1].endpoint->identity),
                                            entry[-1].endpoint->port,
                                            slice_from_text(endpoint->identity),
                                            endpoint->port) < 0);
        for (size_t key = 0; key < set->keys.count; key++)
            check(tag_table_find(table, key, entry->tags[key]) == i);
    }
    for (size_t i = 0; i < index->tombstones_len; i++) {
        const struct tombstone *tombstone = &index->tombstones[i];
        check(tag_table_find(table, tombstone->key, tombstone->tag) ==
              TOMBSTONE_PLACES + i);
        check(i == 0 || tombstone[-1].gone <= tombstone->gone);
    }
}
