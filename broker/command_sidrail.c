/*
 * What client managers say over their subscribing connection: see pods.h. Nothing is answered; what cannot be taken
 * opens the pod, which then gets everything.
 */
#include "broker/command_handlers.h"

#include "broker/command.h"
#include "broker/pods.h"

/* NULL after an error: the client is no manager. */
static struct pod *pod_of(struct command_call *call)
{
    if (call->facts->pod == NULL)
        command_refuse(call, "ERR SIDRAIL is for a client manager that was greeted");
    return call->facts->pod;
}

static bool number_of(const struct command_call *call, size_t index, uint64_t *number)
{
    return slice_to_number(call->argv[index], 0, UINT64_MAX - 1, number);
}

static void open_odd(struct command_call *call)
{
    pods_open(call->context->pods, call->facts->pod, true);
}

/* Earlier connections that a manager names; each is looked for among all pods. */
#define EARLIER_MAX 16

/* SIDRAIL HELLO protocol own|echo dialect|auto [connection seen]… */
void command_sidrail_hello(struct command_call *call)
{
    struct pod *pod = pod_of(call);
    uint64_t protocol;
    if (pod == NULL)
        return;
    bool is_odd = !number_of(call, 2, &protocol) || protocol != PODS_PROTOCOL ||
                  call->argc % 2 != 1 || call->argc > 5 + 2 * EARLIER_MAX;
    struct pod *earlier = NULL;
    uint64_t seen = 0;
    for (size_t i = 5; i + 1 < call->argc && earlier == NULL && !is_odd; i += 2) {
        is_odd = !number_of(call, i + 1, &seen);
        earlier = pods_find_earlier(call->context->pods, pod, call->argv[i]);
    }
    if (is_odd) {
        open_odd(call);
        return;
    }
    enum message_dialect dialect;
    if (dialect_name_parse(call->argv[4], &dialect) && dialect != DIALECT_RAW &&
        dialect_view_given(&call->facts->dialect).basis != DIALECT_NAMED)
        client_name_dialect(call->client, pod->filter.host_id, dialect);
    pods_hello(call->context->pods, pod, slice_equals(call->argv[3], SLICE("own")),
               earlier, seen);
}

/* SIDRAIL ROOMS generation 0|1 (more to come) [namespace room]… */
void command_sidrail_rooms(struct command_call *call)
{
    struct pod *pod = pod_of(call);
    uint64_t generation;
    uint64_t more;
    if (pod == NULL)
        return;
    if (!pod->has_spoken || !number_of(call, 2, &generation) ||
        !number_of(call, 3, &more) || call->argc % 2 != 0) {
        open_odd(call);
        return;
    }
    pods_rooms(call->context->pods, pod, generation, more == 0, call->argv + 4,
               call->argc - 4);
}

/* SIDRAIL JOIN generation sequence [namespace room]…, and LEAVE */
static void change(struct command_call *call, bool is_join)
{
    struct pod *pod = pod_of(call);
    uint64_t generation;
    uint64_t sequence;
    if (pod == NULL)
        return;
    if (!pod->has_spoken || !number_of(call, 2, &generation) ||
        !number_of(call, 3, &sequence) || call->argc % 2 != 0) {
        open_odd(call);
        return;
    }
    pods_change(call->context->pods, pod, generation, sequence, is_join, call->argv + 4,
                call->argc - 4);
}

void command_sidrail_join(struct command_call *call)
{
    change(call, true);
}

void command_sidrail_leave(struct command_call *call)
{
    change(call, false);
}

/* SIDRAIL ALL: a room that the manager cannot name */
void command_sidrail_all(struct command_call *call)
{
    if (pod_of(call) != NULL)
        pods_open(call->context->pods, call->facts->pod, false);
}

/* SIDRAIL SEEN count: so many messages of this connection are handled */
void command_sidrail_seen(struct command_call *call)
{
    uint64_t seen;
    if (pod_of(call) != NULL && number_of(call, 2, &seen))
        client_note_seen(call->client, seen);
}
