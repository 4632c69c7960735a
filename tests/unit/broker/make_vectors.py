#!/usr/bin/env python3
"""Turns the recorded messages of tests/vectors into lines that a C program reads with slice_cut.

usage: make_vectors.py VECTORS_FOLDER OUTPUT

One line a message, tab between fields, texts in hex ('-' for None):
name, encoding, method, namespace, rooms ('?' not known, '*' everybody, else canonical rooms in hex with
commas between), sid, host_id, callback (0 or 1), carries code (0 or 1), payload.
"""
import ast
import json
import pathlib
import pickletools
import sys

CODE = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "EXT1", "EXT2",
        "EXT4", "PERSID", "BINPERSID"}


def canonical(room):
    if isinstance(room, str):
        return b"s:" + room.encode("utf-8", "surrogatepass")
    if isinstance(room, (bool, int)):
        return b"i:%d" % int(room)
    raise ValueError(room)


def rooms_of(expect):
    if expect["method"] not in ("emit", "close_room", "enter_room", "leave_room"):
        return "*"
    try:
        room = ast.literal_eval(expect["room_repr"])
    except (ValueError, SyntaxError):
        return "?"
    if not room:
        return "*"
    rooms = list(room) if isinstance(room, (list, tuple)) else [room]
    return ",".join(canonical(each).hex() for each in rooms)


def carries_code(payload, codec):
    return codec != "json" and any(op.name in CODE for op, _, _ in pickletools.genops(payload))


def text(value):
    return "-" if value is None else value.encode().hex()


def main():
    folder = pathlib.Path(sys.argv[1])
    lines = []
    for row in map(json.loads, (folder / "vectors.jsonl").read_text().splitlines()):
        payload = (folder / row["file"]).read_bytes() if row["file"] else bytes.fromhex(row["hex"])
        expect = row["expect"]
        lines.append("\t".join([
            f"{row['sio']}/{row['codec']}/{row['op']}", "json" if row["codec"] == "json" else "pickle",
            expect["method"], text(expect["namespace"]), rooms_of(expect), text(expect["sid"]),
            text(expect["host_id"]), str(int(expect["has_callback"])),
            str(int(carries_code(payload, row["codec"]))), payload.hex()]))
    pathlib.Path(sys.argv[2]).write_text("\n".join(lines) + "\n")


main()
