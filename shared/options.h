/*
 * Option tables applied to a YAML tree: from one row come parsing, default, range, error text,
 * --print-options, and what a reload may change.
 *
 *      rows ──────────────┐
 *      file ─▶ YAML tree ─┼─▶ options_apply ─▶ struct of values (all defaults filled in)
 *      --flag, --flag ────┘          └─▶ ALL errors: "file:line:column: text", "--flag: text"
 *
 * A table describes one struct. A row's name is the path inside the table, "affinity.cookie.name": the
 * mappings on the way need no row of their own. Two kinds of rows hold others:
 *
 *   OPTION_OBJECT  a mapping that may be absent: its bool says whether it was given. The rows below it
 *                  ("tls", then "tls.cert") are rows of the same table; their required flag counts only when
 *                  the object is present.
 *   OPTION_LIST    a list of objects, each described by `elements`, stored as struct option_list. With
 *                  elements->plain a plain scalar stands for an object with that one option:
 *                  ["host:port", {address: "host:port", id: a}].
 *
 * To add an option: a member in the struct and a row. Example:
 *
 *      struct listener_config { char *address; bool has_tls; char *tls_cert; uint64_t timeout; };
 *      #define AT(member) .offset = offsetof(struct listener_config, member)
 *      static const struct option_row listener_rows[] = {
 *          {"address", OPTION_TEXT, AT(address), .required = true, .reload = OPTION_NEW,
 *           .help = "Where to listen."},
 *          {"tls", OPTION_OBJECT, AT(has_tls), .reload = OPTION_NEW, .help = "Present: TLS."},
 *          {"tls.cert", OPTION_TEXT, AT(tls_cert), .required = true, .reload = OPTION_LIVE, .help = "…"},
 *          {"timeout", OPTION_DURATION, AT(timeout), .standard = "10s", .minimum = MILLISECONDS(1),
 *           .maximum = SECONDS(3600), .or_zero = true, .reload = OPTION_LIVE, .help = "…; 0 is off."},
 *      };
 *      static const struct option_table listener_table = OPTION_TABLE(listener_rows, struct listener_config,
 *                                                                     .check = check_listener);
 *      {"listeners", OPTION_LIST, AT(listeners), .elements = &listener_table, .minimum = 1, .maximum = 64, …}
 *
 * What is accepted in YAML: sizes are integers or KiB/MiB/GiB; durations have ms, s, m or h ("0" alone is
 * fine); booleans are true or false; ${NAME} in any value takes an environment variable, $${ is a literal ${;
 * anchors and aliases work, merge keys do not. A file is at most 1 MiB of UTF-8 with one document.
 */
#pragma once

#include "shared/cidr.h"

#include <stdio.h>

enum option_type {
    OPTION_BOOL,     /* bool */
    OPTION_INTEGER,  /* int64_t */
    OPTION_DECIMAL,  /* double; minimum and maximum in thousandths */
    OPTION_TEXT,     /* char *, never NULL; minimum and maximum of its length */
    OPTION_SIZE,     /* uint64_t bytes */
    OPTION_DURATION, /* uint64_t microseconds */
    OPTION_ENUM,     /* int: the place in `words` */
    OPTION_ADDRESS, /* struct address, numeric or unix:/path; "" is an address with len 0 if not required */
    OPTION_MODE,      /* unsigned: file mode in octal, "0660" */
    OPTION_TEXT_LIST, /* struct text_list; minimum and maximum of its count */
    OPTION_TEXT_MAP,  /* struct text_map */
    OPTION_CIDR_LIST, /* struct cidr_list */
    OPTION_LIST,      /* struct option_list of objects */
    OPTION_OBJECT     /* bool: was it given? */
};

/* When a changed value takes effect at a reload. */
enum option_reload { OPTION_LIVE, OPTION_NEW, OPTION_RESTART };

/* "live", "new", "restart". */
const char *option_reload_text(enum option_reload reload);

struct text_list {
    char **items;
    size_t count;
};

struct text_pair {
    char *name, *value;
};

struct text_map {
    struct text_pair *items; /* in the order of the file */
    size_t count;
};

struct option_list {
    void *items; /* count structs of elements->size, one after the other */
    size_t count;
};

/* The i-th element of a struct option_list as `struct tag *`: OPTION_ITEM(list, listener_config, 0). */
#define OPTION_ITEM(list, tag, i) (&((struct tag *)(list).items)[i])

/* Values of a row with `automatic` when the file says "auto". */
#define OPTION_AUTO         UINT64_MAX /* size, duration */
#define OPTION_AUTO_INTEGER INT64_MIN

struct option_place;

struct option_row {
    const char *name; /* path inside the table */
    enum option_type type;
    size_t offset; /* of the member in the table's struct */
    /* Range of numbers in their base unit (see the types); both 0: no range. */
    int64_t minimum, maximum;
    bool or_zero; /* 0 is allowed too, below the minimum: it switches off */
    bool
        automatic; /* "auto" is allowed: OPTION_AUTO, OPTION_AUTO_INTEGER (integer, size, duration) */
    bool required;
    /* The default as text, items of lists with commas between; NULL: false, 0, "", empty, of an enum the
     * first word. */
    const char *standard;
    const char *unit;                    /* for print; NULL: bytes of sizes, none else */
    const char *const *words;            /* of an enum, NULL at the end */
    const struct option_table *elements; /* of OPTION_LIST */
    enum option_reload reload;
    const char *help; /* one sentence */
    /* One more look at the value just set (may be NULL): returns NULL or what is wrong, "must begin with /",
     * in static text. Not called for "auto". Texts of lists: called once for each item (char **). */
    const char *(*check)(const void *value);
};

struct option_table {
    const struct option_row *rows;
    size_t count;
    size_t size; /* of the struct */
    const char
        *plain; /* name of the row that a scalar in place of an object sets; NULL: none */
    /* Rules between options ("exactly one of"), after all rows of this object were set, even when some
     * were wrong; reports with option_error(). May be NULL. */
    void (*check)(void *object, const struct option_place *place);
};

#define OPTION_TABLE(table, type, ...)                                                   \
    {                                                                                    \
        .rows = (table), .count = ARRAY_LEN(table), .size = sizeof(type), ##__VA_ARGS__  \
    }

/* For table.check: was the option (path inside the table, also of a mapping on the way, or of an item inside a
 * list: "routes[2].upstream") given? */
bool option_is_given(const struct option_place *place, const char *name);

/* For table.check: an error at that option's place in the file (NULL or not given: at the object). The text
 * is preceded by the option's full path. */
void option_error(const struct option_place *place, const char *name, const char *format,
                  ...) PRINTF_LIKE(3, 4);

struct options;

/* `table` is borrowed. */
struct options *options_new(const struct option_table *table);
void options_free(struct options *options);

/* Reads a file, or text that errors call `name`. Once, before options_set(). False: errors were noted. */
bool options_read_file(struct options *options, const char *path);
bool options_read_text(struct options *options, const char *name, struct slice yaml);

/* The same for a value from the command line, "upstreams[0].discovery.static[1]": makes the mappings and
 * lists on the way; an index is one that exists or the next. Errors about it begin with `flag`. It replaces
 * what the file said. */
void options_set(struct options *options, const char *flag, const char *path,
                 struct slice value);

/* Fills *object (table->size bytes, overwritten) from defaults, file and flags. False: there were errors, and
 * *object holds nothing. Otherwise the caller gives it back with options_cleanup(). */
bool options_apply(struct options *options, void *object) MUST_CHECK;
void options_cleanup(const struct option_table *table, void *object);

/* What was wrong, in the order of the file; at most 100, then one that says how many more. */
size_t options_error_count(const struct options *options);
const char *options_error_text(const struct options *options, size_t index);
void options_print_errors(const struct options *options, FILE *out);

/* --print-options: path, type, range, default, unit, reload class, sentence; tabs between, "-" for none. */
void options_print(const struct option_table *table, FILE *out);

typedef void (*options_change_cb)(void *argument, const char *path,
                                  enum option_reload reload);

/* Calls for each option whose value differs between two structs of the table; lists of different lengths are
 * one difference with the list's class, others are compared element by element. Returns how many. */
size_t options_compare(const struct option_table *table, const void *old_object,
                       const void *new_object, options_change_cb on_change,
                       void *argument);

/* What cannot change without a restart: writes the paths of the options of class restart that differ into
 * `names`, ", " between them, cut to `names_size` (at least 1, with its NUL); returns how many differ. */
size_t options_restart_changes(const struct option_table *table, const void *old_object,
                               const void *new_object, char *names, size_t names_size);
