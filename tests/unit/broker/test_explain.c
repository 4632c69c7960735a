/* Proves that explain says what the contract says it says: keys, their order, null and escapes. */
#include "tests/unit/unit.h"

#include "broker/explain.h"

#include <event2/buffer.h>
#include <stdio.h>

static const struct partition_map_shard shards[] = {{SLICE_INIT("127.0.0.1:6391"), 1}};

static void assert_explained(struct slice payload, bool has_shard, const char *expected)
{
    struct partition_map_config config = {
        .partitions = 1, .shards = shards, .shard_count = has_shard ? 1 : 0};
    struct partition_map *map = partition_map_new(&config);
    struct scan_scratch *scratch = scan_scratch_new();
    struct evbuffer *out = evbuffer_new();
    struct message message;
    message_scan(payload, &message_policy_default, scratch, &message);
    explain_write(out, SLICE("socketio"), &message, map, &config);
    evbuffer_add(out, "", 1);
    assert_string_equal(expected, (char *)evbuffer_pullup(out, -1));
    evbuffer_free(out);
    scan_scratch_free(scratch);
    partition_map_free(map);
}

static void test_all_keys_are_there_in_the_order_of_the_contract(void **state)
{
    (void)state;
    assert_explained(
        SLICE("{\"method\":\"emit\",\"data\":\"x\",\"namespace\":\"/"
              "\",\"room\":[\"lobby\",42,1.5],"
              "\"callback\":[\"r\",\"/\",1],\"host_id\":\"h\"}"),
        true,
        "{\"encoding\":\"json\",\"dialect\":\"json14\",\"method\":\"emit\",\"namespace\":"
        "\"/\","
        "\"rooms\":[\"s:lobby\",\"i:42\",\"f:1.5\"],\"sid\":null,\"host_id\":\"h\","
        "\"callback\":true,\"plain\":true,\"partitions\":[0],\"shards\":[\"127.0.0.1:"
        "6391\"],"
        "\"refused\":null}\n");
}

static void test_what_is_not_known_is_null_and_everybody_is_empty(void **state)
{
    (void)state;
    assert_explained(SLICE("?"), false,
                     "{\"encoding\":\"opaque\",\"dialect\":null,\"method\":\"opaque\","
                     "\"namespace\":null,\"rooms\":null,\"sid\":null,\"host_id\":null,"
                     "\"callback\":false,\"plain\":true,\"partitions\":[0],\"shards\":[],"
                     "\"refused\":null}\n");
    assert_explained(SLICE("{\"method\":\"emit\",\"namespace\":\"/\"}"), false,
                     "{\"encoding\":\"json\",\"dialect\":\"json15\",\"method\":\"emit\","
                     "\"namespace\":\"/\",\"rooms\":[],\"sid\":null,\"host_id\":null,"
                     "\"callback\":false,\"plain\":true,\"partitions\":[0],\"shards\":[],"
                     "\"refused\":null}\n");
}

static void test_refusals_and_odd_texts_are_written_out(void **state)
{
    (void)state;
    assert_explained(
        SLICE("cos\nsystem\n."), false,
        "{\"encoding\":\"pickle\",\"dialect\":\"pickle\",\"method\":\"opaque\","
        "\"namespace\":null,\"rooms\":null,\"sid\":null,\"host_id\":null,"
        "\"callback\":false,\"plain\":false,\"partitions\":[0],\"shards\":[],"
        "\"refused\":\"pickle opcode GLOBAL at byte 0 makes Python look up or "
        "call something (pickle.objects: allow lets it pass)\"}\n");
    assert_explained(
        SLICE("{\"method\":\"close_room\",\"namespace\":\"/\\\\\\u0001\",\"room\":"
              "\"\\\"\xc3\xa9\\ud83d\\u007f\"}"),
        false,
        "{\"encoding\":\"json\",\"dialect\":\"json15\",\"method\":\"close_room\","
        "\"namespace\":\"/\\\\\\u0001\",\"rooms\":[\"s:\\\"\xc3\xa9\\ud83d\\u007f\"],"
        "\"sid\":null,\"host_id\":null,\"callback\":false,\"plain\":true,\"partitions\":["
        "0],"
        "\"shards\":[],\"refused\":null}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_keys_are_there_in_the_order_of_the_contract),
        cmocka_unit_test(test_what_is_not_known_is_null_and_everybody_is_empty),
        cmocka_unit_test(test_refusals_and_odd_texts_are_written_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
