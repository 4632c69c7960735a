#include "proxy/proxy_config_rows.h"

#include "shared/admin_host.h"
#include "shared/log.h"
#include "shared/timing.h"

#include "proxy/endpoint_set.h"
#include "proxy/proxy_config.h"
#include "proxy/proxy_config_check.h"

#define HOURS(n) ((int64_t)SECONDS(3600) * (n))
#define MS(n)    ((int64_t)MILLISECONDS(n))
#define KIB(n)   ((int64_t)(n)*1024)
#define MIB(n)   (KIB(n) * 1024)
#define GIB(n)   (MIB(n) * 1024)

static const char *const mode_words[] = {"persistent", "balanced", NULL};
static const char *const cookie_on_words[] = {"engine_io", "all", NULL};
static const char *const same_site_words[] = {"auto", "none", "lax", "strict", NULL};
static const char *const secure_words[] = {"auto", "true", "false", NULL};
static const char *const draining_words[] = {"last_resort", "never", NULL};
static const char *const health_words[] = {"tcp", "http", "none", NULL};
static const char *const family_words[] = {"auto", "ipv4", "ipv6", NULL};
static const char *const drain_words[] = {"pace", "wait", "none", NULL};
static const char *const start_words[] = {"ready", "draining", NULL};
static const char *const tls_version_words[] = {"1.2", "1.3", NULL};
static const char *const access_words[] = {"errors", "all", "off", NULL};

/* ── listeners[] ── */

#define AT(member) .offset = offsetof(struct certificate_config, member)
static const struct option_row certificate_rows[] = {
    {"cert", OPTION_TEXT, AT(cert), .required = true, .minimum = 1, .maximum = 4096,
     .reload = OPTION_NEW, .help = "PEM file of the certificate and its chain."},
    {"key", OPTION_TEXT, AT(key), .required = true, .minimum = 1, .maximum = 4096,
     .reload = OPTION_NEW, .help = "PEM file of its private key."},
};
#undef AT
static const struct option_table certificate_table =
    OPTION_TABLE(certificate_rows, struct certificate_config);

#define AT(member) .offset = offsetof(struct listener_config, member)
static const struct option_row listener_rows[] = {
    {"address", OPTION_ADDRESS, AT(address), .required = true, .reload = OPTION_NEW,
     .help = "Where clients connect: 0.0.0.0:8080, [::]:8080, unix:/path."},
    {"proxy_protocol", OPTION_BOOL, AT(proxy_protocol), .standard = "false",
     .reload = OPTION_NEW,
     .help = "Each connection begins with a PROXY header (v1 or v2), accepted from "
             "trusted_proxies only."},
    {"trusted", OPTION_BOOL, AT(trusted), .standard = "false", .reload = OPTION_NEW,
     .help =
         "For unix:/path: who connects here is a trusted proxy, as trusted_proxies are."},
    {"redirect_https", OPTION_BOOL, AT(redirect_https), .standard = "false",
     .reload = OPTION_NEW,
     .help = "Answer every request that did not come over https with 308 to https://."},
    {"tls", OPTION_OBJECT, AT(has_tls), .reload = OPTION_NEW,
     .help = "Present: this listener speaks TLS."},
    {"tls.certificates", OPTION_LIST, AT(tls.certificates), .required = true,
     .elements = &certificate_table, .minimum = 1, .maximum = 64, .reload = OPTION_NEW,
     .help = "Chosen by SNI, exact before wildcard; the first is the default."},
    {"tls.min_version", OPTION_ENUM, AT(tls.min_version), .words = tls_version_words,
     .standard = "1.2", .reload = OPTION_NEW, .help = "Oldest TLS version."},
    {"tls.client_ca", OPTION_TEXT, AT(tls.client_ca), .maximum = 4096,
     .reload = OPTION_NEW,
     .help = "PEM file of the authorities that client certificates must be from; empty: "
             "none is asked for."},
    {"tls.ticket_keys", OPTION_TEXT, AT(tls.ticket_keys), .maximum = 4096,
     .reload = OPTION_NEW,
     .help = "File of ticket keys that replicas share; empty: keys of this process."},
};
#undef AT
static const struct option_table listener_table =
    OPTION_TABLE(listener_rows, struct listener_config);

/* ── upstreams[] ── */

#define AT(member) .offset = offsetof(struct endpoint_config, member)
static const struct option_row endpoint_rows[] = {
    {"address", OPTION_TEXT, AT(address), .required = true, .minimum = 1, .maximum = 300,
     .check = proxy_check_endpoint, .reload = OPTION_NEW,
     .help = "host:port, [v6]:port or unix:/path. A name is looked up again and again "
             "(in the background, /etc/hosts first); it keeps an address as long as the "
             "answers have it, "
             "and the last one while they fail."},
    {"id", OPTION_TEXT, AT(id), .maximum = 128, .reload = OPTION_NEW,
     .help = "What the tag is made of; empty: the address."},
    {"weight", OPTION_INTEGER, AT(weight), .minimum = 0, .maximum = ENDPOINT_WEIGHT_MAX,
     .standard = "1", .reload = OPTION_NEW,
     .help = "Share of new sessions; 0: none, those it has stay."},
    {"state", OPTION_ENUM, AT(state), .words = start_words, .standard = "ready",
     .reload = OPTION_NEW, .help = "draining: no new session while another takes it."},
};
#undef AT
static const struct option_table endpoint_table =
    OPTION_TABLE(endpoint_rows, struct endpoint_config, .plain = "address");

#define AT(member) .offset = offsetof(struct upstream_config, member)
static const struct option_row upstream_rows[] = {
    {"name", OPTION_TEXT, AT(name), .required = true, .minimum = 1, .maximum = 63,
     .check = proxy_check_name, .reload = OPTION_NEW,
     .help = "Its name in routes, tags, metrics and logs."},
    {"discovery.static", OPTION_LIST, AT(endpoints), .elements = &endpoint_table,
     .minimum = 1, .maximum = 4096, .reload = OPTION_LIVE,
     .help = "The endpoints, as text or as objects."},
    {"discovery.name_server", OPTION_TEXT, AT(discovery.name_server), .maximum = 64,
     .check = proxy_check_dns_server, .reload = OPTION_LIVE,
     .help = "IP or IP:port of the name server that knows the names in static; empty: "
             "those of "
             "/etc/resolv.conf."},
    {"discovery.file", OPTION_TEXT, AT(discovery.file), .maximum = 4096,
     .reload = OPTION_LIVE,
     .help = "Instead: a JSON list of the same, addresses numeric; read again when it "
             "changes."},
    {"discovery.dns", OPTION_OBJECT, AT(discovery.has_dns), .reload = OPTION_LIVE,
     .help = "Instead: the addresses of a name (A, else AAAA; SRV when it begins with "
             "_), asked for again and again. One that vanishes drains for drain.window "
             "while it accepts."},
    {"discovery.dns.name", OPTION_TEXT, AT(discovery.dns.name), .required = true,
     .minimum = 1, .maximum = 254, .check = proxy_check_dns_name, .reload = OPTION_LIVE,
     .help = "Asked for as it is: no search domains."},
    {"discovery.dns.port", OPTION_INTEGER, AT(discovery.dns.port), .standard = "0",
     .minimum = 1, .maximum = 65535, .or_zero = true, .reload = OPTION_LIVE,
     .help = "Port of the endpoints; SRV records have their own: 0."},
    {"discovery.dns.interval", OPTION_DURATION, AT(discovery.dns.interval),
     .standard = "2s", .minimum = MS(100), .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "From an answer to the next question; sooner when its time to live is "
             "shorter."},
    {"discovery.dns.server", OPTION_TEXT, AT(discovery.dns.server), .maximum = 64,
     .check = proxy_check_dns_server, .reload = OPTION_LIVE,
     .help = "IP or IP:port of the name server; empty: those of /etc/resolv.conf."},
    {"discovery.kubernetes", OPTION_OBJECT, AT(discovery.has_kubernetes),
     .reload = OPTION_LIVE,
     .help = "Instead: the EndpointSlices of a Service, listed and watched."},
    {"discovery.kubernetes.namespace", OPTION_TEXT,
     AT(discovery.kubernetes.namespace_name), .maximum = 63, .check = proxy_check_label,
     .reload = OPTION_LIVE, .help = "Its namespace; empty: the one of our pod."},
    {"discovery.kubernetes.service", OPTION_TEXT, AT(discovery.kubernetes.service),
     .required = true, .minimum = 1, .maximum = 63, .check = proxy_check_label,
     .reload = OPTION_LIVE, .help = "Its name."},
    {"discovery.kubernetes.ports", OPTION_TEXT_LIST, AT(discovery.kubernetes.ports),
     .required = true, .minimum = 1, .maximum = 100, .reload = OPTION_LIVE,
     .help = "Names of the Service's ports, or numbers of the pods'; each is an endpoint "
             "of its own."},
    {"discovery.kubernetes.ip_family", OPTION_ENUM, AT(discovery.kubernetes.ip_family),
     .words = family_words, .standard = "auto", .reload = OPTION_LIVE,
     .help = "Which address of a pod with both; auto: of the family of POD_IP, else "
             "IPv4, else what there is."},
    {"discovery.kubernetes.empty_hold", OPTION_DURATION,
     AT(discovery.kubernetes.empty_hold), .standard = "auto", .automatic = true,
     .minimum = 0, .maximum = HOURS(24), .reload = OPTION_LIVE,
     .help = "The upstream's empty_hold by an older name; auto: that one counts."},
    {"discovery.kubernetes.api_server", OPTION_TEXT, AT(discovery.kubernetes.api_server),
     .maximum = 200, .check = proxy_check_api_server, .reload = OPTION_LIVE,
     .help =
         "https://HOST:port or http://HOST:port, HOST a name or an IP ([v6]); empty: the "
         "cluster's, from the pod's environment."},
    {"discovery.kubernetes.token_file", OPTION_TEXT, AT(discovery.kubernetes.token_file),
     .standard = "/var/run/secrets/kubernetes.io/serviceaccount/token", .maximum = 4096,
     .reload = OPTION_LIVE, .help = "Read for each request; empty: none is sent."},
    {"discovery.kubernetes.ca_file", OPTION_TEXT, AT(discovery.kubernetes.ca_file),
     .standard = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", .maximum = 4096,
     .reload = OPTION_LIVE,
     .help = "Authorities of the API's certificate, read for each request; empty: "
             "the system's."},
    {"discovery.kubernetes.watch_time", OPTION_DURATION,
     AT(discovery.kubernetes.watch_time), .standard = "5m",
     .minimum = (int64_t)SECONDS(1), .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "A watch is asked for this time to twice of it, at random."},
    {"discovery.kubernetes.relist", OPTION_DURATION, AT(discovery.kubernetes.relist),
     .standard = "20m", .minimum = (int64_t)SECONDS(1), .maximum = HOURS(24),
     .reload = OPTION_LIVE,
     .help = "When a watch ends so long after the last list, up to half more, the slices "
             "are listed again."},
    {"drain.mode", OPTION_ENUM, AT(drain.mode), .words = drain_words, .standard = "pace",
     .reload = OPTION_LIVE,
     .help = "WebSockets of a draining endpoint: pace closes them with 1012 spread over "
             "the window; wait closes those that are left after it; none closes none."},
    {"drain.delay", OPTION_DURATION, AT(drain.delay), .standard = "2s", .minimum = 0,
     .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "From draining to the begin of the window."},
    {"drain.window", OPTION_DURATION, AT(drain.window), .standard = "20s", .minimum = 0,
     .maximum = HOURS(24), .reload = OPTION_LIVE,
     .help = "Over which they are closed. An endpoint that has vanished from DNS drains "
             "for delay and window while it accepts."},
    {"herd_spread", OPTION_DURATION, AT(herd_spread), .standard = "3s", .minimum = 0,
     .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help =
         "WebSockets that all lose their endpoint at one moment are closed spread over "
         "this time."},
    {"empty_hold", OPTION_DURATION, AT(empty_hold), .standard = "30s", .minimum = 0,
     .maximum = HOURS(24), .reload = OPTION_LIVE,
     .help =
         "When no listed endpoint takes new sessions, those that are not listed any more "
         "take them for so long. What they have already they keep while they accept."},
    {"affinity.mode", OPTION_ENUM, AT(affinity.mode), .words = mode_words,
     .standard = "persistent", .reload = OPTION_LIVE,
     .help = "balanced: a handshake ignores the cookie's tag and ranks its client key "
             "again."},
    {"affinity.sid_tag", OPTION_BOOL, AT(affinity.sid_tag), .standard = "true",
     .reload = OPTION_LIVE,
     .help = "Write the route into the sid (EIO=4); false: sids are learned."},
    {"affinity.cookie.name", OPTION_TEXT, AT(affinity.cookie.name), .maximum = 128,
     .check = proxy_check_cookie_name, .reload = OPTION_LIVE,
     .help = "Name of the affinity cookie; empty: sidrail_ and the upstream's name."},
    {"affinity.cookie.on", OPTION_ENUM, AT(affinity.cookie.on), .words = cookie_on_words,
     .standard = "engine_io", .reload = OPTION_LIVE,
     .help = "all: set on answers of other paths too."},
    {"affinity.cookie.path", OPTION_TEXT, AT(affinity.cookie.path), .standard = "/",
     .minimum = 1, .maximum = 256, .check = proxy_check_cookie_path,
     .reload = OPTION_LIVE, .help = "Its Path."},
    {"affinity.cookie.domain", OPTION_TEXT, AT(affinity.cookie.domain), .maximum = 253,
     .check = proxy_check_cookie_domain, .reload = OPTION_LIVE,
     .help = "Its Domain; empty: none."},
    {"affinity.cookie.max_age", OPTION_DURATION, AT(affinity.cookie.max_age),
     .standard = "0s", .minimum = (int64_t)SECONDS(1), .maximum = HOURS(24 * 400),
     .or_zero = true, .reload = OPTION_LIVE,
     .help = "Its Max-Age; 0: until the browser closes."},
    {"affinity.cookie.same_site", OPTION_ENUM, AT(affinity.cookie.same_site),
     .words = same_site_words, .standard = "auto", .reload = OPTION_LIVE,
     .help = "auto: None and Partitioned for cross-site requests over TLS, else Lax."},
    {"affinity.cookie.secure", OPTION_ENUM, AT(affinity.cookie.secure),
     .words = secure_words, .standard = "auto", .reload = OPTION_LIVE,
     .help = "auto: exactly when the client speaks https."},
    {"affinity.hash_by", OPTION_TEXT, AT(affinity.hash_by_text), .standard = "auto",
     .minimum = 1, .maximum = 128, .check = proxy_check_hash_by, .reload = OPTION_LIVE,
     .help = "Explicit routing key of handshakes: auto (none), client_ip, header:NAME, "
             "query:NAME, cookie:NAME."},
    {"affinity.bounded_load", OPTION_DECIMAL, AT(affinity.bounded_load),
     .standard = "1.25", .minimum = 1000, .maximum = 100000, .reload = OPTION_LIVE,
     .help = "An endpoint takes explicit keys up to this multiple of its fair share."},
    {"affinity.change_on_failure", OPTION_BOOL, AT(affinity.change_on_failure),
     .standard = "false", .reload = OPTION_LIVE,
     .help = "Requests of other paths leave the cookie's endpoint when it cannot be "
             "reached."},
    {"affinity.place_on_draining", OPTION_ENUM, AT(affinity.place_on_draining),
     .words = draining_words, .standard = "last_resort", .reload = OPTION_LIVE,
     .help = "May a handshake go to a draining endpoint when there is no other?"},
    {"affinity.unknown_tag_grace", OPTION_DURATION, AT(affinity.unknown_tag_grace),
     .standard = "750ms", .minimum = 0, .maximum = (int64_t)SECONDS(10),
     .reload = OPTION_LIVE,
     .help = "How long a request with a tag never seen waits for discovery."},
    {"affinity.learned_sids", OPTION_INTEGER, AT(affinity.learned_sids),
     .standard = "100000", .minimum = 0, .maximum = 10000000, .reload = OPTION_LIVE,
     .help = "Sids that are remembered for EIO=3, JSONP and skipped rewrites; 0: none."},
    {"affinity.accept_ingress_nginx_cookie", OPTION_OBJECT,
     AT(affinity.has_ingress_nginx_cookie), .reload = OPTION_LIVE,
     .help = "Present: cookies of ingress-nginx (persistent mode) are honoured and "
             "replaced."},
    {"affinity.accept_ingress_nginx_cookie.name", OPTION_TEXT,
     AT(affinity.ingress_nginx_cookie.name), .standard = "INGRESSCOOKIE", .minimum = 1,
     .maximum = 128, .check = proxy_check_cookie_name, .reload = OPTION_LIVE,
     .help = "Name of that cookie."},
    {"affinity.accept_ingress_nginx_cookie.upstream_name", OPTION_TEXT,
     AT(affinity.ingress_nginx_cookie.upstream_name), .required = true, .minimum = 1,
     .maximum = 256, .reload = OPTION_LIVE,
     .help = "How ingress-nginx calls the upstream: NAMESPACE-SERVICE-PORT."},
    {"health_check.type", OPTION_ENUM, AT(health_check.type), .words = health_words,
     .standard = "tcp", .reload = OPTION_LIVE,
     .help = "tcp: connects; http: a status of 200 to 399; none. An endpoint that fails "
             "is degraded: no new session while a ready one is there."},
    {"health_check.path", OPTION_TEXT, AT(health_check.path), .standard = "/",
     .minimum = 1, .maximum = 1024, .check = proxy_check_health_path,
     .reload = OPTION_LIVE, .help = "What type http gets."},
    {"health_check.interval", OPTION_DURATION, AT(health_check.interval),
     .standard = "5s", .minimum = MS(50), .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "From a result to the next probe, an eighth more or less."},
    {"health_check.timeout", OPTION_DURATION, AT(health_check.timeout), .standard = "2s",
     .minimum = MS(10), .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "A probe without a result by then has failed."},
    {"health_check.rise", OPTION_INTEGER, AT(health_check.rise), .standard = "2",
     .minimum = 1, .maximum = 100, .reload = OPTION_LIVE,
     .help = "So many in a row must pass until a failing endpoint passes."},
    {"health_check.fall", OPTION_INTEGER, AT(health_check.fall), .standard = "3",
     .minimum = 1, .maximum = 100, .reload = OPTION_LIVE,
     .help = "So many in a row must fail until a passing endpoint fails."},
    {"place_after", OPTION_DURATION, AT(place_after), .standard = "2s", .minimum = 0,
     .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "A new endpoint gets no session while it is younger and another is ready."},
    {"slow_start", OPTION_DURATION, AT(slow_start), .standard = "0s", .minimum = 0,
     .maximum = HOURS(24), .reload = OPTION_LIVE,
     .help = "A new endpoint's weight rises from a tenth to all of it; 0: at once."},
    {"max_sessions_per_endpoint", OPTION_INTEGER, AT(max_sessions_per_endpoint),
     .standard = "0", .minimum = 0, .maximum = 100000000, .reload = OPTION_LIVE,
     .help = "Handshakes find an endpoint full at that many sessions; 0: never."},
    {"max_handshake_rate", OPTION_INTEGER, AT(max_handshake_rate), .standard = "0",
     .minimum = 0, .maximum = 1000000, .unit = "per second", .reload = OPTION_LIVE,
     .help = "Handshakes an endpoint gets in a second, the rest waits for at most 1 s; "
             "0: no bound."},
    {"tls", OPTION_OBJECT, AT(has_tls), .reload = OPTION_NEW,
     .help = "Present: TLS to the endpoints, health checks too."},
    {"tls.ca", OPTION_TEXT, AT(tls.ca), .maximum = 4096, .reload = OPTION_NEW,
     .help = "PEM file of the authorities that their certificates must be from, read "
             "again when it changes; empty: the system's."},
    {"tls.cert", OPTION_TEXT, AT(tls.cert), .maximum = 4096, .reload = OPTION_NEW,
     .help = "PEM file of the certificate that is shown to them, with its chain, read "
             "again when it changes; empty: none."},
    {"tls.key", OPTION_TEXT, AT(tls.key), .maximum = 4096, .reload = OPTION_NEW,
     .help = "PEM file of its private key."},
    {"tls.server_name", OPTION_TEXT, AT(tls.server_name), .maximum = 253,
     .reload = OPTION_NEW,
     .help = "Name that is sent (SNI) and that their certificates must hold; empty: the "
             "host of the endpoint's address, a name or an IP."},
    {"tls.verify", OPTION_BOOL, AT(tls.verify), .standard = "true", .reload = OPTION_NEW,
     .help = "false: any certificate is taken."},
};
#undef AT
const struct option_table proxy_upstream_table =
    OPTION_TABLE(upstream_rows, struct upstream_config, .check = proxy_check_upstream);

/* ── routes[] ── */

#define AT(member) .offset = offsetof(struct split_config, member)
static const struct option_row split_rows[] = {
    {"upstream", OPTION_TEXT, AT(upstream_name), .required = true, .minimum = 1,
     .maximum = 63, .reload = OPTION_LIVE, .help = "Name of a member."},
    {"weight", OPTION_INTEGER, AT(weight), .required = true, .minimum = 0,
     .maximum = 1000000, .reload = OPTION_LIVE,
     .help = "Its share of new sessions; 0: only those that began there."},
};
#undef AT
static const struct option_table split_table =
    OPTION_TABLE(split_rows, struct split_config);

#define AT(member) .offset = offsetof(struct route_config, member)
static const struct option_row route_rows[] = {
    {"host", OPTION_TEXT, AT(host), .standard = "*", .minimum = 1, .maximum = 255,
     .check = proxy_check_host, .reload = OPTION_LIVE,
     .help = "Host of the request: exact, \"*.example.com\" or \"*\"."},
    {"path", OPTION_TEXT, AT(path), .standard = "/", .minimum = 1, .maximum = 1024,
     .check = proxy_check_path, .reload = OPTION_LIVE,
     .help = "Prefix of the path, in whole segments."},
    {"upstream", OPTION_TEXT, AT(upstream_name), .maximum = 63, .reload = OPTION_LIVE,
     .help = "Name of the upstream that serves it."},
    {"split", OPTION_LIST, AT(split), .elements = &split_table, .minimum = 1,
     .maximum = 16, .reload = OPTION_LIVE,
     .help = "Instead of upstream: several by weight; sessions stay where they began."},
    {"body_bytes", OPTION_SIZE, AT(body_bytes), .standard = "auto", .automatic = true,
     .minimum = 1, .maximum = GIB(64), .or_zero = true, .reload = OPTION_LIVE,
     .help = "Largest request body; auto: limits.body_bytes."},
    {"request_headers.set", OPTION_TEXT_MAP, AT(request_headers.set),
     .reload = OPTION_LIVE, .help = "Fields that a request gets, in place of its own."},
    {"request_headers.remove", OPTION_TEXT_LIST, AT(request_headers.remove), .minimum = 0,
     .maximum = 64, .check = proxy_check_field_name, .reload = OPTION_LIVE,
     .help = "Fields that are removed from a request."},
    {"response_headers.set", OPTION_TEXT_MAP, AT(response_headers.set),
     .reload = OPTION_LIVE, .help = "Fields that a response gets, in place of its own."},
    {"response_headers.remove", OPTION_TEXT_LIST, AT(response_headers.remove),
     .minimum = 0, .maximum = 64, .check = proxy_check_field_name, .reload = OPTION_LIVE,
     .help = "Fields that are removed from a response."},
};
#undef AT
static const struct option_table route_table =
    OPTION_TABLE(route_rows, struct route_config, .check = proxy_check_route);

/* ── the whole ── */

#define AT(member) .offset = offsetof(struct proxy_config, member)
static const struct option_row config_rows[] = {
    {"threads", OPTION_INTEGER, AT(threads_option), .standard = "auto", .automatic = true,
     .minimum = 1, .maximum = 256, .reload = OPTION_RESTART,
     .help = "Workers; auto: the cgroup's CPU quota if set, else the online CPUs."},
    {"listeners", OPTION_LIST, AT(listeners), .elements = &listener_table,
     .required = true, .minimum = 1, .maximum = 64, .reload = OPTION_NEW,
     .help = "Where clients connect."},
    {"admin.address", OPTION_ADDRESS, AT(admin.address), .standard = "127.0.0.1:9090",
     .reload = OPTION_RESTART,
     .help = "Read-only port for operators: page, status, metrics, health; empty: off."},
    {"admin.socket", OPTION_TEXT, AT(admin.socket), .standard = "auto", .maximum = 107,
     .check = proxy_check_socket, .reload = OPTION_RESTART,
     .help = "Unix socket for ctl; auto: /run/sidrail/proxy.sock, else below "
             "$XDG_RUNTIME_DIR; empty: off."},
    {"admin.hosts", OPTION_TEXT_LIST, AT(admin.hosts), .minimum = 0, .maximum = 64,
     .check = admin_host_check, .reload = OPTION_LIVE,
     .help =
         "Names that a request to it may be meant for (Host, without a port; "
         "*.example.com; * is all), beside IP addresses and localhost: others get "
         "421, so that no web page can read it by a name of its own (DNS rebinding)."},
    {"trusted_proxies", OPTION_CIDR_LIST, AT(trusted_proxies), .minimum = 0,
     .maximum = 1024, .reload = OPTION_LIVE,
     .help = "Networks whose X-Forwarded-* and PROXY headers are believed."},
    {"trusted_hops", OPTION_INTEGER, AT(trusted_hops), .standard = "1", .minimum = 1,
     .maximum = 32, .reload = OPTION_LIVE,
     .help = "How many trusted proxies a request passed."},
    {"access.allow", OPTION_CIDR_LIST, AT(access.allow), .minimum = 0, .maximum = 1024,
     .reload = OPTION_LIVE,
     .help =
         "Networks of clients (as trusted_proxies report them) that are served; empty: "
         "all. Others get 403."},
    {"access.deny", OPTION_CIDR_LIST, AT(access.deny), .minimum = 0, .maximum = 1024,
     .reload = OPTION_LIVE, .help = "Networks of clients that are not; before allow."},
    {"access.origins", OPTION_TEXT_LIST, AT(access.origins), .minimum = 0,
     .maximum = 1024, .check = proxy_check_origin, .reload = OPTION_LIVE,
     .help = "Origins whose Engine.IO requests are served; empty: any."},
    {"engine_io_paths", OPTION_TEXT_LIST, AT(engine_io_paths), .standard = "/socket.io/",
     .minimum = 1, .maximum = 32, .check = proxy_check_engine_path, .reload = OPTION_LIVE,
     .help = "Paths that speak Engine.IO, percent-decoded and with or without the last "
             "slash; what only some servers would take for one of them (dot segments, "
             "doubled slashes, ;parameters) is answered 400."},
    {"affinity_keys", OPTION_TEXT, AT(affinity_keys), .maximum = 4096,
     .reload = OPTION_LIVE,
     .help = "Key file that replicas share; empty: a random key for this process."},
    {"upstreams", OPTION_LIST, AT(upstreams), .elements = &proxy_upstream_table,
     .required = true, .minimum = 1, .maximum = 1024, .reload = OPTION_LIVE,
     .help = "Named sets of endpoints."},
    {"routes", OPTION_LIST, AT(routes), .elements = &route_table, .minimum = 1,
     .maximum = 4096, .reload = OPTION_LIVE,
     .help = "Which upstream serves a request; the first match wins, none is 404. "
             "Absent: the only "
             "upstream serves every path."},
    {"timeouts.request_head", OPTION_DURATION, AT(timeouts.request_head),
     .standard = "10s", .minimum = MS(10), .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help =
         "From the first byte of a head to its last; for a TLS handshake; and how long "
         "a body may come at less than 1 KiB/s."},
    {"timeouts.connect", OPTION_DURATION, AT(timeouts.connect), .standard = "5s",
     .minimum = MS(10), .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "Until an endpoint has accepted a connection, TLS included."},
    {"timeouts.keep_alive", OPTION_DURATION, AT(timeouts.keep_alive), .standard = "60s",
     .minimum = MS(10), .maximum = HOURS(24), .or_zero = true, .reload = OPTION_LIVE,
     .help = "Idle time between requests of a client; 0: each connection serves one."},
    {"timeouts.endpoint_keep_alive", OPTION_DURATION, AT(timeouts.endpoint_keep_alive),
     .standard = "1s", .minimum = MS(10), .maximum = HOURS(1), .or_zero = true,
     .reload = OPTION_LIVE,
     .help = "How long an idle connection to an endpoint is kept; 0: none is."},
    {"timeouts.poll", OPTION_DURATION, AT(timeouts.poll), .standard = "auto",
     .automatic = true, .minimum = MS(10), .maximum = HOURS(24), .reload = OPTION_LIVE,
     .help = "Until an endpoint answers; auto: from the pingInterval and pingTimeout "
             "seen."},
    {"timeouts.tunnel_idle", OPTION_DURATION, AT(timeouts.tunnel_idle),
     .standard = "auto", .automatic = true, .minimum = MS(10), .maximum = HOURS(24 * 31),
     .reload = OPTION_LIVE,
     .help = "Silence of a client on an Engine.IO WebSocket; auto: from the pingInterval "
             "and pingTimeout seen."},
    {"timeouts.tunnel_idle_other", OPTION_DURATION, AT(timeouts.tunnel_idle_other),
     .standard = "1h", .minimum = MS(10), .maximum = HOURS(24 * 31), .or_zero = true,
     .reload = OPTION_LIVE, .help = "Silence on any other WebSocket; 0: no limit."},
    {"timeouts.write_stall", OPTION_DURATION, AT(timeouts.write_stall), .standard = "30s",
     .minimum = MS(10), .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "How long a peer may take no byte while some wait for it."},
    {"tcp.keep_alive", OPTION_DURATION, AT(tcp.keep_alive), .standard = "60s",
     .minimum = (int64_t)SECONDS(1), .maximum = HOURS(9), .or_zero = true,
     .reload = OPTION_NEW, .help = "Idle time before TCP probes; 0: the kernel's."},
    {"tcp.user_timeout", OPTION_DURATION, AT(tcp.user_timeout), .standard = "30s",
     .minimum = (int64_t)SECONDS(1), .maximum = HOURS(1), .or_zero = true,
     .reload = OPTION_NEW,
     .help = "Unacknowledged bytes end a connection after, though not before "
             "timeouts.write_stall and 5s more; 0: the kernel's."},
    {"limits.connections", OPTION_INTEGER, AT(limits.connections), .standard = "9000",
     .minimum = 1, .maximum = 10000000, .reload = OPTION_NEW,
     .help = "Client connections at a time."},
    {"limits.connections_per_ip", OPTION_INTEGER, AT(limits.connections_per_ip),
     .standard = "auto", .automatic = true, .minimum = 0, .maximum = 10000000,
     .reload = OPTION_NEW,
     .help =
         "The same from one address (IPv6: from one /64), trusted_proxies aside; auto: "
         "no bound, but the last tenth of limits.connections is not for an address that "
         "has "
         "half of them (127.0.0.1 and ::1 aside); 0: no bound."},
    {"limits.handshakes_per_second", OPTION_INTEGER, AT(limits.handshakes_per_second),
     .standard = "0", .minimum = 0, .maximum = 10000000, .unit = "per second",
     .reload = OPTION_LIVE,
     .help = "Handshakes of all clients, as many at once; more get 503. 0: no bound."},
    {"limits.head_bytes", OPTION_SIZE, AT(limits.head_bytes), .standard = "32KiB",
     .minimum = KIB(1), .maximum = KIB(32), .reload = OPTION_NEW,
     .help = "Largest head of a request or response."},
    {"limits.body_bytes", OPTION_SIZE, AT(limits.body_bytes), .standard = "1000000",
     .minimum = 1, .maximum = GIB(64), .or_zero = true, .reload = OPTION_LIVE,
     .help = "Largest request body, where a route has no other."},
    {"limits.websocket_frame_bytes", OPTION_SIZE, AT(limits.websocket_frame_bytes),
     .standard = "0", .minimum = 125, .maximum = GIB(64), .or_zero = true,
     .reload = OPTION_NEW, .help = "Largest WebSocket frame; 0: no bound."},
    {"limits.buffered_bytes", OPTION_SIZE, AT(limits.buffered_bytes),
     .standard = "256MiB", .minimum = MIB(1), .maximum = GIB(1024), .reload = OPTION_LIVE,
     .help = "Bytes waiting for slow peers, of all connections; a quarter of them is for "
             "heads and small bodies alone."},
    {"limits.buffered_bytes_per_ip", OPTION_SIZE, AT(limits.buffered_bytes_per_ip),
     .standard = "auto", .automatic = true, .minimum = KIB(64), .maximum = GIB(1024),
     .or_zero = true, .reload = OPTION_LIVE,
     .help = "Those of one address (IPv6: of one /64; behind trusted_proxies the address "
             "that they name), once half of limits.buffered_bytes are in use; auto: a "
             "quarter; 0: no bound."},
    {"shutdown.readiness_delay", OPTION_DURATION, AT(shutdown.readiness_delay),
     .standard = "5s", .minimum = 0, .maximum = HOURS(1), .reload = OPTION_LIVE,
     .help = "After SIGTERM: not ready, but everything goes on."},
    {"shutdown.window", OPTION_DURATION, AT(shutdown.window), .standard = "180s",
     .minimum = 0, .maximum = HOURS(24), .reload = OPTION_LIVE,
     .help = "Then WebSockets are closed, spread over this time."},
    {"shutdown.deadline", OPTION_DURATION, AT(shutdown.deadline), .standard = "240s",
     .minimum = 0, .maximum = HOURS(25), .reload = OPTION_LIVE,
     .help = "After SIGTERM the process ends, whatever is open."},
    {"log.level", OPTION_ENUM, AT(log.level), .words = log_level_words,
     .standard = "info", .reload = OPTION_LIVE, .help = "Least severe line written."},
    {"log.format", OPTION_ENUM, AT(log.format), .words = log_format_words,
     .standard = "auto", .reload = OPTION_LIVE,
     .help = "auto: text on a terminal, else JSON."},
    {"log.access", OPTION_ENUM, AT(log.access), .words = access_words,
     .standard = "errors", .reload = OPTION_LIVE,
     .help =
         "Which connections get a line at info when they end (reason, ip, state, number "
         "of requests, duration): those that end by an error, all, or none. Requests "
         "have no lines, except error answers of the proxy after which the connection "
         "stays open (not with off)."},
};
#undef AT

const struct option_table proxy_config_table =
    OPTION_TABLE(config_rows, struct proxy_config, .check = proxy_check_config);
