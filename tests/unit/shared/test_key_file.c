/*
 * Files of secret keys: what is read, what is refused and in which words, and who may read them.
 */
#include "tests/unit/unit.h"

#include "shared/key_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_key_files_are_read_strictly(void **state)
{
    (void)state;
#define KEY "00112233445566778899aabbccddeeff"
    static const struct {
        const char *text, *error; /* NULL: good */
        size_t count;
    } cases[] = {
        {"a " KEY "\n", NULL, 1},
        {"a " KEY, NULL, 1},
        {"# first\n\n  b\t00112233445566778899AABBCCDDEEFF  \r\na " KEY "\n", NULL, 2},
        {"", "there is no key in it", 0},
        {"# a " KEY "\n", "there is no key in it", 0},
        {"a " KEY "\n\na " KEY "\n", "line 3: this ID was used before", 0},
        {"ab " KEY "\n", "line 1: the ID must be one letter or digit", 0},
        {"- " KEY "\n", "line 1: the ID must be one letter or digit", 0},
        {KEY "\n", "line 1: the ID must be one letter or digit", 0},
        {"a\n", "line 1: the key must be 32 hexadecimal digits", 0},
        {"a " KEY "0\n", "line 1: the key must be 32 hexadecimal digits", 0},
        {"\na 0011223344556677889900aabbccdde\n",
         "line 2: the key must be 32 hexadecimal digits", 0},
        {"a g0112233445566778899aabbccddeeff\n",
         "line 1: the key must be 32 hexadecimal digits", 0},
        {"a " KEY " b\n", "line 1: the key must be 32 hexadecimal digits", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct file_keys keys;
        char error[128] = "";
        bool is_good =
            file_keys_parse(slice_from_text(cases[i].text), &keys, error, sizeof(error));
        assert_true(is_good == (cases[i].error == NULL));
        if (is_good)
            assert_int_equal(keys.count, cases[i].count);
        else
            assert_string_equal(error, cases[i].error);
    }
    char many[17 * 40] = "";
    for (int i = 0; i < 17; i++)
        sprintf(many + strlen(many), "%c " KEY "\n", 'a' + i);
    struct file_keys keys;
    char error[128];
    assert_false(file_keys_parse(slice_from_text(many), &keys, error, sizeof(error)));
    assert_string_equal(error, "line 17: more than 16 keys");
}

static void test_a_key_file_that_others_can_read_is_told(void **state)
{
    (void)state;
    char path[] = "/tmp/sidrail_keys_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "z " KEY "\n", 35), 35);
    struct file_keys keys;
    bool is_readable_by_others = true;
    char error[256];
    assert_true(
        file_keys_load(path, &keys, &is_readable_by_others, error, sizeof(error)));
    assert_false(is_readable_by_others);
    assert_int_equal(keys.keys[0].id, 'z');
    assert_int_equal(keys.keys[0].bytes[15], 0xff);
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_true(
        file_keys_load(path, &keys, &is_readable_by_others, error, sizeof(error)));
    assert_true(is_readable_by_others);
    close(fd);
    unlink(path);
    assert_false(
        file_keys_load(path, &keys, &is_readable_by_others, error, sizeof(error)));
    assert_non_null(strstr(error, path));
    assert_non_null(strstr(error, "No such file"));
    assert_false(
        file_keys_load("/tmp", &keys, &is_readable_by_others, error, sizeof(error)));
    assert_false(
        file_keys_load("/dev/zero", &keys, &is_readable_by_others, error, sizeof(error)));
}

static void test_random_keys_differ(void **state)
{
    (void)state;
    struct file_keys a, b;
    file_keys_make_random(&a);
    file_keys_make_random(&b);
    assert_int_equal(a.count, 1);
    assert_true(file_keys_equal(&a, &a));
    assert_false(file_keys_equal(&a, &b));
    assert_int_equal(file_keys_find(&a, '0'), 0);
    assert_int_equal(file_keys_find(&a, '1'), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_files_are_read_strictly),
        cmocka_unit_test(test_a_key_file_that_others_can_read_is_told),
        cmocka_unit_test(test_random_keys_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
