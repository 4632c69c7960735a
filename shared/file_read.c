#include "shared/file_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void say(char why[FILE_WHY_SIZE], int error)
{
    snprintf(why, FILE_WHY_SIZE, "%s", strerror(error));
}

int file_open(const char *path, unsigned *mode, char why[FILE_WHY_SIZE])
{
    struct stat found;
    /* O_NONBLOCK: a FIFO without a writer would make open() wait. It means nothing to regular files. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &found) != 0) {
        say(why, errno);
    } else if (S_ISREG(found.st_mode)) {
        if (mode != NULL)
            *mode = found.st_mode;
        return fd;
    } else if (S_ISDIR(found.st_mode)) {
        say(why, EISDIR);
    } else {
        snprintf(why, FILE_WHY_SIZE, "is not a regular file");
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static void say_too_large(char why[FILE_WHY_SIZE], size_t max)
{
    if (max % (1024 * 1024) == 0)
        snprintf(why, FILE_WHY_SIZE, "is larger than %zu MiB", max / (1024 * 1024));
    else if (max % 1024 == 0)
        snprintf(why, FILE_WHY_SIZE, "is larger than %zu KiB", max / 1024);
    else
        snprintf(why, FILE_WHY_SIZE, "is larger than %zu bytes", max);
}

/* As much room as the file is long: what is read at each reload shall not take the most that a file may have. */
static size_t first_room(int fd, size_t most)
{
    struct stat found;
    size_t size = fstat(fd, &found) == 0 && found.st_size > 0 ? (size_t)found.st_size : 0;
    return size < most - 1 ? size + 2
                           : most; /* a NUL, and one that shows whether there is more */
}

/* Twice the room, without a copy of a secret left behind. */
static char *enlarge(char *text, size_t *room, size_t most)
{
    size_t larger = *room < most / 2 ? 2 * *room : most;
    char *moved = must_calloc(1, larger);
    memcpy(moved, text, *room);
    explicit_bzero(text, *room);
    free(text);
    *room = larger;
    return moved;
}

bool file_read(const char *path, size_t max, char **text, size_t *len, unsigned *mode,
               char why[FILE_WHY_SIZE])
{
    int fd = file_open(path, mode, why);
    if (fd < 0)
        return false;
    size_t room = first_room(fd, max + 1);
    *text = must_calloc(1, room);
    *len = 0;
    ssize_t got = 1;
    while (got > 0 && *len <= max) {
        if (*len == room)
            *text = enlarge(*text, &room, max + 1);
        got = read(fd, *text + *len, room - *len);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            *len += (size_t)got;
    }
    if (got < 0)
        say(why, errno);
    else if (*len > max)
        say_too_large(why, max);
    close(fd);
    if (got >= 0 && *len <= max) {
        (*text)[*len] = '\0';
        return true;
    }
    explicit_bzero(*text, room);
    free(*text);
    *text = NULL;
    return false;
}
