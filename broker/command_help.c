/*
 * HELP of the containers: Redis' lines for what there is.
 */
#include "broker/command_handlers.h"

#include "broker/command.h"
#include "broker/resp.h"

#include <stdio.h>

static const char client_help[] =
    "GETNAME\n"
    "    Return the name of the current connection.\n"
    "ID\n"
    "    Return the ID of the current connection.\n"
    "INFO\n"
    "    Return information about the current client connection.\n"
    "KILL <ip:port>\n"
    "    Kill connection made from <ip:port>.\n"
    "KILL <option> <value> [<option> <value> [...]]\n"
    "    Kill connections. Options are:\n"
    "    * ADDR (<ip:port>|<unixsocket>:0)\n"
    "      Kill connections made from the specified address\n"
    "    * LADDR (<ip:port>|<unixsocket>:0)\n"
    "      Kill connections made to specified local address\n"
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)\n"
    "      Kill connections by type.\n"
    "    * USER <username>\n"
    "      Kill connections authenticated by <username>.\n"
    "    * SKIPME (YES|NO)\n"
    "      Skip killing current connection (default: yes).\n"
    "    * MAXAGE <maxage>\n"
    "      Kill connections older than the specified age.\n"
    "LIST [options ...]\n"
    "    Return information about client connections. Options:\n"
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)\n"
    "      Return clients of specified type.\n"
    "REPLY (ON|OFF|SKIP)\n"
    "    Control the replies sent to the current connection.\n"
    "SETNAME <name>\n"
    "    Assign the name <name> to the current connection.\n"
    "SETINFO <option> <value>\n"
    "    Set client meta attr. Options are:\n"
    "    * LIB-NAME: the client lib name.\n"
    "    * LIB-VER: the client lib version.\n"
    "NO-EVICT (ON|OFF)\n"
    "    Protect current client connection from eviction.\n"
    "NO-TOUCH (ON|OFF)\n"
    "    Will not touch LRU/LFU stats when this mode is on.\n";

static const char command_help_text[] =
    "(no subcommand)\n"
    "    Return details about all Redis commands.\n"
    "COUNT\n"
    "    Return the total number of commands in this Redis server.\n"
    "DOCS [<command-name> ...]\n"
    "    Return documentation details about multiple Redis commands.\n"
    "    If no command names are given, documentation details for all\n"
    "    commands are returned.\n";

static const char config_help[] =
    "GET <pattern>\n"
    "    Return parameters matching the glob-like <pattern> and their values.\n";

static const char pubsub_help[] =
    "CHANNELS [<pattern>]\n"
    "    Return the currently active channels matching a <pattern> (default: '*').\n"
    "NUMPAT\n"
    "    Return number of subscriptions to patterns.\n"
    "NUMSUB [<channel> ...]\n"
    "    Return the number of subscribers for the specified channels, excluding\n"
    "    pattern subscriptions(default: no channels).\n"
    "SHARDCHANNELS [<pattern>]\n"
    "    Return the currently active shard level channels matching a <pattern> (default: "
    "'*').\n"
    "SHARDNUMSUB [<shardchannel> ...]\n"
    "    Return the number of subscribers for the specified shard level channel(s)\n";

static const char sentinel_help[] =
    "MASTERS\n"
    "    Show a list of monitored masters and their state.\n";

static const struct {
    const char *container, *text;
} helps[] = {{"CLIENT", client_help},
             {"COMMAND", command_help_text},
             {"CONFIG", config_help},
             {"PUBSUB", pubsub_help},
             {"SENTINEL", sentinel_help}};

static size_t count_lines(const char *text)
{
    size_t lines = 0;
    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

static void write_help(struct command_call *call, const char *container, const char *text)
{
    static const char last[] = "HELP\n    Prints this help.\n";
    char line[128];
    resp_write_array(call->reply, 1 + count_lines(text) + count_lines(last));
    snprintf(line, sizeof(line),
             "%s <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", container);
    resp_write_simple(call->reply, line);
    for (size_t part = 0; part < 2; part++) {
        struct slice rest = slice_from_text(part == 0 ? text : last);
        struct slice found;
        while (rest.len > 0 && slice_cut(&rest, '\n', &found)) {
            snprintf(line, sizeof(line), "%.*s", SLICE_ARGS(found));
            resp_write_simple(call->reply, line);
        }
    }
}

void command_help(struct command_call *call)
{
    for (size_t i = 0; i < ARRAY_LEN(helps); i++)
        if (slice_equals_nocase(slice_from_text(helps[i].container), call->argv[0])) {
            write_help(call, helps[i].container, helps[i].text);
            return;
        }
    unreachable();
}
