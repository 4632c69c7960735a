/*
 * Why clients and links end: the rows of close_reason.def.
 */
#pragma once

#include <stdbool.h>

#define CLOSE_REASON(id, ...) id,
enum close_reason {
#include "broker/close_reason.def"
    CLOSE_REASON_COUNT
};
#undef CLOSE_REASON

/* As in logs and metrics; takes an int so that a metric row can use it. */
const char *close_reason_label(int reason);

/* One sentence for people. */
const char *close_reason_sentence(enum close_reason reason);

/* Something is wrong somewhere: worth a warning. */
bool close_reason_is_error(enum close_reason reason);
