/*
 * A file of secret keys that several processes share, and what was read from it.
 *
 *     # comment
 *     b 9f86d081884c7d659a2feaa0c55ad015      the first key signs
 *     a 60303ae22b998861bce3b28f33eec1be      every key verifies
 *     │ └ 32 hexadecimal digits: 128 bits
 *     └ ID: one letter or digit
 *
 * To rotate: append the new key everywhere, move it to the front everywhere, remove the old one
 * everywhere.
 */
#pragma once

#include "shared/base.h"
#include "shared/slice.h"

#include <stdbool.h>

#define FILE_KEYS_MAX      16 /* lines of a key file */
#define FILE_KEY_BYTES_LEN 16

/* One key: its ID and 128 bits. */
struct file_key {
    char id;
    unsigned char bytes[FILE_KEY_BYTES_LEN];
};

/* The keys of a file, a plain value. The first signs, all verify. */
struct file_keys {
    size_t count;
    struct file_key keys[FILE_KEYS_MAX];
};

/* Reads the text of a key file: lines "ID KEY" (KEY 32 hex digits), '#' and blank lines skipped,
 * 1 to FILE_KEYS_MAX keys, no ID twice. False: `error` says "line N: why", `keys` is undefined.
 * `error` never contains key material. */
bool file_keys_parse(struct slice text, struct file_keys *keys, char *error,
                     size_t error_size) MUST_CHECK;

/* As above from a file (at most 64 KiB); `error` then names the path and the reason. Sets
 * *is_readable_by_others, which deserves a warning. */
bool file_keys_load(const char *path, struct file_keys *keys, bool *is_readable_by_others,
                    char *error, size_t error_size) MUST_CHECK;

/* One random key with ID '0', which lives only as long as this process. */
void file_keys_make_random(struct file_keys *keys);

/* Place of the key with this ID, or -1. */
int file_keys_find(const struct file_keys *keys, char id);

/* True when both hold the same keys in the same order. */
bool file_keys_equal(const struct file_keys *a, const struct file_keys *b);
