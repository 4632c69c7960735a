/*
 * Which dialect a pod speaks, when nobody said: from what it publishes.
 *
 *                 a list as data          bare data or binary
 *     UNKNOWN ───────────────▶ ASSUMED ───────────────▶ PROVEN          NAMED: by its listener or its name;
 *     json14 │                 json15                   json14          nothing that it publishes changes that
 *            │                    │ a pickle               │ a pickle
 *            └────────────────────┴──▶ PROVEN pickle ◀─────┘
 *                                        │ JSON: another version has its name now; as from UNKNOWN
 *                                        ▼
 *
 *  Every version reads json14, so that is what a pod gets which never published. Up to 5.15.0 data is bare: one
 *  value that is no list proves json14. A list may be json15, or json14's one list.
 */
#pragma once

#include "broker/message.h"

enum dialect_basis {
    DIALECT_UNKNOWN, /* it never published: json14 */
    DIALECT_ASSUMED, /* it published lists only: json15 */
    DIALECT_PROVEN,
    DIALECT_NAMED,
};
#define DIALECT_BASIS_COUNT 4

struct dialect_guess {
    enum message_dialect dialect; /* what it is given: never RAW */
    enum dialect_basis basis;
};

/* What a message changed. */
enum dialect_learned {
    DIALECT_NOTHING_NEW,
    DIALECT_LEARNED,   /* from UNKNOWN, or the same dialect is proven now */
    DIALECT_CORRECTED, /* the one before was wrong, or the pod has another version now */
};

void dialect_guess_init(struct dialect_guess *guess);

/* Told by configuration. RAW, or auto, is no name: as init. */
void dialect_guess_name(struct dialect_guess *guess, enum message_dialect dialect);

/* The pod published `message`, as message_scan read it. */
enum dialect_learned dialect_guess_learn(struct dialect_guess *guess,
                                         const struct message *message);

/* The dialect to read a message of this pod by: what its bytes prove, but of what a list as data means the
 * pod's own dialect decides. RAW where the message is no message. */
enum message_dialect dialect_guess_read(const struct dialect_guess *guess,
                                        const struct message *message);

/* "unknown", "assumed", "proven", "named": as in metrics and logs. */
const char *dialect_basis_name(enum dialect_basis basis);

/* "pickle", "json14", "json15"; "auto" is RAW. False: none of them. */
bool dialect_name_parse(struct slice name, enum message_dialect *dialect) MUST_CHECK;

/* The dialect at the end of a client's name ("pod-7:json15", also ":auto"): *name becomes what is before the colon. False,
 * and nothing changed: the name ends with none. */
bool dialect_name_split(struct slice *name, enum message_dialect *dialect) MUST_CHECK;
