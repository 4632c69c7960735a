/*
 * What an option table answers by itself: which names it has, which is nearest to a wrong one.
 * Its public side (print, compare, cleanup) is declared in shared/options.h.
 */
#pragma once

#include "shared/options.h"

/* The row of that name, -1 when there is none. */
int option_table_find(const struct option_table *table, struct slice name);

/* Does a row's name begin with `way`, which ends in a dot? */
bool option_table_leads(const struct option_table *table, struct slice way);

/* Of the keys that may stand under `prefix` ("" or "affinity."), the one nearest to `key` and how many letters
 * apart they are. */
struct slice option_table_nearest(const struct option_table *table, struct slice prefix,
                                  struct slice key, size_t *distance);
