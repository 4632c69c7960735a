/*
 * Why a client connection ended, or why the edge answered by itself: rows of close_reason.def.
 * The word of a row is what logs, metrics and the status show, so that they can be compared.
 */
#pragma once

#include <stdbool.h>

enum close_reason {
#define X(name, word, kind, status, sentence) CLOSE_##name,
#include "proxy/close_reason.def"
#undef X
    CLOSE_REASON_COUNT
};

struct close_reason_row {
    const char *word;
    const char *sentence;
    bool is_error;
    int status; /* HTTP status while a response is possible, 0: none */
};

/* The row; never NULL, `reason` must be one of the enum. */
const struct close_reason_row *close_reason_get(enum close_reason reason);

/* The words in enum order, for a metric's label. */
extern const char *const close_reason_words[CLOSE_REASON_COUNT];

/* The reason phrase of an HTTP status that the edge sends ("Bad Request"); "Error" for others. */
const char *close_reason_phrase(int status);
