/*
 * The opcodes by which a pickle makes Python look up, call or build something. Nothing is executed: each is
 * noted, and leaves an object on the stack of which nothing is known.
 *
 * Three calls are known to do no more than make bytes, and are how Python's pickler writes bytes below
 * protocol 3 and bytearray below protocol 5:
 *
 *     builtins.bytearray()  builtins.bytearray(bytes)  builtins.bytes()  _codecs.encode(text, 'latin1')
 */
#pragma once

#include "broker/pickle_machine.h"

/* One opcode that the plain ones do not include. */
enum pickle_step pickle_step_code(struct pickle_machine *machine, unsigned char opcode);
