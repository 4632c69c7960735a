/*
 * Verbs of ctl by which an operator moves sessions.
 *
 *      drain, undrain, weight ─▶ discovery ─▶ endpoint_list (beats what the source says) ─▶ snapshot ─▶ workers
 *                                                                                    └─▶ the answer: what is now
 */
#pragma once

struct ctl_call;

/* Handlers for rows of the table of verbs; the argument is the struct proxy. */
void proxy_orders_drain(void *argument, struct ctl_call *call, int count,
                        char **arguments);
void proxy_orders_undrain(void *argument, struct ctl_call *call, int count,
                          char **arguments);
void proxy_orders_weigh(void *argument, struct ctl_call *call, int count,
                        char **arguments);
