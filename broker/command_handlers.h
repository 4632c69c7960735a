/*
 * The handlers that rows of command.c name, by family.
 */
#pragma once

#include "shared/slice.h"

struct command_call;

/* Redis 7.0 is what we answer as: new enough for every client, old enough to promise nothing. */
#define REDIS_VERSION "7.0.15"

/* command_connection.c: who is there */
void command_auth(struct command_call *call);
void command_echo(struct command_call *call);
void command_hello(struct command_call *call);
void command_ping(struct command_call *call);
void command_quit(struct command_call *call);
void command_reset(struct command_call *call);
void command_select(struct command_call *call);

/* command_client.c: CLIENT */
void command_client_getname(struct command_call *call);
void command_client_id(struct command_call *call);
void command_client_info(struct command_call *call);
void command_client_kill(struct command_call *call);
void command_client_list(struct command_call *call);
void command_client_reply(struct command_call *call);
void command_client_setinfo(struct command_call *call);
void command_client_setname(struct command_call *call);
void command_client_switch(struct command_call *call);
void command_client_tracking(struct command_call *call);

/* command_connection.c, for command_client.c: what is wrong with a client's name (NULL: nothing); takes it. */
const char *command_check_name(struct slice name);
void command_set_name(struct command_call *call, struct slice name);

/* command_help.c */
void command_help(struct command_call *call);

/* command_pubsub.c: messages */
void command_psubscribe(struct command_call *call);
void command_publish(struct command_call *call);
void command_pubsub_channels(struct command_call *call);
void command_pubsub_numpat(struct command_call *call);
void command_pubsub_numsub(struct command_call *call);
void command_pubsub_shardchannels(struct command_call *call);
void command_pubsub_shardnumsub(struct command_call *call);
void command_punsubscribe(struct command_call *call);
void command_subscribe(struct command_call *call);
void command_unsubscribe(struct command_call *call);

/* command_sidrail.c: what client managers say */
void command_sidrail_all(struct command_call *call);
void command_sidrail_hello(struct command_call *call);
void command_sidrail_join(struct command_call *call);
void command_sidrail_leave(struct command_call *call);
void command_sidrail_rooms(struct command_call *call);
void command_sidrail_seen(struct command_call *call);

/* command_server.c: what the broker says about itself */
void command_command(struct command_call *call);
void command_command_count(struct command_call *call);
void command_command_docs(struct command_call *call);
void command_config_get(struct command_call *call);
void command_info(struct command_call *call);
void command_role(struct command_call *call);
void command_sentinel_masters(struct command_call *call);
void command_time(struct command_call *call);

/* command_transaction.c: several at once */
void command_discard(struct command_call *call);
void command_exec(struct command_call *call);
void command_multi(struct command_call *call);
void command_unwatch(struct command_call *call);
void command_watch(struct command_call *call);
