#include "tests/unit/proxy/static_snapshot.h"
#include "tests/unit/unit.h"

#include "shared/rendezvous.h"
#include "shared/timing.h"

#include "proxy/endpoint_set.h"
#include "proxy/learned_sids.h"
#include "proxy/proxy_config.h"
#include "proxy/route.h"
#include "proxy/upstream.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#define NOW           SECONDS(1000)
#define UPSTREAMS_MAX 4
#define NAMES_MAX     16

/* The first writes; z is never ours. */
static const struct file_keys keys = {.count = 2, .keys = {{'a', {1}}, {'b', {2}}}};
static const struct file_key foreign_key = {'z', {3}};

/* ── a world, from its lines ── */

struct world_upstream {
    char name[32];
    char options[256];
    bool is_dynamic;
    char endpoints[512];
};

struct world {
    char name[64];
    size_t len;
    struct world_upstream upstreams[UPSTREAMS_MAX];
    char routes[512];
    struct snapshot *snapshot; /* made when the first case needs it */
};

static struct endpoint_spec spec_of(struct slice name)
{
    struct endpoint_spec spec = {.weight = 1};
    char text[32];
    const char *why;
    snprintf(text, sizeof(text), "10.0.0.%u:5000", (unsigned char)name.data[0]);
    assert_true(address_parse(slice_from_text(text), &spec.who.address, &why));
    spec.who.identity = spec.who.label = spec.who.address_text = name;
    spec.who.port = 5000;
    return spec;
}

static bool read_state(struct slice word, enum endpoint_state *state)
{
    for (enum endpoint_state s = ENDPOINT_WARMING; s <= ENDPOINT_GONE; s++)
        if (slice_equals(word, slice_from_text(endpoint_state_word(s)))) {
            *state = s;
            return true;
        }
    return false;
}

/* What is open on an endpoint: ",s=3,r=2,suspect,w=4". */
static void apply_facts(struct slice facts, struct endpoint *endpoint,
                        struct endpoint_spec *spec)
{
    struct slice fact;
    while (slice_cut(&facts, ',', &fact)) {
        uint64_t number = 0;
        if (fact.len > 2)
            (void)!slice_to_number(slice_from(fact, 2), 0, 1000, &number);
        for (uint64_t i = 0; endpoint != NULL && i < number; i++) {
            if (slice_starts_with(fact, SLICE("s=")))
                endpoint_begin_tunnel(endpoint);
            else if (slice_starts_with(fact, SLICE("r=")))
                endpoint_count_placed(endpoint, NOW);
        }
        if (slice_starts_with(fact, SLICE("w=")))
            spec->weight = (unsigned)number;
        for (unsigned i = 0; endpoint != NULL && i < 3; i++)
            if (slice_equals(fact, SLICE("suspect")))
                endpoint_note_failure(endpoint, NOW);
    }
}

static struct endpoint_set *make_set(const struct world_upstream *about,
                                     const struct upstream_config *config)
{
    struct endpoint_spec specs[NAMES_MAX], before[NAMES_MAX];
    struct slice facts[NAMES_MAX], rest = slice_from_text(about->endpoints), word;
    size_t len = 0, before_len = 0;
    while (slice_cut(&rest, ' ', &word)) {
        if (word.len == 0)
            continue;
        size_t equals = slice_find(word, '='), comma = slice_find(word, ',');
        struct endpoint_spec spec = spec_of(slice_to(word, equals));
        assert_true(
            read_state(slice_from(slice_to(word, comma), equals + 1), &spec.state));
        struct slice more = slice_from(word, comma + 1);
        apply_facts(more, NULL, &spec);
        bool is_gone = spec.state == ENDPOINT_GONE;
        before[before_len] = spec;
        before[before_len++].state = ENDPOINT_READY;
        if (!is_gone) {
            specs[len] = spec;
            facts[len++] = more;
        }
    }
    struct endpoint_set_options options = {
        .keys = &keys, .is_static = !about->is_dynamic, .learned_maximum = 1000};
    if (config->affinity.has_ingress_nginx_cookie)
        options.ingress_upstream_name =
            slice_from_text(config->affinity.ingress_nginx_cookie.upstream_name);
    struct upstream *upstream = upstream_new(slice_from_text(about->name));
    struct endpoint_set *first =
        endpoint_set_new(upstream, &options, before, before_len, NULL, NOW);
    struct endpoint_set *set =
        endpoint_set_new(upstream, &options, specs, len, first, NOW);
    endpoint_set_check(set);
    for (size_t i = 0; i < len; i++)
        for (size_t at = 0; at < set->len; at++) {
            struct endpoint *endpoint = set->entries[at].endpoint;
            if (slice_equals(slice_from_text(endpoint->identity), specs[i].who.identity))
                apply_facts(facts[i], endpoint, &specs[i]);
        }
    /* a learned sid of one that is gone needs the endpoint itself */
    for (size_t i = 0; i < first->len; i++)
        if (endpoint_set_find(set, first->entries[i].endpoint) == NULL) {
            char sid[64];
            snprintf(sid, sizeof(sid), "gone-%s", first->entries[i].endpoint->identity);
            learned_sids_add(set->learned, slice_from_text(sid),
                             first->entries[i].endpoint, SECONDS(100), NOW);
        }
    endpoint_set_unref(first);
    upstream_unref(upstream);
    return set;
}

static void make_snapshot(struct world *world)
{
    char *yaml = must_calloc(1, 8192), errors[2048] = "";
    size_t len =
        (size_t)sprintf(yaml, "listeners: [{address: \"127.0.0.1:1\"}]\nupstreams:\n");
    for (size_t i = 0; i < world->len; i++) {
        const struct world_upstream *about = &world->upstreams[i];
        len += (size_t)sprintf(
            yaml + len, "  - {name: %s, discovery: {static: [\"127.0.0.1:1\"]}%s%s}\n",
            about->name, about->options[0] != '\0' ? ", " : "", about->options);
    }
    if (world->routes[0] != '\0')
        sprintf(yaml + len, "routes: %s\n", world->routes);
    else
        sprintf(yaml + len, "routes: [{upstream: %s}]\n", world->upstreams[0].name);
    FILE *out = fmemopen(errors, sizeof(errors) - 1, "w");
    struct proxy_config *config =
        proxy_config_parse(world->name, slice_from_text(yaml), out);
    fclose(out);
    assert_string_equal(errors, "");
    assert_non_null(config);
    struct endpoint_set *sets[UPSTREAMS_MAX];
    for (size_t i = 0; i < world->len; i++)
        sets[i] = make_set(&world->upstreams[i], proxy_config_upstream(config, i));
    world->snapshot = snapshot_new(1, config, &keys, sets);
    free(yaml);
}

static void end_world(struct world *world)
{
    if (world->snapshot != NULL)
        snapshot_unref(world->snapshot);
    memset(world, 0, sizeof(*world));
}

/* "upstream NAME {options} [dynamic]: endpoints" */
static void read_upstream(struct world *world, char *line)
{
    struct world_upstream *about = &world->upstreams[world->len++];
    char *open = strchr(line, '{'), *colon = strrchr(line, ':');
    char *close = colon;
    while (*close != '}')
        close--;
    assert_non_null(open);
    sscanf(line, "upstream %31s", about->name);
    snprintf(about->options, sizeof(about->options), "%.*s", (int)(close - open - 1),
             open + 1);
    about->is_dynamic = memmem(close, (size_t)(colon - close), "dynamic", 7) != NULL;
    snprintf(about->endpoints, sizeof(about->endpoints), "%s", colon + 1);
}

/* ── one case ── */

static struct affinity_cookie cookie_of(struct slice upstream, struct slice name,
                                        const struct file_key *key, uint64_t client_key)
{
    return (struct affinity_cookie){
        .key_id = key->id,
        .tag = route_tag_make(key, upstream, name, 5000, 0),
        .upstream_hash = upstream_hash_of(upstream),
        .client_key = client_key,
    };
}

static const struct file_key *key_of(char id)
{
    for (size_t i = 0; i < keys.count; i++)
        if (keys.keys[i].id == id)
            return &keys.keys[i];
    assert_int_equal(id, foreign_key.id);
    return &foreign_key;
}

/* What {legacy/a} stands for: MD5 of the upstream's name there and the endpoint's address. */
static size_t write_legacy(struct slice name, char *out)
{
    char text[64];
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len;
    int len = snprintf(text, sizeof(text), "prod-chat-500010.0.0.%u:5000",
                       (unsigned char)name.data[0]);
    assert_int_equal(EVP_Digest(text, (size_t)len, digest, &digest_len, EVP_md5(), NULL),
                     1);
    for (unsigned i = 0; i < digest_len; i++)
        sprintf(out + 2 * i, "%02x", digest[i]);
    return 2 * digest_len;
}

/* Replaces each {UPSTREAM/ENDPOINT[/KEY][#CLIENT KEY]} by key ID and tag, or by a whole cookie value. */
static void expand(struct slice text, bool as_cookie, char *out)
{
    while (text.len > 0) {
        if (text.data[0] != '{') {
            *out++ = text.data[0];
            text = slice_from(text, 1);
            continue;
        }
        size_t close = slice_find(text, '}');
        struct slice inside = slice_of(text.data + 1, close - 1), upstream, name, part;
        uint64_t client_key = 99;
        size_t hash = slice_find(inside, '#');
        if (hash < inside.len)
            assert_true(slice_to_number(slice_from(inside, hash + 1), 0, UINT64_MAX,
                                        &client_key));
        inside = slice_to(inside, hash);
        assert_true(slice_cut(&inside, '/', &upstream));
        assert_true(slice_cut(&inside, '/', &name));
        char id = slice_cut(&inside, '/', &part) ? part.data[0] : 'a';
        struct affinity_cookie cookie = cookie_of(upstream, name, key_of(id), client_key);
        if (slice_equals(upstream, SLICE("legacy"))) {
            out += write_legacy(name, out);
        } else if (as_cookie) {
            affinity_cookie_format(&cookie, out);
            out += AFFINITY_COOKIE_LEN;
        } else {
            char suffix[ROUTE_TAG_SUFFIX_LEN];
            route_tag_suffix(cookie.key_id, cookie.tag, suffix);
            memcpy(out, suffix + 1, ROUTE_TAG_SUFFIX_LEN - 1);
            out += ROUTE_TAG_SUFFIX_LEN - 1;
        }
        text = slice_from(text, close + 1);
    }
    *out = '\0';
}

struct request {
    struct route_facts facts;
    char sid[300], fields[4][512];
    struct slice cookies[4];
    struct slice host, path;
    bool is_learned;
};

static const struct endpoint_entry *entry_of(const struct endpoint_set *set,
                                             struct slice name)
{
    for (size_t i = 0; i < set->len; i++)
        if (slice_equals(slice_from_text(set->entries[i].endpoint->identity), name))
            return &set->entries[i];
    return NULL;
}

static void add_cookie_field(struct request *request, const char *name,
                             struct slice value)
{
    size_t at = request->facts.cookies_len++;
    int len = sprintf(request->fields[at], "%s%s", name, name[0] != '\0' ? "=" : "");
    expand(value, true, request->fields[at] + len);
    request->cookies[at] = slice_from_text(request->fields[at]);
}

static void learn(const struct world *world, struct request *request, struct slice name)
{
    const struct endpoint_set *set = world->snapshot->sets[0];
    const struct endpoint_entry *entry = entry_of(set, name);
    char sid[64];
    snprintf(sid, sizeof(sid), "gone-%.*s", SLICE_ARGS(name));
    struct endpoint *endpoint =
        entry != NULL ? endpoint_ref(entry->endpoint)
                      : learned_sids_find(set->learned, slice_from_text(sid), NOW);
    assert_non_null(endpoint);
    learned_sids_add(set->learned, request->facts.sid, endpoint, SECONDS(1), NOW);
    endpoint_unref(endpoint);
    request->is_learned = true;
}

/* What was learned for one case is over for the next. */
static void unlearn(const struct world *world, const struct request *request)
{
    struct learned_sids *learned = world->snapshot->sets[0]->learned;
    struct endpoint *endpoint = learned_sids_find(learned, request->facts.sid, NOW);
    assert_non_null(endpoint);
    learned_sids_add(learned, request->facts.sid, endpoint, 0, NOW);
    endpoint_unref(endpoint);
}

static void add_fact(const struct world *world, struct request *request,
                     struct slice name, struct slice value)
{
    struct route_facts *facts = &request->facts;
    uint64_t number = 0;
    struct slice tried;
    if (slice_equals(name, SLICE("session")))
        facts->kind = ROUTE_SESSION;
    else if (slice_equals(name, SLICE("handshake")))
        facts->kind = ROUTE_HANDSHAKE;
    else if (slice_equals(name, SLICE("other")))
        facts->kind = ROUTE_OTHER;
    else if (slice_equals(name, SLICE("options")))
        facts->is_options = true;
    else if (slice_equals(name, SLICE("cookie")))
        add_cookie_field(request, "sidrail_chat", value);
    else if (slice_equals(name, SLICE("raw")))
        add_cookie_field(request, "", value);
    else if (slice_equals(name, SLICE("key")))
        facts->explicit_key = value;
    else if (slice_equals(name, SLICE("host")))
        request->host = value;
    else if (slice_equals(name, SLICE("path")))
        request->path = value;
    else if (slice_equals(name, SLICE("learned")))
        learn(world, request, value);
    else if (slice_equals(name, SLICE("waited"))) {
        assert_true(slice_to_number(value, 0, 10000, &number));
        facts->waited = MILLISECONDS(number);
    } else if (slice_equals(name, SLICE("tried"))) {
        while (slice_cut(&value, ',', &tried))
            facts->tried[facts->tried_len++] =
                entry_of(world->snapshot->sets[0], tried)->endpoint;
    } else if (slice_equals(name, SLICE("sid"))) {
        expand(value, false, request->sid);
        facts->sid = slice_from_text(request->sid);
    } else {
        fail_msg("unknown fact %.*s", SLICE_ARGS(name));
    }
}

/* The decision in the words of the file. */
static void describe(const struct world *world, const struct route *route, char *text,
                     size_t size)
{
    if (route->outcome == ROUTE_WAIT)
        snprintf(text, size, "wait %u", (unsigned)(route->wait / 1000));
    else if (route->outcome == ROUTE_REFUSED)
        snprintf(text, size, "%s %u", route_refusal_word(route->refusal), route->status);
    else
        snprintf(text, size, "%s/%s %s %s bare=%zu",
                 world->upstreams[route->upstream].name, route->entry->endpoint->identity,
                 route_why_word(route->why),
                 route->set_cookie ? "set_cookie" : "no_cookie", route->bare_sid_len);
}

/* Is every word of `expected` ("chat/a|b placed set_cookie") among those of `got`? */
static bool agrees(struct slice expected, struct slice got)
{
    struct slice word, other, rest;
    while (slice_cut(&expected, ' ', &word)) {
        bool is_there = word.len == 0;
        rest = got;
        while (!is_there && slice_cut(&rest, ' ', &other)) {
            size_t slash = slice_find(word, '/');
            struct slice names = slice_from(word, slash + 1), name;
            if (slash == word.len)
                is_there = slice_equals(word, other);
            else if (slice_equals(slice_to(word, slash + 1), slice_to(other, slash + 1)))
                while (slice_cut(&names, '|', &name))
                    is_there |= slice_equals(name, slice_from(other, slash + 1));
        }
        if (!is_there)
            return false;
    }
    return true;
}

static void decide(const struct world *world, struct request *request, uint64_t random,
                   char *text, size_t size)
{
    struct route_facts *facts = &request->facts;
    facts->random_key = random;
    const struct route_config *rule =
        route_match(world->snapshot->config, request->host, request->path);
    if (rule == NULL) {
        snprintf(text, size, "not_found 404");
        return;
    }
    struct route route;
    size_t upstream = route_pick_upstream(world->snapshot, rule, facts);
    route_pick(world->snapshot, rule, upstream, facts, &route);
    describe(world, &route, text, size);
    if (route.outcome == ROUTE_FOUND && route.set_cookie) {
        /* what is written leads back to the same endpoint */
        assert_int_equal(route.cookie.key_id, keys.keys[0].id);
        assert_true(route.cookie.tag == route.entry->tags[0]);
        assert_true(route.cookie.upstream_hash ==
                    world->snapshot->sets[upstream]->upstream->hash);
    }
}

/* Runs the line with many random keys, so that an alternative is a promise about all of them. */
static bool run_case(struct world *world, char *line, unsigned number)
{
    if (world->snapshot == NULL)
        make_snapshot(world);
    char *arrow = strstr(line, " -> ");
    assert_non_null(arrow);
    struct request request = {.host = SLICE("a.test"), .path = SLICE("/socket.io/")};
    request.facts.now = NOW;
    request.facts.cookies = request.cookies;
    struct slice rest = slice_of(line, (size_t)(arrow - line)), word;
    while (slice_cut(&rest, ' ', &word)) {
        size_t equals = slice_find(word, '=');
        add_fact(world, &request, slice_to(word, equals), slice_from(word, equals + 1));
    }
    bool is_right = true;
    for (uint64_t i = 0; is_right && i < 40; i++) {
        char got[256];
        decide(world, &request, i * 0x9e3779b97f4a7c15u, got, sizeof(got));
        is_right = agrees(slice_from_text(arrow + 4), slice_from_text(got));
        if (!is_right)
            fprintf(stderr, "route.cases:%u (%s): %s\n  got: %s\n", number, world->name,
                    line, got);
    }
    if (request.is_learned)
        unlearn(world, &request);
    return is_right;
}

static void test_every_line_of_the_cases_is_decided_as_it_says(void **state)
{
    (void)state;
    FILE *file = fopen(TEST_DATA "/unit/cases/route.cases", "r");
    assert_non_null(file);
    static struct world world;
    char line[1024];
    unsigned number = 0, cases = 0, wrong = 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        number++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (strncmp(line, "world ", 6) == 0) {
            end_world(&world);
            snprintf(world.name, sizeof(world.name), "%.60s", line + 6);
        } else if (strncmp(line, "upstream ", 9) == 0) {
            read_upstream(&world, line);
        } else if (strncmp(line, "routes ", 7) == 0) {
            snprintf(world.routes, sizeof(world.routes), "%.500s", line + 7);
        } else {
            cases++;
            wrong += !run_case(&world, line, number);
        }
    }
    end_world(&world);
    fclose(file);
    assert_int_equal(wrong, 0);
    assert_true(cases >= 100);
}

/* ── balance and movement ── */

#define POPULATION 50
#define KEYS       20000

static struct snapshot *make_population(size_t len, const struct snapshot *previous,
                                        size_t without)
{
    char *yaml = must_calloc(1, 64 * POPULATION + 512), error[256];
    size_t at = (size_t)sprintf(yaml, "listeners: [{address: \"127.0.0.1:1\"}]\n"
                                      "routes: [{upstream: chat}]\nupstreams:\n"
                                      "  - name: chat\n    place_after: 0s\n"
                                      "    discovery:\n      static:\n");
    for (size_t i = 0; i < len; i++)
        if (i != without)
            at += (size_t)sprintf(yaml + at, "        - 127.0.0.1:%zu\n", 22000 + i);
    struct proxy_config *config =
        proxy_config_parse("population", slice_from_text(yaml), stderr);
    assert_non_null(config);
    struct snapshot *snapshot =
        static_snapshot(config, &keys, previous, NOW, error, sizeof(error));
    assert_non_null(snapshot);
    free(yaml);
    return snapshot;
}

static uint64_t key_number(uint64_t i)
{
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    return i ^ i >> 29;
}

static const struct endpoint_entry *place_key(const struct snapshot *snapshot,
                                              struct slice explicit_key, uint64_t random)
{
    struct route_facts facts = {.kind = ROUTE_HANDSHAKE,
                                .now = NOW,
                                .explicit_key = explicit_key,
                                .random_key = random};
    struct route route;
    const struct route_config *rule =
        route_match(snapshot->config, SLICE("x"), SLICE("/socket.io/"));
    route_pick(snapshot, rule, route_pick_upstream(snapshot, rule, &facts), &facts,
               &route);
    assert_int_equal(route.outcome, ROUTE_FOUND);
    return route.entry;
}

static double balance(const struct endpoint_set *set, unsigned total)
{
    unsigned most = 0;
    for (size_t i = 0; i < set->len; i++) {
        unsigned sessions = endpoint_sessions(set->entries[i].endpoint, NOW);
        most = sessions > most ? sessions : most;
    }
    return most * (double)set->len / total;
}

static void test_two_choices_keep_the_fullest_within_five_percent(void **state)
{
    (void)state;
    struct snapshot *snapshot = make_population(POPULATION, NULL, SIZE_MAX);
    for (uint64_t i = 0; i < KEYS; i++)
        endpoint_begin_tunnel(
            place_key(snapshot, (struct slice){0}, key_number(i))->endpoint);
    assert_true(balance(snapshot->sets[0], KEYS) < 1.05);
    snapshot_unref(snapshot);
}

static void test_explicit_keys_meet_and_stay_below_the_bounded_load(void **state)
{
    (void)state;
    struct snapshot *snapshot = make_population(POPULATION, NULL, SIZE_MAX);
    char room[32];
    unsigned met = 0;
    for (unsigned i = 0; i < 4000; i++) {
        snprintf(room, sizeof(room), "room%u", i % 1000);
        struct endpoint *endpoint =
            place_key(snapshot, slice_from_text(room), i)->endpoint;
        met += endpoint == place_key(snapshot, slice_from_text(room), ~i)->endpoint;
        endpoint_begin_tunnel(endpoint);
    }
    assert_true(balance(snapshot->sets[0], 4000) <= 1.27);
    assert_int_equal(met, 4000);
    snapshot_unref(snapshot);
}

static void test_removing_an_endpoint_moves_only_its_own_keys(void **state)
{
    (void)state;
    struct snapshot *before = make_population(POPULATION, NULL, SIZE_MAX);
    struct snapshot *after = make_population(POPULATION, before, 7);
    const struct rendezvous *ranks = before->sets[0]->rendezvous;
    const struct endpoint_entry *gone = NULL;
    for (size_t i = 0; i < before->sets[0]->len; i++)
        if (endpoint_set_find(after->sets[0], before->sets[0]->entries[i].endpoint) ==
            NULL)
            gone = &before->sets[0]->entries[i];
    assert_non_null(gone);
    unsigned moved = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        size_t best[2];
        assert_int_equal(rendezvous_pick_two(ranks, key_number(i), NULL, NULL, best), 2);
        struct endpoint *was =
            place_key(before, (struct slice){0}, key_number(i))->endpoint;
        struct endpoint *is =
            place_key(after, (struct slice){0}, key_number(i))->endpoint;
        moved += was != is;
        if (was == gone->endpoint) /* nothing is loaded: the successor is the second */
            assert_ptr_equal(is, before->sets[0]->entries[best[1]].endpoint);
        else
            assert_ptr_equal(is, was);
    }
    assert_in_range(moved, KEYS / POPULATION / 2, KEYS / POPULATION * 2);
    snapshot_unref(before);
    snapshot_unref(after);
}

static void test_split_weights_are_met_and_sessions_stay(void **state)
{
    (void)state;
    static const char yaml[] =
        "listeners: [{address: \"127.0.0.1:1\"}]\n"
        "routes: [{split: [{upstream: one, weight: 95}, {upstream: two, weight: 5}]}]\n"
        "upstreams:\n"
        "  - {name: one, discovery: {static: [\"127.0.0.1:1\", \"127.0.0.1:2\"]}}\n"
        "  - {name: two, discovery: {static: [\"127.0.0.1:3\", \"127.0.0.1:4\"]}}\n";
    char error[256];
    struct snapshot *snapshot =
        static_snapshot(proxy_config_parse("split", slice_from_text(yaml), stderr), &keys,
                        NULL, NOW, error, sizeof(error));
    unsigned second = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        struct route_facts facts = {
            .kind = ROUTE_HANDSHAKE, .now = NOW, .random_key = key_number(i)};
        const struct route_config *rule = proxy_config_route(snapshot->config, 0);
        size_t upstream = route_pick_upstream(snapshot, rule, &facts);
        struct route first, again;
        route_pick(snapshot, rule, upstream, &facts, &first);
        second += upstream == 1;
        /* the same browser again, by its cookie, and its session by its sid */
        char field[64] = "sidrail_one=";
        affinity_cookie_format(&first.cookie, field + 12);
        struct slice cookie = slice_from_text(field);
        facts.cookies = &cookie;
        facts.cookies_len = 1;
        facts.random_key = ~facts.random_key;
        assert_int_equal(route_pick_upstream(snapshot, rule, &facts), upstream);
        route_pick(snapshot, rule, upstream, &facts, &again);
        assert_ptr_equal(again.entry, first.entry);
        char sid[32] = "x";
        route_tag_suffix(first.key_id, first.tag, sid + 1);
        facts.kind = ROUTE_SESSION;
        facts.cookies_len = 0;
        facts.sid = slice_from_text(sid);
        assert_int_equal(route_pick_upstream(snapshot, rule, &facts), upstream);
        route_pick(snapshot, rule, upstream, &facts, &again);
        assert_ptr_equal(again.entry, first.entry);
    }
    assert_in_range(second, KEYS * 4 / 100, KEYS * 6 / 100);
    snapshot_unref(snapshot);
}

/* Places `count` newcomers at `now` and counts them; gives back how many the endpoint got. */
static unsigned place_newcomers(const struct snapshot *snapshot, const char *identity,
                                uint64_t now, unsigned count)
{
    unsigned got = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct route_facts facts = {
            .kind = ROUTE_HANDSHAKE, .now = now, .random_key = key_number(now + i)};
        struct route route;
        route_pick(snapshot, proxy_config_route(snapshot->config, 0), 0, &facts, &route);
        assert_int_equal(route.outcome, ROUTE_FOUND);
        endpoint_count_placed(route.entry->endpoint, now);
        got += strcmp(route.entry->endpoint->identity, identity) == 0;
    }
    return got;
}

static void test_an_endpoint_that_appears_later_waits_then_starts_slowly(void **state)
{
    (void)state;
    static const char yaml[] =
        "listeners: [{address: \"127.0.0.1:1\"}]\n"
        "routes: [{upstream: chat}]\n"
        "upstreams: [{name: chat, place_after: 2s, slow_start: 20s,\n"
        "             discovery: {static: [\"127.0.0.1:1\"]}}]\n";
    struct proxy_config *config =
        proxy_config_parse("slow", slice_from_text(yaml), stderr);
    const struct upstream_config *about = proxy_config_upstream(config, 0);
    struct upstream *upstream = upstream_new(SLICE("chat"));
    struct endpoint_set_options options = {.keys = &keys,
                                           .place_after = about->place_after,
                                           .slow_start = about->slow_start,
                                           .learned_maximum = 64};
    struct endpoint_spec specs[] = {spec_of(SLICE("a")), spec_of(SLICE("b")),
                                    spec_of(SLICE("c")), spec_of(SLICE("late"))};
    for (size_t i = 0; i < ARRAY_LEN(specs); i++)
        specs[i].state = ENDPOINT_READY;
    struct endpoint_set *before =
        endpoint_set_new(upstream, &options, specs, 3, NULL, NOW);
    struct endpoint_set **sets = must_calloc(1, sizeof(struct endpoint_set *));
    sets[0] = endpoint_set_new(upstream, &options, specs, 4, before, NOW);
    endpoint_set_unref(before);
    upstream_unref(upstream);
    struct snapshot *snapshot = snapshot_new(1, config, &keys, sets);
    free(sets);

    assert_int_equal(place_newcomers(snapshot, "late", NOW + SECONDS(1), 1000), 0);
    assert_true(place_newcomers(snapshot, "a", NOW + SECONDS(1), 100) > 0); /* founders */
    /* at 13 of 20 s it weighs 0.1 + 0.9 × 0.65; what was placed before is forgotten */
    unsigned early = place_newcomers(snapshot, "late", NOW + SECONDS(13), 1000);
    unsigned grown = place_newcomers(snapshot, "late", NOW + SECONDS(40), 1000);
    assert_true(early < grown);
    assert_in_range(early, 130, 210); /* 0.685 / 3.685 = 19 % */
    assert_in_range(grown, 235, 265); /* a quarter */
    snapshot_unref(snapshot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_line_of_the_cases_is_decided_as_it_says),
        cmocka_unit_test(test_two_choices_keep_the_fullest_within_five_percent),
        cmocka_unit_test(test_explicit_keys_meet_and_stay_below_the_bounded_load),
        cmocka_unit_test(test_removing_an_endpoint_moves_only_its_own_keys),
        cmocka_unit_test(test_split_weights_are_met_and_sessions_stay),
        cmocka_unit_test(test_an_endpoint_that_appears_later_waits_then_starts_slowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
