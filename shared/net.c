#include "shared/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG          1024
#define UNIX_MODE        0660
#define KEEP_ALIVE_COUNT 3

static int fail(char why[NET_WHY_SIZE], const char *what, int error, int fd)
{
    snprintf(why, NET_WHY_SIZE, "%s%s%s", what, what[0] != '\0' ? ": " : "",
             strerror(error));
    if (fd >= 0)
        close(fd);
    return -1;
}

static void set_option(int fd, int level, int name, int value)
{
    /* not every socket has every option (unix sockets); none of them is worth failing for */
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

/* Makes the way free for bind(): removes the socket file of a process that is gone. */
static bool remove_stale(const struct address *address, char why[NET_WHY_SIZE])
{
    const char *path = address->socket.local.sun_path;
    struct stat found;
    if (lstat(path, &found) != 0)
        return true;
    if (!S_ISSOCK(found.st_mode)) {
        snprintf(why, NET_WHY_SIZE, "the path exists and is not a socket");
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        fail(why, "", errno, -1);
        return false;
    }
    int result = connect(fd, &address->socket.any, address->len);
    int error = result == 0 ? 0 : errno;
    close(fd);
    if (error == ECONNREFUSED) {
        if (unlink(path) == 0 || errno == ENOENT)
            return true;
        fail(why, "a stale socket file cannot be removed", errno, -1);
        return false;
    }
    if (error == 0 || error == EAGAIN)
        snprintf(why, NET_WHY_SIZE, "another process listens on it");
    else
        fail(why, "", error, -1);
    return error == ENOENT;
}

static int listen_unix(const struct address *address,
                       const struct net_listen_options *options, char why[NET_WHY_SIZE])
{
    if (!remove_stale(address, why))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(why, "", errno, -1);
    mode_t mode = options->mode != 0 ? options->mode : UNIX_MODE;
    /* fchmod before bind: Linux gives the file the mode of the socket's inode, so it is never open wider,
     * and no umask of the process (shared with other threads) is touched */
    if (fchmod(fd, mode) != 0 || bind(fd, &address->socket.any, address->len) != 0)
        return fail(why, "", errno, fd);
    if (chmod(address->socket.local.sun_path, mode) != 0 ||
        listen(fd, options->backlog > 0 ? options->backlog : BACKLOG) != 0) {
        int error = errno;
        unlink(address->socket.local.sun_path);
        return fail(why, "", error, fd);
    }
    return fd;
}

int net_listen(const struct address *address, const struct net_listen_options *options,
               char why[NET_WHY_SIZE])
{
    why[0] = '\0';
    if (address_is_unix(address))
        return listen_unix(address, options, why);
    int family = address->socket.any.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(why, "", errno, -1);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (options->reuse_port)
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (family == AF_INET6) {
        bool is_any = IN6_IS_ADDR_UNSPECIFIED(&address->socket.v6.sin6_addr);
        set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, !is_any);
    }
    if (bind(fd, &address->socket.any, address->len) != 0 ||
        listen(fd, options->backlog > 0 ? options->backlog : BACKLOG) != 0)
        return fail(why, "", errno, fd);
    return fd;
}

void net_listen_close(int fd)
{
    struct address address = net_local_address(fd);
    close(fd);
    if (address.len <= offsetof(struct sockaddr_un, sun_path) ||
        !address_is_unix(&address))
        return;
    /* ours only while nobody else listens there: a successor may have replaced the file */
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return;
    if (connect(probe, &address.socket.any, address.len) != 0 && errno == ECONNREFUSED)
        unlink(address.socket.local.sun_path);
    close(probe);
}

void net_listen_release(int fd)
{
    close(fd);
}

struct address net_local_address(int fd)
{
    struct address address;
    memset(&address, 0, sizeof(address));
    socklen_t len = sizeof(address.socket);
    if (getsockname(fd, &address.socket.any, &len) == 0)
        address.len = (socklen_t)min_size(len, sizeof(address.socket));
    return address;
}

int net_connect(const struct address *address, bool *in_progress)
{
    *in_progress = false;
    int fd = socket(address->socket.any.sa_family,
                    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int result;
    do
        result = connect(fd, &address->socket.any, address->len);
    while (result != 0 && errno == EINTR);
    if (result == 0)
        return fd;
    /* EAGAIN of a unix socket is a full backlog, not progress: nothing would ever become writable */
    if (errno == EINPROGRESS) {
        *in_progress = true;
        return fd;
    }
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

int net_connect_result(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        return errno;
    return error;
}

void net_set_no_delay(int fd)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

static int whole_seconds(uint64_t microseconds)
{
    uint64_t seconds = microseconds / 1000000;
    return seconds < 1       ? 1
           : seconds > 32767 ? 32767
                             : (int)seconds; /* MAX_TCP_KEEPIDLE */
}

void net_set_keep_alive(int fd, uint64_t idle)
{
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, idle > 0);
    if (idle == 0)
        return;
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, whole_seconds(idle));
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, whole_seconds(idle / 3));
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_ALIVE_COUNT);
}

void net_set_user_timeout(int fd, uint64_t limit)
{
    uint64_t milliseconds = limit / 1000;
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
               milliseconds > INT32_MAX ? INT32_MAX : (int)milliseconds);
}

void net_set_reset_on_close(int fd)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
}

uint64_t net_raise_descriptor_limit(void)
{
    struct rlimit limit;
    check(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit raised = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
            limit = raised;
    }
    return limit.rlim_cur;
}

size_t net_unacknowledged(int fd)
{
    int bytes = 0;
    if (ioctl(fd, SIOCOUTQ, &bytes) != 0 || bytes < 0)
        return 0;
    return (size_t)bytes;
}
