"""What a stranger who may PUBLISH on the Redis of a cluster sends: envelopes and control messages made by hand, as
docs/broker-protocol.md has them."""
import struct

HEARTBEAT, ASK, WHERE, POSITIONS, GONE, JOINED = range(1, 7)
EMIT, ENTER_ROOM, PLAIN = 0, 4, 8
PICKLE, JSON15 = 0, 2
READY = 1


def field(data, width=1):
    return len(data).to_bytes(width, "little") + data


def envelope(partition, origin, sequence, payload, method=EMIT, dialect=JSON15, flags=PLAIN, channel=b"flask-socketio",
             message_id=1, rooms=None):
    head = struct.pack("<2sBBBBHIQQQ", b"S1", 1, flags, method, dialect, partition, 0, origin, sequence, message_id)
    named = b"\xff\xff" if rooms is None else struct.pack("<H", len(rooms)) + b"".join(field(room, 2) for room in rooms)
    return head + field(channel) + field(b"/", 2) + named + field(payload, 4)


def control(kind, sender, number, body):
    return struct.pack("<2sBBQQ", b"SC", 1, kind, sender, number) + body


def positions(pairs):
    return struct.pack("<H", len(pairs)) + b"".join(struct.pack("<HQ", *pair) for pair in pairs)


def ranges(triples):
    return struct.pack("<H", len(triples)) + b"".join(struct.pack("<HQH", *triple) for triple in triples)


def facts(flags=READY, age=0, used=0, carries=(), subscribed=(), tails=(), generic=()):
    return (struct.pack("<BQQQB", flags, age, used, used, len(carries)) + b"".join(struct.pack("<Q", h) for h in carries)
            + bytes([len(subscribed)]) + b"".join(field(name) for name in subscribed) + positions(tails)
            + struct.pack("<H", len(generic)) + b"".join(field(name) + struct.pack("<I", count) for name, count in generic))


def heartbeat(sender, number, **told):
    return control(HEARTBEAT, sender, number, facts(**told))


def origin_of(broker):
    return int(broker.status()["origin"], 16)


def partition_channel(partition, cluster="default"):
    return f"sidrail1:{cluster}:p:{partition:04x}"


def own_channel(origin, cluster="default"):
    return f"sidrail1:{cluster}:o:{origin:016x}"


CONTROL_CHANNEL = "sidrail1:default:c"
