/*
 * One option's value: text in, typed member out, by the row that describes it. No YAML here.
 */
#pragma once

#include "shared/options.h"

#define OPTION_WHY_SIZE 256

/* Sets the member of a scalar type (OPTION_BOOL … OPTION_MODE) from text, frees what was there. False leaves
 * it alone; `why` continues a sentence about the option: "\"12x\" is not a size (…)". */
bool option_value_set(const struct option_row *row, void *member, struct slice text,
                      char why[OPTION_WHY_SIZE]) MUST_CHECK;

/* Adds one item to a list of text or of networks, or one pair to a map of text. */
bool option_value_add(const struct option_row *row, void *member, struct slice name,
                      struct slice text, char why[OPTION_WHY_SIZE]) MUST_CHECK;

/* Is the number of items right? */
bool option_value_check_count(const struct option_row *row, size_t count,
                              char why[OPTION_WHY_SIZE]) MUST_CHECK;

/* The member (zero bytes before) becomes the row's default. Aborts if the default breaks its own row. */
void option_value_set_default(const struct option_row *row, void *member);

/* Frees what the member owns and makes it zero. Lists of objects belong to options.c. */
void option_value_free(const struct option_row *row, void *member);

bool option_value_equals(const struct option_row *row, const void *one,
                         const void *other);

/* For print: "duration", "auto|1ms..1h", "10s". */
const char *option_type_text(enum option_type type);
void option_range_text(const struct option_row *row, char *text, size_t size);
void option_default_text(const struct option_row *row, char *text, size_t size);

/* `text` in quotes, at most 60 bytes of it, control bytes and bad UTF-8 as ?. */
#define OPTION_QUOTE_SIZE 72
const char *option_quote(struct slice text, char quoted[OPTION_QUOTE_SIZE]);
