#include "shared/file_watch.h"

#include "shared/timing.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define EVENTS_SIZE 4096
#define HASHED_MAX  (4 * 1024 * 1024) /* bytes of a file; what it names is smaller */

/* A file is complete when it is closed or moved into its place; the others say that something left it. */
#define EVENTS_OF_AN_END (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)

/* What distinguishes one content from another. */
struct look {
    bool exists;
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
    uint64_t content; /* a hash, of regular files */
};

struct file_watch {
    char *path;
    char *folder;
    const char *name; /* into path */
    file_watch_cb on_change;
    void *argument;
    struct look told; /* what on_change was called for, or the beginning */
    struct look next; /* what may be reported, if it stays */
    uint64_t next_since;
    uint64_t next_look; /* while `settled` is pending */
    bool has_next;
    bool was_named; /* an event said that the file itself was closed or moved there */
    bool was_heard; /* an event said that some file in the directory was */
    bool is_open;   /* written to, and not closed since */
    int fd;         /* of inotify; -1: none to be had */
    int watch;      /* -1: the directory is not watched now */
    struct event readable, settled, look;
};

/* ── looks ── */

static uint64_t hash_content(const char *path)
{
    char bytes[16384];
    size_t left = HASHED_MAX;
    uint64_t hash = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    for (ssize_t len; fd >= 0 && left > 0; left -= (size_t)len) {
        len = read(fd, bytes, min_size(left, sizeof bytes));
        if (len <= 0)
            break;
        hash = XXH64(bytes, (size_t)len, hash);
    }
    if (fd >= 0)
        close(fd);
    return hash;
}

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
    if (S_ISREG(found.st_mode))
        look.content = hash_content(path);
    return look;
}

static bool is_same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool is_same_file(const struct look *a, const struct look *b)
{
    return a->exists == b->exists && a->device == b->device && a->inode == b->inode &&
           a->size == b->size && is_same_time(a->modified, b->modified) &&
           is_same_time(a->changed, b->changed);
}

static bool is_same(const struct look *a, const struct look *b)
{
    return is_same_file(a, b) && a->content == b->content;
}

/* ── until it stays the same ── */

/* How long the file must have looked the same. */
static uint64_t quiet_time(const struct file_watch *watch)
{
    if (watch->is_open)
        return FILE_WATCH_OPEN;
    if (!watch->next.exists)
        return FILE_WATCH_GONE;
    return watch->was_heard ? FILE_WATCH_AGAIN : FILE_WATCH_LOOK;
}

/* Never later than it was planned before: a directory may hold files that are written all the time. */
static void look_after(struct file_watch *watch, uint64_t time)
{
    uint64_t at = timing_now() + time;
    if (evtimer_pending(&watch->settled, NULL) && watch->next_look <= at)
        return;
    watch->next_look = at;
    struct timeval wait = timing_to_timeval(time);
    event_add(&watch->settled, &wait);
}

static void on_settled(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct file_watch *watch = argument;
    struct look look = look_at(watch->path);
    uint64_t now = timing_now();
    if (!watch->was_named && is_same(&look, &watch->told)) {
        watch->has_next = false;
        watch->was_heard = false;
        return;
    }
    if (!watch->has_next || !is_same(&look, &watch->next)) {
        watch->has_next = true;
        watch->next = look;
        watch->next_since = now;
    }
    uint64_t quiet = now - watch->next_since, wanted = quiet_time(watch);
    if (quiet < wanted) {
        look_after(watch, wanted - quiet);
        return;
    }
    watch->told = look;
    watch->has_next = watch->was_named = watch->was_heard = false;
    watch->on_change(watch->argument);
}

/* ── events ── */

static void watch_folder(struct file_watch *watch)
{
    if (watch->fd >= 0 && watch->watch < 0)
        watch->watch = inotify_add_watch(watch->fd, watch->folder,
                                         EVENTS_OF_AN_END | IN_MODIFY | IN_ONLYDIR);
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
        watch->is_open = false;
        return;
    }
    if ((event->mask & IN_Q_OVERFLOW) != 0) /* its end may be among the lost events */
        watch->is_open = false;
    bool is_end = (event->mask & EVENTS_OF_AN_END) != 0;
    watch->was_heard |= is_end;
    if (event->len == 0 || strcmp(event->name, watch->name) != 0)
        return;
    watch->is_open = !is_end;
    watch->was_named |= (event->mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0;
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
    bool was_heard = watch->was_heard;
    watch->was_heard = false;
    while ((len = read(fd, events.bytes, sizeof events.bytes)) > 0) {
        size_t at = 0;
        while (at < (size_t)len) {
            const struct inotify_event *event = (const void *)(events.bytes + at);
            note_event(watch, event);
            at += sizeof *event + event->len;
        }
    }
    if (watch->was_heard)
        look_after(watch, FILE_WATCH_SETTLE);
    watch->was_heard |= was_heard;
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
    watch->told = look_at(path);
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

bool file_watch_is_busy(struct file_watch *watch)
{
    struct look look = look_at(watch->path);
    return watch->has_next || watch->was_named || !is_same(&look, &watch->told);
}
