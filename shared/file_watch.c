#include "shared/file_watch.h"

#include "shared/timing.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENTS_SIZE 4096

/* What tells one content from another. */
struct look {
    bool exists;
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

struct file_watch {
    char *path;
    char *folder;
    const char *name; /* into path */
    file_watch_cb on_change;
    void *argument;
    struct look seen;
    bool was_named; /* an event named the file itself */
    int fd;         /* of inotify; -1: none to be had */
    int watch;      /* -1: the directory is not watched now */
    struct event readable, settled, look;
};

static struct look look_at(const char *path)
{
    struct stat found;
    struct look look = {0};
    if (stat(path, &found) != 0)
        return look;
    look.exists = true;
    look.device = found.st_dev;
    look.inode = found.st_ino;
    look.size = found.st_size;
    look.modified = found.st_mtim;
    look.changed = found.st_ctim;
    return look;
}

static bool is_same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool is_same_content(const struct look *a, const struct look *b)
{
    return a->exists == b->exists && a->device == b->device && a->inode == b->inode &&
           a->size == b->size && is_same_time(a->modified, b->modified) &&
           is_same_time(a->changed, b->changed);
}

static void watch_folder(struct file_watch *watch)
{
    if (watch->fd >= 0 && watch->watch < 0)
        watch->watch = inotify_add_watch(watch->fd, watch->folder,
                                         IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM |
                                             IN_DELETE | IN_ONLYDIR);
}

static void on_settled(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct file_watch *watch = argument;
    struct look look = look_at(watch->path);
    bool has_changed = watch->was_named || !is_same_content(&look, &watch->seen);
    watch->seen = look;
    watch->was_named = false;
    if (has_changed)
        watch->on_change(watch->argument);
}

static void on_look(evutil_socket_t fd, short what, void *argument)
{
    struct file_watch *watch = argument;
    watch_folder(watch);
    on_settled(fd, what, argument);
}

static void note_event(struct file_watch *watch, const struct inotify_event *event)
{
    if ((event->mask & IN_IGNORED) != 0) { /* the directory itself went */
        watch->watch = -1;
        return;
    }
    if (event->len > 0 && strcmp(event->name, watch->name) == 0 &&
        (event->mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0)
        watch->was_named = true;
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    (void)what;
    struct file_watch *watch = argument;
    union {
        char bytes[EVENTS_SIZE];
        struct inotify_event aligned;
    } events;
    ssize_t len;
    while ((len = read(fd, events.bytes, sizeof events.bytes)) > 0) {
        size_t at = 0;
        while (at < (size_t)len) {
            const struct inotify_event *event = (const void *)(events.bytes + at);
            note_event(watch, event);
            at += sizeof *event + event->len;
        }
    }
    struct timeval wait = timing_to_timeval(FILE_WATCH_SETTLE);
    event_add(&watch->settled, &wait);
}

struct file_watch *file_watch_new(struct event_base *base, const char *path,
                                  file_watch_cb on_change, void *argument)
{
    struct file_watch *watch = must_calloc(1, sizeof *watch);
    struct timeval every = timing_to_timeval(FILE_WATCH_LOOK);
    watch->path = must_strdup(path);
    const char *slash = strrchr(watch->path, '/');
    watch->name = slash != NULL ? slash + 1 : watch->path;
    watch->folder = slash == NULL ? must_strdup(".")
                    : slash == watch->path
                        ? must_strdup("/")
                        : must_memdup(path, (size_t)(slash - watch->path));
    watch->on_change = on_change;
    watch->argument = argument;
    watch->watch = -1;
    watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    watch_folder(watch);
    watch->seen = look_at(path);
    event_assign(&watch->settled, base, -1, 0, on_settled, watch);
    event_assign(&watch->look, base, -1, EV_PERSIST, on_look, watch);
    event_add(&watch->look, &every);
    if (watch->fd >= 0) {
        event_assign(&watch->readable, base, watch->fd, EV_READ | EV_PERSIST, on_readable,
                     watch);
        event_add(&watch->readable, NULL);
    }
    return watch;
}

void file_watch_free(struct file_watch *watch)
{
    event_del(&watch->settled);
    event_del(&watch->look);
    if (watch->fd >= 0) {
        event_del(&watch->readable);
        close(watch->fd);
    }
    free(watch->path);
    free(watch->folder);
    free(watch);
}
