#include "broker/gate.h"

#include "broker/broker_metrics.h"
#include "broker/control.h"
#include "broker/peers.h"
#include "broker/standing_clock.h"
#include "shared/log.h"

#include <stdlib.h>

#define LOG_EVERY SECONDS(60)

/* Since the last line in the log. */
struct refusals {
    uint64_t untold;
    uint64_t told_at; /* standing_now(); 0: never */
};

struct gate {
    struct seal *seal; /* borrowed */
    uint64_t origin;
    struct refusals refusals[SEAL_REFUSAL_COUNT];
    enum gate_state told;
    /* standing_now() of the last heartbeat that was ...; 0: none */
    uint64_t refused_at, unsigned_at, sealed_at, strict_at;
};

struct gate *gate_new(struct seal *seal, uint64_t origin)
{
    struct gate *gate = must_calloc(1, sizeof(*gate));
    gate->seal = seal;
    gate->origin = origin;
    return gate;
}

void gate_free(struct gate *gate)
{
    free(gate);
}

static bool is_heartbeat(struct slice body)
{
    return control_is_control(body) && body.len > CONTROL_KIND_OFFSET &&
           body.data[CONTROL_KIND_OFFSET] == CONTROL_HEARTBEAT;
}

static void refuse(struct gate *gate, enum seal_verdict verdict, uint64_t now)
{
    int refusal = (int)(verdict - SEAL_UNSIGNED);
    struct refusals *refusals = &gate->refusals[refusal];
    metrics_add_by(M_UNAUTHENTICATED, refusal, 1);
    refusals->untold++;
    if (refusals->told_at != 0 && now - refusals->told_at < LOG_EVERY)
        return;
    log_error(LOG_SUBJECT("brokers"), "not authentic, dropped",
              LOG_TEXT("reason", seal_refusal_label(refusal)),
              LOG_UNSIGNED("messages", refusals->untold));
    refusals->untold = 0;
    refusals->told_at = now;
}

static void tell_state(struct gate *gate, uint64_t now)
{
    enum gate_state state = gate_state(gate, now);
    if (state == gate->told)
        return;
    gate->told = state;
    if (state == GATE_SEALED_ALONE || state == GATE_REFUSES)
        log_error(LOG_SUBJECT("brokers"), gate_state_text(state));
    else if (state != GATE_AGREES)
        log_warn(LOG_SUBJECT("brokers"), gate_state_text(state));
}

static void note_heartbeat(struct gate *gate, enum seal_verdict verdict, bool is_sealed,
                           unsigned flags, uint64_t now)
{
    if (verdict > SEAL_UNCHECKED)
        gate->refused_at = now;
    else if (seal_has_keys(gate->seal) && !is_sealed)
        gate->unsigned_at = now;
    else if (!seal_has_keys(gate->seal) && is_sealed)
        gate->sealed_at = now;
    if (!seal_has_keys(gate->seal) && (flags & SEAL_STRICT) != 0)
        gate->strict_at = now;
    tell_state(gate, now);
}

bool gate_take(struct gate *gate, struct slice channel, struct slice bytes,
               struct slice *body)
{
    unsigned flags = 0;
    if (!seal_peek(bytes, body, &flags)) {
        refuse(gate, SEAL_BAD, standing_now());
        return false;
    }
    enum seal_verdict verdict = seal_open(gate->seal, channel, bytes, body);
    if (verdict == SEAL_CHECKED)
        return true;
    uint64_t now = standing_now();
    if (is_heartbeat(*body) && control_peek_sender(*body) != gate->origin)
        note_heartbeat(gate, verdict, body->data != bytes.data, flags, now);
    if (verdict == SEAL_UNCHECKED)
        return true;
    refuse(gate, verdict, now);
    return false;
}

static bool is_lately(uint64_t at, uint64_t now)
{
    return at != 0 && now - at <= PEER_LIVE;
}

enum gate_state gate_state(const struct gate *gate, uint64_t now)
{
    bool has_keys = seal_has_keys(gate->seal);
    if (has_keys && is_lately(gate->refused_at, now))
        return GATE_REFUSES;
    if (has_keys && !seal_is_strict(gate->seal) && is_lately(gate->unsigned_at, now))
        return GATE_UNSIGNED_TAKEN;
    if (!has_keys && is_lately(gate->strict_at, now))
        return GATE_SEALED_ALONE;
    return !has_keys && is_lately(gate->sealed_at, now) ? GATE_SEALED_SEEN : GATE_AGREES;
}

const char *gate_mode_text(const struct gate *gate)
{
    return seal_is_strict(gate->seal)  ? "required"
           : seal_has_keys(gate->seal) ? "accept_unsigned"
                                       : "none";
}

const char *gate_state_text(enum gate_state state)
{
    switch (state) {
    case GATE_AGREES:
        return "";
    case GATE_UNSIGNED_TAKEN:
        return "other brokers of this cluster do not sign: they have no "
               "cluster.key_file; cluster.accept_unsigned takes what they send";
    case GATE_SEALED_SEEN:
        return "other brokers of this cluster sign: give this one their "
               "cluster.key_file";
    case GATE_SEALED_ALONE:
        return "other brokers of this cluster drop what this one sends: give it their "
               "cluster.key_file";
    case GATE_REFUSES:
        return "heartbeats of this cluster are dropped: their senders have another "
               "cluster.key_file, or none";
    }
    unreachable();
}
