/* What strangers say: any command in any state, cut anywhere, and what is no protocol at all. */
#pragma once

#include "tests/simulation/wire.h"

enum words_kind {
    WORDS_COMMANDS,
    WORDS_CUT,
    WORDS_GARBAGE,
    WORDS_MANAGER,
    WORDS_KIND_COUNT
};

/* The same for the same `drawn`. */
void visitor_words(unsigned kind, uint64_t drawn, struct bytes *out);
