/*
 * Load for a proxy, and the CPU that the proxy took for each operation.
 *
 *      proxy_load MODE PORT COUNT SECONDS SIZE PID[,PID...]
 *
 *   echo     COUNT WebSockets, on each one message of SIZE bytes in flight      operation: a round trip
 *   poll     COUNT sessions of 20 requests, GET and POST in turn                operation: a request
 *   connect  COUNT at a time: connect, upgrade, one echo, close                 operation: all of it
 *   full     the same with a polling handshake first, on another connection     operation: all of it
 *   storm    COUNT WebSockets at once, one echo on each                         operation: a WebSocket
 *
 * Each user is one of the COUNT and goes through
 *
 *      CONNECTING ─▶ ASKING (handshake, poll) ─▶ UPGRADING ─▶ ECHOING ─▶ again, or a new connection
 *
 * CPU is read from schedstat of all threads of the PIDs at both ends of a window that begins when the load has run
 * warm; a storm has no warm-up. One line of JSON tells what happened. Every answer is looked at: another status than
 * 200 or 101, or another echo than what was sent, is an error. Only 127.0.0.1.
 *
 *     cc -O2 -Wall -Wextra -o proxy_load proxy_load.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SPACE            (1u << 18)
#define EVENTS           512
#define SESSION_REQUESTS 20u
#define SOURCES          16u /* addresses to connect from: ports run out otherwise */
#define WARM_SECONDS     0.3
#define STORM_SECONDS    60
#define COOKIES_SIZE     512u
#define SID_SIZE         64u

enum mode { MODE_ECHO, MODE_POLL, MODE_CONNECT, MODE_FULL, MODE_STORM };
enum state { CONNECTING, ASKING, UPGRADING, ECHOING, DONE };

struct user {
    int fd, polling_fd; /* of full: the handshake's connection stays */
    enum state state;
    bool opens; /* the request in flight is a handshake */
    unsigned requests;
    unsigned source;
    size_t kept_len;
    char *kept;
    char sid[SID_SIZE], cookies[COOKIES_SIZE];
};

static enum mode mode;
static int epoll_fd;
static struct sockaddr_in target;
static size_t message_len, frame_len;
static char frame[SPACE], space[SPACE], *message;
static uint64_t operations, errors;

static void die(const char *what)
{
    fprintf(stderr, "proxy_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Nanoseconds on a CPU of all threads of the processes. */
static uint64_t cpu_of(const char *pids)
{
    uint64_t sum = 0;
    for (const char *pid = pids; pid != NULL && *pid != '\0';) {
        char path[600];
        unsigned long number = strtoul(pid, NULL, 10);
        snprintf(path, sizeof path, "/proc/%lu/task", number);
        DIR *tasks = opendir(path);
        struct dirent *task;
        if (tasks == NULL)
            die("the proxy is not there");
        while ((task = readdir(tasks)) != NULL) {
            uint64_t spent;
            snprintf(path, sizeof path, "/proc/%lu/task/%s/schedstat", number,
                     task->d_name);
            FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "r");
            if (file != NULL && fscanf(file, "%" SCNu64, &spent) == 1)
                sum += spent;
            if (file != NULL)
                fclose(file);
        }
        closedir(tasks);
        pid = strchr(pid, ',');
        pid = pid == NULL ? NULL : pid + 1;
    }
    return sum;
}

static void user_connect(struct user *user);

static void user_fail(struct user *user, const char *what)
{
    if (errors++ < 3)
        fprintf(stderr, "proxy_load: %s\n", what);
    if (mode == MODE_STORM || errors > 1000)
        exit(1);
    close(user->fd);
    user_connect(user);
}

static bool send_all(struct user *user, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(user->fd, data, len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            user_fail(user, "the proxy closed while it was written to");
            return false;
        }
        if (sent < 0) {
            struct pollfd wait = {.fd = user->fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
            continue;
        }
        data += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* As a browser asks: most of the head is the same in every request. */
static void ask(struct user *user, bool is_upgrade)
{
    char head[2048];
    bool is_post = mode == MODE_POLL && !user->opens && user->requests % 2 == 1;
    int len = snprintf(
        head, sizeof head,
        "%s /socket.io/?EIO=4&transport=%s%s%s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 "
        "Firefox/128.0\r\nAccept: */*\r\nAccept-Language: en-US,en;q=0.5\r\n"
        "Accept-Encoding: gzip, deflate\r\nOrigin: http://127.0.0.1\r\n"
        "Referer: http://127.0.0.1/chat/room\r\n%s%s%s%s\r\n%s",
        is_post ? "POST" : "GET", is_upgrade ? "websocket" : "polling",
        user->sid[0] != '\0' && !user->opens ? "&sid=" : "", user->opens ? "" : user->sid,
        ntohs(target.sin_port), user->cookies[0] != '\0' ? "Cookie: " : "", user->cookies,
        user->cookies[0] != '\0' ? "\r\n" : "",
        is_upgrade ? "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        : is_post  ? "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 14\r\n"
                   : "",
        is_post ? "2[\"message\",1]" : "");
    user->state = is_upgrade ? UPGRADING : ASKING;
    (void)!send_all(user, head, (size_t)len);
}

static void begin(struct user *user)
{
    user->opens = mode == MODE_POLL || (mode == MODE_FULL && user->sid[0] == '\0');
    ask(user, !user->opens);
}

static void user_connect(struct user *user)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int one = 1;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (user->source << 8));
    free(user->kept);
    user->kept = NULL;
    user->kept_len = 0;
    user->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (user->fd < 0)
        die("socket");
    setsockopt(user->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(user->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(user->fd, (struct sockaddr *)&from, sizeof from) != 0)
        die("bind");
    if (connect(user->fd, (struct sockaddr *)&target, sizeof target) != 0 &&
        errno != EINPROGRESS)
        die("connect");
    user->state = CONNECTING;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = user};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, user->fd, &event);
}

static void remember_cookies(struct user *user, const char *head)
{
    if (strcasestr(head, "\r\nSet-Cookie: ") != NULL)
        user->cookies[0] = '\0'; /* as a browser: kept until there are others */
    while ((head = strcasestr(head, "\r\nSet-Cookie: ")) != NULL) {
        head += 14;
        size_t at = strlen(user->cookies);
        snprintf(user->cookies + at, sizeof user->cookies - at, "%s%.*s",
                 at > 0 ? "; " : "", (int)strcspn(head, ";\r"), head);
    }
}

static void on_answer(struct user *user, const char *head, const char *body)
{
    if (user->state == UPGRADING) {
        user->state = ECHOING;
        (void)!send_all(user, frame, frame_len);
        return;
    }
    if (user->opens) {
        const char *sid = strstr(body, "\"sid\":\"");
        user->sid[0] = '\0';
        if (sid != NULL)
            snprintf(user->sid, sizeof user->sid, "%.*s", (int)strcspn(sid + 7, "\""),
                     sid + 7);
        remember_cookies(user, head);
        user->requests = 0;
    }
    if (mode == MODE_FULL) {
        user->polling_fd = user->fd;
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, user->fd, NULL);
        user_connect(user);
        return;
    }
    operations++;
    user->opens = ++user->requests == SESSION_REQUESTS;
    ask(user, false);
}

/* How many bytes a whole answer takes; 0: not whole. */
static size_t take_answer(struct user *user, char *data, size_t len)
{
    char *end = memmem(data, len, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    end[2] = '\0';
    const char *length = strcasestr(data, "\r\nContent-Length: ");
    size_t used = (size_t)(end - data) + 4;
    size_t body = length == NULL ? 0 : strtoul(length + 18, NULL, 10);
    if (used + body > len) {
        end[2] = '\r';
        return 0;
    }
    const char *expected = user->state == UPGRADING ? "HTTP/1.1 101" : "HTTP/1.1 200";
    if (strncmp(data, expected, 12) != 0) {
        user_fail(user, data);
        return 0;
    }
    on_answer(user, data, data + used);
    return used + body;
}

static size_t take_echo(struct user *user, const char *data, size_t len)
{
    size_t head = message_len > 125 ? 4 : 2;
    if (len < head + message_len)
        return 0;
    if (memcmp(data + head, message, message_len) != 0) {
        user_fail(user, "another echo than what was sent");
        return 0;
    }
    operations++;
    if (mode == MODE_ECHO) {
        (void)!send_all(user, frame, frame_len);
    } else if (mode == MODE_STORM) {
        user->state = DONE;
    } else {
        close(user->fd);
        if (mode == MODE_FULL)
            close(user->polling_fd);
        user->sid[0] = user->cookies[0] = '\0';
        user_connect(user);
    }
    return head + message_len;
}

static void on_readable(struct user *user)
{
    int fd = user->fd;
    size_t len = user->kept_len;
    if (len > 0)
        memcpy(space, user->kept, len);
    ssize_t got = recv(fd, space + len, sizeof space - len - 1, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        user_fail(user, "the proxy closed a connection");
        return;
    }
    len += (size_t)got;
    space[len] = '\0';
    size_t used = user->state == ECHOING ? take_echo(user, space, len)
                                         : take_answer(user, space, len);
    if (user->fd != fd || user->state == CONNECTING)
        return;
    free(user->kept);
    user->kept = NULL;
    user->kept_len = len - used;
    if (user->kept_len > 0) {
        user->kept = malloc(user->kept_len);
        if (user->kept == NULL)
            die("memory");
        memcpy(user->kept, space + used, user->kept_len);
    }
}

static void turn(void)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll_fd, events, EVENTS, 100);
    for (int i = 0; i < count; i++) {
        struct user *user = events[i].data.ptr;
        if (user->state != CONNECTING) {
            on_readable(user);
            continue;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = user};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, user->fd, &event);
        begin(user);
    }
}

static void make_message(size_t len)
{
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    message_len = len;
    message = malloc(len);
    if (len < 1 || len > 65535 || message == NULL)
        die("SIZE is 1..65535");
    size_t at = 0;
    frame[at++] = (char)0x81;
    if (len > 125) {
        frame[at++] = (char)(0x80 | 126);
        frame[at++] = (char)(len >> 8);
        frame[at++] = (char)len;
    } else {
        frame[at++] = (char)(0x80 | len);
    }
    memcpy(frame + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < len; i++) {
        message[i] = (char)('a' + i % 26);
        frame[at++] = (char)(message[i] ^ mask[i % 4]);
    }
    frame_len = at;
}

static enum mode mode_of(const char *word)
{
    static const char *const words[] = {"echo", "poll", "connect", "full", "storm"};
    for (int i = 0; i < 5; i++)
        if (strcmp(word, words[i]) == 0)
            return (enum mode)i;
    die("no such mode");
    return MODE_ECHO;
}

static void run_for(double seconds, uint64_t enough)
{
    double until = now() + seconds;
    while (now() < until && operations < enough)
        turn();
}

int main(int argc, char **argv)
{
    struct rlimit files;
    if (argc != 7) {
        fprintf(stderr, "usage: proxy_load MODE PORT COUNT SECONDS SIZE PID[,PID...]\n");
        return 2;
    }
    mode = mode_of(argv[1]);
    target = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size_t count = strtoul(argv[3], NULL, 10);
    double seconds = strtod(argv[4], NULL);
    make_message(strtoul(argv[5], NULL, 10));
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (count < 1 || count > files.rlim_cur / 2 || seconds <= 0 || seconds > 60)
        die("COUNT or SECONDS out of range");
    alarm(120);
    epoll_fd = epoll_create1(0);
    struct user *users = calloc(count, sizeof *users);
    if (users == NULL)
        die("memory");

    uint64_t cpu = cpu_of(argv[6]);
    double began = now();
    for (size_t i = 0; i < count; i++) {
        users[i].source = (unsigned)i % SOURCES;
        user_connect(&users[i]);
    }
    if (mode == MODE_STORM) {
        run_for(STORM_SECONDS, count);
    } else {
        run_for(WARM_SECONDS, UINT64_MAX);
        operations = 0;
        cpu = cpu_of(argv[6]);
        began = now();
        run_for(seconds, UINT64_MAX);
    }
    double passed = now() - began;
    cpu = cpu_of(argv[6]) - cpu;
    printf("{\"mode\": \"%s\", \"operations\": %" PRIu64 ", \"errors\": %" PRIu64
           ", \"seconds\": %.4f, \"cpu_us\": %.3f}\n",
           argv[1], operations, errors, passed,
           operations > 0 ? (double)cpu / 1e3 / (double)operations : 0.0);
    return errors > 0 || operations == 0 || (mode == MODE_STORM && operations < count);
}
