/*
 * What a user may run: classes of commands (command_class.h) and channels. Redis' ACLs do the same, and the texts are
 * theirs.
 */
#pragma once

#include "shared/slice.h"

struct client_facts;
struct command;
struct command_call;

/* May the client's user touch this channel (or pattern, which is allowed only where its text names one channel)? The
 * greeting of a channel goes with the channel. True where there are no users. */
bool command_may_use_channel(const struct client_facts *facts, struct slice channel);

/* False after a NOPERM reply: its class, or one of the channels among its arguments, is not the user's. */
bool command_check_access(struct command_call *call, const struct command *row);
