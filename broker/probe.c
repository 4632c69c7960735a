#include "broker/probe.h"

#include "broker/broker_config.h"
#include "shared/lifecycle.h"
#include "shared/timing.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { TOKEN_SIZE = 17 }; /* 16 hex digits */

struct probe {
    const struct broker_shard_config *target;
    struct timeval timeout;
    redisContext *subscriber, *publisher;
    char channel[64], payload[TOKEN_SIZE];
    char failure[256];
};

static bool fail(struct probe *probe, const char *why)
{
    snprintf(probe->failure, sizeof(probe->failure), "%s", why);
    return false;
}

/* The reply is what is wanted, or the step has failed with what it says. Frees the reply. */
static bool accept_reply(struct probe *probe, redisContext *context, redisReply *reply,
                         int wanted_type)
{
    bool is_good = reply != NULL && reply->type == wanted_type;
    if (reply == NULL)
        fail(probe, context->errstr[0] != '\0' ? context->errstr : "no answer");
    else if (!is_good)
        fail(probe,
             reply->type == REDIS_REPLY_ERROR ? reply->str : "an unexpected answer");
    if (reply != NULL)
        freeReplyObject(reply);
    return is_good;
}

static bool connect_one(struct probe *probe, redisContext **context)
{
    const struct broker_shard_config *target = probe->target;
    if (target->host != NULL)
        *context =
            redisConnectWithTimeout(target->host, atoi(target->port), probe->timeout);
    else
        *context = redisConnectUnixWithTimeout(target->unix_path, probe->timeout);
    if (*context == NULL)
        return fail(probe, "out of memory");
    if ((*context)->err != 0)
        return fail(probe, (*context)->errstr);
    redisSetTimeout(*context, probe->timeout);
    if (target->url_password == NULL)
        return true;
    redisReply *reply =
        target->username[0] != '\0'
            ? redisCommand(*context, "AUTH %s %s", target->username, target->url_password)
            : redisCommand(*context, "AUTH %s", target->url_password);
    return accept_reply(probe, *context, reply, REDIS_REPLY_STATUS);
}

static bool connect_both(struct probe *probe)
{
    return connect_one(probe, &probe->subscriber) &&
           connect_one(probe, &probe->publisher);
}

static bool subscribe(struct probe *probe)
{
    redisReply *reply = redisCommand(probe->subscriber, "SUBSCRIBE %s", probe->channel);
    return accept_reply(probe, probe->subscriber, reply, REDIS_REPLY_ARRAY);
}

static bool publish(struct probe *probe)
{
    redisReply *reply =
        redisCommand(probe->publisher, "PUBLISH %s %s", probe->channel, probe->payload);
    return accept_reply(probe, probe->publisher, reply, REDIS_REPLY_INTEGER);
}

/* Anything else that is pushed meanwhile (a heartbeat) is passed over. */
static bool receive(struct probe *probe)
{
    for (int pushes = 0; pushes < 100; pushes++) {
        void *answer = NULL;
        if (redisGetReply(probe->subscriber, &answer) != REDIS_OK)
            return fail(probe, probe->subscriber->errstr);
        redisReply *reply = answer;
        bool is_ours = reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
                       reply->element[1]->str != NULL && reply->element[2]->str != NULL &&
                       strcmp(reply->element[1]->str, probe->channel) == 0 &&
                       strcmp(reply->element[2]->str, probe->payload) == 0;
        freeReplyObject(reply);
        if (is_ours)
            return true;
    }
    return fail(probe, "other messages, not the one that was published");
}

int broker_probe(const struct broker_shard_config *target, uint64_t timeout, FILE *out,
                 FILE *errors)
{
    static const struct {
        const char *name;
        bool (*run)(struct probe *probe);
    } steps[] = {{"connect", connect_both},
                 {"subscribe", subscribe},
                 {"publish", publish},
                 {"receive", receive}};
    struct probe probe = {.target = target,
                          .timeout = {.tv_sec = (time_t)(timeout / SECONDS(1)),
                                      .tv_usec = (suseconds_t)(timeout % SECONDS(1))}};
    snprintf(probe.channel, sizeof(probe.channel), "sidrail-probe-%016" PRIx64,
             timing_random());
    snprintf(probe.payload, sizeof(probe.payload), "%016" PRIx64, timing_random());
    uint64_t begin = timing_now();
    size_t step = 0;
    while (step < ARRAY_LEN(steps) && steps[step].run(&probe))
        step++;
    bool is_good = step == ARRAY_LEN(steps);
    if (is_good)
        fprintf(out, "ok: published and received at %s in %" PRIu64 " ms\n", target->name,
                (timing_now() - begin) / 1000);
    else
        fprintf(errors, "probe: %s %s: %s\n", steps[step].name, target->name,
                probe.failure);
    if (probe.subscriber != NULL)
        redisFree(probe.subscriber);
    if (probe.publisher != NULL)
        redisFree(probe.publisher);
    return is_good && fflush(out) == 0 ? EXIT_CODE_WELL : EXIT_CODE_START;
}
