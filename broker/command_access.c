#include "broker/command_access.h"

#include "broker/broker_config.h"
#include "broker/command.h"
#include "broker/pods.h"

bool command_may_use_channel(const struct client_facts *facts, struct slice channel)
{
    const struct broker_user_config *user = facts->user;
    if (user == NULL || user->channels.count == 0)
        return true;
    struct slice greeted;
    if (pods_is_greeting(channel, &greeted))
        channel = greeted;
    for (size_t i = 0; i < user->channels.count; i++)
        if (slice_equals(slice_from_text(user->channels.items[i]), channel))
            return true;
    return false;
}

/* [*from, *to) of argv. */
static void channels_of(const struct command_call *call, const struct command *row,
                        size_t *from, size_t *to)
{
    *from = strchr(row->name, '|') != NULL ? 2 : 1;
    *to = (row->flags & COMMAND_CHANNELS) != 0  ? call->argc
          : (row->flags & COMMAND_CHANNEL) != 0 ? min_size(*from + 1, call->argc)
                                                : *from;
}

enum access command_access(const struct command_call *call, const struct command *row)
{
    const struct broker_user_config *user = call->facts->user;
    if (user == NULL)
        return ACCESS_GIVEN;
    if ((user->classes & COMMAND_CLASS_BIT(row->class)) == 0)
        return ACCESS_NO_COMMAND;
    size_t i;
    size_t to;
    for (channels_of(call, row, &i, &to); i < to; i++)
        if (!command_may_use_channel(call->facts, call->argv[i]))
            return ACCESS_NO_CHANNEL;
    return ACCESS_GIVEN;
}

bool command_check_access(struct command_call *call, const struct command *row)
{
    switch (command_access(call, row)) {
    case ACCESS_GIVEN:
        return true;
    case ACCESS_NO_COMMAND:
        command_refuse(call,
                       "NOPERM this user has no permissions to run the '%s' command",
                       row->name);
        return false;
    case ACCESS_NO_CHANNEL:
        command_refuse(call, "NOPERM this user has no permissions to access one of the "
                             "channels used as arguments");
        return false;
    }
    unreachable();
}
