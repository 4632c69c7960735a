/*
 * The seal around what brokers send each other over Redis, where cluster.key_file is given: only a
 * holder of one of its keys can have sent it, and only to this channel.
 *
 *     "SK"  version  flags  key ID  MAC │ envelope ("S1") or control ("SC")
 *       2      1       1      1     16  │
 *
 *     MAC = the first 16 bytes of HMAC-SHA-256(key, "SK" version flags key-ID
 *                                                   channel-length(2, little endian) channel  body)
 *     with the flag RETRANSMIT of an envelope read as 0: it is set when a message is sent again.
 *
 *                     no keys                 keys                    keys, accepts unsigned
 *     sealed          opened, unchecked       checked                 checked
 *     not sealed      taken as it is          SEAL_UNSIGNED           taken as it is
 */
#pragma once

#include "shared/key_file.h"

#include <stdint.h>

struct seal;

#define SEAL_LEN 21

/* Of the sender: it drops what is not sealed. */
#define SEAL_STRICT 1

enum seal_verdict {
    SEAL_CHECKED,   /* by a holder of one of the keys */
    SEAL_UNCHECKED, /* taken unauthenticated, as the configuration says */
    /* What follows is to be dropped. */
    SEAL_UNSIGNED,    /* it has no seal */
    SEAL_UNKNOWN_KEY, /* no key with this ID is in the file */
    SEAL_FORGED,      /* another key of this ID, another channel, or other bytes */
    SEAL_BAD,         /* cut short, or of a later version */
};

/* Why something is dropped, from 0: SEAL_UNSIGNED is the first. */
#define SEAL_REFUSAL_COUNT (SEAL_BAD + 1 - SEAL_UNSIGNED)

/* As in metrics. */
const char *seal_refusal_label(int refusal);

/* Has no keys. */
struct seal *seal_new(void);
void seal_free(struct seal *seal);

/* From now on. `keys` (copied) NULL: none. */
void seal_set_keys(struct seal *seal, const struct file_keys *keys,
                   bool accepts_unsigned);

bool seal_has_keys(const struct seal *seal);

/* It has keys and takes nothing that is not sealed. */
bool seal_is_strict(const struct seal *seal);

/* How many bytes seal_write() puts before a body: SEAL_LEN, or 0 without keys. */
size_t seal_len(const struct seal *seal);

/* Writes the seal of `body`, which is published to `channel` (at most 65,535 bytes). Nothing without
 * keys. */
void seal_write(struct seal *seal, struct slice channel, struct slice body, char *room);

/* What lies inside, sealed or not, without checking it; false: cut short, or of a later version. *flags are the
 * seal's, 0 without one. */
bool seal_peek(struct slice bytes, struct slice *body, unsigned *flags) MUST_CHECK;

/* Judges what came on `channel`; *body is what lies inside where it is to be taken. */
enum seal_verdict seal_open(struct seal *seal, struct slice channel, struct slice bytes,
                            struct slice *body) MUST_CHECK;
