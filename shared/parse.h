/*
 * What an incremental parser says. Bytes come in pieces; a parser is given all that has come so far, or
 * keeps its own place, and answers with one of three.
 *
 *            ┌──────── PARSE_MORE ◀──┐  (give it more bytes)
 *            ▼                       │
 *         bytes ──▶ x_parse ─────────┤
 *                                    ├──▶ PARSE_DONE  (the value is whole)
 *                                    └──▶ PARSE_BAD   (no bytes that follow can make it good)
 *
 * The answer is the same however the bytes were split.
 */
#pragma once

enum parse_result { PARSE_DONE, PARSE_MORE, PARSE_BAD };
