/*
 * A folder of a unit test's own, for the files that it writes.
 */
#pragma once

#include "tests/unit/unit.h"

#include "shared/base.h"

#include <stdio.h>
#include <stdlib.h>

/* Made by folder_begin, removed with all that is in it by folder_end. */
static char folder[] = "/tmp/sidrail-unit-XXXXXX";

static inline void folder_begin(void)
{
    assert_non_null(mkdtemp(folder));
}

static inline int folder_end(void **state)
{
    (void)state;
    char command[sizeof(folder) + 8];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

/* FOLDER/NAME; good for the next 15 calls. */
static inline const char *path_of(const char *name)
{
    static char paths[16][256];
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}
