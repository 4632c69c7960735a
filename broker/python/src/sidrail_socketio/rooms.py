"""Canonical rooms: the bytes by which the broker knows a room, so that rooms that are one key of a dict are one room.

    "lobby"               s:lobby
    42, True, 42.0        i:42, i:1
    1.5                   f:1.5
    None                  (nothing)   everybody of the namespace
    anything else         none: the broker cannot tell such a room from a message either, and gives it to all
"""
from __future__ import annotations

from typing import Optional

_INT64 = 2**63
_WHOLE_FLOATS = 2.0**53


def canonical(room: object) -> Optional[bytes]:
    """The canonical form of ``room``, or None if it has none."""
    if room is None:
        return b""
    if isinstance(room, str):
        return b"s:" + str.__str__(room).encode("utf-8", "surrogatepass")
    if isinstance(room, int):
        return b"i:%d" % int(room) if -_INT64 <= room < _INT64 else None
    if isinstance(room, float):
        if room != room:
            return None
        if abs(room) <= _WHOLE_FLOATS and room == int(room):
            return b"i:%d" % int(room)
        return b"f:" + float.__repr__(room).encode()
    return None
