"""What the transcoder writes is the same call to python-socketio itself.

    call ──▶ version S publishes ──▶ transcoder: S's dialect to R's ──▶ version R's manager and its listening thread ──▶ packets
    call ──▶ version R publishes ─────────────────────────────────────▶ the same                                    ──▶ packets

Random calls, published by each version and received by each one of another dialect: every client must get the packets, every
callback the arguments, that it would get in a cluster of R alone. Three known differences:

- json14 has one form for several arguments and for one list: its readers get a list, so what it published is one;
- json14 publishes a tuple of one or none as a list; transcoded, that is the one argument, or none;
- 5.14.0 has no form for bytes, and before 5.15 a bytearray cannot be published: it is received as bytes.
"""
import json
import pickle
import random
import struct
import subprocess

import pytest
from daemons import BUILD, PODS, ROOT, figure, python_of

SHORT = {"sio57": "5.7.2", "sio5142": "5.14.2", "current": "5.18.1"}
FULL = {"sio57": "5.7.2", "sio5130": "5.13.0", "sio5140": "5.14.0", "sio5142": "5.14.2", "sio5150": "5.15.0",
        "sio5151": "5.15.1", "current": "5.18.1"}
VERSIONS = figure(SHORT, FULL)
CALLS = figure(300, 1500)
SEED = 20261

WORDS = ("", "x", "a\tb\n\\\"", "größe", "日本", "😀", "\ud800", "a\0\x1f\x7f", "\u2028", "_placeholder", "num", "data", "r" * 300)
NUMBERS = (0, -1, 255, 256, 65535, 65536, 2**31 - 1, -2**31, 2**31, 2**53 + 1, 2**63, -2**63, 2**64, -2**70, 10**40, 0.0, -0.0,
           1.0, 0.1, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"), True, False)


def version_of(environment):
    return tuple(int(part) for part in VERSIONS[environment].split("."))


def dialect_of(environment):
    version = version_of(environment)
    return 0 if version < (5, 14) else 1 if version < (5, 15, 1) else 2


def work(environment, jobs):
    done = subprocess.run([python_of(environment), PODS / "dialect_pod.py", VERSIONS[environment]], input=pickle.dumps(jobs),
                          stdout=subprocess.PIPE, check=True, timeout=600)
    return pickle.loads(done.stdout)


def transcode(items):
    """Items (from, to, payload); answers (written, payload or why not)."""
    stream = b"".join(bytes(item[:2]) + struct.pack("<I", len(item[2])) + item[2] for item in items)
    answers = subprocess.run([BUILD / "tests" / "transcode_batch"], input=stream, stdout=subprocess.PIPE, check=True).stdout
    at, results = 0, []
    while at < len(answers):
        written, length = struct.unpack_from("<BI", answers, at)
        results.append((bool(written), answers[at + 5:at + 5 + length]))
        at += 5 + length
    assert len(results) == len(items)
    return results


class Maker:
    def __init__(self, rng):
        self.rng = rng

    def value(self, depth, binary):
        rng = self.rng
        kind = rng.randrange(10) if depth else rng.randrange(5)
        if kind == 0:
            return None
        if kind in (1, 2):
            return rng.choice(NUMBERS)
        if kind == 3 and binary:
            made = bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 2, 3, 300))))
            return bytearray(made) if rng.random() < 0.2 else made
        if kind in (3, 4):
            return rng.choice(WORDS)
        many = range(rng.choice((0, 1, 2, 3, 4)))
        if kind == 5:  # python-socketio does not look for bytes in a tuple
            return tuple(self.value(depth - 1, False) for _ in many)
        if kind in (6, 7):
            return [self.value(depth - 1, binary) for _ in many]
        # not 1 and "1" in one dict: JSON has one name for both, and its readers keep the last
        keys = rng.choice((WORDS, WORDS, WORDS, (1, 2.5, None, True, -7, 10**20, 1e300), ("1", "2.5", "null", "true")))
        return {rng.choice(keys): self.value(depth - 1, binary) for _ in many}

    def data(self):
        data = self.any_data()
        return data if data != (None,) else ("x",)  # no JSON version keeps that apart from no argument

    def any_data(self):
        rng = self.rng
        binary = rng.random() < 0.4
        kind = rng.randrange(4)
        if kind == 0:
            many = rng.choice((0, 1, 2, 2, 3))
            return tuple(self.value(2, binary) for _ in range(many))
        if kind == 1:
            return [self.value(2, binary) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        if kind == 2 and binary:
            return self.value(0, True)
        return self.value(3, binary)

    def call(self):
        rng = self.rng
        namespace = rng.choice(("/", "/", "/chat", "/none"))
        method = rng.choice(("emit",) * 8 + ("callback", "disconnect", "close_room", "enter_room", "leave_room"))
        sid = rng.choice(("sid-a", "sid-b", "nobody"))
        room = rng.choice(("a", "b", "größe", 1, True, 2.5, 1.0, "sid-a"))
        if method == "callback":
            return method, {"sid": sid, "namespace": namespace, "args": tuple(self.value(2, False) for _ in range(rng.randrange(4)))}
        if method == "disconnect":
            return method, {"sid": sid, "namespace": namespace}
        if method == "close_room":
            return method, {"room": room, "namespace": namespace}
        if method != "emit":
            return method, {"sid": sid, "namespace": namespace, "room": room}
        asks = rng.random() < 0.2
        rooms = (room,) if asks else (None, room, [room, "b"], ("a", 1, "größe"))
        return method, {"data": self.data(), "namespace": namespace, "room": rng.choice(rooms), "asks": asks,
                        "skip_sid": rng.choice((None, None, "sid-a", ["sid-a", "sid-b"]))}


def as_bytes(value):
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dict):
        return {key: as_bytes(each) for key, each in value.items()}
    return type(value)(map(as_bytes, value)) if isinstance(value, (list, tuple)) else value


def has_bytes(value):
    if isinstance(value, dict):
        return any(map(has_bytes, value.values()))
    return isinstance(value, (bytes, bytearray)) or (isinstance(value, (list, tuple)) and any(map(has_bytes, value)))


def meant(call, source, target):
    """The call of `source` as `target` should hear it, or None: it cannot."""
    method, arguments = call
    arguments = as_bytes(arguments)
    if method in ("enter_room", "leave_room") and version_of(target) < (5, 10):
        return None
    if method == "emit":
        data = arguments["data"]
        if version_of(target) < (5, 14, 2) and dialect_of(target) == 1 and has_bytes(data):
            return None
        if isinstance(data, tuple) and dialect_of(source) == 1:
            data = list(data)
        elif isinstance(data, tuple) and dialect_of(target) == 1:
            data = list(data) if len(data) > 1 else data[0] if data else None
        arguments = {**arguments, "data": data}
    return method, arguments


def pairs():
    return [(source, target) for source in VERSIONS for target in VERSIONS if dialect_of(source) != dialect_of(target)]


@pytest.fixture(scope="module")
def calls():
    print(f"seed {SEED}")
    maker = Maker(random.Random(SEED))
    return [maker.call() for _ in range(CALLS)]


@pytest.fixture(scope="module")
def published(calls):
    return {source: work(source, [("publish", call) for call in calls]) for source in VERSIONS}


@pytest.mark.parametrize("source, target", pairs())
def test_a_transcoded_call_reaches_clients_as_a_native_one(source, target, calls, published):
    numbers = [number for number, payload in enumerate(published[source])
               if payload is not None and meant(calls[number], source, target) is not None]
    natives = work(target, [("publish", meant(calls[number], source, target)) for number in numbers])
    written = transcode([(dialect_of(source), dialect_of(target), published[source][number]) for number in numbers])
    compared = [(number, native, out) for number, native, (good, out) in zip(numbers, natives, written)
                if native is not None and (good or pytest.fail(f"seed {SEED}, call {calls[number]!r}: refused: {out}"))]
    assert len(compared) > CALLS / 2
    expected = work(target, [("receive", native) for _, native, _ in compared])
    got = work(target, [("receive", out) for _, _, out in compared])
    assert any(each["done"] for each in got)
    for (number, native, out), right, heard in zip(compared, expected, got):
        assert heard == right, f"seed {SEED}, call {calls[number]!r}\nnative {native!r}\ntranscoded {out!r}"


# ---- what was recorded ----

DIALECT_ENVIRONMENTS = {0: "sio57", 1: "sio5142", 2: "current"}


def recorded():
    """(what, dialect, payload) of tests/vectors, which versions from 5.7.2 to 5.16.3 published."""
    for line in (ROOT / "tests" / "vectors" / "vectors.jsonl").read_text().splitlines():
        vector = json.loads(line)
        version = tuple(int(part) for part in vector["sio"][1:].split("."))
        payload = bytes.fromhex(vector["hex"]) if vector["hex"] else (ROOT / "tests" / "vectors" / vector["file"]).read_bytes()
        dialect = 0 if version < (5, 14) else 1 if version < (5, 15, 1) else 2
        yield f"{vector['sio']} {vector['codec']} {vector['op']}", dialect, payload


def as_one_list(heard):
    """Several arguments, or none, as readers of json14 get them."""
    done = []
    for each in heard["done"]:
        if each[0] == "packet" and isinstance(each[2], str):
            at = each[2].index("[")
            event, *arguments = json.loads(each[2][at:])
            if len(arguments) != 1:
                each = (*each[:2], each[2][:at] + json.dumps([event, arguments or None]))
            else:
                each = (*each[:2], each[2][:at] + json.dumps([event, *arguments]))
        done.append(each)
    return {**heard, "done": done}


@pytest.mark.parametrize("target", DIALECT_ENVIRONMENTS)
def test_every_recorded_payload_is_the_same_call_in_every_dialect(target):
    payloads = [each for each in recorded() if each[1] != target]
    written = transcode([(dialect, target, payload) for _, dialect, payload in payloads])
    refused = [what for (what, *_), (good, _) in zip(payloads, written) if not good]
    # objects have no form in JSON
    assert all("pickle" in what for what in refused) and len(refused) < len(payloads) / 10, refused
    kept = [(what, dialect, payload, out) for (what, dialect, payload), (good, out) in zip(payloads, written) if good]
    got = work(DIALECT_ENVIRONMENTS[target], [("receive", out) for *_, out in kept])
    assert sum(bool(each["done"]) for each in got) > len(kept) / 2
    for dialect, environment in DIALECT_ENVIRONMENTS.items():
        mine = [(what, payload, out, heard) for (what, from_, payload, out), heard in zip(kept, got) if from_ == dialect]
        right = work(environment, [("receive", payload) for _, payload, _, _ in mine]) if mine else []
        for (what, payload, out, heard), expected in zip(mine, right):
            if target == 1:
                heard, expected = as_one_list(heard), as_one_list(expected)
            assert heard["done"] == expected["done"], f"{what}\nrecorded {payload[:300]!r}\ntranscoded {out[:300]!r}"
