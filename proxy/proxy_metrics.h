/*
 * The numbers of sidrail-proxy: rows of proxy_metrics.def, and the words of their fixed labels.
 */
#pragma once

#include "shared/metrics.h"

#define METRIC(id, ...) id,
enum proxy_metric {
#include "proxy/proxy_metrics.def"
    PROXY_METRIC_COUNT
};
#undef METRIC

extern const struct metric_row proxy_metric_rows[PROXY_METRIC_COUNT];

enum request_kind { REQUEST_HANDSHAKE, REQUEST_SESSION, REQUEST_UPGRADE, REQUEST_OTHER };
#define REQUEST_KINDS 4

enum status_class { STATUS_1XX, STATUS_2XX, STATUS_3XX, STATUS_4XX, STATUS_5XX };
#define STATUS_CLASSES 5

enum handshake_result {
    HANDSHAKE_OPENED,  /* 200 with an open packet, or the 101 of a sid-less upgrade */
    HANDSHAKE_REFUSED, /* the endpoint answered something else */
    HANDSHAKE_FAILED,  /* no endpoint answered */
    HANDSHAKE_ABORTED  /* the client left first */
};
#define HANDSHAKE_RESULTS 4

enum rewrite_result {
    REWRITE_TAGGED,       /* the sid carries the route */
    REWRITE_LEARNED,      /* EIO=3 or JSONP: in the learned table */
    REWRITE_SKIPPED_SIZE, /* too large to hold */
    REWRITE_SKIPPED_FORM, /* compressed, or not an open packet */
    REWRITE_OFF           /* affinity.sid_tag is off */
};
#define REWRITE_RESULTS 5

enum direction { TO_CLIENT, TO_ENDPOINT };
#define DIRECTIONS 2

enum connect_result {
    CONNECT_OPENED,
    CONNECT_REUSED,
    CONNECT_REFUSED,
    CONNECT_TIMED_OUT,
    CONNECT_TLS_FAILED
};
#define CONNECT_RESULTS 5

/* How a tunnel was closed that drain or shutdown let go. */
enum drain_close {
    DRAIN_CLOSE_TOLD, /* with a Close between two frames */
    DRAIN_CLOSE_CUT   /* no place for one within a second */
};
#define DRAIN_CLOSES 2

/* The word of an enum discovery_kind, as in the configuration. */
const char *discovery_source_label(int value);

enum reload_result { RELOAD_APPLIED, RELOAD_REFUSED };
#define RELOAD_RESULTS 2

enum retry { RETRY_SAME, RETRY_OTHER };
#define RETRIES 2

/* The class of a status 100..599. */
static inline enum status_class status_class_of(unsigned status)
{
    return (enum status_class)(status / 100 - 1);
}
