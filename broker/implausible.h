/*
 * Messages between brokers that can be read and cannot be true: dropped, counted by reason, and logged once a minute. Where
 * nobody but brokers may PUBLISH on the shards there are none (docs/broker-protocol.md, "Trust between brokers").
 */
#pragma once

#include "shared/base.h"

#include <stdint.h>

enum implausible {
#define IMPLAUSIBLE(constant, label) constant,
#include "broker/implausible.def"
#undef IMPLAUSIBLE
    IMPLAUSIBLE_COUNT
};

/* As in metrics. */
const char *implausible_label(int reason);

/* One of `origin` was dropped. */
void implausible_note(enum implausible reason, uint64_t origin);
