/*
 * Sockets: listen, connect, options. All are non-blocking and close-on-exec.
 */
#pragma once

#include "shared/address.h"

#include <sys/types.h>

#define NET_WHY_SIZE 256

struct net_listen_options {
    int backlog;     /* 0: 1024 */
    bool reuse_port; /* one socket a thread on one port; no meaning for unix */
    mode_t mode;     /* of a unix socket file; 0: 0660 */
};

/* A listening socket, or -1 with `why` ("address already in use"). IPv6 sockets take IPv6 only unless the
 * address is [::], which takes both. A unix socket file that nobody listens on is removed first; a live one
 * is an error, and so is a file that is not a socket. */
int net_listen(const struct address *address, const struct net_listen_options *options,
               char why[NET_WHY_SIZE]) MUST_CHECK;

/* Closes; a unix socket's file is unlinked, if it is still ours. */
void net_listen_close(int fd);

/* Closes; the file stays (another thread or process goes on listening). */
void net_listen_release(int fd);

/* The address that a socket is bound to (after port 0). */
struct address net_local_address(int fd);

/* Bytes that were written to a socket and that the peer's kernel has not acknowledged; on a unix socket: that
 * the peer has not read. Keeps its value after a reset. 0 where it cannot be told. (tcp(7), SIOCOUTQ) */
size_t net_unacknowledged(int fd);

/* Begins to connect: a descriptor, connected or (*in_progress) on its way; then wait until it is writable
 * and ask net_connect_result(). -1 with errno when it failed at once. */
int net_connect(const struct address *address, bool *in_progress) MUST_CHECK;

/* 0, or the errno of the connect. */
int net_connect_result(int fd);

/* Options of TCP sockets; silently nothing on unix sockets. Durations in microseconds, 0 = off. */
void net_set_no_delay(int fd);
void net_set_keep_alive(
    int fd, uint64_t idle); /* first probe after idle, then 3 at idle/3, at least 1 s */
void net_set_user_timeout(int fd,
                          uint64_t limit); /* unacknowledged bytes end the connection */

/* The next close() sends RST instead of FIN. */
void net_set_reset_on_close(int fd);

/* Raises RLIMIT_NOFILE to the hard limit; the limit that holds now. */
uint64_t net_raise_descriptor_limit(void);
