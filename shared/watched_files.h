/*
 * The files that a configuration names, followed while it names them.
 *
 *     watched_files_begin ─▶ watched_files_add, for each path ─▶ watched_files_end: the others are followed no more
 *
 *     file_watch of any of them ─▶ are the others at rest too? ─▶ on_change(path), for each that has changed
 *                                        no: look again after FILE_WATCH_AGAIN
 *
 * Several files that are changed together, as a certificate and its key, are so reported together, and none of them
 * is read while another is being written.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>

struct event_base;
struct watched_files;

/* `path` lives until the call returns; `more`: another call follows at once. The callback may not change which files
 * are watched. */
typedef void (*watched_files_cb)(void *argument, const char *path, bool more);

/* Follows nothing yet. */
struct watched_files *watched_files_new(struct event_base *base,
                                        watched_files_cb on_change, void *argument);
void watched_files_free(struct watched_files *files);

/* A new list of files. A path that was followed before is followed on, without a gap; an empty path and one that is
 * there already change nothing. */
void watched_files_begin(struct watched_files *files);
void watched_files_add(struct watched_files *files, const char *path);
void watched_files_end(struct watched_files *files);

/* Has one of them changed without being reported yet? Looks at them now. */
bool watched_files_are_busy(const struct watched_files *files);
