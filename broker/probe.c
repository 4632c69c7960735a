#include "broker/probe.h"

#include "broker/broker_config.h"
#include "broker/broker_tls.h"
#include "shared/lifecycle.h"
#include "shared/net.h"
#include "shared/timing.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOKEN_SIZE = 17, /* 16 hex digits */
    READ_SIZE = 4096,
};

/* One connection: hiredis reads the replies, the bytes are ours. */
struct wire {
    struct probe *probe;
    struct stream stream;
    redisReader *reader;
};

struct probe {
    const struct broker_shard_config *target;
    uint64_t deadline; /* of the step */
    struct address address;
    struct wire subscriber, publisher;
    char channel[64], payload[TOKEN_SIZE];
    char failure[256];
};

static bool fail(struct probe *probe, const char *why)
{
    snprintf(probe->failure, sizeof(probe->failure), "%s", why);
    return false;
}

/* ── bytes, waiting for them until the deadline of the step ── */

static bool wait_for(struct wire *wire, short what)
{
    struct probe *probe = wire->probe;
    struct pollfd poll_fd = {.fd = wire->stream.fd, .events = what};
    uint64_t now = timing_now();
    int left = now < probe->deadline ? (int)((probe->deadline - now) / 1000) + 1 : 0;
    int ready = left > 0 ? poll(&poll_fd, 1, left) : 0;
    if (ready < 0 && errno != EINTR)
        return fail(probe, strerror(errno));
    return ready != 0 || fail(probe, "no answer in time");
}

static bool secure(struct wire *wire)
{
    const struct broker_shard_config *target = wire->probe->target;
    if (target->tls_context != NULL)
        tls_connect(target->tls_context, &wire->stream, broker_tls_name(target));
    for (;;) {
        const char *why = "";
        switch (stream_handshake(&wire->stream, &why)) {
        case STREAM_READY:
            return true;
        case STREAM_REFUSED:
            return fail(wire->probe, why);
        case STREAM_WANTS_READ:
            if (!wait_for(wire, POLLIN))
                return false;
            break;
        case STREAM_WANTS_WRITE:
            if (!wait_for(wire, POLLOUT))
                return false;
            break;
        }
    }
}

static bool send_command(struct wire *wire, const char *format, ...) PRINTF_LIKE(2, 3);
static bool send_command(struct wire *wire, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *command = NULL;
    int len = redisvFormatCommand(&command, format, arguments);
    va_end(arguments);
    check(len > 0);
    bool is_good = true;
    for (size_t sent = 0; is_good && sent < (size_t)len;) {
        ssize_t taken = stream_write(&wire->stream, command + sent, (size_t)len - sent);
        if (taken >= 0)
            sent += (size_t)taken;
        else
            is_good = errno == EAGAIN ? wait_for(wire, POLLOUT)
                                      : fail(wire->probe, strerror(errno));
    }
    free(command);
    return is_good;
}

/* The next reply, which the caller frees; NULL when there is none. */
static redisReply *take_reply(struct wire *wire)
{
    for (;;) {
        void *reply = NULL;
        if (redisReaderGetReply(wire->reader, &reply) != REDIS_OK) {
            fail(wire->probe, wire->reader->errstr);
            return NULL;
        }
        if (reply != NULL)
            return reply;
        char bytes[READ_SIZE];
        ssize_t len = stream_read(&wire->stream, bytes, sizeof(bytes));
        if (len > 0) {
            check(redisReaderFeed(wire->reader, bytes, (size_t)len) == REDIS_OK);
        } else if (len == 0) {
            fail(wire->probe, "the connection ended");
            return NULL;
        } else if (errno != EAGAIN) {
            fail(wire->probe, errno == EPROTO ? stream_failure() : strerror(errno));
            return NULL;
        } else if (!wait_for(wire, POLLIN)) {
            return NULL;
        }
    }
}

/* The next reply is what is wanted, or the step has failed with what it says. */
static bool accept_reply(struct wire *wire, int wanted_type)
{
    redisReply *reply = take_reply(wire);
    if (reply == NULL)
        return false;
    bool is_good = reply->type == wanted_type;
    if (!is_good)
        fail(wire->probe,
             reply->type == REDIS_REPLY_ERROR ? reply->str : "an unexpected answer");
    freeReplyObject(reply);
    return is_good;
}

/* ── the steps ── */

static bool find_address(struct probe *probe)
{
    const struct broker_shard_config *target = probe->target;
    char *text = target->unix_path != NULL ? must_strdup(target->unix_path)
                 : strchr(target->host, ':') != NULL
                     ? must_printf("[%s]:%s", target->host, target->port)
                     : must_printf("%s:%s", target->host, target->port);
    const char *why = "";
    bool is_known = address_resolve(slice_from_text(text), &probe->address, &why);
    free(text);
    return is_known || fail(probe, why);
}

static bool connect_one(struct wire *wire)
{
    struct probe *probe = wire->probe;
    const struct broker_shard_config *target = probe->target;
    bool in_progress = false;
    int fd = net_connect(&probe->address, &in_progress);
    if (fd < 0)
        return fail(probe, strerror(errno));
    stream_init(&wire->stream, fd);
    wire->reader = redisReaderCreate();
    check(wire->reader != NULL);
    if (!wait_for(wire, POLLOUT))
        return false;
    int error = net_connect_result(fd);
    if (error != 0)
        return fail(probe, strerror(error));
    if (!secure(wire))
        return false;
    if (target->url_password == NULL)
        return true;
    bool is_sent =
        target->username[0] != '\0'
            ? send_command(wire, "AUTH %s %s", target->username, target->url_password)
            : send_command(wire, "AUTH %s", target->url_password);
    return is_sent && accept_reply(wire, REDIS_REPLY_STATUS);
}

static void disconnect(struct wire *wire)
{
    stream_close(&wire->stream);
    if (wire->reader != NULL)
        redisReaderFree(wire->reader);
}

static bool connect_both(struct probe *probe)
{
    return find_address(probe) && connect_one(&probe->subscriber) &&
           connect_one(&probe->publisher);
}

static bool subscribe(struct probe *probe)
{
    return send_command(&probe->subscriber, "SUBSCRIBE %s", probe->channel) &&
           accept_reply(&probe->subscriber, REDIS_REPLY_ARRAY);
}

static bool publish(struct probe *probe)
{
    return send_command(&probe->publisher, "PUBLISH %s %s", probe->channel,
                        probe->payload) &&
           accept_reply(&probe->publisher, REDIS_REPLY_INTEGER);
}

/* Anything else that is pushed meanwhile (a heartbeat) is passed over. */
static bool receive(struct probe *probe)
{
    for (int pushes = 0; pushes < 100; pushes++) {
        redisReply *reply = take_reply(&probe->subscriber);
        if (reply == NULL)
            return false;
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
                          .subscriber = {.probe = &probe, .stream = {.fd = -1}},
                          .publisher = {.probe = &probe, .stream = {.fd = -1}}};
    snprintf(probe.channel, sizeof(probe.channel), "sidrail-probe-%016" PRIx64,
             timing_random());
    snprintf(probe.payload, sizeof(probe.payload), "%016" PRIx64, timing_random());
    uint64_t begin = timing_now();
    size_t step = 0;
    for (; step < ARRAY_LEN(steps); step++) {
        probe.deadline = timing_now() + timeout;
        if (!steps[step].run(&probe))
            break;
    }
    bool is_good = step == ARRAY_LEN(steps);
    if (is_good)
        fprintf(out, "ok: published and received at %s in %" PRIu64 " ms\n", target->name,
                (timing_now() - begin) / 1000);
    else
        fprintf(errors, "probe: %s %s: %s\n", steps[step].name, target->name,
                probe.failure);
    disconnect(&probe.subscriber);
    disconnect(&probe.publisher);
    return is_good && fflush(out) == 0 ? EXIT_CODE_WELL : EXIT_CODE_START;
}
