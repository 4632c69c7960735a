/*
 * Many idle WebSockets, for measuring what a proxy keeps for each: both ends of them, two programs in one.
 *
 *     idle_tunnels clients PORT COUNT ──▶ proxy ──▶ idle_tunnels endpoint PORT
 *
 *   endpoint  answers each upgrade with the 101 and Engine.IO's open packet in one segment, then answers
 *             every message with one of the same length. Ends at SIGTERM.
 *   clients   opens COUNT WebSockets, at most IN_FLIGHT at a time, checks each 101, waits for the open
 *             packet, prints "open COUNT", and obeys lines on stdin:
 *               touch   one message on each WebSocket, and its answer     prints "touched COUNT"
 *               count   how many are still open                           prints "alive N"
 *               close   closes all of them                                prints "closed COUNT", and ends
 *
 * Either is one epoll loop. A process may have 20,000 descriptors, so the ends are apart. Only 127.0.0.1.
 *
 *     cc -O2 -Wall -Wextra -o idle_tunnels idle_tunnels.c -lcrypto
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_FLIGHT  128
#define HEAD_BYTES 2048
#define EVENTS     256
#define STEP_MS    20000 /* nothing happened for so long: give up */

static const char ws_key[] = "AAECAwQFBgcICQoLDA0ODw==";
static const char ws_guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
static const char open_packet[] = "\x81\x56"
                                  "0{\"sid\":\"AAAAAAAAAAAAAAAAAAAA\",\"upgrades\":[],"
                                  "\"pingInterval\":25000,\"pingTimeout\":20000}";

/* An endpoint's or a client's end of one WebSocket; `head` is there until the upgrade is done. */
struct end {
    int fd; /* -1: unused */
    size_t length;
    char *head;
};

static int epoll_fd;

_Static_assert(sizeof(open_packet) - 1 == 2 + 0x56, "the frame's length is wrong");

static void die(const char *what)
{
    fprintf(stderr, "idle_tunnels: %s: %s\n", what, strerror(errno));
    exit(1);
}

static size_t raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("setrlimit");
    return limit.rlim_cur > 1000000 ? 1000000 : limit.rlim_cur;
}

static void watch(int fd, uint32_t events, size_t number)
{
    struct epoll_event event = {.events = events, .data.u64 = number};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static struct sockaddr_in loopback(const char *port)
{
    long number = strtol(port, NULL, 10);
    if (number < 1 || number > 65535) {
        fprintf(stderr, "idle_tunnels: '%s' is no port\n", port);
        exit(2);
    }
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)number),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void accept_of(const char *key, size_t length, char out[29])
{
    unsigned char text[128], digest[SHA_DIGEST_LENGTH];
    if (length > sizeof(text) - sizeof(ws_guid))
        length = sizeof(text) - sizeof(ws_guid);
    memcpy(text, key, length);
    memcpy(text + length, ws_guid, sizeof(ws_guid) - 1);
    SHA1(text, length + sizeof(ws_guid) - 1, digest);
    EVP_EncodeBlock((unsigned char *)out, digest, sizeof(digest));
}

static void write_all(int fd, const void *bytes, size_t length)
{
    if (write(fd, bytes, length) != (ssize_t)length) /* small, to an empty socket */
        die("write");
}

/* Reads more of a head; true when it ends with what it holds. */
static bool read_head(struct end *end, const char *ending, size_t ending_length)
{
    if (!end->head && !(end->head = malloc(HEAD_BYTES)))
        die("malloc");
    ssize_t n = read(end->fd, end->head + end->length, HEAD_BYTES - 1 - end->length);
    if (n <= 0)
        die("end of file before the upgrade was done");
    end->length += (size_t)n;
    end->head[end->length] = 0;
    return end->length >= ending_length &&
           memcmp(end->head + end->length - ending_length, ending, ending_length) == 0;
}

static void drop_head(struct end *end)
{
    free(end->head);
    end->head = NULL;
    end->length = 1; /* marks the upgrade as done */
}

/* -- endpoint ---------------------------------------------------------------------------------- */

static void endpoint_upgrade(struct end *end)
{
    if (!read_head(end, "\r\n\r\n", 4))
        return;
    char *key = strcasestr(end->head, "\r\nsec-websocket-key:");
    if (!key) {
        errno = EPROTO;
        die(end->head);
    }
    key += strlen("\r\nsec-websocket-key:");
    key += strspn(key, " \t");
    char accept[29], answer[512];
    accept_of(key, strcspn(key, "\r \t"), accept);
    int length = snprintf(answer, sizeof(answer),
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n%s",
                          accept, open_packet);
    write_all(end->fd, answer, (size_t)length);
    drop_head(end);
}

static void endpoint_answer(struct end *end)
{
    unsigned char frame[256];
    ssize_t n = read(end->fd, frame, sizeof(frame));
    if (n <= 0 || (frame[0] & 0x0f) == 8) {
        close(end->fd);
        end->fd = -1;
        return;
    }
    size_t length = n >= 2 ? frame[1] & 0x7f : 0;
    unsigned char answer[128] = {0x81, (unsigned char)length};
    memset(answer + 2, 'x', length);
    write_all(end->fd, answer, 2 + length);
}

static void run_endpoint(const char *port)
{
    size_t most = raise_descriptors();
    struct end *ends = calloc(most, sizeof(*ends));
    struct sockaddr_in address = loopback(port);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (!ends || listener < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, 4096) != 0)
        die("listen");
    watch(listener, EPOLLIN, (size_t)listener);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            size_t number = events[i].data.u64;
            if (number != (size_t)listener) {
                if (ends[number].length == 1 && !ends[number].head)
                    endpoint_answer(&ends[number]);
                else
                    endpoint_upgrade(&ends[number]);
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if ((size_t)fd >= most)
                    die("too many connections");
                ends[fd] = (struct end){.fd = fd};
                watch(fd, EPOLLIN, (size_t)fd);
            }
        }
    }
}

/* -- clients ----------------------------------------------------------------------------------- */

static void client_open(struct end *end, const struct sockaddr_in *address, size_t number)
{
    char request[512];
    int one = 1;
    end->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (end->fd < 0 ||
        connect(end->fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
        die("connect");
    setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    int length =
        snprintf(request, sizeof(request),
                 "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
                 "Host: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n",
                 ntohs(address->sin_port), ws_key);
    write_all(end->fd, request, (size_t)length);
    watch(end->fd, EPOLLIN, number);
}

/* True once the 101 is right and the open packet is there. */
static bool client_upgraded(struct end *end)
{
    char accept[29];
    if (!read_head(end, open_packet, sizeof(open_packet) - 1))
        return false;
    accept_of(ws_key, sizeof(ws_key) - 1, accept);
    if (strncmp(end->head, "HTTP/1.1 101 ", 13) != 0 || !strstr(end->head, accept)) {
        errno = EPROTO;
        die(end->head);
    }
    drop_head(end);
    return true;
}

static int wait_events(struct epoll_event *events)
{
    int count = epoll_wait(epoll_fd, events, EVENTS, STEP_MS);
    if (count <= 0) {
        errno = ETIMEDOUT;
        die("waiting for the other side");
    }
    return count;
}

static void open_all(struct end *ends, size_t wanted, const char *port)
{
    struct sockaddr_in address = loopback(port);
    size_t started = 0, done = 0;
    while (done < wanted) {
        while (started < wanted && started - done < IN_FLIGHT) {
            client_open(&ends[started], &address, started);
            started++;
        }
        struct epoll_event events[EVENTS];
        int count = wait_events(events);
        for (int i = 0; i < count; i++)
            if (client_upgraded(&ends[events[i].data.u64]))
                done++;
    }
    printf("open %zu\n", done);
}

static void touch_all(struct end *ends, size_t wanted)
{
    static const unsigned char frame[] = {0x81, 0x84, 0, 0, 0, 0, '4', '2', '[', ']'};
    size_t sent = 0, done = 0;
    while (done < wanted) {
        while (sent < wanted && sent - done < IN_FLIGHT) {
            write_all(ends[sent].fd, frame, sizeof(frame));
            sent++;
        }
        struct epoll_event events[EVENTS];
        int count = wait_events(events);
        for (int i = 0; i < count; i++) {
            unsigned char answer[64];
            ssize_t n = read(ends[events[i].data.u64].fd, answer, sizeof(answer));
            if (n != 6 || memcmp(answer, "\x81\x04xxxx", 6) != 0)
                die("a message had no answer");
            done++;
        }
    }
    printf("touched %zu\n", done);
}

static void count_alive(const struct end *ends, size_t wanted)
{
    size_t alive = 0;
    for (size_t i = 0; i < wanted; i++) {
        char byte;
        ssize_t n = recv(ends[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        alive += n > 0 || (n < 0 && errno == EAGAIN);
    }
    printf("alive %zu\n", alive);
}

static void run_clients(const char *port, const char *count)
{
    size_t most = raise_descriptors(), wanted = strtoul(count, NULL, 10);
    if (wanted < 1 || wanted + 10 > most) {
        fprintf(stderr, "idle_tunnels: %s is not from 1 to %zu\n", count, most - 10);
        exit(2);
    }
    struct end *ends = calloc(wanted, sizeof(*ends));
    if (!ends)
        die("calloc");
    open_all(ends, wanted, port);
    char line[32];
    while (fflush(stdout) == 0 && fgets(line, sizeof(line), stdin)) {
        if (strcmp(line, "touch\n") == 0)
            touch_all(ends, wanted);
        else if (strcmp(line, "count\n") == 0)
            count_alive(ends, wanted);
        else if (strcmp(line, "close\n") == 0)
            break;
    }
    for (size_t i = 0; i < wanted; i++)
        close(ends[i].fd);
    printf("closed %zu\n", wanted);
}

int main(int argc, char **argv)
{
    epoll_fd = epoll_create1(0);
    if (argc == 3 && strcmp(argv[1], "endpoint") == 0)
        run_endpoint(argv[2]);
    else if (argc == 4 && strcmp(argv[1], "clients") == 0)
        run_clients(argv[2], argv[3]);
    else {
        fputs("usage: idle_tunnels endpoint PORT | clients PORT COUNT\n", stderr);
        return 2;
    }
    return 0;
}
