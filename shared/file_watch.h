/*
 * Tells when a file has got another content: written in place, replaced by an editor's rename, or behind the
 * symbolic links of a mounted ConfigMap or Secret.
 *
 *      /etc/sidrail/endpoints.json ─▶ ..data/endpoints.json      the directory is watched (inotify), since a
 *      /etc/sidrail/..data ─▶ ..2026_11_24/  (renamed over)      replaced file takes its own watch with it
 *
 *      event in the directory ─▶ wait FILE_WATCH_SETTLE ─▶ is it another file or another time? ─▶ on_change
 *      every FILE_WATCH_LOOK  ───────────────────────────▶ the same look: links into other directories,
 *                                                          file systems without inotify
 *
 * Creation alone is no event: a file is complete when it is closed or moved into its place.
 */
#pragma once

#include "shared/base.h"

struct event_base;
struct file_watch;

#define FILE_WATCH_SETTLE 50000u   /* microseconds */
#define FILE_WATCH_LOOK   5000000u /* microseconds */

typedef void (*file_watch_cb)(void *argument);

/* Begins with the file as it is now; it need not exist. `on_change` comes from the loop and may free the
 * watch. */
struct file_watch *file_watch_new(struct event_base *base, const char *path,
                                  file_watch_cb on_change, void *argument);
void file_watch_free(struct file_watch *watch);
