/*
 * How a tree becomes a struct.
 *
 *      apply_object ─▶ walk_mapping ─┬─ a row's name ─────────▶ set_value ─▶ option_value (scalars, lists of text)
 *        ▲   (one table, one struct) ├─ the way to some rows ─▶ walk_mapping, deeper
 *        │                           └─ neither ──────────────▶ unknown key, nearest known
 *        └───── each element ───────── OPTION_LIST
 *
 * Everything that is wrong is noted and the walk goes on, so that one look shows all errors. Depth is bounded
 * by the tables, not by the file; work is bounded by VALUES_MAX, since aliases can make a small file large.
 */
#include "shared/options.h"

#include <stdarg.h>
#include <stdlib.h>

#include "shared/option_errors.h"
#include "shared/option_table.h"
#include "shared/option_tree.h"
#include "shared/option_value.h"

#define VALUES_MAX 200000
#define ITEMS_MAX  20000
#define PATH_SIZE  512
#define NAME_SIZE  128

struct options {
    const struct option_table *table; /* borrowed */
    struct option_tree tree;
    bool was_read; /* false: reading failed, there is nothing to apply */
    size_t values_left;
    struct option_errors errors;
};

/* One object of a table while it is filled. */
struct option_place {
    struct options *options;
    const struct option_table *table;
    int node;         /* mapping, scalar in its stead, or 0 when nothing was given */
    const char *path; /* "listeners[0].", or "" */
    void *object;
    int *given; /* by row: the node, 0 = not given */
};

struct options *options_new(const struct option_table *table)
{
    struct options *options = must_calloc(1, sizeof(*options));
    options->table = table;
    options->was_read = true;
    options->values_left = VALUES_MAX;
    option_tree_init(&options->tree);
    return options;
}

void options_free(struct options *options)
{
    if (options == NULL)
        return;
    option_errors_cleanup(&options->errors);
    option_tree_cleanup(&options->tree);
    free(options);
}

/* ── errors ── */

static void note_text(struct options *options, struct option_spot spot, const char *text)
{
    option_errors_add(&options->errors, options->tree.name, spot, text);
}

static void note(struct options *options, struct option_spot spot, const char *format,
                 ...) PRINTF_LIKE(3, 4);
static void note(struct options *options, struct option_spot spot, const char *format,
                 ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *text = NULL;
    check(vasprintf(&text, format, arguments) >= 0);
    va_end(arguments);
    note_text(options, spot, text);
    free(text);
}

size_t options_error_count(const struct options *options)
{
    return options->errors.count + options->errors.more;
}

const char *options_error_text(const struct options *options, size_t index)
{
    return index < options->errors.count ? options->errors.items[index].text
                                         : "more errors, not shown";
}

void options_print_errors(const struct options *options, FILE *out)
{
    for (size_t i = 0; i < options->errors.count; i++)
        fprintf(out, "%s\n", options->errors.items[i].text);
    if (options->errors.more > 0)
        fprintf(out, "%s: %zu more errors\n", options->tree.name, options->errors.more);
}

/* ── reading ── */

bool options_read_text(struct options *options, const char *name, struct slice yaml)
{
    struct option_spot spot;
    char why[OPTION_WHY_SIZE];
    options->was_read = option_tree_read(&options->tree, name, yaml, &spot, why);
    if (!options->was_read)
        note_text(options, spot, why);
    return options->was_read;
}

bool options_read_file(struct options *options, const char *path)
{
    char *text;
    size_t len;
    char why[OPTION_WHY_SIZE];
    if (!option_tree_read_file(path, &text, &len, why)) {
        free(options->tree.name);
        options->tree.name = must_strdup(path);
        options->was_read = false;
        note_text(options, (struct option_spot){.line = 0}, why);
        return false;
    }
    bool was_read = options_read_text(options, path, slice_of(text, len));
    free(text);
    return was_read;
}

void options_set(struct options *options, const char *flag, const char *path,
                 struct slice value)
{
    char why[OPTION_WHY_SIZE];
    struct option_spot spot = {.flag = flag};
    if (!options->was_read)
        return;
    bool is_text = memchr(value.data != NULL ? value.data : "", '\0', value.len) == NULL;
    for (size_t i = 0, len; is_text && i < value.len; i += len) {
        len = slice_utf8_len(slice_from(value, i));
        is_text = len > 0;
    }
    if (!is_text || value.len > 4096)
        note(options, spot, "%s",
             is_text ? "is longer than 4096 bytes" : "is not UTF-8 text");
    else if (!option_tree_set(&options->tree, flag, path, value, why))
        note_text(options, spot, why);
}

/* ── unknown keys ── */

static void note_unknown(struct option_place *place, struct slice prefix,
                         struct slice key, struct option_spot spot)
{
    char quoted[OPTION_QUOTE_SIZE];
    option_quote(key, quoted);
    if (slice_equals(key, SLICE("<<"))) {
        note(place->options, spot, "merge keys (<<) are not supported");
        return;
    }
    if (place->options->errors.count == OPTION_ERRORS_MAX) {
        place->options->errors.more++; /* not shown: not worth the search */
        return;
    }
    size_t distance;
    struct slice nearest = option_table_nearest(place->table, prefix, key, &distance);
    bool is_close = distance <= max_size(1, nearest.len / 3);
    note(place->options, spot, "unknown key %s (%s \"%.*s\"%s)", quoted,
         is_close ? "did you mean" : "the nearest known key is", SLICE_ARGS(nearest),
         is_close ? "?" : "");
}

/* ── values ── */

static bool apply_object(struct options *options, const struct option_table *table,
                         void *object, int node, const char *path);

static bool spend_value(struct options *options, int node)
{
    if (options->values_left == 0)
        return false;
    if (--options->values_left == 0)
        note(options, option_tree_spot(&options->tree, node), "too many values");
    return options->values_left > 0;
}

static void *member_of(const struct option_place *place, const struct option_row *row)
{
    return (char *)place->object + row->offset;
}

static void note_value(struct option_place *place, const struct option_row *row, int node,
                       const char *index, const char *why)
{
    note(place->options, option_tree_spot(&place->options->tree, node), "%s%s%s: %s",
         place->path, row->name, index, why);
}

static void note_kind(struct option_place *place, const char *name, int node,
                      const char *expected)
{
    struct option_tree *tree = &place->options->tree;
    note(place->options, option_tree_spot(tree, node), "%s%s: expected %s, found %s",
         place->path, name, expected, option_tree_kind(tree, node));
}

static const char *expected_kind(enum option_type type)
{
    if (type == OPTION_TEXT_MAP || type == OPTION_OBJECT)
        return "a mapping";
    if (type == OPTION_TEXT_LIST || type == OPTION_CIDR_LIST || type == OPTION_LIST)
        return "a list";
    return "a value";
}

/* A scalar into the member, or (`name`) into the list or map that the member is. */
static void set_scalar(struct option_place *place, const struct option_row *row, int node,
                       const struct slice *name, const char *index)
{
    struct option_tree *tree = &place->options->tree;
    char why[OPTION_WHY_SIZE];
    char *text;
    size_t len;
    if (option_tree_node(tree, node)->type != YAML_SCALAR_NODE) {
        char full[PATH_SIZE];
        snprintf(full, sizeof(full), "%s%s", row->name, index);
        note_kind(place, full, node, "a value");
        return;
    }
    if (!option_tree_scalar(tree, node, &text, &len, why)) {
        note_value(place, row, node, index, why);
        return;
    }
    void *member = member_of(place, row);
    bool is_set = name == NULL
                      ? option_value_set(row, member, slice_of(text, len), why)
                      : option_value_add(row, member, *name, slice_of(text, len), why);
    if (!is_set)
        note_value(place, row, node, index, why);
    free(text);
}

static void set_list_of_scalars(struct option_place *place, const struct option_row *row,
                                int node)
{
    struct option_tree *tree = &place->options->tree;
    char why[OPTION_WHY_SIZE], index[32];
    option_value_free(row, member_of(place, row)); /* the default */
    yaml_node_t *list = option_tree_node(tree, node);
    size_t count =
        (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
    if (count > ITEMS_MAX || !option_value_check_count(row, count, why)) {
        note_value(place, row, node, "", count > ITEMS_MAX ? "has too many items" : why);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        int item = list->data.sequence.items.start[i];
        if (!spend_value(place->options, item))
            return;
        snprintf(index, sizeof(index), "[%zu]", i);
        set_scalar(place, row, item, &SLICE(""), index);
    }
}

static void set_map(struct option_place *place, const struct option_row *row, int node)
{
    struct option_tree *tree = &place->options->tree;
    char why[OPTION_WHY_SIZE], index[PATH_SIZE], quoted[OPTION_QUOTE_SIZE];
    option_value_free(row, member_of(place, row));
    yaml_node_t *map = option_tree_node(tree, node);
    size_t count = (size_t)(map->data.mapping.pairs.top - map->data.mapping.pairs.start);
    if (count > ITEMS_MAX || !option_value_check_count(row, count, why)) {
        note_value(place, row, node, "", count > ITEMS_MAX ? "has too many items" : why);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        yaml_node_pair_t *pair = &map->data.mapping.pairs.start[i];
        yaml_node_t *key = option_tree_node(tree, pair->key);
        if (!spend_value(place->options, pair->value))
            return;
        if (key->type != YAML_SCALAR_NODE) {
            note_value(place, row, pair->key, "", "a key must be text");
            continue;
        }
        struct slice name = slice_of(key->data.scalar.value, key->data.scalar.length);
        snprintf(index, sizeof(index), ".%s", option_quote(name, quoted));
        const struct text_map *done = member_of(place, row);
        bool is_double = false;
        for (size_t before = 0; before < done->count && !is_double; before++)
            is_double = slice_equals(slice_from_text(done->items[before].name), name);
        if (is_double)
            note_value(place, row, pair->key, index, "stands here twice");
        else
            set_scalar(place, row, pair->value, &name, index);
    }
}

static void set_list_of_objects(struct option_place *place, const struct option_row *row,
                                int node)
{
    struct option_tree *tree = &place->options->tree;
    struct option_list *list = member_of(place, row);
    char why[OPTION_WHY_SIZE], path[PATH_SIZE];
    yaml_node_t *items = option_tree_node(tree, node);
    size_t count =
        (size_t)(items->data.sequence.items.top - items->data.sequence.items.start);
    if (count > ITEMS_MAX || !option_value_check_count(row, count, why)) {
        note_value(place, row, node, "", count > ITEMS_MAX ? "has too many items" : why);
        return;
    }
    if (count == 0)
        return;
    list->items = must_calloc(count, row->elements->size);
    for (size_t i = 0; i < count; i++) {
        int item = items->data.sequence.items.start[i];
        if (!spend_value(place->options, item))
            return;
        snprintf(path, sizeof(path), "%s%s[%zu].", place->path, row->name, i);
        void *element = (char *)list->items + i * row->elements->size;
        list->count = i + 1;
        if (!apply_object(place->options, row->elements, element, item, path)) {
            char name[PATH_SIZE];
            snprintf(name, sizeof(name), "%s[%zu]", row->name, i);
            note_kind(place, name, item,
                      row->elements->plain != NULL ? "a value or a mapping"
                                                   : "a mapping");
        }
    }
}

static void set_value(struct option_place *place, const struct option_row *row, int node)
{
    yaml_node_type_t type = option_tree_node(&place->options->tree, node)->type;
    yaml_node_type_t wanted = YAML_SCALAR_NODE;
    if (row->type == OPTION_TEXT_MAP || row->type == OPTION_OBJECT)
        wanted = YAML_MAPPING_NODE;
    else if (row->type == OPTION_TEXT_LIST || row->type == OPTION_CIDR_LIST ||
             row->type == OPTION_LIST)
        wanted = YAML_SEQUENCE_NODE;
    if (type != wanted) {
        note_kind(place, row->name, node, expected_kind(row->type));
        return;
    }
    if (row->type == OPTION_OBJECT)
        *(bool *)member_of(place, row) = true;
    else if (row->type == OPTION_LIST)
        set_list_of_objects(place, row, node);
    else if (row->type == OPTION_TEXT_MAP)
        set_map(place, row, node);
    else if (wanted == YAML_SEQUENCE_NODE)
        set_list_of_scalars(place, row, node);
    else
        set_scalar(place, row, node, NULL, "");
}

/* ── one object ── */

/* Was the same key in this mapping before `pair`? */
static bool is_repeated(struct option_tree *tree, yaml_node_t *mapping,
                        const yaml_node_pair_t *pair, struct slice key)
{
    for (yaml_node_pair_t *one = mapping->data.mapping.pairs.start; one < pair; one++) {
        yaml_node_t *other = option_tree_node(tree, one->key);
        if (other->type == YAML_SCALAR_NODE &&
            slice_equals(slice_of(other->data.scalar.value, other->data.scalar.length),
                         key))
            return true;
    }
    return false;
}

static void walk_mapping(struct option_place *place, int node, const char *prefix);

static void walk_pair(struct option_place *place, yaml_node_t *mapping,
                      const yaml_node_pair_t *pair, const char *prefix)
{
    struct option_tree *tree = &place->options->tree;
    yaml_node_t *key_node = option_tree_node(tree, pair->key);
    struct option_spot spot = option_tree_spot(tree, pair->key);
    if (key_node->type != YAML_SCALAR_NODE ||
        key_node->data.scalar.length > NAME_SIZE / 2) {
        note(place->options, spot, "this cannot be the name of an option");
        return;
    }
    struct slice key =
        slice_of(key_node->data.scalar.value, key_node->data.scalar.length);
    char name[NAME_SIZE * 2], way[NAME_SIZE * 2 + 1];
    snprintf(name, sizeof(name), "%s%.*s", prefix, SLICE_ARGS(key));
    snprintf(way, sizeof(way), "%s.", name);
    if (is_repeated(tree, mapping, pair, key)) {
        note(place->options, spot, "%s%s stands here twice", place->path, name);
        return;
    }
    bool is_key = key.len > 0 && slice_find(key, '.') == key.len;
    int row = is_key ? option_table_find(place->table, slice_from_text(name)) : -1;
    bool leads_on = is_key && option_table_leads(place->table, slice_from_text(way));
    if (row < 0 && !leads_on) {
        note_unknown(place, slice_from_text(prefix), key, spot);
        return;
    }
    if (row >= 0) {
        place->given[row] = pair->value;
        set_value(place, &place->table->rows[row], pair->value);
    }
    if (!leads_on)
        return;
    if (option_tree_node(tree, pair->value)->type == YAML_MAPPING_NODE)
        walk_mapping(place, pair->value, way);
    else if (row < 0)
        note_kind(place, name, pair->value, "a mapping");
}

static void walk_mapping(struct option_place *place, int node, const char *prefix)
{
    yaml_node_t *mapping = option_tree_node(&place->options->tree, node);
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        if (!spend_value(place->options, pair->value))
            return;
        walk_pair(place, mapping, pair, prefix);
    }
}

/* One step of a path: the value of "key", or of "key[2]" the third item; 0 when there is none. *nearest
 * becomes the list when only the item is missing. */
static int find_step(struct option_tree *tree, int node, struct slice step, int *nearest)
{
    size_t bracket = slice_find(step, '[');
    if (option_tree_node(tree, node)->type != YAML_MAPPING_NODE)
        return 0;
    node = option_tree_find(tree, node, slice_to(step, bracket));
    if (node == 0 || bracket == step.len)
        return node;
    *nearest = node;
    uint64_t item;
    struct slice index = slice_from(step, bracket + 1);
    yaml_node_t *list = option_tree_node(tree, node);
    if (list->type != YAML_SEQUENCE_NODE ||
        !slice_to_number(slice_to(index, slice_find(index, ']')), 0, UINT32_MAX, &item) ||
        item >=
            (uint64_t)(list->data.sequence.items.top - list->data.sequence.items.start))
        return 0;
    return list->data.sequence.items.start[item];
}

/* The node of a path inside the object, 0 when it was not given; *nearest is the last one on the way. */
static int find_node(const struct option_place *place, const char *name, int *nearest)
{
    struct option_tree *tree = &place->options->tree;
    struct slice rest = slice_from_text(name), key;
    int node = place->node;
    *nearest = node;
    if (node == 0)
        return 0;
    if (option_tree_node(tree, node)->type == YAML_SCALAR_NODE)
        return strcmp(name, place->table->plain) == 0 ? node : 0;
    while (slice_cut(&rest, '.', &key)) {
        node = find_step(tree, node, key, nearest);
        if (node == 0)
            return 0;
        *nearest = node;
    }
    return node;
}

/* Are all the optional objects around the row present? */
static bool is_wanted(const struct option_place *place, const struct option_row *row)
{
    for (size_t i = 0; i < place->table->count; i++) {
        const struct option_row *other = &place->table->rows[i];
        size_t len = strlen(other->name);
        bool is_around = other->type == OPTION_OBJECT && strlen(row->name) > len &&
                         strncmp(row->name, other->name, len) == 0 &&
                         row->name[len] == '.';
        if (is_around && !*(bool *)member_of(place, other))
            return false;
    }
    return true;
}

static void check_required(struct option_place *place)
{
    for (size_t i = 0; i < place->table->count; i++) {
        const struct option_row *row = &place->table->rows[i];
        if (row->required && place->given[i] == 0 && is_wanted(place, row))
            option_error(place, row->name, "is required");
    }
}

/* Fills one object (zero bytes before) from its node; false when the node is of the wrong kind. */
static bool apply_object(struct options *options, const struct option_table *table,
                         void *object, int node, const char *path)
{
    for (size_t i = 0; i < table->count; i++)
        option_value_set_default(&table->rows[i], (char *)object + table->rows[i].offset);
    struct option_place place = {.options = options,
                                 .table = table,
                                 .node = node,
                                 .path = path,
                                 .object = object,
                                 .given = must_calloc(table->count, sizeof(int))};
    yaml_node_t *found = node != 0 ? option_tree_node(&options->tree, node) : NULL;
    bool is_good = true;
    if (found != NULL && found->type == YAML_MAPPING_NODE) {
        walk_mapping(&place, node, "");
    } else if (found != NULL && found->type == YAML_SCALAR_NODE && table->plain != NULL) {
        int row = option_table_find(table, slice_from_text(table->plain));
        check(row >= 0);
        place.given[row] = node;
        set_value(&place, &table->rows[row], node);
    } else if (found != NULL) {
        is_good = false;
    }
    if (is_good) {
        check_required(&place);
        if (table->check != NULL)
            (table->check)(object, &place);
    }
    free(place.given);
    return is_good;
}

bool option_is_given(const struct option_place *place, const char *name)
{
    int nearest;
    return find_node(place, name, &nearest) != 0;
}

void option_error(const struct option_place *place, const char *name, const char *format,
                  ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *text = NULL;
    check(vasprintf(&text, format, arguments) >= 0);
    va_end(arguments);
    struct options *options = place->options;
    int nearest = place->node;
    if (name != NULL)
        find_node(place, name, &nearest);
    struct option_spot spot = {.line = 0};
    if (nearest != 0)
        spot = option_tree_spot(&options->tree, nearest);
    /* without a name: the object itself, "listeners[0]" */
    struct slice path = slice_from_text(place->path);
    if (name == NULL && path.len > 0)
        note(options, spot, "%.*s: %s", (int)path.len - 1, path.data, text);
    else if (name == NULL)
        note_text(options, spot, text);
    else
        note(options, spot, "%s%s %s", place->path, name, text);
    free(text);
}

/* ── the whole ── */

bool options_apply(struct options *options, void *object)
{
    memset(object, 0, options->table->size);
    if (!options->was_read)
        return false;
    int root = options->tree.has_document ? 1 : 0;
    bool is_object = apply_object(options, options->table, object, root, "");
    if (!is_object)
        note(options, option_tree_spot(&options->tree, root),
             "expected a mapping of options, found %s",
             option_tree_kind(&options->tree, root));
    if (options->errors.count == 0)
        return true;
    option_errors_sort(&options->errors);
    options_cleanup(options->table, object);
    return false;
}
