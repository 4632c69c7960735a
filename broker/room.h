/*
 * Canonical rooms: the bytes by which a room is known everywhere in the broker and between brokers, so
 * that rooms that are one dict key in Python are one room here, whatever encoding named them.
 *
 *     'lobby'                 s:lobby      UTF-8, lone surrogates as their three bytes
 *     42, True, 42.0          i:42, i:1    int64; floats that are whole and within ±2^53
 *     1.5, 1e300, inf         f:1.5        shortest text that reads back the same, as Python's repr
 *     anything else           none         (None, nan, big integers, tuples, objects)
 */
#pragma once

#include "broker/scan_scratch.h"
#include "broker/scanned.h"

/* Longest canonical room: what an envelope can carry. */
#define ROOM_LEN_MAX 65535

/* Writes the canonical room of `value` into memory of `scratch`. False when it has none, is too long,
 * or the scratch is used up. */
bool room_write(const struct scanned_value *value, struct scan_scratch *scratch,
                struct slice *room) MUST_CHECK;

/* The canonical room of a sid or another text. */
bool room_write_text(struct slice text, struct scan_scratch *scratch,
                     struct slice *room) MUST_CHECK;

/* Writes `number` as Python's repr does, at most 32 bytes; returns the length. */
size_t room_write_float(double number, char *text);

/* The part of a canonical room that is hashed: of a text with a {tag} that is not empty only the tag
 * ("s:doc:{42}:chat" hashes like "s:42"); else all of it. *prefix is "s:" when a tag was found and
 * empty otherwise: hash prefix and part together. */
void room_hashed_part(struct slice room, struct slice *prefix, struct slice *part);
