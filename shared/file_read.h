/*
 * Files that a configuration names, read whole: never waiting for one that is no file (a FIFO without a writer, a
 * terminal), never more than the caller expects.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>

#define FILE_WHY_SIZE 128

/* A descriptor for reading, with FD_CLOEXEC; only of regular files. -1 with `why`, which continues "PATH: ": "No such
 * file or directory", "Is a directory", "is not a regular file". `mode` (may be NULL) gets st_mode. */
int file_open(const char *path, unsigned *mode, char why[FILE_WHY_SIZE]) MUST_CHECK;

/* The content, with a NUL behind; the caller frees *text. False with `why`, as above or "is larger than 64 KiB". */
bool file_read(const char *path, size_t max, char **text, size_t *len, unsigned *mode,
               char why[FILE_WHY_SIZE]) MUST_CHECK;
