#include "shared/watched_files.h"

#include "shared/file_watch.h"
#include "shared/timing.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct watched_file {
    struct watched_files *files; /* borrowed */
    char *path;
    bool is_kept;
    bool has_changed; /* and was not reported */
    struct file_watch *watch;
    SLIST_ENTRY(watched_file) entry;
};

struct watched_files {
    struct event_base *base; /* borrowed */
    watched_files_cb on_change;
    void *argument;
    struct event again;
    SLIST_HEAD(, watched_file) list;
};

bool watched_files_are_busy(const struct watched_files *files)
{
    struct watched_file *file;
    SLIST_FOREACH(file, &files->list, entry)
    if (file_watch_is_busy(file->watch))
        return true;
    return false;
}

static struct watched_file *next_changed(struct watched_files *files)
{
    struct watched_file *file;
    SLIST_FOREACH(file, &files->list, entry)
    if (file->has_changed)
        return file;
    return NULL;
}

static void report(struct watched_files *files)
{
    if (watched_files_are_busy(files)) {
        struct timeval wait = timing_to_timeval(FILE_WATCH_AGAIN);
        event_add(&files->again, &wait);
        return;
    }
    for (struct watched_file *file = next_changed(files), *next; file != NULL;
         file = next) {
        file->has_changed = false;
        next = next_changed(files);
        files->on_change(files->argument, file->path, next != NULL);
    }
}

static void on_again(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    report(argument);
}

static void on_file(void *argument)
{
    struct watched_file *file = argument;
    file->has_changed = true;
    report(file->files);
}

struct watched_files *watched_files_new(struct event_base *base,
                                        watched_files_cb on_change, void *argument)
{
    struct watched_files *files = must_calloc(1, sizeof(*files));
    files->base = base;
    files->on_change = on_change;
    files->argument = argument;
    SLIST_INIT(&files->list);
    event_assign(&files->again, base, -1, 0, on_again, files);
    return files;
}

void watched_files_free(struct watched_files *files)
{
    watched_files_begin(files);
    watched_files_end(files);
    event_del(&files->again);
    free(files);
}

void watched_files_begin(struct watched_files *files)
{
    struct watched_file *file;
    SLIST_FOREACH(file, &files->list, entry)
    file->is_kept = false;
}

void watched_files_add(struct watched_files *files, const char *path)
{
    struct watched_file *file;
    if (path[0] == '\0')
        return;
    SLIST_FOREACH(file, &files->list, entry)
    if (strcmp(file->path, path) == 0) {
        file->is_kept = true;
        return;
    }
    file = must_calloc(1, sizeof(*file));
    file->files = files;
    file->path = must_strdup(path);
    file->is_kept = true;
    file->watch = file_watch_new(files->base, path, on_file, file);
    SLIST_INSERT_HEAD(&files->list, file, entry);
}

void watched_files_end(struct watched_files *files)
{
    struct watched_file *file = SLIST_FIRST(&files->list);
    while (file != NULL) {
        struct watched_file *next = SLIST_NEXT(file, entry);
        if (!file->is_kept) {
            SLIST_REMOVE(&files->list, file, watched_file, entry);
            file_watch_free(file->watch);
            free(file->path);
            free(file);
        }
        file = next;
    }
}
