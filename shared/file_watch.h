/*
 * Reports when a file has got another content and its writer is done: written in place, replaced by an editor's
 * rename, or swapped behind the symbolic links of a mounted ConfigMap or Secret.
 *
 *      /etc/sidrail/endpoints.json ─▶ ..data/endpoints.json      the directory is watched (inotify), since a
 *      /etc/sidrail/..data ─▶ ..2026_11_24/  (renamed over)      replaced file takes its own watch with it
 *
 *      event in the directory ─ FILE_WATCH_SETTLE ─▶ a look: another file, time, size or content? ─┐
 *      every FILE_WATCH_LOOK  ────────────────────▶ the same look: links into other directories,   │
 *                                                   file systems without inotify                   │
 *      on_change ◀─ the file looks the same once more, after ◀───────────────────────────────────────┘
 *                     FILE_WATCH_AGAIN   when an event said that it was closed or moved into its place
 *                     FILE_WATCH_GONE    when it is missing: whoever removed it may put another there
 *                     FILE_WATCH_LOOK    when no event spoke of it
 *                     FILE_WATCH_OPEN    when it was written to and not closed since
 *
 * So half of a file is never reported while its writer goes on.
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>

struct event_base;
struct file_watch;

/* Microseconds. */
#define FILE_WATCH_SETTLE 50000u
#define FILE_WATCH_AGAIN  250000u
#define FILE_WATCH_GONE   1000000u
#define FILE_WATCH_LOOK   5000000u
#define FILE_WATCH_OPEN   60000000u

typedef void (*file_watch_cb)(void *argument);

/* Begins with the file as it is now; it need not exist. `on_change` comes from the loop and may free the
 * watch. */
struct file_watch *file_watch_new(struct event_base *base, const char *path,
                                  file_watch_cb on_change, void *argument);
void file_watch_free(struct file_watch *watch);

/* Is there a change that was not reported yet? Looks at the file now, its content aside. */
bool file_watch_is_busy(struct file_watch *watch);
