#include "proxy/discovery_file.h"

#include "shared/file_read.h"
#include "shared/file_watch.h"

#include "proxy/endpoint_file.h"

#include <stdio.h>
#include <stdlib.h>

struct file_source {
    const struct upstream_config *config; /* borrowed */
    const struct source_callbacks *callbacks;
    void *owner;
    struct file_watch *watch;
};

static void read_endpoints(void *argument)
{
    struct file_source *source = argument;
    const char *path = source->config->discovery.file;
    char error[320], why[256], *text;
    size_t len;
    if (!file_read(path, ENDPOINT_FILE_BYTES_MAX, &text, &len, NULL, why)) {
        snprintf(error, sizeof error, "%s: %s", path, why);
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
