/*
 * See broker_config.h. To add an option: a member there and a row here.
 */
#include "broker/broker_config.h"

#include "broker/broker_tls.h"
#include "broker/client.h"
#include "broker/command_class.h"
#include "broker/message.h"
#include "broker/shard_url.h"
#include "shared/admin_host.h"
#include "shared/log.h"
#include "shared/rendezvous.h"
#include "shared/timing.h"

#include <stdlib.h>

/* Enough for any password, and small enough that a wrong path (a log file) is noticed. */
#define PASSWORD_FILE_MAX 65536

/* Longer payloads of other brokers are not taken: Redis' own standard limit for what waits for a subscriber, and more where
 * clients of this broker may send more. */
#define FOREIGN_PAYLOAD_LEAST ((size_t)32 * 1024 * 1024)

#define CHANNEL_MAX 255

/* Longer payloads, with envelope, may not fit into what Redis lets wait for a subscriber by default (32 MiB). */
#define REDIS_PAYLOAD_MAX ((uint64_t)24 * 1024 * 1024)

/* Of a request beside its payload, by limits.request: auto. */
#define REQUEST_EXTRA ((size_t)1024 * 1024)

/* Of all clients' unfinished requests, by limits.input: auto. */
#define INPUT_LEAST ((size_t)256 * 1024 * 1024)

static const char *const slow_policy_words[] = {"disconnect", "drop_oldest", NULL};
static const char *const ack_words[] = {"fast", "shard", NULL};
static const char *const tail_words[] = {"acked", "overlap", NULL};
static const char *const echo_words[] = {"auto", "on", "off", NULL};
static const char *const pickle_mode_words[] = {"transcode", "pass", "reject", NULL};
static const char *const dialect_words[] = {"auto", "pickle", "json14", "json15", NULL};
static const char *const order_words[] = {"room", "namespace", "total", NULL};
static const char *const pickle_objects_words[] = {"reject", "bytearray_only", "allow",
                                                   NULL};
static const char *const readiness_words[] = {"none", "any", "all", NULL};

static const char *check_name(const void *value)
{
    const char *name = *(char *const *)value;
    for (const char *c = name; *c != '\0'; c++)
        if (*c <= ' ' || *c == 0x7f)
            return "must not contain spaces or control characters";
    return NULL;
}

static const char *check_cluster(const void *value)
{
    const char *name = *(char *const *)value;
    for (const char *c = name; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~' || *c == ':')
            return "must be printable ASCII without spaces and colons";
    return NULL;
}

/* The envelope between brokers has one byte for its length. */
static const char *check_channel(const void *value)
{
    return strlen(*(char *const *)value) > CHANNEL_MAX ? "is longer than 255 bytes"
                                                       : NULL;
}

/* ── users of a listener ── */

#define AT(type, member) .offset = offsetof(struct type, member)

static const struct option_row user_rows[] = {
    {"name", OPTION_TEXT, AT(broker_user_config, name), .required = true, .minimum = 1,
     .maximum = 255, .reload = OPTION_NEW, .check = check_name,
     .help = "User name of AUTH and HELLO; \"default\" is who gives a password only."},
    {"password_file", OPTION_TEXT, AT(broker_user_config, password_file),
     .required = true, .reload = OPTION_NEW,
     .help = "File of accepted passwords, one a line (several for a rotation)."},
    {"publish_only", OPTION_BOOL, AT(broker_user_config, publish_only),
     .reload = OPTION_NEW, .help = "This user may not subscribe."},
    {"channels", OPTION_TEXT_LIST, AT(broker_user_config, channels), .reload = OPTION_NEW,
     .help = "Channels that this user may publish and subscribe; empty is all."},
    {"commands", OPTION_TEXT_LIST, AT(broker_user_config, commands), .reload = OPTION_NEW,
     .check = command_class_check,
     .help =
         "Classes of commands that it may run: publish, subscribe, pubsub (PUBSUB: who "
         "listens where), clients (CLIENT LIST and KILL); those about its own "
         "connection it always may. Empty is all, and with publish_only or channels "
         "publish and subscribe."},
};

static bool lists_subscribe(const struct text_list *commands)
{
    for (size_t i = 0; i < commands->count; i++)
        if (command_class_parse(commands->items[i]) == COMMAND_CLASS_BIT(CLASS_SUBSCRIBE))
            return true;
    return false;
}

static void check_user(void *object, const struct option_place *place)
{
    const struct broker_user_config *user = object;
    if (user->publish_only && lists_subscribe(&user->commands))
        option_error(place, "commands",
                     "must not hold subscribe: the user is publish_only");
}

static const struct option_table user_table =
    OPTION_TABLE(user_rows, struct broker_user_config, .check = check_user);

/* The bits of command_class.h that the user's rows give it. */
static unsigned classes_of(const struct broker_user_config *user)
{
    unsigned classes = COMMAND_CLASS_BIT(CLASS_CONNECTION);
    if (user->commands.count == 0)
        classes = command_classes_default(user->publish_only || user->channels.count > 0);
    for (size_t i = 0; i < user->commands.count; i++)
        classes |= command_class_parse(user->commands.items[i]);
    if (user->publish_only)
        classes &= ~COMMAND_CLASS_BIT(CLASS_SUBSCRIBE);
    return classes;
}

/* ── listeners ── */

/* The files are read here already, so that what is wrong with them has its place in the file. */
static void check_listener(void *object, const struct option_place *place)
{
    const struct broker_listener_config *listener = object;
    if (!listener->has_tls || listener->tls.cert == NULL || listener->tls.key == NULL ||
        listener->tls.cert[0] == '\0' || listener->tls.key[0] == '\0')
        return;
    char *error;
    struct tls_context *context = broker_tls_of_listener(listener, &error);
    if (context == NULL) {
        option_error(place, "tls", "%s", error);
        free(error);
    }
    tls_unref(context);
}

static const struct option_row listener_rows[] = {
    {"address", OPTION_ADDRESS, AT(broker_listener_config, address), .required = true,
     .reload = OPTION_LIVE, .help = "Where pods connect: host:port or unix:/path."},
    {"mode", OPTION_MODE, AT(broker_listener_config, mode), .standard = "0660",
     .reload = OPTION_LIVE, .help = "File mode of a unix socket."},
    {"dialect", OPTION_ENUM, AT(broker_listener_config, dialect), .standard = "auto",
     .words = dialect_words, .reload = OPTION_NEW,
     .help =
         "What its pods speak: pickle (python-socketio up to 5.13), json14 (5.14.0 to "
         "5.15.0), json15 (later); auto is what a client's name ends with, or what it "
         "publishes."},
    {"echo", OPTION_ENUM, AT(broker_listener_config, echo), .standard = "auto",
     .words = echo_words, .reload = OPTION_NEW,
     .help =
         "Do pods get their own messages back: python-socketio up to 5.9 needs it (on), "
         "later ones drop them (off, where each process has a client_name or a unix "
         "socket); auto spares who has shown to be later."},
    {"users", OPTION_LIST, AT(broker_listener_config, users), .elements = &user_table,
     .maximum = 1000, .reload = OPTION_NEW,
     .help = "Users that may connect; absent is anybody, without a password."},
    {"tls", OPTION_OBJECT, AT(broker_listener_config, has_tls), .reload = OPTION_NEW,
     .help = "Present: this listener speaks TLS (rediss://)."},
    {"tls.cert", OPTION_TEXT, AT(broker_listener_config, tls.cert), .required = true,
     .minimum = 1, .maximum = 4096, .reload = OPTION_NEW,
     .help = "PEM file of the certificate, with its chain, read again when it changes."},
    {"tls.key", OPTION_TEXT, AT(broker_listener_config, tls.key), .required = true,
     .minimum = 1, .maximum = 4096, .reload = OPTION_NEW,
     .help = "PEM file of its private key."},
    {"tls.client_ca", OPTION_TEXT, AT(broker_listener_config, tls.client_ca),
     .maximum = 4096, .reload = OPTION_NEW,
     .help = "PEM file of the authorities that client certificates must be from; empty: "
             "none is asked for."},
};
static const struct option_table listener_table =
    OPTION_TABLE(listener_rows, struct broker_listener_config, .plain = "address",
                 .check = check_listener);

/* ── shards ── */

static void replace_text(char **text, char *owned)
{
    free(*text);
    *text = owned;
}

/* The files are read here already, so that what is wrong with them has its place in the file. */
static void check_shard_tls(const struct broker_shard_config *shard,
                            const struct option_place *place)
{
    if (shard->has_tls && (shard->tls.cert[0] != '\0') != (shard->tls.key[0] != '\0')) {
        option_error(place, "tls", "needs both cert and key, or neither");
        return;
    }
    char *error;
    struct tls_context *context = broker_tls_of_shard(shard, &error);
    if (context == NULL) {
        option_error(place, "tls", "%s", error);
        free(error);
    }
    tls_unref(context);
}

static void check_shard(void *object, const struct option_place *place)
{
    struct broker_shard_config *shard = object;
    if (!option_is_given(place, "url"))
        return;
    struct shard_url url = {0};
    const char *why = shard_url_parse(slice_from_text(shard->url), &url);
    if (why != NULL)
        option_error(place, "url", "%s", why);
    else if (shard->name[0] == '\0')
        replace_text(&shard->name, shard_url_name(&url));
    if (why == NULL && shard->has_tls && !url.is_tls)
        option_error(place, "tls", "needs a URL that begins with rediss://");
    if (why == NULL && url.is_tls)
        check_shard_tls(shard, place);
    shard_url_cleanup(&url);
}

/* After the rows are applied: what the URL says beside the name. */
static void shard_fill(struct broker_shard_config *shard)
{
    struct shard_url url = {0};
    check(shard_url_parse(slice_from_text(shard->url), &url) == NULL);
    shard->host = url.host;
    shard->port = url.port;
    shard->unix_path = url.unix_path;
    shard->url_password = url.password;
    if (url.username != NULL && shard->username[0] == '\0')
        replace_text(&shard->username, url.username);
    else
        free(url.username);
}

static void shard_unfill(struct broker_shard_config *shard)
{
    free(shard->host);
    free(shard->port);
    free(shard->unix_path);
    free(shard->url_password);
    shard->host = shard->port = shard->unix_path = shard->url_password = NULL;
    tls_unref(shard->tls_context);
    shard->tls_context = NULL;
}

static const struct option_row shard_rows[] = {
    {"name", OPTION_TEXT, AT(broker_shard_config, name), .maximum = 255,
     .reload = OPTION_LIVE, .check = check_name,
     .help =
         "Decides which partitions it gets; the same at all brokers. Default host:port."},
    {"url", OPTION_TEXT, AT(broker_shard_config, url), .required = true, .minimum = 1,
     .maximum = 1024, .reload = OPTION_LIVE,
     .help = "redis://[user:password@]host:port, rediss:// for TLS, or unix:/path; "
             "user and password percent-encoded. Another host, port or path is used when "
             "all brokers have loaded it."},
    {"username", OPTION_TEXT, AT(broker_shard_config, username), .maximum = 255,
     .reload = OPTION_NEW, .help = "User for AUTH; empty is the default user."},
    {"password_file", OPTION_TEXT, AT(broker_shard_config, password_file),
     .reload = OPTION_NEW, .help = "First line is the password; read at each connect."},
    {"weight", OPTION_INTEGER, AT(broker_shard_config, weight), .standard = "1",
     .minimum = 1, .maximum = RENDEZVOUS_WEIGHT_MAX, .reload = OPTION_LIVE,
     .help = "Share of the partitions."},
    {"tls", OPTION_OBJECT, AT(broker_shard_config, has_tls), .reload = OPTION_NEW,
     .help = "How a shard with a rediss:// URL is trusted."},
    {"tls.ca", OPTION_TEXT, AT(broker_shard_config, tls.ca), .maximum = 4096,
     .reload = OPTION_NEW,
     .help = "PEM file of the authorities that its certificate must be from, read again "
             "when it changes; empty: the system's."},
    {"tls.cert", OPTION_TEXT, AT(broker_shard_config, tls.cert), .maximum = 4096,
     .reload = OPTION_NEW,
     .help = "PEM file of the certificate that is shown to it (Redis' tls-auth-clients), "
             "with its chain, read again when it changes; empty: none."},
    {"tls.key", OPTION_TEXT, AT(broker_shard_config, tls.key), .maximum = 4096,
     .reload = OPTION_NEW, .help = "PEM file of its private key."},
    {"tls.server_name", OPTION_TEXT, AT(broker_shard_config, tls.server_name),
     .maximum = 253, .reload = OPTION_NEW,
     .help = "Name that is sent (SNI) and that its certificate must hold; empty: the "
             "host of the URL, a name or an IP."},
};
static const struct option_table shard_table = OPTION_TABLE(
    shard_rows, struct broker_shard_config, .plain = "url", .check = check_shard);

/* ── the whole ── */

static void check_config(void *object, const struct option_place *place)
{
    struct broker_config *config = object;
    for (size_t i = 0; i < config->shards.count; i++)
        for (size_t j = 0; j < i; j++) {
            const char *name = broker_config_shard(config, i)->name;
            if (name[0] != '\0' &&
                strcmp(name, broker_config_shard(config, j)->name) == 0)
                option_error(place, "shards", "two shards have the name %s", name);
        }
    if (config->accepts_unsigned && config->key_file[0] == '\0')
        option_error(place, "cluster.accept_unsigned",
                     "needs cluster.key_file; without it nothing is signed");
}

static const struct option_row rows[] = {
    {"listeners", OPTION_LIST, AT(broker_config, listeners), .elements = &listener_table,
     .maximum = 64, .reload = OPTION_LIVE,
     .help = "Where pods connect; absent is 127.0.0.1:6379."},
    {"admin.address", OPTION_ADDRESS, AT(broker_config, admin_address),
     .standard = "127.0.0.1:9091", .reload = OPTION_RESTART,
     .help = "Health, metrics and the status page; empty is none."},
    {"admin.socket", OPTION_TEXT, AT(broker_config, admin_socket), .standard = "auto",
     .reload = OPTION_RESTART,
     .help = "Unix socket of ctl; auto is /run/sidrail/broker.sock, empty is none."},
    {"admin.hosts", OPTION_TEXT_LIST, AT(broker_config, admin_hosts), .maximum = 64,
     .check = admin_host_check, .reload = OPTION_LIVE,
     .help =
         "Names that a request to it may be meant for (Host, without a port; "
         "*.example.com; * is all), beside IP addresses and localhost: others get "
         "421, so that no web page can read it by a name of its own (DNS rebinding)."},
    {"channels", OPTION_TEXT_LIST, AT(broker_config, channels),
     .standard = "flask-socketio, socketio", .maximum = 64, .reload = OPTION_RESTART,
     .check = check_channel,
     .help = "Channels whose payloads are python-socketio messages; names of at most 255 "
             "bytes."},
    {"cluster.name", OPTION_TEXT, AT(broker_config, cluster_name), .standard = "default",
     .minimum = 1, .maximum = 64, .reload = OPTION_RESTART, .check = check_cluster,
     .help = "Brokers of one name share their shards' channels."},
    {"cluster.partitions", OPTION_INTEGER, AT(broker_config, cluster_partitions),
     .standard = "4096", .minimum = 1, .maximum = 65536, .reload = OPTION_RESTART,
     .help = "Slices of all rooms; the same at all brokers."},
    {"cluster.key_file", OPTION_TEXT, AT(broker_config, key_file), .maximum = 4096,
     .reload = OPTION_LIVE,
     .help =
         "File of keys that brokers authenticate each other's messages with, lines of "
         "an ID (one letter or digit) and 32 hex digits: the first signs, all verify; "
         "read again when it changes. Empty: whoever may PUBLISH on the shards is "
         "believed."},
    {"cluster.accept_unsigned", OPTION_BOOL, AT(broker_config, accepts_unsigned),
     .reload = OPTION_LIVE,
     .help = "With key_file: also take messages without a signature, while the file is "
             "given to one broker after another."},
    {"shards", OPTION_LIST, AT(broker_config, shards), .elements = &shard_table,
     .maximum = 1024, .reload = OPTION_LIVE,
     .help = "The Redis servers; absent is the embedded hub."},
    {"delivery.ack", OPTION_ENUM, AT(broker_config, ack), .standard = "fast",
     .words = ack_words, .reload = OPTION_LIVE,
     .help =
         "A PUBLISH is answered when it has its place in the queue (fast), or when its "
         "shard has answered (shard): then one after the other of a connection, however "
         "many it pipelines."},
    {"delivery.order", OPTION_ENUM, AT(broker_config, order), .standard = "room",
     .words = order_words, .reload = OPTION_RESTART,
     .help =
         "What is kept together on one shard, and so in one order at all pods: a room, "
         "a namespace, or everything; the same at all brokers."},
    {"delivery.flush_window", OPTION_DURATION, AT(broker_config, flush_window),
     .standard = "auto", .automatic = true, .maximum = MILLISECONDS(1000),
     .reload = OPTION_LIVE,
     .help = "A message waits this long for company if another went out less than two "
             "windows before, and not at all else; with ack: shard its answer waits too. "
             "2ms to 5ms save CPU; auto is the end of a loop turn."},
    {"delivery.local_fast", OPTION_BOOL, AT(broker_config, is_local_fast),
     .reload = OPTION_LIVE,
     .help =
         "Pods get what this broker accepts at once, not when it comes back from its "
         "shard; pods of different brokers then may see different orders of one room."},
    {"replay.window", OPTION_DURATION, AT(broker_config, replay_window),
     .standard = "70s", .maximum = SECONDS(600), .reload = OPTION_LIVE,
     .help =
         "How long messages wait for the next connection of a subscriber whose pod is "
         "known by "
         "its client_name, its process (unix socket) or its address; 0 is not at all."},
    {"replay.bytes", OPTION_SIZE, AT(broker_config, replay_bytes), .standard = "64MiB",
     .minimum = 65536, .maximum = INT64_C(1) << 40, .reload = OPTION_LIVE,
     .help = "Bytes that wait for all such subscribers together; beyond, who has waited "
             "longest is given up."},
    {"replay.tail", OPTION_ENUM, AT(broker_config, replay_tail), .standard = "acked",
     .words = tail_words, .reload = OPTION_LIVE,
     .help = "Where they begin: behind what the pod's kernel has acknowledged (what a "
             "dead pod "
             "had not read is lost), or what it had a second before (doubled instead)."},
    {"resend.window", OPTION_DURATION, AT(broker_config, resend_window),
     .standard = "20s", .minimum = SECONDS(1), .maximum = SECONDS(600),
     .reload = OPTION_LIVE,
     .help = "How long own messages are kept after their shard confirmed them, not "
             "counting time in which a broker is silent."},
    {"resend.bytes", OPTION_SIZE, AT(broker_config, resend_bytes), .standard = "16MiB",
     .minimum = 65536, .maximum = INT64_C(1) << 40, .reload = OPTION_LIVE,
     .help = "How much of them is kept."},
    {"slow_subscriber.bytes", OPTION_SIZE, AT(broker_config, slow_bytes),
     .standard = "32MiB", .minimum = 65536, .maximum = INT64_C(1) << 40,
     .reload = OPTION_LIVE, .help = "What a subscriber may leave unread."},
    {"slow_subscriber.age", OPTION_DURATION, AT(broker_config, slow_age),
     .standard = "30s", .minimum = SECONDS(1), .maximum = SECONDS(3600),
     .reload = OPTION_LIVE, .help = "How long a subscriber may leave bytes unread."},
    {"slow_subscriber.policy", OPTION_ENUM, AT(broker_config, slow_policy),
     .standard = "disconnect", .words = slow_policy_words, .reload = OPTION_LIVE,
     .help =
         "Over the bytes or the age: end the connection, or drop its oldest messages."},
    {"spill.bytes", OPTION_SIZE, AT(broker_config, spill_bytes), .standard = "64MiB",
     .maximum = INT64_C(1) << 40, .reload = OPTION_LIVE,
     .help = "What may wait for shards that are down; over it publishes are refused."},
    {"spill.age", OPTION_DURATION, AT(broker_config, spill_age), .standard = "30s",
     .minimum = SECONDS(5), .maximum = SECONDS(3600), .reload = OPTION_LIVE,
     .help = "How long a message may wait for its shard before it is given up, counted."},
    {"pickle.mode", OPTION_ENUM, AT(broker_config, pickle_mode), .standard = "transcode",
     .words = pickle_mode_words, .reload = OPTION_RESTART,
     .help = "Messages are rewritten for pods of another dialect; or (pass) go to all as "
             "they are; or pickles are refused (reject), and JSON is rewritten."},
    {"pickle.objects", OPTION_ENUM, AT(broker_config, pickle_objects),
     .standard = "bytearray_only", .words = pickle_objects_words, .reload = OPTION_LIVE,
     .help = "Pickles that make Python look up or call something."},
    {"limits.clients", OPTION_INTEGER, AT(broker_config, clients_max), .standard = "8000",
     .minimum = 1, .maximum = 1000000, .reload = OPTION_NEW,
     .help = "Client connections at a time."},
    {"limits.channels", OPTION_INTEGER, AT(broker_config, channels_max),
     .standard = "250000", .minimum = 1, .maximum = 10000000, .reload = OPTION_LIVE,
     .help =
         "Channels and patterns of one client, and rooms of one client manager (which "
         "then gets everything)."},
    {"limits.payload", OPTION_SIZE, AT(broker_config, payload_max), .standard = "16MiB",
     .minimum = 1024, .maximum = 512 * 1024 * 1024, .reload = OPTION_RESTART,
     .help =
         "Length of one payload, or of any other argument. With shards, more than 24MiB "
         "needs a higher client-output-buffer-limit pubsub at each Redis (32mb by "
         "default): Redis ends the broker's connection over a message that does not fit, "
         "and the message is lost."},
    {"limits.request", OPTION_SIZE, AT(broker_config, request_max), .standard = "auto",
     .automatic = true, .minimum = 4096, .maximum = INT64_C(1) << 30,
     .reload = OPTION_RESTART,
     .help = "A whole request: its arguments, and 32 bytes for each; auto is "
             "limits.payload and 1 MiB."},
    {"limits.input", OPTION_SIZE, AT(broker_config, input_max), .standard = "auto",
     .automatic = true, .minimum = 1024 * 1024, .maximum = INT64_C(1) << 40,
     .reload = OPTION_LIVE,
     .help =
         "Requests of all clients together that are not complete, or wait; over it the "
         "client with the longest is closed. It is at least limits.request; auto is "
         "256MiB, or four times "
         "limits.request where that is more."},
    {"limits.json_depth", OPTION_INTEGER, AT(broker_config, json_depth),
     .standard = "256", .minimum = 1, .maximum = 256, .reload = OPTION_RESTART,
     .help = "Nesting of a payload; deeper ones go to all."},
    {"heartbeat", OPTION_DURATION, AT(broker_config, heartbeat), .standard = "3s",
     .minimum = SECONDS(1), .maximum = SECONDS(3600), .or_zero = true,
     .reload = OPTION_LIVE,
     .help =
         "To idle subscribers of a channel in channels, as {} on that channel; below the "
         "5 s after which redis-py 8.0.0 gives up an idle connection. 0 is none."},
    {"readiness", OPTION_ENUM, AT(broker_config, readiness), .standard = "none",
     .words = readiness_words, .reload = OPTION_LIVE,
     .help = "Shards that must be up before /readyz says yes."},
    {"shutdown.deadline", OPTION_DURATION, AT(broker_config, shutdown_deadline),
     .standard = "10s", .maximum = SECONDS(3600), .reload = OPTION_LIVE,
     .help = "How long SIGTERM waits for messages on their way."},
    {"log.level", OPTION_ENUM, AT(broker_config, log_level), .standard = "info",
     .words = log_level_words, .reload = OPTION_LIVE, .help = "Least level written."},
    {"log.format", OPTION_ENUM, AT(broker_config, log_format), .standard = "auto",
     .words = log_format_words, .reload = OPTION_LIVE,
     .help = "auto is text on a terminal, else JSON."},
};
const struct option_table broker_config_table =
    OPTION_TABLE(rows, struct broker_config, .check = check_config);

size_t broker_config_request_max(const struct broker_config *config)
{
    if (config->request_max != OPTION_AUTO)
        return (size_t)config->request_max;
    return (size_t)config->payload_max + REQUEST_EXTRA;
}

size_t broker_config_input_max(const struct broker_config *config)
{
    if (config->input_max != OPTION_AUTO)
        return max_size((size_t)config->input_max, broker_config_request_max(config));
    return max_size(4 * broker_config_request_max(config), INPUT_LEAST);
}

size_t broker_config_foreign_payload_max(const struct broker_config *config)
{
    return max_size((size_t)config->payload_max * 2, FOREIGN_PAYLOAD_LEAST);
}

bool broker_config_strains_redis(const struct broker_config *config)
{
    return config->payload_max > REDIS_PAYLOAD_MAX &&
           broker_config_shard_count(config) > 0;
}

void broker_config_warn_of_payload(const struct broker_config *config)
{
    if (broker_config_strains_redis(config))
        log_warn(LOG_SUBJECT("main"),
                 "limits.payload is over 24 MiB: raise client-output-buffer-limit pubsub "
                 "(32mb by default) at each shard's Redis, or long messages are lost",
                 LOG_UNSIGNED("bytes", config->payload_max));
}

/* ── passwords ── */

/* The lines of a file, without empty ones. */
static bool read_lines(const char *path, struct text_list *lines, char why[FILE_WHY_SIZE])
{
    char *text;
    size_t len;
    if (!file_read(path, PASSWORD_FILE_MAX, &text, &len, NULL, why))
        return false;
    struct slice rest = slice_of(text, len);
    struct slice line;
    while (slice_cut(&rest, '\n', &line)) {
        if (line.len > 0 && line.data[line.len - 1] == '\r')
            line.len--;
        if (line.len == 0)
            continue;
        lines->items = must_realloc(lines->items, (lines->count + 1) * sizeof(char *));
        lines->items[lines->count++] = slice_dup(line);
    }
    explicit_bzero(text, len);
    free(text);
    return true;
}

static void lines_free(struct text_list *lines)
{
    for (size_t i = 0; i < lines->count; i++) {
        explicit_bzero(lines->items[i], strlen(lines->items[i]));
        free(lines->items[i]);
    }
    free(lines->items);
    *lines = (struct text_list){0};
}

static bool load_passwords(struct broker_config *config, FILE *errors)
{
    bool ok = true;
    char why[FILE_WHY_SIZE];
    for (size_t i = 0; i < config->listeners.count; i++) {
        struct broker_listener_config *listener =
            OPTION_ITEM(config->listeners, broker_listener_config, i);
        for (size_t j = 0; j < listener->users.count; j++) {
            struct broker_user_config *user =
                OPTION_ITEM(listener->users, broker_user_config, j);
            user->classes = classes_of(user);
            bool is_read = read_lines(user->password_file, &user->passwords, why);
            if (is_read && user->passwords.count > 0)
                continue;
            fprintf(errors, "listeners[%zu].users[%zu].password_file: %s: %s\n", i, j,
                    user->password_file, is_read ? "holds no password" : why);
            ok = false;
        }
    }
    for (size_t i = 0; i < config->shards.count; i++) {
        char *password;
        const struct broker_shard_config *shard = broker_config_shard(config, i);
        if (broker_config_shard_password(shard, &password, why)) {
            free(password);
            continue;
        }
        fprintf(errors, "shards[%zu].password_file: %s: %s\n", i, shard->password_file,
                why);
        ok = false;
    }
    return ok;
}

bool broker_config_shard_password(const struct broker_shard_config *shard,
                                  char **password, char why[FILE_WHY_SIZE])
{
    if (shard->password_file[0] == '\0') {
        *password = must_strdup(shard->url_password != NULL ? shard->url_password : "");
        return true;
    }
    struct text_list lines = {0};
    bool ok = read_lines(shard->password_file, &lines, why);
    if (ok)
        *password = must_strdup(lines.count > 0 ? lines.items[0] : "");
    lines_free(&lines);
    return ok;
}

/* ── TLS ── */

static bool is_loaded(const struct tls_context *context, const char *list, size_t index,
                      char *error, FILE *errors)
{
    if (context != NULL)
        return true;
    fprintf(errors, "%s[%zu].tls: %s\n", list, index, error);
    free(error);
    return false;
}

static bool load_tls(struct broker_config *config, FILE *errors)
{
    bool ok = true;
    for (size_t i = 0; i < config->listeners.count; i++) {
        struct broker_listener_config *listener =
            OPTION_ITEM(config->listeners, broker_listener_config, i);
        char *error;
        if (!listener->has_tls)
            continue;
        listener->tls_context = broker_tls_of_listener(listener, &error);
        ok &= is_loaded(listener->tls_context, "listeners", i, error, errors);
    }
    for (size_t i = 0; i < config->shards.count; i++) {
        struct broker_shard_config *shard =
            OPTION_ITEM(config->shards, broker_shard_config, i);
        char *error;
        if (!slice_starts_with(slice_from_text(shard->url), SLICE("rediss://")))
            continue;
        shard->tls_context = broker_tls_of_shard(shard, &error);
        ok &= is_loaded(shard->tls_context, "shards", i, error, errors);
    }
    return ok;
}

/* ── keys ── */

static bool load_keys(struct broker_config *config, FILE *errors)
{
    char error[4352]; /* a path and a reason */
    if (config->key_file[0] == '\0')
        return true;
    config->has_keys =
        file_keys_load(config->key_file, &config->keys,
                       &config->keys_are_readable_by_others, error, sizeof(error));
    if (!config->has_keys)
        fprintf(errors, "cluster.key_file: %s\n", error);
    return config->has_keys;
}

/* ── loading ── */

struct broker_config *broker_config_load(const char *file,
                                         const struct broker_flag *flags,
                                         size_t flag_count, FILE *errors)
{
    struct options *options = options_new(&broker_config_table);
    bool has_listener = false;
    if (file != NULL && !options_read_file(options, file)) {
        options_print_errors(options, errors);
        options_free(options);
        return NULL;
    }
    for (size_t i = 0; i < flag_count; i++) {
        options_set(options, flags[i].flag, flags[i].path, flags[i].value);
        has_listener |= strncmp(flags[i].path, "listeners", strlen("listeners")) == 0;
    }
    struct broker_config *config = must_calloc(1, sizeof(*config));
    bool ok = options_apply(options, config);
    if (ok && config->listeners.count == 0 && !has_listener) {
        options_cleanup(&broker_config_table, config);
        options_set(options, "default", "listeners[0].address", SLICE("127.0.0.1:6379"));
        ok = options_apply(options, config);
    }
    if (!ok)
        options_print_errors(options, errors);
    options_free(options);
    if (!ok) {
        free(config);
        return NULL;
    }
    config->holders = 1;
    for (size_t i = 0; i < config->shards.count; i++)
        shard_fill(OPTION_ITEM(config->shards, broker_shard_config, i));
    for (size_t i = 0; i < config->listeners.count; i++)
        OPTION_ITEM(config->listeners, broker_listener_config, i)->whole = config;
    if (!load_passwords(config, errors) || !load_tls(config, errors) ||
        !load_keys(config, errors)) {
        broker_config_release(config);
        return NULL;
    }
    return config;
}

static void config_free(struct broker_config *config)
{
    for (size_t i = 0; i < config->listeners.count; i++) {
        struct broker_listener_config *listener =
            OPTION_ITEM(config->listeners, broker_listener_config, i);
        for (size_t j = 0; j < listener->users.count; j++)
            lines_free(&OPTION_ITEM(listener->users, broker_user_config, j)->passwords);
        tls_unref(listener->tls_context);
    }
    for (size_t i = 0; i < config->shards.count; i++)
        shard_unfill(OPTION_ITEM(config->shards, broker_shard_config, i));
    options_cleanup(&broker_config_table, config);
    explicit_bzero(&config->keys, sizeof(config->keys));
    free(config);
}

struct broker_config *broker_config_hold(struct broker_config *config)
{
    config->holders++;
    return config;
}

void broker_config_release(struct broker_config *config)
{
    if (--config->holders == 0)
        config_free(config);
}

/* ── of two configurations ── */

void broker_config_keep(struct broker_config *config,
                        const struct broker_config *old_config)
{
    config->cluster_partitions = old_config->cluster_partitions;
    config->order = old_config->order;
    config->payload_max = old_config->payload_max;
    config->json_depth = old_config->json_depth;
    config->pickle_mode = old_config->pickle_mode;
    replace_text(&config->cluster_name, must_strdup(old_config->cluster_name));
    for (size_t i = 0; i < config->channels.count; i++)
        free(config->channels.items[i]);
    free(config->channels.items);
    config->channels.count = old_config->channels.count;
    config->channels.items = must_calloc(config->channels.count, sizeof(char *));
    for (size_t i = 0; i < config->channels.count; i++)
        config->channels.items[i] = must_strdup(old_config->channels.items[i]);
}

/* ── of a shard by itself ── */

static void copy_text(char **text, const char *from)
{
    replace_text(text, must_strdup(from != NULL ? from : ""));
}

struct broker_shard_config *
broker_shard_config_copy(const struct broker_shard_config *shard)
{
    struct broker_shard_config *copy = must_calloc(1, sizeof(*copy));
    copy->name = must_strdup(shard->name);
    broker_shard_config_replace(copy, shard);
    return copy;
}

void broker_shard_config_free(struct broker_shard_config *shard)
{
    shard_unfill(shard);
    free(shard->name);
    free(shard->url);
    free(shard->username);
    free(shard->password_file);
    free(shard->tls.ca);
    free(shard->tls.cert);
    free(shard->tls.key);
    free(shard->tls.server_name);
    free(shard);
}

void broker_shard_config_replace(struct broker_shard_config *shard,
                                 const struct broker_shard_config *from)
{
    shard_unfill(shard);
    copy_text(&shard->url, from->url);
    copy_text(&shard->username, from->username);
    copy_text(&shard->password_file, from->password_file);
    shard->weight = from->weight;
    shard->has_tls = from->has_tls;
    copy_text(&shard->tls.ca, from->tls.ca);
    copy_text(&shard->tls.cert, from->tls.cert);
    copy_text(&shard->tls.key, from->tls.key);
    copy_text(&shard->tls.server_name, from->tls.server_name);
    shard_fill(shard);
    if (from->tls_context != NULL)
        shard->tls_context = tls_ref(from->tls_context);
}

struct partition_map_config broker_config_map(const struct broker_config *config)
{
    struct partition_map_shard *shards =
        must_calloc(config->shards.count, sizeof(struct partition_map_shard));
    for (size_t i = 0; i < config->shards.count; i++) {
        const struct broker_shard_config *shard = broker_config_shard(config, i);
        shards[i].name = slice_from_text(shard->name);
        shards[i].weight = (unsigned)shard->weight;
        shards[i].place = shard_url_place(slice_from_text(shard->url));
    }
    struct slice *channels = must_calloc(config->channels.count, sizeof(struct slice));
    for (size_t i = 0; i < config->channels.count; i++)
        channels[i] = slice_from_text(config->channels.items[i]);
    return (struct partition_map_config){
        .partitions = (unsigned)config->cluster_partitions,
        .order = (enum delivery_order)config->order,
        .shards = shards,
        .shard_count = config->shards.count,
        .channels = channels,
        .channel_count = config->channels.count,
    };
}

void broker_config_map_cleanup(struct partition_map_config *map_config)
{
    union {
        const void *borrowed;
        void *owned;
    } shards = {map_config->shards}, channels = {map_config->channels};
    free(shards.owned);
    free(channels.owned);
    *map_config = (struct partition_map_config){0};
}
