#include "tests/unit/unit.h"

#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/cpu_count.h"
#include "proxy/proxy_config.h"
#include "proxy/proxy_config_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/* What parsing says: the config, or its errors in `errors`. */
static struct proxy_config *parse(const char *yaml, char *errors, size_t errors_size)
{
    memset(errors, 0, errors_size);
    FILE *out = fmemopen(errors, errors_size - 1, "w");
    assert_non_null(out);
    struct proxy_config *config =
        proxy_config_parse("p.yaml", slice_from_text(yaml), out);
    fclose(out);
    return config;
}

/* The shortest good file; what is tested is put before or behind it. */
#define LISTENERS "listeners: [{address: \"127.0.0.1:8080\"}]\n"
#define UPSTREAMS "upstreams: [{name: chat, discovery: {static: [\"127.0.0.1:5001\"]}}]\n"
#define ROUTES    "routes: [{upstream: chat}]\n"
#define UPSTREAM(more)                                                                   \
    "upstreams:\n  - name: chat\n    discovery: {static: [\"127.0.0.1:5001\"]}\n" more   \
    "\n"

static void test_defaults_are_those_of_the_contract(void **state)
{
    (void)state;
    char errors[4096];
    struct proxy_config *config =
        parse(LISTENERS UPSTREAMS ROUTES, errors, sizeof(errors));
    assert_string_equal(errors, "");
    assert_non_null(config);
    assert_true(config->threads >= 1);
    assert_int_equal(config->listeners.count, 1);
    assert_int_equal(address_port(&proxy_config_listener(config, 0)->address), 8080);
    assert_int_equal(address_port(&config->admin.address), 9090);
    assert_string_equal(config->admin.socket, "auto");
    assert_int_equal(config->trusted_hops, 1);
    assert_int_equal(config->engine_io_paths.count, 1);
    assert_true(slice_equals(config->engine_paths[0], SLICE("/socket.io/")));
    const struct upstream_config *upstream = proxy_config_upstream(config, 0);
    assert_string_equal(upstream->affinity.cookie.name, "sidrail_chat");
    assert_int_equal(upstream->affinity.mode, AFFINITY_PERSISTENT);
    assert_true(upstream->affinity.sid_tag);
    assert_int_equal(upstream->affinity.hash_by, HASH_BY_AUTO);
    assert_true(upstream->affinity.bounded_load == 1.25);
    assert_int_equal(upstream->affinity.unknown_tag_grace, MILLISECONDS(750));
    assert_int_equal(upstream->affinity.learned_sids, 100000);
    assert_int_equal(upstream->place_after, SECONDS(2));
    const struct endpoint_config *endpoint =
        OPTION_ITEM(upstream->endpoints, endpoint_config, 0);
    assert_string_equal(endpoint->address, "127.0.0.1:5001");
    assert_string_equal(endpoint->id, "");
    assert_int_equal(endpoint->weight, 1);
    const struct route_config *route = proxy_config_route(config, 0);
    assert_string_equal(route->host, "*");
    assert_string_equal(route->path, "/");
    assert_int_equal(route->body_bytes, 1000000);
    assert_int_equal(route->split.count, 1);
    assert_int_equal(OPTION_ITEM(route->split, split_config, 0)->upstream, 0);
    assert_int_equal(config->timeouts.request_head, SECONDS(10));
    assert_int_equal(config->timeouts.connect, SECONDS(5));
    assert_int_equal(config->timeouts.keep_alive, SECONDS(60));
    assert_int_equal(config->timeouts.endpoint_keep_alive, SECONDS(1));
    assert_true(config->timeouts.poll == OPTION_AUTO);
    assert_true(config->timeouts.tunnel_idle == OPTION_AUTO);
    assert_int_equal(config->timeouts.tunnel_idle_other, SECONDS(3600));
    assert_int_equal(config->timeouts.write_stall, SECONDS(30));
    assert_int_equal(config->tcp.keep_alive, SECONDS(60));
    assert_int_equal(config->tcp.user_timeout, SECONDS(30));
    assert_int_equal(config->limits.connections, 9000);
    assert_int_equal(config->limits.head_bytes, 32768);
    assert_int_equal(config->limits.buffered_bytes, 256u << 20);
    assert_int_equal(config->shutdown.readiness_delay, SECONDS(5));
    assert_int_equal(config->shutdown.window, SECONDS(180));
    assert_int_equal(config->shutdown.deadline, SECONDS(240));
    assert_int_equal(config->log.level, LOG_LEVEL_INFO);
    assert_int_equal(config->log.access, LOG_ACCESS_ERRORS);
    proxy_config_unref(proxy_config_ref(config));
    proxy_config_unref(config);
}

static void test_every_option_of_the_contract_is_read(void **state)
{
    (void)state;
    static const char yaml[] =
        "threads: 3\n"
        "listeners:\n"
        "  - address: \"[::]:8443\"\n"
        "    proxy_protocol: true\n"
        "    redirect_https: true\n"
        "    tls:\n"
        "      certificates: [{cert: /tls/tls.crt, key: /tls/tls.key}]\n"
        "      min_version: \"1.3\"\n"
        "      client_ca: /ca\n"
        "      ticket_keys: /tickets\n"
        "  - address: unix:/run/sidrail/web.sock\n"
        "admin: {address: \"127.0.0.1:9191\", socket: \"\"}\n"
        "trusted_proxies: [10.0.0.0/8, \"::1\"]\n"
        "trusted_hops: 2\n"
        "access: {allow: [10.0.0.0/8], deny: [10.1.0.0/16], origins: "
        "[\"https://a.test\"]}\n"
        "engine_io_paths: [\"/socket.io/\", \"/chat/\"]\n"
        "affinity_keys: /etc/sidrail/keys\n"
        "upstreams:\n"
        "  - name: chat\n"
        "    discovery:\n"
        "      static: [\"localhost:5001\", {address: \"unix:/w0.sock\", id: w0, weight: "
        "3, "
        "state: draining}]\n"
        "    affinity:\n"
        "      mode: balanced\n"
        "      sid_tag: false\n"
        "      cookie: {name: c, on: all, path: /x, domain: a.test, max_age: 1h, "
        "same_site: strict, secure: true}\n"
        "      hash_by: header:X-Room\n"
        "      bounded_load: 2\n"
        "      change_on_failure: true\n"
        "      place_on_draining: never\n"
        "      unknown_tag_grace: 1s\n"
        "      learned_sids: 5\n"
        "      accept_ingress_nginx_cookie: {name: INGRESSCOOKIE, upstream_name: a-b-1}\n"
        "    place_after: 0s\n"
        "    slow_start: 10s\n"
        "    max_sessions_per_endpoint: 7\n"
        "    max_handshake_rate: 8\n"
        "  - {name: canary, discovery: {static: [\"127.0.0.1:5002\"]}}\n"
        "routes:\n"
        "  - {host: \"*.a.test\", path: /api, upstream: canary, body_bytes: 1MiB, "
        "request_headers: {set: {X-A: b}, remove: [X-B]}, "
        "response_headers: {set: {X-C: d}, remove: [Server]}}\n"
        "  - {split: [{upstream: chat, weight: 95}, {upstream: canary, weight: 5}]}\n"
        "timeouts: {request_head: 1s, connect: 2s, keep_alive: 0s, endpoint_keep_alive: "
        "0s, "
        "poll: 90s, tunnel_idle: 80s, tunnel_idle_other: 2h, write_stall: 3s}\n"
        "tcp: {keep_alive: 0s, user_timeout: 0s}\n"
        "limits: {connections: 100, connections_per_ip: 10, handshakes_per_second: 50, "
        "head_bytes: 16KiB, body_bytes: 2MiB, websocket_frame_bytes: 1MiB, "
        "buffered_bytes: 1GiB}\n"
        "shutdown: {readiness_delay: 1s, window: 2s, deadline: 3s}\n"
        "log: {level: debug, format: json, access: all}\n";
    char errors[4096];
    struct proxy_config *config = parse(yaml, errors, sizeof(errors));
    assert_string_equal(errors, "");
    assert_int_equal(config->threads, 3);
    assert_true(proxy_config_listener(config, 0)->has_tls);
    assert_int_equal(proxy_config_listener(config, 0)->tls.min_version, TLS_VERSION_1_3);
    assert_false(proxy_config_listener(config, 1)->has_tls);
    assert_int_equal(config->trusted_proxies.count, 2);
    assert_int_equal(config->engine_io_paths.count, 2);
    const struct affinity_config *affinity = &proxy_config_upstream(config, 0)->affinity;
    assert_int_equal(affinity->mode, AFFINITY_BALANCED);
    assert_string_equal(affinity->cookie.name, "c");
    assert_int_equal(affinity->cookie.same_site, SAME_SITE_STRICT);
    assert_int_equal(affinity->cookie.secure, COOKIE_SECURE_ALWAYS);
    assert_int_equal(affinity->hash_by, HASH_BY_HEADER);
    assert_true(slice_equals(affinity->hash_by_name, SLICE("X-Room")));
    assert_int_equal(affinity->place_on_draining, PLACE_ON_DRAINING_NEVER);
    assert_true(affinity->has_ingress_nginx_cookie);
    assert_string_equal(affinity->ingress_nginx_cookie.upstream_name, "a-b-1");
    const struct route_config *route = proxy_config_route(config, 0);
    assert_int_equal(route->body_bytes, 1 << 20);
    assert_int_equal(route->request_changes.set_count, 1);
    assert_true(slice_equals(route->request_changes.set[0].value, SLICE("b")));
    assert_true(slice_equals(route->response_changes.remove[0], SLICE("Server")));
    route = proxy_config_route(config, 1);
    assert_int_equal(route->split.count, 2);
    assert_int_equal(OPTION_ITEM(route->split, split_config, 1)->upstream, 1);
    assert_int_equal(config->log.access, LOG_ACCESS_ALL);
    proxy_config_unref(config);
}

static const struct {
    const char *yaml, *error; /* the first line of errors begins so */
} bad[] = {
    {"", "p.yaml:1:1: is empty"},
    {LISTENERS UPSTREAMS ROUTES "thread: 2\n",
     "p.yaml:4:1: unknown key \"thread\" (did you mean \"threads\"?)"},
    {LISTENERS UPSTREAMS ROUTES "threads: 0\n", "p.yaml:4:10: threads"},
    {LISTENERS UPSTREAMS ROUTES "threads: many\n", "p.yaml:4:10: threads"},
    {LISTENERS UPSTREAMS ROUTES "engine_io_paths: [/socket.io]\n",
     "p.yaml:4:19: engine_io_paths[0]: \"/socket.io\" must begin and end with /"},
    {LISTENERS UPSTREAMS ROUTES "engine_io_paths: [\"/a/../socket.io/\"]\n",
     "p.yaml:4:19: engine_io_paths[0]: \"/a/../socket.io/\" must not have a segment "
     "\".\" or \"..\""},
    {LISTENERS UPSTREAMS ROUTES "engine_io_paths: [\"/./\"]\n",
     "p.yaml:4:19: engine_io_paths[0]: \"/./\" must not have a segment \".\" or \"..\""},
    {LISTENERS UPSTREAMS ROUTES "engine_io_paths: [\"/a//b/\"]\n",
     "p.yaml:4:19: engine_io_paths[0]: \"/a//b/\" must not have an empty segment"},
    {LISTENERS UPSTREAMS ROUTES "engine_io_paths: [\"/a%2e/\"]\n",
     "p.yaml:4:19: engine_io_paths[0]: \"/a%2e/\" may have letters, digits and "
     "\"-._~/\""},
    {LISTENERS UPSTREAMS ROUTES "engine_io_paths: [\"/a?/\"]\n",
     "p.yaml:4:19: engine_io_paths[0]: \"/a?/\" may have letters, digits and \"-._~/\""},
    {LISTENERS UPSTREAMS "routes: [{path: \"/a/..\", upstream: chat}]\n",
     "p.yaml:3:17: routes[0].path: \"/a/..\" must not have a segment \".\" or \"..\""},
    {LISTENERS UPSTREAMS "routes: [{path: \"/./a\", upstream: chat}]\n",
     "p.yaml:3:17: routes[0].path: \"/./a\" must not have a segment \".\" or \"..\""},
    {LISTENERS UPSTREAMS "routes: [{path: \"/%61\", upstream: chat}]\n",
     "p.yaml:3:17: routes[0].path: \"/%61\" must be percent-decoded, requests are "
     "compared decoded"},
    {"listeners: [{address: \"127.0.0.1:80\", trusted: true}]\n" UPSTREAMS ROUTES,
     "p.yaml:1:48: listeners[0].trusted is for unix:/path"},
    {LISTENERS UPSTREAMS ROUTES "engine_io_paths: []\n", "p.yaml:4:18: engine_io_paths"},
    {LISTENERS UPSTREAMS ROUTES "trusted_proxies: [10.0.0.1/8]\n",
     "p.yaml:4:19: trusted_proxies[0]"},
    {LISTENERS UPSTREAMS ROUTES "access: {origins: [a.test]}\n",
     "p.yaml:4:20: access.origins[0]: \"a.test\" must be scheme://host[:port]"},
    {LISTENERS UPSTREAMS ROUTES "admin: {socket: relative}\n",
     "p.yaml:4:17: admin.socket: \"relative\" must be auto, empty, or an absolute path"},
    {LISTENERS UPSTREAMS ROUTES "limits: {connections: 9999999}\n",
     "p.yaml:4:23: limits.connections 9999999 needs 20000198 descriptors"},
    {LISTENERS UPSTREAMS ROUTES "limits: {head_bytes: 1}\n",
     "p.yaml:4:22: limits.head_bytes"},
    {LISTENERS UPSTREAMS ROUTES "shutdown: {deadline: 1s}\n",
     "p.yaml:4:22: shutdown.deadline is shorter than"},
    {LISTENERS UPSTREAMS ROUTES "timeouts: {connect: 5}\n",
     "p.yaml:4:21: timeouts.connect"},
    {LISTENERS UPSTREAMS ROUTES "timeouts: {connect: 0s}\n",
     "p.yaml:4:21: timeouts.connect"},
    {LISTENERS UPSTREAMS "routes: [{upstream: chatt}]\n",
     "p.yaml:3:21: routes[0].upstream names no upstream: \"chatt\""},
    {LISTENERS UPSTREAMS "routes:\n  - upstream: chat\n  - {path: /b, split: [{upstream: "
                         "chat, weight: 1}, {upstream: nope, weight: 1}]}\n",
     "p.yaml:5:64: routes[1].split[1].upstream names no upstream: \"nope\""},
    {LISTENERS UPSTREAMS "routes: [{path: /}]\n",
     "p.yaml:3:10: routes[0]: needs upstream or split"},
    {LISTENERS UPSTREAMS
     "routes: [{upstream: chat, split: [{upstream: chat, weight: 1}]}]\n",
     "p.yaml:3:34: routes[0].split excludes upstream"},
    {LISTENERS UPSTREAMS "routes: [{split: [{upstream: chat, weight: 0}]}]\n",
     "p.yaml:3:18: routes[0].split needs a weight above 0"},
    {LISTENERS UPSTREAMS
     "routes: [{split: [{upstream: chat, weight: 1}, {upstream: chat, "
     "weight: 1}]}]\n",
     "p.yaml:3:18: routes[0].split names the upstream \"chat\" twice"},
    {LISTENERS UPSTREAMS "routes: [{split: [{upstream: chat, weight: -1}]}]\n",
     "p.yaml:3:18: routes[0].split needs a weight above 0"},
    {LISTENERS UPSTREAMS "routes: [{upstream: chat, path: chat}]\n",
     "p.yaml:3:33: routes[0].path: \"chat\" must begin with /"},
    {LISTENERS UPSTREAMS "routes: [{upstream: chat, host: \"*a.test\"}]\n",
     "p.yaml:3:33: routes[0].host: \"*a.test\" must be a host name, \"*.example.com\" or "
     "\"*\""},
    {LISTENERS UPSTREAMS
     "routes: [{upstream: chat, request_headers: {set: {Content-Length: 1}}}]\n",
     "p.yaml:3:67: routes[0].request_headers.set.Content-Length is written by the proxy"},
    {LISTENERS UPSTREAMS
     "routes: [{upstream: chat, response_headers: {remove: [\"a b\"]}}]\n",
     "p.yaml:3:55: routes[0].response_headers.remove[0]: \"a b\" must be the name of a "
     "header field"},
    {LISTENERS UPSTREAMS
     "routes: [{upstream: chat, request_headers: {set: {X-A: \"b\\r\\nc\"}}}]\n",
     "p.yaml:3:56: routes[0].request_headers.set"},
    {LISTENERS "upstreams: [{name: chat}]\n" ROUTES,
     "p.yaml:2:13: upstreams[0].discovery needs exactly one source"},
    {LISTENERS "upstreams: [{name: chat, discovery: {file: \"\"}}]\n" ROUTES,
     "p.yaml:2:44: upstreams[0].discovery.file must be a path"},
    {LISTENERS
     "upstreams: [{name: chat, discovery: {file: /x, static: [\"a:1\"]}}]\n" ROUTES,
     "p.yaml:2:37: upstreams[0].discovery needs exactly one source"},
    {LISTENERS "upstreams: [{name: chat, discovery: {static: []}}]\n" ROUTES,
     "p.yaml:2:46: upstreams[0].discovery.static"},
    {LISTENERS "upstreams: [{name: \"a b\", discovery: {static: [\"h:1\"]}}]\n" ROUTES,
     "p.yaml:2:20: upstreams[0].name: \"a b\" may have letters, digits, '-', '_', '.'"},
    {LISTENERS "upstreams:\n  - {name: chat, discovery: {static: [\"h:1\"]}}\n"
               "  - {name: chat, discovery: {static: [\"h:2\"]}}\n" ROUTES,
     "p.yaml:4:12: upstreams[1].name \"chat\" is the name of upstreams[0] already"},
    {LISTENERS
     "upstreams: [{name: chat, discovery: {static: [\"h:1\", \"h:1\"]}}]\n" ROUTES,
     "p.yaml:2:54: upstreams[0].discovery.static[1] has the address of "
     "discovery.static[0]"},
    {LISTENERS "upstreams: [{name: chat, discovery: {static: [{address: \"h:1\", id: a}, "
               "{address: \"h:2\", id: a}]}}]\n" ROUTES,
     "p.yaml:2:72: upstreams[0].discovery.static[1] has the id of discovery.static[0]"},
    {LISTENERS "upstreams: [{name: chat, discovery: {static: [\"h\"]}}]\n" ROUTES,
     "p.yaml:2:47: upstreams[0].discovery.static[0].address: \"h\" must be host:port, "
     "[v6]:port or unix:/path"},
    {LISTENERS "upstreams: [{name: chat, discovery: {static: [\"h:0\"]}}]\n" ROUTES,
     "p.yaml:2:47: upstreams[0].discovery.static[0].address: \"h:0\" must have a port of "
     "1..65535"},
    {LISTENERS "upstreams: [{name: chat, discovery: {static: [\"::1:80\"]}}]\n" ROUTES,
     "p.yaml:2:47: upstreams[0].discovery.static[0].address: \"::1:80\" must have an "
     "IPv6 address in brackets"},
    {LISTENERS
     "upstreams: [{name: chat, discovery: {static: [\"http://h:1\"]}}]\n" ROUTES,
     "p.yaml:2:47: upstreams[0].discovery.static[0].address"},
    {LISTENERS "upstreams: [{name: chat, discovery: {static: [{address: \"h:1\", weight: "
               "101}]}}]\n" ROUTES,
     "p.yaml:2:72: upstreams[0].discovery.static[0].weight: \"101\" is out of range "
     "(0..100)"},
    {LISTENERS UPSTREAM("    affinity: {cookie: {name: \"a b\"}}") ROUTES,
     "p.yaml:5:31: upstreams[0].affinity.cookie.name: \"a b\" must be a token (RFC 9110 "
     "5.6.2)"},
    {LISTENERS UPSTREAM("    affinity: {cookie: {path: \"/;x\"}}") ROUTES,
     "p.yaml:5:31: upstreams[0].affinity.cookie.path: \"/;x\" has a character that "
     "cookies forbid"},
    {LISTENERS UPSTREAM("    affinity: {hash_by: \"header:\"}") ROUTES,
     "p.yaml:5:25: upstreams[0].affinity.hash_by: \"header:\" must be auto, client_ip, "
     "header:NAME, query:NAME or cookie:NAME"},
    {LISTENERS UPSTREAM("    affinity: {hash_by: \"header:a:b\"}") ROUTES,
     "p.yaml:5:25: upstreams[0].affinity.hash_by: \"header:a:b\" must be auto, "
     "client_ip, header:NAME, query:NAME or cookie:NAME"},
    {LISTENERS UPSTREAM("    affinity: {mode: sticky}") ROUTES,
     "p.yaml:5:22: upstreams[0].affinity.mode"},
    {LISTENERS UPSTREAM("    affinity: {bounded_load: 0.9}") ROUTES,
     "p.yaml:5:30: upstreams[0].affinity.bounded_load"},
    {LISTENERS UPSTREAM("    affinity: {accept_ingress_nginx_cookie: {name: A}}") ROUTES,
     "p.yaml:5:45: upstreams[0].affinity.accept_ingress_nginx_cookie.upstream_name is "
     "required"},
    {LISTENERS UPSTREAM("    health_chek: {type: tcp}") ROUTES,
     "p.yaml:5:5: unknown key \"health_chek\" (did you mean \"health_check\"?)"},
    {"listeners: [{address: \"127.0.0.1:80\"}, {address: \"127.0.0.1:80\"}]\n" UPSTREAMS
         ROUTES,
     "p.yaml:1:50: listeners[1].address is the address of listeners[0] already"},
    {"listeners: [{address: \"127.0.0.1:9090\"}]\n" UPSTREAMS ROUTES,
     "p.yaml:1:23: listeners[0].address is the address of admin.address"},
    {"listeners: [{address: \"127.0.0.1\"}]\n" UPSTREAMS ROUTES,
     "p.yaml:1:23: listeners[0].address"},
    {"listeners: [{address: \"127.0.0.1:80\", proxy_protocol: true}]\n" UPSTREAMS ROUTES,
     "p.yaml:1:55: listeners[0].proxy_protocol needs trusted_proxies"},
    {"listeners: [{address: \"127.0.0.1:80\", tls: {min_version: \"1.2\"}}]\n" UPSTREAMS
         ROUTES,
     "p.yaml:1:44: listeners[0].tls.certificates is required"},
    {"listeners: {}\n" UPSTREAMS ROUTES, "p.yaml:1:12: listeners"},
    {"listeners: [\n", "p.yaml:2:1:"},
};

static void test_each_mistake_is_told_where_it_stands(void **state)
{
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    bool is_wrong = false;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char errors[8192];
        struct proxy_config *config = parse(bad[i].yaml, errors, sizeof(errors));
        bool has_right_error = strncmp(errors, bad[i].error, strlen(bad[i].error)) == 0;
        if (strstr(bad[i].error, "descriptors") != NULL &&
            (limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= 20000198))
            has_right_error = true;
        else if (config != NULL)
            has_right_error = false;
        if (!has_right_error) {
            fprintf(stderr, "%s\n  expected: %s\n  got:      %s\n", bad[i].yaml,
                    bad[i].error, errors);
            is_wrong = true;
        }
        if (config != NULL)
            proxy_config_unref(config);
    }
    assert_false(is_wrong);
}

static void test_without_routes_the_only_upstream_serves_every_path(void **state)
{
    (void)state;
    char errors[4096];
    struct proxy_config *config = parse(LISTENERS UPSTREAMS, errors, sizeof(errors));
    assert_string_equal(errors, "");
    assert_int_equal(config->routes.count, 1);
    const struct route_config *route = proxy_config_route(config, 0);
    assert_string_equal(route->host, "*");
    assert_string_equal(route->path, "/");
    assert_int_equal(OPTION_ITEM(route->split, split_config, 0)->upstream, 0);
    assert_true(route->body_bytes == config->limits.body_bytes);
    proxy_config_unref(config);

    assert_null(parse(LISTENERS
                      "upstreams:\n"
                      "  - {name: a, discovery: {static: [\"127.0.0.1:5001\"]}}\n"
                      "  - {name: b, discovery: {static: [\"127.0.0.1:5002\"]}}\n",
                      errors, sizeof(errors)));
    assert_non_null(strstr(errors, "routes is required: there are 2 upstreams"));
}

static void test_the_quick_start_is_one_upstream_for_everything(void **state)
{
    (void)state;
    char errors[4096] = "";
    FILE *out = fmemopen(errors, sizeof(errors) - 1, "w");
    struct proxy_config *config = proxy_config_quick_start(
        "0.0.0.0:8080", "127.0.0.1:5001, [::1]:5002,unix:/w.sock", NULL, "2", out);
    assert_non_null(config);
    assert_int_equal(config->threads, 2);
    assert_int_equal(address_port(&config->admin.address), 9090);
    const struct upstream_config *upstream = proxy_config_upstream(config, 0);
    assert_string_equal(upstream->name, "default");
    assert_string_equal(upstream->affinity.cookie.name, "sidrail_default");
    assert_int_equal(upstream->endpoints.count, 3);
    assert_string_equal(OPTION_ITEM(upstream->endpoints, endpoint_config, 1)->address,
                        "[::1]:5002");
    proxy_config_unref(config);

    assert_null(proxy_config_quick_start("8080", "127.0.0.1:5001,", "nowhere", "0", out));
    fclose(out);
    assert_non_null(strstr(errors, "--listen:"));
    assert_non_null(strstr(errors, "--upstream:"));
    assert_non_null(strstr(errors, "--admin:"));
    assert_non_null(strstr(errors, "--threads:"));
}

static void test_only_threads_and_admin_need_a_restart(void **state)
{
    (void)state;
    char errors[4096], names[256];
    struct proxy_config *a =
        parse("threads: 1\n" LISTENERS UPSTREAMS ROUTES, errors, sizeof(errors));
    struct proxy_config *b =
        parse("threads: 2\nadmin: {address: \"127.0.0.1:1\"}\nlog: {level: debug}\n"
              "listeners: [{address: \"127.0.0.1:81\"}]\n" UPSTREAMS
              "routes: [{upstream: chat, path: /a}]\n",
              errors, sizeof(errors));
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(
        options_restart_changes(&proxy_config_table, a, a, names, sizeof(names)), 0);
    assert_string_equal(names, "");
    assert_int_equal(
        options_restart_changes(&proxy_config_table, a, b, names, sizeof(names)), 2);
    assert_string_equal(names, "threads, admin.address");
    char few[8];
    assert_int_equal(options_restart_changes(&proxy_config_table, a, b, few, sizeof(few)),
                     2);
    assert_string_equal(few, "threads");
    proxy_config_unref(a);
    proxy_config_unref(b);
}

static void test_keys_come_from_the_file_or_at_random(void **state)
{
    (void)state;
    char errors[4096], error[256];
    struct file_keys keys;
    bool is_random, is_readable_by_others;
    struct proxy_config *config =
        parse(LISTENERS UPSTREAMS ROUTES, errors, sizeof(errors));
    assert_true(proxy_config_load_keys(config, &keys, &is_random, &is_readable_by_others,
                                       error, sizeof(error)));
    assert_true(is_random);
    assert_int_equal(keys.count, 1);
    proxy_config_unref(config);
    config = parse("affinity_keys: /nonexistent/keys\n" LISTENERS UPSTREAMS ROUTES,
                   errors, sizeof(errors));
    assert_false(proxy_config_load_keys(config, &keys, &is_random, &is_readable_by_others,
                                        error, sizeof(error)));
    assert_string_equal(error, "/nonexistent/keys: No such file or directory");
    proxy_config_unref(config);
}

static void test_a_cpu_quota_counts_parts_as_whole(void **state)
{
    (void)state;
    assert_int_equal(cpu_count_of_quota(SLICE("200000 100000\n")), 2);
    assert_int_equal(cpu_count_of_quota(SLICE("150000 100000\n")), 2);
    assert_int_equal(cpu_count_of_quota(SLICE("1000 100000")), 1);
    assert_int_equal(cpu_count_of_quota(SLICE("max 100000\n")), 0);
    assert_int_equal(cpu_count_of_quota(SLICE("-1 100000")), 0);
    assert_int_equal(cpu_count_of_quota(SLICE("")), 0);
    assert_true(cpu_count_available() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_those_of_the_contract),
        cmocka_unit_test(test_every_option_of_the_contract_is_read),
        cmocka_unit_test(test_each_mistake_is_told_where_it_stands),
        cmocka_unit_test(test_without_routes_the_only_upstream_serves_every_path),
        cmocka_unit_test(test_the_quick_start_is_one_upstream_for_everything),
        cmocka_unit_test(test_only_threads_and_admin_need_a_restart),
        cmocka_unit_test(test_keys_come_from_the_file_or_at_random),
        cmocka_unit_test(test_a_cpu_quota_counts_parts_as_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
