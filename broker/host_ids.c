#include "broker/host_ids.h"

#include "broker/broker_metrics.h"
#include "broker/identity.h"
#include "shared/log.h"

#include <stdlib.h>
#include <sys/queue.h>

/* uthash is a macro package with its own opinion about these. */
#include <uthash.h>

/* A pod that has just started has not published yet from all of its processes. */
#define SUSPECT_FOR SECONDS(5)

/* A connection counts when it has published so much, and lately: a pool opens some for a moment. */
#define PUBLISHED_MIN 5
#define LATELY        SECONDS(30)

/* All clients are walked for it. */
#define LOOK_EVERY SECONDS(1)

/* Of one pod. With more nothing is told. */
#define POD_IDS_MAX 64

const char host_ids_remedy[] =
    "make the SocketIO object in each worker: gunicorn without --preload, or "
    "socketio.init_app() in post_fork";

struct host_id {
    uint8_t bytes[ENVELOPE_HOST_ID_LEN];
    unsigned clients;
    uint64_t suspected_at; /* timing_now(); 0: not */
    bool is_told;
    struct host_id_report report;
    TAILQ_ENTRY(host_id) of_ids;
    UT_hash_handle hh;
};

struct host_ids {
    struct client_set *clients; /* borrowed */
    bool (*is_pod)(void *context, struct client *client);
    void *context;
    uint64_t looked_at;
    struct host_id *by_bytes;
    TAILQ_HEAD(, host_id) all; /* the next to look at first */
};

/* What is seen of a host_id among the clients that are connected. */
struct sight {
    const struct client_facts *first;
    bool has_two_identities;
    unsigned connections, greetings, publishers;
    unsigned subscribers; /* of the pod of `first` */
    size_t id_count;
    const struct host_id *ids[POD_IDS_MAX]; /* of that pod's publishers */
};

struct host_ids *host_ids_new(struct client_set *clients,
                              bool (*is_pod)(void *context, struct client *client),
                              void *context)
{
    struct host_ids *ids = must_calloc(1, sizeof(*ids));
    ids->clients = clients;
    ids->is_pod = is_pod;
    ids->context = context;
    TAILQ_INIT(&ids->all);
    return ids;
}

void host_ids_free(struct host_ids *ids)
{
    check(TAILQ_EMPTY(&ids->all));
    free(ids);
}

void host_ids_forget(struct host_ids *ids, struct client *client)
{
    struct host_id *id = client_facts(client)->host_id;
    client_facts(client)->host_id = NULL;
    if (id == NULL || --id->clients > 0)
        return;
    TAILQ_REMOVE(&ids->all, id, of_ids);
    HASH_DEL(ids->by_bytes, id);
    free(id);
}

void host_ids_note(struct host_ids *ids, struct client *client,
                   const uint8_t host_id[ENVELOPE_HOST_ID_LEN])
{
    struct host_id *id = client_facts(client)->host_id;
    if (id != NULL && memcmp(id->bytes, host_id, ENVELOPE_HOST_ID_LEN) == 0)
        return;
    host_ids_forget(ids, client);
    HASH_FIND(hh, ids->by_bytes, host_id, ENVELOPE_HOST_ID_LEN, id);
    if (id == NULL) {
        id = must_calloc(1, sizeof(*id));
        memcpy(id->bytes, host_id, ENVELOPE_HOST_ID_LEN);
        HASH_ADD(hh, ids->by_bytes, bytes, ENVELOPE_HOST_ID_LEN, id);
        TAILQ_INSERT_HEAD(&ids->all, id, of_ids);
    }
    id->clients++;
    client_facts(client)->host_id = id;
}

/* By what is known of it; nothing: by its address. */
static bool is_same_pod(const struct client_facts *one, const struct client_facts *other)
{
    char one_ip[ADDRESS_TEXT_SIZE];
    char other_ip[ADDRESS_TEXT_SIZE];
    if (one->identity[0] != '\0' || other->identity[0] != '\0')
        return strcmp(one->identity, other->identity) == 0;
    return strcmp(address_ip_text(&one->peer, one_ip),
                  address_ip_text(&other->peer, other_ip)) == 0;
}

/* A process may have two addresses, but one name, and one process number. */
static bool are_two_processes(const struct client_facts *one,
                              const struct client_facts *other)
{
    return one->identity[0] != '\0' && other->identity[0] != '\0' &&
           identity_is_shareable(one->identity) &&
           identity_is_shareable(other->identity) &&
           strcmp(one->identity, other->identity) != 0;
}

static void see_id(struct sight *sight, const struct host_id *id)
{
    for (size_t i = 0; i < sight->id_count; i++)
        if (sight->ids[i] == id)
            return;
    if (sight->id_count < POD_IDS_MAX)
        sight->ids[sight->id_count++] = id;
}

static void see_holder(struct host_ids *ids, struct sight *sight, struct client *client,
                       uint64_t now)
{
    const struct client_facts *facts = client_facts(client);
    if (sight->first == NULL)
        sight->first = facts;
    else if (are_two_processes(sight->first, facts))
        sight->has_two_identities = true;
    sight->connections++;
    sight->greetings += ids->is_pod(ids->context, client);
    sight->publishers +=
        facts->published >= PUBLISHED_MIN && now - facts->active_at < LATELY;
}

static void look(struct host_ids *ids, const struct host_id *id, uint64_t now,
                 struct sight *sight)
{
    *sight = (struct sight){0};
    struct client *client;
    for (client = client_first(ids->clients); client != NULL;
         client = client_next(client))
        if (client_facts(client)->host_id == id)
            see_holder(ids, sight, client, now);
    for (client = client_first(ids->clients); client != NULL && sight->first != NULL;
         client = client_next(client)) {
        const struct client_facts *facts = client_facts(client);
        if (!is_same_pod(sight->first, facts))
            continue;
        sight->subscribers += ids->is_pod(ids->context, client);
        if (facts->host_id != NULL)
            see_id(sight, facts->host_id);
    }
}

static void tell(struct host_id *id, const struct sight *sight, bool is_certain)
{
    id->is_told = true;
    id->report = (struct host_id_report){.connections = sight->connections,
                                         .subscribers = sight->subscribers,
                                         .is_certain = is_certain};
    envelope_host_id_write(id->bytes, id->report.host_id);
    metrics_add(M_SHARED_HOST_IDS, 1);
    char peer[ADDRESS_TEXT_SIZE];
    log_warn(LOG_SUBJECT("host_ids"),
             is_certain ? "processes share a host_id: they ignore each other's messages"
                        : "processes seem to share a host_id: they would ignore each "
                          "other's messages",
             LOG_SLICE("host_id", slice_of(id->report.host_id, 32)),
             LOG_TEXT("pod", sight->first->identity),
             LOG_TEXT("peer", address_text(&sight->first->peer, peer)),
             LOG_UNSIGNED("connections", sight->connections),
             LOG_UNSIGNED("subscribers", sight->subscribers),
             LOG_UNSIGNED("host_ids", sight->id_count),
             LOG_TEXT("remedy", host_ids_remedy));
}

void host_ids_tick(struct host_ids *ids, uint64_t now)
{
    struct host_id *id;
    if (now - ids->looked_at < LOOK_EVERY)
        return;
    ids->looked_at = now;
    TAILQ_FOREACH(id, &ids->all, of_ids)
    if (id->clients > 1 && !id->is_told)
        break;
    if (id == NULL)
        return;
    TAILQ_REMOVE(&ids->all, id, of_ids);
    TAILQ_INSERT_TAIL(&ids->all, id, of_ids);
    struct sight sight;
    look(ids, id, now, &sight);
    bool is_certain = sight.has_two_identities || sight.greetings > 1;
    bool is_likely = sight.publishers > 1 && sight.subscribers > sight.id_count &&
                     sight.id_count < POD_IDS_MAX;
    if (!is_certain && !is_likely)
        id->suspected_at = 0;
    else if (id->suspected_at == 0)
        id->suspected_at = now;
    else if (now - id->suspected_at >= SUSPECT_FOR)
        tell(id, &sight, is_certain);
}

bool host_ids_reported(const struct host_ids *ids, size_t index,
                       struct host_id_report *report)
{
    const struct host_id *id;
    TAILQ_FOREACH(id, &ids->all, of_ids)
    {
        if (!id->is_told || index-- > 0)
            continue;
        *report = id->report;
        return true;
    }
    return false;
}
