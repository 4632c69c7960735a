#include "proxy/route.h"

#include "shared/rendezvous.h"
#include "shared/timing.h"

#include "proxy/endpoint_set.h"
#include "proxy/learned_sids.h"
#include "proxy/placement.h"
#include "proxy/proxy_config.h"
#include "proxy/upstream.h"

#include <xxhash.h>

#define RATE_WAIT_MAX SECONDS(1) /* how long a handshake queues for max_handshake_rate */

const char *route_why_word(enum route_why why)
{
    switch (why) {
    case ROUTE_WHY_TAG:
        return "tag";
    case ROUTE_WHY_LEARNED:
        return "learned";
    case ROUTE_WHY_COOKIE:
        return "cookie";
    case ROUTE_WHY_LEGACY_COOKIE:
        return "legacy_cookie";
    case ROUTE_WHY_KEY:
        return "key";
    case ROUTE_WHY_PLACED:
        return "placed";
    case ROUTE_WHY_ONLY:
        return "only";
    }
    unreachable();
}

static const struct {
    const char *word;
    unsigned status;
} refusals[ROUTE_REFUSALS] = {
    [ROUTE_LOST_GONE] = {"gone", 400},
    [ROUTE_LOST_UNKNOWN_TAG] = {"unknown_tag", 400},
    [ROUTE_LOST_NO_ROUTE] = {"no_route", 400},
    [ROUTE_NO_ENDPOINT] = {"no_endpoint", 503},
    [ROUTE_ALL_FULL] = {"all_full", 503},
    [ROUTE_TOO_FAST] = {"too_fast", 503},
    [ROUTE_ALL_TRIED] = {"all_tried", 502},
};

const char *route_refusal_word(enum route_refusal refusal)
{
    return refusals[refusal].word;
}

/* ── which rule ── */

static bool host_matches(struct slice rule, struct slice host)
{
    if (slice_equals(rule, SLICE("*")))
        return true;
    if (!slice_starts_with(rule, SLICE("*.")))
        return slice_equals_nocase(rule, host);
    struct slice suffix =
        slice_from(rule, 1); /* ".example.com": one label more at least */
    return host.len > suffix.len &&
           slice_equals_nocase(slice_from(host, host.len - suffix.len), suffix);
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit = (char)(digit | 0x20);
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Takes the next byte of a path, percent-decoded so that "/%61dmin" meets the rule for "/admin"; an encoded
 * slash stays three bytes, it separates nothing. */
static char next_of_path(struct slice *path)
{
    char byte = path->data[0];
    size_t len = 1;
    if (byte == '%' && path->len >= 3) {
        int high = hex_value(path->data[1]), low = hex_value(path->data[2]);
        if (high >= 0 && low >= 0 && (high << 4 | low) != '/') {
            byte = (char)(high << 4 | low);
            len = 3;
        }
    }
    *path = slice_from(*path, len);
    return byte;
}

static bool path_matches(struct slice rule, struct slice path)
{
    for (size_t i = 0; i < rule.len; i++)
        if (path.len == 0 || next_of_path(&path) != rule.data[i])
            return false;
    return path.len == 0 || rule.data[rule.len - 1] == '/' || path.data[0] == '/';
}

const struct route_config *route_match(const struct proxy_config *config,
                                       struct slice host, struct slice path)
{
    if (slice_ends_with(host, SLICE(".")))
        host.len--; /* a fully qualified name is the same name */
    for (size_t i = 0; i < config->routes.count; i++) {
        const struct route_config *rule = proxy_config_route(config, i);
        if (host_matches(slice_from_text(rule->host), host) &&
            path_matches(slice_from_text(rule->path), path))
            return rule;
    }
    return NULL;
}

/* ── cookies ── */

static const struct split_config *member(const struct route_config *rule, size_t i)
{
    return OPTION_ITEM(rule->split, split_config, i);
}

const struct affinity_cookie_options *
route_cookie_options(const struct proxy_config *config, const struct route_config *rule)
{
    return &proxy_config_upstream(config, member(rule, 0)->upstream)->affinity.cookie;
}

/* The first well-formed affinity cookie of the upstream with this hash. */
static bool find_cookie(const struct proxy_config *config,
                        const struct route_config *rule, const struct route_facts *facts,
                        uint64_t upstream_hash, struct affinity_cookie *cookie)
{
    struct slice name = slice_from_text(route_cookie_options(config, rule)->name);
    for (size_t i = 0; i < min_size(facts->cookies_len, ROUTE_COOKIES_MAX); i++) {
        struct slice rest = facts->cookies[i], value;
        while (affinity_cookie_next(&rest, name, &value))
            if (affinity_cookie_parse(value, cookie) &&
                cookie->upstream_hash == upstream_hash)
                return true;
    }
    return false;
}

static const struct endpoint_entry *find_legacy(const struct upstream_config *upstream,
                                                const struct endpoint_set *set,
                                                const struct route_facts *facts)
{
    if (!upstream->affinity.has_ingress_nginx_cookie)
        return NULL;
    struct slice name = slice_from_text(upstream->affinity.ingress_nginx_cookie.name);
    for (size_t i = 0; i < min_size(facts->cookies_len, ROUTE_COOKIES_MAX); i++) {
        struct slice rest = facts->cookies[i], value;
        while (affinity_cookie_next(&rest, name, &value)) {
            const struct endpoint_entry *entry = endpoint_set_find_legacy(set, value);
            if (entry != NULL)
                return entry;
        }
    }
    return NULL;
}

/* ── which upstream ── */

static bool find_tagged_member(const struct snapshot *snapshot,
                               const struct route_config *rule,
                               const struct route_facts *facts, size_t *upstream)
{
    size_t key, bare_len;
    uint64_t tag;
    if (!route_tag_split(facts->sid, &snapshot->keys, &key, &tag, &bare_len))
        return false;
    for (size_t i = 0; i < rule->split.count; i++) {
        const struct endpoint_entry *entry;
        *upstream = member(rule, i)->upstream;
        if (endpoint_set_find_tag(snapshot->sets[*upstream], key, tag, facts->now,
                                  &entry) != TAG_UNKNOWN)
            return true;
    }
    return false;
}

static bool find_learned_member(const struct snapshot *snapshot,
                                const struct route_config *rule,
                                const struct route_facts *facts, size_t *upstream)
{
    for (size_t i = 0; i < rule->split.count; i++) {
        *upstream = member(rule, i)->upstream;
        struct endpoint *endpoint =
            learned_sids_find(snapshot->sets[*upstream]->learned, facts->sid, facts->now);
        if (endpoint != NULL) {
            endpoint_unref(endpoint);
            return true;
        }
    }
    return false;
}

static bool find_cookie_member(const struct snapshot *snapshot,
                               const struct route_config *rule,
                               const struct route_facts *facts, size_t *upstream)
{
    for (size_t i = 0; i < rule->split.count; i++) {
        struct affinity_cookie cookie;
        *upstream = member(rule, i)->upstream;
        if (find_cookie(snapshot->config, rule, facts,
                        snapshot->sets[*upstream]->upstream->hash, &cookie))
            return true;
    }
    for (size_t i = 0; i < rule->split.count; i++) {
        *upstream = member(rule, i)->upstream;
        if (find_legacy(proxy_config_upstream(snapshot->config, *upstream),
                        snapshot->sets[*upstream], facts) != NULL)
            return true;
    }
    return false;
}

static bool has_endpoints(const struct snapshot *snapshot, size_t upstream)
{
    return snapshot->sets[upstream]->len > 0;
}

static uint64_t add_weights(const struct snapshot *snapshot,
                            const struct route_config *rule, bool counts_empty)
{
    uint64_t total = 0;
    for (size_t i = 0; i < rule->split.count; i++)
        if (counts_empty || has_endpoints(snapshot, member(rule, i)->upstream))
            total += (uint64_t)member(rule, i)->weight;
    return total;
}

/* By weight, among the members that have endpoints. The draw uses other bits than the placement, which
 * takes random_key as it is. */
static size_t draw_member(const struct snapshot *snapshot,
                          const struct route_config *rule, uint64_t random_key)
{
    uint64_t total = add_weights(snapshot, rule, false);
    bool counts_empty = total == 0; /* any of them answers 503 */
    if (counts_empty)
        total = add_weights(snapshot, rule, true);
    check(total > 0);
    uint64_t draw = XXH64(&random_key, sizeof(random_key), 1) % total;
    for (size_t i = 0;; i++) {
        const struct split_config *candidate = member(rule, i);
        if (!counts_empty && !has_endpoints(snapshot, candidate->upstream))
            continue;
        if (draw < (uint64_t)candidate->weight)
            return candidate->upstream;
        draw -= (uint64_t)candidate->weight;
    }
}

size_t route_pick_upstream(const struct snapshot *snapshot,
                           const struct route_config *rule,
                           const struct route_facts *facts)
{
    if (rule->split.count == 1)
        return member(rule, 0)->upstream;
    size_t upstream;
    if (facts->kind == ROUTE_SESSION &&
        (find_tagged_member(snapshot, rule, facts, &upstream) ||
         find_learned_member(snapshot, rule, facts, &upstream)))
        return upstream;
    /* who comes for a new session does not wait for a member that has been emptied */
    if (find_cookie_member(snapshot, rule, facts, &upstream) &&
        (facts->kind == ROUTE_SESSION || has_endpoints(snapshot, upstream)))
        return upstream;
    if (facts->kind != ROUTE_SESSION)
        return draw_member(snapshot, rule, facts->random_key);
    /* nothing places this session; a member that has endpoints can say so, or have the only one */
    for (size_t i = 0; i < rule->split.count; i++)
        if (has_endpoints(snapshot, member(rule, i)->upstream))
            return member(rule, i)->upstream;
    return member(rule, 0)->upstream;
}

/* ── which endpoint: what every way needs ── */

/* One decision on its way. */
struct decision {
    const struct snapshot *snapshot;
    const struct route_config *rule;
    const struct upstream_config *upstream;
    const struct endpoint_set *set;
    const struct route_facts *facts;
    struct route *route;
    bool has_cookie; /* of this upstream; `cookie` holds it */
    struct affinity_cookie cookie;
};

static void found(struct decision *decision, const struct endpoint_entry *entry,
                  enum route_why why)
{
    struct route *route = decision->route;
    route->outcome = ROUTE_FOUND;
    route->why = why;
    route->entry = entry;
    route->key_id = decision->set->keys.keys[0].id;
    route->tag = entry->tags[0];
}

static void refused(struct decision *decision, enum route_refusal refusal)
{
    decision->route->outcome = ROUTE_REFUSED;
    decision->route->refusal = refusal;
    decision->route->status = refusals[refusal].status;
}

static void wait_for(struct decision *decision, uint64_t wait)
{
    decision->route->outcome = ROUTE_WAIT;
    decision->route->wait = wait;
}

static struct placement placement_of(const struct decision *decision)
{
    const struct route_facts *facts = decision->facts;
    return (struct placement){
        .upstream = decision->upstream,
        .set = decision->set,
        .tried = facts->tried,
        .tried_len = facts->tried_len,
        .is_limited = facts->kind == ROUTE_HANDSHAKE && !facts->is_options,
        .now = facts->now,
    };
}

static enum route_refusal refusal_of(enum placement_obstacle obstacle)
{
    switch (obstacle) {
    case PLACEMENT_NO_ENDPOINT:
        return ROUTE_NO_ENDPOINT;
    case PLACEMENT_ALL_TRIED:
        return ROUTE_ALL_TRIED;
    case PLACEMENT_ALL_FULL:
        return ROUTE_ALL_FULL;
    case PLACEMENT_TOO_FAST:
        return ROUTE_TOO_FAST;
    }
    unreachable();
}

/* What the tag in the cookie means; TAG_NONE without a cookie, or when it was made with another key. */
static enum tag_meaning find_cookie_tag(const struct decision *decision,
                                        const struct endpoint_entry **entry)
{
    int key = decision->has_cookie
                  ? file_keys_find(&decision->set->keys, decision->cookie.key_id)
                  : -1;
    return key < 0
               ? TAG_NONE
               : endpoint_set_find_tag(decision->set, (size_t)key, decision->cookie.tag,
                                       decision->facts->now, entry);
}

/* Adds the cookie to a route that was found, when it says something new. */
static void give_cookie(struct decision *decision)
{
    struct route *route = decision->route;
    if (route->outcome != ROUTE_FOUND || decision->facts->is_options)
        return;
    route->cookie = (struct affinity_cookie){
        .key_id = route->key_id,
        .tag = route->tag,
        .upstream_hash = decision->set->upstream->hash,
        .client_key = decision->has_cookie ? decision->cookie.client_key
                                           : decision->facts->random_key,
    };
    route->set_cookie = !decision->has_cookie ||
                        decision->cookie.key_id != route->cookie.key_id ||
                        decision->cookie.tag != route->cookie.tag;
}

/* ── a request that names a session ── */

/* A tag of ours that no endpoint has: another replica may have known of an endpoint earlier than we do.
 * False: there is nothing (more) to wait for. */
static bool wait_for_newer(struct decision *decision)
{
    uint64_t grace = decision->upstream->affinity.unknown_tag_grace;
    if (decision->set->is_static || decision->facts->waited >= grace)
        return false;
    wait_for(decision, grace - decision->facts->waited);
    return true;
}

static bool decide_by_learned(struct decision *decision)
{
    struct endpoint *endpoint = learned_sids_find(
        decision->set->learned, decision->facts->sid, decision->facts->now);
    if (endpoint == NULL)
        return false;
    const struct endpoint_entry *entry = endpoint_set_find(decision->set, endpoint);
    endpoint_unref(endpoint);
    if (entry != NULL)
        found(decision, entry, ROUTE_WHY_LEARNED);
    else
        refused(decision, ROUTE_LOST_GONE);
    return true;
}

static bool is_only(const struct decision *decision)
{
    size_t endpoints = 0;
    for (size_t i = 0; i < decision->rule->split.count; i++)
        endpoints += decision->snapshot->sets[member(decision->rule, i)->upstream]->len;
    return endpoints == 1 && decision->set->len == 1;
}

static void decide_session(struct decision *decision)
{
    const struct route_facts *facts = decision->facts;
    struct route *route = decision->route;
    const struct endpoint_entry *entry = NULL;
    size_t key;
    uint64_t tag;
    route->bare_sid_len = facts->sid.len;
    if (route_tag_split(facts->sid, &decision->set->keys, &key, &tag,
                        &route->bare_sid_len)) {
        route->is_tagged = true;
        enum tag_meaning meaning =
            endpoint_set_find_tag(decision->set, key, tag, facts->now, &entry);
        if (meaning == TAG_KNOWN)
            found(decision, entry, ROUTE_WHY_TAG);
        else if (meaning == TAG_TOMBSTONE)
            refused(decision, ROUTE_LOST_GONE);
        else if (!wait_for_newer(decision))
            refused(decision, ROUTE_LOST_UNKNOWN_TAG);
        return;
    }
    if (decide_by_learned(decision))
        return;

    enum tag_meaning meaning = find_cookie_tag(decision, &entry);
    if (meaning == TAG_KNOWN) {
        found(decision, entry, ROUTE_WHY_COOKIE);
        return;
    }
    entry = find_legacy(decision->upstream, decision->set, facts);
    if (entry != NULL) {
        found(decision, entry, ROUTE_WHY_LEGACY_COOKIE);
        give_cookie(decision); /* the other one may go before the session does */
        return;
    }
    /* the only endpoint that we know of may be the wrong one, too */
    if (meaning == TAG_UNKNOWN && wait_for_newer(decision))
        return;
    if (is_only(decision))
        found(decision, &decision->set->entries[0], ROUTE_WHY_ONLY);
    else
        refused(decision,
                meaning == TAG_TOMBSTONE ? ROUTE_LOST_GONE : ROUTE_LOST_NO_ROUTE);
}

/* ── a handshake ── */

static void wait_for_rate(struct decision *decision)
{
    wait_for(decision, SECONDS(1) - decision->facts->now % SECONDS(1));
}

/* True when an endpoint that a cookie names is the answer, or worth waiting for. */
static bool decide_by_hint(struct decision *decision, const struct endpoint_entry *entry,
                           enum route_why why)
{
    struct placement placement = placement_of(decision);
    /* weight 0 takes no strangers, but keeps those it has */
    bool is_open = entry->state == ENDPOINT_READY || entry->state == ENDPOINT_WARMING ||
                   entry->state == ENDPOINT_DEGRADED;
    if (!is_open || endpoint_is_suspect(entry->endpoint, decision->facts->now) ||
        placement_was_tried(&placement, entry) ||
        (placement.is_limited && placement_is_full(&placement, entry)))
        return false;
    if (placement.is_limited && placement_is_too_fast(&placement, entry)) {
        if (decision->facts->waited >= RATE_WAIT_MAX)
            return false;
        wait_for_rate(decision);
        return true;
    }
    found(decision, entry, why);
    return true;
}

static void decide_handshake(struct decision *decision)
{
    const struct route_facts *facts = decision->facts;
    bool has_explicit_key = facts->explicit_key.len > 0;
    const struct endpoint_entry *entry = NULL;
    if (!has_explicit_key && decision->upstream->affinity.mode == AFFINITY_PERSISTENT) {
        if (find_cookie_tag(decision, &entry) == TAG_KNOWN &&
            decide_by_hint(decision, entry, ROUTE_WHY_COOKIE))
            return;
        entry = decision->has_cookie
                    ? NULL
                    : find_legacy(decision->upstream, decision->set, facts);
        if (entry != NULL && decide_by_hint(decision, entry, ROUTE_WHY_LEGACY_COOKIE))
            return;
    }
    if (facts->tried_len == ROUTE_TRIES_MAX) {
        refused(decision, ROUTE_ALL_TRIED);
        return;
    }
    uint64_t key = has_explicit_key       ? rendezvous_key(facts->explicit_key)
                   : decision->has_cookie ? decision->cookie.client_key
                                          : facts->random_key;
    struct placement placement = placement_of(decision);
    enum placement_obstacle obstacle;
    entry = has_explicit_key ? placement_pick_bounded(&placement, key, &obstacle)
                             : placement_pick_of_two(&placement, key, &obstacle);
    if (entry != NULL)
        found(decision, entry, has_explicit_key ? ROUTE_WHY_KEY : ROUTE_WHY_PLACED);
    else if (obstacle == PLACEMENT_TOO_FAST && facts->waited < RATE_WAIT_MAX)
        wait_for_rate(decision);
    else
        refused(decision, refusal_of(obstacle));
}

/* ── any other path ── */

static void decide_other(struct decision *decision)
{
    const struct route_facts *facts = decision->facts;
    const struct endpoint_entry *entry = NULL;
    struct placement placement = placement_of(decision);
    bool may_change = decision->upstream->affinity.change_on_failure;
    if (facts->tried_len == ROUTE_TRIES_MAX) {
        refused(decision, ROUTE_ALL_TRIED);
        return;
    }
    if (find_cookie_tag(decision, &entry) == TAG_KNOWN &&
        !(may_change && placement_was_tried(&placement, entry))) {
        found(decision, entry, ROUTE_WHY_COOKIE);
        return;
    }
    entry = decision->has_cookie ? NULL
                                 : find_legacy(decision->upstream, decision->set, facts);
    if (entry != NULL && !(may_change && placement_was_tried(&placement, entry))) {
        found(decision, entry, ROUTE_WHY_LEGACY_COOKIE);
        return;
    }
    enum placement_obstacle obstacle;
    entry = placement_pick_least(&placement, facts->random_key, &obstacle);
    if (entry != NULL)
        found(decision, entry, ROUTE_WHY_PLACED);
    else
        refused(decision, refusal_of(obstacle));
}

void route_pick(const struct snapshot *snapshot, const struct route_config *rule,
                size_t upstream, const struct route_facts *facts, struct route *route)
{
    *route = (struct route){.upstream = upstream};
    struct decision decision = {
        .snapshot = snapshot,
        .rule = rule,
        .upstream = proxy_config_upstream(snapshot->config, upstream),
        .set = snapshot->sets[upstream],
        .facts = facts,
        .route = route,
    };
    decision.has_cookie = find_cookie(snapshot->config, rule, facts,
                                      decision.set->upstream->hash, &decision.cookie);
    switch (facts->kind) {
    case ROUTE_SESSION:
        decide_session(&decision);
        return;
    case ROUTE_HANDSHAKE:
        decide_handshake(&decision);
        give_cookie(&decision);
        return;
    case ROUTE_OTHER:
        decide_other(&decision);
        if (route_cookie_options(snapshot->config, rule)->on == COOKIE_ON_ALL)
            give_cookie(&decision);
        return;
    }
    unreachable();
}
