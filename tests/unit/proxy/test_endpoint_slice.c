#include "tests/unit/unit.h"

#include "proxy/endpoint_slice.h"

#include <stdio.h>
#include <stdlib.h>

static char *port_names[] = {(char *)(uintptr_t) "http", (char *)(uintptr_t) "9000"};
static const struct text_list ports = {.items = port_names, .count = 2};

#define SLICE_OBJECT(name, type, list, endpoints)                                        \
    "{\"kind\":\"EndpointSlice\",\"addressType\":\"" type                                \
    "\",\"metadata\":{\"name\":\"" name                                                  \
    "\",\"resourceVersion\":\"42\"},\"ports\":[" list "],\"endpoints\":[" endpoints "]}"
#define HTTP         "{\"name\":\"http\",\"port\":5000}"
#define POD(ip, uid) "{\"addresses\":[\"" ip "\"],\"targetRef\":{\"uid\":\"" uid "\"}}"
#define IN_STATE(ip, uid, conditions)                                                    \
    "{\"addresses\":[\"" ip "\"],\"targetRef\":{\"uid\":\"" uid                          \
    "\"},\"conditions\":{" conditions "}}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}"

static char version[RESOURCE_VERSION_SIZE], why[WATCH_WHY_SIZE];

static enum watch_event apply(struct slice_store *store, const char *line)
{
    size_t len = strlen(line);
    char *copy = guarded_copy(line, len);
    enum watch_event event = watch_event_apply(store, slice_of(copy, len), version, why);
    guarded_free(copy, len);
    return event;
}

/* "u-1@10.0.0.1:5000=ready …", sorted by identity as the store gives them. */
static const char *show(const struct slice_store *store, struct slice_wants wants)
{
    static char text[1024];
    struct endpoint_spec *specs;
    size_t len, at = 0;
    wants.ports = &ports;
    slice_store_list(store, &wants, &specs, &len);
    text[0] = '\0';
    for (size_t i = 0; i < len; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%.*s@%.*s=%s",
                               i > 0 ? " " : "", SLICE_ARGS(specs[i].who.identity),
                               SLICE_ARGS(specs[i].who.address_text),
                               endpoint_state_word(specs[i].state));
    free(specs);
    return text;
}

static void test_conditions_become_states_and_missing_ones_mean_ready(void **state)
{
    (void)state;
    struct slice_store *store = slice_store_new();
    assert_int_equal(
        apply(
            store,
            EVENT(
                "ADDED",
                SLICE_OBJECT(
                    "a", "IPv4", HTTP,
                    POD("10.0.0.1", "u-1") "," IN_STATE(
                        "10.0.0.2", "u-2",
                        "\"ready\":false") "," IN_STATE("10.0.0.3", "u-3",
                                                        "\"ready\":false,\"serving\":"
                                                        "true,\"terminating\":"
                                                        "true") "," IN_STATE("10.0.0.4",
                                                                             "u-4",
                                                                             "\"ready\""
                                                                             ":true,"
                                                                             "\"serving"
                                                                             "\":"
                                                                             "false,"
                                                                             "\"termina"
                                                                             "ting\":"
                                                                             "true") ","
                                                                                     "{"
                                                                                     "\""
                                                                                     "a"
                                                                                     "d"
                                                                                     "d"
                                                                                     "r"
                                                                                     "e"
                                                                                     "s"
                                                                                     "s"
                                                                                     "e"
                                                                                     "s"
                                                                                     "\""
                                                                                     ":"
                                                                                     "["
                                                                                     "\""
                                                                                     "1"
                                                                                     "0"
                                                                                     "."
                                                                                     "0"
                                                                                     "."
                                                                                     "0"
                                                                                     "."
                                                                                     "5"
                                                                                     "\""
                                                                                     "]"
                                                                                     "}"))),
        WATCH_CHANGED);
    assert_string_equal(version, "42");
    assert_string_equal(show(store, (struct slice_wants){0}),
                        "10.0.0.5:5000@10.0.0.5:5000=ready u-1@10.0.0.1:5000=ready "
                        "u-2@10.0.0.2:5000=degraded u-3@10.0.0.3:5000=draining "
                        "u-4@10.0.0.4:5000=closing");
    slice_store_free(store);
}

static void test_one_pod_in_both_families_is_one_endpoint(void **state)
{
    (void)state;
    struct slice_store *store = slice_store_new();
    assert_int_equal(apply(store, EVENT("ADDED", SLICE_OBJECT("six", "IPv6", HTTP,
                                                              POD("fd00::1", "u-1")))),
                     WATCH_CHANGED);
    assert_int_equal(apply(store, EVENT("ADDED", SLICE_OBJECT("four", "IPv4", HTTP,
                                                              POD("10.0.0.1", "u-1")))),
                     WATCH_CHANGED);
    assert_string_equal(show(store, (struct slice_wants){0}), "u-1@10.0.0.1:5000=ready");
    assert_string_equal(show(store, (struct slice_wants){.prefers_v6 = true}),
                        "u-1@[fd00::1]:5000=ready");
    assert_string_equal(show(store, (struct slice_wants){.only_v6 = true}),
                        "u-1@[fd00::1]:5000=ready");
    assert_int_equal(
        apply(store, EVENT("DELETED", SLICE_OBJECT("four", "IPv4", HTTP, ""))),
        WATCH_CHANGED);
    assert_string_equal(show(store, (struct slice_wants){0}), "u-1@[fd00::1]:5000=ready");
    assert_string_equal(show(store, (struct slice_wants){.only_v4 = true}), "");
    slice_store_free(store);
}

static void test_of_two_slices_the_livelier_word_counts(void **state)
{
    (void)state;
    struct slice_store *store = slice_store_new();
    assert_int_equal(
        apply(store, EVENT("ADDED",
                           SLICE_OBJECT("a", "IPv4", HTTP,
                                        IN_STATE("10.0.0.1", "u-1", "\"ready\":false")))),
        WATCH_CHANGED);
    assert_int_equal(apply(store, EVENT("ADDED", SLICE_OBJECT("b", "IPv4", HTTP,
                                                              POD("10.0.0.1", "u-1")))),
                     WATCH_CHANGED);
    assert_string_equal(show(store, (struct slice_wants){0}), "u-1@10.0.0.1:5000=ready");
    slice_store_free(store);
}

static void test_ports_are_found_by_name_and_by_number(void **state)
{
    (void)state;
    struct slice_store *store = slice_store_new();
    assert_int_equal(
        apply(store,
              EVENT("ADDED", SLICE_OBJECT("a", "IPv4",
                                          HTTP ",{\"name\":\"other\",\"port\":9000},"
                                               "{\"name\":\"metrics\",\"port\":9100},"
                                               "{\"name\":\"http\",\"protocol\":\"UDP\","
                                               "\"port\":5001},{\"port\":70000},{}",
                                          POD("10.0.0.1", "u-1")))),
        WATCH_CHANGED);
    assert_string_equal(show(store, (struct slice_wants){0}),
                        "u-1@10.0.0.1:5000=ready u-1@10.0.0.1:9000=ready");
    slice_store_free(store);
}

static void test_events_that_are_none_leave_the_store_alone(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum watch_event event;
        const char *why;
    } cases[] = {
        {"", WATCH_BAD, "an event is not JSON"},
        {"{\"type\":\"ADDED\"", WATCH_BAD, "an event is not JSON"},
        {"[]", WATCH_BAD, "an event without an object"},
        {"{\"type\":\"ADDED\"}", WATCH_BAD, "an event without an object"},
        {EVENT("ADDED", "{}"), WATCH_BAD, "the object of an event has no name"},
        {EVENT("ADDED", "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\"}}"), WATCH_BAD,
         "the object of an event is not an EndpointSlice"},
        {EVENT("PATCHED", "{}"), WATCH_BAD, "an event of no known type"},
        {EVENT("ERROR", "{\"code\":410,\"message\":\"too old\"}"), WATCH_EXPIRED,
         "410: too old"},
        {EVENT("ERROR", "{\"code\":500,\"message\":\"oh\"}"), WATCH_ERROR, "500: oh"},
    };
    struct slice_store *store = slice_store_new();
    assert_int_equal(apply(store, EVENT("ADDED", SLICE_OBJECT("a", "IPv4", HTTP,
                                                              POD("10.0.0.1", "u-1")))),
                     WATCH_CHANGED);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(apply(store, cases[i].line), cases[i].event);
        assert_memory_equal(why, cases[i].why, strlen(cases[i].why));
        assert_string_equal(show(store, (struct slice_wants){0}),
                            "u-1@10.0.0.1:5000=ready");
    }
    assert_int_equal(
        apply(store, EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"77\"}}")),
        WATCH_BOOKMARK);
    assert_string_equal(version, "77");
    slice_store_free(store);
}

static void test_pages_of_a_list_add_up(void **state)
{
    (void)state;
    static char more[CONTINUE_SIZE];
    struct slice_store *store = slice_store_new();
    assert_true(slice_list_apply(
        store,
        SLICE("{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":\"5\","
              "\"continue\":\"next\"},\"items\":[" SLICE_OBJECT(
                  "a", "IPv4", HTTP, POD("10.0.0.1", "u-1")) "]}"),
        version, more, why));
    assert_string_equal(more, "next");
    assert_true(slice_list_apply(
        store,
        SLICE("{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":\"5\"},"
              "\"items\":[" SLICE_OBJECT("b", "IPv4", HTTP, POD("10.0.0.2", "u-2")) "]}"),
        version, more, why));
    assert_string_equal(more, "");
    assert_string_equal(version, "5"); /* the list's, not an item's */
    assert_int_equal(slice_store_count(store), 2);
    assert_false(slice_list_apply(store, SLICE("{\"kind\":\"Status\",\"items\":[]}"),
                                  version, more, why));
    assert_false(slice_list_apply(store,
                                  SLICE("{\"kind\":\"EndpointSliceList\",\"items\":[7]}"),
                                  version, more, why));
    slice_store_free(store);
}

/* One slice of `count` endpoints, 10.0.0.0 and up. */
static enum watch_event apply_many(struct slice_store *store, size_t count)
{
    size_t size = 256 + count * 48, at;
    char *line = malloc(size);
    at = (size_t)snprintf(line, size, "%s",
                          "{\"type\":\"ADDED\",\"object\":{\"kind\":\"EndpointSlice\","
                          "\"addressType\":\"IPv4\",\"metadata\":{\"name\":\"a\","
                          "\"resourceVersion\":\"43\"},\"ports\":[" HTTP
                          "],\"endpoints\":[");
    for (size_t i = 0; i < count; i++)
        at +=
            (size_t)snprintf(line + at, size - at, "%s{\"addresses\":[\"10.0.%zu.%zu\"]}",
                             i > 0 ? "," : "", i / 256, i % 256);
    snprintf(line + at, size - at, "]}}");
    enum watch_event event = apply(store, line);
    free(line);
    return event;
}

static size_t count_endpoints(const struct slice_store *store)
{
    struct slice_wants wants = {.ports = &ports};
    struct endpoint_spec *specs;
    size_t len;
    slice_store_list(store, &wants, &specs, &len);
    free(specs);
    return len;
}

static void test_a_slice_is_taken_whole_or_not_at_all(void **state)
{
    (void)state;
    struct slice_store *store = slice_store_new();
    assert_int_equal(apply_many(store, ENDPOINT_SLICE_ENDPOINTS_MAX), WATCH_CHANGED);
    assert_int_equal(count_endpoints(store), ENDPOINT_SLICE_ENDPOINTS_MAX);
    assert_int_equal(apply_many(store, ENDPOINT_SLICE_ENDPOINTS_MAX + 1), WATCH_BAD);
    assert_non_null(strstr(why, "has more than 4096 endpoints"));
    assert_int_equal(count_endpoints(store), ENDPOINT_SLICE_ENDPOINTS_MAX);
    slice_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conditions_become_states_and_missing_ones_mean_ready),
        cmocka_unit_test(test_one_pod_in_both_families_is_one_endpoint),
        cmocka_unit_test(test_of_two_slices_the_livelier_word_counts),
        cmocka_unit_test(test_ports_are_found_by_name_and_by_number),
        cmocka_unit_test(test_events_that_are_none_leave_the_store_alone),
        cmocka_unit_test(test_pages_of_a_list_add_up),
        cmocka_unit_test(test_a_slice_is_taken_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
