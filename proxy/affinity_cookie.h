/*
 * The affinity cookie: where this browser's last session lived, and a key for the next one.
 *
 *     a Zm9vYmFyYmE . 3kQ9xw . q83vEjRWeJA
 *     │ │             │        └ client key, 64 random bits: every replica ranks the same endpoints for it
 *     │ │             └ upstream hash, 36 bits: cookies of another upstream are ignored
 *     │ └ tag of the endpoint
 *     └ ID of the key that made the tag
 *
 * The value uses token characters only, so that Python's SimpleCookie and every jar keep it as it is.
 * It is set on the answers to handshakes (the polling 200, the 101 of a sid-less upgrade), never on
 * OPTIONS, and is taken out of what an endpoint sees (the re-writer of heads does that).
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define AFFINITY_COOKIE_LEN 31 /* of the value: 1 + 11 + 1 + 6 + 1 + 11 */

/* A bound for the whole value of a Set-Cookie field: longest name, path and domain that the options
 * admit, and every attribute. */
#define AFFINITY_COOKIE_FIELD_MAX 1024

struct affinity_cookie {
    char key_id;
    uint64_t tag;
    uint64_t upstream_hash; /* of upstream_hash_of() */
    uint64_t client_key;
};

enum same_site { SAME_SITE_AUTO, SAME_SITE_NONE, SAME_SITE_LAX, SAME_SITE_STRICT };
enum cookie_secure { COOKIE_SECURE_AUTO, COOKIE_SECURE_ALWAYS, COOKIE_SECURE_NEVER };
enum cookie_on { COOKIE_ON_ENGINE_IO, COOKIE_ON_ALL };

/* How an upstream's cookie is written: the options affinity.cookie.* */
struct affinity_cookie_options {
    char *name;
    char *path;
    char *domain;     /* "" = none */
    uint64_t max_age; /* 0 = a session cookie */
    int on;           /* enum cookie_on */
    int same_site;    /* enum same_site */
    int secure;       /* enum cookie_secure */
};

/* 36 bits of XXH64 of an upstream's name. */
uint64_t upstream_hash_of(struct slice upstream);

/* The value, exactly AFFINITY_COOKIE_LEN characters, no NUL. */
void affinity_cookie_format(const struct affinity_cookie *cookie,
                            char text[AFFINITY_COOKIE_LEN]);

/* A value in: false for anything but what affinity_cookie_format() writes. */
bool affinity_cookie_parse(struct slice value, struct affinity_cookie *cookie) MUST_CHECK;

/* Takes the next cookie called `name` (case counts) out of the rest of one Cookie field's value:
 * true with its value (borrowed; a surrounding pair of double quotes cut off) and *rest moved behind
 * it; false when there is none. Start with the whole field value. */
bool affinity_cookie_next(struct slice *rest, struct slice name, struct slice *value);

/* Writes the value of a Set-Cookie field, "NAME=VALUE; Path=/; HttpOnly…", into `text`; returns its
 * length, at most AFFINITY_COOKIE_FIELD_MAX. `is_tls`: the client speaks https to the outermost
 * trusted hop. `is_cross_site`: the request's Origin is another site than its Host.
 *
 *   SameSite auto   cross-site over TLS: None, Secure, Partitioned; else Lax
 *   Secure auto     exactly over TLS; SameSite=None forces it, browsers refuse it without
 *   Partitioned     only with cross-site, TLS and SameSite=None */
size_t affinity_cookie_write_field(const struct affinity_cookie_options *options,
                                   const struct affinity_cookie *cookie, bool is_tls,
                                   bool is_cross_site,
                                   char text[AFFINITY_COOKIE_FIELD_MAX]);

/* True when `origin` (the Origin field: "https://app.example:8443", "null") names another host than
 * `host` (the Host field, with or without a port). Ports and schemes do not make another site.
 * False when there is no Origin. */
bool affinity_cookie_is_cross_site(struct slice origin, struct slice host);
