#include "shared/option_table.h"

#include <stdio.h>
#include <stdlib.h>

#include "shared/base.h"
#include "shared/option_value.h"

#define PATH_SIZE 512
#define KEY_MAX   64

const char *option_reload_text(enum option_reload reload)
{
    static const char *const texts[] = {"live", "new", "restart"};
    return texts[reload];
}

bool option_table_leads(const struct option_table *table, struct slice way)
{
    for (size_t i = 0; i < table->count; i++)
        if (slice_starts_with(slice_from_text(table->rows[i].name), way))
            return true;
    return false;
}

int option_table_find(const struct option_table *table, struct slice name)
{
    for (size_t i = 0; i < table->count; i++)
        if (slice_equals(slice_from_text(table->rows[i].name), name))
            return (int)i;
    return -1;
}

static size_t edit_distance(struct slice a, struct slice b)
{
    size_t row[KEY_MAX + 1];
    if (a.len > KEY_MAX || b.len > KEY_MAX)
        return KEY_MAX;
    for (size_t j = 0; j <= b.len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t above = row[j];
            size_t replaced = corner + !slice_equals_nocase(slice_of(&a.data[i - 1], 1),
                                                            slice_of(&b.data[j - 1], 1));
            row[j] = min_size(replaced, min_size(above, row[j - 1]) + 1);
            corner = above;
        }
    }
    return row[b.len];
}

/* The part of a row's name that is a key right under `prefix` ("" or "affinity."); empty if none. */
static struct slice key_under(const struct option_row *row, struct slice prefix)
{
    struct slice name = slice_from_text(row->name);
    if (!slice_starts_with(name, prefix))
        return SLICE("");
    struct slice rest = slice_from(name, prefix.len);
    return slice_to(rest, slice_find(rest, '.'));
}

struct slice option_table_nearest(const struct option_table *table, struct slice prefix,
                                  struct slice key, size_t *distance)
{
    struct slice nearest = SLICE("");
    *distance = SIZE_MAX;
    for (size_t i = 0; i < table->count; i++) {
        struct slice known = key_under(&table->rows[i], prefix);
        size_t letters = known.len > 0 ? edit_distance(key, known) : SIZE_MAX;
        if (letters < *distance) {
            *distance = letters;
            nearest = known;
        }
    }
    return nearest;
}

void options_cleanup(const struct option_table *table, void *object)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        void *member = (char *)object + row->offset;
        if (row->type == OPTION_LIST) {
            struct option_list *list = member;
            for (size_t item = 0; item < list->count; item++)
                options_cleanup(row->elements,
                                (char *)list->items + item * row->elements->size);
            free(list->items);
        }
        option_value_free(row, member);
    }
}

/* ── print and compare ── */

static void print_table(const struct option_table *table, const char *path, FILE *out)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        char range[512], standard[256];
        option_range_text(row, range, sizeof(range));
        option_default_text(row, standard, sizeof(standard));
        const char *unit = row->unit != NULL              ? row->unit
                           : row->type == OPTION_SIZE     ? "bytes, KiB, MiB, GiB"
                           : row->type == OPTION_DURATION ? "ms, s, m, h"
                                                          : "-";
        fprintf(out, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\n", path, row->name,
                option_type_text(row->type), range, standard, unit,
                option_reload_text(row->reload), row->help);
        if (row->type == OPTION_LIST) {
            char deeper[PATH_SIZE];
            snprintf(deeper, sizeof(deeper), "%s%s[].", path, row->name);
            print_table(row->elements, deeper, out);
        }
    }
}

void options_print(const struct option_table *table, FILE *out)
{
    print_table(table, "", out);
}

struct comparison {
    options_change_cb on_change;
    void *argument;
    size_t count;
};

static void compare_objects(const struct option_table *table, const void *old_object,
                            const void *new_object, const char *path,
                            struct comparison *comparison)
{
    char name[PATH_SIZE];
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        const void *one = (const char *)old_object + row->offset;
        const void *other = (const char *)new_object + row->offset;
        if (row->type == OPTION_LIST) {
            const struct option_list *a = one, *b = other;
            for (size_t item = 0; a->count == b->count && item < a->count; item++) {
                size_t offset = item * row->elements->size;
                snprintf(name, sizeof(name), "%s%s[%zu].", path, row->name, item);
                compare_objects(row->elements, (const char *)a->items + offset,
                                (const char *)b->items + offset, name, comparison);
            }
            if (a->count == b->count)
                continue;
        } else if (option_value_equals(row, one, other)) {
            continue;
        }
        comparison->count++;
        snprintf(name, sizeof(name), "%s%s", path, row->name);
        if (comparison->on_change != NULL)
            comparison->on_change(comparison->argument, name, row->reload);
    }
}

size_t options_compare(const struct option_table *table, const void *old_object,
                       const void *new_object, options_change_cb on_change,
                       void *argument)
{
    struct comparison comparison = {.on_change = on_change, .argument = argument};
    compare_objects(table, old_object, new_object, "", &comparison);
    return comparison.count;
}

struct name_list {
    char *text;
    size_t size, len, count;
};

static void on_difference(void *argument, const char *path, enum option_reload reload)
{
    struct name_list *names = argument;
    if (reload != OPTION_RESTART)
        return;
    int len = snprintf(names->text + names->len, names->size - names->len, "%s%s",
                       names->count++ > 0 ? ", " : "", path);
    /* what does not fit is cut; the count is right all the same */
    names->len = min_size(names->len + (size_t)len, names->size - 1);
}

size_t options_restart_changes(const struct option_table *table, const void *old_object,
                               const void *new_object, char *names, size_t names_size)
{
    check(names_size > 0);
    struct name_list list = {.text = names, .size = names_size};
    names[0] = '\0';
    options_compare(table, old_object, new_object, on_difference, &list);
    return list.count;
}
