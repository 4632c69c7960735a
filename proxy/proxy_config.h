/*
 * All settings of the proxy as one immutable, reference-counted struct.
 *
 *     YAML file ──┐                                                ┌─▶ snapshot (generation n)
 *                 ├─▶ option rows ─▶ proxy_config ─▶ cross checks ─┤
 *     --listen … ─┘   types, ranges, defaults                      └─▶ "file:line:column: text"
 *
 * Times are in microseconds, sizes in bytes; 0 = off where the option's sentence says so. Text is never
 * NULL. Lists are struct option_list; use OPTION_ITEM or the accessors below. Members under "derived" are
 * made from the options once, after all checks. To add an option: a member here, a row in
 * proxy_config_rows.c, and a cross check if a row cannot say it.
 */
#pragma once

#include "shared/address.h"
#include "shared/base.h"
#include "shared/cidr.h"
#include "shared/options.h"
#include "shared/slice.h"

#include "proxy/affinity_cookie.h"
#include "proxy/head_rewrite.h"
#include "proxy/route_tag.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Descriptors that are not connections: listeners, admin, epoll, event and log fds of the workers. */
#define PROXY_DESCRIPTORS_RESERVED       200
#define PROXY_DESCRIPTORS_PER_CONNECTION 2 /* the client's and the endpoint's */

struct certificate_config {
    char *cert;
    char *key;
};

enum tls_version { TLS_VERSION_1_2, TLS_VERSION_1_3 };

struct listener_config {
    struct address address; /* IPv4, IPv6 or unix */
    bool proxy_protocol;
    bool trusted; /* unix only: who connects is a trusted proxy */
    bool redirect_https;
    bool has_tls;
    struct {
        struct option_list certificates; /* of struct certificate_config, at least 1 */
        int min_version;                 /* enum tls_version */
        char *client_ca;
        char *ticket_keys;
    } tls;
};

enum endpoint_start { ENDPOINT_START_READY, ENDPOINT_START_DRAINING };

/* Where an upstream's endpoints come from. */
enum discovery_kind {
    DISCOVERY_STATIC,
    DISCOVERY_FILE,
    DISCOVERY_DNS,
    DISCOVERY_KUBERNETES
};
#define DISCOVERY_KINDS 4

enum ip_family { IP_FAMILY_AUTO, IP_FAMILY_V4, IP_FAMILY_V6 };

/* One endpoint of discovery.static. */
struct endpoint_config {
    char *address; /* host:port, [v6]:port, unix:/path */
    char *id;      /* "" = the address */
    int64_t weight;
    int state; /* enum endpoint_start */
};

enum health_check_type { HEALTH_CHECK_TCP, HEALTH_CHECK_HTTP, HEALTH_CHECK_NONE };

enum drain_mode { DRAIN_PACE, DRAIN_WAIT, DRAIN_NONE };

enum affinity_mode { AFFINITY_PERSISTENT, AFFINITY_BALANCED };
enum hash_by {
    HASH_BY_AUTO,
    HASH_BY_CLIENT_IP,
    HASH_BY_HEADER,
    HASH_BY_QUERY,
    HASH_BY_COOKIE
};
enum place_on_draining { PLACE_ON_DRAINING_LAST_RESORT, PLACE_ON_DRAINING_NEVER };

struct affinity_config {
    int mode;     /* enum affinity_mode */
    bool sid_tag; /* false: sids are learned, never rewritten */
    struct affinity_cookie_options cookie;
    char *hash_by_text;
    double bounded_load;
    bool change_on_failure;
    int place_on_draining; /* enum place_on_draining */
    uint64_t unknown_tag_grace;
    int64_t learned_sids; /* at most so many entries; 0: learns nothing */
    bool has_ingress_nginx_cookie;
    struct {
        char *name;
        char *upstream_name; /* "prod-chat-5000" */
    } ingress_nginx_cookie;

    /* derived */
    enum hash_by hash_by;
    struct slice
        hash_by_name; /* of the header, query parameter or cookie; into hash_by_text */
};

struct upstream_config {
    char *name;
    struct option_list endpoints; /* of struct endpoint_config: discovery.static */
    struct {
        char *name_server; /* IP[:port]; "" = those of /etc/resolv.conf, and /etc/hosts */
        char *file;        /* of endpoints; "" = another source */
        bool has_dns;
        struct {
            char *name;   /* "_…" asks for SRV records */
            int64_t port; /* 0: SRV records tell */
            uint64_t interval;
            char *server; /* IP[:port]; "" = those of /etc/resolv.conf */
        } dns;
        bool has_kubernetes;
        struct {
            char *namespace_name; /* "" = our pod's */
            char *service;
            struct text_list ports; /* names or numbers */
            int ip_family;          /* enum ip_family */
            uint64_t empty_hold;    /* OPTION_AUTO = the upstream's */
            char *api_server;       /* "" = the cluster's */
            char *token_file;       /* "" = no token */
            char *ca_file;          /* "" = the system's */
            uint64_t watch_time;
            uint64_t relist;
        } kubernetes;

        /* derived */
        enum discovery_kind kind;
    } discovery;
    struct affinity_config affinity;
    struct {
        int type;   /* enum health_check_type */
        char *path; /* of http */
        uint64_t interval;
        uint64_t timeout;
        int64_t rise;
        int64_t fall;
    } health_check;
    struct {
        int mode; /* enum drain_mode */
        uint64_t delay;
        uint64_t window;
    } drain;
    uint64_t herd_spread;
    uint64_t empty_hold;
    uint64_t place_after;
    uint64_t slow_start;
    bool has_tls;
    struct {
        char *ca;          /* "" = the system's */
        char *cert, *key;  /* "" = none */
        char *server_name; /* "" = the host of the endpoint's address */
        bool verify;
    } tls;                             /* to the endpoints */
    int64_t max_sessions_per_endpoint; /* 0 = no bound */
    int64_t max_handshake_rate;        /* per endpoint and second; 0 = no bound */
};

/* Edits of a head: `set` replaces every field of that name, `remove` deletes. */
struct header_edits {
    struct text_map set;
    struct text_list remove;
};

struct split_config {
    char *upstream_name;
    int64_t weight; /* 0: only sessions that began there */

    /* derived */
    size_t upstream; /* place in proxy_config.upstreams */
};

struct route_config {
    char *host; /* exact, "*.example.com" or "*"; case does not count */
    char *path;
    char *upstream_name; /* "" when there is a split */
    struct option_list
        split; /* of struct split_config; one made from upstream_name when there is none */
    uint64_t body_bytes; /* limits.body_bytes unless the route has its own */
    struct header_edits request_headers;
    struct header_edits response_headers;

    /* derived: the same as head_rewrite takes it */
    struct head_changes request_changes;
    struct head_changes response_changes;
};

enum log_access { LOG_ACCESS_ERRORS, LOG_ACCESS_ALL, LOG_ACCESS_OFF };

struct proxy_config {
    atomic_uint holders;
    int64_t threads_option;       /* or OPTION_AUTO_INTEGER; see threads */
    struct option_list listeners; /* of struct listener_config */
    struct {
        struct address address; /* len 0 = off */
        char *socket;           /* a path, "auto", or "" = off */
        struct text_list hosts; /* that requests may name, see shared/admin_host.h */
    } admin;
    struct cidr_list trusted_proxies;
    int64_t trusted_hops;
    struct {
        struct cidr_list allow; /* empty = everyone */
        struct cidr_list deny;
        struct text_list origins; /* empty = any */
    } access;
    struct text_list engine_io_paths; /* each begins and ends with a slash */
    char *affinity_keys;              /* a path; "" = a random key for this process */
    struct option_list upstreams;     /* of struct upstream_config */
    struct option_list routes;        /* of struct route_config */
    struct {
        uint64_t request_head;
        uint64_t connect;
        uint64_t keep_alive;
        uint64_t endpoint_keep_alive;
        uint64_t poll;        /* or OPTION_AUTO: upstream_idle_limit() */
        uint64_t tunnel_idle; /* or OPTION_AUTO: upstream_idle_limit() */
        uint64_t tunnel_idle_other;
        uint64_t write_stall;
    } timeouts;
    struct {
        uint64_t keep_alive;
        uint64_t user_timeout;
    } tcp;
    struct {
        int64_t connections;
        int64_t connections_per_ip;    /* or OPTION_AUTO_INTEGER; 0 = no bound */
        int64_t handshakes_per_second; /* 0 = no bound */
        uint64_t head_bytes;
        uint64_t body_bytes;
        uint64_t websocket_frame_bytes; /* 0 = no bound */
        uint64_t buffered_bytes;
        uint64_t buffered_bytes_per_ip; /* or OPTION_AUTO; 0 = no bound */
    } limits;
    struct {
        uint64_t readiness_delay;
        uint64_t window;
        uint64_t deadline;
    } shutdown;
    struct {
        int level;  /* enum log_level */
        int format; /* enum log_format */
        int access; /* enum log_access */
    } log;

    /* derived */
    unsigned threads;           /* what "auto" came to, at least 1 */
    struct slice *engine_paths; /* engine_io_paths as engine_path_match() takes them */
};

/* Reads and checks a file. NULL after writing every error found to `errors`, one line each. The caller
 * holds the one reference of the result. */
struct proxy_config *proxy_config_load(const char *path, FILE *errors) MUST_CHECK;

/* The same from YAML text; `name` stands for the file in errors. */
struct proxy_config *proxy_config_parse(const char *name, struct slice yaml,
                                        FILE *errors) MUST_CHECK;

/* The quick start: one upstream "default" for every path. `endpoints` is EP[,EP…]; `admin` and `threads`
 * may be NULL (127.0.0.1:9090, auto). Errors begin with the flag. */
struct proxy_config *proxy_config_quick_start(const char *listen, const char *endpoints,
                                              const char *admin, const char *threads,
                                              FILE *errors) MUST_CHECK;

/* One holder more (the same pointer), one less. Any thread. */
struct proxy_config *proxy_config_ref(struct proxy_config *config);
void proxy_config_unref(struct proxy_config *config);

/* Do two upstreams agree in all options whose path below upstreams[] begins with `prefix` ("discovery.")? */
bool proxy_config_agrees(const struct upstream_config *one,
                         const struct upstream_config *other, const char *prefix);

/* The keys that the config names, or one random key when it names none (*is_random, which deserves a
 * warning). False with one line in `error`. */
bool proxy_config_load_keys(const struct proxy_config *config, struct file_keys *keys,
                            bool *is_random, bool *is_readable_by_others, char *error,
                            size_t error_size) MUST_CHECK;

/* --print-options: one row an option. */
void proxy_config_print_options(FILE *out);

/* What sockets get as net_set_user_timeout() takes it: tcp.user_timeout, but more than timeouts.write_stall. The kernel
 * counts the probes of a closed window too, answered or not, and how long a peer may read nothing is for
 * write_stall alone to say (Linux, tcp_timer.c, tcp_probe_timer). */
uint64_t proxy_config_user_timeout(const struct proxy_config *config);

/* Place of the upstream of that name, or upstreams.count. */
size_t proxy_config_find_upstream(const struct proxy_config *config, struct slice name);

static inline const struct listener_config *
proxy_config_listener(const struct proxy_config *config, size_t i)
{
    return OPTION_ITEM(config->listeners, listener_config, i);
}

static inline const struct upstream_config *
proxy_config_upstream(const struct proxy_config *config, size_t i)
{
    return OPTION_ITEM(config->upstreams, upstream_config, i);
}

static inline const struct route_config *
proxy_config_route(const struct proxy_config *config, size_t i)
{
    return OPTION_ITEM(config->routes, route_config, i);
}
