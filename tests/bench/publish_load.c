/*
 * Publishers and subscribers of python-socketio's channel, for measuring what is between them; checks that
 * nothing is lost, doubled or out of the order of its publisher and room.
 *
 *     thread of publishers ─PUBLISH─▶ Redis, or a broker ─message─▶ thread of subscribers
 *        RATE a second in all, or as fast as DEPTH unanswered ones of each allow (RATE 0)
 *
 *     publish_load PORT[,PORT…] SUBSCRIBERS PUBLISHERS RATE DEPTH SECONDS BYTES PID[,PID…]
 *
 * With several ports, clients take them in turn.
 *
 * One JSON line: what was published and delivered in the measured SECONDS (one second before them is not
 * measured), latency in microseconds, CPU seconds of the processes (all threads, from schedstat), and what
 * went wrong, of the whole run: *missing* numbers of a publisher's room when the next one came, *disordered*
 * (doubled or late), *lost* in the end, *broken* (errors, connections that ended). Only 127.0.0.1.
 *
 *     cc -O2 -Wall -Wextra -o publish_load publish_load.c -lpthread
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX   256
#define ROOMS         100
#define PORTS_MAX     16
#define READ_SIZE     (512 * 1024)
#define MARK_LEN      24 /* "@", publisher, number, time: 1 + 3 + 8 + 12 digits */
#define LATENCIES_MAX (8 * 1000 * 1000)
#define EVENTS        128

#define ANSWERED_WITHIN_NS 10000000000ULL
#define DELIVERED_WITHIN   20.0 /* seconds */

static struct {
    uint16_t ports[PORTS_MAX];
    unsigned port_count;
    unsigned subscribers, publishers, depth;
    double rate, seconds;
    size_t bytes;
    const char *pids;
} option;

static atomic_bool publishers_stop, subscribers_stop, is_measuring;
static atomic_uint subscribed;
static atomic_ullong published, answered, delivered; /* each is written by one thread */
static unsigned long long disordered, missing, broken;
static uint32_t *latencies; /* microseconds */
static unsigned latency_count;

/* Without the lock that ++ would take. */
static void count(atomic_ullong *counter)
{
    atomic_store_explicit(counter,
                          atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void fail(const char *what)
{
    fprintf(stderr, "publish_load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int open_client(int epoll, uint32_t number)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port =
                                      htons(option.ports[number % option.port_count]),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl");
    return fd;
}

/* ---- subscribers ---- */

struct subscriber {
    int fd;
    char *input;
    size_t len;
    uint32_t last[CLIENTS_MAX]
                 [ROOMS]; /* number of the last message of a publisher's room */
};

static uint64_t read_hex(const char *at, unsigned len)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < len; i++)
        number = number * 16 +
                 (uint64_t)(at[i] <= '9' ? at[i] - '0' : (at[i] | 0x20) - 'a' + 10);
    return number;
}

static void write_hex(char *at, unsigned len, uint64_t number)
{
    while (len-- > 0) {
        at[len] = "0123456789abcdef"[number % 16];
        number /= 16;
    }
}

static void take_payload(struct subscriber *subscriber, const char *payload, size_t len,
                         uint64_t now)
{
    if (len == 2)
        return; /* a heartbeat: {} */
    const char *mark = memchr(payload, '@', len);
    if (mark == NULL || (size_t)(payload + len - mark) < MARK_LEN) {
        broken++;
        return;
    }
    uint64_t publisher = read_hex(mark + 1, 3);
    uint32_t number = (uint32_t)read_hex(mark + 4, 8);
    uint64_t sent = read_hex(mark + 12, 12);
    if (publisher >= CLIENTS_MAX) {
        broken++;
        return;
    }
    uint32_t *last = &subscriber->last[publisher][number % ROOMS];
    uint32_t expected = *last + ROOMS;
    if (*last == 0)
        expected = number % ROOMS > 0 ? number % ROOMS : ROOMS;
    if (number < expected)
        disordered++;
    else
        missing += (number - expected) / ROOMS;
    *last = number;
    count(&delivered);
    if (!atomic_load_explicit(&is_measuring, memory_order_relaxed) ||
        latency_count == LATENCIES_MAX)
        return;
    latencies[latency_count++] = (uint32_t)((now % (1ULL << 48) - sent) / 1000);
}

/* "*3 $7 message $n channel $n payload", or a confirmation: as far as it is whole. */
static size_t take_push(struct subscriber *subscriber, const char *at, const char *end,
                        uint64_t now)
{
    const char *start = at;
    const char *text[3] = {NULL};
    size_t lens[3] = {0};
    at = memchr(at, '\n', (size_t)(end - at));
    for (unsigned i = 0; at != NULL && i < 3; i++) {
        const char *line = at + 1;
        at = line < end ? memchr(line, '\n', (size_t)(end - line)) : NULL;
        if (at == NULL || *line != '$')
            continue;
        lens[i] = strtoul(line + 1, NULL, 10);
        text[i] = at + 1;
        at = (size_t)(end - text[i]) >= lens[i] + 2 ? text[i] + lens[i] + 1 : NULL;
    }
    if (at == NULL)
        return 0;
    if (text[2] != NULL)
        take_payload(subscriber, text[2], lens[2], now);
    else
        subscribed++;
    return (size_t)(at + 1 - start);
}

static void read_subscriber(struct subscriber *subscriber)
{
    ssize_t len = recv(subscriber->fd, subscriber->input + subscriber->len,
                       READ_SIZE - subscriber->len, 0);
    if (len < 0 && errno == EAGAIN)
        return;
    if (len <= 0) {
        broken++;
        close(subscriber->fd);
        return;
    }
    subscriber->len += (size_t)len;
    uint64_t now = now_ns();
    size_t done = 0;
    size_t taken;
    do {
        taken = take_push(subscriber, subscriber->input + done,
                          subscriber->input + subscriber->len, now);
        done += taken;
    } while (taken > 0 && done < subscriber->len);
    subscriber->len -= done;
    memmove(subscriber->input, subscriber->input + done, subscriber->len);
}

static void *run_subscribers(void *context)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct subscriber *all = calloc(option.subscribers, sizeof(*all));
    static const char hello[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$14\r\nflask-socketio\r\n";
    for (unsigned i = 0; i < option.subscribers; i++) {
        all[i].input = malloc(READ_SIZE);
        memset(all[i].last, 0, sizeof(all[i].last));
        all[i].fd = open_client(epoll, i);
        if (send(all[i].fd, hello, sizeof(hello) - 1, MSG_NOSIGNAL) < 0)
            fail("send");
    }
    struct epoll_event events[EVENTS];
    while (!subscribers_stop) {
        int ready = epoll_wait(epoll, events, EVENTS, 50);
        for (int i = 0; i < ready; i++)
            read_subscriber(&all[events[i].data.u32]);
    }
    return context;
}

/* ---- publishers ---- */

struct publisher {
    int fd;
    unsigned in_flight;
    uint32_t number;
    char *output;
    size_t len;
    char *template; /* a whole command; what differs is written over it */
    size_t template_len, mark, room;
};

/* A pickle as python-socketio 5.7 writes it (protocol 4), with the mark at the start of its data. */
static void make_template(struct publisher *publisher, unsigned index)
{
    char *payload = malloc(option.bytes + 512);
    publisher->template = malloc(option.bytes + 512);
    uint32_t data_len =
        (uint32_t)(MARK_LEN + (option.bytes > 200 ? option.bytes - 200 : 0));
    char *at = payload;
#define PUT(literal) (memcpy(at, literal, sizeof(literal) - 1), at += sizeof(literal) - 1)
    PUT("\x80\x04}\x94(\x8c\x06method\x94\x8c\x04"
        "emit\x94\x8c\x05"
        "event\x94"
        "\x8c\x07message\x94\x8c\x04"
        "data\x94X");
    for (int i = 0; i < 4; i++)
        *at++ = (char)(data_len >> (8 * i));
    publisher->mark = (size_t)(at - payload);
    memset(at, 'x', data_len);
    *at = '@';
    at += data_len;
    PUT("\x94\x8c\tnamespace\x94\x8c\x01/\x94\x8c\x04room\x94\x8c\x07room-");
    publisher->room = (size_t)(at - payload);
    PUT("00\x94\x8c\x08skip_sid\x94N\x8c\x08"
        "callback\x94N\x8c\x07host_id\x94\x8c ");
    at += sprintf(at, "%032x", index + 1);
    PUT("\x94u.");
    size_t len = (size_t)(at - payload);
    size_t head =
        (size_t)sprintf(publisher->template,
                        "*3\r\n$7\r\nPUBLISH\r\n$14\r\nflask-socketio\r\n$%zu\r\n", len);
    memcpy(publisher->template + head, payload, len);
    memcpy(publisher->template + head + len, "\r\n", 2);
    publisher->template_len = head + len + 2;
    publisher->mark += head;
    publisher->room += head;
    free(payload);
}

static void publish(struct publisher *publisher, unsigned index, uint64_t now)
{
    char *out = publisher->output + publisher->len;
    uint32_t number = ++publisher->number;
    memcpy(out, publisher->template, publisher->template_len);
    write_hex(out + publisher->mark + 1, 3, index);
    write_hex(out + publisher->mark + 4, 8, number);
    write_hex(out + publisher->mark + 12, 12, now);
    out[publisher->room] = (char)('0' + number % ROOMS / 10);
    out[publisher->room + 1] = (char)('0' + number % 10);
    publisher->len += publisher->template_len;
    publisher->in_flight++;
    count(&published);
}

static void flush(struct publisher *publisher)
{
    if (publisher->len == 0)
        return;
    ssize_t len = send(publisher->fd, publisher->output, publisher->len, MSG_NOSIGNAL);
    if (len < 0 && errno != EAGAIN)
        fail("send");
    if (len <= 0)
        return;
    publisher->len -= (size_t)len;
    memmove(publisher->output, publisher->output + len, publisher->len);
}

static void read_answers(struct publisher *publisher)
{
    char bytes[16 * 1024];
    ssize_t len = recv(publisher->fd, bytes, sizeof(bytes), 0);
    if (len == 0)
        fail("a publisher was closed");
    for (ssize_t i = 0; i < len; i++) {
        broken += bytes[i] == '-';
        if (bytes[i] == '\n') {
            publisher->in_flight--;
            count(&answered);
        }
    }
}

/* What is due by now, for the paced form; else what the depth allows. */
static void publish_due(struct publisher *all, uint64_t start, uint64_t *made)
{
    uint64_t now = now_ns();
    if (option.rate > 0) {
        uint64_t due = (uint64_t)((double)(now - start) * option.rate / 1e9);
        for (; *made < due; ++*made) {
            unsigned i = (unsigned)(*made % option.publishers);
            /* timed from when it should have been sent: being late is latency */
            publish(&all[i], i,
                    start + (uint64_t)((double)(*made + 1) / option.rate * 1e9));
            flush(&all[i]);
        }
        return;
    }
    for (unsigned i = 0; i < option.publishers; i++) {
        while (all[i].in_flight < option.depth)
            publish(&all[i], i, now);
        flush(&all[i]);
    }
}

static void *run_publishers(void *context)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct publisher *all = calloc(option.publishers, sizeof(*all));
    for (unsigned i = 0; i < option.publishers; i++) {
        all[i].output = malloc((option.depth + 4096) * (option.bytes + 512));
        make_template(&all[i], i);
        all[i].fd = open_client(epoll, i);
    }
    uint64_t start = now_ns();
    uint64_t made = 0;
    struct epoll_event events[EVENTS];
    while (!publishers_stop) {
        publish_due(all, start, &made);
        struct timespec wait = {.tv_nsec = option.rate > 0 ? 200000 : 5000000};
        int ready = epoll_pwait2(epoll, events, EVENTS, &wait, NULL);
        for (int i = 0; i < ready; i++)
            read_answers(&all[events[i].data.u32]);
    }
    /* What is under way is answered, so that it can be expected. */
    uint64_t until = now_ns() + ANSWERED_WITHIN_NS;
    while (published > answered && now_ns() < until) {
        for (unsigned i = 0; i < option.publishers; i++)
            flush(&all[i]);
        int ready = epoll_wait(epoll, events, EVENTS, 5);
        for (int i = 0; i < ready; i++)
            read_answers(&all[events[i].data.u32]);
    }
    return context;
}

/* ---- measuring ---- */

/* Nanoseconds on a processor, of all threads of all processes. */
static uint64_t cpu_ns(void)
{
    uint64_t sum = 0;
    char *pids = strdup(option.pids);
    char *rest = pids;
    for (char *pid; (pid = strsep(&rest, ",")) != NULL;) {
        char path[600];
        snprintf(path, sizeof(path), "/proc/%.20s/task", pid);
        DIR *tasks = opendir(path);
        for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
            snprintf(path, sizeof(path), "/proc/%.20s/task/%s/schedstat", pid,
                     task->d_name);
            FILE *file = fopen(path, "r");
            unsigned long long ran = 0;
            if (file != NULL && fscanf(file, "%llu", &ran) == 1)
                sum += ran;
            if (file != NULL)
                fclose(file);
        }
        if (tasks != NULL)
            closedir(tasks);
    }
    free(pids);
    return sum;
}

static void pause_for(double seconds)
{
    struct timespec time = {.tv_sec = (time_t)seconds};
    time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
    nanosleep(&time, NULL);
}

static int by_size(const void *a, const void *b)
{
    uint32_t first = *(const uint32_t *)a;
    uint32_t second = *(const uint32_t *)b;
    return (first > second) - (first < second);
}

int main(int argc, char **argv)
{
    if (argc != 9) {
        fprintf(stderr,
                "publish_load PORT[,PORT...] SUBSCRIBERS PUBLISHERS RATE DEPTH SECONDS "
                "BYTES PID[,PID...]\n");
        return 2;
    }
    for (char *port;
         option.port_count < PORTS_MAX && (port = strsep(&argv[1], ",")) != NULL;)
        option.ports[option.port_count++] = (uint16_t)atoi(port);
    option.subscribers = (unsigned)atoi(argv[2]);
    option.publishers = (unsigned)atoi(argv[3]);
    option.rate = atof(argv[4]);
    option.depth = (unsigned)atoi(argv[5]);
    option.seconds = atof(argv[6]);
    option.bytes = (size_t)atol(argv[7]);
    option.pids = argv[8];
    if (option.publishers > CLIENTS_MAX || option.bytes > 60000)
        return 2;
    latencies = malloc(LATENCIES_MAX * sizeof(*latencies));
    pthread_t subscribers, publishers;
    pthread_create(&subscribers, NULL, run_subscribers, NULL);
    while (subscribed < option.subscribers)
        pause_for(0.01);
    pthread_create(&publishers, NULL, run_publishers, NULL);
    pause_for(1);
    uint64_t cpu = cpu_ns();
    uint64_t start = now_ns();
    unsigned long long first_published = published, first_delivered = delivered;
    is_measuring = true;
    pause_for(option.seconds);
    is_measuring = false;
    double took = (double)(now_ns() - start) / 1e9;
    cpu = cpu_ns() - cpu;
    unsigned long long sent = published - first_published;
    unsigned long long came = delivered - first_delivered;
    publishers_stop = true;
    pthread_join(publishers, NULL);
    for (double waited = 0;
         waited < DELIVERED_WITHIN && delivered < answered * option.subscribers;
         waited += 0.05)
        pause_for(0.05);
    pause_for(0.1);
    subscribers_stop = true;
    pthread_join(subscribers, NULL);
    unsigned samples = latency_count;
    qsort(latencies, samples, sizeof(*latencies), by_size);
    long long lost = (long long)(answered * option.subscribers) - (long long)delivered;
    printf("{\"published\": %.0f, \"delivered\": %.0f, \"cpu\": %.4f, "
           "\"cpu_per_delivery\": %.4f, \"p50\": %u, \"p99\": %u, \"total\": %llu, "
           "\"unanswered\": %llu, \"lost\": %lld, \"missing\": %llu, "
           "\"disordered\": %llu, \"broken\": %llu}\n",
           (double)sent / took, (double)came / took, (double)cpu / 1e9 / took,
           came > 0 ? (double)cpu / 1e3 / (double)came : 0.0,
           samples > 0 ? latencies[samples / 2] : 0,
           samples > 0 ? latencies[samples / 100 * 99] : 0, published,
           published - answered, lost > 0 ? lost : 0, missing, disordered, broken);
    return 0;
}
