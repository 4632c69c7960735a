#include "proxy/proxy_metrics.h"

#include "proxy/close_reason.h"
#include "proxy/proxy_config.h"
#include "proxy/route.h"

static const char *close_reason_label(int value)
{
    return close_reason_words[value];
}

static const char *request_kind_label(int value)
{
    static const char *const words[REQUEST_KINDS] = {"handshake", "session", "upgrade",
                                                     "other"};
    return words[value];
}

static const char *status_class_label(int value)
{
    static const char *const words[STATUS_CLASSES] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
    return words[value];
}

static const char *route_why_label(int value)
{
    return route_why_word((enum route_why)value);
}

static const char *route_refusal_label(int value)
{
    return route_refusal_word((enum route_refusal)value);
}

static const char *handshake_result_label(int value)
{
    static const char *const words[HANDSHAKE_RESULTS] = {"opened", "refused", "failed",
                                                         "aborted"};
    return words[value];
}

static const char *rewrite_result_label(int value)
{
    static const char *const words[REWRITE_RESULTS] = {
        "tagged", "learned", "skipped_size", "skipped_form", "off"};
    return words[value];
}

static const char *direction_label(int value)
{
    static const char *const words[DIRECTIONS] = {"client", "endpoint"};
    return words[value];
}

static const char *connect_result_label(int value)
{
    static const char *const words[CONNECT_RESULTS] = {"opened", "reused", "refused",
                                                       "timed_out", "tls_failed"};
    return words[value];
}

static const char *retry_label(int value)
{
    static const char *const words[RETRIES] = {"same", "other"};
    return words[value];
}

const char *discovery_source_label(int value)
{
    static const char *const words[DISCOVERY_KINDS] = {
        [DISCOVERY_STATIC] = "static",
        [DISCOVERY_FILE] = "file",
        [DISCOVERY_DNS] = "dns",
        [DISCOVERY_KUBERNETES] = "kubernetes",
    };
    return words[value];
}

static const char *drain_close_label(int value)
{
    static const char *const words[DRAIN_CLOSES] = {"told", "cut"};
    return words[value];
}

static const char *probe_result_label(int value)
{
    return value != 0 ? "passed" : "failed";
}

static const char *reload_result_label(int value)
{
    return value == RELOAD_APPLIED ? "applied" : "refused";
}

#define METRIC(id, ...) [id] = {__VA_ARGS__},
const struct metric_row proxy_metric_rows[PROXY_METRIC_COUNT] = {
#include "proxy/proxy_metrics.def"
};
#undef METRIC
