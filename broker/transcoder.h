/*
 * A message in the dialect of its receiver: so that Python's own library of that version reads the same
 * call that the publisher made.
 *
 *     payload, from, to ──▶ transcoder_run ──▶ payload of the other dialect │ refused: why
 *
 * Nothing is executed, nothing is guessed: from is what the publisher speaks (dialect_guess).
 *
 *   emit         several arguments, one argument that is a list, none; binary data with its attachments
 *   callback     args and the triple of an emit are tuples in a pickle and lists in JSON
 *   all          unknown keys are kept; rooms, skip_sid, numbers and texts of any kind
 *
 * Refused are values that the target has no form for: objects and sets, keys that are no texts, numbers,
 * booleans or None, bytes outside of an emit's data; and what is too long or nested too deep.
 *
 * json14 cannot say "several arguments": its readers get one list, as from publishers of their own version.
 * Binary data reaches readers from 5.14.2; 5.14.0 and 5.14.1 have no form for it.
 */
#pragma once

#include "broker/message.h"

struct transcoder;

/* Messages nested deeper than depth_max (4..256) or longer than len_max when written are refused. */
struct transcoder *transcoder_new(unsigned depth_max, size_t len_max);
void transcoder_free(struct transcoder *transcoder);

/* *out is the payload as `to`: borrowed, valid until the next run; or `payload` itself where both dialects
 * have the same form (and when one of them is RAW). False: refused. */
bool transcoder_run(struct transcoder *transcoder, struct slice payload,
                    enum message_dialect from, enum message_dialect to,
                    struct slice *out) MUST_CHECK;

/* Why the last run was refused: one line of printable ASCII. */
const char *transcoder_refused(const struct transcoder *transcoder);
