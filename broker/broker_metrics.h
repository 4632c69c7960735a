/*
 * The broker's metrics: the rows of broker_metrics.def. Count with metrics_add(M_…, n).
 */
#pragma once

#include "shared/metrics.h"

#define METRIC(id, ...) id,
enum broker_metric {
#include "broker/broker_metrics.def"
    BROKER_METRIC_COUNT
};
#undef METRIC

extern const struct metric_row broker_metric_rows[BROKER_METRIC_COUNT];
