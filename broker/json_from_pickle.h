/*
 * Writes a pickled message as JSON, the way json14 and json15 publishers would have published the same call.
 */
#pragma once

#include "broker/transcoding.h"

/* All of transcoding->payload, into its bytes. False: refused, and why. Resets nothing. */
bool json_from_pickle(struct transcoding *transcoding) MUST_CHECK;
