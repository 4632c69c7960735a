/*
 * Whether a connection speaks to us at all: what a web page, a webhook, a port scanner or a balancer's PROXY preamble sends is
 * not executed line by line.
 *
 *     '*'                                ─▶ RESP
 *     a word of the command table … LF   ─▶ an inline command, unless the line ends with "HTTP/1.1"
 *     empty lines                        ─▶ skipped, as Redis does
 *     anything else                      ─▶ foreign, at its first byte that says so: GET, a TLS hello, SSH-2.0, PROXY, NUL …
 *
 * Only what comes before the first request is looked at. POST and Host: as commands end a connection at any time
 * (command.c), as at Redis.
 */
#pragma once

#include "shared/slice.h"

struct command;

enum first_bytes { FIRST_MORE, FIRST_OURS, FIRST_FOREIGN };

/* `input` is what there is of the connection behind empty lines that were taken; MORE: nothing is wrong so far. */
enum first_bytes first_bytes_look(const struct command *table, struct slice input);
