#include "proxy/endpoint_list.h"

#include "shared/log.h"

#include "proxy/endpoint_orders.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is known of one endpoint besides its spec, at the same place. The spec's state is the merged one. */
struct member {
    enum endpoint_state said; /* by the source, when it last listed it */
    unsigned weight;          /* the same */
    bool fails_checks;
    bool has_passed;       /* a check, some time */
    bool is_refusing;      /* vanished and does not accept */
    bool is_vanished;      /* absent for longer than a moment */
    bool was_held;         /* since then nobody else took new sessions */
    uint64_t absent_since; /* 0: listed */
};

struct endpoint_list {
    char *upstream_name;
    struct endpoint_list_options options;
    struct endpoint_orders orders;
    struct endpoint_spec *specs; /* sorted; the texts are ours */
    struct member *members;
    size_t len;
    bool has_home;       /* some endpoint takes new sessions */
    uint64_t home_since; /* when that began */
    bool has_changed;
};

struct endpoint_list *endpoint_list_new(const char *upstream_name,
                                        const struct endpoint_list_options *options)
{
    struct endpoint_list *list = must_calloc(1, sizeof *list);
    list->upstream_name = must_strdup(upstream_name);
    list->options = *options;
    return list;
}

/* ---- texts ---- */

static void free_text(struct slice text)
{
    free((void *)(uintptr_t)text.data);
}

static struct slice copy_text(struct slice text)
{
    return slice_of(slice_dup(text), text.len);
}

static void free_spec(struct endpoint_spec *spec)
{
    free_text(spec->who.identity);
    free_text(spec->who.label);
    free_text(spec->who.address_text);
}

static struct endpoint_spec copy_spec(const struct endpoint_spec *spec)
{
    struct endpoint_spec copy = *spec;
    copy.who.identity = copy_text(spec->who.identity);
    copy.who.label = copy_text(spec->who.label);
    copy.who.address_text = copy_text(spec->who.address_text);
    return copy;
}

void endpoint_list_free(struct endpoint_list *list)
{
    for (size_t i = 0; i < list->len; i++)
        free_spec(&list->specs[i]);
    endpoint_orders_cleanup(&list->orders);
    free(list->specs);
    free(list->members);
    free(list->upstream_name);
    free(list);
}

void endpoint_list_set_options(struct endpoint_list *list,
                               const struct endpoint_list_options *options)
{
    list->options = *options;
}

/* ---- states ---- */

static void log_state(const struct endpoint_list *list, const struct endpoint_spec *spec,
                      const char *before, const char *after, const char *why)
{
    char line[64];
    snprintf(line, sizeof line, "%s -> %s", before, after);
    log_each(LOG_LEVEL_INFO, LOG_SUBJECT("endpoint"), "state changed",
             LOG_TEXT("upstream", list->upstream_name),
             LOG_SLICE("endpoint", spec->who.address_text),
             LOG_SLICE("id", spec->who.identity), LOG_TEXT("state", line),
             LOG_TEXT("why", why));
}

/* The one function that changes a state. */
static void set_state(struct endpoint_list *list, size_t place, enum endpoint_state state,
                      const char *why)
{
    struct endpoint_spec *spec = &list->specs[place];
    if (spec->state == state)
        return;
    log_state(list, spec, endpoint_state_word(spec->state), endpoint_state_word(state),
              why);
    spec->state = state;
    list->has_changed = true;
}

/* What a listed endpoint is; an operator's word only makes it drain. */
static enum endpoint_state listed_state(const struct endpoint_list *list, size_t place)
{
    const struct member *member = &list->members[place];
    const struct endpoint_identity *who = &list->specs[place].who;
    if (member->said < ENDPOINT_DRAINING &&
        endpoint_orders_of(&list->orders, who->identity, who->port).drains)
        return ENDPOINT_DRAINING;
    return member->said == ENDPOINT_READY && member->fails_checks ? ENDPOINT_DEGRADED
                                                                  : member->said;
}

/* A spec as the source lists it, with what an operator ordered in its place. */
static struct endpoint_spec under_orders(const struct endpoint_list *list,
                                         const struct endpoint_spec *said)
{
    struct endpoint_spec spec = *said;
    struct endpoint_order order =
        endpoint_orders_of(&list->orders, spec.who.identity, spec.who.port);
    spec.is_ordered = order.drains || order.weight >= 0;
    if (order.weight >= 0)
        spec.weight = (unsigned)order.weight;
    return spec;
}

/* What an endpoint is that no list has had for longer than `absence`, and until when; gone: *until is 0. */
static enum endpoint_state absent_state(const struct endpoint_list *list,
                                        struct member *member, uint64_t now,
                                        uint64_t *until)
{
    uint64_t begin = member->absent_since + list->options.absence;
    uint64_t hold = list->options.vanished;
    if (member->is_refusing || member->said == ENDPOINT_CLOSING) {
        *until = 0;
        return ENDPOINT_GONE;
    }
    if (!list->has_home) {
        member->was_held = true;
        *until = begin + list->options.empty_hold;
        if (now < *until)
            return ENDPOINT_DRAINING;
        *until = UINT64_MAX;
        return ENDPOINT_CLOSING;
    }
    if (member->was_held) {
        begin = list->home_since > begin ? list->home_since : begin;
        hold = list->options.farewell > hold ? list->options.farewell : hold;
    }
    *until = begin + hold;
    if (now < *until)
        return ENDPOINT_DRAINING;
    *until = 0;
    return ENDPOINT_GONE;
}

static void remove_at(struct endpoint_list *list, size_t place)
{
    free_spec(&list->specs[place]);
    list->len--;
    memmove(&list->specs[place], &list->specs[place + 1],
            (list->len - place) * sizeof *list->specs);
    memmove(&list->members[place], &list->members[place + 1],
            (list->len - place) * sizeof *list->members);
}

static bool takes_sessions(const struct endpoint_list *list, size_t place, uint64_t now)
{
    const struct member *member = &list->members[place];
    const struct endpoint_spec *spec = &list->specs[place];
    bool is_there =
        member->absent_since == 0 ||
        (!member->is_vanished && now < member->absent_since + list->options.absence);
    bool is_well =
        !list->options.is_checked || (member->has_passed && !member->fails_checks);
    return is_there && is_well && spec->state < ENDPOINT_DRAINING && spec->weight > 0;
}

static void look_for_home(struct endpoint_list *list, uint64_t now)
{
    bool had_home = list->has_home;
    list->has_home = false;
    for (size_t i = 0; i < list->len && !list->has_home; i++)
        list->has_home = takes_sessions(list, i, now);
    if (list->has_home && !had_home)
        list->home_since = now;
}

/* Where nobody takes new sessions those on their way out keep what they have. */
static void mark_keepers(struct endpoint_list *list)
{
    bool was_any = false, is_any = false;
    for (size_t i = 0; i < list->len; i++) {
        struct endpoint_spec *spec = &list->specs[i];
        bool is_ordered =
            endpoint_orders_of(&list->orders, spec->who.identity, spec->who.port).drains;
        bool keeps = !list->has_home && spec->state >= ENDPOINT_DRAINING && !is_ordered;
        was_any = was_any || spec->keeps_tunnels;
        is_any = is_any || keeps;
        list->has_changed = list->has_changed || keeps != spec->keeps_tunnels;
        spec->keeps_tunnels = keeps;
    }
    if (is_any != was_any)
        log_info(LOG_SUBJECT("endpoint"),
                 is_any ? "no endpoint takes new sessions: those on their way out keep "
                          "their WebSockets"
                        : "endpoints on their way out keep their WebSockets no longer",
                 LOG_TEXT("upstream", list->upstream_name));
}

uint64_t endpoint_list_tick(struct endpoint_list *list, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    look_for_home(list, now);
    for (size_t i = list->len; i-- > 0;) {
        struct member *member = &list->members[i];
        if (member->absent_since == 0)
            continue;
        uint64_t until = member->absent_since + list->options.absence;
        if (now >= until) {
            enum endpoint_state state = absent_state(list, member, now, &until);
            set_state(list, i, state,
                      member->is_refusing ? "not listed and does not accept"
                                          : "not listed any more");
            if (state == ENDPOINT_GONE) {
                remove_at(list, i);
                continue;
            }
            list->has_changed = list->has_changed || !member->is_vanished;
            member->is_vanished = true;
        }
        next = until < next ? until : next;
    }
    mark_keepers(list);
    return next;
}

/* ---- a source's list ---- */

static int compare_specs(const void *a, const void *b)
{
    const struct endpoint_spec *one = *(const struct endpoint_spec *const *)a;
    const struct endpoint_spec *other = *(const struct endpoint_spec *const *)b;
    int order = endpoint_identity_compare(one->who.identity, one->who.port,
                                          other->who.identity, other->who.port);
    return order != 0 ? order : (one > other) - (one < other);
}

static int compare_places(const struct endpoint_spec *one,
                          const struct endpoint_spec *other)
{
    return endpoint_identity_compare(one->who.identity, one->who.port,
                                     other->who.identity, other->who.port);
}

static bool says_the_same(const struct endpoint_spec *one,
                          const struct endpoint_spec *other)
{
    return one->weight == other->weight && one->is_ordered == other->is_ordered &&
           address_equals(&one->who.address, &other->who.address) &&
           slice_equals(one->who.label, other->who.label) &&
           slice_equals(one->who.address_text, other->who.address_text);
}

/* A list being merged: members that were, then are, in one order. */
struct merge {
    struct endpoint_spec *specs;
    struct member *members;
    size_t len;
    bool has_new;
};

static void take_known(struct endpoint_list *list, struct merge *merge, size_t old,
                       const struct endpoint_spec *spec)
{
    struct endpoint_spec *kept = &merge->specs[merge->len];
    struct member *member = &merge->members[merge->len++];
    *kept = list->specs[old];
    *member = list->members[old];
    member->said = spec->state;
    member->weight = spec->weight;
    member->absent_since = 0;
    member->is_refusing = false;
    list->has_changed = list->has_changed || member->is_vanished;
    member->is_vanished = member->was_held = false;
    struct endpoint_spec next = under_orders(list, spec);
    if (says_the_same(kept, &next))
        return;
    next.state = kept->state;
    next.keeps_tunnels = kept->keeps_tunnels;
    next = copy_spec(&next);
    free_spec(kept);
    *kept = next;
    list->has_changed = true;
}

static void take_new(struct endpoint_list *list, struct merge *merge,
                     const struct endpoint_spec *spec)
{
    struct endpoint_spec *added = &merge->specs[merge->len];
    struct member *member = &merge->members[merge->len++];
    struct endpoint_spec ordered = under_orders(list, spec);
    *added = copy_spec(&ordered);
    *member = (struct member){.said = spec->state, .weight = spec->weight};
    log_state(list, added, "none", endpoint_state_word(added->state), "listed");
    list->has_changed = true;
    merge->has_new = true;
}

static void take_absent(const struct endpoint_list *list, struct merge *merge, size_t old,
                        uint64_t now)
{
    merge->specs[merge->len] = list->specs[old];
    struct member *member = &merge->members[merge->len++];
    *member = list->members[old];
    if (member->absent_since == 0)
        member->absent_since = now > 0 ? now : 1;
}

/* Another endpoint is where an absent one was: that one is gone. */
static void drop_displaced(struct endpoint_list *list)
{
    for (size_t i = list->len; i-- > 0;) {
        if (list->members[i].absent_since == 0)
            continue;
        bool is_displaced = false;
        for (size_t j = 0; j < list->len && !is_displaced; j++)
            is_displaced =
                list->members[j].absent_since == 0 &&
                address_equals(&list->specs[i].who.address, &list->specs[j].who.address);
        if (!is_displaced)
            continue;
        set_state(list, i, ENDPOINT_GONE, "another endpoint has its address");
        remove_at(list, i);
    }
}

void endpoint_list_apply(struct endpoint_list *list, const struct endpoint_spec *specs,
                         size_t len, uint64_t now)
{
    const struct endpoint_spec **sorted = must_calloc(len, sizeof *sorted);
    for (size_t i = 0; i < len; i++)
        sorted[i] = &specs[i];
    if (len > 0)
        qsort(sorted, len, sizeof *sorted, compare_specs);
    struct merge merge = {
        .specs = must_calloc(list->len + len, sizeof *merge.specs),
        .members = must_calloc(list->len + len, sizeof *merge.members),
    };
    size_t old = 0;
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && compare_places(sorted[i - 1], sorted[i]) == 0)
            continue;
        while (old < list->len && compare_places(&list->specs[old], sorted[i]) < 0)
            take_absent(list, &merge, old++, now);
        if (old < list->len && compare_places(&list->specs[old], sorted[i]) == 0)
            take_known(list, &merge, old++, sorted[i]);
        else
            take_new(list, &merge, sorted[i]);
    }
    while (old < list->len)
        take_absent(list, &merge, old++, now);
    free(sorted);
    free(list->specs);
    free(list->members);
    list->specs = merge.specs;
    list->members = merge.members;
    list->len = merge.len;
    if (merge.has_new)
        drop_displaced(list);
    for (size_t i = 0; i < list->len; i++)
        if (list->members[i].absent_since == 0)
            set_state(list, i, listed_state(list, i), "listed so");
}

/* ---- verdicts ---- */

static size_t find(const struct endpoint_list *list, struct slice identity, unsigned port)
{
    size_t low = 0, high = list->len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct endpoint_identity *who = &list->specs[middle].who;
        int order = endpoint_identity_compare(who->identity, who->port, identity, port);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return list->len;
}

void endpoint_list_set_verdict(struct endpoint_list *list, struct slice identity,
                               unsigned port, bool passes)
{
    size_t place = find(list, identity, port);
    if (place == list->len)
        return;
    struct member *member = &list->members[place];
    member->fails_checks = !passes;
    member->has_passed = member->has_passed || passes;
    if (list->specs[place].state == ENDPOINT_READY ||
        list->specs[place].state == ENDPOINT_DEGRADED)
        set_state(list, place, listed_state(list, place),
                  passes ? "health checks pass" : "health checks fail");
}

void endpoint_list_set_refusing(struct endpoint_list *list, struct slice identity,
                                unsigned port)
{
    size_t place = find(list, identity, port);
    if (place < list->len && list->members[place].absent_since != 0)
        list->members[place].is_refusing = true;
}

/* ---- orders ---- */

/* What was ordered holds from now on. */
static void follow_orders(struct endpoint_list *list)
{
    for (size_t i = 0; i < list->len; i++) {
        struct endpoint_spec *spec = &list->specs[i], said = *spec;
        said.weight = list->members[i].weight;
        struct endpoint_spec next = under_orders(list, &said);
        list->has_changed = list->has_changed || next.weight != spec->weight ||
                            next.is_ordered != spec->is_ordered;
        *spec = next;
        if (!list->members[i].is_vanished)
            set_state(list, i, listed_state(list, i), "an operator's order");
    }
}

static bool is_named(const struct endpoint_spec *spec, struct slice name)
{
    return slice_equals(spec->who.address_text, name) ||
           slice_equals(spec->who.identity, name);
}

size_t endpoint_list_drain(struct endpoint_list *list, struct slice name, bool drains)
{
    size_t count = 0;
    for (size_t i = 0; i < list->len; i++) {
        const struct endpoint_identity *who = &list->specs[i].who;
        if (!is_named(&list->specs[i], name))
            continue;
        count++;
        if (drains)
            endpoint_orders_drain(&list->orders, who->identity, who->port);
        else
            (void)endpoint_orders_undrain(&list->orders, who->identity);
    }
    if (!drains) /* one that is not listed now may come back */
        count += endpoint_orders_undrain(&list->orders, name);
    follow_orders(list);
    return count;
}

void endpoint_list_drain_all(struct endpoint_list *list, bool drains)
{
    endpoint_orders_drain_all(&list->orders, drains);
    follow_orders(list);
}

size_t endpoint_list_weigh(struct endpoint_list *list, struct slice name, int64_t weight)
{
    size_t count = 0;
    for (size_t i = 0; i < list->len; i++) {
        const struct endpoint_identity *who = &list->specs[i].who;
        if (!is_named(&list->specs[i], name))
            continue;
        endpoint_orders_weigh(&list->orders, who->identity, who->port, weight);
        count++;
    }
    follow_orders(list);
    return count;
}

/* ---- questions ---- */

bool endpoint_list_take_changed(struct endpoint_list *list)
{
    bool has_changed = list->has_changed;
    list->has_changed = false;
    return has_changed;
}

const struct endpoint_spec *endpoint_list_specs(const struct endpoint_list *list,
                                                size_t *len)
{
    *len = list->len;
    return list->specs;
}

bool endpoint_list_is_vanished(const struct endpoint_list *list, size_t place)
{
    check(place < list->len);
    return list->members[place].is_vanished;
}

void endpoint_list_check(const struct endpoint_list *list)
{
    for (size_t i = 0; i < list->len; i++) {
        const struct member *member = &list->members[i];
        check(i == 0 || compare_places(&list->specs[i - 1], &list->specs[i]) < 0);
        check(list->specs[i].state != ENDPOINT_GONE);
        if (member->absent_since == 0)
            check(list->specs[i].state == listed_state(list, i));
    }
}
