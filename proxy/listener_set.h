/*
 * The listening sockets of the process: which there are, and who has them.
 *
 *      config ─ listener_plan_new ─▶ plan ─ listener_set_apply ─▶ each worker: its whole list ─ post ─▶ on_applied,
 *                    │                │                                                        when all have it
 *                    │                └─ listener_plan_free ─▶ as if it had not been
 *                    ├ an address that is listened on: its sockets stay, with the clients in their queues
 *                    ├ another: bound now for every worker, or an error
 *                    └ one that is missing: each worker takes the clients that wait in its queue, closes the
 *                      socket, and lets the listener's clients go (client_leave)
 *
 * A worker has a socket of its own for each TCP address (SO_REUSEPORT), a duplicate of the one for a unix
 * address. On the main thread.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>
#include <stddef.h>

struct listener_plan;
struct listener_set;
struct post_box;
struct proxy_config;
struct worker;

/* No socket yet. `workers` and `box`, the main thread's, outlive it. */
struct listener_set *listener_set_new(struct worker *const *workers, size_t workers_len,
                                      struct post_box *box);

/* After the workers' threads have ended: closes what no worker has taken. */
void listener_set_free(struct listener_set *set);

/* What the config asks for. NULL: a line in `error` that names the option, and nothing has changed. */
struct listener_plan *listener_plan_new(const struct listener_set *set,
                                        const struct proxy_config *config, char *error,
                                        size_t error_size) MUST_CHECK;
void listener_plan_free(struct listener_plan *plan);

/* The plan, which it takes, becomes what is: not before the one before has been applied. Workers that do not run
 * yet begin with it. `on_applied` comes from the box. */
void listener_set_apply(struct listener_set *set, struct listener_plan *plan,
                        void (*on_applied)(void *argument), void *argument);

/* Sockets that are listened on. */
size_t listener_set_count(const struct listener_set *set);
