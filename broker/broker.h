/*
 * The broker put together: who owns what, and in which order it begins and ends.
 *
 *     config ─▶ partition map ─▶ interest ─▶ deliverer ─▶ publisher (shards, links) ─▶ clients ─▶ listeners
 *                                                                                          └▶ admin, ctl
 *
 * Reload (SIGHUP, ctl, the file has another content): read, check, open new listeners; if all of it is well, the rest
 * follows, else everything stays. What needs a restart is named and stays.
 *
 * SIGTERM: unready, no new clients, SUBSCRIBE refused ─▶ what waits is sent and has come back ─▶ what is
 * queued to clients is written ─▶ closed; all of it within shutdown.deadline. A further SIGTERM changes nothing.
 */
#pragma once

#include "broker/command.h"

#include <stdbool.h>
#include <stdio.h>

struct broker;
struct event_base;
struct lifecycle;

/* Listens on everything the configuration names; NULL after one line on stderr naming option and address. Holds
 * `config`. `file` is what it was read from and what is watched and read again (borrowed; NULL: flags only). */
struct broker *broker_new(struct broker_config *config, const char *file);
void broker_free(struct broker *broker);

/* Links, listeners and ticks begin: what broker_run() does before it turns the loop. */
void broker_start(struct broker *broker);

/* Starts, and runs until the end; the exit code. */
int broker_run(struct broker *broker);

/* For who turns the loop in place of broker_run(). Borrowed. */
struct event_base *broker_base(const struct broker *broker);

/* Reads the file again and applies what has changed. False after lines to `errors`: everything is as before. */
bool broker_reload(struct broker *broker, FILE *errors);

/* For broker_admin. All borrowed. */
const struct broker_config *broker_config_of(const struct broker *broker);
struct command_context *broker_context(struct broker *broker);
struct lifecycle *broker_lifecycle(struct broker *broker);
