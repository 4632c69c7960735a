#include "shared/watched_files.h"

#include "shared/file_watch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct watched_file {
    struct watched_files *files; /* borrowed */
    char *path;
    bool is_kept;
    struct file_watch *watch;
    SLIST_ENTRY(watched_file) entry;
};

struct watched_files {
    struct event_base *base; /* borrowed */
    watched_files_cb on_change;
    void *argument;
    SLIST_HEAD(, watched_file) list;
};

static void on_file(void *argument)
{
    struct watched_file *file = argument;
    file->files->on_change(file->files->argument, file->path);
}

struct watched_files *watched_files_new(struct event_base *base,
                                        watched_files_cb on_change, void *argument)
{
    struct watched_files *files = must_calloc(1, sizeof(*files));
    files->base = base;
    files->on_change = on_change;
    files->argument = argument;
    SLIST_INIT(&files->list);
    return files;
}

void watched_files_free(struct watched_files *files)
{
    watched_files_begin(files);
    watched_files_end(files);
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
