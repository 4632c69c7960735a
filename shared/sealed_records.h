/*
 * Which plaintext of a TLS connection its peer can have opened, told from how much ciphertext its kernel has
 * acknowledged.
 *
 *     plaintext   ├── 100 ──┼──────── 16384 ────────┼─ 7 ─┤
 *     records     ├── 122 ───┼──────── 16406 ─────────┼─ 29 ─┤      (and tickets, alerts: no plaintext)
 *     acknowledged ─────────────▲     only the first record: 100 bytes
 *
 * A record can be opened only when its last byte is there, so what is acknowledged is whole records, and exact: a part
 * of a record tells its peer nothing. Memory is that of the records which are not acknowledged; the owner forgets
 * the others when asked to (sealed_records_is_full).
 */
#pragma once

#include "shared/base.h"

#include <stdbool.h>
#include <stdint.h>

struct sealed_record {
    uint64_t plain_end, cipher_end; /* bytes of the connection up to its end */
};

/* All zero is that of a new connection. */
struct sealed_records {
    struct sealed_record *items; /* a ring of `capacity` */
    unsigned first, count, capacity;
    uint64_t plain;              /* all that was sealed */
    uint64_t acknowledged_plain; /* of it */
};

void sealed_records_cleanup(struct sealed_records *records);

/* One record was written: `len` bytes of plaintext, behind which `cipher_end` bytes of the connection are written. */
void sealed_records_note(struct sealed_records *records, size_t len, uint64_t cipher_end);

/* The next note takes more memory, unless sealed_records_acknowledge() forgets something. */
bool sealed_records_is_full(const struct sealed_records *records);

/* The first `cipher` bytes of the connection are acknowledged. Never goes back. */
void sealed_records_acknowledge(struct sealed_records *records, uint64_t cipher);

/* Plaintext that was sealed and is not acknowledged. */
size_t sealed_records_unacknowledged(const struct sealed_records *records);
