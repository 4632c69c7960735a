/*
 * Writes a JSON message of one dialect as the other: all of it is copied but the data of an emit.
 */
#pragma once

#include "broker/transcoding.h"

/* transcoding->payload in *out: itself where both dialects have the same form, else written. False: refused,
 * and why. */
bool json_from_json(struct transcoding *transcoding, struct slice *out) MUST_CHECK;
