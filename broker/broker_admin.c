#include "broker/broker_admin.h"

#include "broker/broker.h"
#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/broker_page.h"
#include "broker/broker_status.h"
#include "broker/gate.h"
#include "broker/map_change.h"
#include "broker/publish.h"
#include "broker/shard.h"
#include "broker/standing_clock.h"
#include "shared/admin.h"
#include "shared/lifecycle.h"
#include "shared/log.h"

#include <event2/buffer.h>
#include <stdlib.h>

struct broker_admin {
    struct broker *broker;          /* borrowed */
    struct admin *admin;            /* NULL: no address */
    struct ctl *ctl;                /* NULL: no socket */
    struct ctl_call *shutdown_call; /* waits for the end; NULL: none */
};

static struct shard_set *shards_of(struct broker_admin *admin)
{
    return publisher_shards(broker_context(admin->broker)->publisher);
}

/* ── health ── */

static bool is_started(void *argument, struct evbuffer *reason)
{
    struct broker_admin *admin = argument;
    if (lifecycle_phase(broker_lifecycle(admin->broker)) != LIFECYCLE_STARTING)
        return true;
    evbuffer_add_printf(reason, "starting");
    return false;
}

/* Brokers that drop each other's messages: a broker among others goes on, one that is alone among strangers does not. */
static bool is_understood(struct broker_admin *admin, struct evbuffer *reason)
{
    const struct publisher *publisher = broker_context(admin->broker)->publisher;
    const struct gate *gate = publisher_gate(publisher);
    if (gate == NULL)
        return true;
    enum gate_state state = gate_state(gate, standing_now());
    bool is_alone = publisher_status(publisher).live_brokers == 0;
    if (state != GATE_SEALED_ALONE && !(state == GATE_REFUSES && is_alone))
        return true;
    evbuffer_add_printf(reason, "%s", gate_state_text(state));
    return false;
}

static bool is_ready(void *argument, struct evbuffer *reason)
{
    struct broker_admin *admin = argument;
    enum lifecycle_phase phase = lifecycle_phase(broker_lifecycle(admin->broker));
    if (phase != LIFECYCLE_READY) {
        evbuffer_add_printf(reason, "%s", lifecycle_phase_text(phase));
        return false;
    }
    if (!is_understood(admin, reason))
        return false;
    const char *outvoted = publisher_outvoted(broker_context(admin->broker)->publisher);
    if (outvoted != NULL) {
        evbuffer_add_printf(reason, "%s", outvoted);
        return false;
    }
    const struct shard_set *set = shards_of(admin);
    enum broker_readiness rule =
        (enum broker_readiness)broker_config_of(admin->broker)->readiness;
    if (set == NULL || rule == READINESS_NONE)
        return true;
    size_t up = shard_set_usable_count(set);
    size_t all = shard_set_count(set);
    if (up >= (rule == READINESS_ALL ? all : 1))
        return true;
    evbuffer_add_printf(reason, "%zu of %zu shards are up", up, all);
    return false;
}

static void write_status(void *argument, struct evbuffer *out)
{
    struct broker_admin *admin = argument;
    broker_status_write_json(admin->broker, out);
}

/* ── metrics asked for at scrape ── */

static void collect(struct metrics_page *page, int metric, void *argument)
{
    struct broker_admin *admin = argument;
    struct publisher_status status =
        publisher_status(broker_context(admin->broker)->publisher);
    if (metric == M_MAP_BEHIND) {
        const struct map_change *map =
            publisher_map(broker_context(admin->broker)->publisher);
        metrics_sample(page, map != NULL ? map_change_status(map).behind : 0, NULL);
        return;
    }
    if (metric == M_MAP_DIFFERS) {
        metrics_sample(page, broker_status_differing(admin->broker), NULL);
        return;
    }
    double value = metric == M_SPILL_BYTES       ? (double)status.spill_bytes
                   : metric == M_SENT_RING_BYTES ? (double)status.sent_ring_bytes
                                                 : status.live_brokers;
    metrics_sample(page, value, NULL);
}

static double shard_value(const struct shard *shard, int metric)
{
    struct shard_status status = shard_status(shard);
    switch (metric) {
    case M_SHARD_UP:
        return shard_is_usable(shard);
    case M_SHARD_PUBLISHED:
        return (double)status.published;
    case M_SHARD_RECEIVED:
        return (double)status.received;
    case M_SHARD_WAITING:
        return (double)status.waiting;
    case M_SHARD_IN_FLIGHT:
        return (double)status.in_flight;
    case M_SHARD_PARTITIONS:
        return status.partitions;
    default:
        unreachable();
    }
}

static void collect_shards(struct metrics_page *page, int metric, void *argument)
{
    const struct shard_set *set = shards_of(argument);
    for (size_t i = 0; set != NULL && i < shard_set_count(set); i++) {
        const struct shard *shard = shard_set_get(set, i);
        struct slice name = slice_from_text(shard_status(shard).name);
        metrics_sample(page, shard_value(shard, metric), &name);
    }
}

static void set_collectors(struct broker_admin *admin)
{
    static const int of_shards[] = {M_SHARD_UP,        M_SHARD_PUBLISHED,
                                    M_SHARD_RECEIVED,  M_SHARD_WAITING,
                                    M_SHARD_IN_FLIGHT, M_SHARD_PARTITIONS};
    metrics_set_collector(M_SPILL_BYTES, admin != NULL ? collect : NULL, admin);
    metrics_set_collector(M_SENT_RING_BYTES, admin != NULL ? collect : NULL, admin);
    metrics_set_collector(M_LIVE_BROKERS, admin != NULL ? collect : NULL, admin);
    metrics_set_collector(M_MAP_BEHIND, admin != NULL ? collect : NULL, admin);
    metrics_set_collector(M_MAP_DIFFERS, admin != NULL ? collect : NULL, admin);
    for (size_t i = 0; i < ARRAY_LEN(of_shards); i++)
        metrics_set_collector(of_shards[i], admin != NULL ? collect_shards : NULL, admin);
}

/* ── ctl ── */

static struct broker *broker_of(void *argument)
{
    return ((struct broker_admin *)argument)->broker;
}

static void ctl_status(void *argument, struct ctl_call *call, int count UNUSED,
                       char **words UNUSED)
{
    if (ctl_call_wants_json(call))
        broker_status_write_json(broker_of(argument), ctl_call_out(call));
    else
        broker_status_write(broker_of(argument), ctl_call_out(call));
    ctl_finish(call, true);
}

static void ctl_clients(void *argument, struct ctl_call *call, int count UNUSED,
                        char **words UNUSED)
{
    broker_status_write_clients(broker_of(argument), ctl_call_out(call),
                                ctl_call_wants_json(call));
    ctl_finish(call, true);
}

static void ctl_shards(void *argument, struct ctl_call *call, int count UNUSED,
                       char **words UNUSED)
{
    broker_status_write_shards(broker_of(argument), ctl_call_out(call),
                               ctl_call_wants_json(call));
    ctl_finish(call, true);
}

static void ctl_interest(void *argument, struct ctl_call *call, int count UNUSED,
                         char **words UNUSED)
{
    broker_status_write_interest(broker_of(argument), ctl_call_out(call),
                                 ctl_call_wants_json(call));
    ctl_finish(call, true);
}

static void ctl_rooms(void *argument, struct ctl_call *call, int count UNUSED,
                      char **words UNUSED)
{
    broker_status_write_rooms(broker_of(argument), ctl_call_out(call),
                              ctl_call_wants_json(call));
    ctl_finish(call, true);
}

/* Without --no-wait the answer is the end of the process: the socket closes. */
static void ctl_shutdown(void *argument, struct ctl_call *call, int count, char **words)
{
    struct broker_admin *admin = argument;
    bool waits = count == 0;
    if (count == 1 && strcmp(words[0], "--no-wait") != 0) {
        ctl_refuse(call, "unknown argument: %s", words[0]);
        return;
    }
    lifecycle_drain(broker_lifecycle(admin->broker));
    if (waits && admin->shutdown_call == NULL)
        admin->shutdown_call = call;
    else
        ctl_finish(call, true);
}

/* What became of the shards: a change takes effect when all brokers carry it. */
static void tell_of_map(const struct broker_admin *admin, struct evbuffer *out)
{
    const struct map_change *map =
        publisher_map(broker_context(admin->broker)->publisher);
    if (map == NULL)
        return;
    struct map_change_status status = map_change_status(map);
    evbuffer_add_printf(out, "shards: %s", status.state);
    if (status.behind > 0)
        evbuffer_add_printf(out, ", %u other brokers have not loaded them",
                            status.behind);
    evbuffer_add_printf(out, "\n");
}

static bool go_on_without(struct broker_admin *admin, int count, char **words)
{
    if (count == 0)
        return true;
    char *end = NULL;
    uint64_t origin = count == 2 ? strtoull(words[1], &end, 16) : 0;
    if (strcmp(words[0], "--without") != 0 || end == NULL || *end != '\0' || origin == 0)
        return false;
    publisher_go_on_without(broker_context(admin->broker)->publisher, origin);
    return true;
}

static void ctl_reload(void *argument, struct ctl_call *call, int count, char **words)
{
    struct broker_admin *admin = argument;
    if (!go_on_without(admin, count, words)) {
        ctl_refuse(call, "reload takes nothing, or --without and an origin");
        return;
    }
    char *text = NULL;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);
    check(errors != NULL);
    bool ok = broker_reload(admin->broker, errors);
    check(fclose(errors) == 0);
    if (ok) {
        tell_of_map(admin, ctl_call_out(call));
        ctl_finish(call, true);
    } else {
        ctl_refuse(call, "%.*s", (int)(len > 0 ? len - 1 : 0), text);
    }
    free(text);
}

static void ctl_log_level(void *argument UNUSED, struct ctl_call *call, int count UNUSED,
                          char **words)
{
    for (int level = 0; log_level_words[level] != NULL; level++)
        if (strcmp(log_level_words[level], words[0]) == 0) {
            log_set_level((enum log_level)level);
            ctl_finish(call, true);
            return;
        }
    ctl_refuse(call, "unknown level: %s", words[0]);
}

const struct ctl_verb broker_ctl_verbs[] = {
    {"status", "", "What the broker is doing.", 0, 0, ctl_status},
    {"clients", "", "Every client connection.", 0, 0, ctl_clients},
    {"shards", "", "Every shard: state, partitions, messages carried.", 0, 0, ctl_shards},
    {"interest", "",
     "Channels and patterns that are subscribed; pods that name their rooms.", 0, 0,
     ctl_interest},
    {"rooms", "", "The rooms that carry most messages.", 0, 0, ctl_rooms},
    {"reload", "[--without ORIGIN]",
     "Read the file again; without a broker that does not load new shards.", 0, 2,
     ctl_reload},
    {"shutdown", "[--no-wait]", "Drain and end; returns at the end.", 0, 1, ctl_shutdown},
    {"log-level", "debug|info|warn|error", "Change what is logged.", 1, 1, ctl_log_level},
};
const size_t broker_ctl_verb_count = ARRAY_LEN(broker_ctl_verbs);

/* ── beginning and end ── */

static const struct text_list *hosts(void *argument)
{
    const struct broker_admin *admin = argument;
    return &broker_config_of(admin->broker)->admin_hosts;
}

static bool open_port(struct broker_admin *admin, struct event_base *base)
{
    const struct broker_config *config = broker_config_of(admin->broker);
    if (config->admin_address.len == 0)
        return true;
    const struct admin_callbacks callbacks = {broker_page, is_started, is_ready,
                                              write_status, hosts};
    admin->admin = admin_new(base, &callbacks, admin);
    char why[NET_WHY_SIZE];
    if (!admin_listen(admin->admin, &config->admin_address, why)) {
        fprintf(stderr, "admin.address: %s\n", why);
        return false;
    }
    struct address address = admin_address(admin->admin);
    char text[ADDRESS_TEXT_SIZE];
    log_info(LOG_SUBJECT("admin"), "listening",
             LOG_TEXT("address", address_text(&address, text)));
    return true;
}

static bool open_socket(struct broker_admin *admin, struct event_base *base)
{
    const char *wanted = broker_config_of(admin->broker)->admin_socket;
    if (wanted[0] == '\0')
        return true;
    bool is_auto = strcmp(wanted, "auto") == 0;
    char *path = is_auto ? ctl_default_path("broker") : must_strdup(wanted);
    if (path == NULL) {
        log_warn(LOG_SUBJECT("ctl"), "off: no folder for the socket");
        return true;
    }
    admin->ctl = ctl_new(base, broker_ctl_verbs, broker_ctl_verb_count, admin);
    char why[NET_WHY_SIZE];
    bool ok = ctl_listen(admin->ctl, path, why);
    if (!ok && is_auto) {
        /* Another broker of this user has it: no reason not to run. */
        log_warn(LOG_SUBJECT("ctl"), "off", LOG_TEXT("socket", path),
                 LOG_TEXT("why", why));
        ctl_free(admin->ctl);
        admin->ctl = NULL;
        ok = true;
    } else if (!ok) {
        fprintf(stderr, "admin.socket: %s: %s\n", path, why);
    }
    free(path);
    return ok;
}

struct broker_admin *broker_admin_new(struct broker *broker, struct event_base *base)
{
    struct broker_admin *admin = must_calloc(1, sizeof(*admin));
    admin->broker = broker;
    set_collectors(admin);
    if (!open_port(admin, base) || !open_socket(admin, base)) {
        broker_admin_free(admin);
        return NULL;
    }
    return admin;
}

void broker_admin_free(struct broker_admin *admin)
{
    set_collectors(NULL);
    if (admin->shutdown_call != NULL)
        ctl_finish(admin->shutdown_call, true);
    if (admin->ctl != NULL)
        ctl_free(admin->ctl);
    if (admin->admin != NULL)
        admin_free(admin->admin);
    free(admin);
}
