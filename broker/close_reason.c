#include "broker/close_reason.h"

#include "shared/base.h"

struct row {
    const char *label;
    bool is_error;
    const char *sentence;
};

#define CLOSE_REASON(id, label, is_error, sentence) [id] = {label, is_error, sentence},
static const struct row rows[CLOSE_REASON_COUNT] = {
#include "broker/close_reason.def"
};
#undef CLOSE_REASON

static const struct row *row_get(int reason)
{
    check(reason >= 0 && reason < CLOSE_REASON_COUNT);
    return &rows[reason];
}

const char *close_reason_label(int reason)
{
    return row_get(reason)->label;
}

const char *close_reason_sentence(enum close_reason reason)
{
    return row_get((int)reason)->sentence;
}

bool close_reason_is_error(enum close_reason reason)
{
    return row_get((int)reason)->is_error;
}
