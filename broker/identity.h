/*
 * Which pod a connection is of, so that what one left unread goes to the next of the same pod.
 *
 *     ?client_name=web-1          ─▶ "name:web-1"         the pod's own word, on all its connections; a dialect
 *                                                         behind it (web-1:json15) is no part of it
 *     unix socket, no name        ─▶ "process:UID:PID"    from the kernel
 *     another machine, no name    ─▶ "address:10.0.0.7"   one process a pod: only while one subscribes
 *     loopback, no name           ─▶ ""                   many processes share it
 */
#pragma once

#include "shared/slice.h"

struct address;

/* Whose connection this is; owned by the caller. `name` as the client gave it ("" if none), `fd` its socket. */
char *identity_of(const char *name, const struct address *peer, int fd);

/* Is it one process, in the word of the kernel? */
bool identity_is_process(const char *identity);

/* May several live connections have it? Not of an address: who they are is then unknown. */
bool identity_is_shareable(const char *identity);
