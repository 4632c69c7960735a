#include "broker/broker_metrics.h"

#include "broker/close_reason.h"
#include "broker/dialect_guess.h"
#include "broker/implausible.h"
#include "broker/message.h"
#include "broker/publish.h"
#include "broker/receive.h"
#include "broker/seal.h"

static const char *broker_metrics_method(int method)
{
    return message_method_name((enum message_method)method);
}

static const char *broker_metrics_dialect(int dialect)
{
    return message_dialect_name((enum message_dialect)dialect);
}

static const char *broker_metrics_basis(int basis)
{
    return dialect_basis_name((enum dialect_basis)basis);
}

static const char *broker_reload_label(int result)
{
    return result == 0 ? "good" : "bad";
}

#define METRIC(id, ...) [id] = {__VA_ARGS__},
const struct metric_row broker_metric_rows[BROKER_METRIC_COUNT] = {
#include "broker/broker_metrics.def"
};
#undef METRIC
