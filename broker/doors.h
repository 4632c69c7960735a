/*
 * Where pods come in: the listening sockets, and what a reload makes of them.
 *
 *     doors_prepare ─▶ sockets of new addresses are bound ─┬─▶ doors_commit: they accept, those that are gone close
 *                                                          └─▶ doors_cancel: as before
 *
 * A socket whose address stays is kept; its new clients are held to the new configuration. Clients of a door
 * that has gone stay until they end.
 */
#pragma once

#include "shared/address.h"

#include <stdio.h>

struct broker_config;
struct broker_listener_config;
struct doors;
struct event_base;

typedef void (*doors_accept_cb)(void *context, int fd, const struct address *peer,
                                const struct broker_listener_config *config);

struct doors *doors_new(struct event_base *base, doors_accept_cb on_accept,
                        void *context);
void doors_free(struct doors *doors);

/* Binds what `config` (borrowed while it is committed) names and is not there yet. False after one line to `errors`
 * naming option and address, with nothing changed. */
bool doors_prepare(struct doors *doors, const struct broker_config *config,
                   FILE *errors) MUST_CHECK;

/* After doors_prepare. */
void doors_commit(struct doors *doors);
void doors_cancel(struct doors *doors);

/* Accept, or cease to. */
void doors_start(struct doors *doors);
void doors_stop(struct doors *doors);
