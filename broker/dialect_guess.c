#include "broker/dialect_guess.h"

void dialect_guess_init(struct dialect_guess *guess)
{
    *guess = (struct dialect_guess){.dialect = DIALECT_JSON14, .basis = DIALECT_UNKNOWN};
}

void dialect_guess_name(struct dialect_guess *guess, enum message_dialect dialect)
{
    dialect_guess_init(guess);
    if (dialect != DIALECT_RAW)
        *guess = (struct dialect_guess){.dialect = dialect, .basis = DIALECT_NAMED};
}

/* What the message says about its publisher: false when nothing. */
static bool read_evidence(const struct message *message, struct dialect_guess *evidence)
{
    evidence->dialect = message->dialect;
    evidence->basis = message->dialect_is_proven ? DIALECT_PROVEN : DIALECT_ASSUMED;
    if (message->encoding == MESSAGE_PICKLE)
        return true;
    /* only an emit has data */
    return message->encoding == MESSAGE_JSON && message->method == METHOD_EMIT &&
           message->has_data;
}

enum dialect_learned dialect_guess_learn(struct dialect_guess *guess,
                                         const struct message *message)
{
    struct dialect_guess before = *guess;
    struct dialect_guess evidence;
    if (before.basis == DIALECT_NAMED || message_is_refused(message) ||
        message->encoding == MESSAGE_OPAQUE || message->method == METHOD_OPAQUE)
        return DIALECT_NOTHING_NEW;
    bool was_pickle = before.dialect == DIALECT_PICKLE;
    bool is_told = read_evidence(message, &evidence);
    if (was_pickle && message->encoding == MESSAGE_JSON)
        dialect_guess_init(guess);
    if (is_told && (guess->basis != DIALECT_PROVEN || evidence.basis == DIALECT_PROVEN))
        *guess = evidence;
    if (guess->dialect != before.dialect)
        return before.basis == DIALECT_UNKNOWN ? DIALECT_LEARNED : DIALECT_CORRECTED;
    return guess->basis != before.basis ? DIALECT_LEARNED : DIALECT_NOTHING_NEW;
}

enum message_dialect dialect_guess_read(const struct dialect_guess *guess,
                                        const struct message *message)
{
    bool speaks_json =
        guess->dialect != DIALECT_PICKLE && guess->basis != DIALECT_UNKNOWN;
    if (message->encoding == MESSAGE_OPAQUE || message->method == METHOD_OPAQUE ||
        message->method == METHOD_GENERIC)
        return DIALECT_RAW;
    if (message->encoding == MESSAGE_PICKLE)
        return DIALECT_PICKLE;
    if (guess->basis == DIALECT_NAMED && guess->dialect == DIALECT_PICKLE)
        return DIALECT_JSON14; /* 5.7.2 with the patch that made it write JSON */
    return speaks_json && (guess->basis == DIALECT_NAMED || !message->dialect_is_proven)
               ? guess->dialect
               : message->dialect;
}

const char *dialect_basis_name(enum dialect_basis basis)
{
    switch (basis) {
    case DIALECT_UNKNOWN:
        return "unknown";
    case DIALECT_ASSUMED:
        return "assumed";
    case DIALECT_PROVEN:
        return "proven";
    case DIALECT_NAMED:
        return "named";
    }
    return "unknown";
}

bool dialect_name_parse(struct slice name, enum message_dialect *dialect)
{
    if (slice_equals(name, SLICE("auto"))) {
        *dialect = DIALECT_RAW;
        return true;
    }
    for (int i = DIALECT_PICKLE; i <= DIALECT_JSON15; i++) {
        if (!slice_equals(name,
                          slice_from_text(message_dialect_name((enum message_dialect)i))))
            continue;
        *dialect = (enum message_dialect)i;
        return true;
    }
    return false;
}

bool dialect_name_split(struct slice *name, enum message_dialect *dialect)
{
    size_t colon = slice_find_last(*name, ':');
    if (colon == name->len || !dialect_name_parse(slice_from(*name, colon + 1), dialect))
        return false;
    *name = slice_to(*name, colon);
    return true;
}
