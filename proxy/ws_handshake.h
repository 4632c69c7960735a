/*
 * The answer to a Sec-WebSocket-Key: base64(SHA1(key + 258EAFA5-…)), RFC 6455 4.2.2. A
 * 101 without the right one comes from somebody who did not understand the request, and
 * opens no tunnel.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>

enum {
    WS_KEY_LEN = 24,
    WS_ACCEPT_LEN = 28,
};

/* Writes the accept value for `key` (WS_KEY_LEN characters), without NUL. */
void ws_accept_write(struct slice key, char accept[WS_ACCEPT_LEN]);

/* True when `accept` answers `key`. */
bool ws_accept_matches(struct slice key, struct slice accept) MUST_CHECK;
