/*
 * Proves that files are read whole up to the most that is allowed, also those that say nothing of their length, and
 * that a short one takes little memory.
 */
#include "tests/unit/unit.h"

#include "shared/file_read.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>

static char path[] = "/tmp/sidrail-file-read-XXXXXX";

static int begin(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return 0;
}

static int end(void **state)
{
    (void)state;
    return unlink(path);
}

static void put(size_t len)
{
    char *bytes = must_calloc(1, len);
    memset(bytes, 'x', len);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(len, write(fd, bytes, len));
    close(fd);
    free(bytes);
}

static void test_files_up_to_the_most_are_read_whole(void **state)
{
    (void)state;
    enum { MOST = 8192 };
    static const size_t lens[] = {0, 1, 2, 4095, 4096, MOST - 1, MOST};
    char why[FILE_WHY_SIZE], *text;
    size_t len;
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        put(lens[i]);
        assert_true(file_read(path, MOST, &text, &len, NULL, why));
        assert_int_equal(lens[i], len);
        assert_int_equal(len, strlen(text));
        free(text);
    }
    put(MOST + 1);
    assert_false(file_read(path, MOST, &text, &len, NULL, why));
    assert_string_equal("is larger than 8 KiB", why);
}

static void test_a_file_that_says_no_length_is_read_whole(void **state)
{
    (void)state;
    char why[FILE_WHY_SIZE], *text;
    size_t len;
    assert_true(file_read("/proc/self/environ", 1 << 20, &text, &len, NULL, why));
    size_t expected = len;
    free(text);
    assert_true(expected > 16);
    assert_true(file_read("/proc/self/environ", expected, &text, &len, NULL, why));
    assert_int_equal(expected, len);
    free(text);
    assert_false(file_read("/proc/self/environ", expected - 1, &text, &len, NULL, why));
}

/* A configuration is read at each reload: blocks of the most that it may have would stay in the heap. */
static void test_a_short_file_takes_little_memory(void **state)
{
    (void)state;
    char why[FILE_WHY_SIZE], *text;
    size_t len;
    put(100);
    assert_true(file_read(path, 1 << 20, &text, &len, NULL, why));
    assert_true(malloc_usable_size(text) < 1024);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_up_to_the_most_are_read_whole),
        cmocka_unit_test(test_a_file_that_says_no_length_is_read_whole),
        cmocka_unit_test(test_a_short_file_takes_little_memory),
    };
    return cmocka_run_group_tests_name("shared.file_read", tests, begin, end);
}
