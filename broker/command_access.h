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

enum access { ACCESS_GIVEN, ACCESS_NO_COMMAND, ACCESS_NO_CHANNEL };

/* Are the row's class, and the channels among the call's arguments, the user's? */
enum access command_access(const struct command_call *call, const struct command *row);

/* The same; false after a NOPERM reply. */
bool command_check_access(struct command_call *call, const struct command *row);
