/*
 * See libc.h. Prototypes are those of the C library; what the world does not know of an argument it ignores.
 */
/* hiredis asks for large files, under which the C library's names are others: both are defined here. */
#undef _FILE_OFFSET_BITS

#include "tests/simulation/libc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define FD_FIRST     32
#define FD_MAX       1024
#define FILES_MAX    32
#define WALL_BEGINS  1767225600 /* 2026-01-01 */
#define CLOCK_BEGINS 100000     /* seconds of the monotonic clock when a run begins */

enum kind { FREE, WIRE, EPOLL, DUMMY, FILE_TEXT };

static struct descriptor {
    enum kind kind;
    int host;
    struct wire *wire;
    int port; /* bound */
    bool is_nonblocking;
    bool resets; /* SO_LINGER 0 */
    int epoll;   /* the set that it is in; 0: none */
    uint32_t events;
    epoll_data_t data;
    unsigned file;
    size_t offset;
} descriptors[FD_MAX];
static int descriptor_end = FD_FIRST;

static struct file {
    char *path, *text;
    uint64_t changed_at;
    unsigned version;
} files[FILES_MAX];

static bool is_on;
static int host_now = -1;
static bool
    is_kernel; /* the world works for a broker: what it allocates is not the broker's */
static bool was_idle;
static uint64_t idle_wait;
static uint64_t random_state;

void (*libc_on_ready)(int host);
void (*libc_on_idle)(void);

void libc_begin(void)
{
    is_on = true;
    random_state = world_draw();
}

void libc_end(void)
{
    is_on = false;
    for (unsigned i = 0; i < FILES_MAX; i++) {
        free(files[i].path);
        free(files[i].text);
    }
    memset(files, 0, sizeof(files));
    memset(descriptors, 0, sizeof(descriptors));
    descriptor_end = FD_FIRST;
}

void libc_set_host(int host)
{
    host_now = host;
}

int libc_host(void)
{
    return host_now;
}

bool libc_was_idle(uint64_t *wait)
{
    bool was = was_idle;
    *wait = idle_wait;
    was_idle = false;
    return was;
}

uint64_t libc_cpu_time(void)
{
    struct timespec used;
    syscall(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000;
}

/* ── descriptors ── */

static struct descriptor *find(int fd)
{
    if (fd < FD_FIRST || fd >= FD_MAX || descriptors[fd].kind == FREE)
        return NULL;
    return &descriptors[fd];
}

static int open_descriptor(enum kind kind)
{
    for (int fd = FD_FIRST; fd < FD_MAX; fd++)
        if (descriptors[fd].kind == FREE) {
            descriptors[fd] = (struct descriptor){.kind = kind, .host = host_now};
            if (fd >= descriptor_end)
                descriptor_end = fd + 1;
            return fd;
        }
    errno = EMFILE;
    return -1;
}

static void on_wire_change(void *argument UNUSED, struct wire *wire)
{
    libc_on_ready(wire_host(wire));
}

static int fail(int error)
{
    errno = error;
    return -1;
}

void libc_kill_host(int host, bool silent)
{
    for (int fd = FD_FIRST; fd < descriptor_end; fd++)
        if (descriptors[fd].kind == WIRE && descriptors[fd].host == host &&
            descriptors[fd].wire != NULL)
            wire_set_callback(descriptors[fd].wire, NULL, NULL);
    wires_kill(host, silent);
}

unsigned libc_count_wires(int host)
{
    unsigned count = 0;
    for (int fd = FD_FIRST; fd < descriptor_end; fd++)
        count += descriptors[fd].kind == WIRE && descriptors[fd].host == host;
    return count;
}

/* ── memory ── */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_OWN_ALLOCATOR
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_OWN_ALLOCATOR
#endif

#ifdef HAS_OWN_ALLOCATOR

size_t libc_memory(void)
{
    return 0;
}

#else

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void __libc_free(void *pointer);

static size_t memory;

size_t libc_memory(void)
{
    return memory;
}

static bool is_counted(void)
{
    return host_now >= 0 && !is_kernel;
}

void *malloc(size_t size)
{
    void *pointer = __libc_malloc(size);
    if (is_counted())
        memory += malloc_usable_size(pointer);
    return pointer;
}

void *calloc(size_t count, size_t size)
{
    void *pointer = __libc_calloc(count, size);
    if (is_counted())
        memory += malloc_usable_size(pointer);
    return pointer;
}

void *realloc(void *pointer, size_t size)
{
    size_t before = malloc_usable_size(pointer);
    void *moved = __libc_realloc(pointer, size);
    if (is_counted())
        memory += malloc_usable_size(moved) - before;
    return moved;
}

void free(void *pointer)
{
    if (is_counted())
        memory -= malloc_usable_size(pointer);
    __libc_free(pointer);
}

#endif

/* ── time and chance ── */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!is_on || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID)
        return (int)syscall(SYS_clock_gettime, clock, now);
    uint64_t since = world_now();
    time_t begins = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE
                        ? WALL_BEGINS
                        : CLOCK_BEGINS;
    now->tv_sec = begins + (time_t)(since / 1000000);
    now->tv_nsec = (long)(since % 1000000) * 1000;
    return 0;
}

int gettimeofday(struct timeval *now, void *zone UNUSED)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result != NULL)
        *result = now.tv_sec;
    return now.tv_sec;
}

ssize_t getrandom(void *bytes, size_t len, unsigned flags)
{
    if (!is_on)
        return syscall(SYS_getrandom, bytes, len, flags);
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)bytes)[i] = (unsigned char)world_stream(&random_state);
    return (ssize_t)len;
}

int getrusage(__rusage_who_t who, struct rusage *usage)
{
    if (!is_on)
        return (int)syscall(SYS_getrusage, who, usage);
    memset(usage, 0, sizeof(*usage));
    return 0;
}

pid_t getpid(void)
{
    return is_on ? 4242 : (pid_t)syscall(SYS_getpid);
}

int __sigaction(int number, const struct sigaction *action, struct sigaction *before);

/* libevent's handlers stay away: brokers end by lifecycle_drain(). */
int sigaction(int number, const struct sigaction *action, struct sigaction *before)
{
    bool is_libevents = is_on && host_now >= 0;
    if (!is_libevents)
        return __sigaction(number, action, before);
    if (before != NULL)
        memset(before, 0, sizeof(*before));
    return 0;
}

/* ── files ── */

void libc_set_file(const char *path, const char *text)
{
    unsigned i = 0;
    while (files[i].path != NULL && strcmp(files[i].path, path) != 0)
        i++;
    check(i < FILES_MAX);
    if (files[i].path == NULL)
        files[i].path = must_strdup(path);
    free(files[i].text);
    files[i].text = must_strdup(text);
    files[i].changed_at = world_now();
    files[i].version++;
}

static int find_file(const char *path)
{
    for (int i = 0; is_on && i < FILES_MAX; i++)
        if (files[i].path != NULL && strcmp(files[i].path, path) == 0)
            return i;
    return -1;
}

static void fill_look(unsigned file, struct stat *found)
{
    memset(found, 0, sizeof(*found));
    found->st_mode = S_IFREG | 0644;
    found->st_ino = file + 1;
    found->st_size = (off_t)strlen(files[file].text);
    found->st_mtim.tv_sec = WALL_BEGINS + (time_t)(files[file].changed_at / 1000000);
    found->st_mtim.tv_nsec = files[file].version;
    found->st_ctim = found->st_mtim;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    int file = find_file(path);
    if (file < 0)
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    int fd = open_descriptor(FILE_TEXT);
    if (fd >= 0)
        descriptors[fd].file = (unsigned)file;
    return fd;
}

int look_at_path(const char *path, struct stat *found) __asm__("stat");
int look_at_path(const char *path, struct stat *found)
{
    int file = find_file(path);
    if (file < 0)
        return (int)syscall(SYS_newfstatat, AT_FDCWD, path, found, 0);
    fill_look((unsigned)file, found);
    return 0;
}

int fstat(int fd, struct stat *found)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_newfstatat, fd, "", found, AT_EMPTY_PATH);
    if (descriptor->kind != FILE_TEXT) {
        memset(found, 0, sizeof(*found));
        found->st_mode = S_IFSOCK;
        return 0;
    }
    fill_look(descriptor->file, found);
    return 0;
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

int look_at_path_64(const char *path, struct stat64 *found) __asm__("stat64");
int look_at_path_64(const char *path, struct stat64 *found)
{
    return look_at_path(path, (struct stat *)(void *)found); /* one layout on 64 bits */
}

int fstat64(int fd, struct stat64 *found)
{
    return fstat(fd, (struct stat *)(void *)found);
}

int inotify_init1(int flags)
{
    return is_on ? fail(EMFILE) : (int)syscall(SYS_inotify_init1, flags);
}

/* ── sockets ── */

int socket(int domain, int type, int protocol)
{
    if (!is_on)
        return (int)syscall(SYS_socket, domain, type, protocol);
    int fd =
        open_descriptor(domain == AF_INET && (type & 0xf) == SOCK_STREAM ? WIRE : DUMMY);
    if (fd >= 0)
        descriptors[fd].is_nonblocking = (type & SOCK_NONBLOCK) != 0;
    return fd;
}

int socketpair(int domain, int type, int protocol, int fds[2])
{
    if (!is_on)
        return (int)syscall(SYS_socketpair, domain, type, protocol, fds);
    fds[0] = open_descriptor(DUMMY);
    fds[1] = open_descriptor(DUMMY);
    return fds[1] < 0 ? -1 : 0;
}

int pipe2(int fds[2], int flags)
{
    if (!is_on)
        return (int)syscall(SYS_pipe2, fds, flags);
    return socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
}

int bind(int fd, const struct sockaddr *address, socklen_t len)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_bind, fd, address, len);
    struct sockaddr_in inet = {0};
    memcpy(&inet, address, min_size(len, sizeof(inet)));
    descriptor->port = ntohs(inet.sin_port);
    return 0;
}

int listen(int fd, int backlog)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_listen, fd, backlog);
    is_kernel = true;
    descriptor->wire =
        wire_listen(descriptor->host, descriptor->port, on_wire_change, NULL);
    is_kernel = false;
    return 0;
}

static void write_address(const struct wire *wire, bool is_peer, struct sockaddr *address,
                          socklen_t *len)
{
    if (address == NULL)
        return;
    struct sockaddr_in inet = wire_address(wire, is_peer);
    memcpy(address, &inet, min_size(*len, sizeof(inet)));
    *len = sizeof(inet);
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_accept4, fd, address, len, flags);
    struct wire *wire = wire_state(descriptor->wire) == WIRE_LISTENS
                            ? wire_accept(descriptor->wire)
                            : NULL;
    if (wire == NULL)
        return fail(EAGAIN);
    int accepted = open_descriptor(WIRE);
    check(accepted >= 0);
    descriptors[accepted].host = descriptor->host;
    descriptors[accepted].wire = wire;
    is_kernel = true;
    wire_set_callback(wire, on_wire_change, NULL);
    is_kernel = false;
    write_address(wire, true, address, len);
    return accepted;
}

int connect(int fd, const struct sockaddr *address, socklen_t len)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_connect, fd, address, len);
    if (descriptor->kind != WIRE)
        return fail(ECONNREFUSED);
    struct sockaddr_in inet;
    memcpy(&inet, address, sizeof(inet));
    int host = (int)(ntohl(inet.sin_addr.s_addr) - 0x0a000001U);
    if (host < 0 || host >= HOST_MAX)
        return fail(ENETUNREACH);
    is_kernel = true;
    descriptor->wire =
        wire_connect(descriptor->host, host, ntohs(inet.sin_port), on_wire_change, NULL);
    is_kernel = false;
    return fail(EINPROGRESS);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *len)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_getsockname, fd, address, len);
    if (descriptor->kind != WIRE || descriptor->wire == NULL)
        return fail(ENOTSOCK);
    write_address(descriptor->wire, false, address, len);
    return 0;
}

int getpeername(int fd, struct sockaddr *address, socklen_t *len)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_getpeername, fd, address, len);
    if (descriptor->kind != WIRE || descriptor->wire == NULL)
        return fail(ENOTCONN);
    write_address(descriptor->wire, true, address, len);
    return 0;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
    if (level == SOL_SOCKET && name == SO_LINGER)
        descriptor->resets = true;
    int seconds;
    if (level == IPPROTO_TCP && name == TCP_KEEPIDLE && descriptor->wire != NULL) {
        memcpy(&seconds, value, sizeof(seconds));
        wire_keep_alive(descriptor->wire, SECONDS((uint64_t)seconds));
    }
    return 0;
}

static void fill_info(const struct wire *wire, struct tcp_info *info)
{
    unsigned silent = wire_silent(wire);
    info->tcpi_last_ack_recv = silent;
    for (unsigned wait = 200; wait <= silent; wait = wait * 2 + 200)
        info->tcpi_retransmits++;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
    if (descriptor->kind != WIRE || descriptor->wire == NULL)
        return fail(ENOTSOCK);
    if (level == SOL_SOCKET && name == SO_ERROR) {
        int error = wire_error(descriptor->wire);
        wire_clear_error(descriptor->wire);
        memcpy(value, &error, sizeof(error));
        return 0;
    }
    if (level == IPPROTO_TCP && name == TCP_INFO) {
        struct tcp_info info = {0};
        fill_info(descriptor->wire, &info);
        memcpy(value, &info, min_size(*len, sizeof(info)));
        return 0;
    }
    return fail(ENOPROTOOPT);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_ioctl, fd, request, argument);
    if (request != SIOCOUTQ || descriptor->kind != WIRE || descriptor->wire == NULL)
        return fail(ENOTTY);
    *(int *)argument = (int)wire_unacknowledged(descriptor->wire);
    return 0;
}

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    if (find(fd) == NULL)
        return (int)syscall(SYS_fcntl, fd, command, argument);
    return command == F_GETFL ? O_NONBLOCK | O_RDWR : 0;
}

static ssize_t read_wire(struct wire *wire, void *bytes, size_t len)
{
    size_t there = wire_readable(wire);
    if (there == 0) {
        if (!wire_has_ended(wire))
            return fail(EAGAIN);
        int error = wire_error(wire);
        wire_clear_error(wire);
        return error != 0 ? fail(error) : 0;
    }
    len = min_size(len, there);
    memcpy(bytes, wire_peek(wire), len);
    is_kernel = true;
    wire_consume(wire, len);
    is_kernel = false;
    return (ssize_t)len;
}

static ssize_t read_file(struct descriptor *descriptor, void *bytes, size_t len)
{
    const char *text = files[descriptor->file].text;
    size_t there = strlen(text) - min_size(descriptor->offset, strlen(text));
    len = min_size(len, there);
    memcpy(bytes, text + descriptor->offset, len);
    descriptor->offset += len;
    return (ssize_t)len;
}

ssize_t read(int fd, void *bytes, size_t len)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return syscall(SYS_read, fd, bytes, len);
    if (descriptor->kind == FILE_TEXT)
        return read_file(descriptor, bytes, len);
    if (descriptor->kind != WIRE || descriptor->wire == NULL)
        return fail(EAGAIN);
    return read_wire(descriptor->wire, bytes, len);
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return syscall(SYS_recvfrom, fd, bytes, len, flags, NULL, NULL);
    if ((flags & MSG_PEEK) == 0)
        return read(fd, bytes, len);
    check(descriptor->kind == WIRE);
    size_t there = min_size(len, wire_readable(descriptor->wire));
    if (there > 0)
        memcpy(bytes, wire_peek(descriptor->wire), there);
    else if (!wire_has_ended(descriptor->wire))
        return fail(EAGAIN);
    else if (wire_error(descriptor->wire) != 0)
        return fail(wire_error(descriptor->wire));
    return (ssize_t)there;
}

static ssize_t write_wire(struct wire *wire, const struct iovec *pieces, size_t count)
{
    ssize_t total = 0;
    for (size_t i = 0; i < count; i++) {
        is_kernel = true;
        ssize_t len = wire_write(wire, pieces[i].iov_base, pieces[i].iov_len);
        is_kernel = false;
        if (len < 0)
            return total > 0 ? total : -1;
        total += len;
        if ((size_t)len < pieces[i].iov_len)
            return total > 0 ? total : fail(EAGAIN);
    }
    return total;
}

/* Verbose runs: what a broker logs has its name in front. */
static ssize_t write_real(int fd, const void *bytes, size_t len)
{
    if (fd == STDERR_FILENO && is_on && host_now >= 0) {
        char name[16];
        int name_len = snprintf(name, sizeof(name), "[%d] ", host_now);
        syscall(SYS_write, fd, name, name_len);
    }
    return syscall(SYS_write, fd, bytes, len);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return write_real(fd, bytes, len);
    if (descriptor->kind != WIRE || descriptor->wire == NULL)
        return (ssize_t)len;
    union {
        const void *borrowed;
        void *base;
    } start = {bytes};
    struct iovec piece = {start.base, len};
    return write_wire(descriptor->wire, &piece, 1);
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    if (find(fd) == NULL)
        return syscall(SYS_sendto, fd, bytes, len, flags, NULL, 0);
    return write(fd, bytes, len);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return syscall(SYS_sendmsg, fd, message, flags);
    if (descriptor->kind != WIRE || descriptor->wire == NULL)
        return fail(ENOTCONN);
    return write_wire(descriptor->wire, message->msg_iov, message->msg_iovlen);
}

int shutdown(int fd, int how)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_shutdown, fd, how);
    is_kernel = true;
    if (descriptor->kind == WIRE && descriptor->wire != NULL && how != SHUT_RD)
        wire_finish(descriptor->wire);
    is_kernel = false;
    return 0;
}

int close(int fd)
{
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return (int)syscall(SYS_close, fd);
    if (descriptor->kind == WIRE && descriptor->wire != NULL) {
        is_kernel = true;
        wire_set_callback(descriptor->wire, NULL, NULL);
        if (descriptor->resets)
            wire_reset(descriptor->wire);
        else
            wire_close(descriptor->wire);
        is_kernel = false;
    }
    descriptor->kind = FREE;
    return 0;
}

/* ── epoll ── */

int epoll_create1(int flags)
{
    return is_on ? open_descriptor(EPOLL) : (int)syscall(SYS_epoll_create1, flags);
}

int epoll_create(int size UNUSED)
{
    return epoll_create1(0);
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    if (find(epoll) == NULL)
        return (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
    struct descriptor *descriptor = find(fd);
    if (descriptor == NULL)
        return fail(EBADF);
    bool is_in = descriptor->epoll == epoll;
    if (is_in != (operation != EPOLL_CTL_ADD))
        return fail(is_in ? EEXIST : ENOENT);
    descriptor->epoll = operation == EPOLL_CTL_DEL ? 0 : epoll;
    if (operation != EPOLL_CTL_DEL) {
        descriptor->events = event->events;
        descriptor->data = event->data;
    }
    return 0;
}

static uint32_t ready_events(const struct descriptor *descriptor)
{
    const struct wire *wire = descriptor->wire;
    if (descriptor->kind != WIRE || wire == NULL)
        return 0;
    if (wire_state(wire) == WIRE_LISTENS)
        return wire_has_waiting(wire) ? EPOLLIN & descriptor->events : 0;
    uint32_t events = 0;
    bool has_ended = wire_has_ended(wire);
    if (wire_readable(wire) > 0 || has_ended)
        events |= EPOLLIN | (has_ended ? EPOLLRDHUP : 0);
    if (wire_is_writable(wire))
        events |= EPOLLOUT;
    events &= descriptor->events;
    if (wire_error(wire) != 0)
        events |= EPOLLERR | EPOLLHUP;
    return events;
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout)
{
    if (find(epoll) == NULL)
        return (int)syscall(SYS_epoll_wait, epoll, events, count, timeout);
    int found = 0;
    for (int fd = FD_FIRST; fd < descriptor_end && found < count; fd++) {
        if (descriptors[fd].epoll != epoll)
            continue;
        uint32_t ready = ready_events(&descriptors[fd]);
        if (ready == 0)
            continue;
        /* in any order */
        int at = (int)world_below((uint64_t)found + 1);
        events[found] = events[at];
        events[at] = (struct epoll_event){.events = ready, .data = descriptors[fd].data};
        found++;
    }
    if (found == 0 && timeout != 0) {
        was_idle = true;
        idle_wait = timeout < 0 ? UINT64_MAX : MILLISECONDS((uint64_t)timeout);
        libc_on_idle();
    }
    return found;
}
