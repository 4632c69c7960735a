/*
 * What was wrong in a configuration, each with its place, at most OPTION_ERRORS_MAX.
 */
#pragma once

#include "shared/option_tree.h"

#define OPTION_ERRORS_MAX 100

struct option_error {
    struct option_spot spot;
    size_t order; /* in which it was noted */
    char *text;   /* the whole line, place included */
};

struct option_errors {
    struct option_error *items;
    size_t count;
    size_t more; /* that found no room */
};

void option_errors_cleanup(struct option_errors *errors);

/* "NAME:LINE:COLUMN: TEXT", "NAME: TEXT" without a line, "FLAG: TEXT" for a flag. */
void option_errors_add(struct option_errors *errors, const char *name,
                       struct option_spot spot, const char *text);

/* In the order of the file, then those of flags. */
void option_errors_sort(struct option_errors *errors);
