/*
 * Writes a JSON message as a pickle, the way publishers up to 5.13 would have published the same call.
 */
#pragma once

#include "broker/transcoding.h"

/* All of transcoding->payload, into its bytes. False: refused, and why. */
bool pickle_from_json(struct transcoding *transcoding) MUST_CHECK;
