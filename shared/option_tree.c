#include "shared/option_tree.h"

#include "shared/file_read.h"

#include <stdio.h>
#include <stdlib.h>

#define WHY_SIZE  256
#define VALUE_MAX 65536 /* of one scalar after ${NAME} */
#define INDEX_MAX 4096  /* of a list in a flag's path */

/* More than any configuration has, and little enough to be read in a moment. */
#define DEPTH_MAX      32
#define NODES_MAX      100000
#define KEYS_MAX       1000
#define ANCHORS_MAX    1000
#define DIRECTIVES_MAX 8

void option_tree_init(struct option_tree *tree)
{
    memset(tree, 0, sizeof(*tree));
    tree->name = must_strdup("");
}

void option_tree_cleanup(struct option_tree *tree)
{
    if (tree->has_document)
        yaml_document_delete(&tree->document);
    free(tree->name);
    free(tree->flags);
}

/* ── reading ── */

bool option_tree_read_file(const char *path, char **text, size_t *len, char why[256])
{
    return file_read(path, OPTION_FILE_MAX, text, len, NULL, why);
}

/* Line and column (from 1) of a byte; libyaml's reader errors know only the byte. */
static struct option_spot spot_of_offset(struct slice text, size_t offset)
{
    struct option_spot spot = {.line = 1, .column = 1};
    for (size_t i = 0; i < offset && i < text.len; i++) {
        spot.column++;
        if (text.data[i] == '\n') {
            spot.line++;
            spot.column = 1;
        }
    }
    return spot;
}

/* libyaml would take UTF-16 and some control bytes in its own way: one rule, and our own words. */
static bool is_clean_text(struct slice yaml, struct option_spot *spot, char why[256])
{
    for (size_t i = 0; i < yaml.len;) {
        size_t len = slice_utf8_len(slice_from(yaml, i));
        char byte = yaml.data[i];
        bool is_control =
            ((unsigned char)byte < ' ' && byte != '\n' && byte != '\r' && byte != '\t') ||
            byte == 0x7f;
        if (len == 0 || is_control) {
            *spot = spot_of_offset(yaml, i);
            bool is_wide = i == 0 && (slice_starts_with(yaml, SLICE("\xff\xfe")) ||
                                      slice_starts_with(yaml, SLICE("\xfe\xff")));
            if (is_wide)
                snprintf(why, WHY_SIZE, "the file is UTF-16: write it as UTF-8");
            else if (len == 0)
                snprintf(why, WHY_SIZE, "the file is not UTF-8: byte 0x%02x",
                         (unsigned)(unsigned char)byte);
            else
                snprintf(why, WHY_SIZE, "a control byte, 0x%02x", (unsigned)byte);
            return false;
        }
        i += len;
    }
    return true;
}

static void parser_problem(const yaml_parser_t *parser, struct slice yaml,
                           struct option_spot *spot, char why[256])
{
    if (parser->error == YAML_READER_ERROR)
        *spot = spot_of_offset(yaml, parser->problem_offset);
    else
        *spot = (struct option_spot){.line = parser->problem_mark.line + 1,
                                     .column = parser->problem_mark.column + 1};
    bool has_context = parser->context != NULL;
    snprintf(why, WHY_SIZE, "YAML: %s%s%s",
             parser->problem != NULL ? parser->problem : "cannot be read",
             has_context ? ", " : "", has_context ? parser->context : "");
}

/* ── the first pass: nothing is built from what is too much ── */

struct measure {
    size_t nodes, anchors, documents, depth;
    size_t keys[DEPTH_MAX + 1]; /* of the mappings around; doubled: keys and values */
    bool is_mapping[DEPTH_MAX + 1];
};

static const char *measure_node(struct measure *measure, const unsigned char *anchor)
{
    measure->anchors += anchor != NULL;
    if (++measure->nodes > NODES_MAX)
        return "more than " TEXT_OF(NODES_MAX) " values";
    if (measure->anchors > ANCHORS_MAX)
        return "more than " TEXT_OF(ANCHORS_MAX) " anchors";
    if (measure->is_mapping[measure->depth] &&
        ++measure->keys[measure->depth] > 2 * KEYS_MAX)
        return "more than " TEXT_OF(KEYS_MAX) " keys in one mapping";
    return NULL;
}

static const char *measure_begin(struct measure *measure, const unsigned char *anchor,
                                 bool is_mapping)
{
    const char *why = measure_node(measure, anchor);
    if (why != NULL)
        return why;
    if (measure->depth == DEPTH_MAX)
        return "more than " TEXT_OF(DEPTH_MAX) " levels of nesting";
    measure->depth++;
    measure->is_mapping[measure->depth] = is_mapping;
    measure->keys[measure->depth] = 0;
    return NULL;
}

/* What is too much about this event; NULL: nothing. */
static const char *measure_event(struct measure *measure, const yaml_event_t *event)
{
    if (event->type == YAML_DOCUMENT_START_EVENT)
        return ++measure->documents > 1 ? "a second document begins (only one is read)"
                                        : NULL;
    if (event->type == YAML_SCALAR_EVENT)
        return measure_node(measure, event->data.scalar.anchor);
    if (event->type == YAML_ALIAS_EVENT)
        return measure_node(measure, NULL);
    if (event->type == YAML_SEQUENCE_START_EVENT)
        return measure_begin(measure, event->data.sequence_start.anchor, false);
    if (event->type == YAML_MAPPING_START_EVENT)
        return measure_begin(measure, event->data.mapping_start.anchor, true);
    if (event->type == YAML_SEQUENCE_END_EVENT || event->type == YAML_MAPPING_END_EVENT)
        measure->depth--;
    return NULL;
}

static void parser_begin(yaml_parser_t *parser, struct slice yaml)
{
    check(yaml_parser_initialize(parser));
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(parser, (const unsigned char *)yaml.data, yaml.len);
}

/* libyaml takes any depth and number, some of them in quadratic time: its events are counted before it may build a
 * document. Errors of the grammar are found here too. */
static bool is_moderate(struct slice yaml, struct option_spot *spot, char why[256])
{
    yaml_parser_t parser;
    yaml_event_t event;
    struct measure measure = {0};
    const char *excess = NULL;
    bool is_read = true, is_end = false;
    parser_begin(&parser, yaml);
    while (is_read && excess == NULL && !is_end) {
        is_read = yaml_parser_parse(&parser, &event);
        if (!is_read)
            break;
        excess = measure_event(&measure, &event);
        is_end = event.type == YAML_STREAM_END_EVENT;
        if (excess != NULL)
            *spot = (struct option_spot){.line = event.start_mark.line + 1,
                                         .column = event.start_mark.column + 1};
        yaml_event_delete(&event);
    }
    if (!is_read)
        parser_problem(&parser, yaml, spot, why);
    else if (excess != NULL)
        snprintf(why, WHY_SIZE, "%s", excess);
    else if (measure.documents == 0)
        snprintf(why, WHY_SIZE, "is empty");
    yaml_parser_delete(&parser);
    return is_read && excess == NULL && measure.documents > 0;
}

/* Directives come before anything else; libyaml compares each %TAG with all others. */
static bool has_few_directives(struct slice yaml, struct option_spot *spot, char why[256])
{
    size_t count = 0, number = 0;
    struct slice line;
    while (slice_cut(&yaml, '\n', &line)) {
        number++;
        bool is_directive = line.len > 0 && line.data[0] == '%';
        count += is_directive;
        if (count > DIRECTIVES_MAX) {
            *spot = (struct option_spot){.line = number, .column = 1};
            snprintf(why, WHY_SIZE, "more than %d directives", DIRECTIVES_MAX);
            return false;
        }
        line = slice_trim(line);
        if (!is_directive && line.len > 0 && line.data[0] != '#' && line.data[0] != '\r')
            return true;
    }
    return true;
}

bool option_tree_read(struct option_tree *tree, const char *name, struct slice yaml,
                      struct option_spot *spot, char why[256])
{
    check(!tree->has_document);
    free(tree->name);
    tree->name = must_strdup(name);
    *spot = (struct option_spot){.line = 1, .column = 1};
    if (yaml.len > OPTION_FILE_MAX) {
        snprintf(why, WHY_SIZE, "is larger than 1 MiB");
        return false;
    }
    if (slice_starts_with(yaml, SLICE("\xef\xbb\xbf"))) /* a byte order mark */
        yaml = slice_from(yaml, 3);
    if (!is_clean_text(yaml, spot, why) || !has_few_directives(yaml, spot, why) ||
        !is_moderate(yaml, spot, why))
        return false;
    yaml_parser_t parser;
    parser_begin(&parser, yaml);
    tree->has_document = yaml_parser_load(&parser, &tree->document);
    if (!tree->has_document) /* an alias of nothing: events do not know */
        parser_problem(&parser, yaml, spot, why);
    yaml_parser_delete(&parser);
    return tree->has_document;
}

/* ── looking ── */

yaml_node_t *option_tree_node(struct option_tree *tree, int node)
{
    return yaml_document_get_node(&tree->document, node);
}

static const char *flag_of(struct option_tree *tree, int node)
{
    return (size_t)node < tree->flag_count ? tree->flags[node] : NULL;
}

struct option_spot option_tree_spot(struct option_tree *tree, int node)
{
    const yaml_node_t *found = option_tree_node(tree, node);
    struct option_spot spot = {.flag = flag_of(tree, node)};
    if (spot.flag == NULL) {
        spot.line = found->start_mark.line + 1;
        spot.column = found->start_mark.column + 1;
    }
    return spot;
}

int option_tree_find(struct option_tree *tree, int mapping, struct slice name)
{
    const yaml_node_t *node = option_tree_node(tree, mapping);
    if (node == NULL || node->type != YAML_MAPPING_NODE)
        return 0;
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = option_tree_node(tree, pair->key);
        if (key->type == YAML_SCALAR_NODE &&
            slice_equals(slice_of(key->data.scalar.value, key->data.scalar.length), name))
            return pair->value;
    }
    return 0;
}

const char *option_tree_kind(struct option_tree *tree, int node)
{
    const yaml_node_t *found = option_tree_node(tree, node);
    if (found->type == YAML_SEQUENCE_NODE)
        return "a list";
    if (found->type == YAML_MAPPING_NODE)
        return "a mapping";
    bool is_plain = found->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return is_plain && found->data.scalar.length == 0 ? "nothing" : "a value";
}

/* ── ${NAME} ── */

struct expansion {
    char *text;
    size_t len;
};

static bool append(struct expansion *out, struct slice piece, char why[256])
{
    if (piece.len > VALUE_MAX - out->len) {
        snprintf(why, WHY_SIZE, "is longer than 64 KiB");
        return false;
    }
    memcpy(out->text + out->len, piece.data, piece.len);
    out->len += piece.len;
    return true;
}

/* `name` is what stands between ${ and }. */
static bool append_variable(struct expansion *out, struct slice name, char why[256])
{
    bool is_name =
        name.len > 0 && name.len <= 128 && !(name.data[0] >= '0' && name.data[0] <= '9');
    for (size_t i = 0; i < name.len && is_name; i++) {
        char byte = name.data[i];
        is_name = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                  (byte >= '0' && byte <= '9') || byte == '_';
    }
    if (!is_name) {
        snprintf(why, WHY_SIZE,
                 "${…} needs the name of an environment variable "
                 "(write $${ for a plain ${)");
        return false;
    }
    char *copy = slice_dup(name);
    const char *value = getenv(copy);
    if (value == NULL)
        snprintf(why, WHY_SIZE, "the environment variable %s is not set", copy);
    free(copy);
    return value != NULL && append(out, slice_from_text(value), why);
}

static bool expand(struct slice rest, struct expansion *out, char why[256])
{
    while (rest.len > 0) {
        size_t dollar = slice_find(rest, '$');
        if (!append(out, slice_to(rest, dollar), why))
            return false;
        rest = slice_from(rest, dollar);
        if (slice_starts_with(rest, SLICE("$${"))) {
            if (!append(out, SLICE("${"), why))
                return false;
            rest = slice_from(rest, 3);
        } else if (slice_starts_with(rest, SLICE("${"))) {
            size_t end = slice_find(rest, '}');
            struct slice name = slice_from(slice_to(rest, end), 2);
            if (!append_variable(out, end < rest.len ? name : SLICE(""), why))
                return false;
            rest = slice_from(rest, end + 1);
        } else if (rest.len > 0) {
            if (!append(out, SLICE("$"), why))
                return false;
            rest = slice_from(rest, 1);
        }
    }
    return true;
}

bool option_tree_scalar(struct option_tree *tree, int node, char **text, size_t *len,
                        char why[256])
{
    const yaml_node_t *found = option_tree_node(tree, node);
    check(found->type == YAML_SCALAR_NODE);
    struct slice raw = slice_of(found->data.scalar.value, found->data.scalar.length);
    struct expansion out = {.text = must_calloc(1, VALUE_MAX + 1)};
    bool is_good =
        flag_of(tree, node) != NULL ? append(&out, raw, why) : expand(raw, &out, why);
    if (is_good && memchr(out.text, '\0', out.len) != NULL) {
        snprintf(why, WHY_SIZE, "holds a NUL byte");
        is_good = false;
    }
    if (!is_good) {
        free(out.text);
        return false;
    }
    *text = must_realloc(out.text, out.len + 1);
    (*text)[out.len] = '\0';
    *len = out.len;
    return true;
}

/* ── flags ── */

static int add_node(struct option_tree *tree, const char *flag, int node)
{
    check(node > 0);
    if ((size_t)node >= tree->flag_count) {
        size_t count = (size_t)node + 64;
        tree->flags = must_realloc(tree->flags, count * sizeof(*tree->flags));
        memset(tree->flags + tree->flag_count, 0,
               (count - tree->flag_count) * sizeof(*tree->flags));
        tree->flag_count = count;
    }
    tree->flags[node] = flag;
    return node;
}

static int add_mapping(struct option_tree *tree, const char *flag)
{
    return add_node(
        tree, flag,
        yaml_document_add_mapping(&tree->document, NULL, YAML_ANY_MAPPING_STYLE));
}

static int add_scalar(struct option_tree *tree, const char *flag, struct slice text)
{
    return add_node(
        tree, flag,
        yaml_document_add_scalar(&tree->document, NULL, (const unsigned char *)text.data,
                                 (int)text.len, YAML_DOUBLE_QUOTED_SCALAR_STYLE));
}

/* What comes next in a path decides what is made: "[" a list, "." a mapping, the end the value. */
static int make_for(struct option_tree *tree, const char *flag, struct slice rest,
                    struct slice value)
{
    if (rest.len == 0)
        return add_scalar(tree, flag, value);
    if (rest.data[0] == '[')
        return add_node(
            tree, flag,
            yaml_document_add_sequence(&tree->document, NULL, YAML_ANY_SEQUENCE_STYLE));
    return add_mapping(tree, flag);
}

/* One step by key; the node there, made or replaced if need be; 0 when `mapping` is something else. */
static int step_key(struct option_tree *tree, int mapping, struct slice key,
                    const char *flag, struct slice rest, struct slice value)
{
    if (option_tree_node(tree, mapping)->type != YAML_MAPPING_NODE)
        return 0;
    int found = option_tree_find(tree, mapping, key);
    if (found != 0 && rest.len > 0)
        return found;
    int made = make_for(tree, flag, rest, value);
    if (found == 0) {
        int name = add_scalar(tree, flag, key);
        check(yaml_document_append_mapping_pair(&tree->document, mapping, name, made));
        return made;
    }
    yaml_node_t *node = option_tree_node(tree, mapping);
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++)
        if (pair->value == found)
            pair->value = made;
    return made;
}

static int step_index(struct option_tree *tree, int sequence, size_t index,
                      const char *flag, struct slice rest, struct slice value)
{
    yaml_node_t *node = option_tree_node(tree, sequence);
    if (node->type != YAML_SEQUENCE_NODE)
        return 0;
    size_t count =
        (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    check(index <= count);
    if (index < count && rest.len > 0)
        return node->data.sequence.items.start[index];
    int made = make_for(tree, flag, rest, value);
    node = option_tree_node(tree, sequence); /* adding may have moved all nodes */
    if (index < count)
        node->data.sequence.items.start[index] = made;
    else
        check(yaml_document_append_sequence_item(&tree->document, sequence, made));
    return made;
}

bool option_tree_set(struct option_tree *tree, const char *flag, const char *path,
                     struct slice value, char why[256])
{
    if (!tree->has_document) {
        check(yaml_document_initialize(&tree->document, NULL, NULL, NULL, 1, 1));
        tree->has_document = true;
        add_mapping(tree, flag);
    }
    check(value.len <= VALUE_MAX);
    struct slice rest = slice_from_text(path);
    int node = 1;
    while (rest.len > 0 && node != 0) {
        if (rest.data[0] == '[') {
            uint64_t index;
            size_t end = slice_find(rest, ']');
            check(slice_to_number(slice_from(slice_to(rest, end), 1), 0, INDEX_MAX,
                                  &index));
            rest = slice_from(rest, end + 1);
            node = step_index(tree, node, index, flag, rest, value);
            continue;
        }
        if (rest.data[0] == '.')
            rest = slice_from(rest, 1);
        size_t end = min_size(slice_find(rest, '.'), slice_find(rest, '['));
        struct slice key = slice_to(rest, end);
        rest = slice_from(rest, end);
        node = step_key(tree, node, key, flag, rest, value);
    }
    if (node == 0)
        snprintf(why, WHY_SIZE, "cannot set %s: the file has something else there", path);
    return node != 0;
}
