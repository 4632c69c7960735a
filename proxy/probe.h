/*
 * `sidrail-proxy probe URL`: does a Socket.IO server answer there, as a client would find it?
 *
 *     handshake  GET  ?EIO=4&transport=polling        200, an open packet with a sid
 *     upgrade    GET  ?EIO=4&transport=websocket&sid= 101, the right Sec-WebSocket-Accept
 *     echo       "2probe" ──▶ ◀── "3probe"
 *
 * For helm test, container health commands and people: one line, exit code 0 or 1. It blocks, has no loop,
 * and shares the parsers with the daemon.
 */
#pragma once

#include "shared/base.h"

#include <stdio.h>

/* The whole probe within `timeout` microseconds. `url` is http://host[:port][/path/] or https://…; without a
 * path, /socket.io/. With https the server's certificate is verified by the system's authorities. Writes
 * "ok …" to `out` or one line that says which step failed and why to `errors`; gives the exit code. */
int probe_run(const char *url, uint64_t timeout, FILE *out, FILE *errors);
