/*
 * A file that is written, replaced, or swapped behind links, in a directory of this program's own.
 */
#include "tests/unit/unit.h"

#include "shared/file_watch.h"
#include "shared/timing.h"

#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char folder[64];
static struct event_base *base;

static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(in_folder(name), "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void count(void *argument)
{
    ++*(int *)argument;
}

static void turn_for(uint64_t time)
{
    struct timeval wait = timing_to_timeval(time);
    event_base_loopexit(base, &wait);
    event_base_dispatch(base);
}

static void turn_until(const int *changes, int wanted)
{
    for (int i = 0; i < 200 && *changes < wanted; i++)
        turn_for(MILLISECONDS(20));
    assert_int_equal(*changes, wanted);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/sidrail-file-watch-XXXXXX");
    base = event_base_new();
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    event_base_free(base);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void test_a_file_written_in_place_or_renamed_over_is_told_once_each(void **state)
{
    (void)state;
    int changes = 0;
    struct file_watch *watch =
        file_watch_new(base, in_folder("list.json"), count, &changes);
    write_file("list.json", "[]");
    turn_until(&changes, 1);
    write_file("list.json", "[1]");
    turn_until(&changes, 2);
    write_file("list.json.new", "[1, 2]");
    turn_for(MILLISECONDS(120));
    assert_int_equal(changes, 2); /* another file */
    assert_int_equal(rename(in_folder("list.json.new"), in_folder("list.json")), 0);
    turn_until(&changes, 3);
    assert_int_equal(unlink(in_folder("list.json")), 0);
    turn_until(&changes, 4);
    file_watch_free(watch);
}

static void test_a_file_is_not_told_while_it_is_being_written(void **state)
{
    (void)state;
    int changes = 0;
    write_file("list.json", "[]");
    struct file_watch *watch =
        file_watch_new(base, in_folder("list.json"), count, &changes);
    FILE *file = fopen(in_folder("list.json"), "we");
    fputs("[1,", file);
    fflush(file);
    turn_for(MILLISECONDS(150));
    assert_int_equal(changes, 0);
    fputs("2]", file);
    fclose(file);
    turn_until(&changes, 1);
    file_watch_free(watch);
}

/* Another file that is closed in the directory makes the watch look: what it sees is half of a file. */
static void test_half_a_file_is_not_told_because_a_neighbour_was_written(void **state)
{
    (void)state;
    int changes = 0;
    write_file("list.json", "[]");
    struct file_watch *watch =
        file_watch_new(base, in_folder("list.json"), count, &changes);
    FILE *file = fopen(in_folder("list.json"), "we");
    for (int i = 0; i < 4; i++) {
        fputs("[1,\n", file);
        fflush(file);
        write_file("neighbour", "x");
        turn_for(MILLISECONDS(150));
    }
    assert_int_equal(changes, 0);
    assert_true(file_watch_is_busy(watch));
    fputs("2]]]]", file);
    fclose(file);
    turn_until(&changes, 1);
    assert_false(file_watch_is_busy(watch));
    file_watch_free(watch);
}

static void test_a_file_that_is_appended_to_again_and_again_is_told_once(void **state)
{
    (void)state;
    int changes = 0;
    struct file_watch *watch =
        file_watch_new(base, in_folder("list.json"), count, &changes);
    for (int i = 0; i < 8; i++) {
        FILE *file = fopen(in_folder("list.json"), "ae");
        fputs("part\n", file);
        fclose(file);
        turn_for(MILLISECONDS(100));
    }
    assert_int_equal(changes, 0);
    turn_until(&changes, 1);
    file_watch_free(watch);
}

static void test_neighbours_that_are_written_all_the_time_delay_nothing(void **state)
{
    (void)state;
    int changes = 0;
    struct file_watch *watch =
        file_watch_new(base, in_folder("list.json"), count, &changes);
    write_file("list.json", "[]");
    for (int i = 0; i < 100 && changes == 0; i++) {
        write_file("log", "x");
        turn_for(MILLISECONDS(10));
    }
    assert_int_equal(changes, 1);
    file_watch_free(watch);
}

/* Swapped in without a moment between: neither size nor time differ where a file system counts whole seconds. */
static void test_another_content_of_the_same_size_and_time_is_told(void **state)
{
    (void)state;
    int changes = 0;
    struct timespec whole[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    write_file("list.json", "[1]");
    assert_int_equal(utimensat(AT_FDCWD, in_folder("list.json"), whole, 0), 0);
    struct file_watch *watch =
        file_watch_new(base, in_folder("list.json"), count, &changes);
    write_file("list.json", "[2]");
    assert_int_equal(utimensat(AT_FDCWD, in_folder("list.json"), whole, 0), 0);
    turn_until(&changes, 1);
    file_watch_free(watch);
}

static void test_links_swapped_as_in_a_mounted_config_map_are_told(void **state)
{
    (void)state;
    int changes = 0;
    assert_int_equal(mkdir(in_folder("..1"), 0700), 0);
    assert_int_equal(mkdir(in_folder("..2"), 0700), 0);
    write_file("..1/list.json", "[]");
    write_file("..2/list.json", "[]");
    assert_int_equal(symlink("..1", in_folder("..data")), 0);
    assert_int_equal(symlink("..data/list.json", in_folder("list.json")), 0);
    struct file_watch *watch =
        file_watch_new(base, in_folder("list.json"), count, &changes);
    assert_int_equal(symlink("..2", in_folder("..data_tmp")), 0);
    assert_int_equal(rename(in_folder("..data_tmp"), in_folder("..data")), 0);
    for (int i = 0; i < 50 && changes == 0; i++)
        turn_for(MILLISECONDS(20));
    assert_int_equal(changes, 1); /* within a second */
    turn_for(MILLISECONDS(120));
    assert_int_equal(changes, 1);
    file_watch_free(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_a_file_written_in_place_or_renamed_over_is_told_once_each, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_is_not_told_while_it_is_being_written,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_half_a_file_is_not_told_because_a_neighbour_was_written, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_file_that_is_appended_to_again_and_again_is_told_once, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_neighbours_that_are_written_all_the_time_delay_nothing, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_another_content_of_the_same_size_and_time_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_links_swapped_as_in_a_mounted_config_map_are_told, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
