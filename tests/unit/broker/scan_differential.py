#!/usr/bin/env python3
"""Compares the broker's scanners with Python's own pickle and json on random messages, whole and damaged.

usage: scan_differential.py BATCH_PROGRAM [--count N] [--seed N]

Damaged are bytes (damage), operations (remix), and pickles that no pickler wrote (program). SIDRAIL_FULL=1: twenty times as many.

Proves: a message that Python's pickler or json module writes from plain data is read, and read as Python
reads it; of damaged bytes, what the scanner accepts as a plain pickle Python loads without looking anything
up, and both see the same; JSON is accepted exactly when json.loads accepts it (but for UTF-16, byte order
marks and nesting).
"""
import argparse
import io
import json
import math
import os
import pickle
import pickletools
import random
import resource
import struct
import subprocess
import sys

METHODS = ("emit", "callback", "disconnect", "close_room", "enter_room", "leave_room")
WORDS = ("room", "namespace", "method", "host_id", "sid", "emit", "/", "/chat", "lobby", "x", "", "a\tb\n\\",
         "größe", "日本", "😀", "\ud83d", "\udc00x", "a\0b", "\\u0041", "é", "\x85\u2028", "\x1a\r")
UNKNOWN, EVERYBODY = None, []


class Forbidden(Exception):
    """The pickle would make Python look something up."""


class PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        known = {"bytearray", "bytes"}
        if (module in ("builtins", "__builtin__") and name in known) or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)  # which knows the old name only below protocol 3
        raise Forbidden(module, name)

    def persistent_load(self, pid):
        raise Forbidden(pid)


# ---- what Python sees ----

def canonical(room):
    if isinstance(room, str):
        return "s:" + room
    if isinstance(room, int):
        return f"i:{int(room)}" if -2**63 <= room < 2**63 else None
    if isinstance(room, float) and not math.isnan(room):
        whole = abs(room) <= 2**53 and room == int(room)
        return f"i:{int(room)}" if whole else f"f:{room!r}"
    return None


def rooms_of(message):
    room = message.get("room")
    if message.get("method") in ("enter_room", "leave_room"):
        one = canonical(room)
        return UNKNOWN if one is None or not isinstance(message.get("sid"), str) else [one]
    if isinstance(room, (dict, set, frozenset)):
        return UNKNOWN
    if not room:
        return EVERYBODY
    many = list(room) if isinstance(room, (list, tuple, bytes, bytearray)) else [room]
    rooms = [canonical(each) for each in many]
    if None in rooms:
        return UNKNOWN
    return rooms[:1] if len(set(rooms)) == 1 else rooms


def view(message):
    """What the explain object must say; a set where more than one answer is right."""
    text = lambda value: value if isinstance(value, str) else None  # noqa: E731
    nothing = {"method": "opaque", "namespace": None, "rooms": UNKNOWN, "sid": None, "host_id": None,
               "callback": False}
    if not isinstance(message, dict) or message.get("method") not in METHODS or \
            not isinstance(message.get("method"), str):
        return nothing
    method, namespace = message["method"], text(message.get("namespace"))
    rooms = UNKNOWN
    if namespace is not None:
        if method == "callback":
            rooms = EVERYBODY if text(message.get("host_id")) is not None else UNKNOWN
        elif method == "disconnect":
            rooms = EVERYBODY if text(message.get("sid")) is not None else UNKNOWN
        else:
            rooms = rooms_of(message)
    return {"method": method, "namespace": namespace, "rooms": rooms, "sid": text(message.get("sid")),
            "host_id": text(message.get("host_id")),
            "callback": method == "emit" and message.get("callback") is not None}


def joined(value):
    """Text in which two surrogates that follow each other are one character: a JSON reader joins them."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return [joined(each) for each in value] if isinstance(value, list) else value


def load_pickle(payload):
    """(True, message) when Python loads it all without looking anything up."""
    stream = io.BytesIO(payload)
    try:
        message = PlainUnpickler(stream).load()
    except Exception:  # whatever a damaged pickle raises
        return False, None
    return stream.read() == b"", message


def load_json(payload):
    try:
        return True, json.loads(payload)
    except (ValueError, RecursionError):
        return False, None


# ---- random messages ----

class Maker:
    def __init__(self, rng):
        self.rng = rng
        self.shared = []

    def word(self):
        rng = self.rng
        if rng.random() < 0.6:
            return rng.choice(WORDS)
        return "".join(rng.choice("ab{}\"'é\n\u20ac") for _ in range(rng.choice((1, 3, 9, 300))))

    def number(self):
        rng = self.rng
        return rng.choice((0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -2**31, 2**53, 2**63 - 1, -2**63,
                           2**63, 10**30, -10**30, 0.0, -0.0, 1.0, 1.5, -2.25, 1e16, 1e15, 123456789.125, 1e-5,
                           1e-4, 0.1, 2.0**53, 2.0**53 + 2, 5e-324, 1.7976931348623157e308, math.inf, -math.inf,
                           math.nan, rng.random(), rng.randint(-10**6, 10**6) / 64, True, False))

    def plain(self, depth, as_json):
        rng = self.rng
        if self.shared and not as_json and rng.random() < 0.15:
            return rng.choice(self.shared)
        kind = rng.randrange(9 if as_json else 13) if depth > 0 else rng.randrange(3)
        if kind == 0:
            return None
        if kind == 1:
            return self.number()
        if kind in (2, 3):
            return self.word()
        many = range(rng.choice((0, 1, 2, 3, 5)))
        if kind in (4, 5):
            made = [self.plain(depth - 1, as_json) for _ in many]
        elif kind in (6, 7, 8):
            made = {self.word(): self.plain(depth - 1, as_json) for _ in many}
        elif kind == 9:
            made = tuple(self.plain(depth - 1, as_json) for _ in many)
        elif kind == 10:
            made = bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 3, 300))))
        elif kind == 11:
            made = bytearray(b"xyz")
        else:
            made = {(1, self.word()): None, 7: 1.5, b"room": 1, None: 2}
        self.shared.append(made)
        return made

    def room(self, as_json):
        rng = self.rng
        kind = rng.randrange(10)
        if kind < 3:
            return self.word()
        if kind < 5:
            return self.number()
        if kind < 8:
            many = [rng.choice((self.word, self.number))() for _ in range(rng.choice((0, 1, 2, 3, 6)))]
            return many if as_json or rng.random() < 0.5 else tuple(many)
        return self.plain(1, as_json)

    def message(self, as_json):
        rng = self.rng
        self.shared = []
        values = {
            "method": rng.choice(METHODS) if rng.random() < 0.95 else self.plain(1, as_json),
            "event": self.word(),
            "data": self.plain(4, as_json),
            "namespace": rng.choice(("/", "/chat", self.word())) if rng.random() < 0.95 else self.plain(1, as_json),
            "room": self.room(as_json),
            "skip_sid": rng.choice((None, self.word())),
            "callback": rng.choice((None, None, ("r", "/", 1))),
            "host_id": rng.choice(("0123456789abcdef" * 2, self.word(), None, 5)),
            "sid": rng.choice(("RemoteSid-_000000AAB", self.word(), None)),
            "id": rng.randrange(300),
            self.word(): self.plain(2, as_json),
        }
        keys = [key for key in values if rng.random() < 0.9]
        if rng.random() < 0.3:
            rng.shuffle(keys)
        if not as_json and rng.random() < 0.05:
            values["self"] = values  # refers to itself
            keys.append("self")
        return {key: values[key] for key in keys}


def write_pickle(message, rng):
    protocol = rng.randrange(6)
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol)
    if "self" not in message and rng.random() < 0.05:
        pickler.fast = True
    pickler.dump(message)
    payload = stream.getvalue()
    return pickletools.optimize(payload) if rng.random() < 0.1 else payload


def write_json(message, rng):
    text = json.dumps(message, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1)),
                      separators=rng.choice((None, (",", ":"), (" , ", " :\t"))))
    if rng.random() < 0.2:  # the last of equal keys wins
        text = text.rstrip()[:-1] + (", " if len(message) else "") + '"r\\u006fom": ["a", 2], "method": "emit"}'
    return text.encode("utf-8", "surrogatepass")


def damage(payload, rng):
    payload = bytearray(payload)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not payload:
            break
        at = rng.randrange(len(payload))
        kind = rng.randrange(6)
        if kind == 0:
            payload[at] = rng.randrange(256)
        elif kind == 1:
            payload[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del payload[at:at + rng.choice((1, 1, 2, 8))]
        elif kind == 3:
            payload[at:at] = bytes(payload[rng.randrange(len(payload)):][:rng.choice((1, 2, 5, 20))])
        elif kind == 4:
            payload[at:at] = bytes([rng.choice(b"()[]{}.,:\"\\-+eENIaJKLMNtfn0129hqjrdlustoRc\x85\x86\x87\x88\x94\x8c\x95")])
        else:
            payload[at] = rng.choice(b"(){}]aesutldhq0NKJ.\x85\x86\x87\x88\x89\x8f\x90\x91\x94\"\\,:[0")
    return bytes(payload)


def operations(payload):
    """The pickle's operations, each with its arguments; without frames, whose lengths would no longer be right."""
    places = [(place, opcode.name) for opcode, _, place in pickletools.genops(payload)]
    ends = [place for place, _ in places[1:]] + [len(payload)]
    return [payload[place:end] for (place, name), end in zip(places, ends) if name != "FRAME"]


def remix(payload, other, rng):
    """The same with operations left out, doubled, exchanged, or taken from another pickle: most of it stays readable."""
    mine, theirs = operations(payload), operations(other)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at, to = rng.randrange(len(mine)), rng.randrange(len(mine))
        kind = rng.randrange(6)
        if kind == 0 and len(mine) > 2:
            del mine[at]
        elif kind == 1:
            mine.insert(to, mine[at])
        elif kind == 2:
            mine[at], mine[to] = mine[to], mine[at]
        elif kind == 3:
            mine.insert(at, rng.choice(theirs))
        elif kind == 4:
            start = rng.randrange(len(theirs))
            mine[at:at] = theirs[start:start + rng.choice((2, 3, 8))]
        else:
            mine.insert(at, rng.choice(PIECES))
    return b"".join(mine)


#: Operations that a pickler seldom or never writes, some with arguments at their bounds.
PIECES = [
    b"0", b"1", b"2", b"(", b"N", b"\x88", b"\x89", b"}", b"]", b")", b"\x8f", b"t", b"l", b"d", b"u", b"s", b"a", b"e", b"\x90",
    b"\x91", b"\x85", b"\x86", b"\x87", b"\x94", b"h\x00", b"h\x01", b"h\x05", b"q\x00", b"q\x07", b"q\xff", b"j\x03\0\0\0",
    b"r\x09\0\0\0", b"r\xff\xff\xff\xff", b"g0\n", b"p0\n", b"p-1\n", b"g 1\n", b"I01\n", b"I00\n", b"I 7\n", b"I0x10\n", b"I1_0\n",
    b"L7L\n", b"L7\n", b"F1.5\n", b"Finf\n", b"F 1\n", b"F1_0\n", b"S'room'\n", b'S"emit"\n', b"S'a\\x41'\n", b"S'\xe9'\n", b"V\\u0072oom\n",
    b"V\\ud800\n", b"\x8a\x00", b"\x8a\x01\xff", b"\x8b\x02\0\0\0\x01\x00", b"\x8b\xff\xff\xff\xff", b"G\x7f\xf8\0\0\0\0\0\0",
    b"U\x04room", b"T\x04\0\0\0emit", b"X\x04\0\0\0room", b"X\x01\0\0\0\xff", b"\x8c\x04room", b"\x8c\x06method", b"\x8c\x03\xed\xa0\x80",
    b"C\x01r", b"B\x01\0\0\0r", b"\x8d\x04\0\0\0\0\0\0\0room", b"\x8e\x01\0\0\0\0\0\0\0r", b"\x96\x01\0\0\0\0\0\0\0r",
    b"\x80\x02", b"\x80\x06", b"\x80\x00", b"\x95\x05\0\0\0\0\0\0\0", b"\x95\0\0\0\0\0\0\0\0", b"\x97", b"\x98", b"P1\n", b"Q", b"R", b"b",
    b"\x81", b"\x92", b"o", b"\x93", b"\x82\x01", b"\x83\x01\0", b"\x84\x01\0\0\0", b"cbuiltins\nbytearray\n", b"c__builtin__\nbytes\n",
    b"c_codecs\nencode\n", b"cos\nsystem\n", b"ibuiltins\neval\n", b".",
]


def program(rng):
    """A pickle that no pickler wrote: a dict's items by any operations, and anything in between."""
    parts = [rng.choice((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"")), b"}", rng.choice((b"", b"\x94", b"q\x00")), b"("]
    for _ in range(rng.randrange(1, 7)):
        key = rng.choice(("method", "room", "namespace", "sid", "host_id", "data")).encode()
        parts.append(rng.choice((b"\x8c" + bytes([len(key)]), b"X" + struct.pack("<I", len(key)))) + key)
        parts.append(rng.choice((b"\x8c\x04emit", b"\x8c\x01/", b"N", b"K\x07", b"](K\x01\x8c\x01ae", b"K\x01\x85", b"}\x8c\x01aNs", b"h\x00",
                                 b"\x88", b"G?\xf8\0\0\0\0\0\0", b"C\x01a", b"(K\x01K\x02t", b"\x8f(K\x01\x90")))
        if rng.random() < 0.2:
            parts.append(rng.choice(PIECES))
    parts += [b"u", b"."]
    if rng.random() < 0.5:
        parts.insert(rng.randrange(len(parts)), rng.choice(PIECES))
    return b"".join(parts)


# ---- comparing ----

def explain(program, payloads):
    stream = b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)
    done = subprocess.run([program], input=stream, stdout=subprocess.PIPE, check=True)
    lines = done.stdout.decode("utf-8").split("\n")[:-1]
    assert len(lines) == len(payloads), (len(lines), len(payloads))
    return [json.loads(line) for line in lines]


def differs(explained, message):
    for key, expected in view(message).items():
        got = explained[key]
        if joined(got) == joined(expected):
            continue
        if key == "rooms" and got is None and isinstance(message.get("room"), bytearray):
            continue  # made by a call: its bytes are not looked at
        return f"{key}: Python says {expected!r}, explain {got!r}"
    return None


def depth_of(text):
    depth = deepest = 0
    for byte in text:
        depth += byte in b"[{"
        depth -= byte in b"]}"
        deepest = max(deepest, depth)
    return deepest


def check_one(payload, explained, whole):
    """What is wrong, or None."""
    accepted = explained["refused"] is None and explained["encoding"] != "opaque"
    if explained["encoding"] == "json":
        loaded, message = load_json(payload)
        return differs(explained, message) if loaded else "accepted as JSON, and Python does not"
    if accepted:
        loaded, message = load_pickle(payload)
        return differs(explained, message) if loaded else "accepted as a pickle, and Python does not"
    if whole:
        return f"not accepted: {explained['refused']}"
    if explained["refused"] is None:  # opaque: no pickle at all, and no JSON
        if load_pickle(payload)[0]:
            return "opaque, and Python unpickles it"
        loaded, _ = load_json(payload)
        if loaded and b"\0" not in payload[:4] and payload[:1] not in b"\xef\xfe\xff" and depth_of(payload) < 250:
            return "opaque, and Python reads it as JSON"
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--count", type=int, default=60000 if os.environ.get("SIDRAIL_FULL", "0") not in ("", "0") else 3000)
    parser.add_argument("--seed", type=int, default=20251)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    maker = Maker(rng)
    payloads = []
    for number in range(options.count):
        as_json = number % 3 == 0
        message = maker.message(as_json)
        payloads.append((write_json if as_json else write_pickle)(message, rng))
    damaged = [damage(payload, rng) for payload in payloads for _ in range(4)]
    pickles = [payload for number, payload in enumerate(payloads) if number % 3 != 0]
    damaged += [remix(payload, rng.choice(pickles), rng) for payload in pickles for _ in range(3)]
    damaged += [program(rng) for _ in pickles]
    wrong = 0
    accepted = 0
    everything = payloads + damaged
    answers = explain(options.program, everything)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # a damaged pickle may ask for any length
    for number, (payload, explained) in enumerate(zip(everything, answers)):
        accepted += explained["refused"] is None and explained["encoding"] != "opaque"
        problem = check_one(payload, explained, number < len(payloads))
        if problem:
            wrong += 1
            if wrong <= 10:
                print(f"seed {options.seed}, payload {number}: {problem}\n  {payload!r}", file=sys.stderr)
    print(f"{len(payloads)} messages and {len(damaged)} damaged ones: {accepted} accepted, {wrong} wrong")
    return 1 if wrong else 0


sys.exit(main())
