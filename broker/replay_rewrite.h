/*
 * What waits for a pod, in another dialect: it has returned as another version of itself.
 *
 *     [ message │ message │ … ] ─▶ replay_rewrite_next ─▶ the frame as it is     other channels, what is no message
 *                                                     ├▶ a frame with the payload of the other dialect
 *                                                     └▶ missed: it has no form for it
 */
#pragma once

#include "broker/chunk.h"
#include "broker/message.h"

struct replay_rewrite;

/* `carries_messages`: are the payloads of a channel python-socketio messages? */
struct replay_rewrite *replay_rewrite_new(unsigned depth_max, size_t len_max,
                                          bool (*carries_messages)(void *context,
                                                                   struct slice channel),
                                          void *context);
void replay_rewrite_free(struct replay_rewrite *rewrite);

/* Takes the first message off *bytes (deliveries, written for a pod that speaks `from`). *message is borrowed until the
 * next call. False: missed, *why says why until the next call. */
bool replay_rewrite_next(struct replay_rewrite *rewrite, struct slice *bytes,
                         enum message_dialect from, enum message_dialect to,
                         struct span *message, const char **why) MUST_CHECK;
