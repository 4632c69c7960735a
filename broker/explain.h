/*
 * Why a message goes where: the answer of `sidrail-broker explain`, one JSON object on one line.
 */
#pragma once

#include "broker/message.h"
#include "broker/partition_map.h"

struct evbuffer;

/* Writes the object and a line feed. `message` came of message_scan; `config` is what `map` was made
 * from (its shards' names are told). The keys are those of the contract, in its order. */
void explain_write(struct evbuffer *out, struct slice channel,
                   const struct message *message, const struct partition_map *map,
                   const struct partition_map_config *config);
