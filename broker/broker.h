/*
 * The broker put together: who owns what, and in which order it begins and ends.
 *
 *     config ─▶ partition map ─▶ interest ─▶ deliverer ─▶ publisher (shards, links) ─▶ clients ─▶ listeners
 *                                                                                          └▶ admin, ctl
 *
 * SIGTERM: unready, no new clients, SUBSCRIBE refused ─▶ what waits is sent and has come back ─▶ what is
 * queued to clients is written ─▶ closed; all of it within shutdown.deadline.
 */
#pragma once

#include "broker/command.h"

#include <stdbool.h>

struct broker;
struct lifecycle;

/* Listens on everything the configuration names; NULL after one line on stderr naming option and address.
 * `config` is borrowed. */
struct broker *broker_new(const struct broker_config *config);
void broker_free(struct broker *broker);

/* Runs until the end; the exit code. */
int broker_run(struct broker *broker);

/* For broker_admin. All borrowed. */
const struct broker_config *broker_config_of(const struct broker *broker);
struct command_context *broker_context(struct broker *broker);
struct lifecycle *broker_lifecycle(struct broker *broker);
