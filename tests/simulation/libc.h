/*
 * What the brokers' code, libevent and hiredis ask of the C library and the kernel, answered by the world. The
 * executable defines these functions, so that calls of shared and static libraries bind to them:
 *
 *     clock_gettime gettimeofday time getrandom getpid getrusage sigaction           time and chance
 *     socket bind listen accept4 connect send sendmsg recv read write close shutdown      descriptors of wires
 *     getsockopt setsockopt getsockname getpeername ioctl fcntl socketpair pipe2
 *     epoll_create1 epoll_ctl epoll_wait                                                 one set a broker
 *     open fstat stat inotify_init1 fopen                                                files below /sim/
 *
 * Descriptors from 32 on are the world's; others go to the kernel (configuration that is loaded, standard error).
 */
#pragma once

#include "tests/simulation/wire.h"

/* Until it is ended, time is the world's. Wall-clock time begins on 2026-01-01. */
void libc_begin(void);
void libc_end(void);

/* Whose code runs now: new descriptors are at this host; `on_ready` is called when one of them changes. -1: nobody's. */
void libc_set_host(int host);
int libc_host(void);

/* epoll_wait() found nothing to do: how long it would have waited, microseconds; UINT64_MAX: for ever. Resets it. */
bool libc_was_idle(uint64_t *wait);

/* A broker's descriptor has changed. */
extern void (*libc_on_ready)(int host);
/* The loop would wait: it must return. */
extern void (*libc_on_idle)(void);

/* All descriptors of a host end, as at the end of a process. */
void libc_kill_host(int host, bool silent);
/* Descriptors of a host (without epoll sets and what is no wire). */
unsigned libc_count_wires(int host);

/* A file that brokers read; the text is copied. */
void libc_set_file(const char *path, const char *text);

/* Bytes that brokers have allocated and not freed; 0 under a sanitizer, which has an allocator of its own. */
size_t libc_memory(void);

/* Real CPU time of the process, microseconds. */
uint64_t libc_cpu_time(void);
