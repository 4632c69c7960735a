/*
 * The YAML side of options: one document, to which command-line flags are added as if the file had said so.
 * A node is an index (1 is the root, 0 is none); its place is "file:line:column" or the flag it came from.
 */
#pragma once

#include "shared/slice.h"

#include <yaml.h>

#define OPTION_FILE_MAX (1024 * 1024)

struct option_tree {
    yaml_document_t document;
    bool has_document;
    char *name;         /* of the file, for places */
    const char **flags; /* by node; NULL: from the file. Borrowed: argv or literals */
    size_t flag_count;
};

/* Where a node begins; line 0: no place inside the file (the file as a whole, or a flag). */
struct option_spot {
    const char *flag; /* NULL: the file */
    size_t line, column;
};

void option_tree_init(struct option_tree *tree);
void option_tree_cleanup(struct option_tree *tree);

/* Text that errors call `name`. False with the place and what is wrong. */
bool option_tree_read(struct option_tree *tree, const char *name, struct slice yaml,
                      struct option_spot *spot, char why[256]) MUST_CHECK;

/* Reads a file whole; the caller frees *text. False with `why` ("Is a directory"). */
bool option_tree_read_file(const char *path, char **text, size_t *len,
                           char why[256]) MUST_CHECK;

/* options_set() on the tree; false when what stands on the way is of another kind. */
bool option_tree_set(struct option_tree *tree, const char *flag, const char *path,
                     struct slice value, char why[256]) MUST_CHECK;

yaml_node_t *option_tree_node(struct option_tree *tree, int node);
struct option_spot option_tree_spot(struct option_tree *tree, int node);

/* The value of key `name` (one key, no dots) in a mapping, 0 when there is none. */
int option_tree_find(struct option_tree *tree, int mapping, struct slice name);

/* A scalar's text with ${NAME} replaced (not in flags); the caller frees *text. */
bool option_tree_scalar(struct option_tree *tree, int node, char **text, size_t *len,
                        char why[256]) MUST_CHECK;

/* "a list", "a mapping", "nothing", "a value". */
const char *option_tree_kind(struct option_tree *tree, int node);
