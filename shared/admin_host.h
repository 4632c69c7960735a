/*
 * Which host a request to the admin port was meant for: a defence against DNS rebinding.
 *
 * A web page may give its own name the address 127.0.0.1, and its scripts then read whatever answers there as if it
 * were the page's own server. What they cannot do is send another Host than that name. So names must be known, while
 * IP addresses, which nobody can rebind, and localhost are always good.
 */
#pragma once

#include "shared/options.h"

enum admin_host {
    ADMIN_HOST_GOOD,   /* also a head without Host: no browser sends one */
    ADMIN_HOST_OTHER,  /* meant for a name that is not in the list */
    ADMIN_HOST_BROKEN, /* several Hosts, or what is no host */
};

/* Judges the fields of a head (lines after the request line, each with CRLF, the last one may lack it). `hosts` are
 * names without a port, "*.example.com" for those below a domain, "*" for all; NULL: none. RFC 9110 section 7.2. */
enum admin_host admin_host_judge(struct slice fields, const struct text_list *hosts);

/* For the row of admin.hosts. */
const char *admin_host_check(const void *value);
