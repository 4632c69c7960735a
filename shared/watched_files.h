/*
 * The files that a configuration names, followed while it names them.
 *
 *     watched_files_begin ─▶ watched_files_add, for each path ─▶ watched_files_end: the others are followed no more
 *
 *     file_watch of any of them ─▶ on_change(path)
 */
#pragma once

#include "shared/base.h"

struct event_base;
struct watched_files;

/* `path` lives until the call returns. The callback may not change which files are watched. */
typedef void (*watched_files_cb)(void *argument, const char *path);

/* Follows nothing yet. */
struct watched_files *watched_files_new(struct event_base *base,
                                        watched_files_cb on_change, void *argument);
void watched_files_free(struct watched_files *files);

/* A new list of files. A path that was followed before is followed on, without a gap; an empty path and one that is
 * there already change nothing. */
void watched_files_begin(struct watched_files *files);
void watched_files_add(struct watched_files *files, const char *path);
void watched_files_end(struct watched_files *files);
