#include "proxy/discovery_file.h"

#include "shared/file_watch.h"

#include "proxy/endpoint_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct file_source {
    const struct upstream_config *config; /* borrowed */
    const struct source_callbacks *callbacks;
    void *owner;
    struct file_watch *watch;
};

/* At most one byte more than a good file has. NULL with errno. */
static char *read_file(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    size_t room = ENDPOINT_FILE_BYTES_MAX + 1;
    char *text = must_calloc(1, room);
    ssize_t got = 1;
    *len = 0;
    while (got > 0 && *len < room) {
        got = read(fd, text + *len, room - *len);
        *len += got > 0 ? (size_t)got : 0;
    }
    int error = errno;
    close(fd);
    if (got >= 0)
        return text;
    free(text);
    errno = error;
    return NULL;
}

static void read_endpoints(void *argument)
{
    struct file_source *source = argument;
    const char *path = source->config->discovery.file;
    char error[320], why[256];
    size_t len;
    char *text = read_file(path, &len);
    if (text == NULL) {
        snprintf(error, sizeof error, "%s: %s", path, strerror(errno));
        source->callbacks->on_trouble(source->owner, error);
        return;
    }
    struct endpoint_file file;
    if (endpoint_file_parse(slice_of(text, len), &file, why, sizeof why)) {
        source->callbacks->on_list(source->owner, file.specs, file.len);
        endpoint_file_cleanup(&file);
    } else {
        snprintf(error, sizeof error, "%s:%s", path, why);
        source->callbacks->on_trouble(source->owner, error);
    }
    free(text);
}

static void *start(struct event_base *base, const struct upstream_config *config,
                   const struct source_callbacks *callbacks, void *owner)
{
    struct file_source *source = must_calloc(1, sizeof *source);
    source->config = config;
    source->callbacks = callbacks;
    source->owner = owner;
    source->watch = file_watch_new(base, config->discovery.file, read_endpoints, source);
    read_endpoints(source);
    return source;
}

static void stop(void *argument)
{
    struct file_source *source = argument;
    file_watch_free(source->watch);
    free(source);
}

const struct source_kind discovery_file = {.word = "file", .start = start, .stop = stop};
