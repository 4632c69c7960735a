#include "tests/unit/unit.h"

#include "proxy/endpoint_file.h"

#include <stdio.h>

static void test_a_list_gives_what_it_says_and_what_it_leaves_out(void **state)
{
    (void)state;
    struct endpoint_file file;
    char error[256];
    assert_true(endpoint_file_parse(
        SLICE("[\"10.0.0.1:5000\", {\"address\": \"[::1]:80\", \"id\": \"web-1\", "
              "\"weight\": 2, \"state\": \"draining\"}, \"unix:/run/w.sock\"]"),
        &file, error, sizeof error));
    assert_int_equal(file.len, 3);
    assert_true(slice_equals(file.specs[0].who.identity, SLICE("10.0.0.1:5000")));
    assert_int_equal(file.specs[0].who.port, 5000);
    assert_int_equal(file.specs[0].weight, 1);
    assert_int_equal(file.specs[0].state, ENDPOINT_READY);
    assert_true(slice_equals(file.specs[1].who.identity, SLICE("web-1")));
    assert_int_equal(file.specs[1].weight, 2);
    assert_int_equal(file.specs[1].state, ENDPOINT_DRAINING);
    assert_int_equal(file.specs[2].who.port, 0);
    endpoint_file_cleanup(&file);
    assert_true(endpoint_file_parse(SLICE(" [ ]\n"), &file, error, sizeof error));
    assert_int_equal(file.len, 0);
    endpoint_file_cleanup(&file);
}

static void test_errors_name_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "1:1: "},
        {"[\n  \"10.0.0.1:1\",\n  oops]", "3:"},
        {"{}", "1:1: is not a list of endpoints"},
        {"[\n  \"10.0.0.1:1\",\n  7]", "3:3: the element is neither text nor an object"},
        {"[\"a\\\"],[:1\", \"host:1\"]", "1:2: the element does not have a valid host"},
        {"[\"host:1\"]", "1:2: the element "},
        {"[{\"addres\": \"1.1.1.1:1\"}]", "1:2: addres is not a key of an endpoint"},
        {"[{\"id\": \"x\"}]", "1:2: address is required"},
        {"[\"1.1.1.1:1\",\n {\"address\": \"1.1.1.1:2\", \"weight\": 101}]",
         "2:2: weight must be an integer of 0..100"},
        {"[{\"address\": \"1.1.1.1:2\", \"state\": \"gone\"}]",
         "1:2: state must be ready or draining"},
        {"[\"1.1.1.1:1\", \"1.1.1.1:1\"]", "1:15: has the address of another element"},
        {"[{\"address\": \"1.1.1.1:1\", \"id\": \"a\"}, {\"address\": \"1.1.1.1:2\", "
         "\"id\": \"a\"}]",
         "1:39: has the id of another element"},
        {"[{\"address\": \"1.1.1.1:1\", \"address\": \"1.1.1.1:2\"}]", "1:"},
        {"[{\"address\": \"1.1.1.1:1\", \"id\": \"a\\u0000b\"}]", "1:2: id has a NUL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct endpoint_file file;
        char error[256] = "";
        size_t len = strlen(cases[i].text);
        char *text = guarded_copy(cases[i].text, len);
        assert_false(
            endpoint_file_parse(slice_of(text, len), &file, error, sizeof error));
        if (strncmp(error, cases[i].error, strlen(cases[i].error)) != 0)
            fail_msg("%s: \"%s\", not \"%s\"", cases[i].text, error, cases[i].error);
        guarded_free(text, len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_gives_what_it_says_and_what_it_leaves_out),
        cmocka_unit_test(test_errors_name_line_and_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
