/*
 * A list of files that is renewed: those that stay are followed without a gap, the others no more.
 */
#include "tests/unit/unit.h"

#include "shared/timing.h"
#include "shared/watched_files.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

static char folder[] = "/tmp/sidrail-watched-files-XXXXXX";
static struct event_base *base;

/* Paths that were told, as one text. */
static char told[1024];

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

static void on_change(void *argument UNUSED, const char *path, bool more UNUSED)
{
    const char *name = strrchr(path, '/') + 1;
    if (strstr(told, name) == NULL)
        strcat(told, name);
}

static void turn_until_told(const char *name)
{
    for (int i = 0; i < 200 && strstr(told, name) == NULL; i++) {
        struct timeval wait = timing_to_timeval(MILLISECONDS(20));
        event_base_loopexit(base, &wait);
        event_base_dispatch(base);
    }
    assert_non_null(strstr(told, name));
}

static void test_only_the_files_of_the_newest_list_are_followed(void **state UNUSED)
{
    assert_non_null(mkdtemp(folder));
    base = event_base_new();
    struct watched_files *files = watched_files_new(base, on_change, NULL);
    watched_files_begin(files);
    watched_files_add(files, in_folder("one"));
    watched_files_add(files, in_folder("two"));
    watched_files_add(files, in_folder("two"));
    watched_files_add(files, "");
    watched_files_end(files);
    write_file("one", "1");
    turn_until_told("one");
    write_file("two", "2");
    turn_until_told("two");

    watched_files_begin(files);
    watched_files_add(files, in_folder("two"));
    watched_files_add(files, in_folder("six"));
    watched_files_end(files);
    told[0] = '\0';
    write_file("one", "11");
    write_file("six", "6");
    turn_until_told("six");
    write_file("two", "22");
    turn_until_told("two");
    assert_null(strstr(told, "one"));

    watched_files_free(files);
    event_base_free(base);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(0, system(command));
}

/* A certificate and its key: neither is reported while the other is half there. */
static void test_what_changes_together_is_told_together(void **state UNUSED)
{
    char own_folder[] = "/tmp/sidrail-watched-files-XXXXXX";
    assert_non_null(mkdtemp(own_folder));
    memcpy(folder, own_folder, sizeof(folder));
    base = event_base_new();
    told[0] = '\0';
    struct watched_files *files = watched_files_new(base, on_change, NULL);
    watched_files_begin(files);
    watched_files_add(files, in_folder("one"));
    watched_files_add(files, in_folder("two"));
    watched_files_end(files);
    FILE *half = fopen(in_folder("two"), "we");
    fputs("ha", half);
    fflush(half);
    write_file("one", "1");
    for (int i = 0; i < 30; i++) {
        struct timeval wait = timing_to_timeval(MILLISECONDS(20));
        event_base_loopexit(base, &wait);
        event_base_dispatch(base);
    }
    assert_string_equal("", told);
    assert_true(watched_files_are_busy(files));
    fputs("lf", half);
    fclose(half);
    turn_until_told("one");
    assert_non_null(strstr(told, "two"));
    assert_false(watched_files_are_busy(files));
    watched_files_free(files);
    event_base_free(base);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(0, system(command));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_files_of_the_newest_list_are_followed),
        cmocka_unit_test(test_what_changes_together_is_told_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
