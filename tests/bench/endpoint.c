/*
 * The endpoint behind every proxy that is measured: as little Engine.IO as a proxy can be loaded with.
 *
 *      GET without sid ─▶ 200, the open packet with a fresh sid        GET with sid  ─▶ 200, a noop
 *      Upgrade ─────────▶ 101, then every frame comes back             POST with sid ─▶ 200, "ok"
 *
 * One epoll loop over all ports, 127.0.0.1 only; ends at SIGTERM or after an hour. A sid says on which port it was
 * opened, and a request that comes to another one is answered 400: sessions stay, or the load says so.
 *
 *     cc -O2 -Wall -Wextra -o endpoint endpoint.c -lcrypto && ./endpoint PORT...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIFE_SECONDS 3600
#define SPACE        (1u << 20)
#define EVENTS       512
#define NOOP         "6"

struct link {
    int fd;
    unsigned port;
    bool is_listener;
    bool is_websocket;
    size_t kept_len; /* of a request or frame that is not whole yet */
    char *kept;
};

static int epoll_fd;
static unsigned sessions;
static char space[SPACE], out[SPACE];

static void die(const char *what)
{
    fprintf(stderr, "endpoint: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void add(int fd, unsigned port, bool is_listener)
{
    struct link *link = calloc(1, sizeof *link);
    if (link == NULL)
        die("memory");
    link->fd = fd;
    link->port = port;
    link->is_listener = is_listener;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = link};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static void link_close(struct link *link)
{
    close(link->fd);
    free(link->kept);
    free(link);
}

static bool send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
        } else if (sent < 0) {
            return false;
        } else {
            data += sent;
            len -= (size_t)sent;
        }
    }
    return true;
}

static bool answer(struct link *link, const char *status, const char *body)
{
    int len = snprintf(out, sizeof out,
                       "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=UTF-8\r\n"
                       "Cache-Control: no-store\r\nContent-Length: %zu\r\n\r\n%s",
                       status, strlen(body), body);
    return send_all(link->fd, out, (size_t)len);
}

static bool answer_upgrade(struct link *link, const char *key)
{
    char text[64], accept[32];
    unsigned char digest[SHA_DIGEST_LENGTH];
    snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    SHA1((const unsigned char *)text, strlen(text), digest);
    EVP_EncodeBlock((unsigned char *)accept, digest, sizeof digest);
    int len = snprintf(out, sizeof out,
                       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                       accept);
    link->is_websocket = true;
    return send_all(link->fd, out, (size_t)len);
}

static bool answer_open(struct link *link)
{
    char body[256];
    snprintf(
        body, sizeof body,
        "0{\"sid\":\"e%05u%014u\",\"upgrades\":[\"websocket\"],\"pingInterval\":25000,"
        "\"pingTimeout\":20000,\"maxPayload\":1000000}",
        link->port, ++sessions);
    return answer(link, "200 OK", body);
}

/* How many bytes the first request takes; 0: it is not whole. Answers it. */
static size_t take_request(struct link *link, char *data, size_t len, bool *is_alive)
{
    char *end = memmem(data, len, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    end[2] = '\0';
    size_t used = (size_t)(end - data) + 4;
    const char *length = strcasestr(data, "\r\nContent-Length: ");
    size_t body = length == NULL ? 0 : strtoul(length + 18, NULL, 10);
    if (used + body > len) {
        end[2] = '\r';
        return 0;
    }
    const char *key = strcasestr(data, "\r\nSec-WebSocket-Key: ");
    const char *sid = memmem(data, strcspn(data, "\r"), "sid=e", 5);
    if (sid != NULL && strtoul((char[]){sid[5], sid[6], sid[7], sid[8], sid[9], 0}, NULL,
                               10) != link->port)
        *is_alive = answer(link, "400 Bad Request", "wrong endpoint");
    else if (key != NULL)
        *is_alive = answer_upgrade(link, key + 21);
    else if (sid == NULL)
        *is_alive = answer_open(link);
    else
        *is_alive = answer(link, "200 OK", data[0] == 'P' ? "ok" : NOOP);
    return used + body;
}

/* The same of a frame: up to 65,535 bytes, masked, and back it goes without the mask. */
static size_t take_frame(struct link *link, const char *data, size_t len, bool *is_alive)
{
    const unsigned char *bytes = (const unsigned char *)data;
    size_t head = 6, payload = len < 4 ? 0 : bytes[1] & 127;
    if (len < 8)
        return 0;
    if (payload == 126) {
        payload = (size_t)bytes[2] << 8 | bytes[3];
        head = 8;
    }
    if (len < head + payload)
        return 0;
    memcpy(out, data, head - 4);
    out[1] &= 127;
    for (size_t i = 0; i < payload; i++)
        out[head - 4 + i] = (char)(bytes[head + i] ^ bytes[head - 4 + i % 4]);
    *is_alive = send_all(link->fd, out, head - 4 + payload);
    return head + payload;
}

static void on_readable(struct link *link)
{
    size_t len = link->kept_len;
    bool is_alive = true;
    if (len > 0)
        memcpy(space, link->kept, len);
    ssize_t got = recv(link->fd, space + len, sizeof space - len - 1, 0);
    if (got <= 0) {
        link_close(link);
        return;
    }
    len += (size_t)got;
    size_t at = 0, used = 1;
    while (is_alive && used > 0 && at < len) {
        used = link->is_websocket ? take_frame(link, space + at, len - at, &is_alive)
                                  : take_request(link, space + at, len - at, &is_alive);
        at += used;
    }
    free(link->kept);
    link->kept = NULL;
    link->kept_len = len - at;
    if (!is_alive) {
        link_close(link);
        return;
    }
    if (link->kept_len > 0) {
        link->kept = malloc(link->kept_len);
        if (link->kept == NULL)
            die("memory");
        memcpy(link->kept, space + at, link->kept_len);
    }
}

static void on_accept(struct link *listener)
{
    int fd;
    for (int i = 0;
         i < 64 && (fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0; i++)
        add(fd, listener->port, false);
}

static void listen_on(unsigned port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(fd, 4096) != 0)
        die("listen");
    add(fd, port, true);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    alarm(LIFE_SECONDS);
    epoll_fd = epoll_create1(0);
    for (int i = 1; i < argc; i++)
        listen_on((unsigned)strtoul(argv[i], NULL, 10));
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct link *link = events[i].data.ptr;
            if (link->is_listener)
                on_accept(link);
            else
                on_readable(link);
        }
    }
}
