/*
 * What operators see and may do: the admin port (health, metrics, status, page), the ctl socket, and the
 * metrics that are asked for at scrape.
 */
#pragma once

#include "shared/ctl.h"

struct broker;
struct broker_admin;
struct event_base;

/* Listens as configured; NULL after one line on stderr. `broker` is borrowed. */
struct broker_admin *broker_admin_new(struct broker *broker, struct event_base *base);
void broker_admin_free(struct broker_admin *admin);

/* The verbs of ctl, for `sidrail-broker ctl` too. */
extern const struct ctl_verb broker_ctl_verbs[];
extern const size_t broker_ctl_verb_count;
