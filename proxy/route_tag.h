/*
 * The tag: our mark inside a sid that names an endpoint.
 *
 *     7nHyXcG9ivnZONweAAAA . a Zm9vYmFyYmE
 *     └─ the endpoint's sid ┘  │ └ 11 base64url characters: 64 bits
 *                              └ ID of the key, one of [A-Za-z0-9]
 *
 *     tag = the first 8 bytes of HMAC-SHA-256(key, "sidrail-tag-1" 00 upstream 00 identity 00 port)
 *
 * Replicas that read the same key file compute the same tags and need no other agreement. Only the
 * last suffix is ours: an edge and a sidecar with different key IDs each add and strip their own.
 * Eleven characters hold 66 bits, so the last two bits are zero; a last character with one of them
 * set is not ours, or one endpoint would have four spellings.
 */
#pragma once

#include "shared/base.h"
#include "shared/key_file.h"
#include "shared/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define ROUTE_TAG_LEN        11 /* the tag's characters */
#define ROUTE_TAG_SUFFIX_LEN 13 /* '.', key ID, tag: what a sid grows by */

/* The tag of an endpoint under one key. `port` is 0 for a unix socket. `attempt` is 0; the later of
 * two endpoints whose tags collide gets 00 and the decimal attempt appended to what is hashed. */
uint64_t route_tag_make(const struct file_key *key, struct slice upstream,
                        struct slice identity, unsigned port, unsigned attempt);

/* Exactly ROUTE_TAG_LEN base64url characters, no NUL. */
void route_tag_format(uint64_t tag, char text[ROUTE_TAG_LEN]);

/* The other way: exactly ROUTE_TAG_LEN characters of the alphabet with a canonical last one.
 * False leaves *tag alone. */
bool route_tag_parse(struct slice text, uint64_t *tag) MUST_CHECK;

/* Writes ".", the key ID and the tag: what is put behind a sid. No NUL. */
void route_tag_suffix(char key_id, uint64_t tag, char text[ROUTE_TAG_SUFFIX_LEN]);

/* Takes our tag off the end of a sid: true when it ends in '.', the ID of one of `keys`, and a
 * canonical tag, with at least one byte before; then *key is the key's place, *tag the tag and
 * *bare_len the length of the sid that its endpoint knows. False: an untagged sid, nothing is set. */
bool route_tag_split(struct slice sid, const struct file_keys *keys, size_t *key,
                     uint64_t *tag, size_t *bare_len) MUST_CHECK;

/* Room in the caller's buffer for base64url of `len` bytes is (len * 4 + 2) / 3, no padding, no NUL. */
void base64url_encode(const unsigned char *bytes, size_t len, char *text);

/* Exactly `len` bytes from the (len * 4 + 2) / 3 characters of `text`; false when the length is
 * another, a character is outside the alphabet, or unused bits are set. */
bool base64url_decode(struct slice text, unsigned char *bytes, size_t len) MUST_CHECK;
