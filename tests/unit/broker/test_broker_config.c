/* What a file and flags become, and how mistakes are told. */
#include "tests/unit/unit.h"

#include "broker/broker_config.h"
#include "broker/broker_tls.h"
#include "shared/timing.h"

#include <stdio.h>
#include <stdlib.h>

static char told[4096];

/* Loads YAML text through a file in memory; what was told is in `told`. */
static struct broker_config *load(const char *yaml, const struct broker_flag *flags,
                                  size_t count)
{
    char path[] = "/tmp/sidrail-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(strlen(yaml), write(fd, yaml, strlen(yaml)));
    close(fd);
    memset(told, 0, sizeof(told));
    FILE *errors = fmemopen(told, sizeof(told) - 1, "w");
    struct broker_config *config = broker_config_load(path, flags, count, errors);
    fclose(errors);
    unlink(path);
    return config;
}

static void test_an_empty_file_gives_the_contracts_defaults(void **state UNUSED)
{
    struct broker_config *config = load("{}\n", NULL, 0);
    assert_non_null(config);
    assert_int_equal(1, config->listeners.count);
    char text[ADDRESS_TEXT_SIZE];
    assert_string_equal("127.0.0.1:6379",
                        address_text(&broker_config_listener(config, 0)->address, text));
    assert_string_equal("127.0.0.1:9091", address_text(&config->admin_address, text));
    assert_int_equal(0, config->shards.count);
    assert_int_equal(2, config->channels.count);
    assert_string_equal("flask-socketio", config->channels.items[0]);
    assert_int_equal(4096, config->cluster_partitions);
    assert_int_equal(16 << 20, config->payload_max);
    assert_int_equal(32 << 20, config->slow_bytes);
    assert_int_equal(64 << 20, config->spill_bytes);
    /* and half a second; below the 5 s that redis-py 8.0.0 waits for anything */
    assert_int_equal(SECONDS(3), config->heartbeat);
    assert_int_equal(PICKLE_OBJECTS_BYTEARRAY_ONLY, config->pickle_objects);
    broker_config_release(config);
}

static void test_urls_of_shards_are_taken_apart(void **state UNUSED)
{
    static const struct {
        const char *url, *name, *host, *port, *username, *password;
    } rows[] = {
        {"redis://h", "h:6379", "h", "6379", "", NULL},
        {"redis://10.0.0.1:7000/0", "10.0.0.1:7000", "10.0.0.1", "7000", "", NULL},
        {"redis://[::1]:7000", "[::1]:7000", "::1", "7000", "", NULL},
        {"redis://[::1]", "[::1]:6379", "::1", "6379", "", NULL},
        {"redis://:pw@h:1", "h:1", "h", "1", "", "pw"},
        {"redis://me:p@w:x@h:1/", "h:1", "h", "1", "me", "p@w:x"},
        {"unix:/run/r.sock", "unix:/run/r.sock", NULL, NULL, "", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct broker_flag flag = {"--shard", "shards[0].url",
                                         slice_from_text(rows[i].url)};
        struct broker_config *config = load("{}\n", &flag, 1);
        if (config == NULL)
            fail_msg("%s: %s", rows[i].url, told);
        const struct broker_shard_config *shard = broker_config_shard(config, 0);
        assert_string_equal(rows[i].name, shard->name);
        assert_string_equal(rows[i].username, shard->username);
        if (rows[i].host != NULL) {
            assert_string_equal(rows[i].host, shard->host);
            assert_string_equal(rows[i].port, shard->port);
        } else {
            assert_null(shard->host);
            assert_string_equal(rows[i].url, shard->unix_path);
        }
        char *password, why[FILE_WHY_SIZE];
        assert_true(broker_config_shard_password(shard, &password, why));
        assert_string_equal(rows[i].password != NULL ? rows[i].password : "", password);
        free(password);
        broker_config_release(config);
    }
}

static void test_a_shard_with_tls_has_a_context_that_its_copy_shares(void **state UNUSED)
{
    struct broker_config *config =
        load("shards: [{url: 'rediss://h', tls: {server_name: a.test}}, 'redis://i']\n",
             NULL, 0);
    if (config == NULL)
        fail_msg("%s", told);
    const struct broker_shard_config *shard = broker_config_shard(config, 0);
    assert_non_null(shard->tls_context);
    assert_null(broker_config_shard(config, 1)->tls_context);
    struct broker_shard_config *copy = broker_shard_config_copy(shard);
    broker_config_release(config);
    assert_non_null(copy->tls_context);
    assert_string_equal("a.test", copy->tls.server_name);
    assert_string_equal("a.test", broker_tls_name(copy));
    broker_shard_config_free(copy);
}

#define NAME_OF_64_BYTES                                                                 \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define NAME_OF_256_BYTES                                                                \
    NAME_OF_64_BYTES NAME_OF_64_BYTES NAME_OF_64_BYTES NAME_OF_64_BYTES

static void test_mistakes_are_told_with_their_place(void **state UNUSED)
{
    static const struct {
        const char *yaml, *told;
    } rows[] = {
        {"shards: [{url: 'http://x'}]\n", "shards[0].url must begin with redis://"},
        {"listeners: [{address: '127.0.0.1:1', tls: {cert: /none/x}}]\n",
         "listeners[0].tls.key"},
        {"listeners: [{address: '127.0.0.1:1', tls: {cert: /none/x, key: /none/y}}]\n",
         "listeners[0].tls cannot open certificate /none/x: No such file"},
        {"shards: [{url: 'redis://x', tls: {}}]\n",
         "shards[0].tls needs a URL that begins with rediss://"},
        {"shards: [{url: 'rediss://x', tls: {key: /none/x}}]\n",
         "shards[0].tls needs both cert and key"},
        {"shards: [{url: 'rediss://x', tls: {ca: /none/x}}]\n",
         "1:35: shards[0].tls cannot open CA /none/x: No such file"},
        {"shards: [{url: 'redis://'}]\n", "shards[0].url names no host"},
        {"shards: [{url: 'redis://h:0'}]\n", "shards[0].url has a port"},
        {"shards: [{url: 'redis://h/x'}]\n",
         "shards[0].url has something else than a database's number at character 11"},
        {"shards: [{url: 'redis://:pw%@h'}]\n",
         "shards[0].url has a % without two hexadecimal digits (write %25) at character "
         "12"},
        {"shards: [{name: a}]\n", "shards[0].url"},
        {"shards: ['redis://h:1', 'redis://h:1']\n", "two shards have the name h:1"},
        {"cluster: {name: 'a:b'}\n", "must be printable"},
        {"channels: [socketio, " NAME_OF_256_BYTES "]\n", "is longer than 255 bytes"},
        {"cluster: {partitions: 0}\n", "cluster.partitions"},
        {"delivery: {ack: never}\n", "delivery.ack"},
        {"replay: {tail: some}\n", "replay.tail"},
        {"pickle: {mode: translate}\n", "pickle.mode"},
        {"listeners: [{address: '127.0.0.1:1', dialect: json}]\n",
         "listeners[0].dialect"},
        {"delivery: {order: shard}\n", "delivery.order"},
        {"slow_subscriber: {policy: pause}\n", "slow_subscriber.policy"},
        {"listeners: [{address: '127.0.0.1:1', users: [{name: a, password_file: "
         "/none/x}]}]\n",
         "listeners[0].users[0].password_file: /none/x: No such file"},
        {"shards: [{url: 'redis://h', password_file: /none/x}]\n",
         "shards[0].password_file: /none/x: No such file"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(load(rows[i].yaml, NULL, 0));
        if (strstr(told, rows[i].told) == NULL)
            fail_msg("%s told: %s", rows[i].yaml, told);
    }
}

static void test_payloads_of_other_brokers_may_be_longer(void **state UNUSED)
{
    struct broker_config config = {.payload_max = 1024};
    assert_int_equal(32 << 20, broker_config_foreign_payload_max(&config));
    config.payload_max = 64 << 20;
    assert_int_equal(128 << 20, broker_config_foreign_payload_max(&config));
}

static void test_payloads_that_redis_may_drop_are_noticed(void **state UNUSED)
{
    static const struct {
        const char *yaml;
        bool strains;
    } rows[] = {{"limits: {payload: 24MiB}\nshards: ['redis://h']\n", false},
                {"limits: {payload: 25MiB}\nshards: ['redis://h']\n", true},
                {"limits: {payload: 25MiB}\n", false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct broker_config *config = load(rows[i].yaml, NULL, 0);
        assert_non_null(config);
        assert_int_equal(rows[i].strains, broker_config_strains_redis(config));
        broker_config_release(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_file_gives_the_contracts_defaults),
        cmocka_unit_test(test_payloads_of_other_brokers_may_be_longer),
        cmocka_unit_test(test_payloads_that_redis_may_drop_are_noticed),
        cmocka_unit_test(test_urls_of_shards_are_taken_apart),
        cmocka_unit_test(test_a_shard_with_tls_has_a_context_that_its_copy_shares),
        cmocka_unit_test(test_mistakes_are_told_with_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
